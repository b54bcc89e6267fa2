package xdp

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// answerable makes the peer's end take what XDP sends back: a veth device
// receives such frames only while it has an XDP program itself.
func (l *lab) answerable(t *testing.T) {
	t.Helper()
	l.hears(t, l.peer, peerIface)
	// Forged sources are everywhere: what answers them goes to the peer.
	l.in(t, l.host, func() {
		check(t, netlink.RouteAdd(&netlink.Route{LinkIndex: mustLink(t, hostIface).Attrs().Index, Gw: net.IP(peerAddr.AsSlice())}))
	})
}

// hears lets one end of a veth pair take what XDP sends back at the other.
func (l *lab) hears(t *testing.T, ns netns.NsHandle, iface string) {
	t.Helper()
	pass := passProgram(t, "peer_pass")
	l.in(t, ns, func() {
		at, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: mustLink(t, iface).Attrs().Index})
		check(t, err)
		t.Cleanup(func() { at.Close() })
	})
}

// forger sends SYNs with forged sources from the peer's interface.
type forger struct {
	fd    int
	to    unix.SockaddrLinklayer
	frame []byte
	bare  int // how much of the frame the link does not carry
	rng   *rand.Rand
}

func (l *lab) forger(t *testing.T, to netip.AddrPort) *forger {
	t.Helper()
	return l.forge(t, end{l.peer, peerIface}, end{l.host, hostIface}, to)
}

// end is an interface in a namespace.
type end struct {
	ns    netns.NsHandle
	iface string
}

func (l *lab) forge(t *testing.T, from, via end, to netip.AddrPort) *forger {
	t.Helper()
	f := &forger{rng: rand.New(rand.NewPCG(1, 2))}
	p := planetest.Packet{Src: endpoint("198.18.0.1:1024"), Dst: to, Proto: flow.TCP, Flags: flow.SYN, Window: 1024}
	l.in(t, via.ns, func() { copy(p.DstMAC[:], mustLink(t, via.iface).Attrs().HardwareAddr) })
	l.in(t, from.ns, func() {
		at := mustLink(t, from.iface).Attrs()
		if len(at.HardwareAddr) == 0 {
			f.bare = 14
		}
		copy(p.SrcMAC[:], at.HardwareAddr)
		var err error
		f.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		check(t, err)
		f.to = unix.SockaddrLinklayer{Ifindex: at.Index, Halen: 6, Protocol: unix.ETH_P_IP<<8&0xff00 | unix.ETH_P_IP>>8}
	})
	t.Cleanup(func() { unix.Close(f.fd) })
	f.frame = p.Frame()
	return f
}

// send forges one SYN from a source of 198.18.0.0/15. Checksums are kept right
// by hand: what changes is summed up into them.
func (f *forger) send() error {
	ip, tcp := f.frame[14:34], f.frame[34:54]
	put := func(at []byte, v uint16, sums ...[]byte) {
		old := binary.BigEndian.Uint16(at)
		binary.BigEndian.PutUint16(at, v)
		for _, s := range sums { // RFC 1624, equation 3
			sum := uint32(^binary.BigEndian.Uint16(s)) + uint32(^old) + uint32(v)
			sum = sum&0xffff + sum>>16
			binary.BigEndian.PutUint16(s, ^uint16(sum&0xffff+sum>>16))
		}
	}
	r := f.rng.Uint64()
	put(ip[12:], 198<<8|18+uint16(r&1), ip[10:], tcp[16:])
	put(ip[14:], uint16(r>>1), ip[10:], tcp[16:])
	put(tcp[0:], 1024+uint16(r>>17)%60000, tcp[16:])
	put(tcp[4:], uint16(r>>33), tcp[16:])
	return unix.Sendto(f.fd, f.frame[f.bare:], 0, &f.to)
}

// A real stack passes the challenge without anybody noticing.
func TestChallengeOfARealClient(t *testing.T) {
	l := newLab(t)
	l.answerable(t)
	p := l.open(t, l.options(dataplane.Enforce))
	addr := l.echo(t)
	check(t, p.SetFlood(dataplane.Flood{Service: 1, Protected: []dataplane.Guarded{{Prefix: netip.PrefixFrom(hostAddr, 32)}}}))
	f := l.forger(t, addr)
	for range 20 {
		check(t, f.send())
	}
	if err := l.talk(t, addr, "hello", patience); err != nil {
		t.Fatalf("while the service is over its budget: %v", err)
	}
	s, err := p.Stats()
	check(t, err)
	if s.Flood.Challenges < 10 || s.Flood.Proofs == 0 || s.Dropped != 0 {
		t.Errorf("%d challenges, %d proofs, %d dropped: expected most of 21, some, none", s.Flood.Challenges, s.Flood.Proofs, s.Dropped)
	}
	// From here the address is known, and is not asked again.
	for range 20 {
		check(t, f.send())
	}
	before := s.Flood.Challenges
	if err := l.talk(t, addr, "hello", patience); err != nil {
		t.Fatal(err)
	}
	s, err = p.Stats()
	check(t, err)
	after := s.Flood.Challenges
	if asked := after - before; asked > 20 {
		t.Errorf("%d challenges for 20 forged SYNs and a known client", asked)
	}
}

