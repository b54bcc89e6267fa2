// Package softplane is the packet path in Go: the meaning of the kernel path
// (dataplane/xdp) over frames that come from captures, from a simulation, or
// from a machine without the privilege to load a program. dataplane/planetest
// holds both to the same cases.
//
// A caller shows it frames with their times (Frame at a hook, At an interface of
// a role, or Captured when only addresses tell which side is inside), moves time on with Advance when
// nothing arrives, and takes events by Drain, synchronously, or by Run. Time
// comes with the frames; the clock in Options only says when rules expire for
// calls that carry no time. Nothing runs by itself, so that one input gives one
// output.
//
// Memory is bounded: the flow table gives up its longest silent flow for a new
// one, the event queue refuses and counts, the rule table says ErrFull.
package softplane

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/hello"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
)

// Idle is how long a flow may be silent before it ends. Zero fields take the
// defaults, which are those of the kernel path.
type Idle struct {
	TCPUnanswered time.Duration // TCP heard from one side only; 5 s
	TCP           time.Duration // 60 s
	Other         time.Duration // UDP, ICMP and the rest; 15 s
}

// Options of Open. The zero value works.
type Options struct {
	// Inside are the protected prefixes; empty means private, unique local,
	// link-local and loopback addresses. Only HookFor, Captured and a Sensor ask them.
	Inside    []netip.Prefix
	Outside   bool // there is an outside interface as well, see At
	Mode      dataplane.Mode
	MaxFlows  int // 65536
	MaxRules  int // policy.DefaultMaxRules
	MaxEvents int // events that wait to be drained; 16384
	Bulk      policy.BulkLimits
	Idle      Idle
	// Now is the clock for Apply, Rules and Stats; nil is time.Now. A replay
	// sets it to the time of the capture, else all its rules have expired.
	Now func() time.Time
}

func (o *Options) fill() error {
	for _, p := range o.Inside {
		if !p.IsValid() {
			return fmt.Errorf("open software plane: inside: %v: expected a prefix such as 10.0.0.0/8", p)
		}
	}
	if o.MaxFlows < 0 || o.MaxRules < 0 || o.MaxEvents < 0 || o.Idle.TCPUnanswered < 0 || o.Idle.TCP < 0 || o.Idle.Other < 0 {
		return fmt.Errorf("open software plane: bounds and idle times: expected 0 (the default) or more")
	}
	if len(o.Inside) == 0 {
		o.Inside = privatePrefixes()
	}
	o.MaxFlows = orDefault(o.MaxFlows, 65536)
	o.MaxEvents = orDefault(o.MaxEvents, 16384)
	o.Idle.TCPUnanswered = orDefault(o.Idle.TCPUnanswered, 5*time.Second)
	o.Idle.TCP = orDefault(o.Idle.TCP, 60*time.Second)
	o.Idle.Other = orDefault(o.Idle.Other, 15*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

func orDefault[T int | time.Duration](v, d T) T {
	if v == 0 {
		return d
	}
	return v
}

func privatePrefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8",
		"fc00::/7", "fe80::/10", "::1/128"} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Plane is a packet path in Go. It implements dataplane.Plane.
type Plane struct {
	opts   Options
	wake   chan struct{} // holds one token when events wait
	closed chan struct{}

	mu     sync.Mutex
	isShut bool
	mode   dataplane.Mode
	rules  *policy.Table
	flows  table
	stats  dataplane.Stats
	broken [kinds]uint64
	queue  []dataplane.Event
	spare  []dataplane.Event
	names  names
	hellos *hello.Tracker // nil while nobody wants them
	swept  int64
	flood  flood
	parsed parsed // scratch of the frame at hand

	scoring scoring
	fellows fellows
}

var _ dataplane.Plane = (*Plane)(nil)

// Open returns a plane without flows and rules.
func Open(o Options) (*Plane, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	return &Plane{
		opts:    o,
		mode:    o.Mode,
		wake:    make(chan struct{}, 1),
		closed:  make(chan struct{}),
		rules:   policy.NewTable(o.MaxRules),
		flows:   newTable(o.MaxFlows, o.Idle),
		fellows: fellows{},
	}, nil
}

// Frame shows the plane one frame at a hook and says whether it passed. origLen
// is the frame's length on the wire; 0 means that all of it is here. at is the
// time of the packet; within a flow, time that goes backwards stands still.
func (p *Plane) Frame(hook dataplane.Hook, link LinkType, frame []byte, origLen int, at time.Time) bool {
	return p.shown(link, frame, origLen, at, func(*parsed) dataplane.Hook { return hook })
}

// shown is the way of a frame whose hook is told by what is in it.
func (p *Plane) shown(link LinkType, frame []byte, origLen int, at time.Time, where func(*parsed) dataplane.Hook) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isShut {
		return true
	}
	q := &p.parsed
	q.parse(link, frame, origLen, false)
	hook := where(q)
	q.at = 1 << (hook & 1)
	inside := [2]bool{hook == dataplane.FromInside, hook == dataplane.ToInside}
	if q.way&wayBoth != 0 {
		inside = [2]bool{true, true}
	}
	return p.meet(q, inside, at.UnixNano())
}

