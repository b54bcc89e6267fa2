// Package enforce decides. Machine is a pure state machine: flow events with
// the learner's judgement, the mesh's answers, indicators and the operator's
// commands go in, and effects come out (rules to apply, questions to ask,
// indicators to share, records to keep). It has no clock, network, disk or
// lock: the caller passes the time, serialises the calls and carries the
// effects out in order. The gateway, the replay command, the tests and the
// demo without root run this same code.
//
// The ladder, in the words of the product: a flow that does not fit is an
// alert; alerts of one cause are an incident; the flow is suspended for
// seconds and the mesh is asked once; a block needs validated evidence (the
// peer proved that it receives at its address) and either a second flow of the
// same cause, a rule's count, or another site that has seen the peer. Evidence
// that anybody could forge leads to a rate limit on new flows and never leaves
// the site.
package enforce

import (
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Evidence classes, weakest first.
const (
	Spoofable = "spoofable" // anybody could have forged the source
	Validated = "validated" // the peer answered what only a receiver at its address could know
	Operator  = "operator"  // a person said so
	Shared    = "shared"    // another site of the organisation, which validated it
)

// Sources of a block. Shared ones are "mesh:" and the site's name.
const (
	SourceLocal    = "local"
	SourceOperator = "operator"
	sourceMesh     = "mesh:"
)

// Judgement is what the learner says of a flow at one moment.
type Judgement struct {
	Judged   bool    // a model was there to judge
	P        float64 // p-value under this site's normal, 0..1
	Rank     float64 // as P, without a floor: which of two flows at it is odder
	Detector string  // self, attack, memory
	Model    string  // hash of the model
	// Recalled says that the flow is a near variant of a behaviour that the
	// operator confirmed: an alert whatever P is.
	Recalled bool
	// Much is what the flow's initiator has done too much of, model or not.
	Much feature.Excess
}

// Effect is one thing for the caller to do. Exactly one field group is set.
type Effect struct {
	// Apply: enforce Rule, then keep Block and tell Verdict with its
	// EnforcedNS set. Block is nil for suspensions.
	Apply *Apply
	// Remove lifts a rule.
	Remove *dataplane.Target
	// SetMode switches the plane.
	SetMode *dataplane.Mode
	// Ask the mesh whether it has seen Value; hand the result to Answer.
	Ask *Ask
	// Share a validated indicator.
	Share *Share
	// Withdraw what was shared for an incident or target.
	Withdraw string
	// Emit a record.
	Emit *event.Event
	// Keep a block that no rule of its own enforces, and tell of it; Forget one.
	Keep   *event.Event
	Forget string
	// Label the exemplars of an incident.
	Label *Label
	// Innocent is what a person called harmless.
	Innocent *Innocent
}

// Innocent is a value as sites share it, and until when that counts.
type Innocent struct {
	Type, Value string
	Until       time.Time
}

// Apply is a rule to enforce with the records that tell of it.
type Apply struct {
	Rule    dataplane.Rule
	Block   *event.Event
	Verdict *event.Event
	Quiet   bool // keep Block, and tell neither
}

// Ask is a question to the mesh.
type Ask struct {
	Incident string
	Value    string
}

// Share is an indicator to publish. Key is what Withdraw names later.
type Share struct {
	Key      string
	Type     string // address, service
	Value    string
	Conf     float64
	Evidence string
	Sentence string
	Incident string
	Expires  time.Time
	// Dispute says that the value is innocent, where others say that it is not; nothing
	// is published where nobody does.
	Dispute bool
}

// Label says what the flows of an incident were.
type Label struct {
	Incident string
	Attack   bool
	Family   string
	Weight   float64
	Peer     netip.Addr
}

// Options of a Machine. Zero durations and counts take the defaults in
// brackets.
type Options struct {
	Site       string
	Mode       dataplane.Mode
	SuspendFor time.Duration // 30 s
	BlockFor   time.Duration // 4 h
	// Alpha is the p-value at or below which one flow is an alert and is
	// suspended. Change it with SetBudget as models come and go.
	Alpha float64
	// Rules turns the counting rules (scan, password guessing) and the limits of what
	// a host may do over an hour or a day on.
	Rules bool
	// May asks the policy guard whether a rule may be applied: never-block
	// overlap, caps per hour, share of normal traffic. nil allows all.
	May func(now time.Time, r dataplane.Rule) error
	// Void says that the never-block list makes a block of the operator's
	// empty. The operator is not held to the caps. nil allows all.
	Void func(t dataplane.Target) error
	// Burst is how many causes the learner may raise by themselves at once, and
	// Every the time in which one more may follow (8, 5 h). What is more is told as
	// one incident, which suspends and blocks nothing.
	Burst int
	Every time.Duration
	// Share is what part of the ordinary relations, and of their flows, the learner's
	// word alone may cut off within an hour (0.05), and Settle for how long a relation
	// has to be ordinary before it counts as that. Where Settle is set, everything
	// is taken for ordinary for twice that long at first.
	Share  float64
	Settle time.Duration
	// Probation says why the learner's word alone does nothing yet. nil never does.
	Probation func(now time.Time) error
	// Hold says why what only the learner found may not be blocked now; a person
	// who confirms it may. nil never does.
	Hold func(now time.Time) error
	// Inside says whether an address is on the protected side: only such a host
	// can be put in quarantine. nil takes all for it.
	Inside func(a netip.Addr) bool
	// MaxIncidents bounds memory (4096).
	MaxIncidents int
	// NewID names what is told (event.NewID).
	NewID func(time.Time) string
}

// repeat is how many alerted flows of one cause make a block without the
// mesh or a rule.
const repeat = 2

func (o *Options) defaults() {
	if o.SuspendFor == 0 {
		o.SuspendFor = 30 * time.Second
	}
	if o.BlockFor == 0 {
		o.BlockFor = 4 * time.Hour
	}
	if o.Burst == 0 {
		o.Burst = 8
	}
	if o.Every == 0 {
		o.Every = 24 * time.Hour / 5
	}
	if o.Share == 0 {
		o.Share = 0.05
	}
	if o.MaxIncidents == 0 {
		o.MaxIncidents = 4096
	}
	if o.NewID == nil {
		o.NewID = event.NewID
	}
}

// endpointName is an address, or "" for none.
func endpointName(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
