package planetest

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// rig is a fixture with the assertions that the cases share.
type rig struct {
	Fixture
	t     *testing.T
	ports int // used up by cases that need new flows again and again
}

func (r *rig) play(steps ...Step) {
	r.t.Helper()
	for i, s := range steps {
		if !r.inject(s) {
			r.t.Fatalf("step %d: dropped, expected to pass", i)
		}
	}
}

func (r *rig) inject(s Step) bool {
	r.t.Helper()
	passed, err := r.Inject(s.Hook, s.Frame)
	if err != nil {
		r.t.Fatalf("inject: %v", err)
	}
	return passed
}

func (r *rig) expect(passed bool, what string, steps ...Step) {
	r.t.Helper()
	for _, s := range steps {
		if got := r.inject(s); got != passed {
			r.t.Errorf("%s: passed %v, expected %v", what, got, passed)
		}
	}
}

func (r *rig) apply(rules ...dataplane.Rule) {
	r.t.Helper()
	if err := r.Apply(rules...); err != nil {
		r.t.Fatalf("apply: %v", err)
	}
}

func (r *rig) events() []dataplane.Event {
	r.t.Helper()
	var out []dataplane.Event
	if err := r.Poll(func(e *dataplane.Event) { out = append(out, *e) }); err != nil {
		r.t.Fatalf("poll: %v", err)
	}
	return out
}

// only returns the single pending event of a kind.
func (r *rig) only(kind dataplane.EventKind) dataplane.Event {
	r.t.Helper()
	return one(r.t, r.events(), kind)
}

func one(t *testing.T, events []dataplane.Event, kind dataplane.EventKind) dataplane.Event {
	t.Helper()
	var got []dataplane.Event
	for _, e := range events {
		if e.Kind == kind {
			got = append(got, e)
		}
	}
	if len(got) != 1 {
		t.Fatalf("events of kind %d: got %d, expected 1 (of %d in all)", kind, len(got), len(events))
	}
	return got[0]
}

func (r *rig) stats() dataplane.Stats {
	r.t.Helper()
	s, err := r.Stats()
	if err != nil {
		r.t.Fatalf("stats: %v", err)
	}
	return s
}

// listed returns the read-back of a target's rule.
func (r *rig) listed(target dataplane.Target) (dataplane.Hit, bool) {
	r.t.Helper()
	hits, err := r.Rules()
	if err != nil {
		r.t.Fatalf("rules: %v", err)
	}
	for _, h := range hits {
		if h.Rule.Target == target {
			return h, true
		}
	}
	return dataplane.Hit{}, false
}

// within polls a condition until it holds.
func (r *rig) within(d time.Duration, what string, cond func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(d)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within %s", what, d)
		}
		<-tick.C
	}
}

func same[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, expected %v", what, got, want)
	}
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// family is one set of addresses; rule forms are tried in both.
type family struct {
	name                  string
	host, host2           netip.AddrPort // inside
	peer, peer2, stranger netip.AddrPort // outside; peer and peer2 share prefix, stranger does not
	prefix, wide          netip.Prefix
	icmp                  uint8
}

func families() []family {
	return []family{
		{"v4", ap("10.1.0.5:40001"), ap("10.1.0.6:40002"),
			ap("203.0.113.9:443"), ap("203.0.113.77:8443"), ap("198.51.100.4:443"),
			netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("203.0.0.0/16"), flow.ICMP},
		{"v6", ap("[fd00:1::5]:40001"), ap("[fd00:1::6]:40002"),
			ap("[2001:db8:7::9]:443"), ap("[2001:db8:7:ffff::77]:8443"), ap("[2001:db8:8::4]:443"),
			netip.MustParsePrefix("2001:db8:7::/48"), netip.MustParsePrefix("2001:db8::/32"), flow.ICMPv6},
	}
}

func key(a, b netip.AddrPort, proto uint8) flow.Key {
	k, _ := flow.NewKey(a, b, proto)
	return k
}

func out(f family, dst netip.AddrPort) Step {
	return Datagram(dataplane.FromInside, f.host, dst, []byte("ping"))
}

func in(f family, src netip.AddrPort) Step {
	return Datagram(dataplane.ToInside, src, f.host, []byte("pong"))
}

func later() time.Time { return time.Now().Add(time.Minute) }

func isFull(err error) bool { return errors.Is(err, dataplane.ErrFull) }
