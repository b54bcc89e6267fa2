package softplane

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

const (
	floodRows   = 2
	floodCells  = 1 << 15 // in each row of each budget
	breakerStep = 1 << 28 // ns, the breaker's window
	proofTTL    = int64(300e9)
	maxProofs   = 65536
	aSecond     = int64(1e9)
)

// flood is the state of budgets, proofs and breaker. Its meaning is that of the
// kernel's bpf/budget.h: token buckets in a sketch of fixed size, whose
// collisions make a budget tighter and never looser.
type flood struct {
	on           bool
	step         [4]int64 // ns that a new flow is worth; 0: no limit
	breakerLimit int64    // new flows a window
	breakerDrops bool
	seed         [floodRows]maphash.Seed
	cells        [4][floodRows][]int64
	breaker      [2]breaker
	proofs       map[netip.Addr]*proof
	byAge        []netip.Addr // proofs, the oldest first
	told         [dataplane.FloodKinds]int64
	stats        dataplane.FloodStats
	over         [4]uint64
}

type breaker struct {
	window, seen int64
	open         bool
}

// proof is a source that proved its address.
type proof struct{ until, full int64 }

// fate is what becomes of a packet that would make a flow.
type fate struct {
	bare   bool // passes without one
	refuse dataplane.FloodKind
}

var _ dataplane.FloodGuard = (*Plane)(nil)

// SetFlood implements dataplane.FloodGuard. This plane cannot answer a packet:
// the clients of protected services are held to the budgets like others, and
// dark addresses stay silent.
func (p *Plane) SetFlood(f dataplane.Flood) error {
	if err := f.Validate(); err != nil {
		return err
	}
	return p.locked(func() error {
		p.flood.set(&f)
		return nil
	})
}

// FloodTotals implements dataplane.FloodGuard.
func (p *Plane) FloodTotals() (s dataplane.FloodStats, err error) {
	err = p.locked(func() error {
		s = p.flood.total(p.opts.Now().UnixNano())
		return nil
	})
	return s, err
}

// rates sets what f says, and nothing that is kept for it.
func (g *flood) rates(f *dataplane.Flood) {
	g.on = f.Active()
	for i, rate := range f.Rates() {
		g.step[i] = 0
		if rate != 0 {
			g.step[i] = aSecond / int64(rate)
		}
	}
	g.breakerDrops, g.breakerLimit = f.BreakerDrops, 0
	if f.Breaker != 0 {
		g.breakerLimit = max(1, int64(f.Breaker)*breakerStep/aSecond)
	}
}

func (g *flood) set(f *dataplane.Flood) {
	g.rates(f)
	for i := range g.step {
		for r := range floodRows {
			if g.step[i] != 0 && g.cells[i][r] == nil {
				g.cells[i][r] = make([]int64, floodCells)
			}
		}
	}
	if g.proofs == nil {
		g.proofs = map[netip.Addr]*proof{}
		for r := range g.seed {
			g.seed[r] = maphash.MakeSeed()
		}
	}
}

// admit says what becomes of a packet that would make a flow.
func (p *Plane) admit(q *parsed, inside [2]bool, t int64) fate {
	g := &p.flood
	if !g.on {
		return fate{}
	}
	inbound := inside[1] && !inside[0]
	if inbound && q.way&wayPaid == 0 {
		if kind := g.overBudget(q, t); kind != dataplane.FloodNone {
			return fate{refuse: kind}
		}
	}
	if q.way&wayJoin != 0 || g.breakerLimit == 0 || !p.breakerOpen(q, inside, inbound, t) {
		return fate{}
	}
	if inbound && g.proof(q.Src, t) != nil || p.rules.Spared(&q.Packet, t) {
		return fate{}
	}
	if inbound && g.breakerDrops {
		return fate{refuse: dataplane.BreakerOpened}
	}
	return fate{bare: true}
}

// overBudget names the budget that a packet from outside is over, if any.
func (g *flood) overBudget(q *parsed, t int64) dataplane.FloodKind {
	source, net := sourceOf(q.Src)
	kind := dataplane.FloodNone
	switch {
	case !g.spend(0, source, 0, t):
		kind = dataplane.OverSource
	case !g.spend(1, net, 0, t):
		kind = dataplane.OverSourceNet
	case !g.spend(2, q.Dst, uint32(q.DstPort)|uint32(q.Proto)<<16, t):
		kind = dataplane.OverService
	case !g.spend(3, q.Dst, 0, t):
		kind = dataplane.OverDestination
	default:
		return kind
	}
	v := g.proof(q.Src, t)
	switch {
	case v == nil:
		return kind
	case g.step[0] != 0 && !v.take(g.step[0], t):
		return dataplane.OverSource
	}
	return dataplane.FloodNone
}

