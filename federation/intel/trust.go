package intel

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Figures of the ladder among organisations.
const (
	limitOrgs = 2 // organisations, or one and a local sighting, limit
	dropOrgs  = 3 // organisations at least block; f+1 where that is more
	halfLife  = 14 * 24 * time.Hour
	repMost   = 50   // of either side of a reputation
	repCost   = 5    // of a word that was refuted, as a multiple of what a corroborated one earns
	repFloor  = 0.25 // below, an organisation's word is kept but not counted
	corrBits6 = 64   // IPv6 addresses corroborate as one /64: whoever has one has them all
)

// TrustConfig says who is who. Org and Orgs are asked at every use, so that they
// may follow the consortium's roster.
type TrustConfig struct {
	// Org is an author's organisation: "" is ours. counted is false while it
	// only observes.
	Org func(identity.ID) (org string, counted bool)
	// Orgs is how many organisations count, ours among them.
	Orgs func() int
	// Members lists addresses of members, and Spared what this site spares for reasons
	// of its own. Words about either are refused, and nobody is blamed: who sends them
	// cannot know better, and a member may be broken into. nil lists nothing.
	Members, Spared func() []netip.Prefix
}

// Trust is what this site thinks of other organisations and of what they say.
// Sending earns nothing: an organisation gains when its word is corroborated by
// this site itself, or by so many others that one of them must be honest, and
// loses fivefold when its word is refuted.
type Trust struct {
	cfg   TrustConfig
	reps  map[string]*reputation
	seen  map[wire.Target]time.Time // what this site met itself, until when that counts
	clear map[wire.Target]time.Time // the very values that it knows to be innocent
	paid  map[payment]time.Time     // each word earns or costs once
}

type payment struct {
	org string
	key wire.Target
}

// reputation is Beta(good, bad), which decays towards (1, 1).
type reputation struct {
	good, bad float64
	at        time.Time
}

func (r *reputation) decay(now time.Time) {
	if dt := now.Sub(r.at); dt > 0 {
		keep := math.Exp2(-float64(dt) / float64(halfLife))
		r.good, r.bad, r.at = 1+(r.good-1)*keep, 1+(r.bad-1)*keep, now
	}
}

// maxLocal bounds what is remembered of this site's own traffic and of payments.
const maxLocal = 1 << 16

// NewTrust returns the view of a site that has heard nothing yet.
func NewTrust(cfg TrustConfig) *Trust {
	return &Trust{
		cfg: cfg, reps: make(map[string]*reputation), seen: make(map[wire.Target]time.Time),
		clear: make(map[wire.Target]time.Time), paid: make(map[payment]time.Time),
	}
}

// Reputation is between 0 and 1; who has done nothing yet has 0.5.
func (t *Trust) Reputation(now time.Time, org string) float64 {
	r := t.rep(now, org)
	return r.good / (r.good + r.bad)
}

func (t *Trust) rep(now time.Time, org string) *reputation {
	r := t.reps[org]
	if r == nil {
		r = &reputation{good: 1, bad: 1, at: now}
		t.reps[org] = r
	}
	r.decay(now)
	return r
}

// earn and cost change a standing once for each value.
func (t *Trust) earn(now time.Time, org string, key wire.Target) { t.pay(now, org, key, 1, 0) }
func (t *Trust) cost(now time.Time, org string, key wire.Target) { t.pay(now, org, key, 0, repCost) }

func (t *Trust) pay(now time.Time, org string, key wire.Target, good, bad float64) {
	p := payment{org, key}
	if until, ok := t.paid[p]; ok && now.Before(until) {
		return
	}
	if len(t.paid) >= maxLocal {
		t.sweep(now)
	}
	if len(t.paid) >= maxLocal {
		return // too much at once to judge anybody by it
	}
	t.paid[p] = now.Add(wire.MaxLife)
	r := t.rep(now, org)
	r.good, r.bad = min(r.good+good, repMost), min(r.bad+bad, repMost)
}

