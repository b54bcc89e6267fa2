package planetest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func ladderCases() []testCase {
	return []testCase{
		{"every action on every target", dataplane.Enforce, ladder},
		{"quarantine a host", dataplane.Enforce, quarantine},
		{"quarantine in monitor mode", dataplane.Monitor, quarantineMonitor},
		{"quarantine ends by itself", dataplane.Enforce, quarantineExpires},
		{"the remediation list is narrow and replaced as a whole", dataplane.Enforce, remediation},
		{"never-block holds in quarantine", dataplane.Enforce, quarantineNever},
		{"a block of an inside host goes both ways", dataplane.Enforce, blockInside},
		{"block a pair", dataplane.Enforce, blockPair},
		{"never-block saves a pair", dataplane.Enforce, pairNever},
		{"a pair decides ahead of its addresses", dataplane.Enforce, pairPrecedence},
		{"rate limit of what goes to an address", dataplane.Enforce, limitToward},
		{"rate limit of a service", dataplane.Enforce, limitService},
		{"rate limit of a flow", dataplane.Enforce, limitFlow},
	}
}

func (r *rig) remediation(entries ...dataplane.Never) {
	r.t.Helper()
	if err := r.SetRemediation(entries); err != nil {
		r.t.Fatalf("set remediation: %v", err)
	}
}

// What becomes of probes under a rule.
type effect int

const (
	refusal effect = iota // the rule itself is refused
	passes
	limits // some pass
	drops
)

// ladder tries each action on each form of target: either it does what its word
// says, or Validate and Apply refuse it, saying what would be possible.
func ladder(t *testing.T, r *rig) {
	for _, f := range families() {
		service := dataplane.Peer(f.host.Addr())
		service.Port, service.Proto = f.host.Port(), flow.UDP
		for _, c := range []struct {
			name   string
			target dataplane.Target
			probe  func(k uint16) Step
			effect [dataplane.Quarantine + 1]effect // by action
		}{
			{"flow", dataplane.Target{Flow: key(f.host, f.peer, flow.UDP)}, func(uint16) Step { return out(f, f.peer) },
				[...]effect{passes, limits, drops, refusal, refusal}},
			{"source", dataplane.Peer(f.peer.Addr()), func(k uint16) Step { return in(f, netip.AddrPortFrom(f.peer.Addr(), k)) },
				[...]effect{passes, limits, refusal, drops, drops}},
			{"destination", dataplane.Toward(f.peer.Addr()), func(k uint16) Step { return out(f, netip.AddrPortFrom(f.peer.Addr(), k)) },
				[...]effect{refusal, limits, refusal, refusal, refusal}},
			{"inside host", dataplane.Peer(f.host.Addr()), func(k uint16) Step { return out(f, netip.AddrPortFrom(f.peer2.Addr(), k)) },
				[...]effect{passes, limits, refusal, drops, drops}},
			{"service", service, func(k uint16) Step { return in(f, netip.AddrPortFrom(f.stranger.Addr(), k)) },
				[...]effect{passes, limits, refusal, drops, refusal}},
			{"pair", dataplane.Pair(f.host.Addr(), f.peer.Addr()), func(k uint16) Step { return in(f, netip.AddrPortFrom(f.peer.Addr(), k)) },
				[...]effect{passes, refusal, refusal, drops, refusal}},
			{"prefix", dataplane.Target{Prefix: f.prefix}, func(k uint16) Step { return in(f, netip.AddrPortFrom(f.peer2.Addr(), k)) },
				[...]effect{passes, refusal, refusal, drops, refusal}},
		} {
			for a, want := range c.effect {
				r.rung(fmt.Sprintf("%s: %s of a %s", f.name, dataplane.Action(a), c.name), want, c.probe,
					dataplane.Rule{Target: c.target, Action: dataplane.Action(a), Expires: later(), Rate: 2, Reason: 1})
			}
		}
	}
}

func (r *rig) rung(what string, want effect, probe func(k uint16) Step, rule dataplane.Rule) {
	r.t.Helper()
	const probes = 40
	err := r.Apply(rule)
	if (err == nil) != (want != refusal) || (rule.Validate() == nil) != (err == nil) {
		r.t.Errorf("%s: apply: %v, validate: %v, expected refused %v", what, err, rule.Validate(), want == refusal)
		return
	}
	if err != nil {
		return
	}
	passed := 0
	base := uint16(r.ports) // new flows each time
	r.ports += probes
	for k := range uint16(probes) {
		if r.inject(probe(1024 + base + k)) {
			passed++
		}
	}
	if got := [...]bool{passes: passed == probes, limits: passed > 0 && passed < probes, drops: passed == 0}; !got[want] {
		r.t.Errorf("%s: %d of %d passed", what, passed, probes)
	}
	h, ok := r.listed(rule.Target)
	same(r.t, what+": listed", ok, true)
	same(r.t, what+": action", h.Rule.Action, rule.Action)
	if want != passes {
		same(r.t, what+": hits", h.Packets, uint64(probes-passed))
	}
	if err := r.Remove(rule.Target); err != nil {
		r.t.Fatalf("remove: %v", err)
	}
}

