package planetest

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func budgetCases() []testCase {
	return []testCase{
		{"a source over its budget", dataplane.Enforce, overSource},
		{"the neighbours of a source over their budget", dataplane.Enforce, overNet},
		{"a service over its budget", dataplane.Enforce, overService},
		{"a destination over its budget", dataplane.Enforce, overDestination},
		{"a budget asks the never-block list", dataplane.Enforce, budgetNever},
		{"in monitor mode a budget only counts", dataplane.Monitor, budgetMonitor},
		{"who proved an address is held to its own budget", dataplane.Enforce, budgetProof},
		{"budgets change and end", dataplane.Enforce, budgetChange},
		{"the breaker lets pass what it does not follow", dataplane.Enforce, breakerPasses},
		{"the breaker drops when told so", dataplane.Enforce, breakerDrops},
		{"a handshake forged from one side proves nothing", dataplane.Enforce, forgedHandshake},
		{"forged sources of every protocol prove nothing", dataplane.Enforce, forgedSources},
	}
}

func (r *rig) flood(f dataplane.Flood) {
	r.t.Helper()
	g, ok := r.Fixture.(dataplane.FloodGuard)
	if !ok {
		r.t.Fatal("the plane stands no floods: expected a dataplane.FloodGuard")
	}
	if err := g.SetFlood(f); err != nil {
		r.t.Fatalf("set flood: %v", err)
	}
}

// burst plays n steps of what make returns and expects as many to pass as a
// bucket of rate tokens a second gives: all that it holds, and what runs in
// meanwhile.
func (r *rig) burst(what string, rate, n int, next func(i uint16) Step) (refused uint64) {
	r.t.Helper()
	start, passed := time.Now(), 0
	for i := range n {
		if r.inject(next(uint16(i))) {
			passed++
		}
	}
	most := rate + 1 + int(time.Since(start).Seconds()*float64(rate))
	if passed < rate || passed > most {
		r.t.Errorf("%s: %d of %d passed, expected %d to %d", what, passed, n, rate, most)
	}
	return uint64(n - passed)
}

func port(a netip.AddrPort, p uint16) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), p) }

func overSource(t *testing.T, r *rig) {
	for k, f := range families() {
		r.flood(dataplane.Flood{})
		known := in(f, f.peer)
		r.play(known)
		r.flood(dataplane.Flood{Source: 5})
		before := r.stats().Flood.BudgetDropped["source"]
		refused := r.burst(f.name+": new flows of one source", 5, 40, func(i uint16) Step {
			return Datagram(dataplane.ToInside, port(f.peer, 1000+i), f.host, nil)
		})
		same(t, "counted", r.stats().Flood.BudgetDropped["source"]-before, refused)
		r.expect(true, "a flow that was there", known, out(f, f.peer))
		r.expect(true, "another source", in(f, f.stranger))
		for i := range uint16(40) {
			r.expect(true, "towards it from inside", Datagram(dataplane.FromInside, port(f.host, 2000+i), f.peer, nil))
		}
		if k > 0 {
			continue // what follows may be told once a second only
		}
		e := one(t, r.events(), dataplane.EventFlood)
		same(t, "kind", e.Flood, dataplane.OverSource)
		same(t, "mode", e.Mode, dataplane.Enforce)
		same(t, "sender", e.Record.Initiator().Addr(), f.peer.Addr())
		same(t, "sides", [2]bool{e.Record.InitInside, e.Record.RespInside}, [2]bool{false, true})
		same(t, "proof", e.Record.Validated, [2]bool{})
		r.within(5*time.Second, "the next of its kind may be told", func() bool {
			r.inject(Datagram(dataplane.ToInside, port(f.peer, uint16(3000+time.Now().UnixNano()%20000)), f.host, nil))
			return hasFlood(r.events(), dataplane.OverSource)
		})
	}
	same(t, "rules", r.stats().RulesEnforced, 0)
}

func hasFlood(all []dataplane.Event, kind dataplane.FloodKind) bool {
	for _, e := range all {
		if e.Kind == dataplane.EventFlood && e.Flood == kind {
			return true
		}
	}
	return false
}

