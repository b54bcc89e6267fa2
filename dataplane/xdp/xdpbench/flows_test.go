package xdpbench

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
)

var server = netip.MustParseAddrPort("10.99.0.2:443")

// flowBench is the same program over two tables of one size.
type flowBench struct {
	stream *Stream
	planes [2]*xdp.Measured // ours, LRU_HASH
	progs  [2]*Program
}

func newFlowBench(tb testing.TB, maxFlows uint32) *flowBench {
	tb.Helper()
	f := new(flowBench)
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	var err error
	f.stream, err = NewStream(Ends{
		From: net.HardwareAddr{2, 0, 0, 0, 0, 1}, To: net.HardwareAddr{2, 0, 0, 0, 0, 2}, Dst: server, TCP: true,
	}, MaxSources)
	must(err)
	tb.Cleanup(func() { f.stream.Close() })
	// No payload: the first few of a flow cost more, in either table.
	f.stream.frame[16], f.stream.frame[17] = 0, 40
	for i, load := range []func(xdp.Options, uint32) (*xdp.Measured, error){xdp.LoadMeasured, xdp.LoadMeasuredLRU} {
		f.planes[i], err = load(xdp.Options{Role: xdp.Host, Mode: dataplane.Enforce, MaxFlows: maxFlows}, 0)
		must(err)
		tb.Cleanup(func() { f.planes[i].Close() })
		f.progs[i], err = Hedgerow(fmt.Sprint("table ", i), f.planes[i])
		must(err)
		tb.Cleanup(func() { f.progs[i].Close() })
	}
	return f
}

func client(i int) Source {
	return Source{netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}), 40000}
}

// stranger never meets a client.
func stranger(rng *rand.Rand) Source {
	x := rng.Uint32()
	return Source{netip.AddrFrom4([4]byte{200 + byte(x>>24)%20, byte(x >> 16), byte(x >> 8), byte(x)}), uint16(rng.Uint32())}
}

// establish plays the handshakes of n clients, in both tables.
func (f *flowBench) establish(tb testing.TB, n int) {
	tb.Helper()
	for i := range n {
		c := client(i)
		s := planetest.NewSession(netip.AddrPortFrom(c.Addr, c.Port), server)
		s.ServerInside = true
		for _, step := range s.Open() {
			for _, p := range f.planes {
				if _, err := p.Inject(step.Hook, step.Frame); err != nil {
					tb.Fatal(err)
				}
			}
		}
	}
}

// known is how many of n clients have a flow, and its ids.
func (f *flowBench) known(tb testing.TB, plane, n int) map[flow.Key]uint64 {
	tb.Helper()
	all, err := f.planes[plane].FlowIDs()
	if err != nil {
		tb.Fatal(err)
	}
	ids := make(map[flow.Key]uint64, n)
	for i := range n {
		c := client(i)
		k, _ := flow.NewKey(netip.AddrPortFrom(c.Addr, c.Port), server, flow.TCP)
		if id, ok := all[k]; ok {
			ids[k] = id
		}
	}
	return ids
}

// runs plays a list once through one table; ns a packet.
func (f *flowBench) run(tb testing.TB, plane int, list []Source) float64 {
	tb.Helper()
	if err := f.stream.SetSources(list); err != nil {
		tb.Fatal(err)
	}
	took, err := f.progs[plane].Run(f.stream, len(list))
	if err != nil {
		tb.Fatal(err)
	}
	return float64(took.Nanoseconds())
}

// BenchmarkFlowUpdate is one packet of a known flow, of so many, in random order.
func BenchmarkFlowUpdate(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := newFlowBench(b, uint32(max(n, 65536)))
			rng := rand.New(rand.NewPCG(1, 1))
			fill := make([]Source, 0, 2*n)
			for i := range n {
				fill = append(fill, client(i), client(i), client(i))
			}
			random := make([]Source, 1<<21)
			for i := range random {
				random[i] = client(rng.IntN(n))
			}
			for at := range f.planes {
				f.run(b, at, fill)
			}
			f.compare(b, random)
		})
	}
}

// compare runs a list over both tables in turn, and reports both and their ratio.
func (f *flowBench) compare(b *testing.B, list []Source) {
	b.Helper()
	var ns [2]float64
	rounds := 0
	for b.Loop() {
		for at := range f.planes {
			ns[at] += f.run(b, at, list)
		}
		rounds++
	}
	b.ReportMetric(ns[0]/float64(rounds), "ns/packet")
	b.ReportMetric(ns[1]/float64(rounds), "lru-ns/packet")
	b.ReportMetric(ns[1]/ns[0], "lru/ours")
}

// BenchmarkFlowFlood is one packet of a flood in which each packet, or each
// pair, is a new flow.
func BenchmarkFlowFlood(b *testing.B) {
	for _, max := range []uint32{65536, 1 << 20} {
		for _, each := range []int{1, 2} {
			b.Run(fmt.Sprintf("table=%d/packets=%d", max, each), func(b *testing.B) {
				f := newFlowBench(b, max)
				rng := rand.New(rand.NewPCG(2, 2))
				f.compare(b, mix(rng, 1<<22, 0, each, 0))
			})
		}
	}
}

// mix is n packets, of which share percent are of random clients out of so many
// and the rest of strangers with so many packets each, close together.
func mix(rng *rand.Rand, n, share, each, clients int) []Source {
	list := make([]Source, 0, n)
	var recent [64]Source
	for i := range recent {
		recent[i] = stranger(rng)
	}
	for k := 0; len(list) < n; k++ {
		if clients > 0 && rng.IntN(100) < share {
			list = append(list, client(rng.IntN(clients)))
			continue
		}
		at := rng.IntN(len(recent))
		if each == 1 {
			list = append(list, stranger(rng))
			continue
		}
		if k&1 == 0 {
			recent[at] = stranger(rng)
		}
		list = append(list, recent[at])
	}
	return list
}

// BenchmarkFlowSurvival floods a table that holds 50,000 established flows and
// reports how many still have their state.
func BenchmarkFlowSurvival(b *testing.B) {
	const clients = 50_000
	for _, max := range []uint32{65536, 1 << 20} {
		for _, each := range []int{1, 2} {
			for _, share := range []int{2, 10, 50} {
				b.Run(fmt.Sprintf("table=%d/packets=%d/share=%d", max, each, share), func(b *testing.B) {
					f := newFlowBench(b, max)
					f.establish(b, clients)
					before := [2]map[flow.Key]uint64{f.known(b, 0, clients), f.known(b, 1, clients)}
					rng := rand.New(rand.NewPCG(3, 3))
					f.compare(b, mix(rng, 1<<22, share, each, clients))
					for at, name := range []string{"kept-%", "lru-kept-%"} {
						after := f.known(b, at, clients)
						kept := 0
						for k, id := range before[at] {
							if after[k] == id {
								kept++
							}
						}
						b.ReportMetric(100*float64(kept)/clients, name)
					}
				})
			}
		}
	}
}
