package xdp

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// What a packet of a flow that is known, and a SYN that is refused, cost with
// the budgets off and on. The test run's own floor is in all figures.
func BenchmarkFloodCost(b *testing.B) {
	known := planetest.Datagram(dataplane.ToInside, endpoint("198.51.100.4:1"), endpoint("10.0.0.1:53"), []byte("x")).Frame
	syn := planetest.Packet{Src: endpoint("20.0.0.1:1"), Dst: endpoint("10.0.0.1:443"), Proto: flow.TCP, Flags: flow.SYN}.Frame()
	for _, c := range []struct {
		name  string
		frame []byte
		flood dataplane.Flood
	}{
		{"known flow, off", known, dataplane.Flood{}},
		{"known flow, on", known, dataplane.Flood{Source: 1000, SourceNet: 4000, Service: 10000, Destination: 20000, Breaker: 20000}},
		{"refused SYN, by its source", syn, dataplane.Flood{Source: 1, SourceNet: 4000, Service: 10000, Destination: 20000}},
		{"refused SYN, by its destination", syn, dataplane.Flood{Source: 1e7, SourceNet: 1e7, Service: 1e7, Destination: 1}},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := newFixture(b, Options{Role: Host, Mode: dataplane.Enforce})
			if err := f.SetFlood(c.flood); err != nil {
				b.Fatal(err)
			}
			binary.BigEndian.PutUint16(syn[34:], 1)
			if _, err := f.objs.HedgerowXdp.Run(&ebpf.RunOptions{Data: c.frame}); err != nil {
				b.Fatal(err)
			}
			// Another source port: the first SYN made a flow and spent the budget.
			binary.BigEndian.PutUint16(syn[34:], 2)
			_, took, err := f.objs.HedgerowXdp.Benchmark(c.frame, max(b.N, 100000), nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(took)/float64(time.Nanosecond), "ns/packet")
		})
	}
}
