package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// learning is the site's learner in the background: what it may learn from, and
// when it trains. Which model judges is for life to say. champion is the best
// model that this site made alone; model is what judges: the champion, or the
// champion with the mesh's shared part.
type learning struct {
	n   *Node
	cfg learner.Config

	mu        sync.Mutex
	pool      *learner.Reservoir
	later     *learner.Reservoir // recent normal traffic, for the gate
	known     []feature.Vector   // frozen normal traffic: the site's canaries of normal
	forgiven  []feature.Vector   // what the operator dismissed, canaries as well
	cutoff    time.Time          // the champion was trained on traffic up to here
	taught    time.Time          // what the site last taught the mesh was seen up to here
	attacks   []labelled
	champion  *learner.Model
	model     *learner.Model
	sharedNow string // hash of the mesh's shared part in use
	adopted   uint64 // round it came from
	seen      int    // flows that ended and were fit to learn from
	first     time.Time
	trainedAt time.Time
	wanted    string    // why a new model is wanted before its time
	began     time.Time // when training began last
	fit       fitness
	unsaved   bool            // attacks are not stored as they are
	suspects  map[uint64]bool // peers with an incident that nobody has judged
	wake      chan struct{}
	kept      keeper // of the ticker
}

const (
	maxAttacks  = 4000
	maxKnown    = 256
	maxSuspects = 4096
	maxForgiven = 256
	minFlows    = 50 // before the first model, whatever the configuration says

	keyAttacks = "node/attacks"
	keyAllowed = "node/allowed"
	keyKnown   = "node/known"

	// heldBack is the share of the time before a first model that does not
	// train it, so that there is later traffic to judge it on.
	heldBack = 0.05

	// sharedSeed is where every site's shared part starts; it has to be equal
	// everywhere and hides nothing.
	sharedSeed = 1
)

// labelled is an example and the incident that it came from.
type labelled struct {
	learner.Example
	incident string
}

func newReservoirs(n *Node) (pool, later *learner.Reservoir, err error) {
	o := learner.ReservoirOptions{Seed: n.o.Learner.Seed}
	if n.o.Privacy.on() {
		o.Size = privatePool
	}
	if pool, err = learner.NewReservoir(o); err == nil {
		later, err = learner.NewReservoir(learner.ReservoirOptions{Seed: n.o.Learner.Seed + 1})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("node: %v", err)
	}
	return pool, later, nil
}

func newLearning(n *Node) (*learning, error) {
	pool, later, err := newReservoirs(n)
	if err != nil {
		return nil, err
	}
	fit, err := newFitness()
	if err != nil {
		return nil, fmt.Errorf("node: %v", err)
	}
	return &learning{
		n: n, cfg: learner.Config{Seed: n.o.Learner.Seed}, pool: pool, later: later,
		wake: make(chan struct{}, 1), fit: fit, suspects: map[uint64]bool{},
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first.IsZero() {
		l.first = now
	}
	if ev.Kind == dataplane.EventEnd {
		l.seen++
	}
	l.offer(now, ev, v, peer)
	if l.model == nil && l.due(now) {
		l.poke()
	}
}

// ownersOf hashes whose traffic a report is, for the shares of the reservoirs
// and as its cause.
func ownersOf(r *flow.Record, peer netip.AddrPort) (host, far, service uint64) {
	return hashAddr(insideOf(r)), hashAddr(peer.Addr()), hashService(r.Key.Proto, r.Responder().Port())
}

// exam gathers what a model is measured on: traffic later than a time, the
// frozen and the forgiven normal, and the confirmed behaviours.
func (l *learning) exam(after time.Time, level float64) *learner.Exam {
	l.judgeAll()
	l.mu.Lock()
	defer l.mu.Unlock()
	x := &learner.Exam{Known: slices.Concat(l.known, l.forgiven), Attacks: examples(l.attacks), Level: level}
	x.Normal, x.Causes = l.later.Later(after, l.suspected)
	return x
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

// suspect holds back what a peer did from all that teaches, calibrates and
// examines, while an incident of it waits for somebody's word: it is no example of
// normal then, and a model that sees it must not be blamed. A dismissal gives it
// back.
func (l *learning) suspect(peer netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.suspects) < maxSuspects {
		l.suspects[hashAddr(peer)] = true
	}
}

// suspected is for a reservoir, while l.mu is held.
func (l *learning) suspected(peer uint64) bool { return l.suspects[peer] }

// label takes what an incident's flows were found to be. It is called under the
// node's lock, which is never taken from inside l.mu.
func (l *learning) label(lb *enforce.Label, vecs []feature.Vector) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attacks = without(l.attacks, lb.Incident)
	l.n.sensor.ForgetAttack(lb.Incident)
	if lb.Peer.IsValid() {
		delete(l.suspects, hashAddr(lb.Peer))
	}
	if lb.Attack {
		if lb.Peer.IsValid() {
			l.pool.Forget(hashAddr(lb.Peer))
			l.later.Forget(hashAddr(lb.Peer))
			l.fit.forget(hashAddr(lb.Peer))
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
		l.forgiven = append(l.forgiven, vecs...)
		l.forgiven = l.forgiven[max(0, len(l.forgiven)-maxForgiven):]
		l.saveKnown()
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
			l.judgeFull()
			if !l.called() {
				continue
			}
		case <-t.C:
		}
		l.again(ctx)
	}
}

