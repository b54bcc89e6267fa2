package planetest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func ruleCases() []testCase {
	return []testCase{
		{"suspend one flow", dataplane.Enforce, suspend},
		{"block a peer", dataplane.Enforce, blockPeer},
		{"block a prefix", dataplane.Enforce, blockPrefix},
		{"block a service", dataplane.Enforce, blockService},
		{"observe counts and passes", dataplane.Enforce, observe},
		{"first drop tells once", dataplane.Enforce, firstDrop},
		{"dropped packets are not accounted", dataplane.Enforce, dropNotAccounted},
		{"monitor never drops", dataplane.Monitor, monitor},
		{"mode changes at once", dataplane.Enforce, modeChange},
		{"an expired rule is none", dataplane.Enforce, expired},
		{"expires while looked at", dataplane.Enforce, expires},
		{"the stronger action wins", dataplane.Enforce, precedence},
		{"among equals the narrower rule decides", dataplane.Enforce, equals},
		{"an inner prefix does not hide an outer one", dataplane.Enforce, nested},
		{"remove", dataplane.Enforce, remove},
		{"read back", dataplane.Enforce, readBack},
		{"an invalid rule refuses the whole call", dataplane.Enforce, invalid},
		{"rate limit", dataplane.Enforce, rateLimit},
	}
}

func block(target dataplane.Target, reason uint32) dataplane.Rule {
	return dataplane.Rule{Target: target, Action: dataplane.Block, Expires: later(), Reason: reason}
}

func suspend(t *testing.T, r *rig) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			other := Datagram(dataplane.FromInside, netip.AddrPortFrom(f.host.Addr(), 50000), f.peer, nil)
			r.play(out(f, f.peer), in(f, f.peer), other)
			target := dataplane.Target{Flow: key(f.host, f.peer, flow.UDP)}
			r.apply(dataplane.Rule{Target: target, Action: dataplane.Suspend, Expires: later(), Reason: 5})
			r.expect(false, "suspended flow", out(f, f.peer), in(f, f.peer))
			r.expect(true, "another flow of the two hosts", other)
			h, ok := r.listed(target)
			same(t, "listed", ok, true)
			same(t, "hits", h.Packets, 2)
			if err := r.Remove(target); err != nil {
				t.Fatalf("remove: %v", err)
			}
			r.expect(true, "released flow", out(f, f.peer), in(f, f.peer))
		})
	}
}

func blockPeer(t *testing.T, r *rig) {
	for _, f := range families() {
		r.apply(block(dataplane.Peer(f.peer.Addr()), 1))
		r.expect(false, "blocked peer", in(f, f.peer), out(f, f.peer),
			in(f, netip.AddrPortFrom(f.peer.Addr(), 9)))
		r.expect(true, "its neighbour", in(f, f.peer2), out(f, f.peer2))
		h, _ := r.listed(dataplane.Peer(f.peer.Addr()))
		same(t, "hits", h.Packets, 3)
	}
	same(t, "dropped", r.stats().Dropped, 6)
}

func blockPrefix(t *testing.T, r *rig) {
	for _, f := range families() {
		r.apply(block(dataplane.Target{Prefix: f.prefix}, 1))
		r.expect(false, "in the prefix", in(f, f.peer), out(f, f.peer2))
		r.expect(true, "beside the prefix", in(f, f.stranger), out(f, f.stranger))
	}
}

func blockService(t *testing.T, r *rig) {
	for _, f := range families() {
		target := dataplane.Target{Prefix: dataplane.Peer(f.peer.Addr()).Prefix, Port: f.peer.Port(), Proto: flow.UDP}
		r.apply(block(target, 1))
		r.expect(false, "the service", in(f, f.peer), out(f, f.peer))
		otherPort := netip.AddrPortFrom(f.peer.Addr(), f.peer.Port()+1)
		r.expect(true, "another port of the address", in(f, otherPort), out(f, otherPort))
		r.expect(true, "the port of another address", out(f, netip.AddrPortFrom(f.peer2.Addr(), f.peer.Port())))
		s := NewSession(f.host, f.peer)
		r.expect(true, "another protocol", s.Send(0, flow.SYN, nil))
		// The port is the address's own: our side may use the same number.
		mine := netip.AddrPortFrom(f.host.Addr(), f.peer.Port())
		r.expect(true, "the port at our side", Datagram(dataplane.FromInside, mine, otherPort, nil))
	}
}

