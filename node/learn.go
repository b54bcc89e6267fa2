package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// learning is the site's learner in the background: what it may learn from,
// when it trains, which model judges, and the site's own gate for the models
// that the mesh makes. champion is the best model that this site made alone;
// active is what judges: the champion, or the champion with the mesh's shared
// part where that passed the gate.
type learning struct {
	n   *Node
	cfg learner.Config

	mu        sync.Mutex
	pool      *learner.Reservoir
	fresh     []timed   // recent normal traffic, for the gate
	cutoff    time.Time // the champion was trained on traffic up to here
	attacks   []labelled
	champion  *learner.Model
	model     *learner.Model
	sharedNow string // hash of the mesh's shared part in use
	adopted   uint64 // round it came from
	seen      int    // flows that ended and were fit to learn from
	first     time.Time
	trainedAt time.Time
	wake      chan struct{}
}

const (
	maxFresh   = 4000
	maxAttacks = 4000
	minFlows   = 50 // before the first model, whatever the configuration says

	slotActive   = "active"
	slotChampion = "champion"
	keyAttacks   = "node/attacks"
	keyAllowed   = "node/allowed"

	// sharedSeed is where every site's shared part starts; it has to be equal
	// everywhere and hides nothing.
	sharedSeed = 1
)

// labelled is an example and the incident that it came from.
type labelled struct {
	learner.Example
	incident string
}

func newLearning(n *Node) (*learning, error) {
	pool, err := learner.NewReservoir(learner.ReservoirOptions{Seed: n.o.Learner.Seed})
	if err != nil {
		return nil, fmt.Errorf("node: %v", err)
	}
	return &learning{
		n: n, cfg: learner.Config{Seed: n.o.Learner.Seed}, pool: pool,
		wake: make(chan struct{}, 1),
	}, nil
}

func (l *learning) active() *learner.Model {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.model
}

// observe offers a report of an unsuspicious flow as an example of normal.
func (l *learning) observe(now time.Time, ev *dataplane.Event, v *feature.Vector) {
	if !l.n.o.Learner.Enabled || !l.n.sensor.Settled() {
		return
	}
	r := &ev.Record
	peer, _, ok := r.Outside()
	if !ok {
		peer = r.Responder()
	}
	resp := r.Responder()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first.IsZero() {
		l.first = now
	}
	if ev.Kind == dataplane.EventEnd {
		l.seen++
	}
	l.pool.Add(now, v, hashAddr(insideOf(r)), hashAddr(peer.Addr()), hashService(r.Key.Proto, resp.Port()))
	if l.model == nil {
		if l.due(now) {
			l.poke()
		}
		return
	}
	if len(l.fresh) >= maxFresh {
		// Thinned, not cut: the window keeps its length.
		for i := range maxFresh / 2 {
			l.fresh[i] = l.fresh[2*i]
		}
		l.fresh = l.fresh[:maxFresh/2]
	}
	l.fresh = append(l.fresh, timed{now, *v})
}

// timed is a vector and when it was seen.
type timed struct {
	at time.Time
	v  feature.Vector
}

// window is the gate's traffic: newer than what the champion was trained on, and
// as old as traffic has to be before it may teach, so that nobody who floods the
// site now decides about its models now. before is what a candidate may be
// calibrated on.
func (l *learning) window() (gate, before []feature.Vector) {
	l.mu.Lock()
	defer l.mu.Unlock()
	until := l.n.now().Add(-l.n.o.Learner.Wait)
	for i := range l.fresh {
		if x := &l.fresh[i]; x.at.After(l.cutoff) && !x.at.After(until) {
			gate = append(gate, x.v)
		}
	}
	return gate, l.pool.Mature(l.cutoff)
}

func (l *learning) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// due says that the first model can be made.
func (l *learning) due(now time.Time) bool {
	if l.seen >= max(minFlows, l.n.o.Learner.WarmupFlows) {
		return true
	}
	return l.n.o.Learner.Warmup > 0 && l.seen >= minFlows && now.Sub(l.first) >= l.n.o.Learner.Warmup
}

