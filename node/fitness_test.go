package node

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner/quality"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

var fitPeer = netip.MustParseAddrPort("198.51.100.9:443")

// offers lets n reports of ended flows come in whose clock is off by skew.
func (x *learned) offers(n int, skew time.Duration) {
	host := netip.MustParseAddr("10.0.0.3")
	for i := range n {
		x.now = x.now.Add(100 * time.Millisecond)
		at := x.now.Add(skew).UnixNano()
		k, fromB := flow.NewKey(netip.AddrPortFrom(host, uint16(1024+i)), fitPeer, flow.TCP)
		ev := &dataplane.Event{Kind: dataplane.EventEnd, Record: flow.Record{Key: k, InitB: fromB, InitInside: true, Start: at, Last: at}}
		v := x.ordinary()
		x.learn.mu.Lock()
		x.learn.offer(x.now, ev, &v, fitPeer)
		x.learn.mu.Unlock()
	}
}

func (x *learned) verdicts() (out []string) {
	for _, j := range x.outbox.drain() {
		if j.emit != nil && j.emit.Kind == event.KindQuality {
			if err := j.emit.Validate(); err != nil {
				x.t.Error(err)
			}
			out = append(out, j.emit.Quality.Verdict)
		}
		x.do(j)
	}
	return out
}

// TestBadWindowsTrainNothing: what a bad window holds is in no training and in no
// examination; a good one after it teaches, and both are told.
func TestBadWindowsTrainNothing(t *testing.T) {
	x := newLearned(t)
	x.offers(400, 48*time.Hour)
	if s := x.learn.snapshot(); len(s.normal) != 0 || x.learn.pool.Len() != 0 || x.learn.later.Len() != 0 {
		t.Fatalf("%d reports of the future teach", len(s.normal))
	}
	if q := x.learn.quality(); q == nil || q.Verdict != string(quality.Bad) || q.ClockAhead != 400 {
		t.Fatalf("the last window is %+v", q)
	}
	x.learn.first = x.now
	x.offers(400, 0)
	if s := x.learn.snapshot(); len(s.normal) == 0 || x.learn.pool.Len() == 0 {
		t.Fatal("a good window teaches nothing")
	}
	if got := x.verdicts(); len(got) != 2 || got[0] != "bad" || got[1] != "good" {
		t.Errorf("told %v, expected bad and good", got)
	}
	st, err := x.Status(t.Context())
	if err != nil || st.Learning.Quality == nil || st.Learning.Quality.Kept != 400 {
		t.Errorf("status says %+v (%v)", st.Learning.Quality, err)
	}
}

// TestFullWindowsWait: windows are judged when they are full, whoever trains, and
// an indicted peer's reports leave those that wait as well.
func TestFullWindowsWait(t *testing.T) {
	x := newLearned(t)
	x.offers(2500, 0)
	if n := len(x.learn.fit.full); n != 2 || x.learn.pool.Len() != 0 {
		t.Fatalf("%d full windows, %d reports in the pool: expected 2 and none", n, x.learn.pool.Len())
	}
	x.learn.judgeFull()
	if x.learn.pool.Len() == 0 || x.learn.fit.open.Len() != 2500-2048 {
		t.Errorf("%d in the pool, %d wait", x.learn.pool.Len(), x.learn.fit.open.Len())
	}
	before := x.learn.pool.Len()
	x.learn.mu.Lock()
	x.learn.fit.forget(hashAddr(fitPeer.Addr()))
	x.learn.mu.Unlock()
	x.learn.judgeAll()
	if x.learn.fit.open.Len() != 0 || x.learn.pool.Len() != before {
		t.Errorf("reports of an indicted peer were learnt: %d in the pool, %d before", x.learn.pool.Len(), before)
	}
}

// TestSuspectsAreHeldBack: what the peer of an incident did teaches nothing and
// examines nobody until the incident is dismissed.
func TestSuspectsAreHeldBack(t *testing.T) {
	x := newLearned(t)
	x.learn.first = x.now
	x.offers(400, 0)
	before := len(x.learn.snapshot().normal)
	x.mu.Lock()
	x.act([]enforce.Effect{{Emit: &event.Event{Kind: event.KindAlert, Alert: &event.Alert{Peer: fitPeer.Addr().String()}}}})
	x.mu.Unlock()
	if n := len(x.learn.snapshot().normal); before == 0 || n != 0 {
		t.Errorf("%d of %d reports of a suspected peer teach", n, before)
	}
	if n := len(x.learn.exam(time.Time{}, 0.001).Normal); n != 0 {
		t.Errorf("%d reports of a suspected peer examine models", n)
	}
	x.learn.label(&enforce.Label{Incident: "i", Peer: fitPeer.Addr()}, nil)
	if n := len(x.learn.snapshot().normal); n != before {
		t.Errorf("%d of %d reports teach after the dismissal", n, before)
	}
}
