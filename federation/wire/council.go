package wire

import (
	"crypto/sha256"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// MaxOrgs bounds the organisations of a consortium. With as many, a Sealed
// block still fits MaxSmall.
const MaxOrgs = 64

// Kinds of the rounds of a consortium, in the order in which a round goes.
const (
	KindCommit   Kind = "commit"
	KindSet      Kind = "set"
	KindSetVote  Kind = "set-vote"
	KindReveal   Kind = "reveal"
	KindProposal Kind = "proposal"
	KindVote     Kind = "vote"
	KindWish     Kind = "wish"
	KindApprove  Kind = "approve"
)

// Sig is an Ed25519 signature of a statement (see federation/chain), which keeps
// its worth outside of the message that brought it.
type Sig [64]byte

// OrgSig is the signature of one organisation: Org is its place in the roster
// of the block's epoch.
type OrgSig struct {
	_   struct{} `cbor:",toarray"`
	Org uint64
	Sig Sig
}

// OrgHash is the commitment of one organisation.
type OrgHash struct {
	_    struct{} `cbor:",toarray"`
	Org  uint64
	Hash Hash
}

// OrgDelta opens a commitment: Delta is the ModelHash of the change.
type OrgDelta struct {
	_     struct{} `cbor:",toarray"`
	Org   uint64
	Salt  [16]byte
	Delta Hash
}

// Commit binds its author to one delta for a round on a parent, without
// telling which.
type Commit struct {
	Round  uint64 `cbor:"1,keyasint"`
	Parent Hash   `cbor:"2,keyasint"` // the sealed block that it builds on
	Commit Hash   `cbor:"3,keyasint"`
	Sig    Sig    `cbor:"4,keyasint"`
}

// Set closes the commitments of a round; only the round's proposer says so.
type Set struct {
	Round   uint64    `cbor:"1,keyasint"`
	Epoch   uint64    `cbor:"2,keyasint"`
	Parent  Hash      `cbor:"3,keyasint"`
	Commits []OrgHash `cbor:"4,keyasint"` // ascending by Org
	Sig     Sig       `cbor:"5,keyasint"`
}

// Hash names a set: everything but the signature.
func (p *Set) Hash() Hash { return SetHash(p.Round, p.Epoch, p.Parent, p.Commits) }

// SetHash names a set of commitments.
func SetHash(round, epoch uint64, parent Hash, commits []OrgHash) Hash {
	return hashOf("set", Set{Round: round, Epoch: epoch, Parent: parent, Commits: commits})
}

// SetVote is one organisation's signature under a set.
type SetVote struct {
	Round uint64 `cbor:"1,keyasint"`
	Set   Hash   `cbor:"2,keyasint"`
	Sig   Sig    `cbor:"3,keyasint"`
}

// Reveal opens the author's commitment. The bytes are fetched by Delta.
type Reveal struct {
	Round  uint64   `cbor:"1,keyasint"`
	Parent Hash     `cbor:"2,keyasint"`
	Salt   [16]byte `cbor:"3,keyasint"`
	Delta  Hash     `cbor:"4,keyasint"`
}

// Block is what a round adds to the chain.
type Block struct {
	Round   uint64     `cbor:"1,keyasint"`
	Epoch   uint64     `cbor:"2,keyasint"` // of the roster that seals it
	Height  uint64     `cbor:"3,keyasint"` // one more than the parent's
	Parent  Hash       `cbor:"4,keyasint"`
	Commits []OrgHash  `cbor:"5,keyasint"` // the set, and below who signed it
	SetSigs []OrgSig   `cbor:"6,keyasint"`
	Deltas  []OrgDelta `cbor:"7,keyasint"` // ascending by Org; those of Commits that are missing were withheld
	Entries []Entry    `cbor:"8,keyasint"` // at most one
	Model   Hash       `cbor:"9,keyasint"` // what the deltas make of the parent's model
}

// Hash names a block.
func (b *Block) Hash() Hash { return hashOf("block", b) }

// Entry changes the roster.
type Entry struct {
	Kind      EntryKind   `cbor:"1,keyasint"`
	Org       string      `cbor:"2,keyasint"`
	Voter     identity.ID `cbor:"3,keyasint"` // the organisation's one voting site
	Epoch     uint64      `cbor:"4,keyasint"` // of the roster that it changes
	Approvals []OrgSig    `cbor:"5,keyasint"`
	Proof     *Proof      `cbor:"6,keyasint,omitempty"`
}

// EntryKind says what an Entry does.
type EntryKind string

// Kinds of entries. Observe lets an organisation follow without counting, Admit
// makes an observer count, Rotate replaces the key of its voting site, Revoke
// removes an organisation, Equivocated does so by proof alone.
const (
	Observes    EntryKind = "observe"
	Admits      EntryKind = "admit"
	Rotates     EntryKind = "rotate"
	Revokes     EntryKind = "revoke"
	Equivocated EntryKind = "equivocated"
)

// Proof holds two signatures of one key that no honest site makes both.
type Proof struct {
	Statement string `cbor:"1,keyasint"` // the kind of both statements
	Round     uint64 `cbor:"2,keyasint"`
	Parent    Hash   `cbor:"3,keyasint"` // of two commitments; zeros otherwise
	A         Hash   `cbor:"4,keyasint"`
	SigA      Sig    `cbor:"5,keyasint"`
	B         Hash   `cbor:"6,keyasint"`
	SigB      Sig    `cbor:"7,keyasint"`
}

// Proposal is the list of a round's proposer.
type Proposal struct {
	Block Block `cbor:"1,keyasint"`
	Sig   Sig   `cbor:"2,keyasint"`
}

// Vote is one organisation's signature under a block.
type Vote struct {
	Round uint64 `cbor:"1,keyasint"`
	Block Hash   `cbor:"2,keyasint"`
	Sig   Sig    `cbor:"3,keyasint"`
}

// Wish says that its author is in a round or wishes to be, and what it knows.
type Wish struct {
	Round  uint64 `cbor:"1,keyasint"`
	High   uint64 `cbor:"2,keyasint"` // round of the highest seal
	Height uint64 `cbor:"3,keyasint"` // of the same
	Hash   Hash   `cbor:"4,keyasint"`
}

// Approve is one organisation's signature under a change of the roster. Entry
// comes without approvals.
type Approve struct {
	Entry Entry `cbor:"1,keyasint"`
	Sig   Sig   `cbor:"2,keyasint"`
}

// Sealed is a block with the signatures that make it one.
type Sealed struct {
	Block Block    `cbor:"1,keyasint"`
	Sigs  []OrgSig `cbor:"2,keyasint"`
}

func hashOf(what string, v any) Hash {
	b, err := canon.Marshal(v)
	if err != nil {
		panic(err) // plain structs of numbers and bytes always encode
	}
	return sha256.Sum256(append([]byte("hedgerow/"+what+"/1\x00"), b...))
}

// Kind names the payload.
func (*Commit) Kind() Kind { return KindCommit }

// Kind names the payload.
func (*Set) Kind() Kind { return KindSet }

// Kind names the payload.
func (*SetVote) Kind() Kind { return KindSetVote }

// Kind names the payload.
func (*Reveal) Kind() Kind { return KindReveal }

// Kind names the payload.
func (*Proposal) Kind() Kind { return KindProposal }

// Kind names the payload.
func (*Vote) Kind() Kind { return KindVote }

// Kind names the payload.
func (*Wish) Kind() Kind { return KindWish }

// Kind names the payload.
func (*Approve) Kind() Kind { return KindApprove }

// These payloads are encoded as they are.

func (p *Commit) payload() (Payload, error)   { return p, nil }
func (p *Set) payload() (Payload, error)      { return p, nil }
func (p *SetVote) payload() (Payload, error)  { return p, nil }
func (p *Reveal) payload() (Payload, error)   { return p, nil }
func (p *Proposal) payload() (Payload, error) { return p, nil }
func (p *Vote) payload() (Payload, error)     { return p, nil }
func (p *Wish) payload() (Payload, error)     { return p, nil }
func (p *Approve) payload() (Payload, error)  { return p, nil }

func councilBody(k Kind) body {
	switch k {
	case KindCommit:
		return new(Commit)
	case KindSet:
		return new(Set)
	case KindSetVote:
		return new(SetVote)
	case KindReveal:
		return new(Reveal)
	case KindProposal:
		return new(Proposal)
	case KindVote:
		return new(Vote)
	case KindWish:
		return new(Wish)
	case KindApprove:
		return new(Approve)
	}
	return nil
}
