// Package scenario is the demo's world as data: three branch sites of one
// organisation, the hosts behind them, the servers and attackers outside, and
// generators of what they do. Everything follows from one seed, and nothing
// here opens a socket or reads a clock, so the same sessions run over real
// sockets in network namespaces (demo/lab) and as frames through the software
// plane (demo/soft).
//
// Outside addresses come from the ranges for documentation and benchmarks
// (RFC 5737, RFC 2544), so that they count as public and belong to nobody.
package scenario

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
)

// Names of the sites, in order.
const (
	Alder = "alder"
	Birch = "birch"
	Cedar = "cedar"
)

// Ports of ordinary services.
const (
	PortSSH  = 22
	PortDNS  = 53
	PortHTTP = 80
	PortTLS  = 443
	PortBulk = 8080
)

// Host is a machine behind a gateway.
type Host struct {
	Name string
	Addr netip.Addr
}

// Site is one branch.
type Site struct {
	Name    string
	LAN     netip.Prefix
	Gateway netip.Addr // the gateway's inside address
	WAN     netip.Addr // the gateway's outside address, where the mesh listens
	NAT     bool       // the gateway masquerades, and forwards Forwarded to Server
	Hosts   []Host     // those who work here
	Server  Host       // serves SSH, HTTP and TLS to the outside
	// Uploads says that this site's daily work is full of TLS uploads of all
	// sizes to many peers, so that an upload alone is nothing unusual here.
	Uploads bool
}

// Forwarded lists the ports that a masquerading gateway passes to its server.
func (s *Site) Forwarded() []uint16 { return []uint16{PortSSH, PortHTTP, PortTLS} }

// Scenario is a world.
type Scenario struct {
	Seed      uint64
	Sites     []*Site
	WANNet    netip.Prefix
	WANRouter netip.Addr
	Resolvers []netip.Addr
	Web       []netip.Addr // serve HTTP, TLS, bulk and SSH
	Fleet     []netip.Addr // where cedar's uploads go
	Visitors  []netip.Addr // open connections to the sites' servers
	Admins    []netip.Addr // log in at the sites' servers
	Scanner   netip.Addr
	Guesser   netip.Addr    // tries passwords
	C2        [3]netip.Addr // the beacon's masters: alder's, cedar's first, cedar's second
	Sink      netip.Addr    // where the spurt goes
	SpurtPort uint16
	Password  string // opens the sites' SSH servers
}

// New makes the world of a seed.
func New(seed uint64) *Scenario { return Among(seed, Alder, Birch, Cedar) }

// Among is a world with other sites. Their networks may overlap when they are more
// than 230, as private networks do. The third of them has what sets cedar apart, and
// so has every third after it.
func Among(seed uint64, names ...string) *Scenario {
	rng := rand.New(rand.NewPCG(seed, 0x6865646765))
	s := &Scenario{
		Seed:      seed,
		WANNet:    netip.MustParsePrefix("192.0.2.0/24"),
		WANRouter: netip.MustParseAddr("192.0.2.1"),
		SpurtPort: uint16(8443 + rng.IntN(1001)),
		Password:  fmt.Sprintf("correct-%08x", rng.Uint32()),
	}
	second := rng.IntN(200)
	for i, name := range names {
		s.Sites = append(s.Sites, newSite(rng, i, name, second))
	}
	web := rng.Perm(250)
	for i := range 36 {
		s.Web = append(s.Web, addr4(203, 0, 113, web[i]+2))
	}
	for i := 36; i < 76; i++ {
		s.Fleet = append(s.Fleet, addr4(203, 0, 113, web[i]+2))
	}
	s.Resolvers = []netip.Addr{addr4(198, 51, 100, 10), addr4(198, 51, 100, 11)}
	people := rng.Perm(200)
	for i := range 24 {
		s.Visitors = append(s.Visitors, addr4(198, 51, 100, people[i]+20))
	}
	for i := range 16 {
		s.Admins = append(s.Admins, addr4(198, 51, 100, people[30+i]+20))
	}
	bad := distinct(rng, 6, func() netip.Addr {
		return addr4(198, 18+rng.IntN(2), rng.IntN(256), 1+rng.IntN(254))
	})
	s.Scanner, s.Guesser, s.Sink = bad[0], bad[1], bad[2]
	copy(s.C2[:], bad[3:])
	return s
}

func newSite(rng *rand.Rand, i int, name string, second int) *Site {
	third := rng.IntN(250)
	at := func(last int) netip.Addr { return addr4(10, 20+(second+i)%230, third, last) }
	s := &Site{
		Name:    name,
		LAN:     netip.PrefixFrom(at(0), 24),
		Gateway: at(1),
		WAN:     addr4(192, 0, 2, 11+i%240),
		NAT:     i%3 == 2,
		Uploads: i%3 == 2,
		Server:  Host{Name: name + "-server", Addr: at(5)},
	}
	last := rng.Perm(200)
	for n := range 6 {
		s.Hosts = append(s.Hosts, Host{Name: fmt.Sprintf("%s-desk-%d", name, n+1), Addr: at(20 + last[n])})
	}
	return s
}

// Site returns the site of that name, or nil.
func (s *Scenario) Site(name string) *Site {
	for _, site := range s.Sites {
		if site.Name == name {
			return site
		}
	}
	return nil
}

// Outside lists every address outside the sites, each once.
func (s *Scenario) Outside() []netip.Addr {
	var all []netip.Addr
	for _, group := range [][]netip.Addr{s.Resolvers, s.Web, s.Fleet, s.Visitors, s.Admins, s.Hostile()} {
		all = append(all, group...)
	}
	return all
}

// Hostile lists the addresses that only attacks use.
func (s *Scenario) Hostile() []netip.Addr {
	return append([]netip.Addr{s.Scanner, s.Guesser, s.Sink}, s.C2[:]...)
}

// Service is something that listens.
type Service struct {
	Site string     // "" is outside
	Addr netip.Addr // the zero Addr: every address there
	Port uint16
	Kind Kind
}

// Services lists all that listens.
func (s *Scenario) Services() []Service {
	out := []Service{
		{Port: PortSSH, Kind: SSH}, {Port: PortHTTP, Kind: HTTP}, {Port: PortTLS, Kind: TLS},
		{Port: PortBulk, Kind: Bulk}, {Port: s.SpurtPort, Kind: TLS},
	}
	for _, r := range s.Resolvers {
		out = append(out, Service{Addr: r, Port: PortDNS, Kind: DNS})
	}
	for _, site := range s.Sites {
		at := site.Server.Addr
		out = append(out,
			Service{Site: site.Name, Addr: at, Port: PortSSH, Kind: SSH},
			Service{Site: site.Name, Addr: at, Port: PortHTTP, Kind: HTTP},
			Service{Site: site.Name, Addr: at, Port: PortTLS, Kind: TLS})
	}
	return out
}

func addr4(a, b, c, d int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a), byte(b), byte(c), byte(d)})
}

func distinct(rng *rand.Rand, n int, next func() netip.Addr) []netip.Addr {
	seen := make(map[netip.Addr]bool, n)
	var out []netip.Addr
	for len(out) < n {
		if a := next(); !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	return out
}
