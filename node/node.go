// Package node is one site: it wires the packet path, the learner, the mesh and
// the store around the pure machine that decides (internal/enforce). A Node is
// a value: New, Run until the context ends; two live in one process.
//
// One lock guards judgement: a flow event is counted, scored and decided under
// it, and rules reach the plane before it is released, so that the plane never
// sees two decisions in the wrong order. Everything slower (disk, mesh,
// training) happens on other goroutines, fed in order by an outbox.
package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/background"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/evidence"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// Options of a node. Site, Plane, Store and Key are required.
type Options struct {
	Site      string
	Version   string
	Interface string // for status only
	Plane     dataplane.Plane
	Mode      dataplane.Mode
	Store     *store.Store
	Key       *identity.Key

	Never    []dataplane.Never // of the system
	Spared   []dataplane.Never // never-block entries of the configuration
	Own      []netip.Addr      // this machine's addresses: never a target
	Inside   []netip.Prefix    // the protected networks; empty means private addresses
	Learner  LearnerOptions
	Policy   PolicyOptions
	Flood    dataplane.Flood // what new flows may cost
	Mesh     MeshOptions
	Privacy  PrivacyOptions
	Feeds    FeedOptions
	Warnings []string // what `check` found, for status
	Away     string   // what the plane does while no daemon is there, for status
	// Stop is asked to end the daemon, from a request's goroutine; nil refuses.
	Stop func(remove bool)
	// Reread is asked to read the configuration anew and to Tune the node by it;
	// on an error nothing has changed. nil: this site has no file.
	Reread func() (api.Reloaded, error)

	Metrics *telemetry.Metrics // nil: none are kept
	Log     *slog.Logger
	Now     func() time.Time
	Rand    io.Reader // of keys that stay here; nil is crypto/rand, and only a simulation has another
}

// LearnerOptions say what the site learns and when.
type LearnerOptions struct {
	Enabled      bool
	WarmupFlows  int           // flows before the first model
	Warmup       time.Duration // longest wait for them
	Wait         time.Duration // age at which traffic may teach a later model
	RetrainEvery time.Duration
	// Probation is how long a site has to have seen ordinary traffic, in a third of
	// its hours, before what only the learner finds has an effect. 0 is none.
	Probation       time.Duration
	IncidentsPerDay float64
	// FalseBlocksPerMonth is how many false blocks the operator accepts; above,
	// the learner does not block by itself.
	FalseBlocksPerMonth float64
	// Shadow and Canary are how long a new model scores beside, and decides for
	// CanaryShare of the hosts, at least, and TrialReports how many reports
	// either takes as well. Zero values take the defaults of lifecycle.Options.
	Shadow, Canary time.Duration
	CanaryShare    float64
	TrialReports   int
	Kernel         string // KernelShadow, KernelOn, or KernelOff, the default
	Seed           uint64
	Context        feature.ContextOptions
}

// PolicyOptions bound what decisions may do.
type PolicyOptions struct {
	Suspend, Block   time.Duration
	MaxBlocksPerHour int // below 0: none
	MaxShare         float64
	Rules            bool
	Remediation      []dataplane.Never // what a quarantined host may still reach
}

// MeshOptions say who the neighbours are. Without Transport the site is alone.
type MeshOptions struct {
	Organisation string
	Roster       []federation.Site
	Transport    federation.Transport
	RoundEvery   time.Duration
	Gather       time.Duration
	Addrs        func() []string // where this site listens, for status
	// Consortium is what this site is in besides its organisation; nil: in none.
	// Its Genesis is made here, from Founders.
	Consortium *ConsortiumOptions
}

