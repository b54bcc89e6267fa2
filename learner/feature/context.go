package feature

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// ContextOptions sizes a Context. Zero values take the defaults.
type ContextOptions struct {
	// Window is the time over which rates are taken; default one minute. It is
	// kept in two halves, so a count covers between a half and the whole of it,
	// and is divided by what it covers: rates are per minute whatever the window.
	Window time.Duration
	// Settle is how long what was seen rests before it counts as familiar: one
	// to two times this long; default ten minutes.
	Settle time.Duration
	// HalfLife is when half of a familiarity is forgotten; default a week.
	HalfLife time.Duration
	// Hosts, Pairs and Flows are how many entries each table holds; defaults
	// 4096, 16384 and 32768. The least recently used of a set goes first.
	Hosts, Pairs, Flows int
	// Seed keeps others from choosing keys that collide. Any value will do.
	Seed uint64
}

func (o ContextOptions) withDefaults() (ContextOptions, error) {
	def := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	def(&o.Window, time.Minute)
	def(&o.Settle, 10*time.Minute)
	def(&o.HalfLife, 7*24*time.Hour)
	if o.Hosts == 0 {
		o.Hosts = 4096
	}
	if o.Pairs == 0 {
		o.Pairs = 16384
	}
	if o.Flows == 0 {
		o.Flows = 32768
	}
	if o.Window < time.Second || o.Settle < time.Second || o.HalfLife < o.Settle {
		return o, errors.New("context: window and settle: expected at least one second, and half-life at least settle")
	}
	const most = 1 << 22
	if o.Hosts < 1 || o.Pairs < 1 || o.Flows < 1 || o.Hosts > most || o.Pairs > most || o.Flows > most {
		return o, errors.New("context: hosts, pairs and flows: expected 1 to 4194304 entries")
	}
	return o, nil
}

// host is what an initiator did lately.
type host struct {
	flows, failed window
	peers, ports  distinct
}

// remembered gaps between contacts of one host with one peer.
const gaps = 6

// contact is what one host and one peer did with each other.
type contact struct {
	last int64
	gap  [gaps]float32 // seconds, a ring
	n    uint32        // gaps ever seen
	out  window        // payload bytes from the initiator
}

// service is what one host did with one service of one peer.
type service struct {
	flows     window
	ended     uint32
	mean, dev float64 // of log payload of ended sessions, exponentially weighted
}

// known is how much of a flow was counted already.
type known struct {
	out              uint64
	client, protocol bool
}

// Context remembers, in bounded memory, what a flow's surroundings did. It is
// for one goroutine. Records must come in about the order of their times;
// a clock that jumps back or forth costs accuracy for a window, nothing else.
//
// For each report of a flow call Update first and then Vector.
type Context struct {
	o        ContextOptions
	half     int64
	settle   int64
	keep     float32
	born     int64 // time of the first record
	hosts    table[host]
	contacts table[contact]
	services table[service]
	flows    table[known]
	familiar familiarity
}

// NewContext makes an empty context of fixed size.
func NewContext(o ContextOptions) (*Context, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Context{
		o: o, half: int64(o.Window / 2), settle: int64(o.Settle),
		keep:  float32(math.Exp2(-float64(o.Settle) / float64(o.HalfLife))),
		hosts: newTable[host](o.Hosts), contacts: newTable[contact](o.Pairs),
		services: newTable[service](o.Pairs), flows: newTable[known](o.Flows),
		familiar: newFamiliarity(),
	}, nil
}

// Bytes is the memory that the context holds, all of it from the start.
func (c *Context) Bytes() int {
	return c.hosts.bytes() + c.contacts.bytes() + c.services.bytes() + c.flows.bytes() + 3*rows*width*4
}

// Settled says that familiarity is known: until then its features are absent.
func (c *Context) Settled() bool { return c.familiar.ready() }

// keys are the hashes under which a flow's surroundings are kept.
type keys struct {
	init, resp, port             uint64
	pair, service                uint64
	novelPort, novelPeer, novelS uint64
	// Of what is only known after some packets; 0 until then.
	client, clientHere, protocol uint64
}

func (c *Context) addr(a netip.Addr) uint64 { return hashAddr(c.o.Seed, a) }

