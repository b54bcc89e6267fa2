package xdp

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Sizes of bpf/marks.h, in words of 64 bits.
const (
	markWords = 8192
	markNets  = 1024
)

// marks is userspace's side of bpf/marks.h: it counts how many rules stand
// behind each bit, so that a bit goes with the last of them.
type marks struct {
	mem    *ebpf.Memory
	words  [markWords + 2*markNets]uint64
	counts map[uint32]uint32 // by bit
}

func (k *marks) open(m *ebpf.Map) error {
	mem, err := m.Memory()
	if err != nil {
		return fmt.Errorf("map the marks of rules: %w", err)
	}
	k.mem, k.counts = mem, make(map[uint32]uint32)
	return nil
}

// set marks what a rule names, ahead of it. fresh says that the rule was not in
// that table; a bit that is lost is set again in any case.
func (k *marks) set(in table, t dataplane.Target, fresh bool) error {
	for _, b := range markBits(in, t) {
		if fresh {
			k.counts[b]++
		}
		k.words[b/64] |= 1 << (b % 64)
		if err := k.write(b / 64); err != nil {
			return err
		}
	}
	return nil
}

// clear takes back the marks of a rule that is gone.
func (k *marks) clear(in table, t dataplane.Target) error {
	for _, b := range markBits(in, t) {
		if n := k.counts[b]; n > 1 {
			k.counts[b] = n - 1
			continue
		}
		delete(k.counts, b)
		k.words[b/64] &^= 1 << (b % 64)
		if err := k.write(b / 64); err != nil {
			return err
		}
	}
	return nil
}

// tidy writes all words, so that marks of rules that an earlier process left
// behind are gone.
func (k *marks) tidy() error {
	for w := range k.words {
		if err := k.write(uint32(w)); err != nil {
			return err
		}
	}
	return nil
}

// write stores one word: 8 aligned bytes.
func (k *marks) write(w uint32) error {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], k.words[w])
	if _, err := k.mem.WriteAt(b[:], int64(w)*8); err != nil {
		return fmt.Errorf("mark a rule: %w", err)
	}
	return nil
}

// shows says whether the kernel's own marks lead packets to a rule.
func (k *marks) shows(in table, t dataplane.Target) bool {
	var b [8]byte
	for _, bit := range markBits(in, t) {
		if _, err := k.mem.ReadAt(b[:], int64(bit/64)*8); err != nil || binary.NativeEndian.Uint64(b[:])>>(bit%64)&1 == 0 {
			return false
		}
	}
	return true
}

// markBits are the bits of all that a rule names.
func markBits(in table, t dataplane.Target) []uint32 {
	switch in {
	case tableBlockPrefix, tableObservePrefix:
		return netBits(t.Prefix)
	case tableFlow:
		return append(addrBits(t.Flow.A), addrBits(t.Flow.B)...)
	case tablePair:
		return append(addrBits(t.Host), addrBits(t.Prefix.Addr())...)
	}
	return addrBits(t.Prefix.Addr())
}

func addrBits(a netip.Addr) []uint32 {
	x := addrHash(a)
	w := uint32(x>>51) & (markWords - 1)
	return []uint32{w*64 + uint32(x>>8&63), w*64 + uint32(x>>16&63)}
}

// addrHash is mark_of's in bpf/marks.h.
func addrHash(a netip.Addr) uint64 {
	k := toKernel(a)
	x := (k.Lo ^ k.Hi*0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	x ^= x >> 32
	return x * 0x94d049bb133111eb
}

// netBits are those of every /16 that a prefix touches.
func netBits(p netip.Prefix) []uint32 {
	first := uint32(markWords)
	var top uint32
	if a := p.Addr(); a.Is4() {
		b := a.As4()
		top = uint32(binary.BigEndian.Uint16(b[:]))
	} else {
		b := a.As16()
		top = uint32(binary.BigEndian.Uint16(b[:]))
		first += markNets
	}
	bits := make([]uint32, 1<<max(0, 16-p.Bits()))
	for i := range bits {
		bits[i] = first*64 + top + uint32(i)
	}
	return bits
}
