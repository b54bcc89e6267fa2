package council

import (
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// safety is what a member must never forget.
type safety struct {
	voted     uint64 // highest round with a vote of ours
	locked    uint64 // highest parent round voted for
	setVoted  uint64 // highest round with a signed set of ours
	saidSet   uint64 // highest rounds that we proposed in
	saidList  uint64
	committed ownCommit
	earlier   []ownCommit // of the same round, on lower tips: the set may be on one of them
	own       ownDelta
	mute      uint64 // sign nothing up to this round; see Anew
}

// highest is the highest round that we signed anything in: after a restart we
// are there again, or further.
func (s *safety) highest() uint64 {
	return max(s.voted, s.setVoted, s.saidSet, s.saidList, s.committed.Round)
}

// commits adds a commitment of ours.
func (s *safety) commits(c ownCommit) {
	if s.committed.Round != c.Round {
		s.earlier = nil
	} else if len(s.earlier) < commitsEach-1 {
		s.earlier = append(slices.Clone(s.earlier), s.committed)
	}
	s.committed = c
}

// on is our commitment of a round on a parent.
func (s *safety) on(round uint64, parent wire.Hash) (ownCommit, bool) {
	for _, c := range append(slices.Clone(s.earlier), s.committed) {
		if c.Round == round && c.Parent == parent {
			return c, true
		}
	}
	return ownCommit{}, false
}

// deltas are those of ours that may have to be shown.
func (s *safety) deltas() []wire.Hash {
	out := []wire.Hash{s.own.Delta}
	for _, c := range s.earlier {
		out = append(out, c.Delta)
	}
	return out
}

// ownDelta is what we trained from a block.
type ownDelta struct {
	Base  wire.Hash `cbor:"1,keyasint"` // of the block
	Delta wire.Hash `cbor:"2,keyasint"`
}

// ownCommit is our last commitment.
type ownCommit struct {
	Round  uint64    `cbor:"1,keyasint"`
	Parent wire.Hash `cbor:"2,keyasint"`
	Salt   [16]byte  `cbor:"3,keyasint"`
	Delta  wire.Hash `cbor:"4,keyasint"`
	Hash   wire.Hash `cbor:"5,keyasint"`
	Sig    wire.Sig  `cbor:"6,keyasint"`
}

// Bounds of what one round remembers of one author.
const (
	keptBehind  = 2 // rounds below ours whose votes may still make a seal
	keptAhead   = 2
	commitsEach = 3 // parents
)

// A said is the place of a statement of which an honest member makes only one.
type said struct {
	author identity.ID
	kind   string
	parent wire.Hash
}

type statement struct {
	hash wire.Hash
	sig  wire.Sig
	at   time.Time
}

// A reveal is an opened commitment of the closed set.
type reveal struct {
	salt  [16]byte
	delta wire.Hash
	at    time.Time // when its bytes were here too; zero before
	bad   bool      // the bytes are no delta
}

// state is what is known of one round.
type state struct {
	said        map[said]statement
	also        map[said][]wire.Hash // commitments that came after the first: proved lies, but who lists one may have heard it first
	set         *wire.Set            // the first of its proposer, or the one that was closed
	otherSets   []*wire.Set          // of a proposer that lies: two thirds may have signed one of them
	blocks      map[wire.Hash]*wire.Proposal
	waiting     map[identity.ID]*wire.Reveal // the set is not closed here yet
	reveals     map[identity.ID]*reveal
	held        map[wire.Hash][]float32
	setSigs     []wire.OrgSig // two thirds; nil before the set is closed
	committedOn wire.Hash     // the tip that we committed on
	revealed    bool
	checked     map[wire.Hash]bool // blocks that can never get our vote
	sound       map[wire.Hash]bool // blocks that fit their parents
	told        map[string]bool
	own         []*wire.Message // resent while the round lasts
}

func newState() *state {
	return &state{
		said: make(map[said]statement), also: make(map[said][]wire.Hash), blocks: make(map[wire.Hash]*wire.Proposal), waiting: make(map[identity.ID]*wire.Reveal),
		reveals: make(map[identity.ID]*reveal), held: make(map[wire.Hash][]float32),
		checked: make(map[wire.Hash]bool), sound: make(map[wire.Hash]bool), told: make(map[string]bool),
	}
}

// graces are the times at which what we know becomes what must not be omitted.
func (s *state) graces(grace time.Duration) (out []time.Time) {
	if s == nil {
		return nil
	}
	for k, v := range s.said {
		if k.kind == chain.SayCommit {
			out = append(out, v.at.Add(grace))
		}
	}
	for _, r := range s.reveals {
		if !r.at.IsZero() {
			out = append(out, r.at.Add(grace))
		}
	}
	return out
}

// votes are the signatures under one hash that count, as places in a roster.
func (s *state) votes(c *chain.Context, kind string, hash wire.Hash) []wire.OrgSig {
	var out []wire.OrgSig
	for i, m := range c.Orgs {
		if st, ok := s.said[said{m.Voter, kind, wire.Hash{}}]; ok && st.hash == hash && c.Seals(i) {
			out = append(out, wire.OrgSig{Org: uint64(i), Sig: st.sig})
		}
	}
	return out
}

// heard says whether a voter committed so on a parent, be it among other things.
func (s *state) heard(voter identity.ID, parent, commit wire.Hash) bool {
	at := said{voter, chain.SayCommit, parent}
	return s.said[at].hash == commit || slices.Contains(s.also[at], commit)
}

// commitsOn are the commitments on a parent that are eligible there.
func (s *state) commitsOn(c *chain.Context, round uint64, parent wire.Hash) []wire.OrgHash {
	var out []wire.OrgHash
	for i, m := range c.Orgs {
		at := said{m.Voter, chain.SayCommit, parent}
		if st, ok := s.said[at]; ok && len(s.also[at]) == 0 && !c.Barred(i, round) {
			out = append(out, wire.OrgHash{Org: uint64(i), Hash: st.hash})
		}
	}
	return out
}

// state returns what is known of a round, if the round is near ours.
func (m *Machine) state(round uint64) (*state, *wire.Refusal) {
	if round+keptBehind < m.round || round > m.round+keptAhead {
		return nil, wire.Refuse(wire.WrongRound, "%d: expected %d or near it", round, m.round)
	}
	st := m.rounds[round]
	if st == nil {
		st = newState()
		m.rounds[round] = st
	}
	return st, nil
}

// record takes a signed statement. Of two that exclude each other the first
// stands, and both together are a proof.
func (m *Machine) record(now time.Time, st *state, author identity.ID, s chain.Statement, sig wire.Sig) *wire.Refusal {
	at := said{author, s.Kind, s.Parent}
	old, known := st.said[at]
	if known && old.hash == s.Hash {
		return wire.Refuse(wire.Duplicate, "%s of round %d", s.Kind, s.Round)
	}
	c := m.tree.Tip().Next
	org := c.Org(author)
	if org < 0 {
		return wire.Refuse(wire.NotMember, "%s", author)
	}
	if author != m.cfg.Self && !m.tree.Verify(&c, org, s, sig) {
		return wire.Refuse(wire.BadSignature, "%s of round %d", s.Kind, s.Round)
	}
	if known {
		if also := st.also[at]; s.Kind == chain.SayCommit && len(also) < commitsEach && !slices.Contains(also, s.Hash) {
			st.also[at] = append(also, s.Hash)
		}
		m.accuse(&c, org, s, old, sig)
		return wire.Refuse(wire.Equivocation, "two of %s in round %d", s.Kind, s.Round)
	}
	if s.Kind == chain.SayCommit && st.parents(author) >= commitsEach {
		return wire.Refuse(wire.Full, "commitments on %d parents in round %d", commitsEach, s.Round)
	}
	st.said[at] = statement{s.Hash, sig, now}
	return nil
}

func (s *state) parents(author identity.ID) (n int) {
	for k := range s.said {
		if k.author == author && k.kind == chain.SayCommit {
			n++
		}
	}
	return n
}

// accuse keeps a proof of equivocation for a block of ours.
func (m *Machine) accuse(c *chain.Context, org int, s chain.Statement, old statement, sig wire.Sig) {
	who := c.Orgs[org]
	if slices.ContainsFunc(m.entries, func(e wire.Entry) bool { return e.Voter == who.Voter && e.Kind == wire.Equivocated }) {
		return
	}
	m.event(Event{Step: Lied, Round: s.Round, Org: who.Org, Why: "two of " + s.Kind + " in one round"})
	if len(m.entries) >= wire.MaxOrgs {
		return
	}
	m.entries = append(m.entries, wire.Entry{
		Kind: wire.Equivocated, Org: who.Org, Voter: who.Voter,
		Proof: &wire.Proof{Statement: s.Kind, Round: s.Round, Parent: s.Parent, A: old.hash, SigA: old.sig, B: s.Hash, SigB: sig},
	})
}
