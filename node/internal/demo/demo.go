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
