package xdp

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// router is a gateway between hosts and the world, each a namespace. It
// masquerades IPv4, forwards a port of its own to a host, and routes IPv6.
type router struct {
	l                 *lab // for its namespaces and pins
	hosts, gw, world  netns.NsHandle
	host1, host2, wan netip.Addr
	server            netip.Addr
	host6, server6    netip.Addr
	tuns              map[string]bool // interfaces of the gateway that carry bare IP
}

// newRouter makes one; the interfaces that tuns names (lan0, wan0) are tun
// devices, the others are one end of a veth pair.
func newRouter(t *testing.T, tuns ...string) *router {
	t.Helper()
	needKernel(t)
	l := lend(t)
	r := &router{
		l: l, tuns: map[string]bool{},
		hosts: newNS(t), gw: newNS(t), world: newNS(t),
		host1: netip.MustParseAddr("10.1.0.2"), host2: netip.MustParseAddr("10.1.0.3"),
		wan: netip.MustParseAddr("192.0.2.1"), server: netip.MustParseAddr("192.0.2.2"),
		host6: netip.MustParseAddr("fd00:1::2"), server6: netip.MustParseAddr("2001:db8:1::2"),
	}
	for _, name := range tuns {
		r.tuns[name] = true
	}
	l.host, l.pins = r.gw, mountBPFFS(t)
	r.wire(t, "lan0", r.hosts, "10.1.0.1", "fd00:1::1", r.host1, r.host2, r.host6)
	r.wire(t, "wan0", r.world, "192.0.2.1", "2001:db8:1::1", r.server, r.server6)
	r.l.in(t, r.hosts, func() {
		for _, via := range []string{"10.1.0.1", "fd00:1::1"} {
			check(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(via)}))
		}
	})
	r.l.in(t, r.world, func() { // knows the hosts by IPv6 only
		check(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP("2001:db8:1::1")}))
	})
	r.l.in(t, r.gw, func() {
		check(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600))
		check(t, os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o600))
	})
	r.translate(t)
	return r
}

// wire joins the router's interface name to eth0 of another namespace.
func (r *router) wire(t *testing.T, name string, far netns.NsHandle, four, six string, farAddrs ...netip.Addr) {
	t.Helper()
	up := func(name string, addrs ...netip.Addr) {
		check(t, netlink.LinkSetUp(mustLink(t, "lo")))
		link := mustLink(t, name)
		for _, a := range addrs {
			bits, flags := 24, 0
			if a.Is6() {
				bits, flags = 64, unix.IFA_F_NODAD
			}
			check(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(a, bits), Flags: flags}))
		}
		check(t, netlink.LinkSetUp(link))
	}
	if r.tuns[name] {
		r.l.splice(t, r.l.tunIn(t, r.gw, name), r.l.tunIn(t, far, "eth0"))
	}
	r.l.in(t, r.gw, func() {
		if !r.tuns[name] {
			veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(far)}
			check(t, netlink.LinkAdd(veth))
		}
		up(name, netip.MustParseAddr(four), netip.MustParseAddr(six))
	})
	r.l.in(t, far, func() { up("eth0", farAddrs...) })
}

// gateways are the kinds of links that a gateway may stand between: a tunnel's
// or a mobile network's bare IP on either side.
func gateways(t *testing.T, run func(t *testing.T, r *router)) {
	for name, tuns := range map[string][]string{"ethernet": nil, "tun inside": {"lan0"}, "tun outside": {"wan0"}, "tun on both sides": {"lan0", "wan0"}} {
		t.Run(name, func(t *testing.T) { run(t, newRouter(t, tuns...)) })
	}
}

// translate: hosts go out under the gateway's address, and who calls its port
// 8080 gets host1's port 80.
func (r *router) translate(t *testing.T) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(int(r.gw)))
	check(t, err)
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "gw"})
	chain := func(name string, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: prio})
	}
	post := chain("post", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	pre := chain("pre", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	via := func(key expr.MetaKey) []expr.Any {
		name := make([]byte, 16)
		copy(name, "wan0")
		return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name}}
	}
	c.AddRule(&nftables.Rule{Table: table, Chain: post, Exprs: append(via(expr.MetaKeyOIFNAME), &expr.Masq{})})
	to := append(via(expr.MetaKeyIIFNAME),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(8080)},
		&expr.Immediate{Register: 1, Data: r.host1.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(80)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2})
	c.AddRule(&nftables.Rule{Table: table, Chain: pre, Exprs: to})
	check(t, c.Flush())
}

func (r *router) open(t *testing.T) *Plane {
	t.Helper()
	return r.l.open(t, Options{
		Interface: "lan0", Role: Inside, Also: []Attach{{"wan0", Outside}}, PinDir: r.l.pins,
		Mode: dataplane.Enforce, SweepEvery: 20 * time.Millisecond,
	})
}

// serve echoes at an address in a namespace.
func (r *router) serve(t *testing.T, in netns.NsHandle, at netip.AddrPort) {
	t.Helper()
	r.l.echoIn(t, in, at)
}

const talked = 50000

// talk connects from an address, sends, and expects it back.
func (r *router) talk(t *testing.T, in netns.NsHandle, from netip.Addr, to netip.AddrPort, patience time.Duration) error {
	t.Helper()
	d := net.Dialer{Timeout: patience}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	var c net.Conn
	var err error
	r.l.in(t, in, func() { c, err = d.Dial("tcp", to.String()) })
	if err != nil {
		return err
	}
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(patience)))
	if _, err := io.WriteString(c, strings.Repeat("x", talked)); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, talked))
	return err
}

