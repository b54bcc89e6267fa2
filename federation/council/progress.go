package council

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// wake keeps time from going back: a clock that is set back only waits.
func (m *Machine) wake(now time.Time) time.Time {
	if now.After(m.last) {
		m.last = now
	}
	if m.round == 0 {
		m.enter(m.last, max(1, m.tree.Tip().Round()+1, m.safe.highest()))
	}
	return m.last
}

// Tick does what time asks for.
func (m *Machine) Tick(now time.Time) {
	now = m.wake(now)
	if m.overdue(now) {
		m.wish = m.round + 1
		m.say(now)
	}
	if !now.Before(m.announceAt) {
		m.say(now)
	}
	if !now.Before(m.resendAt) {
		m.ready.Send = append(m.ready.Send, m.rounds[m.round].own...)
		m.resendGap = min(2*m.resendGap, m.cfg.Announce)
		m.resendAt, m.resendBy = now.Add(m.resendGap), now.Add(max(m.cfg.Announce, 4*m.patience))
	}
	m.progress(now)
	m.fetch(now)
}

// overdue says whether the round is to be given up, and we have not said so.
func (m *Machine) overdue(now time.Time) bool { return m.wish <= m.round && !now.Before(m.roundBy()) }

// say tells where we are.
func (m *Machine) say(now time.Time) {
	tip := m.tree.Tip()
	m.announceAt = now.Add(m.cfg.Announce)
	if !m.counts(m.cfg.Self) {
		return // an observer follows, and who was revoked has nothing to say
	}
	m.ready.Seal = append(m.ready.Seal, &wire.Wish{Round: max(m.wish, m.round), High: tip.Round(), Height: tip.Next.Height, Hash: tip.Hash})
	if m.wish > m.round {
		m.announceAt = now.Add(m.cfg.Retry)
	}
	m.reapprove()
}

// news notes that something of a round came that was not known. As long as words come,
// nothing seems lost, and saying ours again would only be more to read where there is
// too much already. But a liar's words must not keep ours back: that ends at resendBy.
func (m *Machine) news(now time.Time, round uint64) {
	if t := now.Add(m.resendGap); round == m.round && t.After(m.resendAt) {
		m.resendAt = t
		if t.After(m.resendBy) {
			m.resendAt = m.resendBy
		}
	}
}

// patient is how long to wait for words before ours are said again, after a sealed
// round that took so long: where it was long, a word that is late is not lost.
func (m *Machine) patient(took time.Duration) time.Duration {
	return min(max(took/4, m.cfg.Retry), m.cfg.Announce)
}

// enter begins a round.
func (m *Machine) enter(now time.Time, round uint64) {
	first := m.round == 0
	if m.round != 0 && !m.heardSeal(round-1) {
		m.event(Event{Step: Skipped, Round: round - 1})
	}
	if m.round != 0 && m.tree.Tip().Round() == m.round {
		m.patience = m.patient(now.Sub(m.since.Add(m.cfg.Every)))
	}
	m.round, m.since, m.closed = round, now, time.Time{}
	for r := range m.rounds {
		if r+keptBehind < round {
			delete(m.rounds, r)
		}
	}
	if _, r := m.state(round); r != nil {
		return
	}
	clear(m.wants) // what is still wanted is asked for again
	m.resendGap = m.patience
	m.resendAt, m.resendBy = now.Add(m.resendGap), now.Add(max(m.cfg.Announce, 4*m.patience))
	m.event(Event{Step: Entered, Round: round})
	if !first && m.tree.Tip().Round()+1 == round {
		// A seal brought us here, and the others: to tell it to each other would take as many
		// words as the votes. Who lacks it hears of it by our commitments.
		clear(m.beyond)
		return
	}
	m.say(now)
}

// heardSeal says whether a seal of this round or a later one is known to exist.
func (m *Machine) heardSeal(round uint64) bool {
	return max(m.claimed(), m.tree.Tip().Round()) >= round
}

// claimed is the highest seal of which so many tell that one of them is honest.
func (m *Machine) claimed() uint64 {
	var highs []uint64
	orgs := m.tree.Tip().Next.Orgs
	for _, o := range orgs {
		if w := m.wishes[o.Voter]; w != nil {
			highs = append(highs, w.High)
		}
	}
	return reached(highs, honestAmong(len(orgs)))
}

