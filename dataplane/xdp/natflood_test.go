package xdp

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// besiege sends forged SYNs to the gateway's forwarded port until the test ends.
func (r *router) besiege(t *testing.T) (sent *atomic.Int64) {
	t.Helper()
	f := r.l.forge(t, end{r.world, "eth0"}, end{r.gw, "wan0"}, netip.AddrPortFrom(r.wan, 8080))
	sent = new(atomic.Int64)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		steadily(2*time.Millisecond, stop, func() {
			if f.send() == nil {
				sent.Add(1)
			}
		})
	})
	t.Cleanup(func() { close(stop); wg.Wait() })
	eventually(t, "the flood to begin", func() bool { return sent.Load() > 200 })
	return sent
}

// A service behind the gateway's forwarded port is flooded by forged sources.
// Unknown clients are asked for a proof at the outside, by the address that the
// world knows. A real one passes, its connection is translated and is one flow,
// at the inside; what hosts begin goes on meanwhile.
func TestChallengeAheadOfPortForwarding(t *testing.T) {
	for name, tuns := range map[string][]string{"ethernet": nil, "tun outside": {"wan0"}} {
		t.Run(name, func(t *testing.T) { challengeAheadOfPortForwarding(t, newRouter(t, tuns...)) })
	}
}

func challengeAheadOfPortForwarding(t *testing.T, r *router) {
	if !r.tuns["wan0"] {
		r.l.hears(t, r.world, "eth0")
	}
	r.l.in(t, r.gw, func() { // what answers the forged sources goes back there
		check(t, netlink.RouteAdd(&netlink.Route{Gw: net.IP(r.server.AsSlice())}))
	})
	p := r.open(t)
	events := collect(t, p)
	at := netip.AddrPortFrom
	r.serve(t, r.world, at(r.server, 443))
	r.serve(t, r.hosts, at(r.host1, 80))
	check(t, p.SetFlood(dataplane.Flood{Service: 5, Protected: []dataplane.Guarded{{Prefix: netip.PrefixFrom(r.wan, 32), Port: 8080}}}))
	r.besiege(t)
	const calls = 3
	for range calls {
		if err := r.talk(t, r.world, r.server, at(r.wan, 8080), 2*patience); err != nil {
			t.Fatalf("inwards, during the flood: %v", err)
		}
	}
	if err := r.talk(t, r.hosts, r.host2, at(r.server, 443), patience); err != nil {
		t.Errorf("outwards, during the flood: %v", err)
	}
	var ends []flow.Record
	eventually(t, "the ends of all connections", func() bool {
		ends = events.tcpEndsOf(r.server)
		return len(ends) >= calls+1
	})
	s, err := p.Stats()
	check(t, err)
	if len(ends) != calls+1 {
		t.Errorf("%d flows of the client ended: expected %d", len(ends), calls+1)
	}
	for _, rec := range ends {
		if !rec.Validated[0] || !rec.Validated[1] || rec.Dir[0].SYN != 1 || rec.Dir[0].Payload+1500*s.FlowsUntracked < talked {
			t.Errorf("%+v: expected one SYN, all bytes, and both ends validated", rec)
		}
		if !rec.InitInside && (rec.Responder() != at(r.host1, 80) || rec.Initiator().Addr() != r.server) {
			t.Errorf("%+v: expected the client's call under the host's own address", rec)
		}
	}
	fl := s.Flood
	if fl.Challenges < 100 || fl.Proofs == 0 || s.Dropped > fl.Challenges {
		t.Errorf("%d challenges, %d proofs, %d dropped: expected many, some, few", fl.Challenges, fl.Proofs, s.Dropped)
	}
	if s.FlowsTotal > fl.Challenges {
		t.Errorf("%d flows made, %d challenges: expected the forged ones to make few", s.FlowsTotal, fl.Challenges)
	}
	t.Logf("%d challenges, %d proofs, %d flows, %d dropped", fl.Challenges, fl.Proofs, s.FlowsTotal, s.Dropped)
}

// tcpEndsOf are the TCP flows with an end at an address that ended and were more
// than resets.
func (c *collector) tcpEndsOf(a netip.Addr) (out []flow.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.events {
		r := &c.events[i].Record
		if c.events[i].Kind == dataplane.EventEnd && r.Key.Proto == flow.TCP && (r.Key.A == a || r.Key.B == a) && !r.OnlyResets() {
			out = append(out, *r)
		}
	}
	return out
}
