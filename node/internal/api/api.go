// Package api is how commands talk to a running daemon: HTTP and JSON over a
// unix socket that only its owner and group may open. It holds no state and
// decides nothing; Backend does. Bodies are bounded, unknown fields are
// refused, and every error is one line under the key "error".
package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner/budget"
	"github.com/hedgerow-mesh/hedgerow/learner/distill"
	"github.com/hedgerow-mesh/hedgerow/learner/drift"
	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Status is the site at a glance.
type Status struct {
	Site     string                `json:"site"`
	Version  string                `json:"version"`
	Started  time.Time             `json:"started"`
	Mode     string                `json:"mode"`
	Panic    bool                  `json:"panic"`
	Plane    PlaneStatus           `json:"plane"`
	Learning Learning              `json:"learning"`
	Mesh     Mesh                  `json:"mesh"`
	Privacy  *Privacy              `json:"privacy,omitempty"` // nil: updates carry no noise
	Feeds    FeedsSummary          `json:"feeds"`
	Open     int                   `json:"open_incidents"`
	Blocks   int                   `json:"blocks"`
	Store    StoreStatus           `json:"store"`
	Warnings []string              `json:"warnings,omitempty"`
	Lists    []dataplane.ListState `json:"lists"`            // what is spared, as the plane's own read-back finds it
	Floods   []*event.Event        `json:"floods,omitempty"` // that have not ended
	Uptime   time.Duration         `json:"uptime_ns"`
}

// PlaneStatus is the packet path.
type PlaneStatus struct {
	Attach    string `json:"attach"` // native, generic, software, none
	Interface string `json:"interface,omitempty"`
	Away      string `json:"away,omitempty"` // what happens while no daemon is there, in words
	dataplane.Stats
}

// Learning says plainly how far the learner is.
type Learning struct {
	Enabled   bool      `json:"enabled"`
	Seen      int       `json:"flows_seen"`
	Needed    int       `json:"flows_needed"`
	Judging   bool      `json:"judging"`
	WaitS     float64   `json:"wait_s"` // estimate until it can judge; 0 when it can, or is unknown
	Model     string    `json:"model,omitempty"`
	Shared    string    `json:"shared,omitempty"` // hash of the shared part in use
	TrainedAt time.Time `json:"trained_at,omitzero"`
	Alpha     float64   `json:"alpha"`
	Words     string    `json:"words"`
	// Quality is of the last window of traffic that was to teach; none before it.
	Quality *event.Quality `json:"quality,omitempty"`
	// Budget is what was false against what the operator accepts.
	Budget budget.Report `json:"budget"`
	// Kernel is the small scorer that was distilled from the model.
	Kernel *KernelModel `json:"kernel,omitempty"`
	// Alone is what the learner alone may do to what is ordinary here, and did.
	Alone *Alone `json:"alone,omitempty"`
	// Benefit is what the mesh's part of the model brings, absent where that is not
	// known; BenefitWords says so, and why not.
	Benefit      *lifecycle.Benefit `json:"benefit,omitempty"`
	BenefitWords string             `json:"benefit_words,omitempty"`
	// Drift is the last that was found since the model was made.
	Drift *Drift `json:"drift,omitempty"`
}

// Alone is what is ordinary at a site, and what was done to it on the learner's word
// alone. A relation is an inside host with a service, or with a caller from outside.
type Alone struct {
	Relations int       `json:"relations"`           // ordinary ones, seen within a day
	Cut       int       `json:"relations_cut"`       // of them held up within an hour
	Flows     int       `json:"flows"`               // of them within an hour
	Stopped   int       `json:"flows_stopped"`       // of these
	Held      int       `json:"held_back"`           // times that more was refused, since the start
	Changing  bool      `json:"changing"`            // the site is taken to be changing
	Since     time.Time `json:"since,omitzero"`      // of that
	Until     time.Time `json:"until,omitzero"`      // at least
	Probation string    `json:"probation,omitempty"` // why it has no effect yet
	Words     string    `json:"words"`
}

