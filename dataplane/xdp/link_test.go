package xdp

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

var (
	tunHost = netip.MustParseAddr("10.88.0.1")
	tunPeer = netip.MustParseAddr("10.88.0.2")
)

// openTun makes a tun interface in the host's namespace; the peer is the test.
func openTun(t *testing.T, l *lab, name string) *os.File {
	t.Helper()
	f := l.tunIn(t, l.host, name)
	l.in(t, l.host, func() { bringUp(t, name, tunHost) })
	return f
}

// tunIn makes a tun interface in a namespace.
func (l *lab) tunIn(t *testing.T, ns netns.NsHandle, name string) *os.File {
	t.Helper()
	var f *os.File
	l.in(t, ns, func() {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		check(t, err)
		ifr, err := unix.NewIfreq(name)
		check(t, err)
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		check(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
		f = os.NewFile(uintptr(fd), name) // only now: the poller refuses a tun without interface
	})
	t.Cleanup(func() { f.Close() })
	return f
}

// splice carries packets between two tun interfaces until the test ends: a wire
// of bare IP.
func (l *lab) splice(t *testing.T, a, b *os.File) {
	t.Helper()
	var both sync.WaitGroup
	carry := func(from, to *os.File) {
		buf := make([]byte, 2048)
		for {
			n, err := from.Read(buf)
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = to.Write(buf[:n]) // a wire loses what nobody takes
			}
		}
	}
	both.Go(func() { carry(a, b) })
	both.Go(func() { carry(b, a) })
	t.Cleanup(func() { a.Close(); b.Close(); both.Wait() })
}

// ping writes an echo request into the tun and waits for what the host answers
// to this very one.
func ping(t *testing.T, tun *os.File, seq byte, patience time.Duration) error {
	t.Helper()
	p := planetest.Packet{Src: netip.AddrPortFrom(tunPeer, 0), Dst: netip.AddrPortFrom(tunHost, 0),
		Proto: flow.ICMP, Type: 8, Payload: []byte{seq, seq, seq, seq}}
	if _, err := tun.Write(p.AppendIP(nil)); err != nil {
		return err
	}
	check(t, tun.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, 2048)
	for {
		n, err := tun.Read(b)
		if err != nil {
			return err
		}
		if n == 32 && b[0] == 0x45 && b[9] == flow.ICMP && b[20] == 0 && b[28] == seq {
			return nil
		}
	}
}

// A link of bare IP, as tun, WireGuard and PPP are: both hooks read it, native
// or generic, and a block holds.
func TestBareIPLink(t *testing.T) {
	l := newLab(t)
	for i, generic := range []bool{false, true} {
		t.Run(fmt.Sprintf("generic %v", generic), func(t *testing.T) {
			name := fmt.Sprintf("tun%d", i)
			tun := openTun(t, l, name)
			p := l.open(t, Options{Interface: name, Role: Host, Mode: dataplane.Enforce, Generic: generic, SweepEvery: 20 * time.Millisecond})
			events := collect(t, p)
			for seq := range byte(4) {
				check(t, ping(t, tun, seq, patience))
			}
			e := events.wait(t, "a milestone of the pings", func(e *dataplane.Event) bool {
				return e.Kind == dataplane.EventMilestone && e.Record.Key.Proto == flow.ICMP && e.Record.Packets() == 8
			})
			for end := range 2 {
				if d := e.Record.Dir[end]; d.Packets != 4 || d.Bytes != 4*32 || d.Payload != 4*4 || d.TTL != 64 {
					t.Errorf("direction %d: %+v: expected 4 packets of 32 bytes", end, d)
				}
			}
			if e.Record.Initiator().Addr() != tunPeer || e.Record.InitInside || !e.Record.RespInside {
				t.Errorf("%+v: expected the peer outside to have begun", e.Record)
			}
			check(t, p.Apply(dataplane.Rule{Target: dataplane.Peer(tunPeer), Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}))
			if err := ping(t, tun, 9, impatience); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a blocked peer: %v: expected no answer", err)
			}
			s, err := p.Stats()
			check(t, err)
			if s.Dropped != 1 || len(s.Malformed) != 0 {
				t.Errorf("dropped %d, malformed %v (%s): expected one, none", s.Dropped, s.Malformed, s.AttachMode)
			}
		})
	}
}

