package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/soft"
)

// mesh is a run of whole nodes on its way. Time goes in steps: all sites live through
// one, on as many cores as there are; then, one after the other in their order, what
// they sent is posted and what they noted for later is done. Nothing else passes
// between them, so the number of cores changes nothing.
type mesh struct {
	s       *Scenario
	sc      *scenario.Scenario
	start   time.Time
	now     time.Time
	step    time.Duration
	sites   []*whole
	bus     *bus
	tasks   pile[task]
	hostile map[netip.Addr]*attacker
	visits  []*visit
	workers int
	liars   *liars // nil: nobody lies
}

// epoch is when every simulation begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// stride is a step of time. A message is never under way for less.
const stride = 50 * time.Millisecond

// Outcome is what a run made, at either depth.
type Outcome interface {
	Print(w io.Writer) error // in a few lines
	HTML(w io.Writer) error  // as one page that loads nothing from elsewhere
	Save(dir string) error   // tables, figures and the page, into a folder that it makes
}

// Play plays a scenario at its depth.
func Play(ctx context.Context, s *Scenario, o Options) (Outcome, error) {
	if s.Depth == DepthMesh {
		return RunMesh(ctx, s, o)
	}
	return Run(ctx, s, o)
}

// RunMesh plays a scenario of depth mesh.
func RunMesh(ctx context.Context, s *Scenario, o Options) (r *MeshResult, err error) {
	if s.Depth != DepthMesh {
		return nil, fmt.Errorf("depth: found %q: expected %q", s.Depth, DepthMesh)
	}
	if o.Library == nil {
		o.Library = Builtin()
	}
	if err := s.checkMesh(o.Library); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	m, err := newMesh(ctx, s, o)
	defer func() {
		stop()
		err = errors.Join(err, m.close())
	}()
	if err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	if err := m.live(ctx, seconds(s.Nodes.Seconds), o.Told); err != nil {
		return nil, err
	}
	return m.result(), nil
}

// live lets all sites live for a while.
func (m *mesh) live(ctx context.Context, long time.Duration, told func(done, total int)) error {
	total, all := int(long/m.step), int(long/time.Second)
	for k := range total {
		second := int(time.Duration(k+1) * m.step / time.Second)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("sim: second %d of %d: %w", second, all, err)
		}
		if err := m.stride(); err != nil {
			return fmt.Errorf("sim: %w", err)
		}
		if told != nil && time.Duration(k+1)*m.step%time.Second == 0 {
			told(second, all)
		}
	}
	return nil
}

func newMesh(ctx context.Context, s *Scenario, o Options) (*mesh, error) {
	m := &mesh{s: s, start: epoch, now: epoch, step: stride, hostile: map[netip.Addr]*attacker{}, workers: o.Workers}
	if m.workers <= 0 {
		m.workers = runtime.GOMAXPROCS(0)
	}
	names := make([]string, s.Sites.Count)
	for i := range names {
		names[i] = fmt.Sprintf("site-%03d", i+1)
	}
	m.sc = scenario.Among(s.Seed, names...)
	if err := m.found(o.Library); err != nil {
		return m, err
	}
	if err := m.populate(); err != nil {
		return m, err
	}
	return m, m.open(ctx)
}

// found gives each site of the scenario its place in the mesh.
func (m *mesh) found(lib *Library) error {
	s := m.s
	m.bus = &bus{s: s, at: map[identity.ID]int{}, links: newLinks(&s.Network, s.Seed, s.Sites.Count)}
	for i, site := range m.sc.Sites {
		w := &whole{i: i, site: site, clock: m.start}
		if n := s.Nodes.Organisations; n > 0 {
			w.org = i % n
		}
		var err error
		if w.key, err = keyOf(s.Seed, i); err != nil {
			return err
		}
		m.bus.at[w.key.ID()] = i
		m.sites = append(m.sites, w)
	}
	m.bus.sites = m.sites
	if err := m.conspire(lib); err != nil {
		return err
	}
	ids := make([]identity.ID, len(m.sites))
	for i, w := range m.sites {
		ids[i] = w.key.ID()
	}
	if m.liars != nil {
		for _, x := range m.liars.masks {
			ids = append(ids, x.key.ID())
		}
	}
	for _, w := range m.sites {
		w.seen = watch{ids: ids, hostile: m.hostile, known: map[string]bool{}}
	}
	return nil
}

// open makes all nodes.
func (m *mesh) open(ctx context.Context) error {
	err := m.each(func(w *whole) error {
		if err := m.build(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", w.site.Name, err)
		}
		return nil
	})
	if err == nil {
		m.bus.relink(0)
	}
	return err
}

// populate gives each site its ordinary work and its visitors.
func (m *mesh) populate() error {
	for _, w := range m.sites {
		here := *m.sc
		here.Sites = []*scenario.Site{w.site}
		var err error
		if w.world, err = soft.New(&here, map[string]soft.FrameSink{w.site.Name: w}); err != nil {
			return err
		}
		w.source = m.sc.Ordinary(w.site, m.s.Nodes.Flows)
		w.next(m.start)
	}
	m.campaigns()
	return nil
}

// each lets all sites do something at once.
func (m *mesh) each(f func(w *whole) error) error {
	errs := make([]error, len(m.sites))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(m.workers, len(m.sites)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(errs); i = int(next.Add(1)) - 1 {
				errs[i] = f(m.sites[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (m *mesh) stride() error {
	until := m.now.Add(m.step)
	if err := m.each(func(w *whole) error { return w.live(until) }); err != nil {
		return err
	}
	m.now = until
	m.bus.post()
	m.bus.relink(m.since(until))
	if err := m.speak(); err != nil {
		return err
	}
	m.collect()
	for len(m.tasks) > 0 && !m.tasks[0].at.After(m.now) {
		m.tasks.take().do()
		m.collect()
	}
	return nil
}

// collect takes what the sites noted for later.
func (m *mesh) collect() {
	for _, w := range m.sites {
		for _, x := range w.later {
			x.at = x.at.Add(m.way(x))
			m.tasks.put(x)
		}
		w.later = nil
	}
}

// way is how long a request and its answer are under way.
func (m *mesh) way(x task) time.Duration {
	rng := source(m.s.Seed, forMessages, x.site, int(x.n))
	return m.bus.delay(rng) + m.bus.delay(rng)
}

func (m *mesh) close() error {
	var err error
	for _, w := range m.sites {
		err = errors.Join(err, w.close())
	}
	return err
}
