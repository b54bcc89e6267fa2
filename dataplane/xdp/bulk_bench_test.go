package xdp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

func v4(u uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], u)
	return netip.AddrFrom4(b)
}

// feed is n different addresses, all odd, so that even ones are certain misses.
func feed(rng *rand.Rand, n int) []dataplane.Listed {
	expires := time.Now().Add(24 * time.Hour)
	seen := make(map[uint32]bool, n)
	set := make([]dataplane.Listed, 0, n)
	for len(set) < n {
		u := rng.Uint32() | 1
		if !seen[u] {
			seen[u] = true
			set = append(set, dataplane.Listed{Prefix: netip.PrefixFrom(v4(u), 32), Reason: u >> 1 & 7, Expires: expires})
		}
	}
	return set
}

// cidrs are n prefixes in the lengths that feeds of networks have.
func cidrs(rng *rand.Rand, n int) []dataplane.Listed {
	expires := time.Now().Add(24 * time.Hour)
	lengths := []int{24, 24, 24, 24, 24, 24, 23, 22, 22, 21, 20, 19, 18, 16, 25, 27, 29, 30}
	seen := make(map[netip.Prefix]bool, n)
	set := make([]dataplane.Listed, 0, n)
	for len(set) < n {
		p, err := v4(rng.Uint32() >> 1).Prefix(lengths[rng.IntN(len(lengths))])
		if err != nil {
			panic(err) // lengths are within IPv4's
		}
		if !seen[p] {
			seen[p] = true
			set = append(set, dataplane.Listed{Prefix: p, Reason: 9, Expires: expires})
		}
	}
	return set
}

// methods are what is compared, each over the same addresses.
func (p *prober) methods() map[string]*ebpf.Program {
	return map[string]*ebpf.Program{"floor": p.Floor, "bulk": p.Bulk, "hash": p.Hash, "trie": p.LPM}
}

