package council

import (
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Step takes one opened message: from the others, or our own coming back sealed.
// The error is a *wire.Refusal.
func (m *Machine) Step(now time.Time, msg *wire.Message) error {
	now = m.wake(now)
	if !m.counts(msg.Author) {
		return wire.Refuse(wire.NotMember, "%s has no vote in epoch %d", msg.Author, m.tree.Tip().Next.Epoch)
	}
	if r := m.take(now, msg); r != nil {
		if r.Reason == wire.Equivocation {
			m.progress(now) // others may have agreed on the second of two
		}
		return r
	}
	round := roundOf(msg.Payload)
	if msg.Author != m.cfg.Self {
		m.news(now, round)
	} else {
		m.ready.Send = append(m.ready.Send, msg)
		if round != 0 && m.rounds[round] != nil {
			m.rounds[round].own = append(m.rounds[round].own, msg)
		}
	}
	m.progress(now)
	return nil
}

// counts says whether a site's word counts now.
func (m *Machine) counts(id identity.ID) bool {
	return m.tree.Tip().Next.Org(id) >= 0 || m.tree.Final().Next.Org(id) >= 0
}

// roundOf is the round in which a message of ours is resent; 0 for none.
func roundOf(p wire.Payload) uint64 {
	switch p := p.(type) {
	case *wire.Commit:
		return p.Round
	case *wire.Set:
		return p.Round
	case *wire.SetVote:
		return p.Round
	case *wire.Reveal:
		return p.Round
	case *wire.Proposal:
		return p.Block.Round
	case *wire.Vote:
		return p.Round
	}
	return 0
}

func (m *Machine) take(now time.Time, msg *wire.Message) *wire.Refusal {
	if w, ok := msg.Payload.(*wire.Wish); ok {
		return m.takeWish(msg.Author, w)
	}
	if p, ok := msg.Payload.(*wire.Approve); ok {
		return m.takeApproval(msg, p)
	}
	round := roundOf(msg.Payload)
	if round == 0 {
		return wire.Refuse(wire.WrongTopic, "%s among the rounds of a consortium", msg.Kind())
	}
	st, r := m.state(round)
	if r != nil {
		return r
	}
	switch p := msg.Payload.(type) {
	case *wire.Commit:
		r := m.record(now, st, msg.Author, chain.Statement{Kind: chain.SayCommit, Round: p.Round, Parent: p.Parent, Hash: p.Commit}, p.Sig)
		if r == nil && p.Round > m.tree.Tip().Round()+1 && m.tree.Link(p.Parent) == nil {
			m.beyond[msg.Author] = p.Parent
		}
		return r
	case *wire.SetVote:
		return m.record(now, st, msg.Author, chain.Statement{Kind: chain.SaySetVote, Round: p.Round, Hash: p.Set}, p.Sig)
	case *wire.Vote:
		return m.record(now, st, msg.Author, chain.Statement{Kind: chain.SayVote, Round: p.Round, Hash: p.Block}, p.Sig)
	case *wire.Set:
		return m.takeSet(now, st, msg.Author, p)
	case *wire.Proposal:
		return m.takeProposal(now, st, msg.Author, p)
	case *wire.Reveal:
		return m.takeReveal(st, msg.Author, p)
	}
	return nil
}

func (m *Machine) takeSet(now time.Time, st *state, author identity.ID, p *wire.Set) *wire.Refusal {
	if r := m.turn(author, p.Round, p.Parent); r != nil {
		return r
	}
	r := m.record(now, st, author, chain.Statement{Kind: chain.SaySet, Round: p.Round, Hash: p.Hash()}, p.Sig)
	if r != nil && r.Reason == wire.Equivocation && len(st.otherSets) < 3 {
		st.otherSets = append(st.otherSets, p) // it never gets our signature while the first stands
	}
	if r != nil {
		return r
	}
	if st.set == nil {
		st.set = p
	}
	return nil
}

// turn refuses who is not the proposer of a round on a parent. On a parent
// that is not known here it cannot be told, and nothing is taken.
func (m *Machine) turn(author identity.ID, round uint64, parent wire.Hash) *wire.Refusal {
	l := m.tree.Link(parent)
	if l == nil {
		return wire.Refuse(wire.WrongBase, "parent %s is not known here", parent.Short())
	}
	if want := l.Next.Proposer(round); author != want {
		return wire.Refuse(wire.NotProposer, "of round %d: expected %s", round, want.Short())
	}
	return nil
}

func (m *Machine) takeProposal(now time.Time, st *state, author identity.ID, p *wire.Proposal) *wire.Refusal {
	if r := m.turn(author, p.Block.Round, p.Block.Parent); r != nil {
		return r
	}
	hash := p.Block.Hash()
	r := m.record(now, st, author, chain.Statement{Kind: chain.SayList, Round: p.Block.Round, Hash: hash}, p.Sig)
	if r != nil && (r.Reason != wire.Equivocation || len(st.blocks) >= 4) {
		return r
	}
	// A second list never gets our vote, but the others may have sealed it.
	st.blocks[hash] = p
	if r != nil {
		st.checked[hash] = true
		return r
	}
	m.event(Event{Step: Listed, Round: p.Block.Round, Org: m.orgName(author), Hash: hash, Listed: len(p.Block.Deltas)})
	return nil
}

func (m *Machine) takeReveal(st *state, author identity.ID, p *wire.Reveal) *wire.Refusal {
	if old := st.waiting[author]; old != nil && *old == *p {
		return wire.Refuse(wire.Duplicate, "reveal of round %d", p.Round)
	}
	if st.setSigs == nil {
		st.waiting[author] = p // the latest; which one is true, the set will tell
		return nil
	}
	if st.reveals[author] != nil {
		return wire.Refuse(wire.Duplicate, "reveal of round %d", p.Round)
	}
	return m.open(st, author, p)
}

// open checks a reveal against the closed set.
func (m *Machine) open(st *state, author identity.ID, p *wire.Reveal) *wire.Refusal {
	set := st.set
	l := m.tree.Link(set.Parent)
	if l == nil || p.Parent != set.Parent {
		return wire.Refuse(wire.WrongBase, "reveal on parent %s: the set is on %s", p.Parent.Short(), set.Parent.Short())
	}
	org := l.Next.Org(author)
	i := slices.IndexFunc(set.Commits, func(c wire.OrgHash) bool { return int(c.Org) == org })
	if i < 0 {
		return wire.Refuse(wire.NotFound, "a reveal without a commitment in the set of round %d", p.Round)
	}
	opened := chain.CommitHash(m.tree.Chain(), l.Next.Orgs[org].Voter, p.Round, set.Epoch, p.Parent, p.Salt, p.Delta)
	if opened != set.Commits[i].Hash {
		return wire.Refuse(wire.Equivocation, "the reveal of round %d is not what was committed to", p.Round)
	}
	st.reveals[author] = &reveal{salt: p.Salt, delta: p.Delta}
	return nil
}

func (m *Machine) takeWish(author identity.ID, w *wire.Wish) *wire.Refusal {
	if old := m.wishes[author]; old != nil && author != m.cfg.Self && (old.Round > w.Round || old.High > w.High || *old == *w) {
		return wire.Refuse(wire.Duplicate, "wish for round %d", w.Round)
	}
	m.wishes[author] = w
	return nil
}

// Trained takes what training from a block's model gave.
func (m *Machine) Trained(now time.Time, base wire.Hash, params []float32) error {
	now = m.wake(now)
	l := m.tree.Link(base)
	if l == nil || m.params[l.Next.Model] == nil {
		return wire.Refuse(wire.WrongBase, "block %s is not one to build on any more", base.Short())
	}
	from := m.params[l.Next.Model]
	if len(params) != len(from) {
		return wire.Refuse(wire.WrongLength, "%d parameters: expected %d", len(params), len(from))
	}
	delta := make([]float32, len(from))
	for i := range delta {
		delta[i] = params[i] - from[i]
	}
	if err := wire.CheckParams(delta); err != nil {
		return wire.Refuse(wire.ReasonOf(err), "our own delta: %v", err)
	}
	if m.safe.own.Base != base { // one delta for one base
		hash := wire.ModelHash(m.cfg.Genesis.Schema, delta)
		m.safe.own = ownDelta{Base: base, Delta: hash}
		m.ready.Keep = append(m.ready.Keep, Params{hash, delta})
		m.ready.Persist = true
		m.params[hash] = delta
	}
	m.progress(now)
	return nil
}

// TrainFailed says that there is no delta of ours on a block yet. It is asked for
// again after Every, as long as the block is the tip. Without a why there is no
// event.
func (m *Machine) TrainFailed(now time.Time, base wire.Hash, why string) {
	now = m.wake(now)
	if m.trainedOn == base {
		m.trainedOn, m.trainAt = wire.Hash{}, now.Add(m.cfg.Every)
	}
	if why != "" {
		m.event(Event{Step: Failed, Round: m.round, Hash: base, Why: why})
	}
}

// Fetched takes parameters that were asked for.
func (m *Machine) Fetched(now time.Time, hash wire.Hash, params []float32) error {
	now = m.wake(now)
	if m.wants[hash] == nil {
		return wire.Refuse(wire.NotFound, "nobody asked for %s", hash.Short())
	}
	if got := wire.ModelHash(m.cfg.Genesis.Schema, params); got != hash {
		return wire.Refuse(wire.WrongSchema, "%s: these parameters are %s", hash.Short(), got.Short())
	}
	delete(m.wants, hash)
	m.news(now, m.round)
	if m.tree.Tip().Next.Model == hash || m.tree.Final().Next.Model == hash {
		m.model(hash, params)
	}
	fits := len(params) == len(m.cfg.Genesis.Init) && wire.CheckParams(params) == nil
	for _, st := range m.rounds {
		for _, r := range st.reveals {
			if r.delta != hash || !r.at.IsZero() || r.bad {
				continue
			}
			r.bad = !fits
			if fits {
				r.at, st.held[hash] = now, slices.Clone(params)
			}
		}
	}
	m.progress(now)
	m.fetch(now)
	return nil
}

func (m *Machine) model(hash wire.Hash, params []float32) {
	m.params[hash] = slices.Clone(params)
	m.ready.Keep = append(m.ready.Keep, Params{hash, m.params[hash]})
}

// Add takes a sealed block of another member's chain.
func (m *Machine) Add(now time.Time, s *wire.Sealed) error {
	now = m.wake(now)
	if s.Block.Round <= m.tree.Final().Round() {
		return wire.Refuse(wire.Duplicate, "block of round %d: %d is final", s.Block.Round, m.tree.Final().Round())
	}
	before := m.tree.Tip()
	l, err := m.add(s)
	if err != nil {
		return err
	}
	if l != before && l == m.tree.Tip() {
		m.event(Event{Step: CaughtUp, Round: l.Round(), Hash: l.Hash, Model: l.Next.Model})
	}
	m.progress(now)
	return nil
}
