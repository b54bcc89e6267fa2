package stage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/soft"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// Dialer makes the transport of one site of a roster. The site's own entry
// names the addresses to listen at; it returns the addresses to put there for
// the others when they are known only now.
type Dialer func(key *identity.Key, organisation string, roster []federation.Site) (federation.Transport, error)

// Soft puts the sites up as nodes in this process, each over a software plane,
// joined by the transports that dial makes. Nothing touches the disk. addrs
// gives each site's listen addresses by index; it may be nil when the transport
// needs none.
func Soft(ctx context.Context, o Options, addrs func(i int) []string, dial Dialer) (*Stage, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	s := &softStage{o: o}
	if err := s.build(addrs, dial); err != nil {
		return nil, errors.Join(fmt.Errorf("demo stage: %w", err), s.close())
	}
	st := &Stage{Where: "in this process (software plane, mesh on loopback)", Close: s.close}
	sinks := map[string]soft.FrameSink{}
	for _, x := range s.sites {
		sinks[x.name] = sink{x.plane}
		st.Sites = append(st.Sites, site{x.name, x.node})
	}
	world, err := soft.New(o.Scenario, sinks)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	st.Network = world
	if o.hold != nil {
		o.hold(s)
	}
	s.start(ctx)
	return st, nil
}

// sink shows Ethernet frames to a software plane.
type sink struct{ p *softplane.Plane }

func (s sink) Frame(hook dataplane.Hook, frame []byte, at time.Time) bool {
	return s.p.Frame(hook, softplane.Ethernet, frame, 0, at)
}

// tapped lets a test see the events that the node sees.
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

type softSite struct {
	name  string
	plane *softplane.Plane
	store *store.Store
	node  *node.Node
}

type softStage struct {
	o     Options
	sites []*softSite
	stop  context.CancelFunc
	wg    sync.WaitGroup
	mu    sync.Mutex
	errs  []error
}

func (s *softStage) build(addrs func(int) []string, dial Dialer) error {
	var keys []*identity.Key
	var roster []federation.Site
	for i, site := range s.o.Scenario.Sites {
		k, err := identity.Generate(rand.Reader)
		if err != nil {
			return err
		}
		r := federation.Site{Name: site.Name, ID: k.ID()}
		if addrs != nil {
			r.Addrs = addrs(i)
		}
		keys, roster = append(keys, k), append(roster, r)
	}
	for i, site := range s.o.Scenario.Sites {
		t, err := dial(keys[i], organisation, slices.Clone(roster))
		if err != nil {
			return fmt.Errorf("site %s: mesh: %w", site.Name, err)
		}
		if err := s.buildSite(i, site, keys[i], roster, t); err != nil {
			return fmt.Errorf("site %s: %w", site.Name, err)
		}
	}
	return nil
}

func (s *softStage) buildSite(i int, sc *scenario.Site, key *identity.Key, roster []federation.Site, t federation.Transport) error {
	x := &softSite{name: sc.Name}
	s.sites = append(s.sites, x)
	log := s.o.Log.With("site", sc.Name)
	var err error
	if x.plane, err = softplane.Open(softplane.Options{}); err != nil {
		return err
	}
	if x.store, err = store.Open("", store.Options{InMemory: true, Log: log}); err != nil {
		return err
	}
	seed := s.o.Scenario.Seed*16 + uint64(i) + 1
	x.node, err = node.New(node.Options{
		Site: sc.Name, Plane: tapped{x.plane, sc.Name, s.o.tap}, Mode: dataplane.Monitor, Store: x.store, Key: key, Log: log,
		Learner: node.LearnerOptions{
			Enabled: s.o.Learner, WarmupFlows: warmupFlows, Warmup: warmup, Wait: ripen,
			RetrainEvery: retrainEvery, IncidentsPerDay: incidents, Seed: seed,
			Context: feature.ContextOptions{Settle: settle, Seed: seed},
		},
		Policy: node.PolicyOptions{
			Suspend: suspendFor, Block: blockFor, MaxBlocksPerHour: maxPerHour, MaxShare: maxShare, Rules: true,
		},
		Mesh: node.MeshOptions{
			Organisation: organisation, Roster: roster, Transport: t, RoundEvery: roundEvery, Gather: gather,
		},
	})
	return err
}

// start runs the nodes until close.
func (s *softStage) start(ctx context.Context) {
	ctx, s.stop = context.WithCancel(ctx)
	for _, x := range s.sites {
		s.wg.Go(func() {
			if err := x.node.Run(ctx); err != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.errs = append(s.errs, fmt.Errorf("site %s: %w", x.name, err))
			}
		})
		s.wg.Go(func() { advance(ctx, x.plane) })
	}
}

// advance moves a plane's time on when no packet does, so that silent flows end.
func advance(ctx context.Context, p *softplane.Plane) {
	t := time.NewTicker(500 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			p.Advance(now)
		case <-ctx.Done():
			return
		}
	}
}

func (s *softStage) close() error {
	if s.stop != nil {
		s.stop()
	}
	s.wg.Wait()
	errs := s.errs
	for _, x := range s.sites {
		if x.plane != nil {
			errs = append(errs, x.plane.Close())
		}
		if x.store != nil {
			errs = append(errs, x.store.Close())
		}
	}
	return errors.Join(errs...)
}
