package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

const neverTuples = len(kernelNever{}.T)

// SetNever implements [dataplane.Plane]: entries replace all earlier ones. The
// kernel finds the narrowest prefix of an address only, so each prefix also
// carries the entries of those around it: at most 16 together, else
// [dataplane.ErrFull].
func (p *Plane) SetNever(entries []dataplane.Never) error {
	err := p.withList(entries, func(want neverSet) error {
		was, err := listed(p.objs.Nevers)
		if err != nil {
			return err
		}
		// What the list may hold is marked at every moment, and nothing else in the end.
		if err := p.markNever(was, want); err != nil {
			return err
		}
		if err := p.setList(p.objs.Nevers, &p.cfg.Nevers, want); err != nil {
			return err
		}
		return p.markNever(nil, want)
	})
	if err != nil {
		return fmt.Errorf("never-block list: %w", err)
	}
	return nil
}

// SetRemediation implements [dataplane.Plane], with the bounds of SetNever.
func (p *Plane) SetRemediation(entries []dataplane.Never) error {
	err := p.withList(entries, func(want neverSet) error {
		return p.setList(p.objs.Remedies, &p.cfg.Remedies, want)
	})
	if err != nil {
		return fmt.Errorf("remediation list: %w", err)
	}
	return nil
}

// neverSet are entries as the kernel keeps them.
type neverSet = map[kernelNeverKey]kernelNever

// withList calls set with entries as the kernel keeps them, while nobody else
// changes the plane.
func (p *Plane) withList(entries []dataplane.Never, set func(neverSet) error) error {
	want, err := flatten(entries)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	return set(want)
}

// setList makes want the content of a list whose switch in the settings is on.
func (p *Plane) setList(in *ebpf.Map, on *uint32, want neverSet) error {
	if len(want) > 0 && *on == 0 {
		*on = 1
		if err := p.writeConfig(); err != nil {
			return err
		}
	}
	// New ones first: at no moment is an entry of both lists missing.
	for k, v := range want {
		if err := in.Put(k, v); err != nil {
			return full(err)
		}
	}
	if err := prune(in, want); err != nil {
		return err
	}
	*on = uint32(min(len(want), 1))
	return p.writeConfig()
}

// prune takes out of a list what is not wanted.
func prune[V any](list *ebpf.Map, want map[kernelNeverKey]V) error {
	var k kernelNeverKey
	var v V
	var stale []kernelNeverKey
	it := list.Iterate()
	for it.Next(&k, &v) {
		if _, ok := want[k]; !ok {
			stale = append(stale, k)
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	for _, k := range stale {
		if err := list.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// flatten merges the entries of equal and of covering prefixes.
func flatten(entries []dataplane.Never) (neverSet, error) {
	byPrefix := make(map[netip.Prefix][]dataplane.Never)
	for _, n := range entries {
		switch {
		case !n.Prefix.IsValid() || n.Prefix != n.Prefix.Masked():
			return nil, fmt.Errorf("prefix %s: expected a prefix without host bits", n.Prefix)
		case n.Prefix.Addr().Is4In6():
			return nil, fmt.Errorf("prefix %s: IPv4-mapped IPv6 address: expected plain IPv4", n.Prefix)
		}
		byPrefix[n.Prefix] = append(byPrefix[n.Prefix], n)
	}
	out := make(neverSet, len(byPrefix))
	for pfx := range byPrefix {
		var v kernelNever
		for _, n := range covering(byPrefix, pfx) {
			if int(v.N) == neverTuples {
				return nil, fmt.Errorf("prefix %s: more than %d entries with those of wider prefixes: %w", pfx, neverTuples, dataplane.ErrFull)
			}
			t := &v.T[v.N]
			t.Port, t.Proto = n.Port, n.Proto
			if n.AnySide {
				t.AnySide = 1
			}
			v.N++
		}
		fam, bits := family(pfx)
		out[kernelNeverKey{Bits: 32 + bits, Family: uint32(fam), Addr: toKernel(pfx.Addr())}] = v
	}
	return out, nil
}

// covering are the entries of pfx and of all wider prefixes, without repeats.
func covering(byPrefix map[netip.Prefix][]dataplane.Never, pfx netip.Prefix) []dataplane.Never {
	var all []dataplane.Never
	for bits := pfx.Bits(); bits >= 0; bits-- {
		wide, err := pfx.Addr().Prefix(bits)
		if err != nil {
			break
		}
		for _, n := range byPrefix[wide] {
			n.Prefix = pfx
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	return all
}

// setNetworks writes the protected networks, by which a sensor tells directions.
func (p *Plane) setNetworks() error {
	want := make(map[kernelNeverKey]uint32, len(p.o.Networks))
	for _, pfx := range p.o.Networks {
		fam, bits := family(pfx)
		k := kernelNeverKey{Bits: 32 + bits, Family: uint32(fam), Addr: toKernel(pfx.Addr())}
		want[k] = 1
		if err := p.objs.Networks.Put(k, want[k]); err != nil {
			return fmt.Errorf("networks: %s: %w", pfx, full(err))
		}
	}
	if err := prune(p.objs.Networks, want); err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	return nil
}