func hashAddr(seed uint64, a netip.Addr) uint64 {
	b := a.As16()
	h := mix(binary.LittleEndian.Uint64(b[:8]) ^ seed)
	return mix(h + 0x9e3779b97f4a7c15 ^ binary.LittleEndian.Uint64(b[8:]))
}

func (c *Context) keys(r *flow.Record) keys {
	init, resp := r.Initiator(), r.Responder()
	k := keys{init: c.addr(init.Addr()), resp: c.addr(resp.Addr())}
	p := uint64(resp.Port())<<8 | uint64(r.Key.Proto)
	k.port = mix(p + 0x51ed270b)
	k.pair = nonzero(mix(k.init*3 ^ k.resp))
	k.service = nonzero(mix(k.pair ^ k.port))
	// Whose habit it is: the inside host's, caller or called.
	inside, role := k.init, uint64(1)
	if !r.InitInside && r.RespInside {
		inside, role = k.resp, 2
	}
	peer := k.resp
	if out, _, ok := r.Outside(); ok {
		peer = c.addr(out.Addr())
	}
	k.novelPort = mix(inside ^ mix(k.port+role))
	k.novelPeer = mix(peer + 0x2545f491)
	k.novelS = mix(k.resp ^ mix(k.port+0x7f4a7c15))
	if h := r.Hello; h != nil && h.Print != 0 {
		k.client = nonzero(mix(inside ^ mix(h.Print+role)))
		k.clientHere = nonzero(mix(h.Print + 0x6a09e667 + role))
	}
	if r.Key.Proto == flow.TCP && spoke(r) {
		k.protocol = nonzero(mix(inside ^ mix(k.port+0x3c6ef372+role+uint64(r.Hint)<<8)))
	}
	k.init = nonzero(k.init)
	return k
}

func nonzero(k uint64) uint64 {
	if k == 0 {
		return 1
	}
	return k
}

// Update counts a report of a flow: its start once, its payload as it grows,
// and its outcome when final. What the record's source could not give is not
// counted. It allocates nothing.
func (c *Context) Update(r *flow.Record, final bool) {
	if r.Lacks&around != 0 {
		return // of nobody, or of no time
	}
	now := r.Last
	epoch := now / c.half
	k := c.keys(r)
	if c.born == 0 || now < c.born {
		c.born = now
	}
	c.familiar.turn(now, c.settle, c.keep)
	seen, fresh := c.flows.put(nonzero(mix(r.ID)^mix(uint64(r.Start))), now)
	h, _ := c.hosts.put(k.init, now)
	ct, _ := c.contacts.put(k.pair, now)
	sv, _ := c.services.put(k.service, now)
	if fresh {
		h.flows.add(epoch, 1)
		h.peers.add(epoch, k.resp)
		ct.meet(r.Start)
		c.familiar.fresh.add(k.novelPeer)
		if r.Lacks&(flow.LackPort|flow.LackProto) == 0 {
			h.ports.add(epoch, mix(k.port))
			sv.flows.add(epoch, 1)
			c.familiar.fresh.add(k.novelPort)
			c.familiar.fresh.add(k.novelS)
		}
	}
	c.meet(r, &k, seen)
	if out := r.Dir[0].Payload; out > seen.out {
		ct.out.add(epoch, float64(out-seen.out))
		seen.out = out
	}
	if !final {
		return
	}
	if r.Lacks&needs[iHostFailed] == 0 && failed(r) {
		h.failed.add(epoch, 1)
	}
	if r.Lacks&needs[iPairAlike] == 0 && short(r) {
		sv.end(math.Log(float64(r.Dir[0].Payload) + float64(r.Dir[1].Payload)))
	}
}

// meet counts once what a flow shows of its client and protocol, when it does.
func (c *Context) meet(r *flow.Record, k *keys, seen *known) {
	if k.client != 0 && !seen.client {
		seen.client = true
		c.familiar.fresh.add(k.client)
		c.familiar.fresh.add(k.clientHere)
	}
	if k.protocol != 0 && !seen.protocol && r.Lacks&needs[iNovelProtocol] == 0 {
		seen.protocol = true
		c.familiar.fresh.add(k.protocol)
	}
}

