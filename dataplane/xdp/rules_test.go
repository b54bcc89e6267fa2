package xdp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// What somebody else writes to the maps is read back as it is, and can be put
// right through the plane.
func TestForeignWritesAreReadBack(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce})
	rule := dataplane.Rule{Target: dataplane.Peer(netip.MustParseAddr("203.0.113.9")), Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}
	step := planetest.Datagram(dataplane.ToInside, endpoint("203.0.113.9:1"), endpoint("10.0.0.1:2"), nil)
	enforced := func(what string, want int, dropped bool) {
		t.Helper()
		hits, err := f.Rules()
		check(t, err)
		if passed := inject(t, f, step); len(hits) != want || passed == dropped {
			t.Errorf("%s: %d rules listed, passed %v: expected %d, %v", what, len(hits), passed, want, !dropped)
		}
	}
	check(t, f.Apply(rule))
	enforced("as applied", 1, true)

	k := new(ruleBuf).key(tableAddr, rule.Target)
	check(t, f.objs.Addrs.Delete(k))
	enforced("deleted by somebody", 0, false)
	check(t, f.Apply(rule))
	enforced("applied again", 1, true)

	var settings kernelConfig
	check(t, f.objs.Settings.Lookup(uint32(0), &settings))
	settings.AddrRules = 0
	check(t, f.objs.Settings.Put(uint32(0), &settings))
	enforced("the table is switched off by somebody", 0, false)
	check(t, f.SetMode(dataplane.Enforce))
	enforced("the mode set again", 1, true)

	check(t, f.Remove(rule.Target))
	v := kernelRule{Word: word(dataplane.Block, f.clock.bootMicros(rule.Expires))}
	check(t, f.Apply(dataplane.Rule{Target: dataplane.Peer(netip.MustParseAddr("203.0.113.10")), Action: dataplane.Block, Expires: rule.Expires}))
	check(t, f.objs.Addrs.Put(k, &v))
	enforced("put there by somebody, but no mark leads to it", 1, false)
	f.marks.set(tableAddr, rule.Target, true)
	enforced("put there by somebody, marked", 2, true)
	check(t, f.Remove(rule.Target))
	enforced("removed", 1, false)
}

// A pair keeps which of the two is inside, also for a process that takes over.
func TestPairsSurviveATakeover(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce})
	expires := time.Now().Add(time.Hour)
	want := []dataplane.Target{
		dataplane.Pair(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("203.0.113.9")),
		dataplane.Pair(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("8.8.8.8")),
		dataplane.Pair(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("2001:db8::9")),
		dataplane.Toward(netip.MustParseAddr("10.0.0.1")),
	}
	for _, target := range want {
		r := dataplane.Rule{Target: target, Action: dataplane.Block, Expires: expires}
		if target.Toward {
			r.Action, r.Rate = dataplane.RateLimit, 3
		}
		check(t, f.Apply(r))
	}
	clear(f.rules)
	clear(f.count[:])
	check(t, f.adopt())
	for _, target := range want {
		if _, ok := f.rules[target]; !ok {
			t.Errorf("%s is not known after the takeover: %v", target, f.rules)
		}
	}
	check(t, f.Remove(want...))
	hits, err := f.Rules()
	check(t, err)
	if len(hits) != 0 {
		t.Errorf("%d rules are left", len(hits))
	}
}

// A rule comes and goes without memory of its own: who is blocked under attack
// does not wait for a garbage collector.
func TestABlockNeedsNoMemory(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce})
	a, b := endpoint("203.0.113.9:443"), endpoint("10.0.0.1:4000")
	key, _ := flow.NewKey(a, b, flow.TCP)
	for name, r := range map[string]dataplane.Rule{
		"an address": {Target: dataplane.Peer(a.Addr()), Action: dataplane.Block},
		"a service":  {Target: dataplane.Target{Prefix: netip.PrefixFrom(a.Addr(), 32), Port: 443, Proto: flow.TCP}, Action: dataplane.Block},
		"a pair":     {Target: dataplane.Pair(b.Addr(), a.Addr()), Action: dataplane.Block},
		"a flow":     {Target: dataplane.Target{Flow: key}, Action: dataplane.Suspend},
	} {
		r.Expires = time.Now().Add(time.Hour)
		n := testing.AllocsPerRun(100, func() {
			check(t, f.Apply(r))
			check(t, f.Apply(r)) // its hits stay
			check(t, f.Remove(r.Target))
		})
		if n != 0 {
			t.Errorf("%s: %g allocations: expected none", name, n)
		}
	}
}