func observe(t *testing.T, r *rig) {
	f := families()[0]
	target := dataplane.Peer(f.peer.Addr())
	r.apply(dataplane.Rule{Target: target, Action: dataplane.Observe, Expires: later(), Reason: 3})
	r.expect(true, "observed", in(f, f.peer), out(f, f.peer))
	h, ok := r.listed(target)
	same(t, "listed", ok, true)
	same(t, "hits", h.Packets, 2)
	same(t, "events", len(r.events()), 0)
}

func firstDrop(t *testing.T, r *rig) {
	f := families()[0]
	r.play(out(f, f.peer))
	r.apply(block(dataplane.Peer(f.peer.Addr()), 77))
	r.expect(false, "blocked", in(f, f.peer), in(f, f.peer), out(f, f.peer))
	e := r.only(dataplane.EventFirstDrop)
	same(t, "reason", e.Reason, 77)
	same(t, "mode", e.Mode, dataplane.Enforce)
	same(t, "key", e.Record.Key, key(f.host, f.peer, flow.UDP))
	same(t, "dropped so far", e.Record.Dropped, 1)
	same(t, "initiator", e.Record.Initiator(), f.host)
	if d := time.Since(time.Unix(0, e.At)); d < -time.Second || d > time.Minute {
		t.Errorf("time of the drop: %s ago, expected just now", d)
	}
	r.apply(block(dataplane.Peer(f.peer.Addr()), 79))
	r.expect(false, "blocked anew", in(f, f.peer), in(f, f.peer))
	same(t, "reason of the rule applied anew", r.only(dataplane.EventFirstDrop).Reason, 79)
	h, _ := r.listed(dataplane.Peer(f.peer.Addr()))
	same(t, "hits of both", h.Packets, 5)
	r.apply(block(dataplane.Peer(f.stranger.Addr()), 78))
	r.expect(false, "a peer without a flow", in(f, f.stranger))
	e = r.only(dataplane.EventFirstDrop)
	same(t, "reason", e.Reason, 78)
	same(t, "initiator is the sender", e.Record.Initiator(), f.stranger)
	same(t, "dropped so far", e.Record.Dropped, 1)
	same(t, "insides", [2]bool{e.Record.InitInside, e.Record.RespInside}, [2]bool{false, true})
	same(t, "flows", r.stats().Flows, 1)
}

func dropNotAccounted(t *testing.T, r *rig) {
	f := families()[0]
	r.play(out(f, f.peer), in(f, f.peer))
	target := dataplane.Peer(f.peer.Addr())
	r.apply(block(target, 1))
	r.expect(false, "blocked", in(f, f.peer), in(f, f.peer), in(f, f.peer))
	if err := r.Remove(target); err != nil {
		t.Fatalf("remove: %v", err)
	}
	r.play(out(f, f.peer), in(f, f.peer))
	rec := r.only(dataplane.EventMilestone).Record
	same(t, "packets", rec.Packets(), 4)
	same(t, "dropped", rec.Dropped, 3)
}

func monitor(t *testing.T, r *rig) {
	f := families()[0]
	r.play(out(f, f.peer), out(f, f.peer2))
	r.apply(block(dataplane.Target{Prefix: f.prefix}, 4),
		dataplane.Rule{Target: dataplane.Target{Flow: key(f.host, f.peer2, flow.UDP)}, Action: dataplane.Suspend, Expires: later()},
		dataplane.Rule{Target: dataplane.Peer(f.host2.Addr()), Action: dataplane.RateLimit, Rate: 1, Expires: later()})
	r.expect(true, "in monitor mode", in(f, f.peer), out(f, f.peer), in(f, f.peer2))
	const burst = 20
	for k := range uint16(burst) {
		r.expect(true, "new flow over budget", Datagram(dataplane.FromInside,
			netip.AddrPortFrom(f.host2.Addr(), 1000+k), f.stranger, nil))
	}
	st := r.stats()
	same(t, "dropped", st.Dropped, 0)
	if st.WouldDrop < 3+burst/2 || st.WouldDrop > 3+burst-1 {
		t.Errorf("would drop: got %d, expected 3 and most of the burst of %d", st.WouldDrop, burst)
	}
	for _, e := range r.events() {
		if e.Kind == dataplane.EventFirstDrop {
			same(t, "mode of the event", e.Mode, dataplane.Monitor)
		}
	}
}

