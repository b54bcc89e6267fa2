// Package intel is the pure part of shared intelligence: which indicators are in
// force at this site, and what follows from each message.
//
// A Set takes opened messages (wire.Open has checked signature, form and
// author) and the time, and returns effects. It does no input or output, has no
// clock, starts no goroutine, and is for one goroutine at a time. After a refusal
// nothing but budgets has changed.
//
// The ladder is that of one organisation whose sites trust each other directly:
// a validated or an operator's claim is enforced, a spoofable one observed. No
// claim outlives its expiry (at most wire.MaxLife), its withdrawal, or the bounds
// of the set. A claim that is refused for budget or room is not marked as seen, so
// a later pull brings it again.
package intel

import (
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Source says how a message came.
type Source int

// Sources. Pulled messages have a budget of their own, as large as what one
// author may have in force, because a site that was away gets them all at once.
const (
	Gossip Source = iota
	Pulled
	restored
)

// Op is what a message or the clock leads to.
type Op int

// Ops. Keep: the claim is gone, but another one about the same value is
// enforced still, so nothing is to be lifted.
const (
	Enforce Op = iota + 1
	Observe
	Lift
	Keep
	Refuse
	Limit // the peer's new flows are to be budgeted; between Observe and Enforce
)

// An Effect is one consequence. Indicator is nil for a refused message that
// holds none, and for a withdrawal of something unknown.
type Effect struct {
	Op        Op
	Author    identity.ID
	Indicator *wire.Indicator
	Reason    wire.Reason // of a Refuse
	Why       string
	Sent      time.Time
	Expiry    bool // time led to it, not the message
}

// Config bounds a Set. Zero fields take the defaults in parentheses.
type Config struct {
	Self      identity.ID
	PerAuthor int     // claims and withdrawals in memory of one author (4096)
	Total     int     // of all authors (65536)
	Rate      float64 // gossiped messages per second and author (5)
	Burst     float64 // and at once (50)

	// Trust is the ladder among organisations; nil when every author is a site of
	// ours, which trusts it directly.
	Trust *Trust
}

func (c Config) withDefaults() Config {
	if c.PerAuthor <= 0 {
		c.PerAuthor = 4096
	}
	if c.Total <= 0 {
		c.Total = 65536
	}
	if c.Rate <= 0 {
		c.Rate = 5
	}
	if c.Burst <= 0 {
		c.Burst = 50
	}
	return c
}

// An entry is the latest word of one author about one indicator.
type entry struct {
	author    identity.ID
	id        string
	msg       *wire.Message
	ind       *wire.Indicator // nil when only its withdrawal is known
	target    wire.Target
	since     time.Time // when the present evidence was first claimed
	level     Op        // Observe, Limit or Enforce
	org       string    // of a foreign author; "" is ours
	nth       uint64    // in the order in which evidence came here
	withdrawn bool
	until     time.Time
	gone      bool // replaced or removed; the heap drops it lazily
}

// inForce says whether the entry is a claim that stands.
func (e *entry) inForce() bool { return e.ind != nil && !e.withdrawn && !e.gone }

func (e *entry) enforced() bool { return e.inForce() && e.level == Enforce }

// op is the level of a word of our own organisation.
func op(ind *wire.Indicator) Op {
	if ind.Evidence == wire.Spoofable || ind.Stance != wire.Claims {
		return Observe
	}
	return Enforce
}

type author struct {
	window window
	gossip bucket
	pulled bucket
	byID   map[string]*entry
}

// Set is the intelligence that one site holds.
type Set struct {
	cfg     Config
	authors map[identity.ID]*author
	at      map[place]map[*entry]struct{}
	queue   expiries
	n       int
	nth     uint64 // the last word's

	foreign map[wire.Target]map[*entry]struct{} // words of other organisations, by what they corroborate
}

// New returns an empty set.
func New(cfg Config) *Set {
	return &Set{
		cfg:     cfg.withDefaults(),
		authors: make(map[identity.ID]*author),
		at:      make(map[place]map[*entry]struct{}),
		foreign: make(map[wire.Target]map[*entry]struct{}),
	}
}

// place is where claims are looked for: a network with all its services, or a name.
type place struct {
	prefix netip.Prefix
	typ    wire.Type
	name   string
}

func placeOf(t wire.Target) place { return place{t.Prefix, t.Type, t.Name} }

func (s *Set) author(id identity.ID) *author {
	a := s.authors[id]
	if a == nil {
		a = &author{byID: make(map[string]*entry)}
		s.authors[id] = a
	}
	return a
}

// Step takes one message of kind indicator or withdrawal. Expiries that are due
// come first in the effects.
func (s *Set) Step(now time.Time, m *wire.Message, src Source) []Effect {
	effects := s.Tick(now)
	a := s.author(m.Author)
	if r := s.admit(now, a, m, src); r != nil {
		return append(effects, refusal(m, r))
	}
	var more []Effect
	var r *wire.Refusal
	switch p := m.Payload.(type) {
	case *wire.Indicator:
		more, r = s.claim(now, a, m, p)
	case *wire.Withdrawal:
		more, r = s.withdraw(now, a, m, p)
	default:
		r = wire.Refuse(wire.WrongTopic, "%s among indicators", m.Kind())
	}
	if r != nil {
		if final(r.Reason) {
			a.window.mark(m.Seq)
		}
		return append(effects, refusal(m, r))
	}
	a.window.mark(m.Seq)
	return append(effects, more...)
}

// final says whether the same message can never be accepted later.
func final(r wire.Reason) bool { return r != wire.Full }

func refusal(m *wire.Message, r *wire.Refusal) Effect {
	ind, _ := m.Payload.(*wire.Indicator)
	return Effect{Op: Refuse, Author: m.Author, Indicator: ind, Reason: r.Reason, Why: r.Detail, Sent: m.Time}
}

// admit checks replay and budget.
func (s *Set) admit(now time.Time, a *author, m *wire.Message, src Source) *wire.Refusal {
	if src == restored {
		return nil
	}
	if a.window.seen(m.Seq) {
		return s.seenBefore(a, m)
	}
	switch src {
	case Gossip:
		if !a.gossip.take(now, s.cfg.Rate, s.cfg.Burst) {
			return wire.Refuse(wire.OverBudget, "more than %g messages per second", s.cfg.Rate)
		}
	case Pulled:
		if !a.pulled.take(now, float64(s.cfg.PerAuthor)/3600, float64(s.cfg.PerAuthor)) {
			return wire.Refuse(wire.OverBudget, "more than %d pulled messages per hour", s.cfg.PerAuthor)
		}
	}
	return nil
}

// Spent says whether whatever a site gossips now would be refused for its budget,
// so that nobody needs to open it.
func (s *Set) Spent(now time.Time, id identity.ID) bool {
	a := s.authors[id]
	return a != nil && a.gossip.left(now, s.cfg.Rate, s.cfg.Burst) < 1
}

// seenBefore tells an echo, which gossip brings all the time, from a replay and
// from two messages under one number.
func (s *Set) seenBefore(a *author, m *wire.Message) *wire.Refusal {
	for _, e := range a.byID {
		if e.msg.Seq != m.Seq {
			continue
		}
		if e.msg.Hash != m.Hash {
			return wire.Refuse(wire.Equivocation, "two messages with sequence %d", m.Seq)
		}
		return wire.Refuse(wire.Duplicate, "sequence %d", m.Seq)
	}
	return wire.Refuse(wire.Replayed, "sequence %d was used before", m.Seq)
}

// claim applies an indicator.
func (s *Set) claim(now time.Time, a *author, m *wire.Message, ind *wire.Indicator) ([]Effect, *wire.Refusal) {
	if !ind.Expires.After(now) {
		return nil, wire.Refuse(wire.Expired, "at %s", ind.Expires.Format(time.RFC3339))
	}
	target, err := wire.ParseValue(ind.Type, ind.Value)
	if err != nil {
		return nil, wire.Refuse(wire.ReasonOf(err), "%v", err)
	}
	org, r := s.standing(now, m.Author, ind, target)
	if r != nil {
		return nil, r
	}
	old := a.byID[ind.ID]
	if old != nil && old.msg.Seq > m.Seq {
		if old.withdrawn {
			return nil, wire.Refuse(wire.Withdrawn, "with sequence %d", old.msg.Seq)
		}
		return nil, wire.Refuse(wire.Superseded, "by sequence %d", old.msg.Seq)
	}
	since := ind.First
	if old != nil && old.ind != nil && old.ind.EvidenceHash == ind.EvidenceHash && old.since.Before(since) {
		since = old.since
	}
	if life := ind.Expires.Sub(since); life > wire.MaxLife {
		return nil, wire.Refuse(wire.TooLong, "refreshed to %s after the same evidence: expected at most %s", life.Round(time.Second), wire.MaxLife)
	}
	if old == nil {
		if r := s.room(a); r != nil {
			return nil, r
		}
	}
	e := &entry{author: m.Author, id: ind.ID, msg: m, ind: ind, target: target, since: since, until: ind.Expires, level: op(ind), org: org}
	s.number(old, e)
	if org != "" {
		return s.heard(now, a, old, e), nil
	}
	var effects []Effect
	downgraded := old != nil && old.enforced() && op(ind) != Enforce
	s.put(a, old, e)
	if downgraded {
		effects = append(effects, s.end(old, "the author lowered its evidence to "+string(ind.Evidence)))
	}
	effects = append(effects, Effect{Op: op(ind), Author: m.Author, Indicator: ind, Why: ladder(ind), Sent: m.Time})
	if s.cfg.Trust != nil && ind.Stance == wire.Claims && ind.Evidence == wire.Validated {
		effects = append(effects, s.Saw(now, target, ind.Expires)...)
	}
	return effects, nil
}

func ladder(ind *wire.Indicator) string {
	switch ind.Evidence {
	case wire.Validated:
		return "validated evidence of a site of this organisation"
	case wire.Operator:
		return "an operator of this organisation decided it"
	}
	return "spoofable evidence is only observed"
}

// withdraw applies a withdrawal. It is remembered as long as the claim that it
// ends could live, so that a late copy of the claim does not revive it.
func (s *Set) withdraw(now time.Time, a *author, m *wire.Message, w *wire.Withdrawal) ([]Effect, *wire.Refusal) {
	old := a.byID[w.ID]
	if old != nil && old.msg.Seq > m.Seq {
		return nil, wire.Refuse(wire.Superseded, "by sequence %d", old.msg.Seq)
	}
	e := &entry{author: m.Author, id: w.ID, msg: m, withdrawn: true, until: m.Time.Add(wire.MaxLife), org: s.orgOf(m.Author)}
	if old == nil {
		if !e.until.After(now) {
			return nil, wire.Refuse(wire.Stale, "what it withdraws has expired")
		}
		if r := s.room(a); r != nil {
			return nil, r
		}
		s.put(a, nil, e)
		return nil, nil
	}
	e.ind, e.target, e.since = old.ind, old.target, old.since
	stood := old.inForce()
	s.put(a, old, e)
	if !stood {
		return nil, nil
	}
	eff := s.end(old, "withdrawn by its author")
	eff.Sent = m.Time
	return append([]Effect{eff}, s.reconsider(now, old)...), nil
}

func (s *Set) room(a *author) *wire.Refusal {
	if len(a.byID) >= s.cfg.PerAuthor {
		return wire.Refuse(wire.Full, "%d indicators of this author are in force or remembered: expected at most %d", len(a.byID), s.cfg.PerAuthor)
	}
	if s.n >= s.cfg.Total {
		return wire.Refuse(wire.Full, "%d indicators of all authors: expected at most %d", s.n, s.cfg.Total)
	}
	return nil
}

// end is the effect of a claim's end: Lift when it led to something and no
// other claim leads to as much about the very same value.
func (s *Set) end(e *entry, why string) Effect {
	eff := Effect{Op: Lift, Author: e.author, Indicator: e.ind, Why: why, Sent: e.msg.Time}
	if e.level == Observe {
		eff.Op = Keep // nothing was done on its account
		return eff
	}
	if s.stands(e, e.level) {
		eff.Op = Keep
		eff.Why += "; another claim about the same value stands"
	}
	return eff
}

// Tick ends every claim whose time is over.
func (s *Set) Tick(now time.Time) []Effect {
	var effects []Effect
	for {
		e := s.queue.due(now)
		if e == nil {
			return effects
		}
		stood := e.inForce()
		s.remove(s.authors[e.author], e)
		if stood {
			eff := s.end(e, "expired")
			eff.Expiry = true
			effects = append(append(effects, eff), s.reconsider(now, e)...)
		}
	}
}

// Next is the time of the next expiry; zero when there is none.
func (s *Set) Next() time.Time { return s.queue.next() }

func (s *Set) put(a *author, old, e *entry) {
	if old != nil {
		s.remove(a, old)
	}
	a.byID[e.id] = e
	s.n++
	s.queue.push(e, s.n)
	if e.ind == nil || e.withdrawn {
		return
	}
	at := placeOf(e.target)
	if s.at[at] == nil {
		s.at[at] = make(map[*entry]struct{})
	}
	s.at[at][e] = struct{}{}
	s.join(e)
}

func (s *Set) remove(a *author, e *entry) {
	e.gone = true
	if a.byID[e.id] == e {
		delete(a.byID, e.id)
		s.n--
	}
	s.leave(e)
	at := placeOf(e.target)
	if m := s.at[at]; m != nil {
		delete(m, e)
		if len(m) == 0 {
			delete(s.at, at)
		}
	}
}
