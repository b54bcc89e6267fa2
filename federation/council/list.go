package council

import (
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// proposeList lists the deltas that we hold when it is our turn.
func (m *Machine) proposeList(now time.Time) {
	st := m.rounds[m.round]
	if st.setSigs == nil || m.safe.saidList >= m.round || m.muted() {
		return
	}
	parent := m.tree.Link(st.set.Parent)
	if parent == nil || parent.Next.Proposer(m.round) != m.cfg.Self {
		return
	}
	b := wire.Block{
		Round: m.round, Epoch: parent.Next.Epoch, Height: parent.Next.Height + 1, Parent: parent.Hash,
		Commits: st.set.Commits, SetSigs: st.setSigs, Deltas: st.listable(&parent.Next),
	}
	all := len(b.Deltas) == len(b.Commits)
	if len(b.Deltas) < chain.MinList(len(parent.Next.Orgs)) || (!all && now.Before(m.closed.Add(m.cfg.Reveal))) {
		return
	}
	b.Entries = m.entryFor(parent, b)
	next, err := m.compute(parent, &b)
	if err != nil || next == nil {
		if err != nil {
			m.event(Event{Step: Failed, Round: m.round, Why: err.Error()})
			m.safe.saidList = m.round
		}
		return
	}
	b.Model = wire.ModelHash(m.cfg.Genesis.Schema, next)
	m.safe.saidList, m.ready.Persist = m.round, true
	p := &wire.Proposal{Block: b, Sig: m.sign(chain.Statement{Kind: chain.SayList, Round: m.round, Hash: b.Hash()})}
	m.ready.Seal = append(m.ready.Seal, p)
}

// listable are the opened commitments whose bytes are here.
func (s *state) listable(c *chain.Context) (out []wire.OrgDelta) {
	for i, o := range c.Orgs {
		if r := s.reveals[o.Voter]; r != nil && !r.at.IsZero() && !r.bad {
			out = append(out, wire.OrgDelta{Org: uint64(i), Salt: r.salt, Delta: r.delta})
		}
	}
	return out
}

// entryFor takes the first waiting change of the roster that a block can carry.
func (m *Machine) entryFor(parent *chain.Link, b wire.Block) []wire.Entry {
	wait := m.entries
	if e := m.approved(&parent.Next); e != nil {
		wait = append(slices.Clone(wait), *e)
	}
	for _, e := range wait {
		if e.Kind == wire.Equivocated {
			e.Epoch = parent.Next.Epoch + uint64(len(parent.Next.Pending))
		}
		b.Entries = []wire.Entry{e}
		if _, err := m.tree.Check(&b); err == nil {
			return b.Entries
		}
	}
	return nil
}

// vote signs the proposer's block when everything about it is right.
func (m *Machine) vote(now time.Time) {
	st := m.rounds[m.round]
	if m.safe.voted >= m.round || m.muted() {
		return
	}
	for hash, p := range st.blocks {
		if !st.checked[hash] && m.agrees(now, st, hash, &p.Block) {
			m.sealVote(st, hash, &p.Block)
			return
		}
	}
}

// agrees checks a block against all that we know. What is wrong for good is
// noted; what is only missing may still come.
func (m *Machine) agrees(now time.Time, st *state, hash wire.Hash, b *wire.Block) bool {
	parent := m.sound(st, hash, b)
	if parent == nil {
		return false
	}
	if parent.Round() < m.safe.locked || parent.Next.Org(m.cfg.Self) < 0 {
		return false
	}
	for i, o := range parent.Next.Orgs {
		at := slices.IndexFunc(b.Deltas, func(d wire.OrgDelta) bool { return int(d.Org) == i })
		if at >= 0 && st.held[b.Deltas[at].Delta] == nil {
			// The proposer has what it lists, whoever else was told of it.
			proposer := parent.Next.Proposer(m.round)
			m.want(now, b.Deltas[at].Delta, &parent.Next, proposer, o.Voter)
			m.prefer(b.Deltas[at].Delta, proposer)
			m.adoptReveal(st, o.Voter, b.Deltas[at])
			m.fetch(now)
			return false
		}
		r := st.reveals[o.Voter]
		if at >= 0 || r == nil || r.at.IsZero() || r.bad {
			continue
		}
		if now.Before(m.listBy()) {
			return false // who lists before the time lists all; it is not too late for this one
		}
		if m.due(now, r.at) {
			m.censored(st, o.Org, "delta")
			return false
		}
	}
	next, err := m.compute(parent, b)
	if next == nil && err == nil {
		return false
	}
	if err != nil || wire.ModelHash(m.cfg.Genesis.Schema, next) != b.Model {
		st.checked[hash] = true
		m.event(Event{Step: Failed, Round: m.round, Hash: hash, Why: "the deltas do not make the listed model"})
		return false
	}
	m.params[b.Model] = next
	return true
}

// sound is the parent that a block fits; nil when it fits none, or none that is known
// here. What two thirds have signed is checked once.
func (m *Machine) sound(st *state, hash wire.Hash, b *wire.Block) *chain.Link {
	if st.sound[hash] {
		return m.tree.Link(b.Parent)
	}
	parent, err := m.tree.Check(b)
	if err != nil {
		st.checked[hash] = parent != nil
		return nil
	}
	st.sound[hash] = true
	return parent
}

// adoptReveal takes a reveal over from the list, which has proved it.
func (m *Machine) adoptReveal(st *state, who identity.ID, d wire.OrgDelta) {
	if st.reveals[who] == nil {
		st.reveals[who] = &reveal{salt: d.Salt, delta: d.Delta}
	}
}

func (m *Machine) sealVote(st *state, hash wire.Hash, b *wire.Block) {
	parent := m.tree.Link(b.Parent)
	m.safe.voted, m.safe.locked, m.ready.Persist = m.round, max(m.safe.locked, parent.Round()), true
	for _, d := range b.Deltas { // who votes for a block can serve it
		m.ready.Keep = append(m.ready.Keep, Params{d.Delta, st.held[d.Delta]})
	}
	m.ready.Keep = append(m.ready.Keep, Params{b.Model, m.params[b.Model]})
	sig := m.sign(chain.Statement{Kind: chain.SayVote, Round: m.round, Hash: hash})
	m.ready.Seal = append(m.ready.Seal, &wire.Vote{Round: m.round, Block: hash, Sig: sig})
}