// again trains now, for whatever reason there is.
func (l *learning) again(ctx context.Context) {
	why := l.takeReason()
	if err := l.train(ctx, why); err != nil && ctx.Err() == nil {
		l.n.log.Error("training failed: the model in use stays", telemetry.KeyErr, err)
	}
}

// called says that there is reason to train now: for a first model enough was
// seen, or a later one is wanted. A full window alone is none.
func (l *learning) called() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.model == nil {
		return l.due(l.n.now())
	}
	return l.wanted != ""
}

// want asks for a new model ahead of its time, but not again and again.
func (l *learning) want(why string) {
	l.mu.Lock()
	now := l.n.now()
	soon := l.began.After(now.Add(-l.n.o.Learner.RetrainEvery / 6))
	if !soon {
		l.wanted = why
	}
	l.mu.Unlock()
	if !soon {
		l.poke()
	}
}

func (l *learning) reason() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wanted
}

func (l *learning) takeReason() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	why := l.wanted
	l.wanted, l.began = "", l.n.now()
	return why
}

// snapshot is what a training may use: for the first model what was seen, less
// the newest, on which it is judged; later only what has waited and was not
// indicted since.
func (l *learning) snapshot() lesson {
	l.judgeAll()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := lesson{from: l.first, until: l.n.now(), champion: l.champion, attacks: examples(l.attacks)}
	if l.champion != nil {
		s.until = s.until.Add(-l.n.o.Learner.Wait)
	} else {
		s.until = s.until.Add(-time.Duration(heldBack * float64(s.until.Sub(l.first))))
	}
	s.normal = l.pool.Mature(s.until, l.suspected)
	return s
}

// lesson is what a training may use.
type lesson struct {
	normal      []feature.Vector
	attacks     []learner.Example
	champion    *learner.Model
	from, until time.Time          // age of the oldest and the youngest normal
	say         func(words string) // hears how far training is; nil: nobody does
}

// sayEvery is how many steps of training pass between words.
const sayEvery = 250

// steps lets others have their turn between steps, and says how far training is.
func (s *lesson) steps(turn func()) func() {
	if s.say == nil {
		return turn
	}
	n := 0
	return func() {
		if n++; n%sayEvery == 0 {
			s.say(fmt.Sprintf("training: %d steps", n))
		}
		turn()
	}
}

func (s *lesson) window() lifecycle.Window {
	return lifecycle.Window{From: s.from, Until: s.until, Normals: len(s.normal), Attacks: len(s.attacks)}
}

// train makes a model of the site's own and proposes it; what the mesh taught
// stays, on the new self.
func (l *learning) train(ctx context.Context, why string) error {
	s := l.snapshot()
	if len(s.normal) < learner.MinNormal {
		return nil // nothing has waited long enough: the model in use stays
	}
	_, err := l.teach(ctx, s, why)
	return err
}

