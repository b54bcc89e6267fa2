package node

import (
	"context"
	"crypto/rand"
	"errors"
	mrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// learned is a node that is fed vectors instead of packets, and does not run.
type learned struct {
	*Node
	t   *testing.T
	o   Options
	now time.Time
	rng *mrand.Rand
}

func newLearned(t *testing.T) *learned {
	t.Helper()
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open("", store.Options{InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	x := &learned{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), rng: mrand.New(mrand.NewPCG(1, 2))}
	x.o = Options{
		Site: "alder", Store: st, Key: k, Now: func() time.Time { return x.now },
		Learner: LearnerOptions{Enabled: true, RetrainEvery: time.Hour, Wait: time.Minute, Shadow: time.Minute, Canary: time.Minute, CanaryShare: 0.3, TrialReports: 10, IncidentsPerDay: 5, Seed: 3},
		Policy:  PolicyOptions{Suspend: 30 * time.Second, Block: time.Hour, MaxBlocksPerHour: 60, MaxShare: 0.5, Rules: true},
	}
	x.restart()
	return x
}

func (x *learned) restart() {
	x.t.Helper()
	p, err := softplane.Open(softplane.Options{})
	if err != nil {
		x.t.Fatal(err)
	}
	x.o.Plane = p
	if x.Node, err = New(x.o); err != nil {
		x.t.Fatal(err)
	}
	x.learn.cfg.Epochs = 1
}

// ordinary is a vector of a made kind of traffic.
func (x *learned) ordinary() feature.Vector {
	v := feature.Vector{Has: feature.Mask{1<<24 - 1}}
	kind := float32(x.rng.IntN(3)) * 0.2
	for i := range 24 {
		v.X[i] = 0.2 + kind + 0.05*float32(x.rng.NormFloat64())
	}
	for i := range v.X {
		v.X[i] = min(max(v.X[i], -1), 1)
	}
	return v
}

// see lets n reports of ordinary traffic come in.
func (x *learned) see(n int) {
	for range n {
		x.now = x.now.Add(100 * time.Millisecond)
		v := x.ordinary()
		x.learn.mu.Lock()
		if x.learn.first.IsZero() {
			x.learn.first = x.now
		}
		host, peer := uint64(x.rng.IntN(20)), uint64(x.rng.IntN(50))
		x.learn.pool.Add(x.now, &v, host, peer, uint64(x.rng.IntN(5)))
		x.learn.later.Add(x.now, &v, host, peer, uint64(x.rng.IntN(5)))
		x.learn.mu.Unlock()
	}
}

// slow leaves what trains to the run without the race detector: nothing here
// runs beside anything else.
func (x *learned) slow() {
	x.t.Helper()
	if raced {
		x.t.Skip("trains: asked without -race")
	}
}

func (x *learned) train() {
	x.t.Helper()
	x.slow()
	if err := x.learn.train(context.Background(), ""); err != nil {
		x.t.Fatal(err)
	}
}

// pass lets a stage go by in which the watched models did as their partners.
func (x *learned) pass() {
	x.now = x.now.Add(2 * time.Minute)
	r := x.models.m.Roles()
	for range 50 {
		x.beside.count([]enforce.Pair{{Model: r.Shadow + r.Canary, Own: 0.5, Other: 0.5, Sound: true}}, uint64(x.rng.IntN(9)), gateLevel)
	}
	x.models.tick()
}

func (x *learned) states() []string {
	var out []string
	for _, j := range x.outbox.drain() {
		if j.emit != nil && j.emit.Model != nil {
			out = append(out, j.emit.Model.State)
		}
		x.do(j)
	}
	return out
}

func TestModelsPassThroughTheirLife(t *testing.T) {
	x := newLearned(t)
	ctx := t.Context()
	if _, err := x.RollbackModel(ctx, ""); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("rollback without a model: %v", err)
	}
	x.see(1500)
	x.train()
	first := x.models.m.Roles().Active
	if first == "" || x.learn.active() == nil || len(x.learn.known) != maxKnown {
		t.Fatalf("no first model: %v, %d canaries of normal", x.states(), len(x.learn.known))
	}
	x.states()
	x.see(1500)
	x.train()
	second := x.models.m.Roles().Shadow
	if second == "" || second == first {
		t.Fatalf("roles %+v, %v", x.models.m.Roles(), x.states())
	}
	if _, err := x.PromoteModel(ctx, "ffffffff", ""); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("promote of an unknown model: %v", err)
	}
	x.pass()
	if x.models.m.Roles().Canary != second {
		t.Fatalf("roles %+v: expected a canary", x.models.m.Roles())
	}
	x.pass()
	if got := strings.Join(x.states(), " "); got != "candidate shadow canary retired active" {
		t.Errorf("told %q", got)
	}
	if x.learn.active().Hash() != second || x.models.m.Roles().Fallback != first {
		t.Fatalf("roles %+v", x.models.m.Roles())
	}
	for _, m := range x.list(ctx) {
		if m.Hash == second && (!m.Active || m.Role != "active" || m.Parent != first || len(m.Life.History) != 4 || m.State != "active") {
			t.Errorf("%+v", m)
		}
	}
	// A restart keeps who decides, and one command goes back.
	x.restart()
	if x.learn.active() == nil || x.learn.active().Hash() != second {
		t.Fatal("a restart loses the active model")
	}
	m, err := x.RollbackModel(ctx, "too loud")
	if err != nil || m.Hash != first || x.learn.active().Hash() != first {
		t.Fatalf("rolled back to %.12s: %v", m.Hash, err)
	}
	if !strings.Contains(m.Why, "too loud") || x.learn.reason() == "" {
		t.Errorf("why %q; a new model is wanted: %q", m.Why, x.learn.reason())
	}
	if m, err = x.PromoteModel(ctx, second[:10], "by mistake"); err != nil || m.Hash != second || !m.Active {
		t.Errorf("promoted %+v: %v", m, err)
	}
	e, err := x.ExportModels(ctx)
	if err != nil || e.Roles.Active != second || len(e.Models) != 2 {
		t.Errorf("exported %+v: %v", e, err)
	}
}