// Captured is Frame for captures, which do not know of hooks: Options.Inside
// tells which ends are inside, and lengths that segmentation offload left empty
// are taken from the frame.
func (p *Plane) Captured(link LinkType, frame []byte, origLen int, at time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isShut {
		return true
	}
	q := &p.parsed
	q.parse(link, frame, origLen, true)
	var inside [2]bool
	if q.ip {
		inside = [2]bool{p.inside(q.Src), p.inside(q.Dst)}
	}
	return p.meet(q, inside, at.UnixNano())
}

// HookFor is the hook of a gateway that would see the frame first: FromInside
// when the source is inside, else ToInside.
func (p *Plane) HookFor(link LinkType, frame []byte) dataplane.Hook {
	var q parsed
	q.parse(link, frame, 0, true)
	if q.ip && p.inside(q.Src) {
		return dataplane.FromInside
	}
	return dataplane.ToInside
}

func (p *Plane) inside(a netip.Addr) bool {
	for _, prefix := range p.opts.Inside {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// meet is the way of a packet, and what else is looked at when it passed.
func (p *Plane) meet(q *parsed, inside [2]bool, t int64) (passed bool) {
	passed = p.packet(q, inside, t)
	if !passed && !q.judged {
		return false
	}
	if p.names.on {
		p.hear(q, inside, t)
	}
	if p.hellos != nil && q.show > 0 {
		p.see(q, t)
	}
	return passed
}

// packet is the path of a packet in the order that package dataplane names.
func (p *Plane) packet(q *parsed, inside [2]bool, t int64) bool {
	if d := t - p.swept; d >= int64(time.Second) || d < 0 {
		p.advance(t)
	}
	p.stats.Packets++
	if q.bad != fine {
		p.broken[q.bad]++
	}
	if !q.ip {
		return true
	}
	p.stats.Bytes += uint64(q.Size)
	if q.later {
		p.stats.NotAccountedFrag++
	}
	var s, past *state
	if !q.NoPorts {
		if s = p.lookup(q, t); s != nil && s.resets {
			s, past = nil, s
		}
		q.New = s == nil && q.begins()
		q.Free = q.way&(wayJoin|wayPass) != 0
	}
	v := p.rules.Decide(&q.Packet, t, p.mode)
	switch {
	case v.Drop:
		return p.drop(q, s, inside, v, t)
	case v.Saved:
		p.stats.NeverSaved++
	}
	if q.NoPorts {
		return true
	}
	if !v.Saved && p.scoring.stops(q, t) {
		if !p.rules.Spared(&q.Packet, t) {
			if s != nil {
				s.rec.Dropped++
			}
			return p.leave()
		}
		p.stats.NeverSaved++
	}
	switch {
	case s == nil:
		return p.stranger(past, q, v.Saved, inside, t)
	case s.counts(q, inside):
		return p.account(s, q, inside, t)
	}
	return true
}

// stranger is the path of a packet without a flow, from where the rules let it
// pass. past are resets of its key, or nil.
func (p *Plane) stranger(past *state, q *parsed, saved bool, inside [2]bool, t int64) (passed bool) {
	if q.remains() {
		p.leftover(past, q, inside, t)
	}
	if !q.New && !q.knocks() {
		return true
	}
	var how fate
	if !saved {
		how = p.admit(q, inside, t)
	}
	switch {
	case how.refuse != dataplane.FloodNone && p.rules.Spared(&q.Packet, t):
		p.stats.NeverSaved++
	case how.refuse != dataplane.FloodNone:
		return p.refuse(q, inside, how.refuse, t)
	case how.bare:
		p.flood.stats.Untracked++
		return true
	}
	if !q.New {
		return true
	}
	if past != nil {
		p.finish(past, flow.EndRST)
	}
	s := p.create(q, inside, t)
	s.found(q)
	return p.account(s, q, inside, t)
}

// account counts a packet into its flow. It passes, unless it is the one at
// which the plane's own scorer suspends the flow.
func (p *Plane) account(s *state, q *parsed, inside [2]bool, t int64) (passed bool) {
	proved := s.rec.Validated[s.dir(q)]
	before := s.rec.Packets()
	end := s.account(q, t)
	if d := s.dir(q); s.rec.Validated[d] && !proved && inside[1] && !inside[0] {
		p.flood.remember(q.Src, t)
	}
	mark(&s.rec, s.dir(q), inside)
	s.side[s.dir(q)].seenAt |= q.at
	switch {
	case end != flow.Open:
		p.finish(s, end)
		return true
	case flow.Milestone(s.rec.Packets()):
		if before < 4 {
			p.fellows.meet(&s.rec, t)
		}
		p.emit(dataplane.Event{Kind: dataplane.EventMilestone, Record: s.rec, At: t, Mode: p.mode})
		passed = p.judge(s, q, t)
	default:
		passed = true
	}
	p.flows.touch(s)
	return passed
}

// mark notes which ends are inside; inside is by source and destination.
func mark(r *flow.Record, dir int, inside [2]bool) {
	r.InitInside = r.InitInside || inside[dir]
	r.RespInside = r.RespInside || inside[1-dir]
}

// drop counts a packet that a rule refuses.
func (p *Plane) drop(q *parsed, s *state, inside [2]bool, v policy.Verdict, t int64) (passed bool) {
	if s != nil && !v.Listed {
		s.rec.Dropped++
	}
	if v.First {
		e := dataplane.Event{Kind: dataplane.EventFirstDrop, Reason: v.Reason, At: t, Mode: p.mode}
		if s != nil {
			e.Record = s.rec
		} else {
			e.Record = strangerRecord(q, inside, t)
		}
		p.emit(e)
	}
	return p.leave()
}

// leave counts a packet that something refuses. Only here can a packet be lost,
// and only when the mode says so.
func (p *Plane) leave() (passed bool) {
	if p.mode == dataplane.Enforce && p.parsed.way&waySensor == 0 {
		p.stats.Dropped++
		return false
	}
	p.stats.WouldDrop++
	return true
}

// strangerRecord is what is known of a packet that belongs to no flow.
func strangerRecord(q *parsed, inside [2]bool, t int64) flow.Record {
	key, fromB := q.Key, q.fromB
	if q.NoPorts {
		key, fromB = flow.NewKey(netip.AddrPortFrom(q.Src, 0), netip.AddrPortFrom(q.Dst, 0), q.Proto)
	}
	return flow.Record{Key: key, InitB: fromB, Start: t, Last: t, Dropped: 1, InitInside: inside[0], RespInside: inside[1]}
}

// lookup finds the flow of a packet. One that has been silent too long ends
// here, whether or not a sweep came by.
func (p *Plane) lookup(q *parsed, t int64) *state {
	s := p.flows.get(q.Key)
	if s != nil && p.flows.silent(s, t) {
		p.finish(s, flow.EndIdle)
		return nil
	}
	return s
}

func (p *Plane) create(q *parsed, inside [2]bool, t int64) *state {
	if s := p.flows.victim(); s != nil {
		p.stats.FlowsEvicted++
		p.finish(s, flow.EndEvicted)
	}
	p.stats.FlowsTotal++
	s := p.flows.add(q.Key)
	s.rec = flow.Record{Key: q.Key, ID: p.stats.FlowsTotal, InitB: q.fromB, Start: t, Last: t,
		InitInside: inside[0], RespInside: inside[1]}
	return s
}

func (p *Plane) finish(s *state, why flow.End) {
	if s.resets {
		why = flow.EndRST
	}
	s.rec.End = why
	p.emit(dataplane.Event{Kind: dataplane.EventEnd, Record: s.rec, At: s.rec.Last, Mode: p.mode})
	p.flows.remove(s)
}

func (p *Plane) emit(e dataplane.Event) {
	if len(p.queue) >= p.opts.MaxEvents {
		p.stats.EventsLost++
		return
	}
	if p.hellos != nil && e.Answer == nil {
		p.hellos.Fill(&e.Record, e.Kind == dataplane.EventEnd)
	}
	p.queue = append(p.queue, e)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Advance moves time on: flows that have been silent too long end, rules whose
// time has come go. Frame does the same as it goes, once a second.
func (p *Plane) Advance(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isShut {
		p.advance(t.UnixNano())
	}
}

func (p *Plane) advance(t int64) {
	p.swept = t
	for s := p.flows.oldest(t); s != nil; s = p.flows.oldest(t) {
		p.finish(s, flow.EndIdle)
	}
	p.rules.Expire(time.Unix(0, t))
	p.scoring.expire(t)
}

// Flush ends every flow that is still open, longest silent first, with
// Record.End Open: the input ended, not the flow.
func (p *Plane) Flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := p.flows.longestSilent(); s != nil; s = p.flows.longestSilent() {
		p.finish(s, flow.Open)
	}
}

// Drain delivers all events that wait, in order, and returns how many there
// were. handle may call the plane; events that this causes are delivered too.
func (p *Plane) Drain(handle func(*dataplane.Event)) int {
	n := 0
	for {
		p.mu.Lock()
		batch := p.queue
		p.queue, p.spare = p.spare[:0], nil
		p.mu.Unlock()
		for i := range batch {
			handle(&batch[i])
		}
		n += len(batch)
		p.mu.Lock()
		p.spare = batch[:0]
		p.mu.Unlock()
		if len(batch) == 0 {
			return n
		}
	}
}

// Run delivers events until ctx ends (nil) or the plane closes (ErrClosed).
func (p *Plane) Run(ctx context.Context, handle func(*dataplane.Event)) error {
	for {
		p.Drain(handle)
		select {
		case <-ctx.Done():
			return nil
		case <-p.closed:
			p.Drain(handle)
			return dataplane.ErrClosed
		case <-p.wake:
		}
	}
}
