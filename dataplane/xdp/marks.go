package xdp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Sizes and places of bpf/marks.h, in words of 64 bits.
const (
	markWords = 8192
	markNets  = 1024
	allWords  = markWords + 2*markNets
)

// marks is userspace's side of bpf/marks.h: it counts how many rules stand
// behind each bit, so that a bit goes with the last of them. It writes to the
// memory that the programs read, without asking the kernel.
type marks struct {
	mem    []byte
	live   []uint64 // the same
	words  [allWords]uint64
	counts []uint32 // by bit
}

func (k *marks) open(m *ebpf.Map) (err error) {
	if k.mem, err = mapArray(m, unsafe.Sizeof(k.words), unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return fmt.Errorf("map the marks of rules: %w", err)
	}
	k.live = unsafe.Slice((*uint64)(unsafe.Pointer(&k.mem[0])), allWords)
	k.counts = make([]uint32, 64*allWords)
	return nil
}

// close gives the memory back; nothing may be marked or asked after it.
func (k *marks) close() error {
	if k.mem == nil {
		return nil
	}
	mem := k.mem
	k.mem, k.live = nil, nil
	return unix.Munmap(mem)
}

// set marks what a rule names, ahead of it. fresh says that the rule was not in
// that table; a bit that is lost is set again in any case.
func (k *marks) set(in table, t dataplane.Target, fresh bool) {
	var room [mostBits]uint32
	for _, b := range markBits(room[:0], in, t) {
		if fresh {
			k.counts[b]++
		}
		k.words[b/64] |= 1 << (b % 64)
		k.write(b / 64)
	}
}

// clear takes back the marks of a rule that is gone.
func (k *marks) clear(in table, t dataplane.Target) {
	var room [mostBits]uint32
	for _, b := range markBits(room[:0], in, t) {
		if n := k.counts[b]; n > 1 {
			k.counts[b] = n - 1
			continue
		}
		k.counts[b] = 0
		k.words[b/64] &^= 1 << (b % 64)
		k.write(b / 64)
	}
}

// tidy writes all words, so that marks of rules that an earlier process left
// behind are gone.
func (k *marks) tidy() {
	for w := range k.words {
		k.write(uint32(w))
	}
}

func (k *marks) write(w uint32) { atomic.StoreUint64(&k.live[w], k.words[w]) }

// shows says whether the kernel's own marks lead packets to a rule.
func (k *marks) shows(in table, t dataplane.Target) bool {
	var room [mostBits]uint32
	for _, bit := range markBits(room[:0], in, t) {
		if atomic.LoadUint64(&k.live[bit/64])>>(bit%64)&1 == 0 {
			return false
		}
	}
	return true
}

// mostBits are those of a rule that names no prefix.
const mostBits = 4

// markBits appends the bits of all that a rule names.
func markBits(bits []uint32, in table, t dataplane.Target) []uint32 {
	switch in {
	case tableBlockPrefix, tableObservePrefix:
		return netBits(bits, t.Prefix)
	case tableFlow:
		return addrBits(addrBits(bits, t.Flow.A), t.Flow.B)
	case tablePair:
		bits = addrBits(bits, t.Host)
	}
	return addrBits(bits, t.Prefix.Addr())
}

func addrBits(bits []uint32, a netip.Addr) []uint32 {
	x := addrHash(a)
	w := uint32(x>>51) & (markWords - 1)
	return append(bits, w*64+uint32(x>>8&63), w*64+uint32(x>>16&63))
}

// addrHash is mark_hash of bpf/marks.h.
func addrHash(a netip.Addr) uint64 {
	k := toKernel(a)
	x := (k.Lo ^ k.Hi*0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
	x ^= x >> 32
	return x * 0x94d049bb133111eb
}

// netBits are those of every /16 that a prefix touches.
func netBits(bits []uint32, p netip.Prefix) []uint32 {
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
	for i := range uint32(1) << max(0, 16-p.Bits()) {
		bits = append(bits, first*64+top+i)
	}
	return bits
}