func overNet(t *testing.T, r *rig) {
	for name, c := range map[string]struct {
		flood          dataplane.Flood
		kind           string
		one, two, free netip.AddrPort
	}{
		"/24": {dataplane.Flood{SourceNet: 5}, "source-net", ap("203.0.113.9:1"), ap("203.0.113.77:1"), ap("203.0.114.9:1")},
		"/56": {dataplane.Flood{SourceNet: 5}, "source-net", ap("[2001:db8:7:1::9]:1"), ap("[2001:db8:7:2::9]:1"), ap("[2001:db8:7:100::9]:1")},
		"/64": {dataplane.Flood{Source: 5}, "source", ap("[2001:db8:9:1::9]:1"), ap("[2001:db8:9:1:ffff::1]:1"), ap("[2001:db8:9:2::9]:1")},
	} {
		host := families()[0].host
		if c.one.Addr().Is6() {
			host = families()[1].host
		}
		before := r.stats().Flood.BudgetDropped[c.kind]
		r.flood(c.flood)
		refused := r.burst(name, 5, 40, func(i uint16) Step {
			from := c.one
			if i&1 == 1 {
				from = c.two
			}
			return Datagram(dataplane.ToInside, port(from, 1000+i), host, nil)
		})
		same(t, name+": counted", r.stats().Flood.BudgetDropped[c.kind]-before, refused)
		r.expect(true, name+": beside it", Datagram(dataplane.ToInside, c.free, host, nil))
	}
}

// crowd is a source of its own for every i.
func crowd(f family, i uint16) netip.AddrPort {
	b := f.stranger.Addr().As16()
	b[5], b[13], b[14] = byte(i), byte(i>>8)+1, byte(i) // in IPv4 the last two are of /16
	return netip.AddrPortFrom(netip.AddrFrom16(b).Unmap(), 4000)
}

func overService(t *testing.T, r *rig) {
	for _, f := range families() {
		before := r.stats().Flood.BudgetDropped["service"]
		r.flood(dataplane.Flood{Service: 5})
		refused := r.burst(f.name+": many sources, one service", 5, 40, func(i uint16) Step {
			return Datagram(dataplane.ToInside, crowd(f, i), f.host, nil)
		})
		same(t, "counted", r.stats().Flood.BudgetDropped["service"]-before, refused)
		r.expect(true, "another port", Datagram(dataplane.ToInside, crowd(f, 0), port(f.host, 99), nil))
		r.expect(true, "another protocol", NewSession(crowd(f, 1), f.host).syn())
		r.expect(true, "another host", Datagram(dataplane.ToInside, crowd(f, 2), f.host2, nil))
	}
}

// syn is the first segment of a connection to an inside server.
func (s *Session) syn() Step {
	s.ServerInside = true
	return s.Send(0, flow.SYN, nil)
}

func overDestination(t *testing.T, r *rig) {
	for _, f := range families() {
		before := r.stats().Flood.BudgetDropped["destination"]
		r.flood(dataplane.Flood{Destination: 5})
		refused := r.burst(f.name+": many sources, one address", 5, 40, func(i uint16) Step {
			return Datagram(dataplane.ToInside, crowd(f, i), port(f.host, 100+i), nil)
		})
		same(t, "counted", r.stats().Flood.BudgetDropped["destination"]-before, refused)
		r.expect(true, "another host", Datagram(dataplane.ToInside, crowd(f, 1), f.host2, nil))
	}
}

func budgetNever(t *testing.T, r *rig) {
	f := families()[0]
	r.never(dataplane.Never{Prefix: dataplane.Peer(f.peer.Addr()).Prefix})
	r.flood(dataplane.Flood{Source: 1, Service: 1})
	for i := range uint16(20) {
		r.expect(true, "never-block source over budgets", Datagram(dataplane.ToInside, port(f.peer, 1000+i), f.host, nil))
	}
	s := r.stats()
	if s.NeverSaved < 15 || s.Dropped != 0 || len(s.Flood.BudgetDropped) != 0 {
		t.Errorf("saved %d, dropped %d, over budget %v: expected nearly 20, 0, none", s.NeverSaved, s.Dropped, s.Flood.BudgetDropped)
	}
	same(t, "flows", s.FlowsTotal, 20)
}

func budgetMonitor(t *testing.T, r *rig) {
	f := families()[0]
	r.flood(dataplane.Flood{Source: 5, SourceNet: 6, Service: 7, Destination: 8})
	for i := range uint16(60) {
		r.expect(true, "in monitor mode", Datagram(dataplane.ToInside, port(f.peer, 1000+i), f.host, nil))
	}
	s := r.stats()
	if n, err := r.Fixture.(dataplane.FloodGuard).FloodTotals(); err != nil || !reflect.DeepEqual(n, s.Flood) {
		t.Errorf("totals %+v, %v: expected those of the statistics, %+v", n, err, s.Flood)
	}
	if s.WouldDrop < 40 || s.WouldDrop != s.Flood.BudgetDropped["source"] || s.Dropped != 0 {
		t.Errorf("would drop %d, over budget %v, dropped %d: expected over 40, the same as source, 0",
			s.WouldDrop, s.Flood.BudgetDropped, s.Dropped)
	}
	same(t, "mode of the event", r.only(dataplane.EventFlood).Mode, dataplane.Monitor)
}

