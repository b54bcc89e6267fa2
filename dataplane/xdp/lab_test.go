package xdp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// lab is two network namespaces joined by a veth pair: a peer, and the host
// whose interface "hr0" the plane protects.
type lab struct {
	peer, host netns.NsHandle
	pins       string // a private BPF file system
	lenders    []*lender
}

// lend begins a lab ahead of its namespaces: what its planes borrow is given
// back after those have gone, and with them all that runs the programs.
func lend(t *testing.T) *lab {
	l := new(lab)
	t.Cleanup(func() {
		for _, one := range l.lenders {
			one.giveBack(t)
		}
	})
	return l
}

var (
	peerAddr = netip.MustParseAddr("10.77.0.1")
	hostAddr = netip.MustParseAddr("10.77.0.2")
)

const (
	hostIface = "hr0"
	peerIface = "hr1"
)

func newLab(t *testing.T) *lab {
	t.Helper()
	needKernel(t)
	needEgress(t)
	l := lend(t)
	l.peer, l.host, l.pins = newNS(t), newNS(t), mountBPFFS(t)
	l.plug(t)
	return l
}

// plug makes the veth pair; pulling it out takes both ends away.
func (l *lab) plug(t *testing.T) {
	t.Helper()
	l.in(t, l.peer, func() {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: peerIface}, PeerName: hostIface, PeerNamespace: netlink.NsFd(l.host)}
		check(t, netlink.LinkAdd(veth))
		bringUp(t, peerIface, peerAddr)
	})
	l.in(t, l.host, func() { bringUp(t, hostIface, hostAddr) })
}

func (l *lab) unplug(t *testing.T) {
	t.Helper()
	l.in(t, l.peer, func() { check(t, netlink.LinkDel(mustLink(t, peerIface))) })
}

func bringUp(t *testing.T, name string, a netip.Addr) {
	t.Helper()
	lo := mustLink(t, "lo")
	check(t, netlink.LinkSetUp(lo))
	link := mustLink(t, name)
	check(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
	check(t, netlink.LinkSetUp(link))
}

func mustLink(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	check(t, err)
	return l
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newNS makes an unnamed namespace; it goes with the test.
func newNS(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	check(t, err)
	defer home.Close()
	ns, err := netns.New()
	check(t, err)
	check(t, netns.Set(home))
	t.Cleanup(func() {
		strip(t, ns)
		ns.Close()
	})
	return ns
}

// strip takes the devices out of a namespace. With the namespace they would go
// later than one can wait for.
func strip(t *testing.T, ns netns.NsHandle) {
	t.Helper()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE) // other families may be in modules that are not there
	check(t, err)
	defer h.Close()
	links, err := h.LinkList()
	check(t, err)
	for _, link := range links {
		var gone netlink.LinkNotFoundError
		if _, err := h.LinkByIndex(link.Attrs().Index); errors.As(err, &gone) || link.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // as of those that every namespace has
			t.Errorf("delete %s: %v", link.Attrs().Name, err)
		}
	}
}

// in runs f on a thread that is in ns. f may use t.Fatal.
func (l *lab) in(t *testing.T, ns netns.NsHandle, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	check(t, err)
	defer home.Close()
	check(t, netns.Set(ns))
	defer func() {
		if err := netns.Set(home); err != nil {
			panic(err) // the thread is in the wrong place: nothing after this could be trusted
		}
	}()
	f()
}

func mountBPFFS(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bpf")
	check(t, os.Mkdir(dir, 0o700))
	check(t, unix.Mount("bpf", dir, "bpf", 0, ""))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return filepath.Join(dir, "hedgerow")
}

func (l *lab) options(mode dataplane.Mode) Options {
	return Options{Interface: hostIface, Role: Host, PinDir: l.pins, Mode: mode, SweepEvery: 20 * time.Millisecond}
}

// open opens a plane on the host's interface. It is closed with the test.
func (l *lab) open(t *testing.T, o Options) *Plane {
	t.Helper()
	p, err := l.tryOpen(t, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func (l *lab) tryOpen(t *testing.T, o Options) (p *Plane, err error) {
	t.Helper()
	l.in(t, l.host, func() { p, err = Open(l.borrows(o)) })
	return p, err
}

// detachPinned ends what is pinned. Links are found by their pins, but a filter only
// in the network of its interface.
func (l *lab) detachPinned(t *testing.T) {
	t.Helper()
	l.in(t, l.host, func() { check(t, DetachPinned(l.pins)) })
}

// borrows lets a plane use what is in the kernel already.
func (l *lab) borrows(o Options) Options {
	if o.spoil == nil {
		one := new(lender)
		l.lenders = append(l.lenders, one)
		o.lend = one.load
	}
	return o
}

// echo starts a TCP echo server on the host.
func (l *lab) echo(t *testing.T) netip.AddrPort {
	t.Helper()
	return l.echoOn(t, hostAddr)
}

func (l *lab) echoOn(t *testing.T, a netip.Addr) netip.AddrPort {
	t.Helper()
	return l.echoIn(t, l.host, netip.AddrPortFrom(a, 0))
}

// echoIn echoes in a namespace; port 0 takes a free one.
func (l *lab) echoIn(t *testing.T, ns netns.NsHandle, at netip.AddrPort) netip.AddrPort {
	t.Helper()
	var ln net.Listener
	l.in(t, ns, func() {
		var err error
		ln, err = net.Listen("tcp", at.String())
		check(t, err)
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return netip.MustParseAddrPort(ln.Addr().String())
}

// talk connects from the peer, sends text and expects it back.
func (l *lab) talk(t *testing.T, to netip.AddrPort, text string, patience time.Duration) error {
	t.Helper()
	var c net.Conn
	var err error
	l.in(t, l.peer, func() { c, err = net.DialTimeout("tcp4", to.String(), patience) })
	if err != nil {
		return err
	}
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(patience)))
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(c, back); err != nil {
		return err
	}
	if string(back) != text {
		return errors.New("echo differs")
	}
	return nil
}

// collect runs the plane until the test ends and keeps its events.
type collector struct {
	mu     sync.Mutex
	events []dataplane.Event
}

func collect(t *testing.T, p *Plane) *collector {
	t.Helper()
	c := &collector{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- p.Run(ctx, func(e *dataplane.Event) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.events = append(c.events, *e)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, dataplane.ErrClosed) {
			t.Errorf("run: %v", err)
		}
	})
	return c
}

// wait polls until an event fits.
func (c *collector) wait(t *testing.T, what string, fits func(*dataplane.Event) bool) dataplane.Event {
	t.Helper()
	var got dataplane.Event
	eventually(t, what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i := range c.events {
			if fits(&c.events[i]) {
				got = c.events[i]
				return true
			}
		}
		return false
	})
	return got
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10s for: %s", what)
		}
		<-tick.C
	}
}

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}

func netDialUDP(to netip.Addr) (*net.UDPConn, error) {
	return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
}

func peerEnd(port uint16) netip.AddrPort { return netip.AddrPortFrom(peerAddr, port) }
func hostEnd(port uint16) netip.AddrPort { return netip.AddrPortFrom(hostAddr, port) }
