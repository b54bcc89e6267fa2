package council

import (
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// commit binds us to our delta for this round.
func (m *Machine) commit() {
	st, tip := m.rounds[m.round], m.tree.Tip()
	org := tip.Next.Org(m.cfg.Self)
	if st.committedOn == tip.Hash || st.setSigs != nil || m.safe.own.Base != tip.Hash || org < 0 || tip.Next.Barred(org, m.round) || m.params[m.safe.own.Delta] == nil {
		return
	}
	c := m.safe.committed
	if c.Round > m.round || m.muted() {
		return
	}
	st.committedOn = tip.Hash
	if c.Round != m.round || c.Parent != tip.Hash { // tips only rise, so there is one commitment on each
		c = ownCommit{Round: m.round, Parent: tip.Hash, Salt: m.cfg.Salt(), Delta: m.safe.own.Delta}
		c.Hash = chain.CommitHash(m.tree.Chain(), tip.Next.Orgs[org].Voter, c.Round, tip.Next.Epoch, c.Parent, c.Salt, c.Delta)
		c.Sig = m.sign(chain.Statement{Kind: chain.SayCommit, Round: c.Round, Parent: c.Parent, Hash: c.Hash})
		m.safe.commits(c)
		m.ready.Persist = true
	}
	m.event(Event{Step: Committed, Round: m.round, Hash: c.Hash})
	m.ready.Seal = append(m.ready.Seal, &wire.Commit{Round: c.Round, Parent: c.Parent, Commit: c.Hash, Sig: c.Sig})
}

func (m *Machine) sign(s chain.Statement) (sig wire.Sig) {
	copy(sig[:], m.cfg.Sign(s.Kind, s.Bytes(m.tree.Chain())))
	return sig
}

// proposeSet closes the commitments when it is our turn: when all are there and
// the round is due, or when waiting for more is over.
func (m *Machine) proposeSet(now time.Time) {
	st, tip := m.rounds[m.round], m.tree.Tip()
	c := &tip.Next
	if m.safe.saidSet >= m.round || c.Proposer(m.round) != m.cfg.Self || m.muted() {
		return
	}
	commits := st.commitsOn(c, m.round, tip.Hash)
	all := len(commits) == len(c.Orgs)
	if c.CheckCommits(m.round, commits) != nil || now.Before(m.since.Add(m.cfg.Every)) || (!all && now.Before(m.setBy())) {
		return
	}
	m.safe.saidSet, m.ready.Persist = m.round, true
	p := &wire.Set{Round: m.round, Epoch: c.Epoch, Parent: tip.Hash, Commits: commits}
	p.Sig = m.sign(chain.Statement{Kind: chain.SaySet, Round: m.round, Hash: p.Hash()})
	m.ready.Seal = append(m.ready.Seal, p)
}

// voteSet signs the proposer's set once it is known to be fair.
func (m *Machine) voteSet(now time.Time) {
	st := m.rounds[m.round]
	set := st.set
	if set == nil || m.safe.setVoted >= m.round || m.muted() {
		return
	}
	parent := m.tree.Link(set.Parent)
	if parent == nil || parent.Round() < m.safe.locked || parent.Next.Org(m.cfg.Self) < 0 || set.Epoch != parent.Next.Epoch || parent.Next.CheckCommits(m.round, set.Commits) != nil {
		return
	}
	for i, o := range parent.Next.Orgs {
		at := slices.IndexFunc(set.Commits, func(c wire.OrgHash) bool { return int(c.Org) == i })
		place := said{o.Voter, chain.SayCommit, set.Parent}
		word, spoke := st.said[place]
		switch {
		case at >= 0 && !st.heard(o.Voter, set.Parent, set.Commits[at].Hash):
			return // not heard yet; it will be resent
		case at < 0 && spoke && now.Before(m.since.Add(m.cfg.Every)):
			return // no honest set comes so soon
		case at < 0 && spoke && len(st.also[place]) == 0 && !parent.Next.Barred(i, m.round) && m.due(now, word.at):
			m.censored(st, o.Org, "commitment")
			return
		}
	}
	hash := set.Hash()
	m.safe.setVoted, m.ready.Persist = m.round, true
	m.ready.Seal = append(m.ready.Seal, &wire.SetVote{Round: m.round, Set: hash, Sig: m.sign(chain.Statement{Kind: chain.SaySetVote, Round: m.round, Hash: hash})})
}

// due says whether a word is so old that whoever omits it must have had it.
func (m *Machine) due(now, heard time.Time) bool { return now.Sub(heard) >= m.cfg.Grace }

func (m *Machine) censored(st *state, org, what string) {
	if !st.told[what+org] {
		st.told[what+org] = true
		m.event(Event{Step: Censored, Round: m.round, Org: org, Why: "its " + what + " was omitted; we do not sign"})
	}
}

// closeSet notes when two thirds have signed the set, and opens the reveals
// that came before.
func (m *Machine) closeSet(now time.Time) {
	st := m.rounds[m.round]
	if st.set == nil || st.setSigs != nil {
		return
	}
	set, sigs := m.signedSet(st)
	if set == nil {
		return
	}
	// A proposer that told us another list of commitments than the others must not
	// make us one that withholds.
	st.set = set
	parent := m.tree.Link(set.Parent)
	st.setSigs, m.closed = sigs[:parent.Next.Quorum()], now
	m.event(Event{Step: Closed, Round: m.round, Hash: st.set.Hash(), Listed: len(st.set.Commits)})
	for _, o := range parent.Next.Orgs {
		if p := st.waiting[o.Voter]; p != nil {
			_ = m.open(st, o.Voter, p) // refused or not: it came without blame when it came
		}
	}
}

// signedSet is the set of the round that two thirds have signed, with their
// signatures; nil while there is none.
func (m *Machine) signedSet(st *state) (*wire.Set, []wire.OrgSig) {
	for _, set := range append([]*wire.Set{st.set}, st.otherSets...) {
		parent := m.tree.Link(set.Parent)
		if parent == nil {
			continue
		}
		if sigs := st.votes(&parent.Next, chain.SaySetVote, set.Hash()); len(sigs) >= parent.Next.Quorum() {
			return set, sigs
		}
	}
	return nil, nil
}

// reveal tells our delta once it is bound, and asks for the others'.
func (m *Machine) reveal(now time.Time) {
	st := m.rounds[m.round]
	if st.setSigs == nil {
		return
	}
	c, mine := m.safe.on(m.round, st.set.Parent)
	mine = mine && slices.ContainsFunc(st.set.Commits, func(o wire.OrgHash) bool { return o.Hash == c.Hash })
	if mine && !st.revealed && m.params[c.Delta] != nil {
		st.revealed = true
		st.held[c.Delta] = m.params[c.Delta]
		m.ready.Seal = append(m.ready.Seal, &wire.Reveal{Round: m.round, Parent: c.Parent, Salt: c.Salt, Delta: c.Delta})
	}
	parent := m.tree.Link(st.set.Parent)
	if parent == nil {
		return
	}
	for _, o := range parent.Next.Orgs {
		r := st.reveals[o.Voter]
		switch {
		case r == nil || r.bad || !r.at.IsZero():
		case st.held[r.delta] != nil:
			r.at = now
		default:
			m.want(now, r.delta, &parent.Next, o.Voter)
		}
	}
	m.fetch(now)
}

func ids(orgs []chain.Member) []identity.ID {
	out := make([]identity.ID, len(orgs))
	for i, o := range orgs {
		out[i] = o.Voter
	}
	return out
}