// Real connections through masquerading, port forwarding and plain routing: each
// is one flow, under the host's own address, both halves of it, counted once
// although two interfaces see it.
func TestFlowsThroughAGateway(t *testing.T) { gateways(t, flowsThroughAGateway) }

func flowsThroughAGateway(t *testing.T, r *router) {
	p := r.open(t)
	events := collect(t, p)
	at := netip.AddrPortFrom
	r.serve(t, r.world, at(r.server, 443))
	r.serve(t, r.world, at(r.server6, 443))
	r.serve(t, r.hosts, at(r.host1, 80))
	r.serve(t, r.hosts, at(r.host6, 80))
	calls := []struct {
		what       string
		in         netns.NsHandle
		from       netip.Addr
		to         netip.AddrPort
		init       netip.Addr     // as the inside sees it
		resp       netip.AddrPort // likewise
		initInside bool
	}{
		{"masqueraded", r.hosts, r.host1, at(r.server, 443), r.host1, at(r.server, 443), true},
		{"masqueraded, another host", r.hosts, r.host2, at(r.server, 443), r.host2, at(r.server, 443), true},
		{"forwarded port", r.world, r.server, at(r.wan, 8080), r.server, at(r.host1, 80), false},
		{"IPv6 outwards", r.hosts, r.host6, at(r.server6, 443), r.host6, at(r.server6, 443), true},
		{"IPv6 inwards", r.world, r.server6, at(r.host6, 80), r.server6, at(r.host6, 80), false},
		{"the gateway's own", r.gw, r.wan, at(r.server, 443), r.wan, at(r.server, 443), true},
	}
	for _, c := range calls {
		if err := r.talk(t, c.in, c.from, c.to, patience); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		end := events.wait(t, "end of "+c.what, func(e *dataplane.Event) bool {
			return e.Kind == dataplane.EventEnd && e.Record.Initiator().Addr() == c.init && e.Record.Responder() == c.resp
		})
		rec := end.Record
		if rec.InitInside != c.initInside || rec.RespInside == c.initInside {
			t.Errorf("%s: inside %v, %v", c.what, rec.InitInside, rec.RespInside)
		}
		if !rec.Validated[0] || !rec.Validated[1] {
			t.Errorf("%s: validated %v: expected both ends", c.what, rec.Validated)
		}
		s, err := p.Stats()
		check(t, err)
		for e, d := range rec.Dir {
			// Processors that got in each other's way say how many packets that cost, of
			// which each may be an aggregate.
			if d.Payload+1<<16*s.FlowsUntracked < talked || d.Payload > talked && d.Retrans == 0 {
				t.Errorf("%s: direction %d: payload %d, %d sent again, %d packets untracked: expected %d once",
					c.what, e, d.Payload, d.Retrans, s.FlowsUntracked, talked)
			}
		}
	}
	s, err := p.Stats()
	check(t, err)
	if got := tcpEnds(events); got != len(calls) {
		t.Errorf("%d TCP flows ended: expected the %d connections, each once", got, len(calls))
	}
	t.Logf("%d packets sighted, %d flows", s.Packets, s.FlowsTotal)
}

func tcpEnds(c *collector) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.events {
		if e := &c.events[i]; e.Kind == dataplane.EventEnd && e.Record.Key.Proto == flow.TCP {
			n++
		}
	}
	return n
}

// Rules hold for translated connections: on the world's address at the outside,
// before translation, and on a host's own at the inside.
func TestRulesThroughAGateway(t *testing.T) { gateways(t, rulesThroughAGateway) }

func rulesThroughAGateway(t *testing.T, r *router) {
	p := r.open(t)
	at := netip.AddrPortFrom
	r.serve(t, r.world, at(r.server, 443))
	r.serve(t, r.hosts, at(r.host1, 80))
	// Who is to get through has time to: a refusal shows only as silence.
	reach := func(want string) string {
		var got []string
		for _, c := range []struct {
			what string
			in   netns.NsHandle
			from netip.Addr
			to   netip.AddrPort
		}{
			{"host1", r.hosts, r.host1, at(r.server, 443)}, {"host2", r.hosts, r.host2, at(r.server, 443)},
			{"inwards", r.world, r.server, at(r.wan, 8080)},
		} {
			patience := impatience * 3
			if strings.Contains(want, c.what) {
				patience = time.Minute
			}
			if r.talk(t, c.in, c.from, c.to, patience) == nil {
				got = append(got, c.what)
			}
		}
		return fmt.Sprint(got)
	}
	block := func(target dataplane.Target) dataplane.Rule {
		return dataplane.Rule{Target: target, Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}
	}
	const all = "[host1 host2 inwards]"
	if got := reach(all); got != all {
		t.Fatalf("without rules: %s", got)
	}
	for _, c := range []struct {
		target dataplane.Target
		want   string
	}{
		{dataplane.Peer(r.host2), "[host1 inwards]"},
		{dataplane.Peer(r.server), "[]"},
		{dataplane.Target{Prefix: netip.PrefixFrom(r.host1, 32), Port: 80, Proto: flow.TCP}, "[host1 host2]"},
	} {
		check(t, p.Apply(block(c.target)))
		if got := reach(c.want); got != c.want {
			t.Errorf("with %s blocked: %s: expected %s", c.target, got, c.want)
		}
		check(t, p.Remove(c.target))
	}
	if got := reach(all); got != all {
		t.Errorf("after the rules: %s", got)
	}
}