// Drift says that traffic is otherwise than what the model learnt, and by whom.
type Drift struct {
	At       time.Time     `json:"at"`
	Kind     string        `json:"kind"` // inputs, scores
	Words    string        `json:"words"`
	Features []drift.Moved `json:"features,omitempty"`
	Hosts    []string      `json:"hosts,omitempty"`
	Retrain  time.Time     `json:"retrain"` // when a new model is made for it
}

// KernelModel is the integer scorer that the kernel can run, and how it does beside
// the model that it was distilled from.
type KernelModel struct {
	Mode   string `json:"mode"`             // off, shadow
	Hash   string `json:"hash,omitempty"`   // of the scorer
	Parent string `json:"parent,omitempty"` // the model that it was distilled from
	Words  string `json:"words"`
	Why    string `json:"why,omitempty"` // there is no newer one
	// The steps of the way: the newest word of a person or a rule, the model's first
	// moment of judging, the scorer's, and how long its distillation took.
	Labelled  time.Time `json:"labelled,omitzero"`
	Retrained time.Time `json:"retrained,omitzero"`
	Distilled time.Time `json:"distilled,omitzero"`
	TookS     float64   `json:"distillation_s"`
	// From the newest word, and from the model's first moment of judging, to the first
	// scorer made after it in the packet path; 0 while there is none.
	WordS      float64                           `json:"word_to_packet_path_s,omitempty"`
	ModelS     float64                           `json:"model_to_packet_path_s,omitempty"`
	Report     distill.Report                    `json:"report"`
	Milestones [score.Milestones]KernelMilestone `json:"milestones"`
	Deciding   *KernelDeciding                   `json:"deciding,omitempty"` // the plane decides by it
}

// KernelDeciding is what the plane does by a scorer. Totals are the plane's.
type KernelDeciding struct {
	Shadow     bool      `json:"shadow"`         // it acts on nothing
	Hash       string    `json:"hash,omitempty"` // of the scorer that is there now
	Version    uint32    `json:"version"`
	Trial      string    `json:"trial,omitempty"` // the one that decides for some hosts, and until when
	TrialUntil time.Time `json:"trial_until,omitzero"`
	Since      time.Time `json:"since,omitzero"` // of this process's
	Why        string    `json:"why,omitempty"`  // a newer one is not there
	Stale      bool      `json:"stale"`          // nothing acts: the daemon was away
	CompileMS  float64   `json:"compile_ms"`
	VerifyMS   float64   `json:"verify_ms"` // loading, which the kernel's verifier does most of
	SwapMS     float64   `json:"swap_ms"`
	Reached    uint64    `json:"reached"` // milestones, and of them
	Scored     uint64    `json:"scored"`
	Shadowed   uint64    `json:"shadowed"` // at which it would have suspended, but for the shadow
	Suspended  uint64    `json:"suspended"`
	Spared     uint64    `json:"spared"`    // by the never-block list
	Monitored  uint64    `json:"monitored"` // would have been suspended, but for the mode
	Held       int       `json:"held"`      // flows now
	Dropped    uint64    `json:"dropped"`   // their packets
	// Verdicts that became part of an incident in this process, and how long after its
	// deciding packet that took the slowest of them.
	Explained   uint64  `json:"explained"`
	ExplainedMS float64 `json:"explained_ms"`
}

// Words says it for people.
func (d *KernelDeciding) Words() string {
	s := "no scorer decides in the packet path yet"
	if d.Hash != "" {
		s = fmt.Sprintf("scorer %.8s decides in the packet path: %d of %d milestones scored, %d flows suspended, %d spared, %d would be in enforce mode; %d held now",
			d.Hash, d.Scored, d.Reached, d.Suspended, d.Spared, d.Monitored, d.Held)
	}
	if d.Explained > 0 {
		s += fmt.Sprintf("; %d verdicts explained, each within %.0f ms", d.Explained, d.ExplainedMS)
	}
	if d.Trial != "" {
		s += fmt.Sprintf("; scorer %.8s decides for some hosts", d.Trial)
	}
	if d.Why != "" {
		s += "; the newest is not there: " + d.Why
	}
	return s
}