func modeChange(t *testing.T, r *rig) {
	f := families()[0]
	r.apply(block(dataplane.Peer(f.peer.Addr()), 1))
	r.expect(false, "enforce", in(f, f.peer))
	for _, m := range []dataplane.Mode{dataplane.Monitor, dataplane.Enforce} {
		if err := r.SetMode(m); err != nil {
			t.Fatalf("set mode %s: %v", m, err)
		}
		r.expect(m == dataplane.Monitor, m.String(), in(f, f.peer))
	}
	st := r.stats()
	same(t, "dropped", st.Dropped, 2)
	same(t, "would drop", st.WouldDrop, 1)
}

func expired(t *testing.T, r *rig) {
	f := families()[0]
	past := time.Now().Add(-time.Hour)
	service := dataplane.Target{Prefix: dataplane.Peer(f.stranger.Addr()).Prefix, Port: f.stranger.Port(), Proto: flow.UDP}
	targets := []dataplane.Target{dataplane.Peer(f.peer.Addr()), {Prefix: f.prefix}, service}
	for _, target := range targets {
		r.apply(block(target, 1))
		rule := block(target, 1)
		rule.Expires = past
		r.apply(rule)
	}
	susp := dataplane.Target{Flow: key(f.host, f.peer2, flow.UDP)}
	r.apply(dataplane.Rule{Target: susp, Action: dataplane.Suspend, Expires: past})
	r.expect(true, "expired", in(f, f.peer), in(f, f.peer2), out(f, f.peer2), out(f, f.stranger))
	hits, err := r.Rules()
	if err != nil {
		t.Fatalf("rules: %v", err)
	}
	same(t, "listed rules", len(hits), 0)
}

func expires(t *testing.T, r *rig) {
	f := families()[0]
	soon := time.Now().Add(2200 * time.Millisecond)
	peer := dataplane.Rule{Target: dataplane.Peer(f.peer.Addr()), Action: dataplane.Block, Expires: soon}
	prefix := dataplane.Rule{Target: dataplane.Target{Prefix: netip.MustParsePrefix("198.51.100.0/24")}, Action: dataplane.Block, Expires: soon}
	susp := dataplane.Rule{Target: dataplane.Target{Flow: key(f.host, f.peer2, flow.UDP)}, Action: dataplane.Suspend, Expires: soon}
	steps := []Step{in(f, f.peer), in(f, f.stranger), out(f, f.peer2)}
	r.apply(peer, prefix, susp)
	r.expect(false, "before expiry", steps...)
	for _, s := range steps {
		r.within(6*time.Second, "expiry", func() bool { return r.inject(s) })
	}
	if early := time.Until(soon); early > 1100*time.Millisecond {
		t.Errorf("all rules were gone %s before their expiry", early)
	}
	r.within(3*time.Second, "expired rules leave the list", func() bool {
		hits, err := r.Rules()
		return err == nil && len(hits) == 0
	})
}

func precedence(t *testing.T, r *rig) {
	f := families()[0]
	r.play(out(f, f.peer))
	obs := func(target dataplane.Target) dataplane.Rule {
		return dataplane.Rule{Target: target, Action: dataplane.Observe, Expires: later()}
	}
	k := dataplane.Target{Flow: key(f.host, f.peer, flow.UDP)}
	r.apply(obs(k), obs(dataplane.Peer(f.peer.Addr())), obs(dataplane.Peer(f.host.Addr())))
	r.expect(true, "observed only", out(f, f.peer))
	r.apply(block(dataplane.Target{Prefix: f.prefix}, 9))
	r.expect(false, "block of the prefix beats observation of flow and addresses", out(f, f.peer), in(f, f.peer))
	h, _ := r.listed(dataplane.Target{Prefix: f.prefix})
	same(t, "hits of the deciding rule", h.Packets, 2)
	same(t, "reason of the deciding rule", r.only(dataplane.EventFirstDrop).Reason, 9)
	// The destination's rule counts as the source's does.
	r.apply(block(dataplane.Peer(f.stranger.Addr()), 1))
	r.expect(false, "blocked destination", out(f, f.stranger))
}

