package world

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/gossip"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/soft"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// Soft is three nodes in this process. It needs no privilege.
type Soft struct {
	*soft.World
	Sites  []demo.Site
	stop   context.CancelFunc
	wait   sync.WaitGroup
	mu     sync.Mutex
	err    error
	stores []*store.Store
}

// sink shows a site's frames to its software plane.
type sink struct{ p *softplane.Plane }

func (s sink) Frame(hook dataplane.Hook, frame []byte, at time.Time) bool {
	return s.p.Frame(hook, softplane.Ethernet, frame, 0, at)
}

// dialer makes one site's end of the mesh, and says where it listens.
type dialer func(k *identity.Key, roster []federation.Site, log *slog.Logger) (t federation.Transport, addrs func() []string, err error)

// overLoopback is libp2p on a free port of the loopback interface.
func overLoopback(k *identity.Key, roster []federation.Site, log *slog.Logger) (federation.Transport, func() []string, error) {
	t, err := gossip.New(gossip.Options{
		Key: k, Organisation: organisation, Roster: roster, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Log: log,
	})
	if err != nil {
		return nil, nil, err
	}
	return t, t.Addrs, nil
}

// UpSoft starts the nodes.
func UpSoft(ctx context.Context, sc *scenario.Scenario, o Options, log *slog.Logger) (*Soft, error) {
	return upSoft(ctx, sc, o, log, overLoopback)
}

func upSoft(ctx context.Context, sc *scenario.Scenario, o Options, log *slog.Logger, dial dialer) (*Soft, error) {
	ctx, stop := context.WithCancel(ctx)
	w := &Soft{stop: stop}
	keys := make([]*identity.Key, len(sc.Sites))
	roster := make([]federation.Site, len(sc.Sites))
	for i, s := range sc.Sites {
		k, err := identity.Generate(rand.Reader)
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
		keys[i] = k
		roster[i] = federation.Site{Name: s.Name, ID: k.ID()}
	}
	sinks := map[string]soft.FrameSink{}
	for i, s := range sc.Sites {
		t, addrs, err := dial(keys[i], slices.Clone(roster), log.With("site", s.Name))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("demo: %s: mesh: %v", s.Name, err), w.Close())
		}
		mesh := node.MeshOptions{
			Organisation: organisation, Roster: slices.Clone(roster), Transport: t,
			RoundEvery: roundEvery, Gather: gather, Addrs: addrs,
		}
		p, err := w.start(ctx, i, s, keys[i], mesh, o, log)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("demo: %s: %v", s.Name, err), w.Close())
		}
		// Those who start later dial those who listen already.
		roster[i].Addrs = addrs()
		sinks[s.Name] = sink{p}
	}
	var err error
	if w.World, err = soft.New(sc, sinks); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Soft) start(ctx context.Context, i int, s *scenario.Site, k *identity.Key, mesh node.MeshOptions, o Options, log *slog.Logger) (*softplane.Plane, error) {
	p, err := softplane.Open(softplane.Options{Inside: []netip.Prefix{s.LAN}})
	if err != nil {
		return nil, err
	}
	st, err := store.Open("", store.Options{InMemory: true})
	if err != nil {
		return nil, err
	}
	w.stores = append(w.stores, st)
	n, err := node.New(node.Options{
		Site: s.Name, Version: "demo", Interface: "software", Plane: tapped{p, s.Name, o.tap}, Mode: dataplane.Monitor, Store: st, Key: k,
		Learner: node.LearnerOptions{
			Enabled: o.Learner, WarmupFlows: warmupFlows, Warmup: time.Hour, Wait: ripen, RetrainEvery: time.Hour,
			Shadow: shadow, Canary: canary, CanaryShare: canaryShare, TrialReports: trialReports,
			IncidentsPerDay: 5, FalseBlocksPerMonth: 1, Seed: uint64(i + 1), Context: feature.ContextOptions{Settle: settle, Seed: uint64(i + 1)},
		},
		Policy: node.PolicyOptions{Suspend: suspendFor, Block: time.Hour, MaxBlocksPerHour: 60, MaxShare: 0.05, Rules: true},
		Mesh:   mesh,
		Log:    log.With("site", s.Name),
	})
	if err != nil {
		return nil, err
	}
	w.wait.Go(func() { w.ended(n.Run(ctx)) })
	w.wait.Go(func() { beat(ctx, p) })
	w.Sites = append(w.Sites, &site{s.Name, n})
	return p, nil
}

// tapped lets a test see what the node sees.
type tapped struct {
	dataplane.Plane
	site string
	tap  func(site string, e *dataplane.Event)
}

func (p tapped) Run(ctx context.Context, handle func(*dataplane.Event)) error {
	if p.tap == nil {
		return p.Plane.Run(ctx, handle)
	}
	return p.Plane.Run(ctx, func(e *dataplane.Event) {
		p.tap(p.site, e)
		handle(e)
	})
}

// beat moves a plane's time on when nothing arrives, so that silent flows end.
func beat(ctx context.Context, p *softplane.Plane) {
	t := time.NewTicker(500 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			p.Advance(now)
		}
	}
}

func (w *Soft) ended(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = errors.Join(w.err, err)
}

// Close stops the nodes and tells what went wrong in them.
func (w *Soft) Close() error {
	w.stop()
	w.wait.Wait()
	for _, s := range w.stores {
		w.err = errors.Join(w.err, s.Close())
	}
	w.stores = nil
	return w.err
}
