package xdp

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// words collects log lines.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *words) count(s string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.b.String(), s)
}

func (w *words) logger() *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// An interface goes and comes back under a running plane: rules stay, and act
// again without anybody doing anything.
func TestInterfaceReturnsToARunningPlane(t *testing.T) {
	l := newLab(t)
	var w words
	o := l.options(dataplane.Enforce)
	o.Log = w.logger()
	o.SweepEvery = time.Minute // only the kernel's word tells in time
	p := l.open(t, o)
	collect(t, p)
	check(t, p.Apply(blockPeer(time.Hour)))
	l.unplug(t)
	eventually(t, "the loss to be noticed", func() bool { return attachedNow(t, p).Down != "" })
	rules, err := p.Rules()
	check(t, err)
	if len(rules) != 1 {
		t.Errorf("%d rules while the interface is gone: expected the block", len(rules))
	}
	l.plug(t)
	eventually(t, "the return to be noticed", func() bool { return attachedNow(t, p).Down == "" })
	addr := l.echo(t)
	if err := l.talk(t, addr, "x", impatience); err == nil {
		t.Error("a blocked peer connected over the interface that returned")
	}
	check(t, p.Remove(dataplane.Peer(peerAddr)))
	if err := l.talk(t, addr, "x", patience); err != nil {
		t.Errorf("after removal: %v", err)
	}
	if gone, back := w.count("the interface is gone"), w.count("attached again"); gone != 2 || back != 1 {
		t.Errorf("log: gone %d times (once as the reason of the other line), back %d: expected 2 and 1", gone, back)
	}
	check(t, p.Close())
	if err := l.talk(t, addr, "x", patience); err != nil {
		t.Errorf("after close: %v", err)
	}
	if n := len(xdpIn(t, l)); n != 1 {
		t.Errorf("%d interfaces with XDP after close: expected the new one's pinned", n)
	}
}

func attachedNow(t *testing.T, p *Plane) dataplane.Attached {
	t.Helper()
	s, err := p.Stats()
	check(t, err)
	return s.Attached[0]
}

// cut takes a hook away as others would: a link or, before TCX, the filter.
func (l *lab) cut(t *testing.T, pin string) {
	t.Helper()
	if pin == pinTCX && !since(t, 6, 6) {
		l.in(t, l.host, func() {
			list, err := netlink.FilterList(mustLink(t, hostIface), netlink.HANDLE_MIN_EGRESS)
			check(t, err)
			for _, f := range list {
				check(t, netlink.FilterDel(f))
			}
		})
		return
	}
	cut, err := link.LoadPinnedLink(filepath.Join(l.pins, hostIface, pin), nil)
	check(t, err)
	defer cut.Close()
	check(t, cut.Detach())
}

// Somebody cuts a link: it is put back, and said once.
func TestRemovedLinkIsPutBack(t *testing.T) {
	for name, pin := range map[string]string{"ingress": pinXDP, "egress": pinTCX} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			var w words
			o := l.options(dataplane.Enforce)
			o.Log = w.logger()
			p := l.open(t, o)
			collect(t, p)
			check(t, p.Apply(blockPeer(time.Hour)))
			l.cut(t, pin)
			eventually(t, "the link to be put back", func() bool { return w.count("attached again") == 1 })
			addr := l.echo(t)
			if err := l.talk(t, addr, "x", impatience); err == nil {
				t.Error("a blocked peer connected after the link was put back")
			}
			if n := w.count("somebody removed the programs"); n != 2 {
				t.Errorf("the cause stands in %d lines: expected 2", n)
			}
			check(t, p.Close())
			l.detachPinned(t)
			if left := xdpIn(t, l); len(left) != 0 {
				t.Errorf("XDP on %v after detach", left)
			}
		})
	}
}

