package wire

import (
	"cmp"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

func (p *Commit) check() error {
	if err := someHash("parent", p.Parent, "commit", p.Commit); err != nil {
		return err
	}
	return checkRound(p.Round)
}

func (p *Set) check() error {
	if err := ascending("commits", p.Commits, 1, func(c OrgHash) uint64 { return c.Org }); err != nil {
		return err
	}
	return cmp.Or(someHash("parent", p.Parent), checkRound(p.Round), checkRound(p.Epoch+1))
}

func (p *SetVote) check() error {
	return cmp.Or(someHash("set", p.Set), checkRound(p.Round))
}

func (p *Reveal) check() error {
	return cmp.Or(someHash("parent", p.Parent, "delta", p.Delta), checkRound(p.Round))
}

func (p *Proposal) check() error { return p.Block.check() }

func (p *Vote) check() error {
	return cmp.Or(someHash("block", p.Block), checkRound(p.Round))
}

func (p *Wish) check() error {
	if p.High >= p.Round || p.Height > p.High || p.Hash == (Hash{}) {
		return Refuse(BadField, "wish: round %d, highest seal %d at height %d: expected them descending, and a hash", p.Round, p.High, p.Height)
	}
	return checkRound(p.Round)
}

func (p *Approve) check() error {
	if len(p.Entry.Approvals) > 0 || p.Entry.Kind == Equivocated {
		return Refuse(BadField, "approval: expected a bare entry that is to be voted on")
	}
	return p.Entry.check()
}

func (b *Block) check() error {
	if err := cmp.Or(checkRound(b.Round), checkRound(b.Epoch+1), checkRound(b.Height), someHash("parent", b.Parent, "model", b.Model)); err != nil {
		return err
	}
	if b.Height > b.Round {
		return Refuse(BadField, "height: %d: expected at most the round, %d", b.Height, b.Round)
	}
	err := cmp.Or(
		ascending("commits", b.Commits, 1, func(c OrgHash) uint64 { return c.Org }),
		ascending("set signatures", b.SetSigs, 1, func(c OrgSig) uint64 { return c.Org }),
		ascending("deltas", b.Deltas, 1, func(c OrgDelta) uint64 { return c.Org }),
	)
	if err != nil {
		return err
	}
	if len(b.Entries) > 1 {
		return Refuse(WrongLength, "entries: %d: expected at most one", len(b.Entries))
	}
	for i := range b.Entries {
		if err := b.Entries[i].check(); err != nil {
			return err
		}
	}
	return nil
}

func (e *Entry) check() error {
	switch e.Kind {
	case Observes, Admits, Rotates, Revokes:
		if e.Proof != nil {
			return Refuse(BadField, "proof: expected none with %q", string(e.Kind))
		}
	case Equivocated:
		if e.Proof == nil || len(e.Approvals) > 0 {
			return Refuse(BadField, "proof: expected one, and no approvals")
		}
	default:
		return Refuse(BadField, "entry: %.20q: expected observe, admit, rotate, revoke or equivocated", string(e.Kind))
	}
	if err := CheckSchema(e.Org); err != nil {
		return Refuse(BadField, "organisation: expected a plain name of 1 to %d bytes", MaxSchema)
	}
	if _, err := identity.ParseID(string(e.Voter)); err != nil {
		return Refuse(BadField, "voter: expected the id of a site")
	}
	return ascending("approvals", e.Approvals, 0, func(c OrgSig) uint64 { return c.Org })
}

func (s *Sealed) check() error {
	return cmp.Or(s.Block.check(), ascending("signatures", s.Sigs, 1, func(c OrgSig) uint64 { return c.Org }))
}

// EncodeEntry encodes an entry, to be approved elsewhere.
func EncodeEntry(e *Entry) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	return canon.Marshal(e)
}

// DecodeEntry reads an entry. The error is always a *Refusal.
func DecodeEntry(in []byte) (*Entry, error) {
	e := new(Entry)
	if err := decodeSmall(in, e); err != nil {
		return nil, err
	}
	return e, e.check()
}

// EncodeSealed encodes a sealed block.
func EncodeSealed(s *Sealed) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return canon.Marshal(s)
}

// DecodeSealed reads a sealed block. Its signatures are still to be checked.
// The error is always a *Refusal.
func DecodeSealed(in []byte) (*Sealed, error) {
	s := new(Sealed)
	if err := decodeSmall(in, s); err != nil {
		return nil, err
	}
	return s, s.check()
}

func decodeSmall(in []byte, v any) error {
	if len(in) > MaxSmall {
		return Refuse(Oversized, "%d bytes: expected at most %d", len(in), MaxSmall)
	}
	return unmarshal(in, v)
}

// someHash takes names and hashes in turn.
func someHash(pairs ...any) error {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1].(Hash) == (Hash{}) {
			return Refuse(BadField, "%s: expected a hash, found zeros", pairs[i])
		}
	}
	return nil
}

// ascending demands each organisation at most once, in order, within bounds.
func ascending[T any](field string, list []T, least int, org func(T) uint64) error {
	if len(list) < least || len(list) > MaxOrgs {
		return Refuse(WrongLength, "%s: %d: expected %d to %d", field, len(list), least, MaxOrgs)
	}
	for i, x := range list {
		if org(x) >= MaxOrgs || (i > 0 && org(list[i-1]) >= org(x)) {
			return Refuse(BadField, "%s: expected organisations in ascending order, each once", field)
		}
	}
	return nil
}
