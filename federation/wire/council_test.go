package wire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

func block(k *identity.Key) Block {
	return Block{
		Round: 3, Epoch: 1, Height: 2, Parent: Hash{1}, Model: Hash{2},
		Commits: []OrgHash{{Org: 1, Hash: Hash{3}}}, SetSigs: []OrgSig{{Org: 2, Sig: Sig{1}}}, Deltas: []OrgDelta{{Org: 1, Delta: Hash{4}}},
		Entries: []Entry{{
			Kind: Equivocated, Org: "x", Voter: k.ID(), Approvals: []OrgSig{},
			Proof: &Proof{Statement: "council-vote", Round: 2, A: Hash{1}, B: Hash{2}},
		}},
	}
}

// TestLargestSealedFits fills every list of a block to its bound.
func TestLargestSealedFits(t *testing.T) {
	k := key(t, 1)
	s := Sealed{Block: block(k)}
	s.Block.Commits, s.Block.SetSigs, s.Block.Deltas = nil, nil, nil
	quorum := (2*MaxOrgs + 2) / 3
	for i := range uint64(MaxOrgs) {
		s.Block.Commits = append(s.Block.Commits, OrgHash{Org: i, Hash: Hash{1}})
		s.Block.Deltas = append(s.Block.Deltas, OrgDelta{Org: i, Delta: Hash{1}})
		if int(i) < quorum {
			s.Block.SetSigs = append(s.Block.SetSigs, OrgSig{Org: i})
			s.Sigs = append(s.Sigs, OrgSig{Org: i})
		}
	}
	s.Block.Entries = []Entry{{Kind: Admits, Org: "x", Voter: k.ID(), Approvals: s.Sigs}}
	b, err := EncodeSealed(&s)
	if err != nil || len(b) > MaxSmall {
		t.Fatalf("%d bytes (%v): expected at most %d", len(b), err, MaxSmall)
	}
	got, err := DecodeSealed(b)
	if err != nil || got.Block.Hash() != s.Block.Hash() {
		t.Fatalf("decoded: %v", err)
	}
}

func TestCouncilPayloadsRefused(t *testing.T) {
	k := key(t, 1)
	with := func(f func(b *Block)) Payload {
		b := block(k)
		f(&b)
		return &Proposal{Block: b}
	}
	for name, c := range map[string]struct {
		p    Payload
		want Reason
	}{
		"round 0":           {&Commit{Parent: Hash{1}, Commit: Hash{1}}, BadField},
		"no commitment":     {&Commit{Round: 1, Parent: Hash{1}}, BadField},
		"empty set":         {&Set{Round: 1, Parent: Hash{1}}, WrongLength},
		"doubled in set":    {&Set{Round: 1, Parent: Hash{1}, Commits: []OrgHash{{Org: 1}, {Org: 1}}}, BadField},
		"beyond the bound":  {&Set{Round: 1, Parent: Hash{1}, Commits: []OrgHash{{Org: MaxOrgs}}}, BadField},
		"seal above round":  {&Wish{Round: 3, High: 3, Height: 1, Hash: Hash{1}}, BadField},
		"height over round": {with(func(b *Block) { b.Height = 9 }), BadField},
		"no deltas":         {with(func(b *Block) { b.Deltas = nil }), WrongLength},
		"two entries":       {with(func(b *Block) { b.Entries = append(b.Entries, b.Entries[0]) }), WrongLength},
		"proof missing":     {with(func(b *Block) { b.Entries[0].Proof = nil }), BadField},
		"needless proof":    {with(func(b *Block) { b.Entries[0].Kind = Admits }), BadField},
		"unknown entry":     {with(func(b *Block) { b.Entries[0].Kind = "crown" }), BadField},
		"no voter":          {with(func(b *Block) { b.Entries[0].Voter = "me" }), BadField},
		"vote for nothing":  {&Vote{Round: 1}, BadField},
	} {
		if err := c.p.check(); err == nil || ReasonOf(err) != c.want {
			t.Errorf("%s: %v, expected %s", name, err, c.want)
		}
	}
}

func FuzzSealed(f *testing.F) {
	k := key(f, 1)
	b, err := EncodeSealed(&Sealed{Block: block(k), Sigs: []OrgSig{{Org: 3, Sig: Sig{9}}}})
	if err != nil {
		f.Fatal(err)
	}
	entry := block(k).Entries[0]
	e, err := EncodeEntry(&entry)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(e)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeSealed(b); err == nil {
			again, err := EncodeSealed(s)
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("decodes and encodes to something else (%v)", err)
			}
		} else if r := (*Refusal)(nil); !errors.As(err, &r) {
			t.Fatalf("an error without a name: %v", err)
		}
		if e, err := DecodeEntry(b); err == nil {
			again, err := canon.Marshal(e)
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("an entry decodes and encodes to something else (%v)", err)
			}
		}
	})
}
