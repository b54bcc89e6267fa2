package policy

import (
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Decide says what the rules in force at now (nanoseconds since the epoch) make
// of a packet. It counts hits, charges budgets and remembers first drops by
// mode; it does not allocate.
func (t *Table) Decide(p *Packet, now int64, mode dataplane.Mode) Verdict {
	if len(t.all) == 0 && t.bulk == nil {
		return Verdict{}
	}
	s := search{p: p, now: now}
	if !p.NoPorts {
		if len(t.flows) != 0 {
			s.consider(t.flows[p.Key])
		}
		if len(t.services) != 0 {
			s.consider(t.services[service{p.Src, p.SrcPort, p.Proto}])
			if p.Src != p.Dst || p.SrcPort != p.DstPort {
				s.consider(t.services[service{p.Dst, p.DstPort, p.Proto}])
			}
		}
	}
	var limit *entry
	if len(t.addrs) != 0 {
		limit = s.address(t.addrs[p.Src])
		if dst := t.addrs[p.Dst]; dst != nil && p.Src != p.Dst && dst.rule.Action != dataplane.RateLimit {
			s.consider(dst)
		}
	}
	t.prefixes.each(p.Src, s.consider)
	t.prefixes.each(p.Dst, s.considerNew)
	s.bulk(t.bulk)
	s.charge(limit)
	return t.conclude(&s, mode)
}

// search holds the best rule found so far.
type search struct {
	p    *Packet
	now  int64
	best *entry
}

func (s *search) consider(e *entry) {
	if e == nil || e.expires <= s.now {
		return
	}
	e.packets++
	e.bytes += uint64(s.p.Size)
	if s.best == nil || e.rule.Action > s.best.rule.Action {
		s.best = e
	}
}

// considerNew leaves out a prefix that holds both ends: it matched already.
func (s *search) considerNew(e *entry) {
	if !e.rule.Target.Prefix.Contains(s.p.Src) {
		s.consider(e)
	}
}

// address considers the rule of the source, and puts a rate limit aside: it is
// charged only when nothing stronger drops the packet.
func (s *search) address(e *entry) (limit *entry) {
	if e == nil || e.rule.Action != dataplane.RateLimit {
		s.consider(e)
		return nil
	}
	if !s.p.New || e.expires <= s.now {
		return nil
	}
	return e
}

func (s *search) charge(limit *entry) {
	if limit == nil || s.best != nil && s.best.rule.Action > dataplane.RateLimit {
		return
	}
	if !limit.budget.take(s.now) {
		s.consider(limit)
	}
}

func (t *Table) conclude(s *search, mode dataplane.Mode) Verdict {
	if s.best == nil || s.best.rule.Action == dataplane.Observe {
		return Verdict{}
	}
	if t.neverDrop(s.p, s.now) {
		return Verdict{Saved: true, Action: s.best.rule.Action}
	}
	v := Verdict{Drop: true, Action: s.best.rule.Action, Reason: s.best.rule.Reason, First: !s.best.told[mode&1]}
	s.best.told[mode&1] = true
	return v
}

// bucket allows rate events a second on average and burst at once. It keeps one
// number, the time at which it will be full again (the generic cell rate
// algorithm, ITU-T I.371).
type bucket struct {
	rate, burst int64
	full        int64 // ns
}

func (b *bucket) take(now int64) bool {
	if b.rate <= 0 {
		return false
	}
	step := int64(1e9) / b.rate
	full := max(b.full, now)
	if full-now > step*(b.burst-1) {
		return false
	}
	b.full = full + step
	return true
}

// prefixMap maps prefixes to values and finds all that contain an address.
type prefixMap[V any] struct {
	values  map[netip.Prefix]V
	lengths [2][]lengthCount // by family (IPv4 first), longest first
}

type lengthCount struct{ bits, n int }

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (m *prefixMap[V]) put(p netip.Prefix, v V) {
	if m.values == nil {
		m.values = map[netip.Prefix]V{}
	}
	if _, ok := m.values[p]; !ok {
		m.count(p, 1)
	}
	m.values[p] = v
}

func (m *prefixMap[V]) remove(p netip.Prefix) {
	if _, ok := m.values[p]; ok {
		delete(m.values, p)
		m.count(p, -1)
	}
}

func (m *prefixMap[V]) count(p netip.Prefix, d int) {
	ls := &m.lengths[family(p.Addr())]
	i := 0
	for i < len(*ls) && (*ls)[i].bits > p.Bits() {
		i++
	}
	switch {
	case i == len(*ls) || (*ls)[i].bits != p.Bits():
		*ls = append((*ls)[:i], append([]lengthCount{{p.Bits(), d}}, (*ls)[i:]...)...)
	case (*ls)[i].n+d == 0:
		*ls = append((*ls)[:i], (*ls)[i+1:]...)
	default:
		(*ls)[i].n += d
	}
}

// each calls f for every value whose prefix contains a, longest prefix first.
func (m *prefixMap[V]) each(a netip.Addr, f func(V)) {
	if len(m.values) == 0 {
		return
	}
	for _, l := range m.lengths[family(a)] {
		p, err := a.Prefix(l.bits)
		if err != nil {
			return // an address without a family: nothing contains it
		}
		if v, ok := m.values[p]; ok {
			f(v)
		}
	}
}