// Node is one site.
type Node struct {
	o       Options
	log     *slog.Logger
	now     func() time.Time
	started time.Time
	member  *federation.Member

	mu        sync.Mutex // judgement: all of the following
	machine   *enforce.Machine
	sensor    *enforce.Sensor
	guard     *policy.Guard
	buffer    exemplars
	rate      rate
	allowed   []string      // the operator's never-block entries, as written
	watching  bool          // the plane shows DNS answers
	ties      keeper        // of the ticker
	probation probation     // what the site has seen, before the learner's word alone has an effect
	beside    beside        // what watched models make of reports
	truth     truth         // budgets against what people said
	witness   evidence.Join // what other tools say of flows
	drifts    drifts        // whether traffic is still what the model learnt
	restart   []string      // keys of the configuration that wait for a restart
	misread   string        // why the configuration was not taken over last, "" when it was
	// Suspensions that an earlier process left in the plane.
	inherited map[dataplane.Target]dataplane.Rule

	feeds  *feeds
	learn  *learning
	models *life
	pupil  *pupil
	hunts  *hunts

	discreet *discretion // what updates of the shared model may tell

	outbox  *queue[job]            // for the disk
	writing sync.Mutex             // one empties the outbox at a time
	back    *background.Runner     // for what computes long and may wait for packets
	toMesh  *queue[enforce.Effect] // shares and withdrawals
	flows   archive
	life    context.Context // of Run; questions to the mesh end with it
	asking  sync.WaitGroup
	driven  *Steps // nil: Run

	floods floodWatch // guarded by mu

	shared sync.Map                       // share key -> indicator id, for withdrawal
	marked sync.Map                       // target -> value, of fingerprints and behaviours
	spare  atomic.Pointer[[]netip.Prefix] // what no word of other organisations may touch
}