func quarantineOf(a netip.AddrPort) dataplane.Rule {
	return dataplane.Rule{Target: dataplane.Peer(a.Addr()), Action: dataplane.Quarantine, Expires: later(), Reason: 12}
}

// onlyService is a remediation entry for one service of an address.
func onlyService(a netip.AddrPort) dataplane.Never {
	return dataplane.Never{Prefix: dataplane.Peer(a.Addr()).Prefix, Proto: flow.UDP, Port: a.Port()}
}

func quarantine(t *testing.T, r *rig) {
	v4, v6 := families()[0], families()[1]
	r.remediation(onlyService(v4.peer), onlyService(v6.peer))
	for _, f := range families() {
		r.play(out(f, f.stranger), out(f, f.peer))
		r.events()
		r.apply(quarantineOf(f.host))
		r.expect(false, "what the host says and hears", out(f, f.stranger), in(f, f.stranger), in(f, f.peer2), out(f, f.host2))
		e := r.only(dataplane.EventFirstDrop)
		same(t, "reason", e.Reason, 12)
		later := Packet{Src: f.stranger, Dst: f.host, Proto: flow.UDP, FragOffset: 4, Payload: make([]byte, 16)}
		r.expect(false, "a later fragment", Step{dataplane.ToInside, later.Frame()})
		r.expect(true, "the remedy", out(f, f.peer), in(f, f.peer))
		h, ok := r.listed(quarantineOf(f.host).Target)
		same(t, "listed", ok, true)
		same(t, "action", h.Rule.Action, dataplane.Quarantine)
		same(t, "hits, the remedy's packets not among them", h.Packets, 5)
		r.expect(true, "another inside host", Datagram(dataplane.FromInside, f.host2, f.stranger, nil))
		r.apply(block(dataplane.Peer(f.peer.Addr()), 3))
		r.expect(false, "a remedy that is blocked", out(f, f.peer), in(f, f.peer))
		if err := r.Remove(dataplane.Peer(f.peer.Addr()), quarantineOf(f.host).Target); err != nil {
			t.Fatalf("remove: %v", err)
		}
		r.expect(true, "released", out(f, f.stranger), in(f, f.stranger))
	}
}

func quarantineMonitor(t *testing.T, r *rig) {
	for _, f := range families() {
		before := r.stats().WouldDrop
		r.apply(quarantineOf(f.host))
		r.expect(true, "in monitor mode", out(f, f.stranger), in(f, f.peer))
		same(t, "would drop", r.stats().WouldDrop-before, 2)
	}
	same(t, "dropped", r.stats().Dropped, 0)
}

func quarantineExpires(_ *testing.T, r *rig) {
	f := families()[0]
	rule := quarantineOf(f.host)
	rule.Expires = time.Now().Add(1500 * time.Millisecond)
	r.apply(rule)
	r.expect(false, "before expiry", out(f, f.stranger))
	r.within(5*time.Second, "expiry", func() bool { return r.inject(out(f, f.stranger)) })
}

func remediation(t *testing.T, r *rig) {
	for _, f := range families() {
		r.apply(quarantineOf(f.host))
		at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(f.peer.Addr(), port) }
		r.remediation(onlyService(at(53)))
		r.expect(true, "the service", out(f, at(53)), in(f, at(53)))
		r.expect(false, "another port of it, another protocol", out(f, at(54)), NewSession(f.host, at(53)).Send(0, flow.SYN, nil))
		r.expect(false, "the port at the host's side", Datagram(dataplane.FromInside, netip.AddrPortFrom(f.host.Addr(), 53), at(1), nil))
		r.remediation(dataplane.Never{Prefix: f.prefix})
		r.expect(true, "a network", out(f, at(54)), in(f, f.peer2))
		r.expect(false, "beside it", out(f, f.stranger))
		if err := r.SetRemediation([]dataplane.Never{{Prefix: netip.PrefixFrom(f.peer.Addr(), f.prefix.Bits())}}); err == nil {
			t.Error("an entry with host bits: got nil, expected an error")
		}
		r.expect(true, "the old list stays", out(f, f.peer))
		r.remediation()
		r.expect(false, "an empty list", out(f, f.peer), in(f, f.peer))
		// The list is no never-block list.
		r.remediation(dataplane.Never{Prefix: f.prefix})
		r.apply(block(dataplane.Peer(f.peer2.Addr()), 1))
		r.expect(false, "a remedy that is blocked, from another host", Datagram(dataplane.FromInside, f.host2, f.peer2, nil))
	}
}

