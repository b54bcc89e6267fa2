package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

var (
	insideHost  = netip.MustParseAddrPort("10.1.0.5:40001")
	insideHost2 = netip.MustParseAddrPort("10.1.0.6:443")
	gateway     = netip.MustParseAddrPort("198.51.100.2:50000")
	world       = netip.MustParseAddrPort("203.0.113.9:443")
)

// Copies cannot be dropped: a sensor says so, and its program never does.
func TestSensorNeverDrops(t *testing.T) {
	needKernel(t)
	o := Options{Interface: "lo", Role: Sensor, Networks: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	f := newFixture(t, o)
	if err := f.SetMode(dataplane.Enforce); err == nil || !strings.Contains(err.Error(), "copies of packets") {
		t.Errorf("enforce: %v: expected a refusal", err)
	}
	check(t, f.Apply(dataplane.Rule{Target: dataplane.Peer(world.Addr()), Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}))
	f.cfg.Mode = uint32(dataplane.Enforce) // as no caller can
	check(t, f.writeConfig())
	for _, s := range planetest.NewSession(insideHost, world).Open() {
		passed, err := f.See(planetest.Sight{Role: "sensor"}, s.Frame)
		if err != nil || !passed {
			t.Errorf("passed %v, %v: expected a pass", passed, err)
		}
	}
	if s, err := f.Stats(); err != nil || s.Dropped != 0 || s.WouldDrop != 3 {
		t.Errorf("dropped %d, would have %d, %v: expected 0 and 3", s.Dropped, s.WouldDrop, err)
	}
	o.Mode = dataplane.Enforce
	if err := o.withDefaults().validate(); err == nil || !strings.Contains(err.Error(), "copies of packets") {
		t.Errorf("open in enforce mode: %v: expected a refusal", err)
	}
}

// Where the site fails closed, a silent daemon closes it to what is new.
func TestFailClosed(t *testing.T) {
	f := newFixture(t, Options{Role: Inside, Mode: dataplane.Enforce, Fail: FailClosed, DeadAfter: 5 * time.Second})
	out := planetest.Datagram(dataplane.FromInside, insideHost, world, []byte("x")).Frame
	back := planetest.Datagram(dataplane.ToInside, world, insideHost, []byte("x")).Frame
	other := netip.MustParseAddrPort("198.51.100.77:53")
	fresh := planetest.Datagram(dataplane.ToInside, other, insideHost, []byte("x")).Frame
	s := planetest.NewSession(other, insideHost2)
	syn, ack := s.Packet(0, flow.SYN, nil).Frame(), s.Packet(0, flow.ACK, nil).Frame()
	passes := func(what string, want bool, hook dataplane.Hook, frame []byte) {
		t.Helper()
		if got, err := f.Inject(hook, frame); err != nil || got != want {
			t.Errorf("%s: passed %v, %v: expected %v", what, got, err, want)
		}
	}
	passes("with the daemon, a new flow", true, dataplane.ToInside, fresh)
	forget(t, f, keyOf(other, insideHost, flow.UDP))
	passes("with the daemon, an inside host's flow", true, dataplane.FromInside, out)

	f.cfg.Beat -= uint64(6 * time.Second / time.Microsecond)
	check(t, f.writeConfig())
	passes("alone, a known flow", true, dataplane.ToInside, back)
	passes("alone, an inside host's new flow", true, dataplane.FromInside, planetest.Datagram(dataplane.FromInside, insideHost2, world, nil).Frame)
	passes("alone, a new flow", false, dataplane.ToInside, fresh)
	passes("alone, a SYN", false, dataplane.ToInside, syn)
	passes("alone, a segment of a flow that left the table", true, dataplane.ToInside, ack)
	check(t, f.SetNever([]dataplane.Never{{Prefix: netip.PrefixFrom(other.Addr(), 32)}}))
	passes("alone, a never-block entry", true, dataplane.ToInside, fresh)
	check(t, f.SetNever(nil))
	st, err := f.Stats()
	check(t, err)
	if st.Dropped != 2 || st.Orphaned != 3 {
		t.Errorf("dropped %d, new and unwatched %d: expected 2 and 3", st.Dropped, st.Orphaned)
	}
	f.cfg.FailClosed = uint32(FailOpen)
	check(t, f.writeConfig())
	passes("alone and failing open, a SYN", true, dataplane.ToInside, syn)
}

func keyOf(a, b netip.AddrPort, proto uint8) flow.Key {
	k, _ := flow.NewKey(a, b, proto)
	return k
}

// Two interfaces, one set of tables; the second one's failure takes back the first.
func TestSeveralInterfaces(t *testing.T) {
	l := newLab(t)
	l.in(t, l.host, func() {
		check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wan0"}, PeerName: "wan1"}))
		check(t, netlink.LinkSetUp(mustLink(t, "wan0")))
		check(t, netlink.LinkSetUp(mustLink(t, "wan1")))
	})
	o := l.options(dataplane.Enforce)
	o.Also = []Attach{{"wan0", Outside}}
	p := l.open(t, o)
	s, err := p.Stats()
	check(t, err)
	egress := "TCX"
	if !since(t, 6, 6) {
		egress = "clsact"
	}
	if got := fmt.Sprint(s.Attached); got != fmt.Sprintf("[{hr0 host native false %[1]s } {wan0 outside native false %[1]s }]", egress) {
		t.Errorf("attached: %s", got)
	}
	check(t, p.Close())
	if n := len(xdpIn(t, l)); n != 2 {
		t.Errorf("%d interfaces with XDP after close: expected 2, pinned", n)
	}
	// One interface less: it is let go of.
	check(t, l.open(t, l.options(dataplane.Enforce)).Close())
	if left := xdpIn(t, l); len(left) != 1 || left[0] != hostIface {
		t.Errorf("XDP on %v after a start without wan0: expected only %s", left, hostIface)
	}
	l.detachPinned(t)

	foreign := passProgram(t, "not_ours")
	var other link.Link
	l.in(t, l.host, func() {
		other, err = link.AttachXDP(link.XDPOptions{Program: foreign, Interface: mustLink(t, "wan0").Attrs().Index})
		check(t, err)
	})
	if _, err := l.tryOpen(t, o); err == nil || !strings.Contains(err.Error(), `open wan0: another XDP program is attached`) {
		t.Errorf("open: %v: expected an error that names wan0", err)
	}
	l.assertNothingLeft(t)
	if left := xdpIn(t, l); len(left) != 1 || left[0] != "wan0" {
		t.Errorf("XDP on %v after a failed start: expected only the foreign one on wan0", left)
	}
	check(t, other.Close())
}

// xdpIn lists the host's interfaces with an XDP program.
func xdpIn(t *testing.T, l *lab) (names []string) {
	t.Helper()
	l.in(t, l.host, func() {
		links, err := netlink.LinkList()
		check(t, err)
		for _, x := range links {
			if a := x.Attrs(); a.Xdp != nil && a.Xdp.Attached {
				names = append(names, a.Name)
			}
		}
	})
	return names
}

func TestBridgePort(t *testing.T) {
	l := newLab(t)
	o := l.options(dataplane.Enforce)
	o.Role = Bridge
	if _, err := l.tryOpen(t, o); err == nil || !strings.Contains(err.Error(), "not a port of a bridge") {
		t.Errorf("role bridge without a bridge: %v", err)
	}
	l.in(t, l.host, func() {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		check(t, netlink.LinkAdd(br))
		port := mustLink(t, hostIface)
		check(t, netlink.AddrDel(port, &netlink.Addr{IPNet: ipNet(hostAddr, 24)}))
		check(t, netlink.LinkSetMaster(port, br))
		check(t, netlink.LinkSetUp(br))
		check(t, netlink.AddrAdd(br, &netlink.Addr{IPNet: ipNet(hostAddr, 24)}))
	})
	p := l.open(t, o)
	addr := l.echo(t)
	if err := l.talk(t, addr, "hello", patience); err != nil {
		t.Fatalf("over a bridge: %v", err)
	}
	check(t, p.Apply(blockPeer(time.Hour)))
	if err := l.talk(t, addr, "x", impatience); err == nil {
		t.Error("a blocked peer connected over a bridge")
	}
}

// As on a kernel without TCX: both directions are filtered, across a takeover,
// and nothing stays after detach.
func TestClsact(t *testing.T) {
	l := newLab(t)
	o := l.options(dataplane.Enforce)
	o.clsact = true
	p := l.open(t, o)
	events := collect(t, p)
	addr := l.echo(t)
	check(t, l.talk(t, addr, "hello", patience))
	end := events.wait(t, "end of the connection", func(e *dataplane.Event) bool { return e.Kind == dataplane.EventEnd })
	if r := end.Record; r.Dir[0].Packets == 0 || r.Dir[1].Packets == 0 || !r.Validated[0] || !r.Validated[1] {
		t.Errorf("record %+v: expected both directions", r)
	}
	if s, err := p.Stats(); err != nil || s.Attached[0].Egress != "clsact" {
		t.Errorf("attached %+v, %v: expected clsact", s.Attached, err)
	}
	check(t, p.Apply(blockPeer(time.Hour)))
	check(t, p.Close())
	before := l.filters(t)
	if len(before) != 1 {
		t.Fatalf("egress filters after close: %v: expected ours", before)
	}
	// The next takeover needs it, and may not ask for it by its number.
	pinned, err := linkPins{filepath.Join(l.pins, hostIface)}.program(pinTCX, ebpf.ProgramID(before[0]))
	check(t, err)
	check(t, pinned.Close())
	if kept, err := os.Stat(filepath.Join(l.pins, hostIface, programPins[pinTCX])); err != nil || kept.IsDir() {
		t.Errorf("the egress program is not pinned: %v", err)
	}
	q := l.open(t, o)
	if after := l.filters(t); len(after) != 1 || after[0] == before[0] {
		t.Errorf("egress program %v after takeover, %v before: expected one, and another", after, before)
	}
	l.in(t, l.host, func() { // what leaves meets the rules as well
		c, err := netDialUDP(peerAddr)
		check(t, err)
		defer c.Close()
		_, err = c.Write([]byte("x"))
		if err == nil {
			s, err := q.Stats()
			check(t, err)
			if s.Dropped == 0 {
				t.Error("a datagram to a blocked peer was not dropped")
			}
		}
	})
	check(t, q.Close())
	if since(t, 6, 6) {
		l.tcxTakesOver(t, o)
	}
	s := l.open(t, o)
	check(t, s.Detach())
	if left := l.filters(t); len(left) != 0 || l.hasClsact(t) {
		t.Errorf("left after detach: filters %v, clsact %v", left, l.hasClsact(t))
	}
}

// tcxTakesOver opens as after an upgrade of the kernel: TCX takes the filter's place.
func (l *lab) tcxTakesOver(t *testing.T, o Options) {
	t.Helper()
	o.clsact = false
	r := l.open(t, o)
	if left := l.filters(t); len(left) != 0 {
		t.Errorf("egress filters beside TCX: %v", left)
	}
	check(t, r.Close())
	check(t, os.Remove(filepath.Join(l.pins, hostIface, pinTCX)))
}

func (l *lab) filters(t *testing.T) (ids []int) {
	t.Helper()
	l.in(t, l.host, func() {
		list, err := netlink.FilterList(mustLink(t, hostIface), netlink.HANDLE_MIN_EGRESS)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			check(t, err)
		}
		for _, f := range list {
			if b, ok := f.(*netlink.BpfFilter); ok {
				ids = append(ids, b.Id)
			}
		}
	})
	return ids
}

