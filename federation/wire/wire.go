// Package wire is what sites say to each other: messages, their one encoding,
// and the limits that every decoder enforces before anything else happens.
//
// A message that is broadcast is an envelope: version, kind, author, sequence,
// time, payload, and the author's signature over all of it. Seal makes one; Open
// checks everything about one that can be checked without memory, so that the
// machines behind it (federation/intel, federation/round) see only well-formed
// payloads of roster members. What needs memory (replay, budgets, rounds) is
// theirs. Requests between two sites (Request, Response) are not signed: the
// transport has proved who asks and who answers.
//
// The encoding is CBOR (RFC 8949) with integer keys in its core deterministic
// form. Decoding is strict: unknown or doubled keys, indefinite lengths, tags,
// NaN, infinities and invalid UTF-8 are refused, and a message that does not
// encode back to the very same bytes is refused too; so one message has one hash.
//
// What leaves a site is listed here and nowhere else. An indicator names an
// outside address or service, a domain, a TLS client's fingerprint or a behaviour
// (coarse bounds of many flows), when it was seen, how sure the site is, and one
// sentence; private addresses and inside names are refused in the value, and
// private addresses in the sentence, when made and when received.
package wire

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// Version of the envelope and of everything in it.
const Version = 1

// Limits. Everything larger is refused before it is looked at.
const (
	MaxParams    = 1 << 16            // parameters of a model
	MaxDelta     = 4*MaxParams + 1024 // bytes of a sealed Delta
	MaxSmall     = 16 << 10           // bytes of any other sealed message
	MaxRequest   = 64 << 10           // bytes of a Request
	MaxResponse  = 1 << 20            // bytes of a Response
	MaxSite      = 256                // sites of a roster, hashes of a List, authors of a Digest
	MaxSpans     = 64                 // spans per author in a Digest
	MaxItems     = 256                // messages in a Response
	MaxSentence  = 200                // characters
	MaxSchema    = 64                 // bytes of a schema's name
	MaxNorm      = 1e4                // Euclidean norm of a delta, and bound of each parameter
	MaxRound     = 1 << 40            // no honest site gets there
	MaxSeq       = 1 << 53            // sequence numbers stay exact in any reader's numbers
	MaxSkew      = 2 * time.Minute    // how far ahead of our clock a message may be
	MaxAge       = MaxLife            // how old a message may be
	MaxLife      = 7 * 24 * time.Hour // of an indicator, refreshes included
	DefaultLife  = 4 * time.Hour
	minAddr4Bits = 24
	minAddr6Bits = 48
)

// Kind names a payload.
type Kind string

// Kinds of sealed messages.
const (
	KindIndicator  Kind = "indicator"
	KindWithdrawal Kind = "withdrawal"
	KindBegin      Kind = "begin"
	KindOffer      Kind = "offer"
	KindDelta      Kind = "delta"
	KindList       Kind = "list"
	KindState      Kind = "state"
)

// Hash is a SHA-256 sum. Its zero value means "none".
type Hash [32]byte

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Short is its first twelve digits, for people.
func (h Hash) Short() string { return hex.EncodeToString(h[:6]) }

// ParseHash reads what String wrote.
func ParseHash(s string) (h Hash, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return Hash{}, fmt.Errorf("hash %.80q: expected %d hexadecimal digits", s, 2*len(h))
	}
	copy(h[:], b)
	return h, nil
}

// A Payload is one of *Indicator, *Withdrawal, *Begin, *Offer, *Delta, *List, *State.
type Payload interface {
	// Kind names the payload's type.
	Kind() Kind
	// check validates everything that does not depend on the envelope.
	check() error
}

// A Message is an opened envelope: well-formed, signed by its author, fresh.
type Message struct {
	Author  identity.ID
	Seq     uint64
	Time    time.Time // as the author's clock said
	Payload Payload
	Raw     []byte // the sealed bytes; shared, not to be changed
	Hash    Hash   // of Raw
}

// Kind is the payload's kind.
func (m *Message) Kind() Kind { return m.Payload.Kind() }

// A Reason names why a message is refused. Reasons are counted by name.
type Reason string

// Reasons.
const (
	Oversized     Reason = "oversized"
	Malformed     Reason = "malformed"
	BadVersion    Reason = "unknown-version"
	BadKind       Reason = "unknown-kind"
	NotMember     Reason = "not-a-member"
	NotSender     Reason = "not-the-sender"
	BadSignature  Reason = "bad-signature"
	BadField      Reason = "bad-field"
	PrivateValue  Reason = "private-address"
	PrefixTooWide Reason = "prefix-too-wide"
	NameTooWide   Reason = "name-too-wide"
	NotFinite     Reason = "not-finite"
	NormTooLarge  Reason = "norm-too-large"
	WrongLength   Reason = "wrong-length"
	WrongSchema   Reason = "wrong-schema"
	FromFuture    Reason = "from-the-future"
	Stale         Reason = "stale"
	Expired       Reason = "expired"
	TooLong       Reason = "expiry-too-long"
	Duplicate     Reason = "duplicate"
	Replayed      Reason = "replayed"
	OverBudget    Reason = "over-budget"
	Full          Reason = "full"
	Withdrawn     Reason = "withdrawn"
	Superseded    Reason = "superseded"
	NotFound      Reason = "not-found"
	Equivocation  Reason = "equivocation"
	WrongRound    Reason = "wrong-round"
	WrongBase     Reason = "wrong-base"
	NotProposer   Reason = "not-the-proposer"
	WrongTopic    Reason = "wrong-topic"
	NoEvidence    Reason = "no-evidence"
	Echo          Reason = "echo"
	Guarded       Reason = "never-block"
	Spared        Reason = "spared-here"
	NotCounted    Reason = "not-counted-yet"
)

// Penal says whether an honest site never sends such a message, so that who
// sends it may be scored down. The others happen to honest sites on a lossy
// network or with a clock that is off.
func (r Reason) Penal() bool {
	switch r {
	case Oversized, Malformed, BadKind, NotMember, NotSender, BadSignature, BadField, PrivateValue,
		PrefixTooWide, NotFinite, NormTooLarge, WrongLength, TooLong, Equivocation, NotProposer, WrongTopic, NoEvidence, Guarded:
		return true
	}
	return false
}

// A Refusal is the error of everything in federation that turns a message down.
type Refusal struct {
	Reason Reason
	Detail string // field, what was found, what was expected
}

// Error is "reason: detail".
func (r *Refusal) Error() string {
	if r.Detail == "" {
		return string(r.Reason)
	}
	return string(r.Reason) + ": " + r.Detail
}

// Refuse makes a Refusal.
func Refuse(r Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

// ReasonOf is the reason in err, or Malformed for an error of another kind.
func ReasonOf(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return Malformed
}
