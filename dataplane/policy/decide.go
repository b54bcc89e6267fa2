package policy

import (
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Decide says what the rules in force at now (nanoseconds since the epoch) make
// of a packet. The bulk set comes first; what it lists, no rule is asked about. It counts hits, charges budgets and remembers first drops by
// mode; it does not allocate.
func (t *Table) Decide(p *Packet, now int64, mode dataplane.Mode) Verdict {
	if len(t.all) == 0 && t.bulk == nil {
		return Verdict{}
	}
	s := search{p: p, now: now, remedies: &t.remedies}
	s.bulk(t.bulk)
	if s.best != nil {
		v := t.conclude(&s, mode)
		v.Listed = v.Drop
		return v
	}
	t.match(&s)
	if !s.drops() {
		t.charge(&s)
	}
	return t.conclude(&s, mode)
}

// match considers every rule that names the packet, narrowest first.
func (t *Table) match(s *search) {
	p := s.p
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
	if len(t.pairs) != 0 {
		s.consider(t.pairs[pairOf(p.Src, p.Dst)])
	}
	if len(t.addrs) != 0 {
		s.host(t.addrs[p.Src], p.Dst, p.DstPort, p.SrcPort)
		if p.Src != p.Dst {
			s.host(t.addrs[p.Dst], p.Src, p.SrcPort, p.DstPort)
		}
	}
	t.prefixes.each(p.Src, s.consider)
	t.prefixes.each(p.Dst, s.considerNew)
}

// charge asks the budgets that the packet falls under, the sender's own before
// that of whom it calls, so that who is over the one takes nothing of the other.
func (t *Table) charge(s *search) {
	p := s.p
	if p.NoPorts || p.Free {
		return
	}
	if s.charge(t.flows[p.Key], int64(p.Size)) || !p.New {
		return
	}
	_ = s.charge(t.addrs[p.Src], 1) ||
		s.charge(t.services[service{p.Dst, p.DstPort, p.Proto}], 1) ||
		s.charge(t.toward[p.Dst], 1)
}

// search holds the best rule found so far.
type search struct {
	p        *Packet
	now      int64
	best     *entry
	remedies *prefixMap[[]dataplane.Never]
}

// consider takes a rule into account. A rate limit is put aside: its budget is
// charged only when nothing stronger drops the packet.
func (s *search) consider(e *entry) {
	if e != nil && e.rule.Action != dataplane.RateLimit {
		s.take(e)
	}
}

func (s *search) take(e *entry) {
	if e.expires <= s.now {
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

// host considers the rule of an address, by what faces it: a quarantine does
// not apply to a remedy.
func (s *search) host(e *entry, facing netip.Addr, own, other uint16) {
	if e != nil && e.rule.Action == dataplane.Quarantine && neverMatches(s.remedies, facing, own, other, s.p) {
		return
	}
	s.consider(e)
}

func (s *search) drops() bool { return s.best != nil && s.best.rule.Action > dataplane.RateLimit }

// charge takes cost from a rate limit's budget; when that is spent, the rule
// drops.
func (s *search) charge(e *entry, cost int64) (spent bool) {
	if e == nil || e.rule.Action != dataplane.RateLimit || e.expires <= s.now || e.budget.take(s.now, cost) {
		return false
	}
	s.take(e)
	return true
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

// bucket allows rate a second on average and burst at once. It keeps one number,
// the time at which it will be full again (the generic cell rate algorithm,
// ITU-T I.371). What costs more than the burst finds room in a full bucket, and
// pays later.
type bucket struct {
	rate, burst int64
	full        int64 // ns
}

func (b *bucket) take(now, cost int64) bool {
	if b.rate <= 0 {
		return false
	}
	full := max(b.full, now)
	next := full + cost*int64(1e9)/b.rate
	if full > now && next > now+b.burst*int64(1e9)/b.rate {
		return false
	}
	b.full = next
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
