package xdp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// BenchmarkPacket takes the kernel's own time of repeated test runs, in
// ns/packet. Ratios to "bare" hold better than the figures; all packets are of
// one flow, so its memory is warm.
func BenchmarkPacket(b *testing.B) {
	rule := dataplane.Rule{
		Target: dataplane.Peer(netip.MustParseAddr("192.0.2.1")), Action: dataplane.Block, Expires: time.Now().Add(time.Hour),
	}
	session := planetest.NewSession(endpoint("192.0.2.1:4000"), endpoint("10.0.0.1:443"))
	session.ServerInside = true
	frame := session.Data(0, make([]byte, 512)).Frame
	for _, c := range []struct {
		name  string
		setup func(fixture) (*ebpf.Program, error)
	}{
		{"bare", func(fixture) (*ebpf.Program, error) { return barePass() }},
		{"xdp/known-flow", func(f fixture) (*ebpf.Program, error) { return f.mirror(), nil }},
		{"xdp/known-flow-10k-rules", func(f fixture) (*ebpf.Program, error) { return f.mirror(), fillRules(f, 10000) }},
		{"xdp/blocked", func(f fixture) (*ebpf.Program, error) { return f.mirror(), f.Apply(rule) }},
		{"xdp/blocked-10k-rules", func(f fixture) (*ebpf.Program, error) {
			if err := fillRules(f, 10000); err != nil {
				return nil, err
			}
			return f.mirror(), f.Apply(rule)
		}},
		{"tcx/known-flow", func(f fixture) (*ebpf.Program, error) { return f.objs.HedgerowTcx, nil }},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := newFixture(b, Options{Mode: dataplane.Enforce})
			prog, err := c.setup(f)
			if err != nil {
				b.Fatal(err)
			}
			_, took, err := prog.Benchmark(frame, max(b.N, 1), b.ResetTimer)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(took.Nanoseconds()), "ns/packet")
		})
	}
}

func barePass() (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bare", Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
}

func fillRules(f fixture, n int) error {
	rules := make([]dataplane.Rule, n)
	for i := range rules {
		a := netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		rules[i] = dataplane.Rule{Target: dataplane.Peer(a), Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}
	}
	return f.Apply(rules...)
}

// BenchmarkApply is one rule from Go into the kernel.
func BenchmarkApply(b *testing.B) {
	f := newFixture(b, Options{})
	rule := dataplane.Rule{Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}
	for i := 0; b.Loop(); i++ {
		rule.Target = dataplane.Peer(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}))
		if err := f.Apply(rule); err != nil {
			b.Fatal(err)
		}
		if i%100000 == 99999 {
			b.StopTimer()
			if err := clearRules(f); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	}
}

func clearRules(f fixture) error {
	hits, err := f.Rules()
	if err != nil {
		return err
	}
	for _, h := range hits {
		if err := f.Remove(h.Rule.Target); err != nil {
			return err
		}
	}
	return nil
}
