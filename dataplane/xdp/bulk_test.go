package xdp

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
)

// slowBulk is what a bulk set means, said as plainly as possible.
type slowBulk map[netip.Prefix]dataplane.Listed

func newSlowBulk(set []dataplane.Listed) slowBulk {
	s := make(slowBulk)
	for _, l := range set {
		was, ok := s[l.Prefix]
		if !ok || l.Expires.After(was.Expires) || l.Expires.Equal(was.Expires) && l.Reason < was.Reason {
			s[l.Prefix] = l
		}
	}
	return s
}

// find is the reason plus one of the longest prefix that lives, or 0.
func (s slowBulk) find(a netip.Addr, at time.Time) uint64 {
	for bits := a.BitLen(); bits >= 8; bits-- {
		p, err := a.Prefix(bits)
		if err != nil {
			panic(err) // bits are within the family's
		}
		if l, ok := s[p]; ok && l.Expires.After(at) {
			return uint64(l.Reason) + 1
		}
	}
	return 0
}

// set is s without repeats.
func (s slowBulk) set() (set []dataplane.Listed) {
	for _, l := range s {
		set = append(set, l)
	}
	return set
}

// The flat tables, the kernel's hash and trie, and a walk must give one answer
// for every address, for sets of any size.
func TestBulkAgainstKernelMaps(t *testing.T) {
	f := newFixture(t, Options{})
	expires := time.Now().Add(time.Hour)
	for seed, n := range []int{1, 30, 1000, 30000, 120000} {
		rng := rand.New(rand.NewPCG(uint64(seed), 11))
		set := randomSet(rng, n, func() time.Time { return expires })
		check(t, f.ReplaceBulk(set))
		slow := newSlowBulk(set)
		p := newProber(t, f, uint32(n))
		p.oracle(t, slow.set(), true)
		addrs := probesNear(rng, set, 1<<17)
		p.ask(addrs)
		ours, theirs := make([]uint64, len(addrs)), make([]uint64, len(addrs))
		found, _ := p.run(t, p.Bulk, 0, uint32(len(addrs)), time.Now())
		copy(ours, p.answers)
		p.run(t, p.LPM, 0, uint32(len(addrs)), time.Now())
		copy(theirs, p.answers)
		for i, a := range addrs {
			if want := slow.find(a, time.Now()); ours[i] != want || theirs[i] != want {
				t.Fatalf("%d entries: %s: bulk %d, trie %d, walk %d", n, a, ours[i], theirs[i], want)
			}
		}
		p.run(t, p.Hash, 0, uint32(len(addrs)), time.Now())
		for i, a := range addrs {
			if l, ok := slow[netip.PrefixFrom(a, a.BitLen())]; ok != (p.answers[i] != 0) || ok && (p.answers[i] != ours[i] || ours[i] != uint64(l.Reason)+1) {
				t.Fatalf("%d entries: %s: bulk %d, hash %d, list %v", n, a, ours[i], p.answers[i], ok)
			}
		}
		if found == 0 || int(found) == len(addrs) {
			t.Errorf("%d entries: %d of %d found: nothing was compared", n, found, len(addrs))
		}
		enforced(t, f, uint64(len(slow)))
	}
}

func enforced(t *testing.T, f fixture, want uint64) {
	t.Helper()
	s, err := f.BulkState()
	check(t, err)
	if s.Enforced != want || s.Intended != want {
		t.Errorf("%d enforced, %d intended: expected %d", s.Enforced, s.Intended, want)
	}
}

// probesNear are addresses of entries, beside them, and elsewhere.
func probesNear(rng *rand.Rand, set []dataplane.Listed, n int) []netip.Addr {
	addrs := make([]netip.Addr, n)
	for i := range addrs {
		a := randomAddr(rng)
		switch rng.IntN(4) {
		case 0:
			a = set[rng.IntN(len(set))].Prefix.Addr()
		case 1:
			if b := set[rng.IntN(len(set))].Prefix.Addr().Prev(); b.IsValid() {
				a = b
			}
		}
		addrs[i] = a
	}
	return addrs
}

// A set whose entries all expire at different times is asked about moments
// before, between and after.
func TestBulkExpiryAgainstAWalk(t *testing.T) {
	f := newFixture(t, Options{})
	rng := rand.New(rand.NewPCG(5, 5))
	start := time.Now()
	set := randomSet(rng, 40000, func() time.Time {
		// In the middle of a second of boot time, since the tables keep whole ones.
		s := f.clock.bootMicros(start)/1e6 + 60 + uint64(rng.IntN(1000))
		return f.clock.fromMicros(s*1e6 + 5e5)
	})
	check(t, f.ReplaceBulk(set))
	slow := newSlowBulk(set)
	p := newProber(t, f, 1)
	addrs := probesNear(rng, set, 1<<15)
	p.ask(addrs)
	// Not at start itself: times in a set count from its building, which is a moment later.
	for _, after := range []time.Duration{20 * time.Second, 67 * time.Second, 500 * time.Second, 1050 * time.Second, time.Hour} {
		at := start.Add(after)
		floor := f.clock.fromMicros(f.clock.bootMicros(at) / 1e6 * 1e6)
		p.run(t, p.Bulk, 0, uint32(len(addrs)), at)
		for i, a := range addrs {
			if want := slow.find(a, floor); p.answers[i] != want {
				t.Fatalf("after %s: %s: bulk %d, walk %d", after, a, p.answers[i], want)
			}
		}
	}
}

