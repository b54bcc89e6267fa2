package wire

import (
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// A Request is one question to one site: exactly one of its fields is set. The
// transport proves who asks.
type Request struct {
	Query *Query
	Fetch *Fetch
	// Sync asks for what the asker has not seen, given what it has; an asker
	// that has nothing sends an empty, non-nil Sync.
	Sync *Sync
	// Chain asks for the sealed blocks of a consortium from a height on.
	Chain *ChainFrom
}

// ChainFrom asks for blocks. The heights of final blocks come first, then what is
// sealed above them.
type ChainFrom struct {
	Height uint64 `cbor:"1,keyasint"`
}

// Sync is the first half of a pull: the asker's digest.
type Sync struct {
	Have []Have
}

// A Response answers a Request with what was asked, or says why not.
type Response struct {
	Refused Reason // "" when answered
	Answer  *Answer
	Blob    []byte   // for Fetch: a sealed Delta, or parameters as EncodeParams writes them
	Items   [][]byte // for Sync: sealed messages the asker lacks, oldest first, then what the open round needs; for Chain: sealed blocks
	More    bool     // for Sync: there are more; ask again with a fresh digest
	// Own, in the last answer to a Sync, is the highest intel sequence that the
	// answering site has used: with the items, the asker then has all of that
	// author's that are still alive.
	Own uint64
}

type requestBody struct {
	Version uint8      `cbor:"1,keyasint"`
	Query   *queryBody `cbor:"2,keyasint,omitempty"`
	Fetch   *fetchBody `cbor:"3,keyasint,omitempty"`
	Sync    *syncBody  `cbor:"4,keyasint,omitempty"`
	Chain   *ChainFrom `cbor:"5,keyasint,omitempty"`
}

type queryBody struct {
	Type  string `cbor:"1,keyasint"`
	Value string `cbor:"2,keyasint"`
}

type fetchBody struct {
	Hash   []byte `cbor:"1,keyasint"`
	Params bool   `cbor:"2,keyasint"`
}

type syncBody struct {
	Have []haveBody `cbor:"1,keyasint"`
}

type haveBody struct {
	Author []byte   `cbor:"1,keyasint"`
	Spans  []uint64 `cbor:"2,keyasint"` // from, to, from, to, ...
}

type responseBody struct {
	Version uint8       `cbor:"1,keyasint"`
	Refused string      `cbor:"2,keyasint,omitempty"`
	Answer  *answerBody `cbor:"3,keyasint,omitempty"`
	Blob    []byte      `cbor:"4,keyasint,omitempty"`
	Items   [][]byte    `cbor:"5,keyasint,omitempty"`
	More    bool        `cbor:"6,keyasint,omitempty"`
	Own     uint64      `cbor:"7,keyasint,omitempty"`
}

type answerBody struct {
	Seen  bool   `cbor:"1,keyasint"`
	Count uint64 `cbor:"2,keyasint"`
	Last  int64  `cbor:"3,keyasint"` // s since the Unix epoch, 0 never
}

// EncodeRequest encodes a request after checking it as DecodeRequest does.
func EncodeRequest(r *Request) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b := requestBody{Version: Version, Chain: r.Chain}
	if r.Query != nil {
		b.Query = &queryBody{string(r.Query.Type), r.Query.Value}
	}
	if r.Fetch != nil {
		b.Fetch = &fetchBody{r.Fetch.Hash[:], r.Fetch.Params}
	}
	if r.Sync != nil {
		s := &syncBody{Have: []haveBody{}}
		for _, h := range r.Sync.Have {
			pub, err := h.Author.Public()
			if err != nil {
				return nil, err
			}
			s.Have = append(s.Have, haveBody{pub, flatten(h.Spans)})
		}
		b.Sync = s
	}
	out, err := canon.Marshal(b)
	if err == nil && len(out) > MaxRequest {
		err = Refuse(Oversized, "request of %d bytes: expected at most %d", len(out), MaxRequest)
	}
	return out, err
}

func flatten(spans []Span) []uint64 {
	out := make([]uint64, 0, 2*len(spans))
	for _, s := range spans {
		out = append(out, s.From, s.To)
	}
	return out
}

// DecodeRequest reads and checks a request. The error is always a *Refusal.
func DecodeRequest(in []byte) (*Request, error) {
	if len(in) > MaxRequest {
		return nil, Refuse(Oversized, "request of %d bytes: expected at most %d", len(in), MaxRequest)
	}
	var b requestBody
	if err := unmarshal(in, &b); err != nil {
		return nil, err
	}
	if b.Version != Version {
		return nil, Refuse(BadVersion, "%d: expected %d", b.Version, Version)
	}
	r := &Request{Chain: b.Chain}
	if b.Query != nil {
		r.Query = &Query{Type(b.Query.Type), b.Query.Value}
	}
	if b.Fetch != nil {
		h, err := hash("hash", b.Fetch.Hash)
		if err != nil {
			return nil, err
		}
		r.Fetch = &Fetch{h, b.Fetch.Params}
	}
	if b.Sync != nil {
		s, err := b.Sync.sync()
		if err != nil {
			return nil, err
		}
		r.Sync = s
	}
	return r, r.check()
}

