package lifecycle

import "time"

// Stage is where a model stands.
type Stage string

// Stages.
const (
	Candidate Stage = "candidate" // waits for its first examination
	Shadow    Stage = "shadow"    // scores beside the active model, without a say
	Canary    Stage = "canary"    // decides for a share of the hosts
	Active    Stage = "active"    // decides
	Retired   Stage = "retired"
)

// End says how a retired model came to its end.
type End string

// Ends.
const (
	Refused    End = "refused"     // by the gate
	Superseded End = "superseded"  // another took its place
	RolledBack End = "rolled-back" // it misbehaved, or the operator said so
)

// Who decided.
const (
	ByGate     = "gate"
	ByWatch    = "watch"
	ByOperator = "operator"
)

// Where models come from.
const (
	Local = "local" // made by this site alone, or from its own data on top of what the mesh taught
	Round = "round" // a round of the mesh
)

// Window is the traffic that a model was made from.
type Window struct {
	From    time.Time `json:"from,omitzero"`
	Until   time.Time `json:"until,omitzero"` // what is later may judge it
	Normals int       `json:"normals"`        // reports of normal flows
	Attacks int       `json:"attacks"`        // labelled examples
}

// Proposal is a new model.
type Proposal struct {
	ID     string // hash of the model, lower-case hex
	Parent string // hash of the model that it grew from, "" for none
	// Base is the model that this site made alone and that is inside of this
	// one; "" for a model that is its own base.
	Base   string
	Origin string // Local or Round
	Round  uint64 // whose shared part is inside, 0 for none
	Data   Window
	Why    string // it was made ahead of its time, "" when it was not
}

// Step is one change of a model's stage, and why.
type Step struct {
	At      time.Time          `json:"at"`
	To      Stage              `json:"to"`
	By      string             `json:"by"`
	Why     string             `json:"why"`
	Metrics map[string]float64 `json:"metrics,omitempty"`
}

// Model is what is known of one model. Copies that leave the machine are the
// receiver's.
type Model struct {
	ID     string    `json:"id"`
	Parent string    `json:"parent,omitempty"`
	Base   string    `json:"base"`
	Origin string    `json:"origin"`
	Round  uint64    `json:"round,omitempty"`
	Data   Window    `json:"data"`
	Stage  Stage     `json:"stage"`
	End    End       `json:"end,omitempty"`
	Since  time.Time `json:"since"` // of the stage
	// Gated says that it passed the gate's first examination; only such models
	// ever become active.
	Gated bool `json:"gated"`
	// Served says that it was active once.
	Served  bool   `json:"served,omitempty"`
	Trial   *Trial `json:"trial,omitempty"` // the newest examination
	Live    Live   `json:"live"`            // beside another, in the present stage
	History []Step `json:"history"`
}

func (x *Model) copy() Model {
	c := *x
	if x.Trial != nil {
		t := *x.Trial
		c.Trial = &t
	}
	c.History = append([]Step(nil), x.History...)
	return c
}

// Count is how one model did in an examination. Alarms are counted by cause
// (one host, one service of one peer), for the flows of one cause depend on
// each other.
type Count struct {
	Alarms   int     `json:"alarms"`   // causes of later normal traffic that it would alarm on
	Known    int     `json:"known"`    // known-normal canaries that it would alarm on
	Detected int     `json:"detected"` // confirmed behaviours that it detects
	Floor    float64 `json:"floor"`    // the least p-value that it can say
	Errors   int     `json:"errors"`   // scores that are no number in (0, 1]
}

// Trial is an examination: what a model and those it is compared with made of
// the same vectors.
type Trial struct {
	At        time.Time `json:"at"`
	Normals   int       `json:"normals"`    // later reports
	Causes    int       `json:"causes"`     // distinct ones among them
	KnownSet  int       `json:"known_set"`  // known-normal canaries
	AttackSet int       `json:"attack_set"` // confirmed behaviours
	Own       Count     `json:"own"`
	Alone     *Count    `json:"alone,omitempty"`     // the best model that the site made alone
	Base      *Count    `json:"base,omitempty"`      // what the site made alone of the model itself, when that is another one
	Incumbent *Count    `json:"incumbent,omitempty"` // the active model
}

// Live is what happened while a model scored beside another on the same
// reports. Causes that belong to an incident are left out: they are judged
// already, and an attack must not count against the model that sees it.
type Live struct {
	Reports int `json:"reports"`
	Causes  int `json:"causes"` // distinct
	Odd     int `json:"odd"`    // reports under the alarm level
	Only    int `json:"only"`   // causes that only this model would alarm on
	Other   int `json:"other"`  // causes that only the other would
	Errors  int `json:"errors"`
}

// Roles is who does what from now on; "" is nobody.
type Roles struct {
	Active   string // decides
	Champion string // the best that the site made alone: what the mesh's models must not be worse than
	Shadow   string // scores beside
	Canary   string // decides for Share of the hosts
	Share    float64
	Fallback string // scores beside while the active model is new
}

// Examine asks for a measurement of ID and of those it is compared with, on
// traffic later than Since. Answer with Machine.Examined.
type Examine struct {
	ID, Alone, Base, Incumbent string
	Since                      time.Time
}

// Effect is one thing to do. Exactly one field is set.
type Effect struct {
	Examine *Examine
	Roles   *Roles
	// Tell that a model came to a new stage: its last Step says why.
	Tell *Model
	// Forget a model: its lineage has become too old to keep.
	Forget string
	// Retrain says why a new model is wanted.
	Retrain string
}