// A program that the verifier refuses changes nothing of what is there.
func TestRefusedProgramKeepsTheOld(t *testing.T) {
	l := newLab(t)
	p := l.open(t, l.options(dataplane.Enforce))
	check(t, p.Apply(blockPeer(time.Hour)))
	check(t, p.Close())
	o := l.options(dataplane.Monitor)
	o.spoil = func(s *ebpf.CollectionSpec) {
		prog := s.Programs[kernelProgHedgerowXdp]
		bad := asm.Instructions{asm.LoadMem(asm.R0, asm.R10, 8, asm.DWord), asm.Return()} // above the stack
		prog.Instructions = append(bad[:1], prog.Instructions...)
	}
	_, err := l.tryOpen(t, o)
	if !errors.Is(err, dataplane.ErrUnsupported) || !strings.Contains(err.Error(), "verifier refuses") {
		t.Errorf("open: %v: expected the verifier's refusal", err)
	}
	if err := l.talk(t, l.echo(t), "x", impatience); err == nil {
		t.Error("a blocked peer connected after the refused program")
	}
	q := l.open(t, l.options(dataplane.Enforce))
	if rules, err := q.Rules(); err != nil || len(rules) != 1 {
		t.Errorf("rules %v, %v: expected the block", rules, err)
	}
}

// Rules that are applied between Load and Attach are there at the first packet.
func TestRulesBeforeAttach(t *testing.T) {
	l := newLab(t)
	arrived, sent := l.barrage(t)
	var p *Plane
	var err error
	l.in(t, l.host, func() { p, err = Load(l.borrows(l.options(dataplane.Enforce))) })
	check(t, err)
	t.Cleanup(func() { p.Close() })
	check(t, p.Apply(blockPeer(time.Hour)))
	if left := xdpIn(t, l); len(left) != 0 {
		t.Errorf("XDP on %v before Attach", left)
	}
	l.in(t, l.host, func() { check(t, p.Attach()) })
	before, from := arrived.Load(), sent.Load()
	eventually(t, "traffic after attach", func() bool { return sent.Load() > from+200 })
	// One may have been on its way through the stack when the hook came.
	if n := arrived.Load() - before; n > 1 {
		t.Errorf("%d blocked datagrams arrived after attach", n)
	}
	if err := p.Attach(); err == nil {
		t.Error("a second attach succeeded")
	}
}

func TestDispatcherIsNamed(t *testing.T) {
	l := newLab(t)
	prog := passProgram(t, dispatcher)
	l.in(t, l.host, func() {
		other, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: mustLink(t, hostIface).Attrs().Index})
		check(t, err)
		t.Cleanup(func() { other.Close() })
	})
	_, err := l.tryOpen(t, l.options(dataplane.Monitor))
	if err == nil || !strings.Contains(err.Error(), "libxdp") || !strings.Contains(err.Error(), "xdp-loader unload hr0 --all") {
		t.Errorf("open below libxdp's dispatcher: %v: expected what to do", err)
	}
	var r Report
	l.in(t, l.host, func() { r = Probe(hostIface, "") })
	if f := finding(r, "other xdp program"); f.Level != Fatal || !strings.Contains(f.Advice, "xdp-loader") {
		t.Errorf("probe: %+v: expected the dispatcher as fatal, with advice", f)
	}
}

// The daemon ends, and the site fails closed: what is new is dropped after a
// while, and passes again when a daemon is there.
func TestFailsClosedWithoutADaemon(t *testing.T) {
	l := newLab(t)
	o := l.options(dataplane.Enforce)
	o.Fail, o.DeadAfter = FailClosed, 5*time.Second
	p := l.open(t, o)
	addr := l.echo(t)
	check(t, l.talk(t, addr, "x", patience))
	var known net.Conn
	l.in(t, l.peer, func() {
		var err error
		known, err = net.DialTimeout("tcp4", addr.String(), patience)
		check(t, err)
	})
	defer known.Close()
	check(t, p.Close())
	eventually(t, "new connections to be dropped", func() bool { return l.talk(t, addr, "x", impatience) != nil })
	check(t, known.SetDeadline(time.Now().Add(patience)))
	_, err := known.Write([]byte("x"))
	check(t, err)
	if _, err := known.Read(make([]byte, 1)); err != nil {
		t.Errorf("a known connection: %v: expected it to go on", err)
	}
	q := l.open(t, o)
	if err := l.talk(t, addr, "x", patience); err != nil {
		t.Errorf("with a daemon again: %v", err)
	}
	if s, err := q.Stats(); err != nil || s.Orphaned == 0 {
		t.Errorf("counted as new and unwatched: %d, %v: expected some", s.Orphaned, err)
	}
}