func TestBulkLimits(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce, Bulk: policy.BulkLimits{Addrs: 100, Nets: 10}})
	expires := time.Now().Add(time.Hour)
	addrs := func(n int) (set []dataplane.Listed) {
		for i := range n {
			set = append(set, dataplane.Listed{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32), Expires: expires})
		}
		return set
	}
	nets := func(n int) (set []dataplane.Listed) {
		for i := range n {
			set = append(set, dataplane.Listed{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i)}), 16), Expires: expires})
		}
		return set
	}
	check(t, f.ReplaceBulk(append(addrs(100), nets(10)...)))
	check(t, f.ReplaceBulk(append(addrs(100), addrs(100)...))) // repeats do not count
	check(t, f.ReplaceBulk(append(addrs(100), nets(10)...)))
	for name, set := range map[string][]dataplane.Listed{"addresses": addrs(101), "prefixes": nets(11), "repeats without end": make([]dataplane.Listed, 1000)} {
		if err := f.ReplaceBulk(set); !errors.Is(err, dataplane.ErrFull) {
			t.Errorf("%s: %v: expected ErrFull", name, err)
		}
	}
	enforced(t, f, 110)
	if inject(t, f, planetest.Datagram(dataplane.ToInside, endpoint("20.9.1.1:1"), endpoint("10.0.0.1:2"), nil)) {
		t.Error("the last good set is not enforced")
	}
}

// What somebody else breaks in the tables must show: an entry that no packet
// finds is not enforced, even where its bytes are still there.
func TestBulkReadBackSeesDamage(t *testing.T) {
	f := newFixture(t, Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	expires := time.Now().Add(time.Hour)
	set := newSlowBulk(randomSet(rng, 5000, func() time.Time { return expires })).set()
	for name, damage := range map[string]func(g *built){
		"Bloom filter": func(g *built) { clear(g.head.Bloom[:]) },
		"bits of /16":  func(g *built) { clear(g.head.Bits16[:]) },
		"bits of /24":  func(g *built) { clear(g.cells[g.head.Bits24.At:][:cells24]) },
		"lengths":      func(g *built) { clear(g.head.Lengths[:]) },
		"regions":      func(g *built) { clear(g.head.Region6[:]) },
		"an entry": func(g *built) {
			for i := range g.cells {
				if w := &g.cells[i].W; w[0] != 0 {
					w[0] = 0
					return
				}
			}
		},
	} {
		check(t, f.ReplaceBulk(set))
		enforced(t, f, uint64(len(set)))
		g := writable(t, f)
		damage(g)
		s, err := f.BulkState()
		check(t, err)
		if s.Intended != uint64(len(set)) || s.Enforced >= s.Intended {
			t.Errorf("%s: %d intended, %d enforced: expected %d, and fewer", name, s.Intended, s.Enforced, len(set))
		}
		g.close()
	}
}

// writable opens the generation in force as nobody but a test may.
func writable(t *testing.T, f fixture) *built {
	t.Helper()
	g, err := f.bulk.view()
	check(t, err)
	w := &built{}
	w.headMap, err = g.headMap.Clone()
	check(t, err)
	w.cellMap, err = g.cellMap.Clone()
	check(t, err)
	check(t, w.mapMemory(3)) // read and write
	g.close()
	return w
}

func TestBulkMeta(t *testing.T) {
	const day = 24 * 3600
	for _, until := range []uint64{1, 59, day, 24 * day, untilCoarse - 1, untilCoarse, untilCoarse + 63, 365 * day, 4 * 365 * day} {
		got := metaUntil(untilMeta(until, 1023))
		if slack := uint64(64); got > until || got+slack <= until || until < untilCoarse && got != until {
			t.Errorf("%d s: kept as %d s", until, got)
		}
		if r := metaReason(untilMeta(until, 1023)); r != 1023 {
			t.Errorf("%d s: reason %d, expected 1023", until, r)
		}
	}
	if got := metaUntil(untilMeta(1<<40, 0)); got < 4*365*day || got > 5*365*day {
		t.Errorf("without end: kept as %d s, expected four years", got)
	}
	if untilMeta(0, 0) == 0 {
		t.Error("an entry that looks like a free place")
	}
}

func TestBulkNetKeys(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for n := range 32 {
		addr := rng.Uint32() &^ (1<<(32-n) - 1)
		if a, m := netOf(netKey(addr, n)); a != addr || m != n {
			t.Errorf("%08x/%d: got %08x/%d", addr, n, a, m)
		}
	}
}

func TestBulkLayout(t *testing.T) {
	if s := unsafe.Sizeof(kernelBulkCell{}); s != 64 || s != unsafe.Sizeof(kernelBulkCell6{}) {
		t.Errorf("a cell has %d bytes: expected 64, a line of cache", s)
	}
}

// A table that is built too full says so, and is built larger.
func TestBulkCrowded(t *testing.T) {
	var s policy.BulkSet
	s.Reasons = []uint32{1}
	for i := range 5000 {
		s.Addrs4 = append(s.Addrs4, policy.Bulk4{Addr: uint32(i), Bits: 32, Expires: 1 << 60})
	}
	pl := newPlan(&s, seeds{1, 0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 4}, 0, func(int64) uint64 { return 100 })
	for load, want := range map[float64]error{8: errCrowded, 3: nil} {
		l := pl.layout(load)
		if err := pl.fill(&kernelBulkHead{}, make([]kernelBulkCell, l.cells), l); !errors.Is(err, want) {
			t.Errorf("load %g: %v: expected %v", load, err, want)
		}
	}
}