func quarantineNever(_ *testing.T, r *rig) {
	for _, f := range families() {
		resolver := netip.AddrPortFrom(f.stranger.Addr(), 53)
		r.never(onlyService(resolver))
		r.apply(quarantineOf(f.host))
		r.expect(true, "a resolver on the never-block list", out(f, resolver), in(f, resolver))
		r.expect(false, "a resolver that is not on it", out(f, netip.AddrPortFrom(f.peer.Addr(), 53)))
		r.expect(false, "the rest of that address", out(f, f.stranger))
		if f.icmp == flow.ICMPv6 {
			nd := Packet{Src: f.host, Dst: f.peer, Proto: flow.ICMPv6, Type: 135, Payload: make([]byte, 16)}
			r.expect(true, "neighbour discovery", Step{dataplane.FromInside, nd.Frame()})
			r.expect(true, "a lease", Datagram(dataplane.FromInside, netip.AddrPortFrom(f.host.Addr(), 546), netip.AddrPortFrom(f.peer.Addr(), 547), nil))
			continue
		}
		r.expect(true, "a lease", Datagram(dataplane.FromInside, netip.AddrPortFrom(f.host.Addr(), 68), netip.AddrPortFrom(f.peer.Addr(), 67), nil))
	}
}

func blockInside(_ *testing.T, r *rig) {
	for _, f := range families() {
		r.play(out(f, f.peer), in(f, f.peer))
		r.apply(block(dataplane.Peer(f.host.Addr()), 1))
		r.expect(false, "both ways, old and new flows", out(f, f.peer), in(f, f.peer), out(f, f.stranger), in(f, f.stranger))
		r.expect(true, "its neighbour", Datagram(dataplane.FromInside, f.host2, f.peer, nil), Datagram(dataplane.ToInside, f.peer, f.host2, nil))
	}
}

func blockPair(t *testing.T, r *rig) {
	for _, f := range families() {
		target := dataplane.Pair(f.host.Addr(), f.peer.Addr())
		r.play(out(f, f.peer))
		r.apply(block(target, 8))
		r.expect(false, "the two, any port, either way", out(f, f.peer), in(f, f.peer),
			out(f, netip.AddrPortFrom(f.peer.Addr(), 1)), NewSession(f.host, f.peer).Send(0, flow.SYN, nil))
		rest := Packet{Src: f.peer, Dst: f.host, Proto: flow.UDP, FragOffset: 4, Payload: make([]byte, 16)}
		r.expect(false, "a later fragment", Step{dataplane.ToInside, rest.Frame()})
		r.expect(true, "each with others", out(f, f.peer2), in(f, f.stranger),
			Datagram(dataplane.FromInside, f.host2, f.peer, nil), Datagram(dataplane.ToInside, f.peer, f.host2, nil))
		same(t, "reason", one(t, r.events(), dataplane.EventFirstDrop).Reason, 8)
		h, ok := r.listed(target)
		same(t, "listed with its inside host", ok, true)
		same(t, "hits", h.Packets, 5)
		st := r.stats()
		same(t, "enforced", st.RulesEnforced, st.RulesIntended)
		if err := r.Remove(target); err != nil {
			t.Fatalf("remove: %v", err)
		}
		r.expect(true, "released", out(f, f.peer), in(f, f.peer))
		// The ends changed about are the same pair.
		r.apply(block(dataplane.Pair(f.peer.Addr(), f.host.Addr()), 2), block(target, 3))
		same(t, "rules", r.stats().RulesEnforced, 1)
		same(t, "rules intended", r.stats().RulesIntended, 1)
		if err := r.Remove(dataplane.Pair(f.peer.Addr(), f.host.Addr())); err != nil {
			t.Fatalf("remove: %v", err)
		}
		r.expect(true, "released by its other form", out(f, f.peer), in(f, f.peer))
	}
}

func pairNever(_ *testing.T, r *rig) {
	for _, f := range families() {
		r.never(onlyService(f.peer))
		r.apply(block(dataplane.Pair(f.host.Addr(), f.peer.Addr()), 1))
		r.expect(true, "the saved service", out(f, f.peer), in(f, f.peer))
		r.expect(false, "the rest", out(f, netip.AddrPortFrom(f.peer.Addr(), f.peer.Port()+1)))
	}
}