// meet notes a new flow of the pair.
func (ct *contact) meet(start int64) {
	if ct.last != 0 && start >= ct.last {
		ct.gap[ct.n%gaps] = float32(float64(start-ct.last) / 1e9)
		ct.n++
	}
	ct.last = start
}

// rhythm gives the mean gap between the last contacts in seconds and its
// relative deviation; ok is false before three gaps are known.
func (ct *contact) rhythm() (mean, dev float64, ok bool) {
	n := min(int(ct.n), gaps)
	if n < 3 {
		return 0, 0, false
	}
	var sum, sq float64
	for _, g := range ct.gap[:n] {
		sum += float64(g)
		sq += float64(g) * float64(g)
	}
	mean, dev = moments(float64(n), sum, sq)
	if mean <= 0 {
		return 0, 0, true
	}
	return mean, dev / mean, true
}

// end notes a finished short session by the logarithm of its payload.
func (s *service) end(logSize float64) {
	const weight = 0.2
	if s.ended == 0 {
		s.mean = logSize
	}
	d := logSize - s.mean
	s.mean += weight * d
	s.dev = (1 - weight) * (s.dev + weight*d*d)
	s.ended = min(s.ended+1, math.MaxUint32-1)
}

// Vector fills dst with all that is known of a flow: its own features and its
// context's, as of the record's last packet. It changes nothing and allocates
// nothing.
func (c *Context) Vector(dst *Vector, r *flow.Record) {
	FromRecord(dst, r)
	epoch := r.Last / c.half
	k := c.keys(r)
	rate := c.perMinute(r.Last)
	c.hostFeatures(dst, k, epoch, rate)
	c.pairFeatures(dst, k, epoch, rate)
	if c.familiar.ready() {
		dst.set(iNovelPort, c.familiar.settled.get(k.novelPort))
		met := c.familiar.settled.get(k.novelPeer)
		dst.set(iNovelPeer, met)
		dst.set(iStrangerOut, Natural(iPeerOut, dst.X[iPeerOut])/(1+met))
		dst.set(iStrangerFlows, Natural(iPairFlows, dst.X[iPairFlows])/(1+met))
		dst.set(iNovelService, c.familiar.settled.get(k.novelS))
		if k.client != 0 {
			dst.set(iNovelClient, c.familiar.settled.get(k.client))
			dst.set(iNovelClientHere, c.familiar.settled.get(k.clientHere))
		}
		if k.protocol != 0 {
			dst.set(iNovelProtocol, c.familiar.settled.get(k.protocol))
		}
	}
	dst.withhold(r.Lacks)
}

// perMinute is what a windowed count is multiplied by: the window covers its
// previous half and what has passed of this one, or the context's age if that
// is less, but is taken for a quarter of itself at least.
func (c *Context) perMinute(now int64) float64 {
	covered := max(min(c.half+now%c.half, now-c.born), c.half/2)
	return float64(time.Minute) / float64(covered)
}

func (c *Context) hostFeatures(dst *Vector, k keys, epoch int64, rate float64) {
	var none host
	h := c.hosts.get(k.init)
	if h == nil {
		h = &none
	}
	dst.set(iHostFlows, rate*h.flows.sum(epoch))
	dst.set(iHostPeers, rate*h.peers.count(epoch))
	dst.set(iHostPorts, rate*h.ports.count(epoch))
	dst.set(iHostFailed, rate*h.failed.sum(epoch))
}

func (c *Context) pairFeatures(dst *Vector, k keys, epoch int64, rate float64) {
	if sv := c.services.get(k.service); sv != nil {
		dst.set(iPairFlows, rate*sv.flows.sum(epoch))
		if sv.ended >= 3 {
			dst.set(iPairAlike, math.Sqrt(sv.dev))
		}
	} else {
		dst.set(iPairFlows, 0)
	}
	ct := c.contacts.get(k.pair)
	if ct == nil {
		dst.set(iPeerOut, 0)
		return
	}
	dst.set(iPeerOut, rate*ct.out.sum(epoch))
	if mean, dev, ok := ct.rhythm(); ok {
		dst.set(iContactGap, mean)
		dst.set(iContactDev, dev)
	}
}
