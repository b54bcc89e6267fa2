package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/drift"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
	"github.com/hedgerow-mesh/hedgerow/learner/quality"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// life drives the machine that decides which model judges (learner/lifecycle):
// it measures what is asked, hands the roles out, and keeps what was decided,
// durably before it acts.
//
// mu serialises all of that. It is taken before the node's lock and the
// learner's, and never while one of them is held.
type life struct {
	n   *Node
	key lifecycle.HostKey

	mu      sync.Mutex
	m       *lifecycle.Machine
	models  map[string]*learner.Model // that have a role, or wait for one
	shared  map[string]string         // hash of the shared part inside, by model
	roles   lifecycle.Roles
	saved   bool // the state on disk is the machine's
	started bool // what becomes active from now on is new
}

const (
	slotActive   = "active"
	slotChampion = "champion"
	slotTrial    = "trial"
	slotFallback = "fallback"
	// What the site made alone of those two: it becomes the champion with them.
	slotTrialBase    = "trial-base"
	slotFallbackBase = "fallback-base"
	keyLife          = "node/lifecycle"
	keyHosts         = "node/canary-key"
)

func newLife(n *Node) *life {
	return &life{
		n: n, m: lifecycle.New(n.lifeOptions()),
		models: map[string]*learner.Model{}, shared: map[string]string{},
	}
}

func (n *Node) lifeOptions() lifecycle.Options {
	o := n.o.Learner
	return lifecycle.Options{Shadow: o.Shadow, Canary: o.Canary, Share: o.CanaryShare, Reports: o.TrialReports, Worse: 0.01}
}

// candidate is a new model with what it was made from.
type candidate struct {
	model, base *learner.Model
	origin      string
	round       uint64 // of the shared part, 0 for none
	shared      string // its hash
	data        lifecycle.Window
	why         string // it was made ahead of its time
}

// propose makes a model durable and lets the machine have it. The result is
// where it stands then.
func (l *life) propose(c candidate) (lifecycle.Model, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, base := c.model.Hash(), c.base.Hash()
	p := lifecycle.Proposal{ID: id, Parent: c.model.Meta().Parent, Base: base, Origin: c.origin, Round: c.round, Data: c.data, Why: c.why}
	if x, err := l.m.Model(id); err == nil {
		return x, nil // the same traffic led to the same model
	}
	if base != id {
		body := modelBody(c.base, &p)
		body.Hash, body.Parent, body.Origin, body.Round, body.State = base, c.base.Meta().Parent, lifecycle.Local, 0, "base"
		body.Why = fmt.Sprintf("the part of %.12s that this site made alone", id)
		if _, b, err := l.n.o.Store.Model(base); errors.Is(err, store.ErrNotFound) || err == nil && b == nil {
			if err := l.put(c.base, body); err != nil {
				return lifecycle.Model{}, err
			}
		}
	}
	if err := l.put(c.model, modelBody(c.model, &p)); err != nil {
		return lifecycle.Model{}, err
	}
	l.models[id], l.models[base], l.shared[id] = c.model, c.base, c.shared
	fx, err := l.m.Propose(l.n.now(), p)
	if err != nil {
		return lifecycle.Model{}, err
	}
	l.carry(fx)
	return l.m.Model(id)
}

func (l *life) put(m *learner.Model, body event.Model) error {
	b, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	return l.n.o.Store.PutModel(body, b)
}

func modelBody(m *learner.Model, p *lifecycle.Proposal) event.Model {
	return event.Model{
		Hash: m.Hash(), Parent: m.Meta().Parent, Origin: p.Origin, Round: p.Round, State: string(lifecycle.Candidate),
		Flows: m.Meta().Normal, Attacks: m.Meta().Attacks,
	}
}

// carry does what the machine asks, in order, and what follows from that. The
// caller holds l.mu.
func (l *life) carry(fx []lifecycle.Effect) {
	for len(fx) > 0 {
		f := fx[0]
		fx = fx[1:]
		switch {
		case f.Examine != nil:
			fx = append(fx, l.examine(f.Examine)...)
		case f.Roles != nil:
			l.saved = false
			l.save()
			fx = append(fx, l.assign(*f.Roles)...)
		case f.Tell != nil:
			l.saved = false
			l.tell(f.Tell)
		case f.Retrain != "":
			l.n.learn.want(f.Retrain)
		}
	}
	l.save()
}

