package scenario

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"time"
)

// patience is how long an ordinary session may take before it counts as lost.
const patience = 15 * time.Second

// Source yields one site's ordinary work without end: people's sessions as a
// Poisson stream, and, at a site with Uploads, devices that send on their own
// clocks. It is not safe for concurrent use.
type Source struct {
	sc      *Scenario
	site    *Site
	rng     *rand.Rand
	id      uint64
	rate    float64
	now     time.Duration // of the last session that was handed out
	people  time.Duration // when the next person acts
	devices []device
	habits  map[netip.Addr][]netip.Addr
}

type device struct {
	host netip.Addr
	peer netip.Addr
	left int // uploads to this peer before it turns to another
	next time.Duration
}

// Ordinary returns the ordinary work of a site at a mean rate of people's
// sessions a second.
func (s *Scenario) Ordinary(site *Site, rate float64) *Source {
	var n uint64
	for i, other := range s.Sites {
		if other.Name == site.Name {
			n = uint64(i) + 1
		}
	}
	src := &Source{
		sc: s, site: site, rate: rate, id: n << 48,
		rng:    rand.New(rand.NewPCG(s.Seed, 0x776f726b+n)),
		habits: make(map[netip.Addr][]netip.Addr),
	}
	for _, h := range append([]Host{site.Server}, site.Hosts...) {
		for _, i := range src.rng.Perm(len(s.Web))[:10] {
			src.habits[h.Addr] = append(src.habits[h.Addr], s.Web[i])
		}
	}
	src.people = src.wait()
	if site.Uploads {
		for _, h := range site.Hosts[2:] {
			src.devices = append(src.devices, device{host: h.Addr, next: src.between(0, 2*time.Second)})
		}
	}
	return src
}

// SetRate changes the mean rate of people's sessions.
func (src *Source) SetRate(perSecond float64) { src.rate = perSecond }

// Next returns the next session.
func (src *Source) Next() Timed {
	at, who := src.people, -1
	for i := range src.devices {
		if src.devices[i].next < at {
			at, who = src.devices[i].next, i
		}
	}
	var s Session
	if who < 0 {
		s = src.person()
		src.people = at + src.wait()
	} else {
		s = src.upload(&src.devices[who])
	}
	src.id++
	s.ID, s.Site, s.Timeout = src.id, src.site.Name, patience
	after := at - src.now
	src.now = at
	return Timed{After: after, Session: s}
}

func (src *Source) wait() time.Duration {
	return time.Duration(src.rng.ExpFloat64() / src.rate * float64(time.Second))
}

// person picks what a person of this site, or a visitor to it, does next.
func (src *Source) person() Session {
	x := src.rng.Float64()
	switch {
	case x < 0.29:
		return src.lookup()
	case x < 0.50:
		return src.browse(HTTP, PortHTTP)
	case x < 0.78:
		return src.browse(TLS, PortTLS)
	case x < 0.82:
		return src.transfer()
	case x < 0.85: // one host's user works on two machines outside
		host := src.site.Hosts[0].Addr
		return src.login(host, src.favourite(host, 2), false)
	case x < 0.87: // seldom enough for each that nobody's logins look like guessing
		return src.login(src.sc.Admins[src.rng.IntN(len(src.sc.Admins))], src.site.Server.Addr, true)
	case x < 0.935:
		return src.visit(HTTP, PortHTTP)
	}
	return src.visit(TLS, PortTLS)
}

func (src *Source) desk() netip.Addr { return src.site.Hosts[src.rng.IntN(len(src.site.Hosts))].Addr }

// favourite returns one of the first n peers that a host is used to, the
// earlier ones more often.
func (src *Source) favourite(host netip.Addr, n int) netip.Addr {
	peers := src.habits[host][:n]
	return peers[int(float64(n)*src.rng.Float64()*src.rng.Float64())]
}

func (src *Source) webPeer(host netip.Addr) netip.Addr {
	if src.rng.Float64() < 0.08 {
		return src.sc.Web[src.rng.IntN(len(src.sc.Web))]
	}
	return src.favourite(host, len(src.habits[host]))
}

