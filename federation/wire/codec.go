package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// unmarshal decodes strictly; see package canon.
func unmarshal(b []byte, v any) error {
	if err := canon.Unmarshal(b, v); err != nil {
		return Refuse(Malformed, "%v", err)
	}
	return nil
}

// envelope is what travels. Its signature covers the encoding without field 7.
type envelope struct {
	Version uint8  `cbor:"1,keyasint"`
	Kind    string `cbor:"2,keyasint"`
	Author  []byte `cbor:"3,keyasint"` // the raw public key: 32 bytes instead of 52 characters
	Seq     uint64 `cbor:"4,keyasint"`
	Time    int64  `cbor:"5,keyasint"` // ns since the Unix epoch
	Payload []byte `cbor:"6,keyasint"`
	Sig     []byte `cbor:"7,keyasint,omitempty"`
}

// Seal encodes and signs a payload. It refuses what Open would refuse, so
// nothing unfit leaves the site.
func Seal(k *identity.Key, seq uint64, at time.Time, p Payload) (*Message, error) {
	if seq == 0 || seq > MaxSeq {
		return nil, fmt.Errorf("seal %s: sequence %d: expected 1 to %d", p.Kind(), seq, uint64(MaxSeq))
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("seal %s: %w", p.Kind(), err)
	}
	body, err := encodePayload(p)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %v", p.Kind(), err)
	}
	pub, err := k.ID().Public()
	if err != nil {
		return nil, fmt.Errorf("seal %s: %v", p.Kind(), err)
	}
	e := envelope{Version: Version, Kind: string(p.Kind()), Author: pub, Seq: seq, Time: at.UnixNano(), Payload: body}
	signed, err := canon.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %v", p.Kind(), err)
	}
	e.Sig = k.Sign(e.Kind, signed)
	raw, err := canon.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %v", p.Kind(), err)
	}
	return newMessage(k.ID(), &e, p, raw), nil
}

func newMessage(author identity.ID, e *envelope, p Payload, raw []byte) *Message {
	return &Message{Author: author, Seq: e.Seq, Time: time.Unix(0, e.Time).UTC(), Payload: p, Raw: raw, Hash: sha256.Sum256(raw)}
}

// Open decodes a sealed message and checks all that needs no memory: sizes,
// encoding, version, kind, that the author is a member, the time, the signature
// and every field. now is our clock. The error is always a *Refusal. The
// Message keeps b.
func Open(b []byte, now time.Time, member func(identity.ID) bool) (*Message, error) {
	if len(b) > MaxDelta {
		return nil, Refuse(Oversized, "%d bytes: expected at most %d", len(b), MaxDelta)
	}
	var e envelope
	if err := unmarshal(b, &e); err != nil {
		return nil, err
	}
	author, err := checkEnvelope(&e, len(b), now, member)
	if err != nil {
		return nil, err
	}
	if err := verify(author, e); err != nil {
		return nil, err
	}
	p, err := decodePayload(Kind(e.Kind), e.Payload)
	if err != nil {
		return nil, err
	}
	if err := checkBound(p, author, now); err != nil {
		return nil, err
	}
	return newMessage(author, &e, p, b), nil
}

// KindOf reads what a sealed message says it is, and checks nothing else of it.
func KindOf(b []byte) (Kind, error) {
	var e envelope
	if len(b) > MaxDelta {
		return "", Refuse(Oversized, "%d bytes: expected at most %d", len(b), MaxDelta)
	}
	if err := unmarshal(b, &e); err != nil {
		return "", err
	}
	return Kind(e.Kind), nil
}

func checkEnvelope(e *envelope, size int, now time.Time, member func(identity.ID) bool) (identity.ID, error) {
	if e.Version != Version {
		return "", Refuse(BadVersion, "%d: expected %d; update the older site", e.Version, Version)
	}
	if !known(Kind(e.Kind)) {
		return "", Refuse(BadKind, "%.20q", e.Kind)
	}
	if Kind(e.Kind) != KindDelta && size > MaxSmall {
		return "", Refuse(Oversized, "%s of %d bytes: expected at most %d", e.Kind, size, MaxSmall)
	}
	if len(e.Author) != 32 {
		return "", Refuse(BadField, "author: %d bytes: expected a public key of 32", len(e.Author))
	}
	author := identity.IDOf(e.Author)
	if !member(author) {
		return "", Refuse(NotMember, "%s", author)
	}
	if e.Seq == 0 || e.Seq > MaxSeq {
		return "", Refuse(BadField, "sequence: %d: expected 1 to %d", e.Seq, uint64(MaxSeq))
	}
	return author, checkTime(time.Unix(0, e.Time), now)
}

