//go:build linux

// Package lab builds the demo's world in the Linux kernel: network namespaces
// for the outside, for three gateways and for the hosts behind them, joined by
// veth pairs, and runs the scenario's sessions over real sockets in it.
//
//	hosts of a site                gateway                     outside
//	[lan: .5 .21 .. ]--eth0--lan0--[router, NAT]--wan0--port--[bridge: servers,
//	                                                           visitors, attackers]
//
// The hosts of one site share a namespace with one address each, so the
// gateway sees them all at its one inside interface, and every host's traffic
// passes it in both directions. Gateways reach each other over the outside
// bridge without passing any inside interface; the mesh runs there.
//
// Nothing here outlives the process: namespaces have no names, child processes
// die with the thread that started them, mounts live in private mount
// namespaces, and the one thing on disk, the run's folder, names its process,
// so that the next run removes what a killed one left.
//
// It needs root, and nothing else from the machine: no ip, nft or bridge tool.
package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/agent"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/netspace"
)

// Options of a lab.
type Options struct {
	Dir string       // where the run's folder is made; "" is os.TempDir()
	Log *slog.Logger // nil is silence
}

// Lab is a running world. Its methods may be called from any goroutine.
type Lab struct {
	sc       *scenario.Scenario
	log      *slog.Logger
	dir      string
	outside  *netspace.Space
	lans     map[string]*netspace.Space
	gateways map[string]*Gateway
	server   *agent.Server
}

// Up builds the world and starts its servers. On failure it takes down what it
// had built.
func Up(sc *scenario.Scenario, o Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("demo lab: needs root for network namespaces: run as root, or without it for the software plane")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	removeStale(o.Dir, o.Log)
	l := &Lab{sc: sc, log: o.Log, lans: map[string]*netspace.Space{}, gateways: map[string]*Gateway{}}
	var err error
	if l.dir, err = makeRunDir(o.Dir); err != nil {
		return nil, fmt.Errorf("demo lab: %w", err)
	}
	if err := l.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("demo lab: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lab) build() error {
	var err error
	if l.server, err = agent.NewServer(l.sc.Password, l.log); err != nil {
		return err
	}
	if err := l.buildOutside(); err != nil {
		return fmt.Errorf("outside: %w", err)
	}
	for i, site := range l.sc.Sites {
		if err := l.buildSite(i, site); err != nil {
			return fmt.Errorf("site %s: %w", site.Name, err)
		}
	}
	for _, s := range l.sc.Services() {
		if err := l.listen(s); err != nil {
			return fmt.Errorf("%s service at port %d: %w", s.Kind, s.Port, err)
		}
	}
	return nil
}

// quiet switches IPv6 off: its neighbour and listener chatter at the set-up is
// no one's work and would only blur what the sites learn.
func quiet(s *netspace.Space) error {
	return errors.Join(
		s.Sysctl("net/ipv6/conf/all/disable_ipv6", "1"),
		s.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
}

func (l *Lab) buildOutside() error {
	var err error
	if l.outside, err = netspace.New("outside"); err != nil {
		return err
	}
	if err := quiet(l.outside); err != nil {
		return err
	}
	return l.outside.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("loopback: %w", err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("loopback: %w", err)
		}
		for _, a := range l.sc.Outside() {
			if err := netspace.AddAddr(lo, netip.PrefixFrom(a, 32)); err != nil {
				return err
			}
		}
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge"}}
		if err := netlink.LinkAdd(br); err != nil {
			return fmt.Errorf("bridge: %w", err)
		}
		if err := netspace.AddAddr(br, netip.PrefixFrom(l.sc.WANRouter, l.sc.WANNet.Bits())); err != nil {
			return err
		}
		return netlink.LinkSetUp(br)
	})
}