// clients connect, send a kilobyte, and expect it back, over and over; what is
// returned counts those that got it.
func (l *lab) clients(t *testing.T, from []netip.Addr, to netip.AddrPort, stop <-chan struct{}) (done *atomic.Int64, wait func()) {
	t.Helper()
	done = &atomic.Int64{}
	var wg sync.WaitGroup
	text := []byte(strings.Repeat("x", 1024))
	for _, a := range from {
		wg.Go(func() {
			l.in(t, l.peer, func() {
				d := net.Dialer{Timeout: time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))}
				for {
					select {
					case <-stop:
						return
					default:
					}
					if exchange(&d, to, text) == nil {
						done.Add(1)
					}
				}
			})
		})
	}
	return done, wg.Wait
}

func exchange(d *net.Dialer, to netip.AddrPort, text []byte) error {
	c, err := d.Dial("tcp4", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(text); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, len(text)))
	return err
}

// steadily calls f at each tick until stop.
func steadily(tick time.Duration, stop <-chan struct{}, f func()) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
			f()
		}
	}
}

// goodput counts transfers of eight clients in some seconds, under a flood or not.
func (l *lab) goodput(t *testing.T, from []netip.Addr, to netip.AddrPort, flood bool) (good, forged int64) {
	t.Helper()
	stop := make(chan struct{})
	var sent atomic.Int64
	var wg sync.WaitGroup
	if flood {
		f := l.forger(t, to)
		wg.Go(func() {
			// 20,000 a second: far more than the server's queue holds, and little
			// enough that the machine, which is attacker, client and server in one,
			// has time for all of them.
			steadily(5*time.Millisecond, stop, func() {
				for range 100 {
					if f.send() == nil {
						sent.Add(1)
					}
				}
			})
		})
	}
	done, wait := l.clients(t, from, to, stop)
	timer := time.NewTimer(4 * time.Second)
	defer timer.Stop()
	<-timer.C
	close(stop)
	wait()
	wg.Wait()
	return done.Load(), sent.Load()
}

// Legitimate clients of a server during a flood of SYNs from forged sources, with
// and without Hedgerow, and with the server's own SYN cookies as the peer.
func TestGoodputUnderASpoofedFlood(t *testing.T) {
	if os.Getenv("HEDGEROW_LONG") != "1" {
		t.Skip("floods for half a minute: set HEDGEROW_LONG=1")
	}
	l := newLab(t)
	l.answerable(t)
	var from []netip.Addr
	l.in(t, l.peer, func() {
		for i := range 8 {
			a := netip.AddrFrom4([4]byte{10, 77, 0, byte(10 + i)})
			check(t, netlink.AddrAdd(mustLink(t, peerIface), &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
			from = append(from, a)
		}
	})
	addr := l.echo(t)
	sysctl := func(name, value string) {
		l.in(t, l.host, func() { check(t, os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644)) })
	}
	cookies := func(on string) { sysctl("tcp_syncookies", on) }
	sysctl("tcp_no_metrics_save", "1") // else the server remembers its clients, and each is a new one only once
	type row struct {
		name         string
		good, forged int64
		note         string
	}
	var rows []row
	measure := func(name string, flood bool, note func() string) int64 {
		good, forged := l.goodput(t, from, addr, flood)
		addr = l.echo(t) // its queue is empty
		r := row{name, good, forged, ""}
		if note != nil {
			r.note = note()
		}
		rows = append(rows, r)
		return good
	}
	cookies("0")
	quiet := measure("no flood", false, nil)
	bare := measure("flood, server without SYN cookies", true, nil)
	cookies("1")
	measure("flood, server with SYN cookies", true, nil)
	cookies("0")
	p := l.open(t, l.options(dataplane.Enforce))
	figures := func() string {
		s, err := p.Stats()
		check(t, err)
		return fmt.Sprintf("flows %d, %d evicted; %d over budget, %d challenges, %d proofs",
			s.FlowsTotal, s.FlowsEvicted, s.Dropped, s.Flood.Challenges, s.Flood.Proofs)
	}
	measure("flood, Hedgerow without flood protection", true, figures)
	check(t, p.SetFlood(dataplane.Flood{Service: 200, Breaker: 20000}))
	measure("flood, Hedgerow's budgets alone", true, figures)
	check(t, p.SetFlood(dataplane.Flood{Service: 200, Breaker: 20000, Protected: []dataplane.Guarded{{Prefix: netip.PrefixFrom(hostAddr, 32)}}}))
	guarded := measure("flood, Hedgerow's budgets and challenge", true, figures)
	for _, r := range rows {
		t.Logf("goodput: %-45s %6d transfers, %8d forged SYNs  %s", r.name, r.good, r.forged, r.note)
	}
	if quiet == 0 || guarded < 4*bare || guarded == 0 {
		t.Errorf("transfers: %d without a flood, %d under it, %d guarded: expected guarded to be far above bare", quiet, bare, guarded)
	}
}