// label takes what an incident's flows were found to be. It is called under the
// node's lock, which is never taken from inside l.mu.
func (l *learning) label(lb *enforce.Label, vecs []feature.Vector) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attacks = without(l.attacks, lb.Incident)
	l.n.sensor.ForgetAttack(lb.Incident)
	if lb.Attack {
		if lb.Peer.IsValid() {
			l.pool.Forget(hashAddr(lb.Peer))
		}
		for i := range vecs[:min(len(vecs), maxAttacks-len(l.attacks))] {
			x := learner.Example{V: vecs[i], Weight: float32(lb.Weight), Family: lb.Family}
			l.attacks = append(l.attacks, labelled{x, lb.Incident})
			if lb.Weight >= 1 {
				l.n.sensor.Remember(&vecs[i], lb.Incident)
			}
		}
	} else {
		now := l.n.now()
		for i := range vecs {
			l.pool.Add(now, &vecs[i], 0, 0, 0)
		}
	}
	l.saveAttacks()
}

func without(xs []labelled, incident string) []labelled {
	var out []labelled
	for _, x := range xs {
		if x.incident != incident {
			out = append(out, x)
		}
	}
	return out
}

func examples(xs []labelled) []learner.Example {
	out := make([]learner.Example, len(xs))
	for i := range xs {
		out[i] = xs[i].Example
	}
	return out
}

// run trains when there is reason to, until ctx ends.
func (l *learning) run(ctx context.Context) error {
	if !l.n.o.Learner.Enabled {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(l.n.o.Learner.RetrainEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
			if l.active() != nil {
				continue
			}
		case <-t.C:
		}
		if err := l.train(ctx); err != nil && ctx.Err() == nil {
			l.n.log.Error("training failed: the model in use stays", telemetry.KeyErr, err)
		}
	}
}

// snapshot is what a training may use: all that was seen for the first model,
// later only what has waited and was not indicted since.
func (l *learning) snapshot() lesson {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := lesson{until: l.n.now(), champion: l.champion, attacks: examples(l.attacks)}
	if l.champion != nil {
		s.until = s.until.Add(-l.n.o.Learner.Wait)
	}
	s.normal = l.pool.Mature(s.until)
	return s
}

// lesson is what a training may use.
type lesson struct {
	normal   []feature.Vector
	attacks  []learner.Example
	champion *learner.Model
	until    time.Time // age of the youngest normal
}

func (l *learning) train(ctx context.Context) error {
	s := l.snapshot()
	if len(s.normal) < learner.MinNormal {
		return nil // nothing has waited long enough: the model in use stays
	}
	cfg := l.cfg
	cfg.TrainedAt = l.n.now()
	began := time.Now()
	m, err := learner.Train(ctx, cfg, s.champion, s.normal, s.attacks)
	if err != nil {
		return err
	}
	took := time.Since(began)
	if s.champion == nil {
		return l.use(choice{m, m, "local", 0, s.until, nil,
			fmt.Sprintf("first model: %d reports of %d flows, trained in %.1f s", len(s.normal), l.flowsSeen(), took.Seconds())})
	}
	gate, _ := l.window()
	g := learner.Gate(s.champion, m, gate, s.attacks, learner.GateLimits{})
	if !g.Pass {
		return l.refuse(m, "local", 0, g)
	}
	l.mu.Lock()
	active, round := l.model, l.adopted
	l.mu.Unlock()
	next := m
	if round > 0 { // what the mesh taught stays, on the new self
		if next, err = m.WithShared(active.Shared(), s.normal); err != nil {
			return err
		}
	}
	return l.use(choice{m, next, "local", round, s.until, g.Metrics, g.Words})
}

func (l *learning) flowsSeen() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

// choice is a model to put to use, and why.
type choice struct {
	champion, next *learner.Model
	origin         string
	round          uint64 // of the shared part, 0 for none
	cutoff         time.Time
	metrics        map[string]float64
	why            string
}

// use makes c.next judge from now on, durably first.
func (l *learning) use(c choice) error {
	body := l.body(c.next, c.origin, c.round, "active", c.why, c.metrics)
	if err := l.keep(c.champion, c.next, body); err != nil {
		return err
	}
	l.mu.Lock()
	l.champion, l.model, l.cutoff, l.adopted = c.champion, c.next, c.cutoff, c.round
	l.trainedAt = l.n.now()
	normal := l.pool.Mature(l.n.now())
	l.mu.Unlock()
	l.n.mu.Lock()
	l.n.sensor.SetModel(c.next)
	l.n.sensor.Recalibrate(normal)
	l.n.setBudget()
	l.n.mu.Unlock()
	l.tell(body)
	return nil
}

