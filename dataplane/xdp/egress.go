package xdp

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// egress is the hook for what leaves an interface.
type egress interface {
	close() error  // lets go of it; what is pinned stays
	detach() error // ends it
	alive(index int) bool
	name() string
}

// tcx is the hook of Linux 6.6 and later.
type tcx struct{ link.Link }

func (t tcx) close() error  { return t.Close() }
func (t tcx) detach() error { return cutLink(t.Link) }
func (t tcx) name() string  { return "TCX" }

func (t tcx) alive(index int) bool {
	info, err := t.Info()
	return err == nil && info.TCX() != nil && int(info.TCX().Ifindex) == index
}

// clsact is the hook of kernels before 6.6: a filter of the traffic control.
// It has no link that could be pinned; the kernel keeps it until it is removed
// or its interface goes.
type clsact struct {
	index int
	keep  bool // enforcement is to outlive the process
}

// Where our filter stands: first, with a handle that says whose it is.
const (
	clsactPriority = 1
	clsactHandle   = 0x6872 // "hr"
)

func (c clsact) filter(fd int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: c.index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: clsactHandle,
			Protocol: unix.ETH_P_ALL, Priority: clsactPriority,
		},
		Fd: fd, Name: kernelProgHedgerowTcx, DirectAction: true,
	}
}

func (c clsact) name() string { return "clsact" }

func (c clsact) close() error {
	if c.keep {
		return nil
	}
	return c.detach()
}

func (c clsact) alive(index int) bool {
	f, err := c.find()
	return err == nil && f != nil && c.index == index
}

// find returns our filter, nil when there is none.
func (c clsact) find() (*netlink.BpfFilter, error) {
	l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: c.index}}
	filters, err := netlink.FilterList(l, netlink.HANDLE_MIN_EGRESS)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		return nil, nil // no clsact, or no interface
	}
	if err != nil {
		return nil, fmt.Errorf("read egress filters: %w", err)
	}
	for _, f := range filters {
		b, ok := f.(*netlink.BpfFilter)
		if ok && b.Handle == clsactHandle && b.Priority == clsactPriority && b.Name == kernelProgHedgerowTcx {
			return b, nil
		}
	}
	return nil, nil
}

// detach removes our filter, and the queueing discipline when nobody else has
// a filter there.
func (c clsact) detach() error {
	f, err := c.find()
	if err != nil || f == nil {
		return err
	}
	if err := netlink.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove egress filter: %w", err)
	}
	l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: c.index}}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		if rest, err := netlink.FilterList(l, parent); err != nil || len(rest) > 0 {
			return nil
		}
	}
	if err := netlink.QdiscDel(c.qdisc()); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove clsact: %w", err)
	}
	return nil
}

func (c clsact) qdisc() *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: c.index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// attach puts the program in, or swaps it for an earlier one's in one step. The program
// is pinned, for the next takeover's way back: to open it by its number takes CAP_SYS_ADMIN,
// which a service need not have.
func (c clsact) attach(prog *ebpf.Program, pins linkPins, undo *undoStack) error {
	if err := netlink.QdiscAdd(c.qdisc()); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("attach to egress: add clsact: %w", err)
	}
	old, err := c.find()
	if err != nil {
		return err
	}
	back := c.detach
	if old != nil {
		before, err := pins.program(pinTCX, ebpf.ProgramID(old.Id))
		switch {
		case err == nil:
			undo.hold(before)
			back = func() error {
				again := &undoStack{} // what goes wrong here stays wrong
				return errors.Join(netlink.FilterReplace(c.filter(before.FD())), pins.pinProgram(before, pinTCX, again))
			}
		case errors.Is(err, unix.EPERM): // of a version that did not pin it: there is no way back then
			back = func() error { return nil }
		default:
			return fmt.Errorf("take over: open the earlier egress program: %w", err)
		}
	}
	if err := netlink.FilterReplace(c.filter(prog.FD())); err != nil {
		return fmt.Errorf("attach to egress: add the filter: %w", err)
	}
	undo.add(back)
	return pins.pinProgram(prog, pinTCX, undo)
}

// hookEgress uses TCX where the kernel has it, else clsact.
func (p *Plane) hookEgress(a *attachment, prog *ebpf.Program, undo *undoStack) error {
	pinned, info, err := a.pins.load(pinTCX)
	if err != nil {
		return err
	}
	if pinned != nil {
		if t := info.TCX(); t != nil && int(t.Ifindex) == a.iface.Index {
			l, err := a.pins.takeOver(pinned, info, prog, pinTCX, undo)
			if err == nil {
				a.egress = tcx{l}
			}
			return err
		}
		pinned.Close()
	}
	old := clsact{index: a.iface.Index, keep: p.o.PinDir != ""}
	l, err := p.newTCX(a, prog)
	if errors.Is(err, link.ErrNotSupported) {
		p.log.Info("this kernel has no tcx, the egress program runs as a clsact filter", "interface", a.Interface)
		a.egress = old
		return old.attach(prog, a.pins, undo)
	}
	if err != nil {
		return fmt.Errorf("attach to egress: %w", err)
	}
	a.egress = tcx{l}
	undo.add(l.Close)
	if err := a.pins.pin(l, prog, pinTCX, undo); err != nil {
		return err
	}
	return old.detach() // of a daemon that had no TCX
}

func (p *Plane) newTCX(a *attachment, prog *ebpf.Program) (link.Link, error) {
	if p.o.clsact {
		return nil, link.ErrNotSupported
	}
	return link.AttachTCX(link.TCXOptions{
		Interface: a.iface.Index, Program: prog, Attach: ebpf.AttachTCXEgress, Anchor: link.Head(),
	})
}

// promisc keeps an interface in promiscuous mode as long as it is open, so that
// its card takes frames that are meant for others.
type promisc int

func promiscuous(index int) (promisc, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0 receives nothing
	if err != nil {
		return -1, fmt.Errorf("promiscuous mode: %w: CAP_NET_RAW is needed for a sensor", err)
	}
	m := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("promiscuous mode: %w", err)
	}
	return promisc(fd), nil
}

// Close ends it.
func (p promisc) Close() error { return unix.Close(int(p)) }