func (t *Trust) sweep(now time.Time) {
	for p, until := range t.paid {
		if !now.Before(until) {
			delete(t.paid, p)
		}
	}
	for _, m := range []map[wire.Target]time.Time{t.seen, t.clear} {
		for k, until := range m {
			if !now.Before(until) {
				delete(m, k)
			}
		}
	}
}

// Liars is how many of n organisations may lie together without a block.
func Liars(n int) int { return max(0, (n-1)/3) }

// Drops is how many organisations it takes to block among n.
func Drops(n int) int { return max(dropOrgs, Liars(n)+1) }

// Rung is where the ladder stands when so many organisations speak for a value,
// none against, all of the same standing.
func Rung(orgs, of int, local bool) Op {
	switch {
	case orgs >= Drops(of):
		return Enforce
	case orgs >= limitOrgs || (orgs == 1 && local):
		return Limit
	}
	return Observe
}

// corroborates is what two words must share to support each other.
func corroborates(t wire.Target) wire.Target {
	if t.Prefix.Addr().Is6() && t.Prefix.Bits() > corrBits6 {
		if p, err := t.Prefix.Addr().Prefix(corrBits6); err == nil {
			t.Prefix = p
		}
	}
	return t
}

// orgOf is an author's organisation; "" is ours.
func (s *Set) orgOf(author identity.ID) string {
	if s.cfg.Trust == nil || author == s.cfg.Self {
		return ""
	}
	org, _ := s.cfg.Trust.cfg.Org(author)
	return org
}

// Forget drops what organisations said that are gone, and says what follows.
func (s *Set) Forget(now time.Time, gone func(org string) bool) []Effect {
	var effects []Effect
	for _, id := range s.ids() {
		a := s.authors[id]
		for _, e := range s.ordered(id) {
			if e.org == "" || !gone(e.org) {
				continue
			}
			stood := e.inForce()
			s.remove(a, e)
			if stood {
				effects = append(append(effects, s.end(e, "its organisation has left")), s.reconsider(now, e)...)
			}
		}
	}
	return effects
}

// standing refuses words that an organisation may not say here. Ours may say
// what wire allows.
func (s *Set) standing(now time.Time, author identity.ID, ind *wire.Indicator, target wire.Target) (string, *wire.Refusal) {
	t := s.cfg.Trust
	if t == nil || author == s.cfg.Self {
		return "", nil
	}
	org, counted := t.cfg.Org(author)
	if org == "" {
		return "", nil
	}
	switch {
	case !counted:
		return "", wire.Refuse(wire.NotCounted, "organisation %q observes for now", org)
	case ind.Stance != wire.Disputes && covers(t.cfg.Members, target):
		return "", wire.Refuse(wire.Spared, "%s is, or holds, an address of a member", ind.Value)
	case ind.Stance != wire.Disputes && covers(t.cfg.Spared, target):
		return "", wire.Refuse(wire.Spared, "%s is, or holds, what this site spares", ind.Value)
	case ind.Stance != wire.Disputes && guarded(target):
		t.cost(now, org, corroborates(target))
		return "", wire.Refuse(wire.Guarded, "%s is, or holds, what must not be blocked here", ind.Value)
	case ind.Evidence == wire.Operator:
		return "", wire.Refuse(wire.NoEvidence, "evidence %q of another organisation: expected validated or spoofable", ind.Evidence)
	case ind.Stance != wire.Claims && ind.Evidence != wire.Validated:
		return "", wire.Refuse(wire.NoEvidence, "a %s: expected validated evidence of the author's own", ind.Stance)
	case ind.Evidence == wire.Validated && ind.EvidenceHash == (wire.Hash{}):
		return "", wire.Refuse(wire.NoEvidence, "validated evidence: expected its hash")
	}
	return org, nil
}

// heard takes a word of another organisation and says what follows.
func (s *Set) heard(now time.Time, a *author, old, e *entry) []Effect {
	e.level = Observe
	var effects []Effect
	if old != nil && old.inForce() && old.target == e.target && e.ind.Stance == wire.Claims {
		e.level = old.level // until reconsidered below
	}
	s.put(a, old, e)
	if old != nil && old.inForce() && old.level != Observe && e.level == Observe {
		effects = append(effects, s.end(old, "the author changed its word"))
	}
	changed := s.reconsider(now, e)
	effects = append(effects, changed...)
	if !slices.ContainsFunc(changed, func(x Effect) bool { return x.Indicator == e.ind }) {
		_, why := s.judge(now, corroborates(e.target), e.target.Prefix.Bits())
		effects = append(effects, Effect{Op: e.level, Author: e.author, Indicator: e.ind, Why: why, Sent: e.msg.Time})
	}
	return effects
}

