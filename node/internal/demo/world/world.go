// Package world brings the demo's three sites to life, in two ways: Soft runs
// three nodes in this process over software planes, with a real libp2p mesh on
// loopback; Wire starts the real daemon in each gateway's namespace. Either way
// the story speaks to them through api.Backend, as a person's commands do.
package world

import (
	"context"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// What the demo's sites differ in from a site's defaults: it has minutes where
// a site has days. What was seen waits for ripen before it may teach or test
// a later model: long enough for the story to find out that it was an attack.
const (
	organisation = "hedgerow-demo"
	warmupFlows  = 800
	settle       = 4 * time.Second
	suspendFor   = 30 * time.Second
	ripen        = 20 * time.Second
	shadow       = 400 * time.Millisecond
	canary       = 400 * time.Millisecond
	canaryShare  = 0.5
	trialReports = 4
	roundEvery   = time.Hour // the story starts rounds itself
	gather       = 10 * time.Second
)

// Options of both worlds.
type Options struct {
	Learner bool

	tap func(site string, e *dataplane.Event) // for tests: what each node sees
}

// site adapts a daemon to what the story asks of it.
type site struct {
	name string
	b    api.Backend
}

func (s *site) Name() string { return s.name }

func (s *site) Status(ctx context.Context) (demo.Status, error) {
	st, err := s.b.Status(ctx)
	if err != nil {
		return demo.Status{}, err
	}
	return demo.Status{
		Mode: st.Mode, Plane: st.Plane.Attach, Learning: st.Learning.Enabled, Seen: st.Learning.Seen, Needed: st.Learning.Needed,
		Wait:    time.Duration(st.Learning.WaitS * float64(time.Second)),
		Judging: st.Learning.Judging, Model: st.Learning.Model, Shared: st.Learning.Shared,
		Round: st.Mesh.Adopted, Connected: st.Mesh.Connected, Kernel: kernelOf(st.Learning.Kernel),
	}, nil
}

// kernelOf is what a site tells of its scorer, once one is in the packet path.
func kernelOf(k *api.KernelModel) *demo.Kernel {
	if k == nil || k.Deciding == nil || k.Deciding.Hash == "" {
		return nil
	}
	in := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	d := k.Deciding
	return &demo.Kernel{
		Mode: k.Mode, Scorer: d.Hash, Confirmed: k.Report.Attacks, Held: k.Report.Held, Wanted: k.Report.Wanted, Distilled: in(k.TookS),
		Compiled: in(d.CompileMS / 1e3), Verified: in(d.VerifyMS / 1e3), Swapped: in(d.SwapMS / 1e3),
		FromWord: in(k.WordS), FromModel: in(k.ModelS), Scored: d.Scored, Would: d.Shadowed + d.Suspended + d.Monitored,
	}
}

func (s *site) Events(ctx context.Context, since time.Time) (<-chan *event.Event, error) {
	return s.b.Follow(ctx, api.Query{
		Kinds: []event.Kind{event.KindAlert, event.KindVerdict, event.KindIndicator, event.KindModel}, Since: since,
	})
}

func (s *site) SetMode(ctx context.Context, mode string) error { return s.b.SetMode(ctx, mode) }

func (s *site) Confirm(ctx context.Context, alertID string) error {
	return s.b.Label(ctx, alertID, true)
}

func (s *site) StartRound(ctx context.Context) (uint64, error) { return s.b.StartRound(ctx) }

var _ demo.Site = (*site)(nil)
