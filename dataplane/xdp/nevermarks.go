package xdp

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Sizes of the marks of addresses in bpf/marks.h, in words of 64 bits.
const (
	neverWords = 512
	neverFew   = 8
)

// markNever has the programs look for the entries of both lists: now is what
// the kernel's list may hold, next what will be put there. A packet that no mark
// leads to is taken to be on neither.
func (p *Plane) markNever(now, next map[kernelNeverKey]kernelNever) error {
	var words kernelNeverBits
	for _, list := range []map[kernelNeverKey]kernelNever{now, next} {
		for k, v := range list {
			words.mark(k, v.T[:min(int(v.N), len(v.T))])
		}
	}
	if err := p.objs.NeverMarks.Put(uint32(0), &words); err != nil {
		return fmt.Errorf("mark entries: %w", err)
	}
	return nil
}

// mark sets the bits of an entry: those of its address and its ports, or those of
// every /16 and /8 that it touches.
func (w *kernelNeverBits) mark(k kernelNeverKey, tuples []kernelNeverTuple) {
	pfx := fromPrefix(uint16(k.Family), k.Bits-32, k.Addr)
	if pfx.IsSingleIP() {
		words := &w.Some
		for _, t := range tuples {
			w.Ports[t.Port/64] |= 1 << (t.Port % 64)
			w.FewPorts[t.Port/64%neverFew] |= 1 << (t.Port % 64)
			if t.Port == 0 {
				words = &w.Addrs
			}
		}
		x := addrHash(pfx.Addr())
		bits := uint64(1)<<(x>>8&63) | 1<<(x>>16&63)
		words[x>>51&(neverWords-1)] |= bits
		w.Few[x>>51&(neverFew-1)] |= bits
		return
	}
	nets, tops, b := &w.Nets4, &w.Tops4, pfx.Addr().AsSlice()
	if pfx.Addr().Is6() {
		nets, tops = &w.Nets6, &w.Tops6
	}
	first := uint32(b[0])<<8 | uint32(b[1])
	for top := first; top < first+1<<max(0, 16-pfx.Bits()); top++ {
		nets[top/64] |= 1 << (top % 64)
		tops[(top>>8)/64] |= 1 << ((top >> 8) % 64)
	}
}

// remarkNever marks what the kernel's list holds, whoever put it there.
func (p *Plane) remarkNever() error {
	was, err := listed(p.objs.Nevers)
	if err != nil {
		return fmt.Errorf("read the never-block list: %w", err)
	}
	return p.markNever(was, nil)
}

// listed reads a never-block list out of the kernel.
func listed(list *ebpf.Map) (map[kernelNeverKey]kernelNever, error) {
	out := make(map[kernelNeverKey]kernelNever)
	var k kernelNeverKey
	var v kernelNever
	it := list.Iterate()
	for it.Next(&k, &v) {
		out[k] = v
	}
	return out, it.Err()
}
