package node

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner"
)

// oddFlow reports one flow of a stranger that sends much to a service inside.
func oddFlow(from string, port uint16, id uint64, at time.Time) *dataplane.Event {
	a := netip.AddrPortFrom(netip.MustParseAddr(from), port)
	k, fromB := flow.NewKey(a, netip.MustParseAddrPort("10.0.0.5:8443"), flow.TCP)
	r := flow.Record{Key: k, InitB: fromB, ID: id, RespInside: true, Start: at.UnixNano(), Last: at.Add(2 * time.Second).UnixNano(), Validated: [2]bool{true, true}}
	r.Dir[0] = flow.Dir{Packets: 64, Bytes: 90_000}
	r.Dir[1] = flow.Dir{Packets: 20, Bytes: 1_400}
	return &dataplane.Event{Kind: dataplane.EventMilestone, Record: r}
}

// attacked is a site with a model that an address attacks until there is an incident.
func attacked(t *testing.T) (x *learned, incident string) {
	t.Helper()
	x = newLearned(t)
	x.see(1500)
	x.train()
	x.outbox.drain()
	for i := range 200 {
		x.now = x.now.Add(time.Second)
		x.mu.Lock()
		x.setBudget()
		x.mu.Unlock()
		x.handle(oddFlow("203.0.113.7", uint16(20000+i), uint64(1+i), x.now))
		for _, a := range x.alerts() {
			return x, a[0]
		}
	}
	t.Fatal("no incident came of 200 odd flows")
	return nil, ""
}

// alerts are the incidents and detectors that were told since last asked.
func (x *learned) alerts() (out [][2]string) {
	for _, j := range x.outbox.drain() {
		if j.emit != nil && j.emit.Alert != nil {
			out = append(out, [2]string{j.emit.Alert.Incident, j.emit.Alert.Detector})
		}
		x.do(j)
	}
	return out
}

// TestAConfirmedBehaviourIsKnownAtOnce: from the moment when somebody confirmed it,
// the first report of the same behaviour from another address is flagged by what is
// remembered, with no training between; without the word it is not.
func TestAConfirmedBehaviourIsKnownAtOnce(t *testing.T) {
	for _, confirmed := range []bool{true, false} {
		x, incident := attacked(t)
		before := x.learn.active().Hash()
		began := time.Now()
		if confirmed {
			if err := x.Label(t.Context(), incident, true); err != nil {
				t.Fatal(err)
			}
		}
		x.handle(oddFlow("198.51.100.77", 31000, 9999, x.now))
		took := time.Since(began)
		got := x.alerts()
		recalled := slices.ContainsFunc(got, func(a [2]string) bool { return a[1] == learner.Recall.String() && a[0] != incident })
		t.Logf("confirmed %v: flagged %v, %s after the word was begun", confirmed, recalled, took)
		if recalled != confirmed || x.learn.active().Hash() != before {
			t.Errorf("confirmed %v: the next event led to %v", confirmed, got)
		}
	}
}