func (s *Set) join(e *entry) {
	if e.org == "" || !e.inForce() {
		return
	}
	key := corroborates(e.target)
	if s.foreign[key] == nil {
		s.foreign[key] = make(map[*entry]struct{})
	}
	s.foreign[key][e] = struct{}{}
}

func (s *Set) leave(e *entry) {
	key := corroborates(e.target)
	if m := s.foreign[key]; m != nil {
		delete(m, e)
		if len(m) == 0 {
			delete(s.foreign, key)
		}
	}
}

// reconsider brings every claim of others about what e is about to its present
// rung.
func (s *Set) reconsider(now time.Time, e *entry) []Effect {
	if s.cfg.Trust == nil {
		return nil
	}
	return s.reconsiderKey(now, corroborates(e.target))
}

func (s *Set) reconsiderKey(now time.Time, key wire.Target) []Effect {
	type verdict struct {
		level Op
		why   string
	}
	judged := make(map[int]verdict) // by how wide the claim is
	was := make(map[*entry]Op)
	why := make(map[*entry]string)
	words := s.words(key)
	sound := s.sound(now, words)
	for _, e := range words {
		bits := e.target.Prefix.Bits()
		v, ok := judged[bits]
		if !ok {
			v.level, v.why = s.judge(now, key, bits)
			judged[bits] = v
		}
		switch {
		case s.cfg.Trust.cleared(now, e):
			v = verdict{Observe, "this site knows it to be innocent"}
			if e.ind.Evidence == wire.Validated && logOdds(e.ind) > 0 {
				s.cfg.Trust.cost(now, e.org, key)
			}
		case !slices.Contains(sound, e):
			v = verdict{Observe, "its word is not counted"}
		}
		if e.ind.Stance == wire.Claims && e.inForce() && e.level != v.level {
			was[e], why[e], e.level = e.level, v.why, v.level
		}
	}
	var effects []Effect
	for _, e := range words {
		if old, changed := was[e]; changed {
			effects = append(effects, s.moved(e, old, why[e])...)
		}
	}
	return effects
}

// moved is what follows from a claim that came to another rung.
func (s *Set) moved(e *entry, old Op, why string) (effects []Effect) {
	eff := Effect{Op: e.level, Author: e.author, Indicator: e.ind, Why: why, Sent: e.msg.Time}
	if old == Enforce || e.level == Observe {
		lift := eff
		if lift.Op = Lift; s.stands(e, old) {
			lift.Op, lift.Why = Keep, why+"; another claim about the same value stands"
		}
		effects = append(effects, lift)
	}
	if e.level != Observe {
		effects = append(effects, eff)
	}
	return effects
}

// stands says whether another claim about the very same value leads to as much.
func (s *Set) stands(e *entry, level Op) bool {
	for other := range s.at[placeOf(e.target)] {
		if other != e && other.inForce() && other.level != Observe && other.target == e.target && (other.level == level || other.level == Enforce) {
			return true
		}
	}
	return false
}

// words lists what others say under a key, in an order that all runs share.
func (s *Set) words(key wire.Target) []*entry {
	out := make([]*entry, 0, len(s.foreign[key]))
	for e := range s.foreign[key] {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *entry) int { return cmp.Or(cmp.Compare(a.author, b.author), cmp.Compare(a.id, b.id)) })
	return out
}