func (l *life) save() {
	if l.saved {
		return
	}
	b, err := l.m.Encode()
	if err == nil {
		err = l.n.o.Store.Save(keyLife, b)
	}
	if err != nil {
		l.n.log.Error("the life of models was not stored", telemetry.KeyErr, err)
		return
	}
	l.saved = true
}

// examine measures a model and those that it is compared with.
func (l *life) examine(e *lifecycle.Examine) []lifecycle.Effect {
	now := l.n.now()
	m, err := l.model(e.ID)
	if err != nil {
		fx, _ := l.lost(e.ID, err)
		return fx
	}
	x := l.n.learn.exam(e.Since, l.m.Options().Level)
	t := x.Trial()
	t.Own = m.Measure(x)
	if e.Incumbent != "" {
		if _, err := l.model(e.Incumbent); err != nil {
			fx, _ := l.lost(e.Incumbent, err)
			return fx
		}
	}
	t.Incumbent = l.measure(e.Incumbent, x)
	t.Alone = t.Incumbent
	if e.Alone != e.Incumbent {
		t.Alone = l.measure(e.Alone, x)
	}
	if t.Alone == nil && e.Alone != "" {
		t.Alone = t.Incumbent // its weights are gone; the active model is all that there is to compare with
	}
	t.Base = l.measure(e.Base, x)
	fx, err := l.m.Examined(now, e.ID, t)
	if err != nil {
		l.n.log.Error("model was not examined", telemetry.KeyModel, e.ID, telemetry.KeyErr, err)
	}
	return fx
}

func (l *life) measure(id string, x *learner.Exam) *lifecycle.Count {
	if id == "" {
		return nil
	}
	m, err := l.model(id)
	if err != nil {
		l.n.log.Warn("a model cannot be compared with", telemetry.KeyModel, id, telemetry.KeyErr, err)
		return nil
	}
	c := m.Measure(x)
	return &c
}

// model is one by its hash, from memory or the store.
func (l *life) model(id string) (*learner.Model, error) {
	if m := l.models[id]; m != nil {
		return m, nil
	}
	_, b, err := l.n.o.Store.Model(id)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, errors.New("its weights were dropped to save space")
	}
	m, err := learner.Unmarshal(b)
	if err != nil {
		return nil, err
	}
	l.models[id] = m
	return m, nil
}

func (l *life) lost(id string, cause error) ([]lifecycle.Effect, error) {
	l.n.log.Warn("a stored model cannot be used", telemetry.KeyModel, id, telemetry.KeyErr, cause)
	return l.m.Lost(l.n.now(), id)
}

// assign lets models do what the machine says, as far as their weights are here.
func (l *life) assign(r lifecycle.Roles) (fx []lifecycle.Effect) {
	get := func(id string) *learner.Model {
		if id == "" {
			return nil
		}
		m, err := l.model(id)
		if err != nil {
			more, _ := l.lost(id, err)
			fx = append(fx, more...)
		}
		return m
	}
	active := get(r.Active)
	bench := enforce.Bench{Shadow: get(r.Shadow), Canary: get(r.Canary), Fallback: get(r.Fallback)}
	if len(fx) > 0 {
		return fx // roles follow without what was lost
	}
	champion := active
	if r.Champion != r.Active && r.Champion != "" {
		if m, err := l.model(r.Champion); err == nil {
			champion = m
		} else {
			l.n.log.Warn("what the site made alone is gone: the mesh's models are compared with the active one", telemetry.KeyModel, r.Champion, telemetry.KeyErr, err)
		}
	}
	if r.Canary != "" {
		share := l.key.Share(r.Canary, r.Share)
		bench.Chosen = func(a netip.Addr) bool { return share.Picks(a.As16()) }
	}
	l.slots(r)
	changed := r.Active != l.roles.Active
	rebase := r.Champion != l.roles.Champion
	looksBack := changed && active != nil && l.started && l.roles.Active != "" && l.firstTime(r.Active)
	l.roles = r
	l.n.learn.follow(l.m, r, active, champion, l.shared[r.Active], changed)
	l.forgetModels(r)
	var detector *drift.Detector
	if rebase {
		detector = l.n.learn.reference()
	}
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if changed {
		// Another model's p-values say nothing of this one's.
		l.n.truth.track.Reset()
		l.n.truth.level, l.n.truth.asked = 0, time.Time{}
		clear(l.n.truth.low)
		l.n.truth.account.Judging(l.n.now(), r.Active)
		if looksBack {
			l.n.hunts.active(active)
		}
		l.n.sensor.SetModel(active)
		l.n.machine.NewModel()
		l.n.pupil.follow(l.n.now(), active)
		l.n.sensor.Recalibrate(l.n.learn.normals())
	}
	if detector != nil {
		l.n.drifts.renew(detector)
	}
	l.n.sensor.SetBench(bench)
	l.n.beside.keep(r)
	l.n.setBudget()
	return nil
}

