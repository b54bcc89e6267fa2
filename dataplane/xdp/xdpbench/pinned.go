package xdpbench

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
)

// Pinned is a plane as a site has it: hooked to an interface, and pinned.
type Pinned struct{ *xdp.Plane }

// OpenPinned opens one that faces the outside and enforces, or takes over what
// is pinned.
func OpenPinned(iface, pins string) (*Pinned, error) {
	p, err := xdp.Open(xdp.Options{Interface: iface, Role: xdp.Host, Mode: dataplane.Enforce, PinDir: pins})
	if err != nil {
		return nil, err
	}
	return &Pinned{p}, nil
}

// Behind counts the IPv4 packets that reach the stack of an interface, thus
// those that its XDP program let through.
type Behind struct {
	counts *ebpf.Map
	link   link.Link
}

// CountBehind hooks the counter in, in the caller's network namespace.
func CountBehind(ifindex int) (*Behind, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "behind", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("count behind: %w", err)
	}
	const protocol, ipv4 = 16, 0x0008 // __sk_buff.protocol, in network order
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "behind", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "Apache-2.0",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, protocol, asm.Word),
			asm.JNE.Imm(asm.R2, ipv4, "next"),
			asm.LoadMapValue(asm.R1, m.FD(), 0),
			asm.Mov.Imm(asm.R2, 1),
			asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
			asm.Mov.Imm(asm.R0, -1).WithSymbol("next"),
			asm.Return(),
		},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("count behind: %w", err), m.Close())
	}
	defer prog.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("count behind: %w", err), m.Close())
	}
	return &Behind{m, l}, nil
}

// Count is how many packets came through so far.
func (b *Behind) Count() (n uint64, err error) {
	err = b.counts.Lookup(uint32(0), &n)
	return n, err
}

// Close takes the counter off.
func (b *Behind) Close() error { return errors.Join(b.link.Close(), b.counts.Close()) }