func checkTime(at, now time.Time) error {
	if ahead := at.Sub(now); ahead > MaxSkew {
		return Refuse(FromFuture, "%s ahead of our clock: expected at most %s; check the clocks of both sites", ahead.Round(time.Second), MaxSkew)
	}
	if age := now.Sub(at); age > MaxAge {
		return Refuse(Stale, "%s old: expected at most %s", age.Round(time.Second), MaxAge)
	}
	return nil
}

func verify(author identity.ID, e envelope) error {
	sig := e.Sig
	e.Sig = nil
	signed, err := canon.Marshal(e)
	if err != nil {
		return Refuse(Malformed, "%v", err)
	}
	if err := identity.Verify(author, e.Kind, signed, sig); err != nil {
		return Refuse(BadSignature, "by %s", author)
	}
	return nil
}

// checkBound checks the fields that depend on the author and on our clock.
func checkBound(p Payload, author identity.ID, now time.Time) error {
	ind, ok := p.(*Indicator)
	if !ok {
		return nil
	}
	if want := IndicatorID(author, ind.Type, ind.Value); ind.ID != want {
		return Refuse(BadField, "id: %q: expected %q for this author and value", ind.ID, want)
	}
	if ahead := ind.Last.Sub(now); ahead > MaxSkew {
		return Refuse(FromFuture, "last: %s ahead of our clock", ahead.Round(time.Second))
	}
	if !ind.Expires.After(now) {
		return Refuse(Expired, "at %s", ind.Expires.Format(time.RFC3339))
	}
	return nil
}

func known(k Kind) bool { return newBody(k) != nil }

// A body is a payload as it is encoded.
type body interface {
	payload() (Payload, error)
}

func newBody(k Kind) body {
	switch k {
	case KindIndicator:
		return new(indicatorBody)
	case KindWithdrawal:
		return new(withdrawalBody)
	case KindBegin:
		return new(beginBody)
	case KindOffer:
		return new(offerBody)
	case KindDelta:
		return new(deltaBody)
	case KindList:
		return new(listBody)
	case KindState:
		return new(stateBody)
	}
	return councilBody(k)
}

func decodePayload(k Kind, b []byte) (Payload, error) {
	v := newBody(k)
	if err := unmarshal(b, v); err != nil {
		return nil, err
	}
	p, err := v.payload()
	if err != nil {
		return nil, err
	}
	return p, p.check()
}

// encodeFloats writes float32 little-endian; a byte string is a fifth smaller
// than an array of CBOR floats and has a length that is known before decoding.
func encodeFloats(v []float32) []byte {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
	}
	return b
}

func decodeFloats(b []byte) ([]float32, error) {
	if len(b)%4 != 0 || len(b) > 4*MaxParams {
		return nil, Refuse(WrongLength, "params: %d bytes: expected a multiple of 4, at most %d", len(b), 4*MaxParams)
	}
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v, nil
}

// EncodeParams writes a model's parameters, 4 bytes each, little-endian.
func EncodeParams(v []float32) []byte { return encodeFloats(v) }

// DecodeParams reads what EncodeParams wrote and applies CheckParams.
func DecodeParams(b []byte) ([]float32, error) {
	v, err := decodeFloats(b)
	if err != nil {
		return nil, err
	}
	return v, CheckParams(v)
}

// ModelHash names a model: its schema and exact parameters.
func ModelHash(schema string, params []float32) Hash {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "hedgerow/model/1\x00%d:%s\x00%d\x00", len(schema), schema, len(params)) // a hash never fails
	var part [4096]byte                                                                            // no copy of the whole
	for len(params) > 0 {
		n := min(len(params), len(part)/4)
		for i, x := range params[:n] {
			binary.LittleEndian.PutUint32(part[4*i:], math.Float32bits(x))
		}
		_, _ = h.Write(part[:4*n])
		params = params[n:]
	}
	return Hash(h.Sum(nil))
}
