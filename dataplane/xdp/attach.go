package xdp

import (
	"errors"
	"fmt"
	"io"
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

// attachment is one interface with its hooks. The plane's lock guards it.
type attachment struct {
	Attach
	raw    bool           // frames begin with the IP header
	iface  *net.Interface // as it was when it was last hooked
	pins   linkPins
	xdp    link.Link
	egress egress    // nil for a sensor
	hold   io.Closer // promiscuous mode of a sensor
	mode   string
	groOff bool   // GRO was on, and is off as long as this is hooked in generic mode
	down   string // why it is not hooked now; "" when it is
}

func (a *attachment) close() error {
	errs := []error{closeLink(a.xdp)}
	if a.egress != nil {
		errs = append(errs, a.egress.close())
	}
	if a.hold != nil {
		errs = append(errs, a.hold.Close())
	}
	a.xdp, a.egress, a.hold = nil, nil, nil
	if a.groOff && a.pins.dir == "" {
		errs = append(errs, a.restoreGRO())
	}
	return errors.Join(errs...)
}

func closeLink(l link.Link) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// detach cuts the hooks, also where another process holds them.
func (a *attachment) detach() error {
	var errs []error
	if a.xdp != nil {
		errs = append(errs, cutLink(a.xdp))
	}
	if a.egress != nil {
		errs = append(errs, a.egress.detach())
	}
	return errors.Join(append(errs, a.restoreGRO(), a.pins.remove())...)
}

func cutLink(l link.Link) error {
	if err := l.Detach(); err != nil && !errors.Is(err, link.ErrNotSupported) {
		return err
	}
	return nil
}

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
	bridged bool // it is a port of a bridge
}

// rawLink says whether frames of a link begin with the IP header.
func rawLink(iface *net.Interface) (bool, error) {
	l, err := netlink.LinkByIndex(iface.Index)
	if err != nil {
		return false, fmt.Errorf("read link: %w", err)
	}
	return bareIP(l.Attrs().EncapType)
}

// bareIP knows the types of links: tun, WireGuard and mobile broadband ("none",
// "rawip") and PPP, whose own header is gone where the programs run, carry bare
// IP. Others without Ethernet are refused.
func bareIP(linkType string) (bool, error) {
	switch linkType {
	case "ether", "loopback":
		return false, nil
	case "none", "rawip", "ppp":
		return true, nil
	}
	return false, fmt.Errorf("%w: frames of link type %q begin neither with Ethernet nor with IP: choose the Ethernet interface that carries it",
		dataplane.ErrUnsupported, linkType)
}