func equals(t *testing.T, r *rig) {
	for _, f := range families() {
		service := dataplane.Target{Prefix: dataplane.Peer(f.peer.Addr()).Prefix, Port: f.peer.Port(), Proto: flow.UDP}
		targets := []dataplane.Target{service, dataplane.Peer(f.peer.Addr()), {Prefix: f.prefix}}
		for k := range targets { // the widest first, so that order of arrival does not decide
			r.apply(block(targets[len(targets)-1-k], uint32(len(targets)-k)))
		}
		for k, target := range targets {
			r.expect(false, "blocked", in(f, f.peer), out(f, f.peer))
			same(t, "reason of the narrowest rule", r.only(dataplane.EventFirstDrop).Reason, uint32(k+1))
			if err := r.Remove(target); err != nil {
				t.Fatalf("remove: %v", err)
			}
		}
	}
}

func nested(t *testing.T, r *rig) {
	for _, f := range families() {
		inner, outer := dataplane.Target{Prefix: f.prefix}, dataplane.Target{Prefix: f.wide}
		r.apply(block(outer, 1), dataplane.Rule{Target: inner, Action: dataplane.Observe, Expires: later()})
		r.expect(false, "block outside, observation inside", in(f, f.peer))
		r.apply(block(inner, 2))
		r.expect(false, "block outside, block inside", in(f, f.peer))
		past := block(inner, 2)
		past.Expires = time.Now().Add(-time.Minute)
		r.apply(past)
		r.expect(false, "block outside, expired inside", in(f, f.peer))
		soon := block(inner, 2)
		soon.Expires = time.Now().Add(1500 * time.Millisecond)
		r.apply(soon)
		r.within(4*time.Second, "the inner rule leaves the list", func() bool {
			_, ok := r.listed(inner)
			return !ok
		})
		r.expect(false, "block outside, ran out inside", in(f, f.peer))
		if err := r.Remove(outer); err != nil {
			t.Fatalf("remove: %v", err)
		}
		r.expect(true, "nothing left", in(f, f.peer))
	}
}

func remove(t *testing.T, r *rig) {
	f := families()[0]
	service := dataplane.Target{Prefix: dataplane.Peer(f.peer.Addr()).Prefix, Port: f.peer.Port(), Proto: flow.UDP}
	targets := []dataplane.Target{dataplane.Peer(f.peer.Addr()), {Prefix: f.prefix}, service}
	for _, target := range targets {
		r.apply(block(target, 1))
	}
	for k, target := range targets {
		r.expect(false, "while a rule is left", in(f, f.peer))
		if err := r.Remove(target); err != nil {
			t.Fatalf("remove %d: %v", k, err)
		}
	}
	r.expect(true, "all removed", in(f, f.peer))
	if err := r.Remove(targets...); err != nil {
		t.Errorf("remove what is not there: got %v, expected nil", err)
	}
}