// New wires a node and brings its standing blocks back into the plane. Nothing
// runs before Run.
func New(o Options) (*Node, error) {
	if o.Site == "" || o.Plane == nil || o.Store == nil || o.Key == nil {
		return nil, errors.New("node: site, plane, store and key are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{probation: probation{asked: o.Learner.Probation}, o: o, log: o.Log, now: o.Now, started: o.Now(), truth: newTruth(o.Now()), drifts: newDrifts(), outbox: newQueue[job](), toMesh: newQueue[enforce.Effect](), back: background.New(o.Log), life: context.Background(), floods: floodWatch{site: o.Site}}
	if err := n.makeJudgement(); err != nil {
		return nil, err
	}
	var err error
	if n.feeds, err = newFeeds(n); err != nil {
		return nil, err
	}
	if o.Metrics != nil {
		if err := errors.Join(o.Metrics.WatchFeeds(n.feeds.figures), o.Metrics.WatchLists(n.Lists)); err != nil {
			return nil, err
		}
	}
	if n.discreet, err = newDiscretion(o.Privacy, o.Store); err != nil {
		return nil, err
	}
	if err := n.makeMember(); err != nil {
		return nil, err
	}
	return n, n.restore()
}

func (n *Node) makeJudgement() error {
	var err error
	if n.guard, err = policy.NewGuard(n.o.Policy.caps()); err != nil {
		return fmt.Errorf("node: %v", err)
	}
	n.machine = enforce.New(enforce.Options{
		Site: n.o.Site, Mode: n.o.Mode, SuspendFor: n.o.Policy.Suspend, BlockFor: n.o.Policy.Block,
		Rules: n.o.Policy.Rules, Inside: n.inside, Hold: n.hold, NewID: event.IDs(n.o.Rand),
		Burst: burst(n.o.Learner.IncidentsPerDay), Every: every(n.o.Learner.IncidentsPerDay),
		Share: n.o.Policy.MaxShare, Settle: cmp.Or(n.o.Learner.Context.Settle, 10*time.Minute), Probation: n.onProbation,
		May: func(now time.Time, r dataplane.Rule) error {
			if err := n.notOwn(r.Target); err != nil {
				return err
			}
			return n.guard.Check(r, n.machine.Rules(), now)
		},
		Void: func(t dataplane.Target) error {
			if err := n.notOwn(t); err != nil {
				return err
			}
			return n.guard.Void(t)
		},
	})
	if n.learn, err = newLearning(n); err != nil {
		return err
	}
	n.models, n.hunts, n.pupil = newLife(n), newHunts(n), newPupil(n)
	n.sensor, err = enforce.NewSensor(n.o.Learner.Context)
	if err != nil {
		return fmt.Errorf("node: %v", err)
	}
	return nil
}

// notOwn refuses targets that hold one of this machine's own addresses: they
// cannot stand on the plane's never-block list, for on a machine that protects
// itself every packet has one.
func (n *Node) notOwn(t dataplane.Target) error {
	if t.IsFlow() {
		return nil
	}
	// Of a pair, the inside host may be this machine itself.
	for _, a := range n.o.Own {
		if t.Prefix.Contains(a) {
			return fmt.Errorf("%s is an address of this machine: %w", a, dataplane.ErrNeverBlock)
		}
	}
	return nil
}

// restore brings back what the site had decided before it stopped.
func (n *Node) restore() error {
	if err := n.loadAllowed(); err != nil {
		return err
	}
	if err := n.setNever(); err != nil {
		return err
	}
	if err := n.o.Plane.SetRemediation(n.o.Policy.Remediation); err != nil {
		return fmt.Errorf("node: plane: %v", err)
	}
	if err := n.inherit(); err != nil {
		return err
	}
	if err := n.restoreMode(); err != nil {
		return err
	}
	if err := n.setFlood(&n.o.Flood); err != nil {
		return fmt.Errorf("node: %v", err)
	}
	if _, ok := n.o.Plane.(dataplane.FloodGuard); !ok && n.o.Flood.Active() {
		n.o.Warnings = append(n.o.Warnings, "this plane stands no floods: [flood] has no effect")
	}
	if err := n.beginFloods(); err != nil {
		return err
	}
	if err := errors.Join(n.loadBudget(), n.loadProbation(), n.loadTies()); err != nil {
		return err
	}
	if err := n.learn.restore(); err != nil {
		return err
	}
	if err := errors.Join(n.pupil.restore(), n.pupil.begin()); err != nil {
		return err
	}
	if err := n.models.restore(); err != nil {
		return err
	}
	blocks, err := n.o.Store.Blocks()
	if err != nil {
		return fmt.Errorf("node: %v", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.act(n.machine.Restore(n.now(), blocks))
	if err := n.watchNames(); err != nil {
		return fmt.Errorf("node: plane: %v", err)
	}
	if p, ok := n.o.Plane.(dataplane.Hellos); ok {
		if err := p.WatchHellos(n.o.Learner.Enabled); err != nil {
			return fmt.Errorf("node: plane: %v", err)
		}
	}
	return nil
}

// restoreMode brings back the mode and the panic that an operator asked for by
// command; they outlast a restart until another command changes them.
func (n *Node) restoreMode() error {
	mode := n.o.Mode
	if b, err := n.o.Store.Load(keyMode); err == nil {
		said := dataplane.Monitor
		if string(b) == dataplane.Enforce.String() {
			said = dataplane.Enforce
		}
		if said != mode {
			n.o.Warnings = append(n.o.Warnings, fmt.Sprintf("mode is %s by the operator's command, although the configuration says %s (`hedgerow mode %s` goes back)", said, mode, mode))
			mode = said
		}
	} else if !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("node: %v", err)
	}
	n.machine.SetMode(n.now(), mode)
	if b, err := n.o.Store.Load(keyPanic); err == nil && string(b) == "on" {
		n.machine.Panic(n.now(), true)
		n.o.Warnings = append(n.o.Warnings, "panic is on since before the last start (`hedgerow panic --off` ends it)")
	}
	err := n.o.Plane.SetMode(mode)
	if errors.Is(err, dataplane.ErrUnsupported) && mode == dataplane.Enforce {
		n.o.Warnings = append(n.o.Warnings, fmt.Sprintf("mode is monitor: %v", err))
		n.machine.SetMode(n.now(), dataplane.Monitor)
		err = n.o.Plane.SetMode(dataplane.Monitor)
	}
	if err != nil {
		return fmt.Errorf("node: plane: %v", err)
	}
	return nil
}

// Run watches, learns, decides and shares until ctx ends, and returns nil then.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	n.mu.Lock()
	n.life = ctx
	n.mu.Unlock()
	g.Go(func() error { return n.o.Plane.Run(ctx, n.handle) })
	g.Go(func() error { return n.work(ctx) })
	g.Go(func() error { return n.speak(ctx) })
	g.Go(func() error { return n.ticker(ctx) })
	g.Go(func() error { return n.repairer(ctx) })
	g.Go(func() error { return n.learn.run(ctx) })
	g.Go(func() error { return n.models.run(ctx) })
	g.Go(func() error { return n.pupil.run(ctx) })
	g.Go(func() error { return n.hunts.run(ctx) })
	g.Go(func() error { return n.feeds.run(ctx) })
	g.Go(func() error { return n.o.Store.Maintain(ctx) })
	if n.member != nil {
		n.reconcile()
		g.Go(func() error { return n.member.Run(ctx) })
	}
	err := g.Wait()
	n.asking.Wait()
	n.learn.keepWitnessed()
	n.keepTies(n.now(), true)
	n.learn.keepLessons(n.now(), true)
	n.flush()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (n *Node) ticker(ctx context.Context) error {
	var clock clockWatch
	regularly(ctx, time.Second, func() {
		if s := clock.look(n.now()); s != "" {
			n.log.Warn("clock jumped", telemetry.KeyReason, s)
		}
		n.tick()
		n.learn.keepWitnessed()
		n.keepTies(n.now(), false)
		n.learn.keepLessons(n.now(), false)
	})
	return nil
}

// tick is what time alone brings.
func (n *Node) tick() {
	n.lookAtFloods()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.setBudget()
	n.act(n.machine.Tick(n.now()))
	n.tickNames()
}

// handle judges what the plane reports. It is called by one goroutine.
func (n *Node) handle(ev *dataplane.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	if ev.Kind == dataplane.EventAnswer {
		n.resolved(now, ev.Answer)
		return
	}
	if ev.Kind == dataplane.EventVerdict {
		n.found(now, ev)
		return
	}
	if ev.Kind == dataplane.EventFlood {
		n.floods.seen(now, ev)
		return
	}
	if ev.Kind == dataplane.EventFirstDrop && ev.Reason >= enforce.FirstFeedReason {
		if e := n.feeds.firstListed(ev); e != nil {
			n.outbox.put(job{emit: e})
		}
		return
	}
	j, vec := n.sensor.Judge(ev)
	fx, incident := n.machine.Flow(now, ev, j, n.sensor.Reasons)
	n.act(fx)
	if vec == nil {
		return
	}
	n.rate.count(now)
	n.pupil.look(now, ev, j, incident)
	n.drifted(now, ev, j, vec, n.judged(now, ev, j, incident), incident)
	if incident == "" && !n.machine.Suspicious(j) {
		if ev.Kind == dataplane.EventEnd && n.probation.saw(now) {
			n.saveProbation()
		}
		r := &ev.Record
		n.guard.Saw(r.Initiator().Addr(), r.Responder(), r.Key.Proto, now)
	}
	switch {
	case n.machine.AsBefore():
		n.learn.observe(now, ev, vec)
	case incident != "":
		n.buffer.add(incident, enforce.CauseOf(&ev.Record), vec)
	case !n.machine.Suspicious(j):
		if j.Judged && j.P <= odd {
			n.buffer.odd(enforce.CauseOf(&ev.Record), vec)
		}
		n.learn.observe(now, ev, vec)
		if pairs := n.sensor.Pairs(); len(pairs) > 0 {
			n.beside.count(pairs, causeHash(&ev.Record), gateLevel)
		}
	}
	if ev.Kind == dataplane.EventEnd {
		n.flows.add(enforce.FlowBody(&ev.Record, j.P), vec)
		n.attested(now, ev, vec)
	}
}

// burst is how many causes the learner may raise at once: an hour's share of a day,
// and at least a few.
func burst(perDay float64) int { return max(4, int(math.Ceil(perDay/24))) }

// every is the time between so many a day.
func every(perDay float64) time.Duration {
	if !(perDay > 0) {
		return 0 // the default
	}
	return time.Duration(float64(24*time.Hour) / perDay)
}

// causeHash is a report's cause for those who count by it.
func causeHash(r *flow.Record) uint64 {
	peer, _, ok := r.Outside()
	if !ok {
		peer = r.Responder()
	}
	return learner.Cause(ownersOf(r, peer))
}

// act carries effects out: rules now, under the lock, the rest by the outbox.
func (n *Node) act(fx []enforce.Effect) {
	for _, f := range fx {
		n.account(n.now(), &f)
		switch {
		case f.Apply != nil:
			n.apply(f.Apply)
		case f.Remove != nil:
			if err := n.o.Plane.Remove(*f.Remove); err != nil {
				n.log.Error("rule was not lifted", telemetry.KeyTarget, f.Remove.String(), telemetry.KeyErr, err)
			}
			n.outbox.put(job{remove: f.Remove.String()})
		case f.SetMode != nil:
			if err := n.o.Plane.SetMode(*f.SetMode); err != nil {
				n.log.Error("mode was not set", telemetry.KeyMode, f.SetMode.String(), telemetry.KeyErr, err)
			}
		case f.Label != nil:
			vecs := n.buffer.take(f.Label.Incident)
			if f.Label.Attack {
				vecs = n.sensor.Telling(vecs)
			}
			n.learn.label(f.Label, vecs)
			if !f.Label.Attack {
				n.forgetMark(behaviourPrefix + f.Label.Incident)
			}
			n.pupil.label(n.now(), f.Label)
		case f.Innocent != nil:
			if n.member != nil {
				n.member.Innocent(wire.Type(f.Innocent.Type), f.Innocent.Value, f.Innocent.Until)
			}
		case f.Emit != nil:
			if a := f.Emit.Alert; a != nil {
				if peer, err := netip.ParseAddr(a.Peer); err == nil {
					n.learn.suspect(peer)
				}
			}
			n.outbox.put(job{emit: f.Emit})
		case f.Keep != nil:
			n.outbox.put(job{block: f.Keep})
		case f.Forget != "":
			n.outbox.put(job{remove: f.Forget})
		case f.Ask != nil:
			n.putQuestion(*f.Ask)
		default:
			n.toMesh.put(f)
		}
	}
}

func (n *Node) apply(a *enforce.Apply) {
	err := n.o.Plane.Apply(a.Rule)
	at := n.now().UnixNano()
	if err != nil {
		n.log.Error("rule was not enforced", telemetry.KeyTarget, a.Rule.Target.String(), telemetry.KeyAction, a.Rule.Action.String(), telemetry.KeyErr, err)
		if a.Verdict != nil {
			a.Verdict.Verdict.Sentence = fmt.Sprintf("NOT ENFORCED (%v): %s", err, a.Verdict.Verdict.Sentence)
		}
	} else if a.Verdict != nil {
		a.Verdict.Verdict.EnforcedNS = at
	}
	// What stands for a domain touches one host each, and has bounds of its own.
	if a.Rule.Action == dataplane.Block && a.Rule.Target.Form() != dataplane.FormPair && err == nil {
		n.guard.Blocked(n.now())
	}
	if a.Block != nil {
		n.outbox.put(job{block: a.Block, quiet: a.Quiet})
	}
	if a.Verdict != nil && !a.Quiet {
		n.outbox.put(job{emit: a.Verdict})
	}
}

// setBudget turns the operator's incidents a day into a share of the reports that
// come at the present rate. The caller holds n.mu.
func (n *Node) setBudget() {
	if m := n.learn.active(); m != nil {
		share := n.o.Learner.IncidentsPerDay / max(1, n.rate.perDay(n.now()))
		n.machine.SetBudget(min(share, 1e-2), max(m.Floor(), n.sensor.Floor()))
		if level := n.singleLevel(n.now()); level > 0 {
			n.machine.SetSingle(level)
		}
	}
}

// exemplars keeps the vectors of incidents, for when somebody says what they
// were, and of causes that were a little odd, for when they become one: the
// flows that lead to a block are few, and those after it are dropped.
type exemplars struct {
	incidents, before bounded
}

const (
	odd          = 0.05 // p below which a report is kept in case its cause turns out bad
	maxExemplars = 512  // incidents, and causes
	perIncident  = 96   // vectors, 265 bytes each
	perCause     = 32
)

func (x *exemplars) odd(cause string, v *feature.Vector) { x.before.add(cause, v, perCause) }

func (x *exemplars) add(incident, cause string, v *feature.Vector) {
	if _, known := x.incidents.by[incident]; !known {
		for _, old := range x.before.by[cause] {
			x.incidents.add(incident, &old, perIncident)
		}
		x.before.remove(cause)
	}
	x.incidents.add(incident, v, perIncident)
}

func (x *exemplars) take(incident string) []feature.Vector { return x.incidents.by[incident] }

// bounded is lists of vectors by name; the oldest name goes first.
type bounded struct {
	by    map[string][]feature.Vector
	order []string
}

func (b *bounded) add(name string, v *feature.Vector, limit int) {
	if b.by == nil {
		b.by = map[string][]feature.Vector{}
	}
	vs, known := b.by[name]
	if !known {
		for len(b.order) >= maxExemplars {
			delete(b.by, b.order[0])
			b.order = b.order[1:]
		}
		b.order = append(b.order, name)
	}
	if len(vs) < limit {
		b.by[name] = append(vs, *v)
	}
}

func (b *bounded) remove(name string) {
	if _, known := b.by[name]; !known {
		return
	}
	delete(b.by, name)
	b.order = slices.DeleteFunc(b.order, func(s string) bool { return s == name })
}

// rate estimates reports a day over the last minutes.
type rate struct {
	since, last time.Time
	n, prev     float64
	span        time.Duration
}

func (r *rate) count(now time.Time) {
	const window = 10 * time.Minute
	if r.since.IsZero() {
		r.since = now
	}
	if d := now.Sub(r.since); d > window || d < 0 {
		r.prev, r.span = r.n, d
		r.n, r.since = 0, now
	}
	r.n++
	r.last = now
}

func (r *rate) perDay(now time.Time) float64 {
	d := now.Sub(r.since) + r.span
	if d < time.Minute {
		d = time.Minute
	}
	return (r.n + r.prev) / d.Hours() * 24
}