// keep makes both models durable, and then the choice of them.
func (l *learning) keep(champion, next *learner.Model, body event.Model) error {
	own := body
	own.Hash, own.State, own.Origin = champion.Meta().Hash, "champion", "local"
	if err := l.put(champion, own); err != nil {
		return err
	}
	if err := l.put(next, body); err != nil {
		return err
	}
	if err := l.n.o.Store.SetActive(slotChampion, champion.Meta().Hash); err != nil {
		return err
	}
	return l.n.o.Store.SetActive(slotActive, next.Meta().Hash)
}

func (l *learning) put(m *learner.Model, body event.Model) error {
	b, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	return l.n.o.Store.PutModel(body, b)
}

func (l *learning) body(m *learner.Model, origin string, round uint64, state, why string, metrics map[string]float64) event.Model {
	meta := m.Meta()
	return event.Model{
		Hash: meta.Hash, Parent: meta.Parent, Origin: origin, Round: round, State: state,
		Flows: meta.Normal, Attacks: meta.Attacks, Metrics: metrics, Why: why,
	}
}

func (l *learning) tell(body event.Model) {
	now := l.n.now()
	l.n.outbox.put(job{emit: &event.Event{
		V: event.Version, ID: event.NewID(now), Time: now, Site: l.n.o.Site, Kind: event.KindModel, Model: &body,
	}})
}

// refuse keeps a candidate that the gate turned down, with the reason.
func (l *learning) refuse(m *learner.Model, origin string, round uint64, g learner.GateResult) error {
	body := l.body(m, origin, round, "refused", g.Words, g.Metrics)
	if err := l.put(m, body); err != nil {
		return err
	}
	l.tell(body)
	return nil
}

// Train implements federation.Trainer: the shared part, from the mesh's base, on
// this site's own traffic and labels.
func (l *learning) Train(ctx context.Context, _ uint64, base []float32) ([]float32, int, error) {
	s := l.snapshot()
	if len(s.normal) < learner.MinNormal {
		return nil, 0, fmt.Errorf("site has %d reports of normal traffic that may teach: %d are needed", len(s.normal), learner.MinNormal)
	}
	p, err := learner.TrainShared(ctx, l.cfg, base, s.normal, s.attacks, sharedSteps)
	return p, len(s.normal) + len(s.attacks), err
}

// sharedSteps is equal at every site: unequal local steps let large sites drown
// unlike ones.
const sharedSteps = 1000

// Adopt implements federation.Trainer: the mesh's shared part judges here only if,
// on traffic that neither model was trained on, it does no worse than the
// champion that the site made alone.
func (l *learning) Adopt(_ context.Context, round uint64, hash string, params []float32) (bool, string, error) {
	s := l.snapshot()
	if s.champion == nil {
		return false, "this site has no model of its own yet to compare with", nil
	}
	gate, before := l.window()
	cand, err := s.champion.WithShared(params, before)
	if err != nil {
		return false, "", err
	}
	g := learner.Gate(s.champion, cand, gate, s.attacks, learner.GateLimits{})
	if !g.Pass {
		return false, g.Words, l.refuse(cand, "round", round, g)
	}
	l.mu.Lock()
	l.sharedNow = hash
	cutoff := l.cutoff
	l.mu.Unlock()
	return true, g.Words, l.use(choice{s.champion, cand, "round", round, cutoff, g.Metrics, g.Words})
}

// restore brings back models, labels and memory.
func (l *learning) restore() error {
	champion, _, err := l.load(slotChampion)
	if err != nil {
		return err
	}
	model, body, err := l.load(slotActive)
	if err != nil {
		return err
	}
	if err := l.loadAttacks(); err != nil {
		return err
	}
	if champion == nil || model == nil || !l.n.o.Learner.Enabled {
		return nil
	}
	l.champion, l.model, l.adopted = champion, model, body.Round
	l.trainedAt = model.Meta().TrainedAt
	l.n.sensor.SetModel(model)
	return nil
}

func (l *learning) load(slot string) (*learner.Model, store.Model, error) {
	hash, err := l.n.o.Store.Active(slot)
	if errors.Is(err, store.ErrNotFound) {
		return nil, store.Model{}, nil
	}
	if err != nil {
		return nil, store.Model{}, err
	}
	body, b, err := l.n.o.Store.Model(hash)
	if err != nil {
		return nil, store.Model{}, err
	}
	m, err := learner.Unmarshal(b)
	if err != nil {
		// A model of another version is no reason not to protect: learn anew.
		l.n.log.Warn("stored model cannot be used: the site learns anew", telemetry.KeyModel, hash, telemetry.KeyErr, err)
		return nil, store.Model{}, nil
	}
	return m, body, nil
}