// Steps says when each step on the way to the scorer was done; "" before the first.
func (k *KernelModel) Steps() string {
	if k.Distilled.IsZero() {
		return ""
	}
	clock := func(t time.Time) string { return t.Local().Format(time.DateTime) }
	s := fmt.Sprintf("model judging since %s, distilled at %s in %.1f s from %d normal and %d confirmed flows",
		clock(k.Retrained), clock(k.Distilled), k.TookS, k.Report.Normals, k.Report.Attacks)
	if !k.Labelled.IsZero() {
		s = fmt.Sprintf("labelled at %s, ", clock(k.Labelled)) + s
	}
	if k.Report.Mute() {
		s += fmt.Sprintf(", too few to act on any: %d were kept back to calibrate it, and it takes %d", k.Report.Held, k.Report.Wanted)
	}
	d := k.Deciding
	if d == nil || d.Since.IsZero() {
		return s
	}
	does := "deciding"
	if d.Shadow {
		does = "in shadow"
	}
	s += fmt.Sprintf(", compiled in %.1f ms, verified in %.1f ms, swapped in %.2f ms, %s since %s", d.CompileMS, d.VerifyMS, d.SwapMS, does, clock(d.Since))
	var ways []string
	if k.WordS > 0 {
		ways = append(ways, fmt.Sprintf("%.1f s from the word", k.WordS))
	}
	if k.ModelS > 0 {
		ways = append(ways, fmt.Sprintf("%.1f s from the model", k.ModelS))
	}
	if len(ways) > 0 {
		s += ": " + strings.Join(ways, ", ") + " to the packet path"
	}
	return s
}

// KernelMilestone counts reports of one milestone since the scorer began.
type KernelMilestone struct {
	Packets    uint32 `json:"packets"`
	Scored     int    `json:"scored"`
	Both       int    `json:"both"`        // the scorer would act, and the model alarms
	Alone      int    `json:"alone"`       // only the scorer would act
	ModelAlone int    `json:"model_alone"` // only the model alarms
}

// Mesh is the consortium as this site sees it.
type Mesh struct {
	Enabled   bool     `json:"enabled"`
	Preset    string   `json:"preset"`
	Round     uint64   `json:"round"`
	Adopted   uint64   `json:"adopted_round"`
	Connected []string `json:"connected"`         // of other organisations as "organisation/site"
	Counted   int      `json:"counted,omitempty"` // organisations of the consortium that count
	Height    uint64   `json:"height,omitempty"`  // of the last final model of the consortium
	ID        string   `json:"id"`
	Addrs     []string `json:"addrs,omitempty"`
}

// Privacy is what the site's updates to the shared model told so far.
type Privacy struct {
	Unit   string  `json:"unit"`    // flow or host
	Spent  float64 `json:"epsilon"` // that holds at Delta
	Budget float64 `json:"budget"`
	Delta  float64 `json:"delta"`
	Rounds uint64  `json:"rounds"`
	Left   int     `json:"rounds_left"` // more like the last; -1 before the first since the start
	Words  string  `json:"words"`
}

// StoreStatus is what the state costs.
type StoreStatus struct {
	Dir    string `json:"dir"`
	Bytes  int64  `json:"bytes"`
	Events int64  `json:"events"`
	Flows  int64  `json:"flows"`
}

// Block is a standing rule with what the plane counted.
type Block struct {
	event.Block
	Enforced bool `json:"enforced"` // the plane's own read-back lists it
}