// firstTime says that a model has not been active before.
func (l *life) firstTime(id string) bool {
	x, err := l.m.Model(id)
	n := 0
	for _, s := range x.History {
		if s.To == lifecycle.Active {
			n++
		}
	}
	return err == nil && n == 1
}

// slots keeps the weights of whoever has a role.
func (l *life) slots(r lifecycle.Roles) {
	trial := r.Shadow + r.Canary
	for slot, id := range map[string]string{
		slotActive: r.Active, slotChampion: r.Champion, slotTrial: trial, slotTrialBase: l.baseOf(trial), slotFallback: r.Fallback, slotFallbackBase: l.baseOf(r.Fallback),
	} {
		if err := l.n.o.Store.SetActive(slot, id); err != nil && !errors.Is(err, store.ErrNotFound) {
			l.n.log.Error("the use of a model was not stored", telemetry.KeyModel, id, telemetry.KeyErr, err)
		}
	}
}

// baseOf is what the site made alone of a model, "" for none.
func (l *life) baseOf(id string) string {
	x, err := l.m.Model(id)
	if err != nil {
		return ""
	}
	return x.Base
}

// forgetModels lets go of what nobody needs in memory.
func (l *life) forgetModels(r lifecycle.Roles) {
	need := map[string]bool{r.Active: true, r.Champion: true, r.Shadow: true, r.Canary: true, r.Fallback: true}
	for _, x := range l.m.Models() {
		if x.Stage != lifecycle.Retired {
			need[x.ID], need[x.Base] = true, true
		}
	}
	for id := range l.models {
		if !need[id] {
			delete(l.models, id)
		}
	}
}

// tell keeps and tells a model's new stage.
func (l *life) tell(x *lifecycle.Model) {
	step := x.History[len(x.History)-1]
	body := event.Model{
		Hash: x.ID, Parent: x.Parent, Origin: x.Origin, Round: x.Round, State: stateOf(x),
		Flows: x.Data.Normals, Attacks: x.Data.Attacks, Metrics: step.Metrics, Why: step.Why,
	}
	if err := l.n.o.Store.UpdateModel(body); err != nil && !errors.Is(err, store.ErrNotFound) {
		l.n.log.Error("a model's state was not stored", telemetry.KeyModel, x.ID, telemetry.KeyErr, err)
	}
	now := l.n.now()
	l.n.outbox.put(job{emit: &event.Event{
		V: event.Version, ID: event.NewID(now), Time: now, Site: l.n.o.Site, Kind: event.KindModel, Model: &body,
	}})
}

// stateOf is a model's stage in the words of the events.
func stateOf(x *lifecycle.Model) string {
	if x.Stage == lifecycle.Retired && x.End != lifecycle.Superseded {
		return string(x.End)
	}
	return string(x.Stage)
}

