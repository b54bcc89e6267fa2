package node

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
)

// reported judges n reports of flows to many peers, by 20 hosts of which the
// first few are other than the rest.
func (x *learned) reported(n, others int) {
	for i := range n {
		host := i % 20
		v := x.ordinary()
		if host < others {
			for k := range 6 {
				v.X[k] = 0.95
			}
		}
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(host + 1)}), 40000)
		dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i % 200)}), 443)
		k, fromB := flow.NewKey(src, dst, flow.TCP)
		ev := &dataplane.Event{Kind: dataplane.EventMilestone, Record: flow.Record{Key: k, InitB: fromB, ID: uint64(i), InitInside: true}}
		x.mu.Lock()
		x.drifted(x.now, ev, enforce.Judgement{Judged: true, P: 0.5}, &v, 0.5, "")
		x.mu.Unlock()
	}
}

// A drift is told with what moved and who moved it, and leads to a new model when
// the new traffic has waited.
func TestDriftLeadsToANewModel(t *testing.T) {
	x := newLearned(t)
	x.reported(3000, 20)
	if x.drifts.last != nil {
		t.Fatal("drift without a model that learnt anything")
	}
	x.see(1500)
	x.train()
	x.reported(4000, 0)
	if d := x.drifts.last; d != nil {
		t.Fatalf("drift without a change: %s", d.Words)
	}
	x.reported(2000, 10)
	s, err := x.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := s.Learning.Drift
	if d == nil || d.Kind != "inputs" || len(d.Features) == 0 || len(d.Hosts) == 0 {
		t.Fatalf("%+v: expected a drift of inputs with features and hosts", d)
	}
	for _, h := range d.Hosts {
		var last int
		if _, err := fmt.Sscanf(h, "10.0.0.%d ", &last); err != nil || last > 10 || !strings.Contains(d.Words, h) {
			t.Errorf("hosts %q in %q: expected some of those that moved it", d.Hosts, d.Words)
		}
	}
	x.driftDue(x.now)
	if x.learn.reason() != "" {
		t.Error("a new model is wanted before the new traffic has waited")
	}
	x.now = d.Retrain.Add(time.Hour)
	x.driftDue(x.now)
	if why := x.learn.reason(); !strings.Contains(why, "otherwise than what the model learnt") {
		t.Errorf("wanted because %q", why)
	}
	x.see(1500)
	if err := x.learn.train(t.Context(), x.learn.takeReason()); err != nil {
		t.Fatal(err)
	}
	ms := x.list(t.Context())
	if last := ms[len(ms)-1]; !strings.Contains(last.Life.History[0].Why, "because traffic is otherwise") {
		t.Errorf("its life begins with %q", last.Life.History[0].Why)
	}
}