func (l *lab) hasClsact(t *testing.T) (has bool) {
	t.Helper()
	l.in(t, l.host, func() {
		list, err := netlink.QdiscList(mustLink(t, hostIface))
		check(t, err)
		for _, q := range list {
			has = has || q.Type() == "clsact"
		}
	})
	return has
}

// A sensor takes frames that are meant for others, and leaves the card as it was.
func TestSensorListensToAll(t *testing.T) {
	l := newLab(t)
	o := l.options(dataplane.Monitor)
	o.Role, o.Networks = Sensor, []netip.Prefix{netip.MustParsePrefix("10.77.0.2/32")}
	p := l.open(t, o)
	promisc := func() (on bool) {
		l.in(t, l.host, func() { on = mustLink(t, hostIface).Attrs().Promisc > 0 })
		return on
	}
	if !promisc() {
		t.Error("the port is not in promiscuous mode")
	}
	events := collect(t, p)
	check(t, l.talk(t, l.echo(t), "hello", patience))
	// Only what comes in is copied to this port; that is enough for a flow.
	e := events.wait(t, "a flow at the sensor", func(e *dataplane.Event) bool { return e.Record.Key.Proto == flow.TCP })
	if e.Record.Initiator().Addr() != peerAddr || e.Record.InitInside || !e.Record.RespInside {
		t.Errorf("record %+v: expected the peer to call the inside host", e.Record)
	}
	if s, err := p.Stats(); err != nil || s.Attached[0].Egress != "" {
		t.Errorf("attached %+v, %v: expected nothing at egress", s.Attached, err)
	}
	check(t, p.Close())
	if promisc() {
		t.Error("the port is still in promiscuous mode")
	}
}