func budgetProof(t *testing.T, r *rig) {
	for _, f := range families() {
		r.flood(dataplane.Flood{Source: 20, Service: 3})
		s := NewSession(port(f.peer, 50000), f.host)
		s.ServerInside = true
		r.play(s.Open()...)
		flood := func() {
			for i := range uint16(50) {
				r.inject(NewSession(crowd(f, i), f.host).syn())
			}
		}
		flood()
		passed := 0
		for i := range uint16(10) {
			flood()
			if r.inject(NewSession(port(f.peer, 1000+i), f.host).syn()) {
				passed++
			}
		}
		same(t, f.name+": new flows of who proved its address", passed, 10)
		refused := 0
		for i := range uint16(200) {
			if !r.inject(NewSession(port(f.peer, 2000+i), f.host).syn()) {
				refused++
			}
		}
		if refused < 100 {
			t.Errorf("%s: %d of 200 refused: expected a proof to be no free pass", f.name, refused)
		}
	}
	same(t, "proofs", r.stats().Flood.Proofs, 2)
}

func budgetChange(t *testing.T, r *rig) {
	f := families()[0]
	r.flood(dataplane.Flood{Source: 1})
	r.burst("a narrow budget", 1, 20, func(i uint16) Step {
		return Datagram(dataplane.ToInside, port(f.peer, 1000+i), f.host, nil)
	})
	g := r.Fixture.(dataplane.FloodGuard)
	for _, bad := range []dataplane.Flood{
		{Source: 1 << 30},
		{Protected: []dataplane.Guarded{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}}},
		{Dark: []netip.Prefix{{}}},
		{Dark: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}},
		{Service: 1, Protected: []dataplane.Guarded{{Prefix: f.prefix}}, Dark: []netip.Prefix{f.prefix}},
	} {
		if g.SetFlood(bad) == nil {
			t.Errorf("set flood %+v: expected an error", bad)
		}
	}
	r.expect(false, "after settings that were refused", Datagram(dataplane.ToInside, port(f.peer, 1999), f.host, nil))
	r.flood(dataplane.Flood{})
	for i := range uint16(20) {
		r.expect(true, "no budget", Datagram(dataplane.ToInside, port(f.peer, 3000+i), f.host, nil))
	}
}

// breakerLimit is, at a quarter of a second, ten new flows a window.
const breakerLimit = 40

// trip floods until the breaker is open, and leaves it open for a window.
func (r *rig) trip(f family, from uint16) {
	r.t.Helper()
	for i := range uint16(200) {
		r.inject(Datagram(dataplane.ToInside, crowd(f, from+i), f.host, nil))
	}
}

func breakerPasses(t *testing.T, r *rig) {
	f := families()[0]
	known := in(f, f.peer)
	r.play(known)
	r.never(dataplane.Never{Prefix: dataplane.Peer(f.peer2.Addr()).Prefix})
	s := NewSession(port(f.peer, 50000), f.host)
	s.ServerInside = true
	r.flood(dataplane.Flood{Breaker: breakerLimit})
	r.play(s.Open()...)
	// A stall of the machine may close it early, between any two packets: then again.
	for try := uint16(0); ; try++ {
		r.trip(f, try*200)
		before := r.stats()
		r.expect(true, "unknown", Datagram(dataplane.ToInside, port(f.stranger, try), f.host, nil))
		bare := r.stats()
		r.expect(true, "a flow that was there", known)
		r.expect(true, "proved", NewSession(port(f.peer, 1000+try), f.host).syn())
		r.expect(true, "never-block", Datagram(dataplane.ToInside, port(f.peer2, 1000+try), f.host, nil))
		r.expect(true, "outwards", Datagram(dataplane.FromInside, port(f.host2, 1000+try), f.peer, nil))
		tracked := r.stats()
		answer := NewSession(port(f.stranger, 1000+try), port(f.host2, 80))
		answer.ServerInside = true
		r.expect(true, "an answer to what is not followed", answer.Send(1, flow.SYN|flow.ACK, nil))
		after := r.stats()
		if !after.Flood.BreakerOpen[dataplane.ToInside] || after.Flood.BreakerTrips != before.Flood.BreakerTrips {
			if try == 20 {
				t.Fatal("the breaker did not stay open through seven packets in any of 20 tries")
			}
			continue
		}
		same(t, "flows of unknown", bare.FlowsTotal-before.FlowsTotal, 0)
		same(t, "untracked", bare.Flood.Untracked-before.Flood.Untracked, 1)
		same(t, "flows of proved, never-block and outwards", tracked.FlowsTotal-bare.FlowsTotal, 3)
		same(t, "flows of the answer", after.FlowsTotal-tracked.FlowsTotal, 0)
		break
	}
	st := r.stats()
	same(t, "dropped", st.Dropped, 0)
	if st.Flood.Untracked < 100 || st.FlowsTotal > st.Flood.Untracked {
		t.Errorf("untracked %d, flows %d: expected most of the flood not to be followed", st.Flood.Untracked, st.FlowsTotal)
	}
	r.within(5*time.Second, "closed again", func() bool { return !r.stats().Flood.BreakerOpen[dataplane.ToInside] })
	if !hasFlood(r.events(), dataplane.BreakerOpened) {
		t.Error("events: none says that the breaker opened")
	}
	r.expect(true, "after the flood", Datagram(dataplane.ToInside, port(f.stranger, 60000), f.host, nil))
	same(t, "flows after the flood", r.stats().FlowsTotal-st.FlowsTotal, 1)
	if !hasFlood(r.events(), dataplane.BreakerClosed) {
		t.Error("events: none says that the breaker closed")
	}
}

