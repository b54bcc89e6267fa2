package flowgen

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Office is a site with hosts that do ordinary work with servers outside, and
// a login server of its own. Its habits come from its seed.
type Office struct {
	rng     *rand.Rand
	seed    uint64
	hosts   []netip.Addr
	sshd    netip.Addr
	dns     netip.Addr
	web     []netip.Addr // plain HTTP
	tls     []netip.Addr
	store   netip.Addr // bulk transfers
	report  netip.Addr // polled regularly
	shells  []netip.Addr
	uploads bool
	nextID  uint64
	nth     map[string]int
	change  change
}

// NewOffice makes an office; uploads gives it frequent TLS uploads of all
// sizes to many peers, which makes its normal broad.
func NewOffice(seed uint64, uploads bool) *Office {
	rng := rand.New(rand.NewPCG(seed, 0x0ff1ce))
	addr := func(a, b byte) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(seed), a, b}) }
	out := func() netip.Addr {
		return netip.AddrFrom4([4]byte{198, 18 + byte(rng.IntN(2)), byte(rng.IntN(256)), byte(1 + rng.IntN(254))})
	}
	o := &Office{rng: rng, seed: seed, uploads: uploads, sshd: addr(0, 5), dns: out(), store: out(), report: out(), nth: map[string]int{}}
	for i := range 8 {
		o.hosts = append(o.hosts, addr(1, byte(10+i)))
	}
	for range 12 {
		o.web = append(o.web, out())
	}
	for range 30 {
		o.tls = append(o.tls, out())
	}
	for range 3 {
		o.shells = append(o.shells, out())
	}
	return o
}

// Host is the i-th inside host.
func (o *Office) Host(i int) netip.Addr { return o.hosts[i%len(o.hosts)] }

// Work is ordinary traffic: about rate flows a second from start for d.
func (o *Office) Work(start time.Time, d time.Duration, rate float64) []Report {
	var all []session
	end := start.Add(d)
	for t := start; t.Before(end); t = t.Add(time.Duration(o.rng.ExpFloat64() / rate * float64(time.Second))) {
		all = append(all, o.ordinary(t))
	}
	for t := start.Add(time.Second); t.Before(end); t = t.Add(time.Duration((7 + o.rng.Float64()) * float64(time.Second))) {
		all = append(all, o.poll(t, o.hosts[0]))
	}
	return o.play(all, "normal")
}

func (o *Office) play(all []session, label string) []Report {
	slices.SortStableFunc(all, func(a, b session) int { return int(min(1, max(-1, a.start-b.start))) })
	for i := range all {
		all[i].label, all[i].nth = label, o.nth[label]
		o.nth[label]++
	}
	out := play(all, 1+o.seed<<32+o.nextID)
	o.nextID += uint64(len(all))
	return out
}

func (o *Office) ordinary(t time.Time) session {
	host := o.hosts[o.rng.IntN(len(o.hosts))]
	if o.change.share > 0 && o.rng.Float64() < o.change.share {
		return o.call(t, host)
	}
	x := o.rng.Float64()
	switch {
	case o.uploads && x < 0.25:
		return o.upload(t, host)
	case x < 0.40:
		return o.query(t, host)
	case x < 0.62:
		return o.http(t, host)
	case x < 0.90:
		return o.secure(t, host)
	case x < 0.94:
		return o.shell(t, host)
	case x < 0.97:
		return o.bulk(t, host)
	case x < 0.98:
		return o.rare(t, host)
	case x < 0.99:
		s := o.outbound(t, host, o.web[o.rng.IntN(len(o.web))], 80, flow.HintNone)
		s.end = refused
		return s
	}
	return o.login(t)
}

// outbound is the frame of a TCP session from a host to a peer.
func (o *Office) outbound(t time.Time, host, peer netip.Addr, port uint16, hint flow.Hint) session {
	return session{
		start: t.UnixNano(), from: netip.AddrPortFrom(host, o.ephemeral()), to: netip.AddrPortFrom(peer, port),
		fromInside: true, proto: flow.TCP, hint: hint, rtt: o.rtt(peer),
		ttl: [2]uint8{64, 64 - peer.As4()[3]%16}, window: [2]uint16{64240, 65160},
	}
}

func (o *Office) ephemeral() uint16 { return uint16(32768 + o.rng.IntN(28000)) }

// rtt is a peer's distance, its own, with a little noise.
func (o *Office) rtt(peer netip.Addr) time.Duration {
	base := 1 + float64(peer.As4()[2])/8
	return time.Duration(base * (1 + 0.1*o.rng.Float64()) * float64(time.Millisecond))
}

func (o *Office) size(median, spread, lo, hi float64) int {
	return lognormal(o.rng.NormFloat64(), median, spread, lo, hi)
}

func (o *Office) wait(mean time.Duration) time.Duration {
	return time.Duration(o.rng.ExpFloat64() * float64(mean))
}

func (o *Office) query(t time.Time, host netip.Addr) session {
	s := o.outbound(t, host, o.dns, 53, flow.HintNone)
	s.proto, s.window = flow.UDP, [2]uint16{}
	s.script = []msg{{0, 28 + o.rng.IntN(40), 0}, {1, o.size(120, 0.5, 44, 500), s.rtt}}
	return s
}

