// Package stage puts a scenario's three sites up for the story: as daemons in
// network namespaces with their packet path in the kernel (Wire), or as nodes
// in this process over the software plane (Soft). Both give the story the same
// things: a network that runs sessions, and the sites to ask.
package stage

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Stage is a world that is up. Close takes it down; it may be called once.
type Stage struct {
	Network demo.Network
	Sites   []demo.Site
	Where   string // what packets run through, in a few words
	Close   func() error
}

// Options of a stage.
type Options struct {
	Scenario *scenario.Scenario
	Learner  bool
	Log      *slog.Logger

	tap  func(site string, e *dataplane.Event) // for tests
	hold func(*softStage)                      // for tests
}

func (o *Options) fill() error {
	if o.Scenario == nil {
		return errors.New("demo stage: a scenario is required")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Paces of the demo. A real site takes days where the demo takes seconds;
// everything else is as in production.
const (
	organisation = "hedgerow-demo"
	settle       = 4 * time.Second  // until the context knows who is familiar
	warmupFlows  = 600              // before the first model
	warmup       = 90 * time.Second // longest wait for them
	ripen        = 30 * time.Second // age at which traffic may teach or test a later model
	retrainEvery = time.Hour        // rounds, not retraining, are the story
	roundEvery   = time.Hour        // the story starts rounds itself
	gather       = 10 * time.Second
	suspendFor   = 30 * time.Second
	blockFor     = 10 * time.Minute
	incidents    = 5.0  // a day
	maxShare     = 0.05 // of normal traffic that blocks may touch
	maxPerHour   = 60
)

// daemon is what a running site offers: *node.Node in this process, or
// *api.Client over a socket.
type daemon interface {
	Status(ctx context.Context) (api.Status, error)
	Follow(ctx context.Context, q api.Query) (<-chan *event.Event, error)
	SetMode(ctx context.Context, mode string) error
	Label(ctx context.Context, id string, attack bool) error
	StartRound(ctx context.Context) (uint64, error)
}

// site shows a daemon to the story.
type site struct {
	name string
	d    daemon
}

func (s site) Name() string { return s.name }

func (s site) Status(ctx context.Context) (demo.Status, error) {
	st, err := s.d.Status(ctx)
	if err != nil {
		return demo.Status{}, err
	}
	return demo.Status{
		Mode: st.Mode, Plane: st.Plane.Attach, Learning: st.Learning.Enabled,
		Seen: st.Learning.Seen, Needed: st.Learning.Needed,
		Wait:    time.Duration(st.Learning.WaitS * float64(time.Second)),
		Judging: st.Learning.Judging, Model: st.Learning.Model, Shared: st.Learning.Shared,
		Round: st.Mesh.Adopted, Connected: st.Mesh.Connected,
	}, nil
}

func (s site) Events(ctx context.Context, since time.Time) (<-chan *event.Event, error) {
	return s.d.Follow(ctx, api.Query{
		Kinds: []event.Kind{event.KindAlert, event.KindVerdict, event.KindIndicator, event.KindModel}, Since: since,
	})
}

func (s site) SetMode(ctx context.Context, mode string) error { return s.d.SetMode(ctx, mode) }

func (s site) Confirm(ctx context.Context, alertID string) error {
	return s.d.Label(ctx, alertID, true)
}

func (s site) StartRound(ctx context.Context) (uint64, error) { return s.d.StartRound(ctx) }