func readBack(t *testing.T, r *rig) {
	var want []dataplane.Rule
	for k, f := range families() {
		single := dataplane.Peer(f.stranger.Addr()).Prefix
		id := uint32(100 * (k + 1))
		want = append(want,
			dataplane.Rule{Target: dataplane.Peer(f.peer.Addr()), Action: dataplane.Block, Expires: later(), Reason: id + 1},
			dataplane.Rule{Target: dataplane.Target{Prefix: f.prefix}, Action: dataplane.Block, Expires: later().Add(time.Hour), Reason: id + 2},
			dataplane.Rule{Target: dataplane.Target{Prefix: single, Port: 22, Proto: flow.TCP}, Action: dataplane.Block, Expires: later(), Reason: id + 3},
			dataplane.Rule{Target: dataplane.Target{Flow: key(f.host, f.peer, flow.TCP)}, Action: dataplane.Suspend, Expires: later(), Reason: id + 4},
			dataplane.Rule{Target: dataplane.Target{Flow: key(f.host, f.peer2, flow.TCP)}, Action: dataplane.Observe, Expires: later(), Reason: id + 5},
			dataplane.Rule{Target: dataplane.Peer(f.host2.Addr()), Action: dataplane.RateLimit, Expires: later(), Reason: id + 6, Rate: 12},
			dataplane.Rule{Target: dataplane.Peer(f.peer2.Addr()), Action: dataplane.Observe, Expires: later(), Reason: id + 7},
		)
	}
	r.apply(want...)
	r.apply(want...) // idempotent
	hits, err := r.Rules()
	if err != nil {
		t.Fatalf("rules: %v", err)
	}
	same(t, "number of rules", len(hits), len(want))
	for _, w := range want {
		h, ok := r.listed(w.Target)
		if !ok {
			t.Errorf("%s: not listed", w.Target)
			continue
		}
		if d := h.Rule.Expires.Sub(w.Expires); d.Abs() > 1100*time.Millisecond {
			t.Errorf("%s: expiry is off by %s", w.Target, d)
		}
		h.Rule.Expires = w.Expires
		same(t, "rule", h.Rule, w)
		same(t, "hits of "+w.Target.String(), h.Packets, 0)
	}
	st := r.stats()
	same(t, "intended", st.RulesIntended, uint64(len(want)))
	same(t, "enforced", st.RulesEnforced, uint64(len(want)))
}

func invalid(t *testing.T, r *rig) {
	f := families()[0]
	good := block(dataplane.Peer(f.peer.Addr()), 1)
	for _, bad := range []dataplane.Rule{
		{},
		{Target: dataplane.Peer(f.peer.Addr()), Action: dataplane.Block},
		{Target: dataplane.Target{Prefix: netip.MustParsePrefix("203.0.113.9/24")}, Action: dataplane.Block, Expires: later()},
		{Target: dataplane.Target{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, Action: dataplane.Block, Expires: later()},
		{Target: dataplane.Target{Flow: key(f.host, f.peer, flow.UDP)}, Action: dataplane.Block, Expires: later()},
	} {
		if err := r.Apply(good, bad); err == nil {
			t.Errorf("apply of %v: got nil, expected an error", bad)
		} else if isFull(err) {
			t.Errorf("apply of %v: got %v, expected what is wrong with the rule", bad, err)
		}
	}
	r.expect(true, "nothing was applied", in(f, f.peer))
}

func rateLimit(t *testing.T, r *rig) {
	for _, f := range families() {
		const rate, burst = 5, 60
		old := out(f, f.peer)
		r.play(old)
		target := dataplane.Peer(f.host.Addr())
		r.apply(dataplane.Rule{Target: target, Action: dataplane.RateLimit, Rate: rate, Expires: later(), Reason: 6})
		began := time.Now()
		passed := 0
		for k := range uint16(burst) {
			if r.inject(Datagram(dataplane.FromInside, netip.AddrPortFrom(f.host.Addr(), 1000+k), f.peer, nil)) {
				passed++
			}
			r.expect(true, "a flow that existed", old)
			r.expect(true, "a new flow of another host", Datagram(dataplane.FromInside,
				netip.AddrPortFrom(f.host2.Addr(), 1000+k), f.peer, nil))
			r.expect(true, "a new flow towards the host", Datagram(dataplane.ToInside,
				netip.AddrPortFrom(f.stranger.Addr(), 1000+k), f.host, nil))
		}
		most := rate * (3 + int(time.Since(began)/time.Second))
		if passed < rate || passed > most {
			t.Errorf("%s: new flows passed: got %d, expected %d to %d", f.name, passed, rate, most)
		}
		h, _ := r.listed(target)
		same(t, "hits", h.Packets, uint64(burst-passed))
	}
}