// honestAmong is how many of n organisations have an honest one among them.
func honestAmong(n int) int { return (n-1)/3 + 1 }

// reached is the highest number that so many of these are or exceed; 0 when they
// are fewer.
func reached(numbers []uint64, so int) uint64 {
	if len(numbers) < so {
		return 0
	}
	slices.Sort(numbers)
	return numbers[len(numbers)-so]
}

// progress does all that what we know allows.
func (m *Machine) progress(now time.Time) {
	for m.seals() || m.pace(now) { // each may allow the other
	}
	m.train(now)
	m.approve()
	m.commit()
	m.proposeSet(now)
	m.voteSet(now)
	m.closeSet(now)
	m.reveal(now)
	m.proposeList(now)
	m.vote(now)
	m.catchUp(now)
	m.offer()
}

// seals makes a seal of every block that has the votes.
func (m *Machine) seals() bool {
	for round := m.round - min(m.round, keptBehind); round <= m.round+keptAhead; round++ {
		st := m.rounds[round]
		if st == nil {
			continue
		}
		for hash, p := range st.blocks {
			parent := m.tree.Link(p.Block.Parent)
			if m.tree.Link(hash) != nil || parent == nil {
				continue
			}
			sigs := st.votes(&parent.Next, chain.SayVote, hash)
			if len(sigs) < parent.Next.Quorum() || st.told["broken "+string(hash[:])] {
				continue
			}
			if _, err := m.add(&wire.Sealed{Block: p.Block, Sigs: sigs[:parent.Next.Quorum()]}); err != nil {
				st.told["broken "+string(hash[:])] = true
				continue
			}
			return true
		}
	}
	return false
}

// add puts a sealed block into the chain and says what follows.
func (m *Machine) add(s *wire.Sealed) (*chain.Link, error) {
	known := m.tree.Link(s.Block.Hash()) != nil
	epoch := m.tree.Tip().Next.Epoch
	l, final, err := m.tree.Add(s)
	if errors.Is(err, chain.ErrFork) {
		m.ready.Fork = err.Error()
		m.event(Event{Step: Failed, Round: s.Block.Round, Why: err.Error()})
	}
	if err != nil || known {
		return l, err
	}
	m.ready.Persist = true
	m.syncGap = m.cfg.Retry
	m.keep(l)
	m.event(Event{Step: Sealed, Round: l.Round(), Hash: l.Hash, Model: l.Next.Model, Listed: len(s.Block.Deltas)})
	for _, w := range l.Withheld() {
		m.event(Event{Step: Withheld, Round: l.Round(), Org: w.Org})
	}
	for _, f := range final {
		m.ready.Chain = append(m.ready.Chain, f.Sealed)
		m.event(Event{Step: Final, Round: f.Round(), Hash: f.Hash, Model: f.Next.Model, Listed: len(f.Sealed.Block.Deltas)})
	}
	if next := m.tree.Tip().Next; next.Epoch != epoch {
		m.event(Event{Step: Changed, Round: l.Round(), Why: fmt.Sprintf("epoch %d: %d organisations", next.Epoch, len(next.Orgs))})
	}
	return l, nil
}

// keep takes over the deltas of a sealed block and its model, if they are here,
// and forgets the models that nothing builds on any more.
func (m *Machine) keep(l *chain.Link) {
	if st := m.rounds[l.Round()]; st != nil {
		for _, d := range l.Sealed.Block.Deltas {
			if p := st.held[d.Delta]; p != nil {
				m.ready.Keep = append(m.ready.Keep, Params{d.Delta, p})
			}
		}
	}
	if m.params[l.Next.Model] == nil {
		if p, err := m.compute(l.Parent, &l.Sealed.Block); err == nil && p != nil {
			m.model(l.Next.Model, p)
		}
	}
	needed := map[wire.Hash]bool{m.tree.Final().Next.Model: true}
	for _, d := range m.safe.deltas() {
		needed[d] = true
	}
	for _, k := range m.tree.Above() {
		needed[k.Next.Model] = true
	}
	for h := range m.params {
		if !needed[h] {
			delete(m.params, h)
		}
	}
}