func (l *Lab) buildSite(i int, site *scenario.Site) error {
	gw, err := newGateway(l, site)
	if err != nil {
		return err
	}
	l.gateways[site.Name] = gw
	lan, err := netspace.New(site.Name + "-lan")
	if err != nil {
		return err
	}
	l.lans[site.Name] = lan
	if err := quiet(lan); err != nil {
		return err
	}
	port := "port" + strconv.Itoa(i)
	if err := l.outside.Do(func() error { return l.plugWAN(gw, port, site) }); err != nil {
		return err
	}
	if err := lan.Do(func() error { return plugLAN(gw, site) }); err != nil {
		return err
	}
	return gw.setUp(l.sc)
}

// plugWAN joins the gateway to the outside bridge and routes its inside
// addresses to it, unless it masquerades.
func (l *Lab) plugWAN(gw *Gateway, port string, site *scenario.Site) error {
	link, err := netspace.Cable(port, InterfaceWAN, gw.space)
	if err != nil {
		return err
	}
	br, err := netlink.LinkByName("bridge")
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if err := netlink.LinkSetMaster(link, br); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("link %s: %w", port, err)
	}
	if site.NAT {
		return nil
	}
	return netspace.AddRoute(br, site.LAN, site.WAN)
}

func plugLAN(gw *Gateway, site *scenario.Site) error {
	link, err := netspace.Cable("eth0", InterfaceLAN, gw.space)
	if err != nil {
		return err
	}
	for _, h := range append([]scenario.Host{site.Server}, site.Hosts...) {
		if err := netspace.AddAddr(link, netip.PrefixFrom(h.Addr, site.LAN.Bits())); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("link eth0: %w", err)
	}
	return netspace.AddRoute(link, netip.PrefixFrom(netip.IPv4Unspecified(), 0), site.Gateway)
}

func (l *Lab) listen(s scenario.Service) error {
	sp := l.outside
	if s.Site != "" {
		sp = l.lans[s.Site]
	}
	host := ""
	if s.Addr.IsValid() {
		host = s.Addr.String()
	}
	at := net.JoinHostPort(host, strconv.Itoa(int(s.Port)))
	return sp.Visit(func() error {
		if s.Kind == scenario.DNS {
			pc, err := net.ListenPacket("udp4", at)
			if err != nil {
				return err
			}
			return l.server.ServePacket(pc)
		}
		ln, err := net.Listen("tcp4", at)
		if err != nil {
			return err
		}
		return l.server.Serve(s.Kind, ln)
	})
}

// Run runs one session over a real socket from its own address. An inbound
// session to a masquerading site goes to the gateway's outside address, which
// forwards it.
func (l *Lab) Run(ctx context.Context, s *scenario.Session) scenario.Result {
	site := l.sc.Site(s.Site)
	if site == nil {
		return scenario.Result{Session: s, Err: fmt.Errorf("session names no site: %q", s.Site)}
	}
	from, to := l.lans[s.Site], s.To
	if s.Inbound {
		from = l.outside
		if site.NAT {
			to = site.WAN
		}
	}
	dial := func(ctx context.Context) (conn net.Conn, err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: s.From.AsSlice()}, KeepAlive: -1}
		network := "tcp4"
		if s.UDP() {
			network, d.LocalAddr = "udp4", &net.UDPAddr{IP: s.From.AsSlice()}
		}
		err = from.Visit(func() error {
			conn, err = d.DialContext(ctx, network, netip.AddrPortFrom(to, s.Port).String())
			return err
		})
		return conn, err
	}
	return agent.Do(ctx, s, dial, l.server.Trust())
}

// Gateway returns the gateway of a site.
func (l *Lab) Gateway(site string) *Gateway { return l.gateways[site] }

// Dir is the run's folder.
func (l *Lab) Dir() string { return l.dir }

// Close stops the gateways' processes, the servers and the namespaces, and
// removes the run's folder. It may be called more than once.
func (l *Lab) Close() error {
	var errs []error
	for _, gw := range l.gateways {
		errs = append(errs, gw.stop())
	}
	if l.server != nil {
		errs = append(errs, l.server.Close())
	}
	for _, gw := range l.gateways {
		gw.space.Close()
	}
	for _, lan := range l.lans {
		lan.Close()
	}
	if l.outside != nil {
		l.outside.Close()
	}
	errs = append(errs, os.RemoveAll(l.dir))
	return errors.Join(errs...)
}