// judge is the rung of what is bits wide under a key, and settles who earned and who
// lost by it.
func (s *Set) judge(now time.Time, key wire.Target, bits int) (Op, string) {
	t := s.cfg.Trust
	ops := s.opinions(now, key, bits)
	var pro, con []string
	for _, o := range ops {
		if o.odds > 0 {
			pro = append(pro, o.org)
		} else {
			con = append(con, o.org)
		}
	}
	local := now.Before(t.seen[key]) && !part(key, bits)
	enough := Liars(t.cfg.Orgs()) + 1 // of which one is honest
	switch {
	case local || len(pro) >= max(enough, limitOrgs+1):
		t.settle(now, key, pro, con)
	case len(con) >= max(enough, limitOrgs+1):
		t.settle(now, key, con, pro)
	}
	if median(ops) <= 0 {
		return Observe, fmt.Sprintf("%d organisations for it, %d against", len(pro), len(con))
	}
	level := Rung(len(pro), t.cfg.Orgs(), local)
	why := fmt.Sprintf("%d of %d organisations on their own evidence", len(pro), t.cfg.Orgs())
	if local {
		why += ", and this site has met it"
	}
	if len(con) > 0 {
		why += fmt.Sprintf("; %d against", len(con))
	}
	return level, why
}

func (t *Trust) settle(now time.Time, key wire.Target, right, wrong []string) {
	for _, org := range right {
		t.earn(now, org, key)
	}
	for _, org := range wrong {
		t.cost(now, org, key)
	}
}

// Saw tells that this site met a peer itself, on validated evidence, and until
// when that counts. Knows tells that a peer is innocent: a person said so, or it
// is on a list of this site.
func (s *Set) Saw(now time.Time, target wire.Target, until time.Time) []Effect {
	return s.local(now, s.cfg.Trust.seen, corroborates(target), until)
}

// Knows is the opposite of Saw, about the very value.
func (s *Set) Knows(now time.Time, target wire.Target, until time.Time) []Effect {
	if s.cfg.Trust == nil {
		return nil
	}
	return s.local(now, s.cfg.Trust.clear, target, until)
}

func (t *Trust) cleared(now time.Time, e *entry) bool { return now.Before(t.clear[e.target]) }

func (s *Set) local(now time.Time, m map[wire.Target]time.Time, key wire.Target, until time.Time) []Effect {
	if _, known := m[key]; !known && len(m) >= maxLocal {
		s.cfg.Trust.sweep(now)
		if len(m) >= maxLocal {
			return nil
		}
	}
	m[key] = until
	return s.reconsiderKey(now, corroborates(key))
}

// An Influence is a value that organisations have a part in.
type Influence struct {
	Value   string
	Level   Op // now
	Without Op // had they said nothing
	Lies    Op // the most that they reach if they lie together about it from now on
}

// WhatIf tells what some organisations cause at this site, and what they could:
// for each value they spoke about, and, with an empty Value, for one that nobody
// else has spoken about.
func (s *Set) WhatIf(now time.Time, orgs ...string) []Influence {
	if s.cfg.Trust == nil {
		return nil
	}
	n := s.cfg.Trust.cfg.Orgs()
	out := []Influence{{Level: Observe, Without: Observe, Lies: Rung(len(orgs), n, false)}}
	keys := make([]wire.Target, 0, len(s.foreign))
	for k := range s.foreign {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b wire.Target) int { return cmp.Compare(a.String(), b.String()) })
	for _, k := range keys {
		if in, ok := s.influence(now, k, n, orgs); ok {
			out = append(out, in)
		}
	}
	return out
}

func (s *Set) influence(now time.Time, key wire.Target, n int, orgs []string) (Influence, bool) {
	ops := s.opinions(now, key, hosts)
	rest := slices.DeleteFunc(slices.Clone(ops), func(o opinion) bool { return slices.Contains(orgs, o.org) })
	local := now.Before(s.cfg.Trust.seen[key])
	pros := func(ops []opinion) (c int) {
		for _, o := range ops {
			if o.odds > 0 {
				c++
			}
		}
		return c
	}
	rung := func(ops []opinion, more int) Op {
		if more == 0 && median(ops) <= 0 {
			return Observe
		}
		return Rung(pros(ops)+more, n, local)
	}
	in := Influence{Value: key.String(), Level: rung(ops, 0), Without: rung(rest, 0), Lies: rung(rest, len(orgs))}
	return in, len(rest) < len(ops)
}