// teach trains on a lesson and proposes what comes of it.
func (l *learning) teach(ctx context.Context, s lesson, why string) (x lifecycle.Model, err error) {
	cfg := l.cfg
	cfg.TrainedAt, cfg.Pause = l.n.now(), s.steps(l.n.back.Turns())
	began := time.Now()
	var m *learner.Model
	err = l.n.back.Run(ctx, func(ctx context.Context) (err error) {
		m, err = learner.Train(ctx, cfg, s.champion, s.normal, s.attacks)
		return err
	})
	if err != nil {
		return x, err
	}
	l.n.log.Info("model was trained", telemetry.KeyModel, m.Hash(), telemetry.KeyReason, why, "normals", len(s.normal), "took", time.Since(began))
	l.mu.Lock()
	active, round, shared := l.model, l.adopted, l.sharedNow
	l.mu.Unlock()
	c := candidate{model: m, base: m, origin: lifecycle.Local, data: s.window(), why: why}
	if active != nil && active.Mesh() != nil {
		c.round, c.shared = round, shared
		if c.model, err = l.withShared(ctx, m, active.Mesh(), s.normal); err != nil {
			return x, err
		}
	}
	return l.n.models.propose(c)
}

// withShared calibrates in the background.
func (l *learning) withShared(ctx context.Context, m *learner.Model, params []float32, normal []feature.Vector) (next *learner.Model, err error) {
	err = l.n.back.Run(ctx, func(context.Context) (err error) {
		next, err = m.WithShared(params, normal)
		return err
	})
	return next, err
}

// Train implements federation.Trainer: the shared part, from the mesh's base, on
// this site's own traffic and labels.
func (l *learning) Train(ctx context.Context, _ uint64, base []float32) ([]float32, int, error) {
	s := l.snapshot()
	if len(s.normal) < learner.MinNormal {
		return nil, 0, fmt.Errorf("site has %d reports of normal traffic that may teach: %d are needed", len(s.normal), learner.MinNormal)
	}
	l.mu.Lock()
	l.taught = s.until
	l.mu.Unlock()
	if l.n.discreet.o.on() {
		return l.trainPrivately(ctx, base, s.attacks)
	}
	var p []float32
	cfg := l.cfg
	cfg.Pause = l.n.back.Turns()
	err := l.n.back.Run(ctx, func(ctx context.Context) (err error) {
		p, err = learner.TrainShared(ctx, cfg, base, s.normal, s.attacks, sharedSteps)
		return err
	})
	return p, len(s.normal) + len(s.attacks), err
}

// sharedSteps is equal at every site: unequal local steps let large sites drown
// unlike ones.
const sharedSteps = 1000

// Adopt implements federation.Trainer: the mesh's shared part, on the best self
// that this site made alone, passes through the same life as any other model.
// What becomes of it is told by events; here it is only said whether it was
// taken on trial.
func (l *learning) Adopt(ctx context.Context, round uint64, hash string, params []float32) (bool, string, error) {
	l.mu.Lock()
	champion, until := l.champion, l.cutoff
	before := l.pool.Mature(l.cutoff, l.suspected)
	if l.taught.After(until) {
		until = l.taught
	}
	data := lifecycle.Window{From: l.first, Until: until, Normals: len(before), Attacks: len(l.attacks)}
	l.mu.Unlock()
	if champion == nil {
		return false, "this site has no model of its own yet to compare with", nil
	}
	m, err := l.withShared(ctx, champion, params, before)
	if err != nil {
		return false, "", err
	}
	x, err := l.n.models.propose(candidate{model: m, base: champion, origin: lifecycle.Round, round: round, shared: hash, data: data})
	if err != nil {
		return false, "", err
	}
	return x.Stage != lifecycle.Retired, x.History[len(x.History)-1].Why, nil
}

// restore brings back labels, memory and canaries.
func (l *learning) restore() error {
	if err := errors.Join(l.loadAttacks(), l.loadLessons()); err != nil {
		return err
	}
	return l.loadKnown()
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
	l.unsaved = false
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
		raw := d.take(max(1, feature.Size(d.b)))
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