func (src *Source) lookup() Session {
	return Session{
		Kind: DNS, From: src.desk(), To: src.sc.Resolvers[src.rng.IntN(len(src.sc.Resolvers))], Port: PortDNS,
		Script: []Exchange{{Up: 28 + src.rng.IntN(34), Down: 60 + src.rng.IntN(240)}},
	}
}

func (src *Source) browse(kind Kind, port uint16) Session {
	host := src.desk()
	return Session{Kind: kind, From: host, To: src.webPeer(host), Port: port, Script: src.pages()}
}

func (src *Source) visit(kind Kind, port uint16) Session {
	from := src.sc.Visitors[src.rng.IntN(len(src.sc.Visitors))]
	return Session{
		Kind: kind, Inbound: true, From: from, To: src.site.Server.Addr, Port: port, Script: src.pages(),
	}
}

// pages is a visit of one to five pages, now and then with a form sent.
func (src *Source) pages() []Exchange {
	n := 1 + int(src.rng.ExpFloat64()*1.2)
	script := make([]Exchange, min(n, 5))
	for i := range script {
		up := src.size(180, 900)
		if src.rng.Float64() < 0.06 {
			up = src.size(900, 3000)
		}
		script[i] = Exchange{Up: up, Down: src.size(300, 40_000)}
		if i > 0 {
			script[i].Think = src.between(20*time.Millisecond, 400*time.Millisecond)
		}
	}
	return script
}

// transfer is a large download from one of a few usual peers. Where uploads are
// daily work, now and then it is a backup that goes the other way, in one piece
// and in the clear.
func (src *Source) transfer() Session {
	host := src.desk()
	s := Session{Kind: Bulk, From: host, To: src.favourite(host, 3), Port: PortBulk}
	if src.site.Uploads && src.rng.Float64() < 0.3 {
		s.Script = []Exchange{{Up: src.size(60_000, 500_000), Down: src.size(80, 400)}}
	} else {
		s.Script = []Exchange{{Up: src.size(150, 400), Down: src.size(100_000, 600_000)}}
	}
	return s
}

// login is a person's SSH session: the right password, once after a slip, and
// then some commands.
func (src *Source) login(from, to netip.Addr, inbound bool) Session {
	s := Session{
		Kind: SSH, Inbound: inbound, From: from, To: to, Port: PortSSH, Passwords: []string{src.sc.Password},
	}
	if src.rng.Float64() < 0.1 {
		s.Passwords = []string{"correct-typo", src.sc.Password}
	}
	for range 4 + src.rng.IntN(12) {
		s.Script = append(s.Script, Exchange{
			Think: src.between(30*time.Millisecond, 300*time.Millisecond),
			Up:    src.size(36, 120), Down: src.size(40, 2400),
		})
	}
	return s
}

// upload is one sending of a device. It stays with a peer for a while, at
// irregular intervals, and then turns to another of a large fleet. Most send
// much, in chunks that are each acknowledged; some only report a little.
func (src *Source) upload(d *device) Session {
	if d.left == 0 {
		d.peer = src.sc.Fleet[src.rng.IntN(len(src.sc.Fleet))]
		d.left = 3 + src.rng.IntN(12)
	}
	d.left--
	d.next += 80*time.Millisecond + time.Duration(src.rng.ExpFloat64()*float64(1200*time.Millisecond))
	s := Session{Kind: TLS, From: d.host, To: d.peer, Port: PortTLS}
	if src.rng.Float64() < 0.2 {
		s.Script = []Exchange{{Up: src.size(120, 3000), Down: src.size(40, 300)}}
		return s
	}
	for left := src.size(3000, 120_000); left > 0; {
		up := min(left, src.size(1500, 8000))
		left -= up
		s.Script = append(s.Script, Exchange{
			Think: src.between(0, 50*time.Millisecond), Up: max(up, 120), Down: src.size(300, 1500),
		})
	}
	return s
}

// size draws from lo to hi so that every doubling is equally likely.
func (src *Source) size(lo, hi int) int { return size(src.rng, lo, hi) }

// size draws from lo to hi so that every doubling is equally likely.
func size(rng *rand.Rand, lo, hi int) int {
	return int(float64(lo) * math.Exp(rng.Float64()*math.Log(float64(hi)/float64(lo))))
}

func (src *Source) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(src.rng.Int64N(int64(hi-lo)+1))
}
