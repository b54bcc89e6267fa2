package xdp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// Resets that belong to no flow push out nothing, however many come: neither
// flows nor what is known of single packets.
func TestResetsPushOutNothing(t *testing.T) {
	f := newFixture(t, Options{MaxFlows: minMaxFlows, EventRate: 1})
	const flows = minMaxFlows / 8
	before := make(map[flow.Key]uint64)
	for i := range flows {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 4000)
		for range 1 + i%2 {
			inject(t, f, planetest.Datagram(dataplane.FromInside, a, endpoint("192.0.2.1:53"), []byte("x")))
		}
	}
	for k, r := range tracked(t, f) {
		before[k] = r.Id
	}
	for i := range 20 * minMaxFlows {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 7)
		s := planetest.NewSession(src, endpoint("10.0.0.1:2"))
		s.ServerInside = true
		inject(t, f, s.Send(0, flow.RST, nil))
	}
	after := tracked(t, f)
	for k, id := range before {
		if after[k].Id != id {
			t.Fatalf("%s was pushed out", k)
		}
	}
	s, err := f.Stats()
	check(t, err)
	if len(before) < flows*7/8 || s.FlowsUntracked == 0 || s.Flows != uint64(len(after)) || len(after) == len(before) {
		t.Errorf("%d flows before, %d after, by the counters %d, %d packets untracked: expected more after, and most resets untracked",
			len(before), len(after), s.Flows, s.FlowsUntracked)
	}
}

// A reset buys nothing: the SYN behind it is as new to a budget as without it.
func TestResetsOpenNoBudget(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce})
	check(t, f.SetFlood(dataplane.Flood{Source: 5}))
	passed, begun := 0, time.Now()
	for i := range 60 {
		s := planetest.NewSession(netip.AddrPortFrom(world.Addr(), uint16(2000+i)), insideHost)
		s.ServerInside = true
		if !inject(t, f, s.Send(0, flow.RST, nil)) {
			t.Fatal("a reset without a flow was dropped")
		}
		if inject(t, f, s.Send(0, flow.SYN, nil)) {
			passed++
		}
	}
	if most := 6 + int(5*time.Since(begun)/time.Second); passed < 5 || passed > most {
		t.Errorf("%d of 60 SYNs passed a budget of 5 a second in %s: expected at most %d", passed, time.Since(begun), most)
	}
}