// A link that has neither Ethernet nor bare IP is refused with what to do.
func TestStrangeLinksAreRefused(t *testing.T) {
	for kind, raw := range map[string]bool{"ether": false, "loopback": false, "none": true, "ppp": true, "rawip": true} {
		if got, err := bareIP(kind); got != raw || err != nil {
			t.Errorf("%s: %v, %v: expected %v", kind, got, err, raw)
		}
	}
	for _, kind := range []string{"gre", "sit", "ipip", "tunnel6", "ieee802.11/radiotap", "infiniband", "can", ""} {
		if _, err := bareIP(kind); !errors.Is(err, dataplane.ErrUnsupported) || !strings.Contains(err.Error(), "choose the Ethernet interface") {
			t.Errorf("%q: %v: expected ErrUnsupported and advice", kind, err)
		}
	}
}

// setOffload switches one of ethtool's offloads.
func setOffload(t *testing.T, iface string, command uint32, on bool) {
	t.Helper()
	if _, err := offload(iface, command, on); err != nil {
		t.Fatalf("ethtool command %#x: %v", command, err)
	}
}

// rally sends blocks back and forth, so that never more is under way than the
// queues of a veth pair hold, and ends the connection in order.
func (l *lab) rally(t *testing.T, to netip.AddrPort, rounds, size int) {
	t.Helper()
	var c net.Conn
	l.in(t, l.peer, func() {
		var err error
		c, err = net.DialTimeout("tcp4", to.String(), patience)
		check(t, err)
	})
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(6*patience)))
	out, back := make([]byte, size), make([]byte, size)
	for i := range rounds {
		out[0] = byte(i)
		_, err := c.Write(out)
		check(t, err)
		_, err = io.ReadFull(c, back)
		check(t, err)
		if back[0] != byte(i) {
			t.Fatalf("round %d: the echo differs", i)
		}
	}
}

// rallied is what planes at both ends of a wire saw of one connection.
type rallied struct {
	host, peer flow.Record
	untracked  uint64 // packets that processors kept each other from counting
	packets    uint64 // that the host's plane counted
	calls      uint64 // of the host's programs meanwhile; fewer where they were shown aggregates
	known      bool   // whether calls could be counted
}

// bothEnds runs a rally under planes at both ends of the wire and returns the
// record of each: of the host, and of the peer.
func (l *lab) bothEnds(t *testing.T, hostGeneric, peerGeneric bool) (host, peer flow.Record) {
	t.Helper()
	r := l.tracked(t, hostGeneric, peerGeneric)
	return r.host, r.peer
}

// tracked is a rally that was tracked whole. Where processors got in each other's
// way a plane says so (Stats.FlowsUntracked); such a rally is repeated.
func (l *lab) tracked(t *testing.T, hostGeneric, peerGeneric bool) rallied {
	t.Helper()
	for range 8 {
		r := l.rallyOnce(t, hostGeneric, peerGeneric)
		if r.untracked == 0 {
			return r
		}
		t.Logf("%d packets untracked: once more", r.untracked)
	}
	t.Fatal("no rally was tracked whole")
	return rallied{}
}

// calls is how often the programs on the plane's interface ran so far. The kernel
// counts while somebody wants it to. False says that one of
// them is not on a link, which could be asked.
func calls(t *testing.T, p *Plane) (n uint64, ok bool) {
	t.Helper()
	out, ok := p.at[0].egress.(tcx)
	if !ok {
		return 0, false
	}
	for _, at := range []link.Link{p.at[0].xdp, out.Link} {
		info, err := at.Info()
		check(t, err)
		prog, err := ebpf.NewProgramFromID(info.Program)
		check(t, err)
		s, err := prog.Stats()
		check(t, errors.Join(err, prog.Close()))
		n += s.RunCount
	}
	return n, true
}