func (o *Office) http(t time.Time, host netip.Addr) session {
	s := o.outbound(t, host, o.web[o.rng.IntN(len(o.web))], 80, flow.HintHTTP)
	for i := range 1 + o.rng.IntN(4) {
		think := time.Duration(0)
		if i > 0 {
			think = o.wait(300 * time.Millisecond)
		}
		s.script = append(s.script, msg{0, o.size(350, 0.3, 150, 1200), think}, msg{1, o.size(9000, 1.2, 200, 200_000), s.rtt})
	}
	return s
}

// hello is the opening of a TLS session.
func (o *Office) hello(s *session) {
	s.script = append(s.script,
		msg{0, 517 + o.rng.IntN(60), 0}, msg{1, o.size(3600, 0.2, 2000, 6000), s.rtt}, msg{0, 64 + o.rng.IntN(40), 2 * time.Millisecond})
}

func (o *Office) secure(t time.Time, host netip.Addr) session {
	s := o.outbound(t, host, o.tls[o.rng.IntN(len(o.tls))], 443, flow.HintTLS)
	o.hello(&s)
	for i := range 1 + o.rng.IntN(5) {
		think := time.Duration(0)
		if i > 0 {
			think = o.wait(400 * time.Millisecond)
		}
		up := o.size(500, 0.6, 150, 4000)
		if o.rng.Float64() < 0.03 {
			up = o.size(30_000, 0.8, 5000, 300_000)
		}
		s.script = append(s.script, msg{0, up, think}, msg{1, o.size(15_000, 1.4, 300, 400_000), s.rtt})
	}
	return s
}

func (o *Office) upload(t time.Time, host netip.Addr) session {
	s := o.outbound(t, host, o.tls[o.rng.IntN(len(o.tls))], 443, flow.HintTLS)
	o.hello(&s)
	for range 1 + o.rng.IntN(2) {
		s.script = append(s.script, msg{0, o.size(25_000, 1.2, 1000, 600_000), o.wait(50 * time.Millisecond)}, msg{1, o.size(400, 0.7, 100, 3000), s.rtt})
	}
	return s
}

// keyExchange is the opening of an SSH session; its sizes are the software's.
func keyExchange(s *session) {
	s.script = append(s.script, msg{0, 41, 0}, msg{1, 41, 5 * time.Millisecond}, msg{0, 1500, 2 * time.Millisecond},
		msg{1, 1100, time.Millisecond}, msg{0, 1200, 3 * time.Millisecond}, msg{1, 1500, 8 * time.Millisecond},
		msg{0, 16, 3 * time.Millisecond}, msg{0, 44, time.Millisecond}, msg{1, 44, time.Millisecond})
}

func (o *Office) interactive(s *session) {
	keyExchange(s)
	s.script = append(s.script, msg{0, 68, 800 * time.Millisecond}, msg{1, 28, 20 * time.Millisecond},
		msg{0, 148, 500 * time.Millisecond}, msg{1, 28, 40 * time.Millisecond})
	for range 10 + o.rng.IntN(40) {
		s.script = append(s.script, msg{0, 36, o.wait(250 * time.Millisecond)}, msg{1, o.size(60, 1, 36, 4000), s.rtt})
	}
}

func (o *Office) shell(t time.Time, host netip.Addr) session {
	s := o.outbound(t, host, o.shells[o.rng.IntN(len(o.shells))], 22, flow.HintSSH)
	o.interactive(&s)
	return s
}

// login is a colleague outside who works on the site's login server.
func (o *Office) login(t time.Time) session {
	s := o.inbound(t, o.shells[o.rng.IntN(len(o.shells))], o.sshd, 22, flow.HintSSH)
	o.interactive(&s)
	return s
}

func (o *Office) inbound(t time.Time, peer, host netip.Addr, port uint16, hint flow.Hint) session {
	s := o.outbound(t, peer, host, port, hint)
	s.fromInside, s.toInside, s.rtt = false, true, o.rtt(peer)
	s.ttl = [2]uint8{s.ttl[1], 64}
	return s
}

func (o *Office) bulk(t time.Time, host netip.Addr) session {
	s := o.outbound(t, host, o.store, 873, flow.HintNone)
	s.script = []msg{{0, 120, 0}, {1, 300, s.rtt}}
	n := o.size(800_000, 0.8, 50_000, 4_000_000)
	if o.rng.Float64() < 0.3 {
		s.script = append(s.script, msg{0, n, 0}, msg{1, 60, s.rtt})
	} else {
		s.script = append(s.script, msg{0, 200, 0}, msg{1, n, s.rtt})
	}
	return s
}

// rare is a service that some hosts use now and then, on an unusual port.
func (o *Office) rare(t time.Time, host netip.Addr) session {
	s := o.outbound(t, host, o.tls[o.rng.IntN(4)], 8443, flow.HintTLS)
	o.hello(&s)
	s.script = append(s.script, msg{0, o.size(500, 0.5, 200, 3000), 0}, msg{1, o.size(4000, 0.8, 300, 40_000), s.rtt})
	return s
}

// poll is a program that reports to a server of its own every few seconds.
func (o *Office) poll(t time.Time, host netip.Addr) session {
	s := o.outbound(t, host, o.report, 443, flow.HintTLS)
	o.hello(&s)
	s.script = append(s.script, msg{0, o.size(700, 0.2, 300, 2000), 0}, msg{1, 250 + o.rng.IntN(60), s.rtt})
	return s
}
