package xdp

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

var _ dataplane.Auditor = (*Plane)(nil)

// Audit implements [dataplane.Auditor]. A list whose switch in the settings is
// off is not asked by the programs, and counts as empty.
func (p *Plane) Audit(want dataplane.Lists) ([]dataplane.ListState, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, dataplane.ErrClosed
	}
	var on kernelConfig
	if err := p.objs.Settings.Lookup(uint32(0), &on); err != nil {
		return nil, fmt.Errorf("audit: settings: %w", err)
	}
	var floods kernelFloodConfig
	if err := p.objs.Floods.Lookup(uint32(0), &floods); err != nil {
		return nil, fmt.Errorf("audit: flood settings: %w", err)
	}
	var out []dataplane.ListState
	for _, l := range []struct {
		name string
		want []dataplane.Never
		in   *ebpf.Map
		on   uint32
	}{{"never-block", want.Never, p.objs.Nevers, on.Nevers}, {"remediation", want.Remediation, p.objs.Remedies, on.Remedies}} {
		s, err := auditNever(l.name, l.want, l.in, l.on != 0)
		if err != nil {
			return nil, fmt.Errorf("audit: %s: %w", l.name, err)
		}
		out = append(out, s)
	}
	meant := p.floodConfig(&want.Flood)
	out = append(out, dataplane.CompareList("flood limits", limitWords(&meant), limitWords(&floods)))
	guards, err := auditGuards(guardsOf(&want.Flood), p.objs.Guards, floods.Protects|floods.Darks != 0)
	if err != nil {
		return nil, fmt.Errorf("audit: guards: %w", err)
	}
	return append(out, guards), nil
}

func auditNever(name string, want []dataplane.Never, in *ebpf.Map, on bool) (dataplane.ListState, error) {
	flat, err := flatten(want)
	if err != nil {
		return dataplane.ListState{}, err
	}
	return audit(name, flat, in, on, func(v kernelNever) string {
		var tuples []dataplane.Never
		for _, t := range v.T[:min(int(v.N), neverTuples)] {
			tuples = append(tuples, dataplane.Never{Proto: t.Proto, Port: t.Port, AnySide: t.AnySide != 0})
		}
		return dataplane.NeverWords(tuples)
	})
}

func auditGuards(want map[kernelNeverKey]kernelGuarded, in *ebpf.Map, on bool) (dataplane.ListState, error) {
	return audit("protected and dark", want, in, on, func(v kernelGuarded) string {
		if v.Dark != 0 {
			return "dark"
		}
		return strings.TrimSpace(fmt.Sprintln("ports", v.Ports[:min(int(v.N), len(v.Ports))]))
	})
}

// audit reads a list by prefix and compares it.
func audit[V any](name string, want map[kernelNeverKey]V, in *ebpf.Map, on bool, words func(V) string) (dataplane.ListState, error) {
	meant, have := map[string]string{}, map[string]string{}
	for k, v := range want {
		meant[keyWords(k)] = words(v)
	}
	if !on {
		return dataplane.CompareList(name, meant, have), nil
	}
	var k kernelNeverKey
	var v V
	it := in.Iterate()
	for it.Next(&k, &v) {
		have[keyWords(k)] = words(v)
	}
	return dataplane.CompareList(name, meant, have), it.Err()
}

func keyWords(k kernelNeverKey) string {
	return fromPrefix(uint16(k.Family), k.Bits-32, k.Addr).String()
}

// limitWords are the settings for floods that are not off.
func limitWords(c *kernelFloodConfig) map[string]string {
	out := map[string]string{}
	for i, k := range dataplane.Budgets() {
		if c.Step[i] != 0 {
			out[k.String()] = fmt.Sprintf("one in %d ns", c.Step[i])
		}
	}
	for name, n := range map[string]uint32{
		"breaker": c.Breaker, "breaker-drops": c.BreakerDrops, "active": c.Active, "protects": c.Protects, "darks": c.Darks,
	} {
		if n != 0 {
			out[name] = fmt.Sprint(n)
		}
	}
	return out
}