func pairPrecedence(t *testing.T, r *rig) {
	for _, f := range families() {
		service := dataplane.Peer(f.peer.Addr())
		service.Port, service.Proto = f.peer.Port(), flow.UDP
		targets := []dataplane.Target{service, dataplane.Pair(f.host.Addr(), f.peer.Addr()), dataplane.Peer(f.peer.Addr())}
		for k := range targets {
			r.apply(block(targets[len(targets)-1-k], uint32(len(targets)-k)))
		}
		for k, target := range targets {
			r.expect(false, "blocked", in(f, f.peer))
			same(t, "reason of the narrowest", r.only(dataplane.EventFirstDrop).Reason, uint32(k+1))
			if err := r.Remove(target); err != nil {
				t.Fatalf("remove: %v", err)
			}
		}
	}
}

// most is how many may pass a budget of rate a second that began to be used at
// began: a full bucket, and what came since.
func most(rate int, began time.Time) int { return rate * (3 + int(time.Since(began)/time.Second)) }

func limitToward(t *testing.T, r *rig) {
	for _, f := range families() {
		const rate, burst = 5, 60
		old := in(f, f.peer)
		r.play(old)
		target := dataplane.Toward(f.host.Addr())
		r.apply(dataplane.Rule{Target: target, Action: dataplane.RateLimit, Rate: rate, Expires: later(), Reason: 6})
		began, passed := time.Now(), 0
		for k := range uint16(burst) {
			if r.inject(in(f, netip.AddrPortFrom(f.stranger.Addr(), 1000+k))) {
				passed++
			}
			r.expect(true, "a flow that existed", old)
			r.expect(true, "a new flow that the address begins", Datagram(dataplane.FromInside, netip.AddrPortFrom(f.host.Addr(), 1000+k), f.peer2, nil))
			r.expect(true, "a new flow to another address", Datagram(dataplane.ToInside, netip.AddrPortFrom(f.stranger.Addr(), 1000+k), f.host2, nil))
		}
		if passed < rate || passed > most(rate, began) {
			t.Errorf("%s: new flows passed: got %d, expected %d to %d", f.name, passed, rate, most(rate, began))
		}
		h, _ := r.listed(target)
		same(t, "hits", h.Packets, uint64(burst-passed))
		same(t, "rate", h.Rule.Rate, rate)
	}
}

func limitService(t *testing.T, r *rig) {
	for _, f := range families() {
		const rate, burst = 5, 60
		target := dataplane.Peer(f.peer.Addr())
		target.Port, target.Proto = 53, flow.UDP
		old := out(f, netip.AddrPortFrom(f.peer.Addr(), 53))
		r.play(old)
		r.apply(dataplane.Rule{Target: target, Action: dataplane.RateLimit, Rate: rate, Expires: later(), Reason: 6})
		began, passed := time.Now(), 0
		for k := range uint16(burst) {
			from := netip.AddrPortFrom(f.host2.Addr(), 1000+k)
			if r.inject(Datagram(dataplane.FromInside, from, netip.AddrPortFrom(f.peer.Addr(), 53), nil)) {
				passed++
			}
			r.expect(true, "a flow that existed", old)
			r.expect(true, "another port", Datagram(dataplane.FromInside, from, netip.AddrPortFrom(f.peer.Addr(), 54), nil))
		}
		if passed < rate || passed > most(rate, began) {
			t.Errorf("%s: new flows passed: got %d, expected %d to %d", f.name, passed, rate, most(rate, began))
		}
	}
}

func limitFlow(t *testing.T, r *rig) {
	for _, f := range families() {
		const size, burst = 1000, 60
		head := 28
		if f.name == "v6" {
			head = 48
		}
		big := Datagram(dataplane.FromInside, f.host, f.peer, make([]byte, size-head))
		other := Datagram(dataplane.FromInside, f.host, f.peer2, make([]byte, size-head))
		target := dataplane.Target{Flow: key(f.host, f.peer, flow.UDP)}
		r.apply(dataplane.Rule{Target: target, Action: dataplane.RateLimit, Rate: 5 * size, Expires: later(), Reason: 9})
		began, passed := time.Now(), 0
		for range burst {
			if r.inject(big) {
				passed++
			}
			r.expect(true, "another flow", other)
		}
		if passed < 5 || passed > most(5, began) {
			t.Errorf("%s: packets of %d bytes passed: got %d, expected 5 to %d", f.name, size, passed, most(5, began))
		}
		h, _ := r.listed(target)
		same(t, "bytes of what was dropped", h.Bytes, uint64(size*(burst-passed)))
		// A packet above a whole second's worth passes a full bucket all the same.
		small := dataplane.Target{Flow: key(f.host, f.stranger, flow.UDP)}
		r.apply(dataplane.Rule{Target: small, Action: dataplane.RateLimit, Rate: size / 2, Expires: later()})
		step := Datagram(dataplane.FromInside, f.host, f.stranger, make([]byte, size-head))
		r.expect(true, "the first of twice the rate", step)
		r.expect(false, "the next", step)
	}
}