func breakerDrops(t *testing.T, r *rig) {
	f := families()[0]
	r.never(dataplane.Never{Prefix: dataplane.Peer(f.peer2.Addr()).Prefix})
	r.flood(dataplane.Flood{Breaker: breakerLimit, BreakerDrops: true})
	for i := range uint16(400) {
		r.inject(Datagram(dataplane.ToInside, crowd(f, i), f.host, nil))
		r.expect(true, "never-block", Datagram(dataplane.ToInside, port(f.peer2, i), f.host, nil))
	}
	for i := range uint16(400) {
		r.expect(true, "outwards", Datagram(dataplane.FromInside, port(f.host2, i), f.peer, nil))
	}
	s := r.stats()
	if s.Flood.BreakerDropped < 50 || s.Flood.BreakerDropped != s.Dropped {
		t.Errorf("dropped by the breaker %d, in all %d: expected the same, over 50", s.Flood.BreakerDropped, s.Dropped)
	}
}

// Someone outside plays both ends of a connection: the third party's, and with a
// forged source that of the inside server, whose number it then knows.
func forgedHandshake(t *testing.T, r *rig) {
	r.flood(dataplane.Flood{Source: 1000})
	for _, f := range families() {
		s := NewSession(f.peer, f.host)
		s.ServerInside = true
		for _, step := range s.Open() {
			step.Hook = dataplane.ToInside
			r.inject(step)
		}
		r.inject(Step{dataplane.ToInside, s.Data(0, []byte("x")).Frame})
		r.inject(Step{dataplane.ToInside, s.Send(0, flow.RST, nil).Frame})
		same(t, f.name+": proved", one(t, r.events(), dataplane.EventEnd).Record.Validated, [2]bool{})
	}
	same(t, "proofs", r.stats().Flood.Proofs, 0)
}

// Whoever is forged, however: no flow says that he proved his address, nothing is
// told of a proof, and he is on no list. Protected and dark addresses are among
// those that the forger tries.
func forgedSources(t *testing.T, r *rig) {
	rng := rand.New(rand.NewPCG(4, 2))
	for _, f := range families() {
		bits := f.host.Addr().BitLen()
		dark := netip.PrefixFrom(f.host2.Addr(), bits)
		r.flood(dataplane.Flood{Source: 10000, Service: 5, Dark: []netip.Prefix{dark},
			Protected: []dataplane.Guarded{{Prefix: netip.PrefixFrom(f.host.Addr(), bits)}}})
		for range 40 {
			for _, host := range []netip.Addr{f.host.Addr(), f.host2.Addr()} {
				for _, s := range Forge(rng, f.peer.Addr(), host, []uint16{22, 80, 443}[rng.IntN(3)]) {
					r.inject(s)
				}
			}
		}
		seen := 0
		for _, e := range r.events() {
			seen++
			out, end, ok := e.Record.Outside()
			if e.Kind == dataplane.EventProof || ok && out.Addr() == f.peer.Addr() && e.Record.Validated[end] {
				t.Fatalf("%s: event %d says that %s proved its address", f.name, e.Kind, out)
			}
		}
		if seen == 0 {
			t.Errorf("%s: nothing was told of a hundred floods", f.name)
		}
	}
	s := r.stats()
	same(t, "proofs", s.Flood.Proofs, 0)
	same(t, "rules", s.RulesEnforced, 0)
	// The same addresses prove themselves by what a forger cannot do.
	for _, f := range families() {
		c := NewSession(port(f.peer, 50001), port(f.host, 8080))
		c.ServerInside = true
		r.flood(dataplane.Flood{Source: 10000})
		r.play(c.Open()...)
	}
	same(t, "proofs", r.stats().Flood.Proofs, 2)
}
