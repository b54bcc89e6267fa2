package xdp

import (
	"errors"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// epochShift is how long a challenge's number holds (bpf/prove.h): 2^36 ns of
// boot time, and as long again.
const epochShift = 36

// guardsOf are the protected and dark prefixes in the kernel's terms.
func guardsOf(f *dataplane.Flood) map[kernelNeverKey]kernelGuarded {
	out := make(map[kernelNeverKey]kernelGuarded)
	for _, g := range f.Protected {
		k := guardKey(g.Prefix)
		v, had := out[k]
		switch {
		case g.Port == 0 || had && v.N == 0:
			v = kernelGuarded{}
		case int(v.N) < len(v.Ports):
			v.Ports[v.N] = g.Port
			v.N++
		}
		out[k] = v
	}
	for _, d := range f.Dark {
		out[guardKey(d)] = kernelGuarded{Dark: 1}
	}
	return out
}

func guardKey(p netip.Prefix) kernelNeverKey {
	fam, bits := family(p)
	return kernelNeverKey{Bits: 32 + bits, Family: uint32(fam), Addr: toKernel(p.Addr())}
}

func (p *Plane) putGuards(want map[kernelNeverKey]kernelGuarded) error {
	for k, v := range want {
		if err := p.objs.Guards.Put(k, v); err != nil {
			return full(err)
		}
	}
	return nil
}

func (p *Plane) pruneGuards(want map[kernelNeverKey]kernelGuarded) error {
	var k kernelNeverKey
	var v kernelGuarded
	var stale []kernelNeverKey
	it := p.objs.Guards.Iterate()
	for it.Next(&k, &v) {
		if _, ok := want[k]; !ok {
			stale = append(stale, k)
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	for _, k := range stale {
		if err := p.objs.Guards.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// rotate draws the key of the epoch after the next one: neither numbers that
// are out nor those given out now are made with it. Without the daemon the keys
// stay, and numbers differ by epoch alone.
func (p *Plane) rotate() error {
	epoch := uint64(bootNow()) >> epochShift
	if p.flood.Row[0] == 0 || epoch == p.epoch {
		return nil
	}
	p.epoch = epoch
	next := p.flood
	next.Cookie[(epoch+2)&3] = [2]uint64{secret(), secret()}
	return p.writeFlood(next)
}
