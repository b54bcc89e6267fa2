package xdp

import (
	"errors"
	"fmt"
	"net"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// inNamespace runs f in the network namespace of the interfaces. A daemon is in
// it anyway; a program that works on several is not.
func (p *Plane) inNamespace(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return fmt.Errorf("open the network namespace: %w", err)
	}
	defer here.Close()
	if here.Equal(p.ns) {
		return f()
	}
	if err := netns.Set(p.ns); err != nil {
		return fmt.Errorf("enter the network namespace of the interfaces: %w", err)
	}
	err = f()
	if back := netns.Set(here); back != nil {
		runtime.LockOSThread() // the thread is in the wrong place: it ends with its goroutine
		return errors.Join(err, fmt.Errorf("leave the network namespace of the interfaces: %w", back))
	}
	return err
}

// watchLinks subscribes to changes of interfaces until stop is called. Without
// the subscription the plane still looks at every sweep.
func (p *Plane) watchLinks() (stop func()) {
	ch, done := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	opts := netlink.LinkSubscribeOptions{Namespace: &p.ns, ErrorCallback: func(error) {}} // the sweep looks all the same
	if err := netlink.LinkSubscribeWithOptions(ch, done, opts); err != nil {
		p.log.Warn("changes of interfaces are noticed late", "error", err)
		return func() {}
	}
	go func() {
		for range ch { // closed by the subscription, after done
			if !p.linksChanged.Swap(true) {
				p.wake()
			}
		}
	}()
	return func() { close(done) }
}

// tend looks at every hook: one that somebody removed, or that went with its
// interface, is put back as soon as that is possible. Rules are in the tables
// all the time. It also says that the daemon is there.
func (p *Plane) tend() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	if !p.hooked {
		return nil
	}
	for _, a := range p.at {
		if err := p.inNamespace(func() error { p.mend(a); return nil }); err != nil {
			p.log.Error("looking at an interface", "interface", a.Interface, "error", err)
		}
	}
	p.cfg.Beat = uint64(bootNow()) / 1000
	p.cfg.Most = p.longest()
	return p.writeConfig()
}

// mend puts an interface's hooks back where they are missing. It tells once
// what happened, not at each look.
func (p *Plane) mend(a *attachment) {
	iface, err := net.InterfaceByName(a.Interface)
	if err != nil {
		p.tell(a, "the interface is gone; rules stay, and act again when it returns")
		return
	}
	if a.down == "" && a.iface.Index == iface.Index && a.alive() {
		return
	}
	if a.down == "" && a.iface.Index == iface.Index {
		p.tell(a, "somebody removed the programs")
	}
	if err := p.rehook(a); err != nil {
		p.tell(a, err.Error())
		return
	}
	p.log.Warn("attached again", "interface", a.Interface, "mode", a.mode, "after", a.down)
	a.down = ""
}

func (p *Plane) tell(a *attachment, why string) {
	if a.down != why {
		p.log.Error("packets of an interface are not filtered", "interface", a.Interface, "reason", why)
		a.down = why
	}
}

func (a *attachment) alive() bool {
	info, err := a.xdp.Info()
	if err != nil || info.XDP() == nil || int(info.XDP().Ifindex) != a.iface.Index {
		return false
	}
	return a.egress == nil || a.egress.alive(a.iface.Index)
}

func (p *Plane) rehook(a *attachment) error {
	if err := a.close(); err != nil {
		p.log.Warn("closing what was hooked", "interface", a.Interface, "error", err)
	}
	var undo undoStack
	if err := p.hook(a, &undo); err != nil {
		undo.run(p.log)
		a.xdp, a.egress, a.hold = nil, nil, nil
		return err
	}
	undo.release(p.log)
	return nil
}
