package enforce

import (
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Received is an indicator that the mesh accepted from another site.
type Received struct {
	ID       string
	Author   string // site name
	Type     string // address, service, domain
	Value    string
	Conf     float64
	Sentence string
	Expires  time.Time
	// Limit asks for a budget of new flows instead of a block: other organisations
	// say so, and too few of them for more.
	Limit bool
}

// Indicator enforces what another site of the organisation validated, or what enough
// other organisations did. why is set when it was refused. It never takes the place
// of a block, nor of anything that the operator ordered: it waits behind it.
func (m *Machine) Indicator(now time.Time, r Received) (fx []Effect, why string) {
	if m.panicked {
		return nil, "panic is on"
	}
	if r.Type == typeDomain {
		return m.sharedDomain(now, r)
	}
	t, err := ParseTarget(r.Value)
	if err != nil {
		return nil, err.Error()
	}
	if until, ok := m.dismissed["peer "+t.String()]; ok && now.Before(until) {
		return nil, "dismissed here by the operator"
	}
	if limit := now.Add(7 * 24 * time.Hour); r.Expires.After(limit) {
		r.Expires = limit
	}
	rule := dataplane.Rule{Target: t, Action: dataplane.Block, Expires: r.Expires, Reason: m.reason()}
	if r.Limit {
		rule.Action, rule.Rate = dataplane.RateLimit, probation
	}
	if err := rule.Validate(); err != nil {
		return nil, err.Error()
	}
	s := m.standing[t.String()]
	if s != nil && now.Before(s.rule.Expires) {
		if why := s.before(rule); why != "" {
			s.next = stronger(s.next, &r)
			return nil, why
		}
	}
	if r.Limit && m.known.of(partyOf(t)).good(now) {
		return nil, acquainted
	}
	if why := m.ordinaryHere(now, r, t); why != "" {
		return nil, why
	}
	if m.o.May != nil {
		if err := m.o.May(now, rule); err != nil {
			return nil, err.Error()
		}
	}
	if s != nil {
		if in := m.byID[s.block.Incident]; in != nil {
			in.limited = false // so that it may be limited again after this rule
		}
	}
	fx = m.apply(now, nil, rule, Shared, sourceMesh+r.Author, r.Sentence, r.Conf)
	m.standing[t.String()].from = &r
	return fx, ""
}

// How sure a site is of what only its learner holds against somebody, and of what
// more than that does.
const (
	aloneConf  = 0.7
	backedConf = 0.9
)

// ordinaryHere says why a word of the own organisation is not followed: it rests on
// what is normal at another site, and here the party is a part of what is.
func (m *Machine) ordinaryHere(now time.Time, r Received, t dataplane.Target) string {
	if foreign(r.Author) || r.Limit || r.Conf >= backedConf || m.habits.cold(now) || len(m.habits.under(now, t)) == 0 {
		return ""
	}
	return "it is ordinary here, and only the learner of " + r.Author + " is against it"
}

// before says why what stands goes before a rule of the mesh, "" when it does not.
func (s *standing) before(r dataplane.Rule) string {
	switch {
	case s.block.Source == SourceOperator:
		return "the operator decided about it here"
	case s.rule.Action != dataplane.Block:
		return ""
	case !strings.HasPrefix(s.block.Source, sourceMesh), r.Action != dataplane.Block, !s.rule.Expires.Before(r.Expires):
		return "already blocked"
	}
	return ""
}

// stronger is the one of two claims that is worth more once nothing else stands: a
// block before a limit, then the longer one.
func stronger(a, b *Received) *Received {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.Author == b.Author && a.ID == b.ID:
		return b // the later word of one author
	case a.Limit != b.Limit && b.Limit, a.Limit == b.Limit && a.Expires.After(b.Expires):
		return a
	}
	return b
}

// fallBack enforces the claim that waited behind a rule that is gone.
func (m *Machine) fallBack(now time.Time, s *standing) []Effect {
	if s.next == nil || !now.Before(s.next.Expires) {
		return nil
	}
	fx, _ := m.Indicator(now, *s.next)
	return fx
}

// foreign says whether a source is a site of another organisation, "organisation/site":
// what such sites had enforced they had enforced together.
func foreign(source string) bool {
	return strings.Contains(source, "/") && (strings.HasPrefix(source, sourceMesh) || !strings.Contains(source, ":"))
}

// Withdrawn lifts what a site's indicator had blocked here, unless this site
// has its own reason for it.
func (m *Machine) Withdrawn(now time.Time, author, value string) []Effect {
	t, err := ParseTarget(value)
	if err != nil {
		return m.withdrawnDomain(now, author, value)
	}
	s := m.standing[t.String()]
	if s == nil {
		return nil
	}
	same := func(by string) bool { return by == author || foreign(by) && foreign(author) }
	if s.next != nil && same(s.next.Author) {
		s.next = nil
	}
	by, mesh := strings.CutPrefix(s.block.Source, sourceMesh)
	if !mesh || !same(by) {
		return nil
	}
	return append(m.lift(now, s, "lifted", "withdrawn by "+author), m.fallBack(now, s)...)
}