// The labelled examples are stored as: count, then for each the weight in
// thousandths, family and source as length and bytes, and the vector.
func (l *learning) saveAttacks() {
	b := binary.AppendUvarint(nil, uint64(len(l.attacks)))
	for i := range l.attacks {
		x := &l.attacks[i]
		b = binary.AppendUvarint(b, uint64(x.Weight*1000))
		for _, s := range []string{x.Family, x.incident} {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
		b, _ = x.V.AppendBinary(b)
	}
	l.n.outbox.put(job{save: &kv{keyAttacks, b}})
}

func (l *learning) loadAttacks() error {
	b, err := l.n.o.Store.Load(keyAttacks)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	xs, err := decodeAttacks(b)
	if err != nil {
		l.n.log.Warn("stored labels cannot be used: confirm again what matters", telemetry.KeyErr, err)
		return nil
	}
	l.attacks = xs
	for i := range xs {
		if xs[i].Weight >= 1 {
			l.n.sensor.Remember(&xs[i].V, xs[i].incident)
		}
	}
	return nil
}

func decodeAttacks(b []byte) ([]labelled, error) {
	d := decoder{b: b}
	n := d.uvarint(maxAttacks)
	var out []labelled
	for range n {
		var x labelled
		x.Weight = float32(d.uvarint(1_000_000)) / 1000
		x.Family, x.incident = d.str(256), d.str(256)
		raw := d.take(feature.EncodedSize)
		if d.err != nil {
			return nil, d.err
		}
		if err := x.V.UnmarshalBinary(raw); err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, d.err
}

type decoder struct {
	b   []byte
	err error
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, k := binary.Uvarint(d.b)
	if d.err != nil || k <= 0 || v > limit {
		d.fail()
		return 0
	}
	d.b = d.b[k:]
	return v
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n > len(d.b) {
		d.fail()
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) str(limit uint64) string { return string(d.take(int(d.uvarint(limit)))) }

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errors.New("labels: cut short or out of range")
	}
}

func insideOf(r *flow.Record) netip.Addr {
	if r.InitInside || !r.RespInside {
		return r.Initiator().Addr()
	}
	return r.Responder().Addr()
}

func hashAddr(a netip.Addr) uint64 {
	h := fnv.New64a()
	b := a.As16()
	_, _ = h.Write(b[:])
	return h.Sum64()
}

func hashService(proto uint8, port uint16) uint64 {
	return uint64(proto)<<16 | uint64(port)
}

// words says in one sentence how far the learner is.
func (l *learning) words(s *progress) string {
	if !s.enabled {
		return "off: only rules and shared indicators judge"
	}
	if s.judging {
		return fmt.Sprintf("judging with model %.8s (%s); %d flows seen", s.model, strings.TrimSpace(s.origin), s.seen)
	}
	if !s.settled {
		return fmt.Sprintf("getting to know who talks to whom before it learns; %d flows needed after that", s.needed)
	}
	wait := "unknown"
	if s.wait > 0 {
		wait = "about " + s.wait.Round(time.Second).String()
	}
	return fmt.Sprintf("learning: %d of %d flows seen; it can judge in %s", s.seen, s.needed, wait)
}

type progress struct {
	enabled, judging, settled bool
	seen, needed              int
	wait                      time.Duration
	model, shared, origin     string
	adopted                   uint64
	trainedAt                 time.Time
}

func (l *learning) progress(settled bool) progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := progress{
		enabled: l.n.o.Learner.Enabled, judging: l.model != nil && l.n.o.Learner.Enabled, settled: settled,
		seen: l.seen, needed: l.n.o.Learner.WarmupFlows, shared: l.sharedNow, adopted: l.adopted, trainedAt: l.trainedAt,
		origin: "made here alone",
	}
	if l.adopted > 0 {
		p.origin = fmt.Sprintf("with what the mesh learnt in round %d", l.adopted)
	}
	if l.model != nil {
		p.model = l.model.Meta().Hash
	}
	if !p.judging && p.seen > 0 && !l.first.IsZero() {
		d := l.n.now().Sub(l.first)
		p.wait = time.Duration(float64(d) / float64(p.seen) * float64(max(0, p.needed-p.seen)))
		if l.n.o.Learner.Warmup > 0 {
			p.wait = min(p.wait, max(0, l.n.o.Learner.Warmup-d))
		}
	}
	return p
}