func (v *proof) take(step, t int64) bool {
	next := max(v.full, t) + step
	if next > t+aSecond {
		return false
	}
	v.full = next
	return true
}

// spend charges a key's budget; false when it is over.
func (g *flood) spend(i int, a netip.Addr, what uint32, t int64) bool {
	step := g.step[i]
	if step == 0 {
		return true
	}
	b := a.As16()
	var key [20]byte
	copy(key[:], b[:])
	binary.BigEndian.PutUint32(key[16:], what)
	one := &g.cells[i][0][maphash.Bytes(g.seed[0], key[:])%floodCells]
	two := &g.cells[i][1][maphash.Bytes(g.seed[1], key[:])%floodCells]
	if *one+step > t+aSecond && *two+step > t+aSecond {
		return false
	}
	for _, c := range []*int64{one, two} {
		*c = max(*c, min(max(*c, t)+step, t+aSecond))
	}
	return true
}

// sourceOf is what a source is held to: an IPv4 address and its /24, an IPv6
// /64 and its /56.
func sourceOf(a netip.Addr) (source, net netip.Addr) {
	bits, wide := 32, 24
	if a.Is6() {
		bits, wide = 64, 56
	}
	s, err := a.Prefix(bits)
	n, errNet := a.Prefix(wide)
	if err != nil || errNet != nil {
		return a, a
	}
	return s.Addr(), n.Addr()
}

func (g *flood) proof(a netip.Addr, t int64) *proof {
	source, _ := sourceOf(a)
	if v := g.proofs[source]; v != nil && v.until > t {
		return v
	}
	return nil
}

// remember notes that a source proved that it receives at its address.
func (g *flood) remember(a netip.Addr, t int64) {
	if !g.on {
		return
	}
	g.stats.Proofs++
	source, _ := sourceOf(a)
	if v := g.proofs[source]; v != nil {
		v.until = t + proofTTL
		return
	}
	if len(g.byAge) >= maxProofs {
		delete(g.proofs, g.byAge[0])
		g.byAge = g.byAge[1:]
	}
	g.proofs[source] = &proof{until: t + proofTTL}
	g.byAge = append(g.byAge, source)
}

// breakerOpen counts a new flow of a direction and says whether its breaker is
// open. What goes out without opening anything, while that which came in was not
// followed, answers it and is not followed either.
func (p *Plane) breakerOpen(q *parsed, inside [2]bool, inbound bool, t int64) bool {
	g := &p.flood
	hook := dataplane.FromInside
	if inbound {
		hook = dataplane.ToInside
	}
	b := &g.breaker[hook]
	if w := t / breakerStep; w != b.window {
		if b.open && (w-b.window != 1 || b.seen < g.breakerLimit/2) {
			b.open = false
			p.tellFlood(q, inside, dataplane.BreakerClosed, t)
		}
		b.window, b.seen = w, 0
	}
	b.seen++
	if b.seen > g.breakerLimit && !b.open {
		b.open = true
		g.stats.BreakerTrips++
		p.tellFlood(q, inside, dataplane.BreakerOpened, t)
	}
	answers := !inbound && q.Proto == flow.TCP && q.flags&(flow.SYN|flow.ACK) != flow.SYN
	return b.open || answers && g.breaker[dataplane.ToInside].open
}

// refuse counts and tells a packet that admit refused and nothing saved.
func (p *Plane) refuse(q *parsed, inside [2]bool, kind dataplane.FloodKind, t int64) (passed bool) {
	if kind == dataplane.BreakerOpened {
		p.flood.stats.BreakerDropped++
	} else {
		p.flood.over[kind-dataplane.OverSource]++
		p.tellFlood(q, inside, kind, t)
	}
	return p.leave()
}

// tellFlood tells what a flood ran into, once a second and kind.
func (p *Plane) tellFlood(q *parsed, inside [2]bool, kind dataplane.FloodKind, t int64) {
	if t < p.flood.told[kind] {
		return
	}
	p.flood.told[kind] = t + aSecond
	p.emit(dataplane.Event{Kind: dataplane.EventFlood, Flood: kind, Record: strangerRecord(q, inside, t), At: t, Mode: p.mode})
}

// total is what floods did so far.
func (g *flood) total(now int64) dataplane.FloodStats {
	s := g.stats
	s.BudgetDropped = map[string]uint64{}
	for i, kind := range dataplane.Budgets() {
		if g.over[i] > 0 {
			s.BudgetDropped[kind.String()] = g.over[i]
		}
	}
	for hook, b := range g.breaker {
		s.BreakerOpen[hook] = b.open && now/breakerStep-b.window <= 1
	}
	return s
}