func (b *syncBody) sync() (*Sync, error) {
	if len(b.Have) > MaxSite {
		return nil, Refuse(WrongLength, "have: %d authors: expected at most %d", len(b.Have), MaxSite)
	}
	s := new(Sync)
	for _, h := range b.Have {
		if len(h.Author) != 32 || len(h.Spans)%2 != 0 {
			return nil, Refuse(BadField, "have: expected a public key of 32 bytes and pairs of numbers")
		}
		out := Have{Author: identity.IDOf(h.Author)}
		for i := 0; i < len(h.Spans); i += 2 {
			out.Spans = append(out.Spans, Span{h.Spans[i], h.Spans[i+1]})
		}
		s.Have = append(s.Have, out)
	}
	return s, nil
}

func (r *Request) check() error {
	n := 0
	if r.Query != nil {
		n++
		if _, err := ParseValue(r.Query.Type, r.Query.Value); err != nil {
			return err
		}
	}
	if r.Fetch != nil {
		n++
	}
	if r.Sync != nil {
		n++
		if err := r.Sync.check(); err != nil {
			return err
		}
	}
	if r.Chain != nil {
		n++
		if err := checkRound(r.Chain.Height); err != nil {
			return err
		}
	}
	if n != 1 {
		return Refuse(Malformed, "request: %d questions: expected one", n)
	}
	return nil
}

func (s *Sync) check() error {
	if len(s.Have) > MaxSite {
		return Refuse(WrongLength, "have: %d authors: expected at most %d", len(s.Have), MaxSite)
	}
	for _, h := range s.Have {
		if len(h.Spans) > MaxSpans {
			return Refuse(WrongLength, "spans: %d: expected at most %d", len(h.Spans), MaxSpans)
		}
		for i, sp := range h.Spans {
			if sp.From > sp.To || sp.To > MaxSeq || (i > 0 && sp.From <= h.Spans[i-1].To) {
				return Refuse(BadField, "spans: expected ascending ranges that do not touch")
			}
		}
	}
	return nil
}

// EncodeResponse encodes a response after checking its limits.
func EncodeResponse(r *Response) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b := responseBody{Version: Version, Refused: string(r.Refused), Blob: r.Blob, Items: r.Items, More: r.More, Own: r.Own}
	if r.Answer != nil {
		b.Answer = &answerBody{Seen: r.Answer.Seen, Count: r.Answer.Count}
		if !r.Answer.Last.IsZero() {
			b.Answer.Last = r.Answer.Last.Unix()
		}
	}
	out, err := canon.Marshal(b)
	if err == nil && len(out) > MaxResponse {
		err = Refuse(Oversized, "response of %d bytes: expected at most %d", len(out), MaxResponse)
	}
	return out, err
}

// DecodeResponse reads and checks a response. Items and Blob are still to be
// opened. The error is always a *Refusal.
func DecodeResponse(in []byte) (*Response, error) {
	if len(in) > MaxResponse {
		return nil, Refuse(Oversized, "response of %d bytes: expected at most %d", len(in), MaxResponse)
	}
	var b responseBody
	if err := unmarshal(in, &b); err != nil {
		return nil, err
	}
	if b.Version != Version {
		return nil, Refuse(BadVersion, "%d: expected %d", b.Version, Version)
	}
	if len(b.Refused) > 32 {
		return nil, Refuse(BadField, "refused: %d bytes: expected at most 32", len(b.Refused))
	}
	r := &Response{Refused: Reason(b.Refused), Blob: b.Blob, Items: b.Items, More: b.More, Own: b.Own}
	if b.Answer != nil {
		r.Answer = &Answer{Seen: b.Answer.Seen, Count: b.Answer.Count}
		if b.Answer.Last != 0 {
			r.Answer.Last = time.Unix(b.Answer.Last, 0).UTC()
		}
	}
	return r, r.check()
}

func (r *Response) check() error {
	if len(r.Items) > MaxItems {
		return Refuse(WrongLength, "items: %d: expected at most %d", len(r.Items), MaxItems)
	}
	for _, it := range r.Items {
		if len(it) == 0 || len(it) > MaxSmall {
			return Refuse(Oversized, "items: %d bytes: expected 1 to %d", len(it), MaxSmall)
		}
	}
	if r.Own > MaxSeq {
		return Refuse(BadField, "own: %d: expected at most %d", r.Own, uint64(MaxSeq))
	}
	if len(r.Blob) > MaxDelta {
		return Refuse(Oversized, "blob: %d bytes: expected at most %d", len(r.Blob), MaxDelta)
	}
	return nil
}
