package wire

import (
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
)

// The structs here fix the integer keys of every payload. A key never changes
// its meaning within one Version.

type indicatorBody struct {
	ID           string  `cbor:"1,keyasint"`
	Type         string  `cbor:"2,keyasint"`
	Value        string  `cbor:"3,keyasint"`
	Score        float64 `cbor:"4,keyasint"`
	Confidence   float64 `cbor:"5,keyasint"`
	Evidence     string  `cbor:"6,keyasint"`
	EvidenceHash []byte  `cbor:"7,keyasint,omitempty"`
	Sentence     string  `cbor:"8,keyasint"`
	First        int64   `cbor:"9,keyasint"`
	Last         int64   `cbor:"10,keyasint"`
	Expires      int64   `cbor:"11,keyasint"`
	TLP          string  `cbor:"12,keyasint"`
	Stance       string  `cbor:"13,keyasint,omitempty"`
}

type withdrawalBody struct {
	ID string `cbor:"1,keyasint"`
}

type beginBody struct {
	Round uint64 `cbor:"1,keyasint"`
	Base  []byte `cbor:"2,keyasint"`
}

type offerBody struct {
	Round uint64 `cbor:"1,keyasint"`
	Base  []byte `cbor:"2,keyasint"`
	Delta []byte `cbor:"3,keyasint"`
	Size  uint32 `cbor:"4,keyasint"`
}

type deltaBody struct {
	Round    uint64 `cbor:"1,keyasint"`
	Base     []byte `cbor:"2,keyasint"`
	Schema   string `cbor:"3,keyasint"`
	Examples uint32 `cbor:"4,keyasint"`
	Params   []byte `cbor:"5,keyasint"`
}

type listBody struct {
	Round  uint64   `cbor:"1,keyasint"`
	View   uint32   `cbor:"2,keyasint"`
	Base   []byte   `cbor:"3,keyasint"`
	Deltas [][]byte `cbor:"4,keyasint"`
}

type stateBody struct {
	Round uint64 `cbor:"1,keyasint"`
	View  uint32 `cbor:"2,keyasint"`
	Hash  []byte `cbor:"3,keyasint"`
}

func encodePayload(p Payload) ([]byte, error) {
	switch p := p.(type) {
	case *Indicator:
		return canon.Marshal(fromIndicator(p))
	case *Withdrawal:
		return canon.Marshal(withdrawalBody{p.ID})
	case *Begin:
		return canon.Marshal(beginBody{p.Round, p.Base[:]})
	case *Offer:
		return canon.Marshal(offerBody{p.Round, p.Base[:], p.Delta[:], p.Size})
	case *Delta:
		return canon.Marshal(deltaBody{p.Round, p.Base[:], p.Schema, p.Examples, encodeFloats(p.Params)})
	case *List:
		hs := make([][]byte, len(p.Deltas))
		for i := range p.Deltas {
			hs[i] = p.Deltas[i][:]
		}
		return canon.Marshal(listBody{p.Round, p.View, p.Base[:], hs})
	case *State:
		return canon.Marshal(stateBody{p.Round, p.View, p.Hash[:]})
	case *Commit, *Set, *SetVote, *Reveal, *Proposal, *Vote, *Wish, *Approve:
		return canon.Marshal(p)
	}
	return nil, Refuse(BadKind, "%T", p)
}

func fromIndicator(p *Indicator) indicatorBody {
	b := indicatorBody{
		ID: p.ID, Type: string(p.Type), Value: p.Value, Score: p.Score, Confidence: p.Confidence,
		Evidence: string(p.Evidence), Sentence: p.Sentence, TLP: string(p.TLP), Stance: string(p.Stance),
		First: p.First.UnixNano(), Last: p.Last.UnixNano(), Expires: p.Expires.UnixNano(),
	}
	if p.EvidenceHash != (Hash{}) {
		b.EvidenceHash = p.EvidenceHash[:]
	}
	return b
}

func (b *indicatorBody) payload() (Payload, error) {
	p := &Indicator{
		ID: b.ID, Type: Type(b.Type), Value: b.Value, Score: b.Score, Confidence: b.Confidence,
		Evidence: Evidence(b.Evidence), Sentence: b.Sentence, TLP: TLP(b.TLP), Stance: Stance(b.Stance),
		First: time.Unix(0, b.First).UTC(), Last: time.Unix(0, b.Last).UTC(), Expires: time.Unix(0, b.Expires).UTC(),
	}
	if b.EvidenceHash == nil {
		return p, nil
	}
	var err error
	p.EvidenceHash, err = hash("evidence hash", b.EvidenceHash)
	return p, err
}

func (b *withdrawalBody) payload() (Payload, error) { return &Withdrawal{b.ID}, nil }

func (b *beginBody) payload() (Payload, error) {
	base, err := hash("base", b.Base)
	return &Begin{b.Round, base}, err
}

func (b *offerBody) payload() (Payload, error) {
	base, err := hash("base", b.Base)
	if err != nil {
		return nil, err
	}
	delta, err := hash("delta", b.Delta)
	return &Offer{b.Round, base, delta, b.Size}, err
}

func (b *deltaBody) payload() (Payload, error) {
	base, err := hash("base", b.Base)
	if err != nil {
		return nil, err
	}
	params, err := decodeFloats(b.Params)
	return &Delta{b.Round, base, b.Schema, b.Examples, params}, err
}

func (b *listBody) payload() (Payload, error) {
	base, err := hash("base", b.Base)
	if err != nil {
		return nil, err
	}
	if len(b.Deltas) > MaxSite {
		return nil, Refuse(WrongLength, "deltas: %d: expected at most %d", len(b.Deltas), MaxSite)
	}
	hs := make([]Hash, len(b.Deltas))
	for i := range b.Deltas {
		if hs[i], err = hash("deltas", b.Deltas[i]); err != nil {
			return nil, err
		}
	}
	return &List{b.Round, b.View, base, hs}, nil
}

func (b *stateBody) payload() (Payload, error) {
	h, err := hash("hash", b.Hash)
	return &State{b.Round, b.View, h}, err
}

func hash(field string, b []byte) (h Hash, err error) {
	if len(b) != len(h) {
		return h, Refuse(BadField, "%s: %d bytes: expected %d", field, len(b), len(h))
	}
	copy(h[:], b)
	if h == (Hash{}) && field != "hash" {
		return h, Refuse(BadField, "%s: expected a hash, found zeros", field)
	}
	return h, nil
}
