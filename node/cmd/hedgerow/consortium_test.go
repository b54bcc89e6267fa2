package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/membership"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// upSite is a site as `hedgerow up` runs it, over a software plane.
type upSite struct {
	*paperedSite
	cfg      *config.Config
	node     atomic.Pointer[node.Node]
	restarts atomic.Int64
}

// newUpSite is a site that will listen on a free port of loopback.
func newUpSite(t *testing.T, name string) *upSite {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Site.StateDir, cfg.Site.Name, cfg.Mesh.Listen = t.TempDir(), name, []string{at}
	return &upSite{
		paperedSite: &paperedSite{folder: papersOf(&cfg), us: membership.Us{Name: name, Key: k, Addrs: []string{at}}},
		cfg:         &cfg,
	}
}

// run is up's loop, without its kernel.
func (s *upSite) run(ctx context.Context, t *testing.T) error {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		return err
	}
	for ; err == nil; s.restarts.Add(1) {
		if err = s.once(ctx, st); errors.Is(err, membership.ErrChanged) {
			err = nil
		} else if err == nil {
			break
		}
	}
	return errors.Join(err, st.Close())
}

func (s *upSite) once(ctx context.Context, st *store.Store) error {
	p, err := softplane.Open(softplane.Options{})
	if err != nil {
		return err
	}
	mesh, keeper, err := joinMesh(s.cfg, s.us.Key, nil, func(r federation.Roll) {
		if n := s.node.Load(); n != nil {
			n.SetRoll(r)
		}
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	n, err := node.New(node.Options{
		Site: s.us.Name, Plane: p, Store: st, Key: s.us.Key, Mesh: mesh,
		Learner: node.LearnerOptions{Enabled: true, RetrainEvery: time.Hour, Warmup: time.Hour, WarmupFlows: 1000},
		Policy:  node.PolicyOptions{Suspend: time.Minute, Block: time.Hour, MaxBlocksPerHour: 60, MaxShare: 0.5},
	})
	if err != nil {
		return err
	}
	s.node.Store(n)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.Run(ctx) })
	g.Go(func() error { return keeper.Run(ctx) })
	return g.Wait()
}

func (s *upSite) mesh(t *testing.T) api.Mesh {
	n := s.node.Load()
	if n == nil {
		return api.Mesh{}
	}
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.Mesh
}

// hands gives one site's roster to another, as a pull does.
func (s *upSite) hands(t *testing.T, to *upSite) {
	t.Helper()
	now := time.Now()
	from, err := s.folder.Load(now)
	if err != nil {
		t.Fatal(err)
	}
	err = to.folder.Update(now, func(x *membership.State) error {
		for more := true; more; {
			q, err := x.Directory.Ask(now)
			if err != nil {
				return err
			}
			b, err := from.Directory.Answer(q, now)
			if err != nil {
				return err
			}
			l, err := x.Directory.Learn(b, now)
			if err != nil {
				return err
			}
			more = l.More
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// count has an organisation count: the first proposes it, the others sign until it stands.
func count(t *testing.T, organisation string, counted []*upSite) {
	t.Helper()
	out, err := counted[0].folder.Count(counted[0].us, organisation, time.Now())
	for i := 1; err == nil && !out.Applied; i++ {
		counted[i-1].hands(t, counted[i])
		out, err = counted[i].folder.Approve(counted[i].us, out.ID.String()[:12], time.Now())
	}
	if err != nil {
		t.Fatalf("%s: %v", organisation, err)
	}
}

// Seven organisations with papers of their own: as long as six count they share
// indicators; when the seventh does, all begin anew by themselves with rounds between
// them, and each finds the same beginning.
func TestSevenOrganisationsBeginRounds(t *testing.T) {
	names := []string{"alder", "briar", "cedar", "dogwood", "elder", "fir", "gorse"}
	var all []*upSite
	for _, name := range names {
		all = append(all, newUpSite(t, name+"1"))
	}
	if err := all[0].folder.Create(all[0].us, "grove", "alder", time.Now()); err != nil {
		t.Fatal(err)
	}
	for i, s := range all[1:] {
		all[0].invites(t, s.paperedSite, names[i+1])
	}
	for i := 1; i < 6; i++ {
		for _, s := range all[1:] {
			all[0].hands(t, s)
		}
		count(t, names[i], all[:i])
		for _, s := range all[:i] {
			s.hands(t, all[0])
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	for _, s := range all {
		g.Go(func() error { return s.run(ctx, t) })
	}
	defer func() {
		stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	every := func(f func(m api.Mesh) bool) func() bool {
		return func() bool { return !slices.ContainsFunc(all, func(s *upSite) bool { return !f(s.mesh(t)) }) }
	}
	within(t, "all are connected, and six count", every(func(m api.Mesh) bool { return m.Counted == 6 && len(m.Connected) == 6 }))
	if m := all[0].mesh(t); strings.Contains(m.Preset, "consortium") {
		t.Errorf("rounds among six: %s", m.Preset)
	}
	count(t, "gorse", all[:6])
	within(t, "all have begun anew, with rounds among seven", every(func(m api.Mesh) bool {
		return m.Counted == 7 && len(m.Connected) == 6 && strings.Contains(m.Preset, "over 7 organisations")
	}))
	chains := map[string]bool{}
	for _, s := range all {
		a, err := s.node.Load().AuditRounds(t.Context())
		if err != nil || a.Broken != "" {
			t.Fatalf("%s: %v %s", s.us.Name, err, a.Broken)
		}
		chains[a.Chain] = true
		if n := s.restarts.Load(); n != 1 {
			t.Errorf("%s began anew %d times, expected once", s.us.Name, n)
		}
	}
	if len(chains) != 1 {
		t.Errorf("%d beginnings of a chain, expected one", len(chains))
	}
}
