package enforce

import (
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Words alone, of fewer organisations than it takes to block, put a peer on
// probation: it may begin so many flows a second, which is more than one ordinary
// client does, and enough for what it then does to be seen. A budget so tight that it
// hides what the peer does would end the ladder there: the next site would gather no
// evidence, and nobody could ever say whether the words were true. Only what was seen
// here leads to a tight budget, or to a block.
const probation = 8

// What ends probation, and keeps words from beginning it: dealings with this site that
// nobody can forge, over a time, none of which was odd. They shelter from nothing
// else: not from this site's own judgement, and not from as many organisations as it
// takes to block.
const (
	wellMet    = 16 // conversations, each with a proved address and payload both ways
	wellFor    = 10 * time.Minute
	wellUntil  = 30 * 24 * time.Hour // after the last one
	maxWellMet = 4096                // parties in each of two generations
)

// party is whom a rule of others could limit: an address, or a service of one where
// our hosts went to it.
type party struct {
	addr  netip.Addr
	port  uint16
	proto uint8
}

func partyOf(t dataplane.Target) party { return party{t.Prefix.Addr(), t.Port, t.Proto} }

// dealings are what this site had to do with a party.
type dealings struct {
	n           int
	first, last time.Time
}

func (d dealings) good(now time.Time) bool {
	return d.n >= wellMet && d.last.Sub(d.first) >= wellFor && now.Sub(d.last) < wellUntil
}

// acquaintances are the parties that this site dealt with lately. What was not met
// since the younger generation was last full is forgotten.
type acquaintances struct {
	young, old map[party]dealings
}

func newAcquaintances() *acquaintances {
	return &acquaintances{young: map[party]dealings{}, old: map[party]dealings{}}
}

func (a *acquaintances) of(p party) dealings {
	if d, ok := a.young[p]; ok {
		return d
	}
	return a.old[p]
}

// well are good dealings with a party, if there are any: with an address also those
// with one of its services.
func (a *acquaintances) well(now time.Time, p party) (d dealings, ok bool) {
	if d = a.of(p); d.good(now) {
		return d, true
	}
	if p.port == 0 {
		for _, gen := range []map[party]dealings{a.old, a.young} {
			for q, x := range gen {
				if q.addr == p.addr && x.good(now) && (!ok || x.first.Before(d.first)) {
					d, ok = x, true
				}
			}
		}
	}
	return d, ok
}

// met counts a conversation.
func (a *acquaintances) met(now time.Time, p party) dealings {
	d := a.of(p)
	if d.n == 0 || now.Sub(d.last) >= wellUntil || now.Before(d.first) {
		d = dealings{first: now}
	}
	d.n, d.last = min(d.n+1, wellMet), now
	if _, ok := a.young[p]; !ok && len(a.young) >= maxWellMet {
		a.old, a.young = a.young, map[party]dealings{}
	}
	a.young[p] = d
	delete(a.old, p)
	return d
}

func (a *acquaintances) forget(p party) {
	delete(a.young, p)
	delete(a.old, p)
}

// conversation says that both ends talked, and the outside one proved its address.
func conversation(rec *flow.Record) bool {
	return proved(rec) && rec.Dir[0].Payload > 0 && rec.Dir[1].Payload > 0 && rec.Dropped == 0
}

// ordinary takes a finished flow that nothing is held against, and ends a probation
// that it was the last to contradict.
func (m *Machine) ordinary(now time.Time, rec *flow.Record) []Effect {
	t, _, _, ok := targetOf(rec)
	if !ok || !conversation(rec) {
		return nil
	}
	if !m.known.met(now, partyOf(t)).good(now) {
		return nil
	}
	if s := m.standing[t.String()]; s != nil && s.onProbation() {
		return m.lift(now, s, "lifted", acquainted)
	}
	return nil
}

// acquainted is why words alone do not limit a party.
const acquainted = "this site's own dealings with it were ordinary: words alone do not limit it"

// onProbation says that a rule rests on words of too few organisations to block.
func (s *standing) onProbation() bool {
	return s.rule.Action == dataplane.RateLimit && s.from != nil && s.from.Limit
}

// suspect ends what a party had earned, by what it did itself: what others do in its
// name costs it nothing.
func (m *Machine) suspect(rec *flow.Record) {
	if t, _, _, ok := targetOf(rec); ok && proved(rec) {
		m.known.forget(partyOf(t))
	}
}