func (x *learned) list(ctx context.Context) []api.Model {
	x.t.Helper()
	ms, err := x.Models(ctx)
	if err != nil {
		x.t.Fatal(err)
	}
	return ms
}

func TestRefusedStateIsToldAndTheSiteLearnsAnew(t *testing.T) {
	x := newLearned(t)
	x.see(1500)
	x.train()
	x.states()
	if err := x.o.Store.Save(keyLife, []byte(`{"v":1,"active":"aa","champion":"aa","models":[],"spent":{"false_alarms":0,"detection":0}}`)); err != nil {
		t.Fatal(err)
	}
	x.restart()
	if x.learn.active() != nil {
		t.Error("a model judges by a state that cannot be trusted")
	}
	if w := strings.Join(x.Node.o.Warnings, " "); !strings.Contains(w, "active: ") || !strings.Contains(w, "learns anew") {
		t.Errorf("warnings %q: expected what is wrong with the stored state", w)
	}
}

func TestModelsAreCompared(t *testing.T) {
	x := newLearned(t)
	x.see(1500)
	x.train()
	x.see(1500)
	x.train()
	if _, err := x.DiffModels(t.Context(), x.list(t.Context())[0].Hash, x.list(t.Context())[1].Hash); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("without an archive: %v", err)
	}
	var flows []store.Flow
	for range 300 {
		v := x.ordinary()
		b, _ := v.MarshalBinary()
		flows = append(flows, store.Flow{Flow: event.Flow{Proto: "tcp", Src: "10.0.0.5", Dst: "198.51.100.7"}, Vector: b})
	}
	odd := feature.Vector{Has: feature.Mask{1<<24 - 1}}
	for i := range 24 {
		odd.X[i] = float32(i%2) - 0.5
	}
	b, _ := odd.MarshalBinary()
	flows = append(flows, store.Flow{Flow: event.Flow{Proto: "udp", Src: "10.0.0.6", Dst: "203.0.113.9"}, Vector: b}, store.Flow{Vector: []byte("of another schema")})
	if err := x.o.Store.AppendFlows(flows); err != nil {
		t.Fatal(err)
	}
	ms := x.list(t.Context())
	x.now = time.Now() // the store's clock
	d, err := x.DiffModels(t.Context(), ms[0].Hash[:8], ms[1].Hash[:8])
	if err != nil {
		t.Fatal(err)
	}
	if d.N != 301 || len(d.Levels) != 4 || d.Levels[0].A < 1 || len(d.Features) == 0 || d.Explained != 200 || len(d.Flows) != len(d.Differ) {
		t.Errorf("%+v", d)
	}
	for i := 1; i < len(d.Features); i++ {
		a, b := d.Features[i-1], d.Features[i]
		if max(a.A-a.B, a.B-a.A) < max(b.A-b.B, b.B-b.A) {
			t.Errorf("features are not in the order of their change: %+v", d.Features)
		}
	}
}

func FuzzKnownNormal(f *testing.F) {
	v := feature.Vector{Has: feature.Mask{1}}
	b, _ := v.MarshalBinary()
	f.Add(append([]byte{0, 1}, b...))
	f.Add([]byte{0, 0})
	f.Add([]byte{255, 255, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		known, forgiven, err := decodeKnown(in)
		if err == nil && (len(known) > maxKnown || len(known)+len(forgiven) > maxKnown+maxForgiven) {
			t.Errorf("%d and %d canaries", len(known), len(forgiven))
		}
	})
}

// TestWhatIsInsideOfATrialIsKept: the part that the site made alone becomes the
// champion when the model that holds it is promoted, so its weights stay till then.
func TestWhatIsInsideOfATrialIsKept(t *testing.T) {
	x := newLearned(t)
	x.see(1500)
	x.train()
	x.see(500)
	taken, why, err := x.learn.Adopt(t.Context(), 1, "aa", learner.InitShared(9))
	if err != nil || !taken {
		t.Fatal(taken, why, err)
	}
	x.pass()
	x.pass()
	x.see(1500)
	x.train()
	trial, err := x.models.m.Model(x.models.m.Roles().Shadow)
	if err != nil || trial.Round != 1 || trial.Base == trial.ID {
		t.Fatalf("on trial: %+v %v", trial, err)
	}
	used, err := x.o.Store.Slots()
	if err != nil || used[slotTrial] != trial.ID || used[slotTrialBase] != trial.Base {
		t.Errorf("in use: %v %v: expected %.12s with %.12s inside", used, err, trial.ID, trial.Base)
	}
	if x.models.models[trial.Base] == nil {
		t.Error("the part that the site made alone was let go from memory")
	}
	if _, err := x.PromoteModel(t.Context(), trial.ID, ""); err != nil {
		t.Fatal(err)
	}
	if c := x.learn.champion; c == nil || c.Hash() != trial.Base {
		t.Errorf("the champion is not what the site made alone")
	}
}