func (l *lab) rallyOnce(t *testing.T, hostGeneric, peerGeneric bool) (r rallied) {
	t.Helper()
	o := Options{Interface: hostIface, Role: Host, SweepEvery: 20 * time.Millisecond, Generic: hostGeneric}
	h := l.open(t, o)
	o.Interface, o.Generic = peerIface, peerGeneric
	var p *Plane
	l.in(t, l.peer, func() {
		var err error
		p, err = Open(l.borrows(o))
		check(t, err)
	})
	t.Cleanup(func() { p.Close() })
	hostEvents, peerEvents := collect(t, h), collect(t, p)
	addr := l.echo(t)
	before, _ := calls(t, h) // of whom the programs were borrowed from
	l.rally(t, addr, 12, 60000)
	ended := func(e *dataplane.Event) bool {
		return e.Kind == dataplane.EventEnd && e.Record.End == flow.EndFIN && e.Record.Key.Proto == flow.TCP
	}
	r.host = hostEvents.wait(t, "end at the host", ended).Record
	r.peer = peerEvents.wait(t, "end at the peer", ended).Record
	for _, plane := range []*Plane{p, h} {
		st, err := plane.Stats()
		check(t, err)
		r.untracked += st.FlowsUntracked
		r.packets = st.Packets
	}
	r.calls, r.known = calls(t, h)
	r.calls -= before
	check(t, errors.Join(h.Close(), p.Close()))
	return r
}

// spatial is a record as both ends of a wire must see it: the direction of the
// inside differs, and so do the times.
func spatial(r flow.Record) flow.Record {
	r = planetest.Timeless(r)
	r.InitInside, r.RespInside = false, false
	clear(r.Sizes[1:])       // packets that cross on the wire come in another order at each end
	for end := range r.Dir { // and with that, whether any seem to be sent again
		r.Dir[end].Retrans = 0
	}
	return r
}

// What leaves one end of a wire in aggregates (TCX) and enters the other one by
// one (native XDP) gives the same record, with segmentation and aggregation by
// the kernel on and off. With it on, far fewer calls of the programs than packets
// show that there were aggregates; with it off there may be some, as TCP makes them
// for whatever device, and has them cut up behind the hook.
func TestOffloadsDoNotChangeRecords(t *testing.T) {
	needKernel(t)
	counting, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	check(t, err)
	defer counting.Close()
	for _, on := range []bool{true, false} {
		t.Run(fmt.Sprintf("offloads %v", on), func(t *testing.T) {
			l := newLab(t)
			for ns, name := range map[*netns.NsHandle]string{&l.host: hostIface, &l.peer: peerIface} {
				l.in(t, *ns, func() {
					setOffload(t, name, unix.ETHTOOL_STSO, on)
					setOffload(t, name, unix.ETHTOOL_SGSO, on)
					setOffload(t, name, unix.ETHTOOL_SGRO, on)
				})
			}
			r := l.tracked(t, false, false)
			if a, b := spatial(r.host), spatial(r.peer); a != b {
				t.Errorf("one connection at two ends:\n%+v\n%+v", a, b)
			}
			if on && r.known && r.calls+100 > r.packets {
				t.Errorf("%d packets in %d calls of the programs: expected aggregates", r.packets, r.calls)
			}
			for end, d := range r.host.Dir {
				if d.Payload < 12*60000 || d.Packets < 12*60000/1460 || d.SizeMax > 1500 {
					t.Errorf("direction %d: %+v: expected all bytes, in packets that fit the link", end, d)
				}
			}
		})
	}
}

