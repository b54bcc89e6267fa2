// Package demo tells the product's whole story on one machine: three sites
// learn their normal, attackers appear, flows are suspended, the mesh is asked,
// blocks land, the other sites are protected before the attacker reaches them,
// and a model round teaches a site what it missed.
//
// The story (this package) knows the sites only through Site and the network
// only through Network. Two networks exist: demo/lab, real sockets in network
// namespaces with one daemon per gateway, and demo/soft, the same sessions as
// frames through the software plane. The story fakes nothing: each of its
// steps waits for what the sites themselves tell, and names the step that did
// not happen.
package demo

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Status is what the story asks of a site.
type Status struct {
	Mode      string        // monitor, enforce
	Plane     string        // native, generic, software
	Learning  bool          // the learner is on
	Seen      int           // flows learned from so far
	Needed    int           // flows needed before the site can judge
	Wait      time.Duration // until it can judge, by its own estimate; 0 unknown or done
	Judging   bool          // a model is active
	Model     string        // hash of the active model, "" when none
	Shared    string        // hash of the shared part in use, "" when none
	Round     uint64        // last round of shared models that was adopted
	Connected []string      // names of the other sites it is connected to
	Kernel    *Kernel       // its scorer in the packet path, nil: it has none
}

// Kernel is a site's scorer in the packet path: how it came there, and what it found.
type Kernel struct {
	Mode      string        `json:"mode"` // shadow: it counts and does nothing; on
	Scorer    string        `json:"scorer"`
	Confirmed int           `json:"confirmed_flows"` // that taught it, beside the model
	Held      int           `json:"held_flows"`      // normal ones that calibrated it, and how many it takes to act
	Wanted    int           `json:"wanted_flows"`
	Distilled time.Duration `json:"distilled_ns"` // how long each step took
	Compiled  time.Duration `json:"compiled_ns"`
	Verified  time.Duration `json:"verified_ns"`
	Swapped   time.Duration `json:"swapped_ns"`
	// FromWord is from somebody's or a rule's newest word on what flows were to the
	// scorer that it taught in the packet path; FromModel from the moment at which the
	// newest model began to judge. 0: there was none.
	FromWord  time.Duration `json:"word_to_packet_path_ns"`
	FromModel time.Duration `json:"model_to_packet_path_ns"`
	// Milestones of flows that the packet path scored since the site began, by this
	// scorer or one before, and those at which it would have acted, or did.
	Scored uint64 `json:"milestones_scored"`
	Would  uint64 `json:"would_act"`
}

// Site is one gateway as the story sees it. Methods may be called from any
// goroutine.
type Site interface {
	Name() string
	Status(ctx context.Context) (Status, error)
	// Events delivers every event from since on, in order, until ctx ends;
	// then the channel is closed. It is closed early only when the site is
	// gone or the reader was too slow.
	Events(ctx context.Context, since time.Time) (<-chan *event.Event, error)
	// SetMode switches between "monitor" and "enforce".
	SetMode(ctx context.Context, mode string) error
	// Confirm labels an alert as a true attack.
	Confirm(ctx context.Context, alertID string) error
	// StartRound begins the next round of shared models now and returns its
	// number.
	StartRound(ctx context.Context) (uint64, error)
}

// Network runs sessions. Run returns when the session has ended, failed or
// timed out; it may be called from any number of goroutines.
type Network interface {
	Run(ctx context.Context, s *scenario.Session) scenario.Result
}

// Options of the story.
type Options struct {
	Scenario *scenario.Scenario
	Network  Network
	Sites    []Site // in the scenario's order
	// Where says in a few words what the packets run through; it is printed.
	Where    string
	Attacks  []scenario.Attack // which of them happen, in the story's order
	Learner  bool              // false: beacon and spurt must be missed
	Out      io.Writer         // the narration and the table
	JSON     bool              // only the report, as JSON
	Verbose  bool              // every alert and verdict as it comes
	Log      *slog.Logger
	LearnFor time.Duration // how long learning may take; 0 is two minutes
}