// compare measures all methods in turn, some rounds, and reports medians in ns
// a lookup. Each lookup waits for the one before, as a packet's do not overlap.
func (p *prober) compare(b *testing.B, addrs []netip.Addr, methods map[string]*ebpf.Program) {
	b.Helper()
	p.ask(addrs)
	n := uint32(len(addrs))
	took := make(map[string][]float64)
	for range 7 {
		for name, prog := range methods {
			_, d := p.run(b, prog, 0, n, time.Now())
			took[name] = append(took[name], float64(d.Nanoseconds())/float64(n))
		}
	}
	med := make(map[string]float64)
	for name, all := range took {
		slices.Sort(all)
		med[name] = all[len(all)/2]
		b.ReportMetric(med[name], name+"-ns")
	}
	for _, peer := range []string{"hash", "trie", "both"} {
		if methods[peer] != nil {
			b.ReportMetric((med[peer]-med["floor"])/(med["bulk"]-med["floor"]), peer+"/bulk")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkBulkLookup is the cost of a lookup against the size of the set,
// beside the kernel's hash and trie with the same entries.
func BenchmarkBulkLookup(b *testing.B) {
	for _, n := range []int{1000, 10000, 100000, 1000000} {
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		set := feed(rng, n)
		f := newFixture(b, Options{})
		must(b, f.ReplaceBulk(set))
		p := newProber(b, f, uint32(n))
		p.oracle(b, set, true)
		addrs := make([]netip.Addr, 1<<19)
		for _, c := range []struct {
			name string
			next func(i int) netip.Addr
		}{
			{"hit", func(int) netip.Addr { return set[rng.IntN(n)].Prefix.Addr() }},
			{"hot-1k", func(i int) netip.Addr { return set[i%1000].Prefix.Addr() }},
			{"miss", func(int) netip.Addr { return v4(rng.Uint32() &^ 1) }},
			{"hot-miss-1k", func(i int) netip.Addr { return v4(uint32(i%1000*2654435761) &^ 1) }},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				for i := range addrs {
					addrs[i] = c.next(i)
				}
				p.compare(b, addrs, p.methods())
			})
		}
	}
}

// BenchmarkBulkMixed is the lookup in 100,000 addresses and 75,000 prefixes,
// beside a hash for the ones and a trie for the others.
func BenchmarkBulkMixed(b *testing.B) {
	rng := rand.New(rand.NewPCG(2, 2))
	set := append(feed(rng, 100000), cidrs(rng, 75000)...)
	f := newFixture(b, Options{})
	must(b, f.ReplaceBulk(set))
	p := newProber(b, f, uint32(len(set)))
	p.oracle(b, set, false)
	methods := map[string]*ebpf.Program{"floor": p.Floor, "bulk": p.Bulk, "both": p.Both}
	addrs := make([]netip.Addr, 1<<19)
	for _, c := range []struct {
		name string
		next func(i int) netip.Addr
	}{
		{"member", func(int) netip.Addr { return set[rng.IntN(len(set))].Prefix.Addr() }},
		{"below-128", func(int) netip.Addr { return v4(rng.Uint32() >> 1) }},
		{"miss", func(int) netip.Addr { return v4(rng.Uint32() | 1<<31) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for i := range addrs {
				addrs[i] = c.next(i)
			}
			p.compare(b, addrs, methods)
		})
	}
}

// BenchmarkBulkProgram is the whole program on packets of 10,000 known flows
// with none, and with 100,000 addresses and 75,000 prefixes listed: in the bulk
// tables, and as rules in the kernel's hash and trie.
func BenchmarkBulkProgram(b *testing.B) {
	rng := rand.New(rand.NewPCG(4, 4))
	set := append(feed(rng, 100000), cidrs(rng, 75000)...)
	slow := newSlowBulk(set)
	const flows, packets, rounds = 10000, 200000, 7
	var addrs []netip.Addr
	for len(addrs) < flows {
		if a := v4(rng.Uint32() &^ 1); slow.find(a, time.Now()) == 0 {
			addrs = append(addrs, a)
		}
	}
	frame := planetest.Packet{Src: endpoint("10.0.0.1:4000"), Dst: endpoint("192.0.2.1:443"), Proto: flow.TCP, Flags: flow.ACK, Payload: make([]byte, 100)}.Frame()
	planes := map[string]fixture{}
	for name, fill := range map[string]func(f fixture) error{
		"none": func(fixture) error { return nil },
		"bulk": func(f fixture) error { return f.ReplaceBulk(set) },
		"maps": func(f fixture) error { return f.Apply(asRules(slow.set())...) },
	} {
		planes[name] = newFixture(b, Options{Mode: dataplane.Enforce, maxRules: 1 << 18})
		must(b, fill(planes[name]))
	}
	p := newProber(b, planes["bulk"], 1)
	p.ask(addrs)
	took := make(map[string][]float64)
	for range rounds {
		took["front"] = append(took["front"], float64(p.drive(b, nil, frame, flows, packets)))
		for name, f := range planes {
			p.drive(b, f.objs.HedgerowXdp, frame, flows, flows)
			took[name] = append(took[name], float64(p.drive(b, f.objs.HedgerowXdp, frame, flows, packets)))
		}
	}
	med := make(map[string]float64)
	for name, all := range took {
		slices.Sort(all)
		med[name] = all[rounds/2]
		b.ReportMetric(med[name], name+"-ns")
	}
	b.ReportMetric((med["bulk"]-med["front"])/(med["maps"]-med["front"]), "bulk/maps")
	b.ReportMetric(0, "ns/op")
	for name, f := range planes {
		s, err := f.Stats()
		must(b, err)
		if s.Dropped != 0 || s.Packets < rounds*packets {
			b.Errorf("%s: %d packets, %d dropped: expected %d and none", name, s.Packets, s.Dropped, rounds*packets)
		}
	}
}

func asRules(set []dataplane.Listed) []dataplane.Rule {
	rules := make([]dataplane.Rule, len(set))
	for i, l := range set {
		rules[i] = dataplane.Rule{Target: dataplane.Target{Prefix: l.Prefix}, Action: dataplane.Block, Expires: l.Expires, Reason: l.Reason}
	}
	return rules
}

// BenchmarkBulkReplace is a set of Go's into force, everything included.
func BenchmarkBulkReplace(b *testing.B) {
	for _, n := range []int{1000, 100000, 1000000} {
		set := feed(rand.New(rand.NewPCG(1, 1)), n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := newFixture(b, Options{})
			for b.Loop() {
				must(b, f.ReplaceBulk(set))
			}
			s, err := f.BulkState()
			must(b, err)
			b.ReportMetric(float64(s.Bytes)/float64(n), "B/entry")
		})
	}
}

// BenchmarkBulkState is a read-back of a million entries.
func BenchmarkBulkState(b *testing.B) {
	f := newFixture(b, Options{})
	must(b, f.ReplaceBulk(feed(rand.New(rand.NewPCG(1, 1)), 1000000)))
	for b.Loop() {
		s, err := f.BulkState()
		must(b, err)
		if s.Enforced != 1000000 {
			b.Fatalf("%d enforced: expected a million", s.Enforced)
		}
	}
}