// Order is a rule that an operator asks for by hand.
type Order struct {
	Target  string  `json:"target"`
	Action  string  `json:"action"`            // block, quarantine, rate-limit, observe
	Seconds float64 `json:"seconds,omitempty"` // 0 is the configured length of a block
	Rate    uint32  `json:"rate,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	Share   bool    `json:"share,omitempty"` // hand a block to the organisation's other sites
}

// Difference is what the plane enforces against what the site intends.
type Difference struct {
	Intended int      `json:"intended"`
	Enforced int      `json:"enforced"`
	Missing  []string `json:"missing"` // intended, and not enforced
	Extra    []string `json:"extra"`   // enforced, and not intended
	Changed  []string `json:"changed"` // enforced otherwise than intended
	// Lists are what is spared and what floods are held to, read back likewise.
	Lists []dataplane.ListState `json:"lists"`
}

// None says that everything intended is enforced, and nothing else.
func (d Difference) None() bool {
	return len(d.Missing)+len(d.Extra)+len(d.Changed) == 0 &&
		!slices.ContainsFunc(d.Lists, func(s dataplane.ListState) bool { return !s.Fits() })
}

// Peer is another site.
type Peer struct {
	Name      string    `json:"name"`
	ID        string    `json:"id"`
	Connected bool      `json:"connected"`
	LatencyMS float64   `json:"latency_ms"`
	LastHeard time.Time `json:"last_heard,omitzero"`
	Words     string    `json:"words"`

	Organisation string  `json:"organisation,omitempty"` // "" is our own
	Standing     string  `json:"standing"`
	Score        float64 `json:"score"` // of its conduct: 10 is without fault, below -2500 it is not read
	Relayed      bool    `json:"relayed,omitempty"`

	Weight float64 `json:"weight,omitempty"` // of another organisation's word here, 0 to 1
}

// Explanation is everything that is known of an alert, incident or block.
type Explanation struct {
	ID       string         `json:"id"`
	Sentence string         `json:"sentence"`
	Incident *event.Event   `json:"incident,omitempty"`
	Alerts   []*event.Event `json:"alerts"`
	Chain    []*event.Event `json:"chain"` // verdicts, blocks, indicators in time order
	Undo     string         `json:"undo"`  // the command that undoes it
	Feeds    *Listing       `json:"feeds,omitempty"`
	Flood    *event.Event   `json:"flood,omitempty"` // when ID is one
}

// Query selects records.
type Query struct {
	Kinds []event.Kind
	Since time.Time
	Limit int
}

// Backend is what a running site offers. Errors that wrap ErrNotFound, ErrInvalid
// or ErrBusy become 404, 400 and 409.
type Backend interface {
	Status(ctx context.Context) (Status, error)
	Events(ctx context.Context, q Query) ([]*event.Event, error)
	Follow(ctx context.Context, q Query) (<-chan *event.Event, error)
	Explain(ctx context.Context, id string) (*Explanation, error)
	Label(ctx context.Context, id string, attack bool) error
	Blocks(ctx context.Context) ([]Block, error)
	Block(ctx context.Context, target string, d time.Duration, reason string) error
	Order(ctx context.Context, o Order) error
	Unblock(ctx context.Context, target string) error
	Verify(ctx context.Context) (Difference, error)
	Allow(ctx context.Context, entry string, remove bool) ([]string, error)
	SetMode(ctx context.Context, mode string) error
	Panic(ctx context.Context, on bool) (int, error)
	// Stop ends the daemon after it has answered; remove also ends enforcement.
	Stop(ctx context.Context, remove bool) error
	Peers(ctx context.Context) ([]Peer, error)
	ModelBackend
	HuntBackend
	RoundBackend
	HistoryBackend
	Feeds(ctx context.Context) (Feeds, error)
	Refused(ctx context.Context, name string) ([]FeedNote, error)
	ReloadFeeds(ctx context.Context, name string) (Feeds, error)
	WhyListed(ctx context.Context, addr string) (*Listing, error)
}
