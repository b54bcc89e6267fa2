package xdp

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func someRule(rng *rand.Rand) dataplane.Rule {
	a := netip.AddrFrom4([4]byte{198, 51, 100, byte(rng.IntN(8))})
	b := netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(8))})
	if rng.IntN(3) == 0 {
		a = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(rng.IntN(8))})
		b = netip.AddrFrom16([16]byte{0xfd, 15: byte(rng.IntN(8))})
	}
	r := dataplane.Rule{Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}
	switch rng.IntN(5) {
	case 0:
		k, _ := flow.NewKey(netip.AddrPortFrom(a, 443), netip.AddrPortFrom(b, 4000), flow.TCP)
		r.Target, r.Action = dataplane.Target{Flow: k}, dataplane.Suspend
	case 1:
		r.Target = dataplane.Target{Prefix: netip.PrefixFrom(a, a.BitLen()), Port: 443, Proto: flow.TCP}
	case 2:
		r.Target = dataplane.Pair(b, a)
	case 3:
		bits := 8 + rng.IntN(17)
		if a.Is6() {
			bits += 16
		}
		r.Target = dataplane.Target{Prefix: netip.PrefixFrom(a, bits).Masked()}
	default:
		r.Target = dataplane.Peer(a)
	}
	return r
}

// Whatever comes and goes, every rule that is there is marked, and when the last
// one is gone no mark is left.
func TestMarksFollowTheRules(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce})
	rng := rand.New(rand.NewPCG(1, 2))
	there := map[dataplane.Target]bool{}
	for range 2000 {
		r := someRule(rng)
		if rng.IntN(2) == 0 {
			check(t, f.Remove(r.Target))
			delete(there, r.Target)
			continue
		}
		check(t, f.Apply(r))
		there[r.Target] = true
	}
	hits, err := f.Rules()
	check(t, err)
	if len(hits) != len(there) || len(hits) == 0 {
		t.Errorf("%d rules are enforced: expected %d", len(hits), len(there))
	}
	for target := range there {
		check(t, f.Remove(target))
	}
	for bit, n := range f.marks.counts {
		if n > 0 {
			t.Fatalf("mark %d stands for %d rules that are gone", bit, n)
		}
	}
	for i, v := range marksInKernel(t, f) {
		if v != 0 {
			t.Fatalf("byte %d of the kernel's marks is %#x without any rule", i, v)
		}
	}
}

// marksInKernel are the marks as the kernel itself tells them.
func marksInKernel(t *testing.T, f fixture) []byte {
	t.Helper()
	var all [8 * allWords]byte
	check(t, f.objs.RuleMarks.Lookup(uint32(0), &all))
	return all[:]
}

// A rule that the marks hide does not act, so the read-back must not claim it;
// applying it again mends that.
func TestAHiddenRuleIsNotCalledEnforced(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce})
	r := dataplane.Rule{Target: dataplane.Peer(endpoint("192.0.2.1:0").Addr()), Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}
	check(t, f.Apply(r))
	clear(f.marks.mem[:8*markWords])
	expect := func(want uint64) {
		t.Helper()
		s, err := f.Stats()
		check(t, err)
		hits, err := f.Rules()
		check(t, err)
		if s.RulesIntended != 1 || s.RulesEnforced != want || len(hits) != int(want) {
			t.Errorf("%d intended, %d enforced, %d read back: expected 1 and %d", s.RulesIntended, s.RulesEnforced, len(hits), want)
		}
	}
	expect(0)
	check(t, f.Apply(r))
	expect(1)
}