// vxlan joins the two ends of the lab by a tunnel over their wire.
func (l *lab) vxlan(t *testing.T) (inner netip.Addr) {
	t.Helper()
	inner = netip.MustParseAddr("10.99.0.2")
	for _, end := range []struct {
		ns            netns.NsHandle
		iface         string
		a, remote, in netip.Addr
	}{{l.peer, peerIface, peerAddr, hostAddr, netip.MustParseAddr("10.99.0.1")}, {l.host, hostIface, hostAddr, peerAddr, inner}} {
		l.in(t, end.ns, func() {
			check(t, netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx0"}, VxlanId: 7, Port: 4789,
				VtepDevIndex: mustLink(t, end.iface).Attrs().Index, SrcAddr: end.a.AsSlice(), Group: end.remote.AsSlice()}))
			bringUp(t, "vx0", end.in)
		})
	}
	return inner
}

// tally adds up the ended flows of UDP to VXLAN's port that carried more than
// so many bytes: others are what the ends of a new tunnel say by themselves.
func (c *collector) tally(bytes uint64) map[flow.Key]flow.Dir {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[flow.Key]flow.Dir{}
	for _, e := range c.events {
		if e.Kind != dataplane.EventEnd || e.Record.Responder().Port() != 4789 {
			continue
		}
		d, more := out[e.Record.Key], e.Record.Dir[0]
		d.Packets += more.Packets
		d.Bytes += more.Bytes
		d.Payload += more.Payload
		d.SizeSq += more.SizeSq
		d.SizeMax = max(d.SizeMax, more.SizeMax)
		out[e.Record.Key] = d
	}
	maps.DeleteFunc(out, func(_ flow.Key, d flow.Dir) bool { return d.Payload <= bytes })
	return out
}

// What the kernel cuts up inside a tunnel repeats the inner headers in each
// piece; both ends of the wire count the same.
func TestTunnelledAggregatesCountAsOnTheWire(t *testing.T) {
	l := newLab(t)
	inner := l.vxlan(t)
	o := Options{Interface: hostIface, Role: Host, SweepEvery: 20 * time.Millisecond, Idle: Idle{Other: 400 * time.Millisecond}}
	host := collect(t, l.open(t, o))
	o.Interface = peerIface
	var p *Plane
	l.in(t, l.peer, func() {
		var err error
		p, err = Open(l.borrows(o))
		check(t, err)
	})
	t.Cleanup(func() { p.Close() })
	peer := collect(t, p)
	l.rally(t, l.echoOn(t, inner), 8, 40000)
	var a, b map[flow.Key]flow.Dir
	defer func() {
		if t.Failed() {
			t.Logf("one tunnel at two ends:\n%+v\n%+v", a, b)
		}
	}()
	// A flow that paused on a slow machine ends in parts, not at once at both ends.
	eventually(t, "both ends to have counted the same of both directions", func() bool {
		a, b = host.tally(8*40000), peer.tally(8*40000)
		return len(a) == 2 && maps.Equal(a, b)
	})
	for k, d := range a {
		if d.SizeMax != 1500 {
			t.Errorf("%s: %+v: expected packets that fit the link", k, d)
		}
	}
}

// Generic XDP is shown aggregates and is not told of how many packets. What
// fills the link is counted as the packets that it was.
func TestGenericXDPCountsPacketsOfAggregates(t *testing.T) {
	l := newLab(t)
	host, peer := l.bothEnds(t, true, true)
	if a, b := spatial(host), spatial(peer); a != b {
		t.Errorf("one connection at two ends:\n%+v\n%+v", a, b)
	}
	if d := host.Dir[0]; d.SizeMax != 1500 || d.Packets < 12*60000/1460 {
		t.Errorf("%+v: expected packets that fit the link", d)
	}
}

// An aggregate that does not fill a link of another size is one packet.
func TestSmallAggregatesStayWhole(t *testing.T) {
	f := newFixture(t, Options{})
	f.cfg.Most = 1500
	check(t, f.writeConfig())
	s := planetest.NewSession(endpoint("10.0.0.1:4000"), endpoint("192.0.2.1:443"))
	inject(t, f, s.Data(0, make([]byte, 1460)))
	inject(t, f, s.Data(0, make([]byte, 3*1460+7)))
	udp := planetest.Datagram(dataplane.FromInside, endpoint("10.0.0.1:4000"), endpoint("192.0.2.1:443"), make([]byte, 4000))
	inject(t, f, udp)
	st, err := f.Stats()
	check(t, err)
	if st.Packets != 1+4+1 || st.Bytes != 1500+3*1500+47+4028 {
		t.Errorf("%d packets, %d bytes: expected 6 and %d", st.Packets, st.Bytes, 1500+3*1500+47+4028)
	}
}

