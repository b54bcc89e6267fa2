package xdp

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// How XDP is attached, as the kernel numbers it (XDP_ATTACHED_*).
const attachedGeneric = 2

// Attach modes as Stats shows them.
const (
	modeNative  = "native"
	modeGeneric = "generic"
)

func findInterface(name string) (*net.Interface, error) {
	iface, err := net.InterfaceByName(name)
	if err == nil {
		return iface, nil
	}
	all, listErr := net.Interfaces()
	if listErr != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return nil, fmt.Errorf("interface %s: not found: choose one of %s", name, strings.Join(names, ", "))
}

// attached is what the kernel says of XDP on a link.
type attached struct {
	prog    ebpf.ProgramID // 0: none
	generic bool
}

// rawLink says whether frames of a link begin with the IP header: tun, WireGuard
// and mobile broadband ("none", "rawip"), and PPP, whose own header is gone
// where the programs run. Other links without Ethernet are refused.
func rawLink(iface *net.Interface) (bool, error) {
	l, err := netlink.LinkByIndex(iface.Index)
	if err != nil {
		return false, fmt.Errorf("read link: %w", err)
	}
	switch kind := l.Attrs().EncapType; kind {
	case "ether", "loopback":
		return false, nil
	case "none", "rawip", "ppp":
		return true, nil
	default:
		return false, fmt.Errorf("%w: frames of link type %s begin neither with Ethernet nor with IP: choose the Ethernet interface that carries it",
			dataplane.ErrUnsupported, kind)
	}
}

func inspect(iface *net.Interface) (attached, error) {
	l, err := netlink.LinkByIndex(iface.Index)
	if err != nil {
		return attached{}, fmt.Errorf("read link: %w", err)
	}
	a := l.Attrs()
	if a.Xdp == nil || !a.Xdp.Attached {
		return attached{}, nil
	}
	return attached{prog: ebpf.ProgramID(a.Xdp.ProgId), generic: a.Xdp.AttachMode == attachedGeneric}, nil
}

// progName is the kernel's name of a program, for people.
func progName(id ebpf.ProgramID) string {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "unknown"
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return "unknown"
	}
	return info.Name
}

// attach hooks both programs, or swaps them into the links that are pinned.
func (p *Plane) attach(undo *undoStack) error {
	now, err := inspect(p.iface)
	if err != nil {
		return err
	}
	if err := p.attachXDP(now, undo); err != nil {
		return err
	}
	return p.attachTCX(undo)
}

func (p *Plane) attachXDP(now attached, undo *undoStack) error {
	pinned, info, err := p.pins.loadLink(pinXDP)
	if err != nil {
		return err
	}
	ours := pinned != nil && info.XDP() != nil && int(info.XDP().Ifindex) == p.iface.Index && info.Program == now.prog
	switch {
	case ours:
		p.attachMode = modeName(now.generic)
		if now.generic && !p.o.Generic {
			p.log.Warn("taking over a link in generic mode, which costs about three times as much a packet; detach first to try native",
				"interface", p.o.Interface)
		}
		p.xdp, err = p.takeOver(pinned, info, p.objs.HedgerowXdp, undo)
		return err
	case pinned != nil:
		pinned.Close() // of an interface that is gone, or cut by somebody
	}
	if now.prog != 0 {
		return fmt.Errorf("another XDP program is attached (id %d, name %q): detach it with \"ip link set dev %s xdp off\", or choose another interface",
			now.prog, progName(now.prog), p.o.Interface)
	}
	p.xdp, err = p.newXDP()
	if err != nil {
		return err
	}
	undo.add(p.xdp.Close)
	return p.pins.pinLink(p.xdp, pinXDP, undo)
}

func (p *Plane) newXDP() (link.Link, error) {
	opts := link.XDPOptions{Program: p.objs.HedgerowXdp, Interface: p.iface.Index, Flags: link.XDPDriverMode}
	if !p.o.Generic {
		l, err := link.AttachXDP(opts)
		if err == nil {
			p.attachMode = modeNative
			return l, nil
		}
		if errors.Is(err, syscall.EBUSY) {
			return nil, fmt.Errorf("attach XDP: another program came first: %w", err)
		}
		p.log.Warn("native xdp is not possible here, using generic mode, which costs about three times as much a packet",
			"interface", p.o.Interface, "error", err)
	}
	opts.Flags = link.XDPGenericMode
	l, err := link.AttachXDP(opts)
	if err != nil {
		return nil, fmt.Errorf("attach XDP in generic mode: %w", err)
	}
	p.attachMode = modeGeneric
	return l, nil
}

func modeName(generic bool) string {
	if generic {
		return modeGeneric
	}
	return modeNative
}

func (p *Plane) attachTCX(undo *undoStack) error {
	pinned, info, err := p.pins.loadLink(pinTCX)
	if err != nil {
		return err
	}
	if pinned != nil {
		if tcx := info.TCX(); tcx != nil && int(tcx.Ifindex) == p.iface.Index {
			p.tcx, err = p.takeOver(pinned, info, p.objs.HedgerowTcx, undo)
			return err
		}
		pinned.Close()
	}
	p.tcx, err = link.AttachTCX(link.TCXOptions{
		Interface: p.iface.Index, Program: p.objs.HedgerowTcx, Attach: ebpf.AttachTCXEgress, Anchor: link.Head(),
	})
	if errors.Is(err, link.ErrNotSupported) {
		return fmt.Errorf("attach to egress: %w: TCX needs Linux 6.6 or later: upgrade the kernel, or replay captures instead", dataplane.ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("attach to egress: %w", err)
	}
	undo.add(p.tcx.Close)
	return p.pins.pinLink(p.tcx, pinTCX, undo)
}

// takeOver swaps the program of a pinned link in one step; taking it back puts
// the earlier program in again.
func (p *Plane) takeOver(l link.Link, info *link.Info, prog *ebpf.Program, undo *undoStack) (link.Link, error) {
	before, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("take over: open the earlier program: %w", err)
	}
	if err := l.Update(prog); err != nil {
		l.Close()
		before.Close()
		return nil, fmt.Errorf("take over: swap the program: %w", err)
	}
	undo.hold(before)
	undo.add(func() error { return errors.Join(l.Update(before), l.Close()) })
	return l, nil
}
