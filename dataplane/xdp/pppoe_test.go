package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// wireTap sends and receives whole frames at an interface.
type wireTap struct{ f *os.File }

const etherPPPoE = 0x8864

func tapIn(t *testing.T, l *lab, ns netns.NsHandle, iface string) wireTap {
	t.Helper()
	var w wireTap
	l.in(t, ns, func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		check(t, err)
		const network = etherPPPoE<<8&0xff00 | etherPPPoE>>8
		check(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: mustLink(t, iface).Attrs().Index}))
		w.f = os.NewFile(uintptr(fd), iface)
	})
	t.Cleanup(func() { w.f.Close() })
	return w
}

// carries sends a frame at one end and waits for it at the other.
func carries(t *testing.T, from, to wireTap, frame []byte, patience time.Duration) error {
	t.Helper()
	if _, err := from.f.Write(frame); err != nil {
		return err
	}
	check(t, to.f.SetReadDeadline(time.Now().Add(patience)))
	want := frame
	if frame[12] == 0x81 { // the socket shows a tag elsewhere
		want = slices.Concat(frame[:12], frame[16:])
	}
	b := make([]byte, 2048)
	for {
		n, err := to.f.Read(b)
		if err != nil {
			return err
		}
		if n >= len(want) && slices.Equal(b[:len(want)], want) {
			return nil
		}
	}
}

// bridged makes the lab's host a bridge between the peer and a carrier beyond,
// and returns the carrier's namespace; its interface is up1.
func (l *lab) bridged(t *testing.T) netns.NsHandle {
	t.Helper()
	carrier := newNS(t)
	l.in(t, l.host, func() {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		check(t, netlink.LinkAdd(br))
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "up1", PeerNamespace: netlink.NsFd(carrier)}
		check(t, netlink.LinkAdd(veth))
		for _, port := range []string{hostIface, "up0"} {
			check(t, netlink.LinkSetMaster(mustLink(t, port), br))
			check(t, netlink.LinkSetUp(mustLink(t, port)))
		}
		check(t, netlink.LinkSetUp(br))
	})
	l.in(t, carrier, func() { check(t, netlink.LinkSetUp(mustLink(t, "up1"))) })
	return carrier
}

// Sessions of PPPoE between a subscriber and a carrier, through a bridge: flows
// inside are followed in both directions, plain and behind a VLAN tag, and a
// block holds for whom it names. The bridge's port may be watched by any role
// that sees both directions.
func TestPPPoEThroughABridge(t *testing.T) {
	for _, role := range []Role{Bridge, Inside, Host} {
		t.Run(role.String(), func(t *testing.T) { pppoeThroughABridge(t, role) })
	}
}

func pppoeThroughABridge(t *testing.T, role Role) {
	l := newLab(t)
	carrier := l.bridged(t)
	near, far := tapIn(t, l, l.peer, peerIface), tapIn(t, l, carrier, "up1")
	hello := planetest.Packet{Src: world, Dst: gateway, Proto: flow.UDP, Session: 1}
	eventually(t, "the bridge's ports to forward", func() bool {
		return carries(t, near, far, unicast(hello.Frame()), impatience) == nil && carries(t, far, near, unicast(hello.Frame()), impatience) == nil
	})
	o := l.options(dataplane.Enforce)
	o.Role = role
	p := l.open(t, o)
	events := collect(t, p)
	for i, vlan := range [][]uint16{nil, {7}} {
		client := netip.AddrPortFrom(insideHost.Addr(), uint16(5000+i))
		session := func(server netip.AddrPort, patience time.Duration) error {
			s := planetest.NewSession(client, server)
			for n := range 4 {
				from, to, end := near, far, 0
				if n%2 == 1 {
					from, to, end = far, near, 1
				}
				pkt := s.Packet(end, []uint8{flow.SYN, flow.SYN | flow.ACK, flow.ACK, flow.PSH | flow.ACK}[n], make([]byte, 100*(n/3)))
				pkt.Session, pkt.VLAN = 9, vlan
				if n < 2 {
					s.Seq[end]++
				}
				if err := carries(t, from, to, unicast(pkt.Frame()), patience); err != nil {
					return fmt.Errorf("frame %d: %w", n, err)
				}
			}
			return nil
		}
		if len(vlan) > 0 { // the tag hides the type from a socket bound to it
			near, far = near.all(t), far.all(t)
		}
		check(t, session(world, patience))
		e := events.wait(t, "a milestone of the session", func(e *dataplane.Event) bool {
			return e.Kind == dataplane.EventMilestone && e.Record.Key == keyOf(client, world, flow.TCP)
		})
		r := e.Record
		if r.Dir[0].Packets != 2 || r.Dir[1].Packets != 2 || r.Dir[1].Payload != 100 || r.Dir[1].Bytes != 2*40+100 ||
			!r.Validated[0] || !r.Validated[1] || r.Initiator() != client {
			t.Errorf("vlan %v: %+v: expected 2 packets each way, both ends validated", vlan, r)
		}
		bad := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.66"), 443)
		check(t, p.Apply(dataplane.Rule{Target: dataplane.Peer(bad.Addr()), Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}))
		if err := session(bad, impatience); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("vlan %v: a blocked peer inside PPPoE: %v: expected silence", vlan, err)
		}
		check(t, session(netip.AddrPortFrom(world.Addr(), 8443), patience))
	}
	s, err := p.Stats()
	check(t, err)
	if s.Dropped != 2 || len(s.Malformed) != 0 {
		t.Errorf("dropped %d, malformed %v: expected 2, none", s.Dropped, s.Malformed)
	}
}

// all makes a tap receive frames of any type.
func (w wireTap) all(t *testing.T) wireTap {
	t.Helper()
	raw, err := w.f.SyscallConn()
	check(t, err)
	check(t, raw.Control(func(fd uintptr) {
		addr, err := unix.Getsockname(int(fd))
		check(t, err)
		ll := addr.(*unix.SockaddrLinklayer)
		check(t, unix.Bind(int(fd), &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8, Ifindex: ll.Ifindex}))
	}))
	return w
}

// unicast gives a frame addresses that a bridge carries anywhere.
func unicast(frame []byte) []byte {
	copy(frame, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2})
	return frame
}