func inspect(iface *net.Interface) (attached, error) {
	l, err := netlink.LinkByIndex(iface.Index)
	if err != nil {
		return attached{}, fmt.Errorf("read link: %w", err)
	}
	a := l.Attrs()
	var now attached
	if a.MasterIndex > 0 {
		master, err := netlink.LinkByIndex(a.MasterIndex)
		now.bridged = err == nil && master.Type() == "bridge"
	}
	if a.Xdp != nil && a.Xdp.Attached {
		now.prog, now.generic = ebpf.ProgramID(a.Xdp.ProgId), a.Xdp.AttachMode == attachedGeneric
	}
	return now, nil
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

// dispatcher is the kernel's name of libxdp's program, which runs others.
const dispatcher = "xdp_dispatcher"

// foreign says which program is in the way, and how it is taken out of it.
func foreign(id ebpf.ProgramID, iface string) (found, advice string) {
	name := progName(id)
	found = fmt.Sprintf("another XDP program is attached (id %d, name %q)", id, name)
	advice = fmt.Sprintf("detach it with \"ip link set dev %s xdp off\", or choose another interface", iface)
	if name == dispatcher {
		found += ", the dispatcher of libxdp"
		advice = fmt.Sprintf("hedgerow does not run below it: see what it runs with \"xdp-loader status\", unload that with \"xdp-loader unload %s --all\", or choose another interface", iface)
	}
	return found, advice
}

// hook attaches both programs to an interface, or swaps them into the links
// that are pinned for it.
func (p *Plane) hook(a *attachment, undo *undoStack) error {
	iface, err := findInterface(a.Interface)
	if err != nil {
		return err
	}
	now, err := inspect(iface)
	if err != nil {
		return err
	}
	if a.Role == Bridge && !now.bridged {
		return fmt.Errorf("role bridge: %s is not a port of a bridge: use role inside, or name a port", a.Interface)
	}
	if a.raw, err = rawLink(iface); err != nil {
		return err
	}
	a.iface = iface
	progs, err := p.programs(a.variant())
	if err != nil {
		return err
	}
	if err := p.hookXDP(a, progs.HedgerowXdp, now, undo); err != nil {
		return err
	}
	if err := p.settleGRO(a, undo); err != nil {
		return err
	}
	if a.Role == Sensor {
		mode, err := promiscuous(iface.Index)
		if err != nil {
			return err
		}
		a.hold = mode
		undo.add(mode.Close)
		return nil
	}
	return p.hookEgress(a, progs.HedgerowTcx, undo)
}

func (p *Plane) hookXDP(a *attachment, prog *ebpf.Program, now attached, undo *undoStack) error {
	pinned, info, err := a.pins.load(pinXDP)
	if err != nil {
		return err
	}
	ours := pinned != nil && info.XDP() != nil && int(info.XDP().Ifindex) == a.iface.Index && info.Program == now.prog
	switch {
	case ours:
		a.mode = modeName(now.generic)
		if now.generic && !p.o.Generic {
			p.log.Warn("taking over a link in generic mode, which costs about three times as much a packet; detach first to try native",
				"interface", a.Interface)
		}
		a.xdp, err = a.pins.takeOver(pinned, info, prog, pinXDP, undo)
		return err
	case pinned != nil:
		pinned.Close() // of an interface that is gone, or cut by somebody
	}
	if now.prog != 0 {
		found, advice := foreign(now.prog, a.Interface)
		return fmt.Errorf("%s: %s", found, advice)
	}
	a.xdp, err = p.newXDP(a, prog)
	if err != nil {
		return err
	}
	undo.add(a.xdp.Close)
	return a.pins.pin(a.xdp, prog, pinXDP, undo)
}

func (p *Plane) newXDP(a *attachment, prog *ebpf.Program) (link.Link, error) {
	opts := link.XDPOptions{Program: prog, Interface: a.iface.Index, Flags: link.XDPDriverMode}
	if !p.o.Generic {
		l, err := link.AttachXDP(opts)
		if err == nil {
			a.mode = modeNative
			return l, nil
		}
		if errors.Is(err, syscall.EBUSY) {
			return nil, fmt.Errorf("attach XDP: another program came first: %w", err)
		}
		p.log.Warn("native xdp is not possible here, using generic mode, which costs about three times as much a packet",
			"interface", a.Interface, "error", err)
	}
	opts.Flags = link.XDPGenericMode
	l, err := link.AttachXDP(opts)
	if err != nil {
		return nil, fmt.Errorf("attach XDP in generic mode: %w", err)
	}
	a.mode = modeGeneric
	return l, nil
}

func modeName(generic bool) string {
	if generic {
		return modeGeneric
	}
	return modeNative
}

// takeOver swaps the program of a pinned link in one step; taking it back puts
// the earlier program in again.
func (p linkPins) takeOver(l link.Link, info *link.Info, prog *ebpf.Program, name string, undo *undoStack) (link.Link, error) {
	before, err := p.program(name, info.Program)
	if err != nil && !errors.Is(err, syscall.EPERM) { // of a version that did not pin it: there is no way back then
		l.Close()
		return nil, fmt.Errorf("take over: open the earlier program: %w", err)
	}
	if err := l.Update(prog); err != nil {
		l.Close()
		before.Close()
		return nil, fmt.Errorf("take over: swap the program: %w", err)
	}
	undo.hold(before)
	undo.add(func() error {
		if before == nil {
			return l.Close()
		}
		back := &undoStack{} // what goes wrong here stays wrong
		return errors.Join(l.Update(before), p.pinProgram(before, name, back), l.Close())
	})
	return l, p.pinProgram(prog, name, undo)
}
