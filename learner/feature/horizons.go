package feature

import (
	"math"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// A Deed is something that is counted of who opens flows, over each span. One flow of
// it looks like anybody's; that there are so many gives it away.
type Deed uint8

// The deeds.
const (
	// Unanswered are TCP connections to one address that never let this host in.
	Unanswered Deed = iota
	// Missed are different addresses at which it got nothing.
	Missed
	// Knocked are different services, ports of addresses, at which it got nothing.
	Knocked
	// Pinged are different addresses that it spoke ICMP with.
	Pinged
	// Guessed are short sessions with one login service.
	Guessed
	// Sent are bytes of payload to one address outside.
	Sent
	deeds
)

var deedNames = [deeds]string{"unanswered", "missed", "knocked", "pinged", "guessed", "sent"}

func (d Deed) String() string {
	if d >= deeds {
		return ""
	}
	return deedNames[d]
}

const spans = 3

// over are the spans that deeds are counted over. Each is kept in two halves, so a
// count covers between a half and the whole of it.
var over = [spans]time.Duration{time.Minute, time.Hour, 24 * time.Hour}

// least is what anybody may do without being told of, whatever others do. Those of
// missed, knocked and unanswered are twice what the busiest of three real hosts did in the days
// that teach (docs/features.md).
var least = [deeds][spans]float64{
	Unanswered: {14, 38, 66},
	Missed:     {10, 30, 74},
	Knocked:    {10, 30, 74},
	Pinged:     {8, 16, 32},
	Guessed:    {12, 30, 60},
	Sent:       {math.Inf(1), 1 << 30, 4 << 30},
}

const (
	// beyond is how many times the most that any other host here did is too much.
	beyond = 2
	// together is how many times the least limit others may make room for at once: when
	// the line is down, everybody gets nothing.
	together = 4
)

// Excess is a deed that was done more often than anybody else here did it.
type Excess struct {
	Deed   Deed
	Span   time.Duration // 0: there is none
	Count  float64
	Limit  float64
	Others float64 // the most that another host here did, as far as that is known
	Tell   bool    // it is time to say so: at first, and each time that it is half as much again
}

// most is who did something most often, and who came second. With both, each host can be
// held against what the others did, and none makes room for itself.
type most struct {
	who [2]uint64
	n   [2]float64
}

func (m *most) tell(who uint64, n float64) {
	switch {
	case who == m.who[0]:
		m.n[0] = max(m.n[0], n)
	case n > m.n[0]:
		m.who[1], m.n[1] = m.who[0], m.n[0]
		m.who[0], m.n[0] = who, n
	case who == m.who[1]:
		m.n[1] = max(m.n[1], n)
	case n > m.n[1]:
		m.who[1], m.n[1] = who, n
	}
}

// others is the most that anybody but who did.
func (m *most) others(who uint64) float64 {
	if who == m.who[0] {
		return m.n[1]
	}
	return m.n[0]
}

// tally is who did what most often.
type tally [deeds][spans]most

// doer is what one host did to many.
type doer struct {
	missed, knocked, pinged [spans]distinct
	told                    [deeds][spans]float64
}

// dealings are what one host did to one other.
type dealings struct {
	unanswered, guessed, sent [spans]window
	answered                  bool
	told                      [deeds][spans]float64
}

// Horizons count what hosts do over a minute, an hour and a day, in bounded memory,
// and say when one of them does more than all others here did. What they did rests for one
// to two settling times before it counts in full, half of it is forgotten in a half-life,
// and what was too much never counts. Horizons are for one goroutine, as Context is, and
// take any record that has addresses and times, whatever its source.
type Horizons struct {
	settle   int64
	halves   [spans]int64
	keep     float64
	seed     uint64
	doers    table[doer]
	dealings table[dealings]
	settled  tally
	resting  tally
	fresh    tally
	since    int64
}

// NewHorizons makes empty horizons. Of the options, Settle, HalfLife and Seed count, and
// half of Hosts and Pairs.
func NewHorizons(o ContextOptions) (*Horizons, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	h := &Horizons{
		settle: int64(o.Settle), keep: math.Exp2(-float64(o.Settle) / float64(o.HalfLife)),
		seed: o.Seed, doers: newTable[doer](o.Hosts / 2), dealings: newTable[dealings](o.Pairs / 2),
	}
	for i, d := range over {
		h.halves[i] = int64(d / 2)
	}
	return h, nil
}

// Bytes is the memory that the horizons hold, all of it from the start.
func (h *Horizons) Bytes() int { return h.doers.bytes() + h.dealings.bytes() }

// Observe counts a flow that ended, and says what its initiator has done too much of with
// it. login says that the flow is to a service that people log in at. Whoever
// calls from outside is judged by that only, and against no others, for those may be
// its friends. It allocates nothing.
func (h *Horizons) Observe(r *flow.Record, login bool) (x Excess) {
	if r.Lacks&around != 0 || !r.InitInside && !(login && r.RespInside) {
		return x
	}
	now := r.Last
	h.turn(now)
	who := nonzero(hashAddr(h.seed, r.Initiator().Addr()))
	peer := hashAddr(h.seed, r.Responder().Addr())
	service := nonzero(mix(who*3 ^ mix(peer+uint64(r.Responder().Port())<<8+uint64(r.Key.Proto))))
	j := judging{h: h, now: now, who: who, inside: r.InitInside, x: &x}
	if guess := login && r.Lacks&needs[iPairAlike] == 0 && short(r); guess {
		d, _ := h.dealings.put(service, now)
		j.sum(&d.guessed, Guessed, 1, &d.told)
	}
	if !r.InitInside {
		return x
	}
	d, _ := h.doers.put(who, now)
	nothing, known := gotNothing(r)
	switch {
	case r.Key.Proto == flow.ICMP || r.Key.Proto == flow.ICMPv6:
		// What is told of a packet that did not arrive goes outside and is never
		// answered; asking is one or the other.
		if known && (!nothing || r.RespInside) {
			j.distinct(&d.pinged, Pinged, peer, &d.told)
		}
	case known && nothing:
		j.distinct(&d.missed, Missed, peer, &d.told)
		j.distinct(&d.knocked, Knocked, service, &d.told)
	}
	none := [spans]float64{}
	tries := d.told[Missed] != none || d.told[Knocked] != none
	h.deal(&j, r, nonzero(mix(who*5^peer)), known && !nothing, nothing && !tries)
	return x
}

// deal counts what is between two addresses. Those at which a host that tries too many
// got nothing are not kept: it could push out all else.
func (h *Horizons) deal(j *judging, r *flow.Record, pair uint64, got, nothing bool) {
	if r.Key.Proto == flow.TCP && (got || nothing) {
		d, _ := h.dealings.put(pair, j.now)
		if got && !d.answered {
			d.answered, d.unanswered, d.told[Unanswered] = true, [spans]window{}, [spans]float64{}
		}
		if !d.answered {
			j.sum(&d.unanswered, Unanswered, 1, &d.told)
		}
	}
	if out := r.Dir[0].Payload; out > 0 && !r.RespInside && r.Lacks&flow.LackPayload == 0 {
		d, _ := h.dealings.put(pair, j.now)
		j.sum(&d.sent, Sent, float64(out), &d.told)
	}
}

// gotNothing says that a finished flow got no answer, or was turned away before any
// payload came back; known is false where the source does not tell.
func gotNothing(r *flow.Record) (nothing, known bool) {
	if r.Lacks&split != 0 {
		return false, false
	}
	if r.Dir[1].Packets == 0 {
		return true, true
	}
	return failed(r), r.Key.Proto != flow.TCP || r.Lacks&(flow.LackPayload|flow.LackFlags) == 0
}

// judging is one flow being held against limits.
type judging struct {
	h      *Horizons
	now    int64
	who    uint64
	inside bool
	x      *Excess
}

func (j *judging) sum(w *[spans]window, d Deed, by float64, told *[deeds][spans]float64) {
	for s := range w {
		epoch := j.now / j.h.halves[s]
		w[s].add(epoch, by)
		j.weigh(d, s, w[s].sum(epoch), &told[d][s])
	}
}

func (j *judging) distinct(w *[spans]distinct, d Deed, key uint64, told *[deeds][spans]float64) {
	for s := range w {
		epoch := j.now / j.h.halves[s]
		w[s].add(epoch, mix(key))
		j.weigh(d, s, w[s].count(epoch), &told[d][s])
	}
}

// weigh holds a count against what others did. What is within the limit is what the
// others will be held against.
func (j *judging) weigh(d Deed, s int, n float64, told *float64) {
	limit, others := least[d][s], 0.0
	if j.inside {
		others = j.h.settled[d][s].others(j.who)
		now := max(j.h.resting[d][s].others(j.who), j.h.fresh[d][s].others(j.who))
		limit = max(limit, beyond*others, min(beyond*now, together*limit))
	}
	if n <= limit {
		if n <= limit/2 {
			*told = 0
		}
		if j.inside {
			j.h.fresh[d][s].tell(j.who, n)
		}
		return
	}
	tell := n >= 1.5**told
	if tell {
		*told = n
	}
	if j.x.Span == 0 || tell && !j.x.Tell {
		*j.x = Excess{Deed: d, Span: over[s], Count: n, Limit: limit, Others: others, Tell: tell}
	}
}

// turn lets what has rested count, and forgets a little of what counted.
func (h *Horizons) turn(now int64) {
	if h.since == 0 || now < h.since {
		if now < h.since-int64(over[spans-1]) { // a clock was wrong, and counts with it
			h.doers.clear()
			h.dealings.clear()
		}
		h.since = now
		return
	}
	for steps := 0; now-h.since >= h.settle && steps < 2; steps++ {
		for d := range h.settled {
			for s := range h.settled[d] {
				m, rested := &h.settled[d][s], &h.resting[d][s]
				for i := range m.n {
					m.n[i] *= h.keep
				}
				for i, who := range rested.who {
					m.tell(who, rested.n[i])
				}
			}
		}
		h.resting, h.fresh = h.fresh, tally{}
		h.since += h.settle
	}
	if now-h.since >= h.settle { // a long silence: all has rested
		h.since = now
	}
}