// compute is the model that a block's deltas make; nil when bytes are missing.
func (m *Machine) compute(parent *chain.Link, b *wire.Block) ([]float32, error) {
	st := m.rounds[b.Round]
	base := m.params[parent.Next.Model]
	if base == nil || st == nil {
		return nil, nil
	}
	deltas := make([][]float32, 0, len(b.Deltas))
	for _, d := range b.Deltas {
		if st.held[d.Delta] == nil {
			return nil, nil
		}
		deltas = append(deltas, st.held[d.Delta])
	}
	return chain.Next(base, deltas, m.cfg.Combine)
}

// pace enters the round after the tip, or the one that two thirds wish for. A
// third of wishes make us wish too, so that a round once given up is given
// up by all.
func (m *Machine) pace(now time.Time) bool {
	if next := m.tree.Tip().Round() + 1; next > m.round {
		m.enter(now, next)
		return true
	}
	c := m.tree.Tip().Next
	wished := func(share int) uint64 { // the highest round that as many wish for
		var rounds []uint64
		for _, o := range c.Orgs {
			if w := m.wishes[o.Voter]; o.Voter == m.cfg.Self {
				rounds = append(rounds, max(m.wish, m.round))
			} else if w != nil {
				rounds = append(rounds, w.Round)
			}
		}
		return reached(rounds, share)
	}
	if w := wished(honestAmong(len(c.Orgs))); w > max(m.wish, m.round) {
		m.wish = w
		m.say(now)
	}
	if w := wished(c.Quorum()); w > m.round {
		m.enter(now, w)
		return true
	}
	return false
}

// train asks for a delta on the tip.
func (m *Machine) train(now time.Time) {
	tip := m.tree.Tip()
	base := m.params[tip.Next.Model]
	if !m.cfg.Trains || base == nil || m.safe.own.Base == tip.Hash || m.trainedOn == tip.Hash || tip.Next.Org(m.cfg.Self) < 0 {
		return
	}
	if now.Before(m.trainAt) {
		return
	}
	m.trainedOn, m.trainAt = tip.Hash, time.Time{}
	m.ready.Train = &Train{Base: tip.Hash, Model: tip.Next.Model, Params: slices.Clone(base)}
}

// catchUp asks who knows a higher seal for the blocks between, and for the
// models that we lack. Any claim is followed up, less and less often while that
// brings nothing; but only what an honest member claims too is believed.
func (m *Machine) catchUp(now time.Time) {
	tip := m.tree.Tip()
	var ahead []identity.ID
	for _, o := range tip.Next.Orgs {
		w, on := m.wishes[o.Voter], m.beyond[o.Voter]
		if (w != nil && w.High > tip.Round()) || (on != wire.Hash{} && m.tree.Link(on) == nil) {
			ahead = append(ahead, o.Voter)
		}
	}
	switch {
	case len(ahead) == 0:
		m.behind = false
	case !m.behind:
		m.behind = true
		if t := now.Add(m.cfg.Retry); t.After(m.syncAt) {
			m.syncAt = t // what makes the seal is likely to be on its way
		}
	}
	if len(ahead) > 0 && !now.Before(m.syncAt) {
		m.ready.Sync = &Sync{Height: m.tree.Final().Next.Height + 1, From: ahead[m.syncTurn%len(ahead)]}
		m.syncTurn++
		m.syncAt = now.Add(m.syncGap)
		m.syncGap = min(2*m.syncGap, m.cfg.Announce)
	}
	if len(ahead) > 0 {
		m.sooner(m.syncAt)
	}
	if m.claimed() > tip.Round()+2 {
		return // what is missing now will be old soon
	}
	for _, h := range []wire.Hash{tip.Next.Model, m.tree.Final().Next.Model} {
		if m.params[h] == nil {
			m.want(now, h, &tip.Next)
			m.fetch(now)
		}
	}
}

func (m *Machine) sooner(t time.Time) {
	if t.Before(m.announceAt) {
		m.announceAt = t
	}
}

// Final is the latest final model; nil while its bytes are missing, and at genesis.
func (m *Machine) Final() *Model {
	f := m.tree.Final()
	p := m.params[f.Next.Model]
	if p == nil || f.Next.Height == 0 {
		return nil
	}
	return &Model{Round: f.Round(), Height: f.Next.Height, Params: Params{f.Next.Model, slices.Clone(p)}}
}

// offer hands the latest final model to the gate.
func (m *Machine) offer() {
	f := m.tree.Final()
	if p := m.params[f.Next.Model]; p != nil && m.adopt != f.Next.Model {
		m.adopt = f.Next.Model
		m.ready.Adopt = m.Final()
	}
}
