package wire

import (
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// Type says what an indicator's value is.
type Type string

// Types. An address is an IP address or a prefix no wider than /24 or /48, as
// "203.0.113.9" or "203.0.113.0/24"; a service is "203.0.113.9 tcp/8443". The others
// are in name.go.
const (
	TypeAddress Type = "address"
	TypeService Type = "service"
)

// Evidence is what an indicator stands on.
type Evidence string

// Evidence classes. Validated means that the peer proved that it receives at
// its address; nothing spoofable ever blocks.
const (
	Validated Evidence = "validated"
	Spoofable Evidence = "spoofable"
	Operator  Evidence = "operator"
)

// Stance is what an indicator says about its value. An author has one word about
// a value: a later one, of whatever stance, takes its place.
type Stance string

// Stances. A claim asks for a defence. A sighting says that the author met the
// same peer, and asks for nothing. A dispute says that the peer is innocent. Each
// stands on the author's own evidence.
const (
	Claims   Stance = ""
	Sights   Stance = "sighting"
	Disputes Stance = "dispute"
)

// TLP is the traffic light protocol's mark (FIRST TLP 2.0). Red is for named
// recipients and therefore never travels here.
type TLP string

// Marks.
const (
	TLPClear       TLP = "clear"
	TLPGreen       TLP = "green"
	TLPAmber       TLP = "amber"
	TLPAmberStrict TLP = "amber+strict"
)

// Indicator is a claim about an outside address or service, a domain, a client's
// fingerprint, or a behaviour.
type Indicator struct {
	ID         string // IndicatorID of author, type and value: 32 hexadecimal digits
	Type       Type
	Value      string  // canonical, public
	Score      float64 // how bad, 0..1
	Confidence float64 // how sure, 0..1
	Evidence   Evidence
	// EvidenceHash binds the claim to evidence that stays at the site; zero when
	// none was kept. A refresh with the same hash cannot live past MaxLife.
	EvidenceHash Hash
	Sentence     string // at most MaxSentence characters, see Sanitise
	First, Last  time.Time
	Expires      time.Time // at most MaxLife after First
	TLP          TLP
	Stance       Stance
}

// Withdrawal takes back the author's own indicator.
type Withdrawal struct {
	ID string
}

// Begin opens a round on a base.
type Begin struct {
	Round uint64
	Base  Hash
}

// Offer says that the author's delta for a round exists, is sealed under this
// hash, and can be fetched.
type Offer struct {
	Round uint64
	Base  Hash
	Delta Hash // of the sealed Delta
	Size  uint32
}

// Delta is what a site learned in one round: new parameters minus base, float32.
type Delta struct {
	Round    uint64
	Base     Hash
	Schema   string
	Examples uint32 // said by the author; never a weight
	Params   []float32
}

// List names the deltas that make a round's model.
type List struct {
	Round  uint64
	View   uint32 // which proposer in the rotation
	Base   Hash
	Deltas []Hash // ascending, distinct
}

// State is the author's current global model.
type State struct {
	Round uint64
	View  uint32
	Hash  Hash
}

// Query asks whether a site has seen a value.
type Query struct {
	Type  Type
	Value string
}

// Answer is yes or no, and how often and when last, as whole seconds.
type Answer struct {
	Seen  bool
	Count uint64
	Last  time.Time // zero when never
}

// Span is an inclusive range of sequence numbers.
type Span struct {
	From, To uint64
}

// Have is what a site has seen of one author.
type Have struct {
	Author identity.ID
	Spans  []Span // ascending, apart
}

// Fetch asks for bytes by hash: a sealed Delta, or a model's parameters.
type Fetch struct {
	Hash   Hash
	Params bool
}

// Kind names the payload.
func (*Indicator) Kind() Kind { return KindIndicator }

// Kind names the payload.
func (*Withdrawal) Kind() Kind { return KindWithdrawal }

// Kind names the payload.
func (*Begin) Kind() Kind { return KindBegin }

// Kind names the payload.
func (*Offer) Kind() Kind { return KindOffer }

// Kind names the payload.
func (*Delta) Kind() Kind { return KindDelta }

// Kind names the payload.
func (*List) Kind() Kind { return KindList }

// Kind names the payload.
func (*State) Kind() Kind { return KindState }