// restore brings the machine and its models back. A state that cannot be
// trusted is refused, and the site learns anew.
func (l *life) restore() error {
	if err := l.loadKey(); err != nil {
		return err
	}
	b, err := l.n.o.Store.Load(keyLife)
	if errors.Is(err, store.ErrNotFound) || err == nil && !l.n.o.Learner.Enabled {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := lifecycle.Decode(b, l.n.lifeOptions())
	if err != nil {
		l.n.log.Error("the stored life of models is refused: the site learns anew", telemetry.KeyErr, err)
		l.n.o.Warnings = append(l.n.o.Warnings, fmt.Sprintf("the stored life of models was refused, and the site learns anew: %v", err))
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m = m
	r := m.Roles()
	l.carry([]lifecycle.Effect{{Roles: &r}})
	return nil
}

func (l *life) loadKey() error {
	b, err := l.n.o.Store.Load(keyHosts)
	if err == nil && len(b) == len(l.key) {
		copy(l.key[:], b)
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if _, err := io.ReadFull(l.n.o.Rand, l.key[:]); err != nil {
		return fmt.Errorf("node: key of hosts: %v", err)
	}
	return l.n.o.Store.Save(keyHosts, l.key[:])
}

// run moves on what waits for time and for traffic, until ctx ends.
func (l *life) run(ctx context.Context) error {
	if !l.n.o.Learner.Enabled {
		<-ctx.Done()
		return nil
	}
	l.start()
	regularly(ctx, l.pace(), l.step)
	return nil
}

// start says that somebody carries models through their stages from now on.
func (l *life) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started = true
}

// pace is the time between two steps.
func (l *life) pace() time.Duration {
	o := l.m.Options()
	return max(50*time.Millisecond, min(time.Second, o.Shadow/4, o.Canary/4))
}

func (l *life) step() {
	l.tick()
	l.n.balance(l.n.now())
	l.n.driftDue(l.n.now())
}

func (l *life) tick() {
	l.n.mu.Lock()
	counted := l.n.beside.totals()
	l.n.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.n.now()
	for id, d := range counted {
		fx, err := l.m.Watched(now, id, d)
		if err != nil {
			l.n.log.Error("what a model did was not counted", telemetry.KeyModel, id, telemetry.KeyErr, err)
		}
		l.carry(fx)
	}
	l.carry(l.m.Tick(now))
}

// beside counts what watched models made of reports. It is under the node's lock.
type beside struct {
	roles lifecycle.Roles
	by    map[string]*tally
}

// tally is one watched model's account since its stage began.
type tally struct {
	live   lifecycle.Live
	causes map[uint64]lows
}

// lows are the least p-values that two models said of one cause.
type lows struct{ own, other float32 }

const maxWatchedCauses = 1 << 15

// keep begins new accounts for those whose part has changed.
func (b *beside) keep(r lifecycle.Roles) {
	if b.by == nil {
		b.by = map[string]*tally{}
	}
	if b.roles.Active != r.Active {
		clear(b.by)
	}
	for id := range b.by {
		if id != r.Shadow && id != r.Canary && (id != r.Active || r.Fallback == "") || id == r.Canary && b.roles.Canary != id {
			delete(b.by, id)
		}
	}
	b.roles = r
}

// count adds the comparisons of one report of an unsuspicious cause.
func (b *beside) count(pairs []enforce.Pair, cause uint64, level float64) {
	for i := range pairs {
		p := &pairs[i]
		t := b.by[p.Model]
		if t == nil {
			if b.by == nil {
				b.by = map[string]*tally{}
			}
			t = &tally{causes: map[uint64]lows{}}
			b.by[p.Model] = t
		}
		t.live.Reports++
		if p.Own < level {
			t.live.Odd++
		}
		if !p.Sound {
			t.live.Errors++
		}
		low, known := t.causes[cause]
		if !known {
			if len(t.causes) >= maxWatchedCauses {
				continue
			}
			low = lows{1, 1}
		}
		t.causes[cause] = lows{min(low.own, float32(p.Own)), min(low.other, float32(p.Other))}
	}
}

// totals is each watched model's account, by its hash.
func (b *beside) totals() map[string]lifecycle.Live {
	out := map[string]lifecycle.Live{}
	for id, t := range b.by {
		l := t.live
		l.Causes = len(t.causes)
		for _, c := range t.causes {
			own, other := float64(c.own) < gateLevel, float64(c.other) < gateLevel
			if own && !other {
				l.Only++
			}
			if other && !own {
				l.Other++
			}
		}
		out[id] = l
	}
	return out
}

// gateLevel is the p-value under which a report counts as an alarm in
// examinations: that of lifecycle.Options.
const gateLevel = 0.001

// The site's canaries of normal are stored as their encodings, one after the other:
// the count of frozen ones, then those, then the forgiven ones.
func (l *learning) saveKnown() {
	b := []byte{byte(len(l.known) >> 8), byte(len(l.known))}
	for _, list := range [][]feature.Vector{l.known, l.forgiven} {
		for i := range list {
			b, _ = list[i].AppendBinary(b)
		}
	}
	l.n.outbox.put(job{save: &kv{keyKnown, b}})
}

func (l *learning) loadKnown() error {
	b, err := l.n.o.Store.Load(keyKnown)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	known, forgiven, err := decodeKnown(b)
	if err != nil {
		l.n.log.Warn("stored known-normal canaries cannot be used: new ones are taken with the next model", telemetry.KeyErr, err)
		return nil
	}
	l.known, l.forgiven = known, forgiven
	return nil
}

func decodeKnown(b []byte) (known, forgiven []feature.Vector, err error) {
	if len(b) < 2 {
		return nil, nil, errors.New("known-normal canaries: cut short")
	}
	n, size := int(b[0])<<8|int(b[1]), max(1, feature.Size(b[2:]))
	b = b[2:]
	if len(b)%size != 0 || len(b) > (maxKnown+maxForgiven)*size {
		return nil, nil, fmt.Errorf("known-normal canaries: %d bytes: expected at most %d vectors", len(b), maxKnown+maxForgiven)
	}
	all := make([]feature.Vector, len(b)/size)
	if n > len(all) || n > maxKnown {
		return nil, nil, fmt.Errorf("known-normal canaries: %d frozen ones: expected at most %d", n, min(len(all), maxKnown))
	}
	for i := range all {
		if err := all[i].UnmarshalBinary(b[i*size : (i+1)*size]); err != nil {
			return nil, nil, fmt.Errorf("known-normal canaries: %d: %w", i, err)
		}
	}
	return all[:n:n], all[n:], nil
}

// follow takes who judges from now on. A new model of the site's own renews an
// eighth of the frozen canaries, so that they follow slowly what has become
// normal, and nobody can hurry them.
func (l *learning) follow(m *lifecycle.Machine, r lifecycle.Roles, active, champion *learner.Model, shared string, changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	renew := champion != nil && (l.champion == nil || l.champion.Hash() != champion.Hash())
	l.model, l.champion = active, champion
	if !changed {
		if renew {
			l.renewReference()
		}
		return
	}
	l.adopted, l.sharedNow = 0, shared
	if x, err := m.Model(r.Active); err == nil {
		l.adopted, l.trainedAt = x.Round, active.Meta().TrainedAt
		if x.Origin == lifecycle.Local {
			l.cutoff = x.Data.Until
		}
	}
	if renew {
		l.renewKnown()
		l.renewReference()
	}
}

// renewReference takes what windows are compared with from what the champion was
// trained on or, after a restart, from the canaries that were drawn from it. A
// model's own references would not do: they are spread as widely as they can be,
// not as often as things are.
func (l *learning) renewReference() {
	vs := l.pool.Mature(l.cutoff, l.suspected)
	if len(vs) < quality.Enough {
		vs = l.known
	}
	l.fit.trainedOn(vs)
}

func (l *learning) renewKnown() {
	normal := l.pool.Mature(l.cutoff, l.suspected)
	if len(normal) == 0 {
		return
	}
	want := maxKnown / 8
	if len(l.known) == 0 {
		want = maxKnown
	}
	want = min(want, len(normal))
	fresh := make([]feature.Vector, want)
	for i := range fresh {
		fresh[i] = normal[i*len(normal)/want]
	}
	l.known = append(l.known, fresh...)
	l.known = l.known[max(0, len(l.known)-maxKnown):]
	l.saveKnown()
}

// normals is what may calibrate what is remembered.
func (l *learning) normals() []feature.Vector {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pool.Mature(l.n.now(), l.suspected)
}