// Frames that fill more than a page come in fragments of memory.
func TestJumboFrames(t *testing.T) {
	l := newLab(t)
	const mtu = 9000
	l.in(t, l.peer, func() { check(t, netlink.LinkSetMTU(mustLink(t, peerIface), mtu)) })
	l.in(t, l.host, func() { check(t, netlink.LinkSetMTU(mustLink(t, hostIface), mtu)) })
	host, peer := l.bothEnds(t, false, false)
	if a, b := spatial(host), spatial(peer); a != b {
		t.Errorf("one connection at two ends:\n%+v\n%+v", a, b)
	}
	for end, d := range host.Dir {
		if d.SizeMax != mtu || d.Payload < 12*60000 {
			t.Errorf("direction %d: %+v: expected packets of %d bytes", end, d, mtu)
		}
	}
}

// A frame of many pages, and headers that lie outside the part that programs
// read directly.
func TestFrameInPieces(t *testing.T) {
	for _, size := range []int{3000, 9000, 30000, 60000} {
		f := newFixture(t, Options{Mode: dataplane.Enforce})
		s := planetest.NewSession(endpoint("10.0.0.1:4000"), endpoint("192.0.2.1:443"))
		step := s.Data(0, append([]byte("GET / HTTP/1.1\r\n"), make([]byte, size)...))
		for range 4 {
			inject(t, f, step)
		}
		d := events(t, f)[0].Record
		if want := uint16(size + 16 + 40); d.Dir[0].SizeMax != want || d.Dir[0].Packets != 4 || d.Hint != flow.HintHTTP {
			t.Errorf("%d bytes: %+v: expected 4 packets of %d, HTTP", size, d, want)
		}
	}
}

// xdpContext is struct xdp_md.
type xdpContext struct{ Data, DataEnd, DataMeta, Ingress, RxQueue, Egress uint32 }

func TestHeadersOutsideTheLinearPart(t *testing.T) {
	v6 := planetest.Packet{Src: endpoint("[fd00::1]:4000"), Dst: endpoint("[2001:db8::1]:443"), Proto: flow.TCP, Flags: flow.PSH,
		VLAN: []uint16{1, 2}, Session: 7, Ext: []planetest.Ext{{Type: 0, Body: make([]byte, 6)}, {Type: 60, Body: make([]byte, 14)}}}
	v4 := planetest.Packet{Src: endpoint("10.0.0.1:4000"), Dst: endpoint("192.0.2.1:443"), Proto: flow.TCP, Options: []byte{1, 1, 1, 1}}
	for _, p := range []planetest.Packet{v4, v6} {
		p.Payload = append([]byte("SSH-2.0-x\r\n"), make([]byte, 300)...)
		frame := p.Frame()
		f := newFixture(t, Options{Mode: dataplane.Enforce})
		for linear := 0; linear < 130; linear += 13 {
			_, err := f.objs.HedgerowXdp.Run(&ebpf.RunOptions{Data: frame, Context: xdpContext{DataEnd: uint32(linear)}})
			if errors.Is(err, syscall.EINVAL) {
				t.Skip("this kernel cannot run a program on a frame in chosen pieces")
			}
			check(t, err)
		}
		st, err := f.Stats()
		check(t, err)
		r := events(t, f)[1].Record // at packet 8
		if st.Packets != 10 || st.FlowsTotal != 1 || len(st.Malformed) != 0 || r.Dir[0].Packets != 8 || r.Hint != flow.HintSSH {
			t.Errorf("%+v, malformed %v, of %+v: expected one flow of 10 packets, an SSH banner", r, st.Malformed, st)
		}
	}
}
