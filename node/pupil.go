package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/distill"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// What LearnerOptions.Kernel may say.
const (
	KernelOff    = "off"
	KernelShadow = "shadow" // distil and count, in the plane as well; nothing follows from a score
	KernelOn     = "on"     // the plane itself suspends by it
)

// pupilFlows is how many flows the pupil's memory holds.
const pupilFlows = 1 << 14

// pupil keeps the small scorer, which the kernel can run, in step with the model that
// judges: it remembers what the plane held of recent flows, distils when a model
// becomes active and when people say what was an attack, and counts what the scorer
// would have done beside the model. All of it but the distillation is under the
// node's lock.
type pupil struct {
	n       *Node
	on      bool
	memory  *distill.Memory
	teacher *learner.Model
	scorer  *score.Scorer
	now     api.KernelModel // as status tells it
	version uint32
	heard   heard // before the scorer was begun
	timed   heard // of those that reached the packet path
	wake    chan struct{}
	decider decider
}

// heard is the newest word and the newest model that a scorer was made from.
type heard struct{ word, model time.Time }

func newPupil(n *Node) *pupil {
	kernel := n.o.Learner.Kernel
	return &pupil{
		n: n, on: n.o.Learner.Enabled && (kernel == KernelShadow || kernel == KernelOn), decider: newDecider(n),
		memory: distill.NewMemory(pupilFlows, n.o.Learner.Seed), wake: make(chan struct{}, 1),
	}
}

// look remembers a judged report at a milestone, and counts what the scorer says.
func (p *pupil) look(now time.Time, ev *dataplane.Event, j enforce.Judgement, incident string) {
	r := &ev.Record
	if !p.on {
		return
	}
	if ev.Kind == dataplane.EventEnd && incident != "" {
		p.memory.Indict(r.ID, incident)
	}
	x, at, ok := score.FromRecord(r)
	if !ok || !j.Judged || ev.Kind != dataplane.EventMilestone {
		return
	}
	t := distill.Tag{Flow: r.ID, Cause: causeHash(r), Incident: incident}
	if far, _, ok := r.Outside(); ok {
		t.Peer = hashAddr(far.Addr())
	}
	p.memory.Add(now.UnixNano(), t, &distill.Look{At: at, X: x, P: float32(min(max(j.P, 0), 1))})
	if p.scorer == nil {
		return
	}
	c := &p.now.Milestones[at]
	c.Scored++
	would, alarm := p.scorer.Decide(at, p.scorer.Eval(at, &x)) != score.Pass, incident != "" || p.n.machine.Suspicious(j)
	switch {
	case would && alarm:
		c.Both++
	case would:
		c.Alone++
	case alarm:
		c.ModelAlone++
	}
}

// label takes what the flows of an incident were.
func (p *pupil) label(now time.Time, lb *enforce.Label) {
	if !p.on {
		return
	}
	if !lb.Attack {
		p.memory.Dismiss(lb.Incident)
		p.save()
		p.poke()
		return
	}
	peer := uint64(0)
	if lb.Peer.IsValid() {
		peer = hashAddr(lb.Peer)
	}
	if p.memory.Confirm(lb.Incident, peer, float32(min(max(lb.Weight, 0), 1))) > 0 {
		p.now.Labelled = now
		p.save()
		p.poke()
	}
}

const keyPupil = "node/kernel-confirmed"

func (p *pupil) save() {
	p.n.outbox.put(job{save: &kv{keyPupil, p.memory.MarshalConfirmed()}})
}

// restore brings back what was confirmed. Looks at normal flows come by themselves.
func (p *pupil) restore() error {
	if !p.on {
		return nil
	}
	b, err := p.n.o.Store.Load(keyPupil)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.memory.UnmarshalConfirmed(b); err != nil {
		p.n.log.Warn("stored flows that were confirmed cannot be used: the scorer waits for new ones", telemetry.KeyErr, err)
	}
	return nil
}

// follow takes the model that judges from now on. The scorer of the one before goes
// on until its own is there; without a model there is none.
func (p *pupil) follow(now time.Time, m *learner.Model) {
	p.teacher = m
	if m == nil {
		p.scorer, p.now.Hash, p.now.Parent = nil, "", ""
		p.decider.active, p.decider.trial = nil, nil
		p.lift()
		return
	}
	p.now.Retrained = now
	p.poke()
}

func (p *pupil) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run distils when there is reason to, until ctx ends. What failed for want of flows, or
// made a scorer that acts on nothing for want of them, is tried again.
func (p *pupil) run(ctx context.Context) error {
	if !p.on {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(30 * time.Second)
	defer t.Stop()
	again := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-t.C:
			if !again {
				p.install() // a trial may have ended
				continue
			}
		}
		err := p.distil(ctx)
		p.install()
		again = errors.Is(err, distill.ErrTooFew) || errors.Is(err, distill.ErrNothing) || err == nil && p.mute()
		if err != nil && !again && ctx.Err() == nil {
			p.n.log.Error("distillation failed: the scorer in use stays", telemetry.KeyErr, err)
		}
	}
}

// mute says that a model judges, and that its scorer acts on nothing yet.
func (p *pupil) mute() bool {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	return p.scorer != nil && p.now.Report.Mute()
}

// distil makes a scorer of the model that judges, and lets it count.
func (p *pupil) distil(ctx context.Context) error {
	p.n.mu.Lock()
	teacher, now := p.teacher, p.n.now()
	normal, attacks := p.memory.Lesson(now.UnixNano())
	p.version++
	o := distill.Options{Seed: p.n.o.Learner.Seed, Version: p.version, Budget: p.budget(now)}
	before := heard{p.now.Labelled, p.now.Retrained}
	p.n.mu.Unlock()
	if teacher == nil {
		return nil
	}
	if b, err := hex.DecodeString(teacher.Hash()); err == nil {
		copy(o.Parent[:], b)
	}
	began := time.Now()
	var x *distill.Result
	o.Pause = p.n.back.Turns()
	err := p.n.back.Run(ctx, func(ctx context.Context) (err error) {
		x, err = distill.Distil(ctx, normal, attacks, o)
		return err
	})
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	if err != nil {
		p.now.Why = err.Error()
		return err
	}
	p.heard = before
	return p.take(teacher, x, time.Since(began))
}

// arrived tells how long the way was from the newest word, and from the newest model,
// to the first scorer in the packet path that was made after it.
func (p *pupil) arrived(now time.Time) {
	for _, way := range []struct {
		from time.Time
		last *time.Time
		s    *float64
	}{{p.heard.word, &p.timed.word, &p.now.WordS}, {p.heard.model, &p.timed.model, &p.now.ModelS}} {
		if !way.from.IsZero() && way.from != *way.last {
			*way.last, *way.s = way.from, now.Sub(way.from).Seconds()
		}
	}
}

// take lets a new scorer count from here on.
func (p *pupil) take(teacher *learner.Model, x *distill.Result, took time.Duration) error {
	hash, err := x.Scorer.Hash()
	if err != nil {
		return err
	}
	p.scorer = x.Scorer
	p.decider.offer(p.n.now(), x.Scorer, p.n.o.Learner.Canary)
	p.now.Hash, p.now.Parent, p.now.Why = hex.EncodeToString(hash[:]), teacher.Hash(), ""
	p.now.Distilled, p.now.TookS, p.now.Report = p.n.now(), took.Seconds(), x.Report
	p.now.Milestones = [score.Milestones]api.KernelMilestone{}
	p.n.log.Info("scorer was distilled", telemetry.KeyModel, p.now.Parent, "scorer", p.now.Hash, "normals", x.Report.Normals, "attacks", x.Report.Attacks, "took", took)
	return nil
}

// budget is the share of flows that the scorer may act on: that of the operator's
// incidents, within what held-out flows can say.
func (p *pupil) budget(now time.Time) float64 {
	share := p.n.o.Learner.IncidentsPerDay / max(1, p.n.rate.perDay(now))
	return min(max(share, 1e-4), 1e-2)
}

// view is what status tells.
func (p *pupil) view() *api.KernelModel {
	v := p.now
	v.Mode = KernelOff
	if p.on {
		v.Mode = KernelShadow
	}
	if v.Deciding = p.decider.view(); v.Deciding != nil && p.decider.mode == KernelOn {
		v.Mode = KernelOn
	}
	var scored, would, both int
	for i, c := range v.Milestones {
		v.Milestones[i].Packets = score.Milestone(i).Packets()
		scored, would, both = scored+c.Scored, would+c.Both+c.Alone, both+c.Both
	}
	switch {
	case !p.n.o.Learner.Enabled:
		v.Words = "off: the learner is off"
	case !p.on:
		v.Words = "off: learner.kernel says so"
	case p.scorer == nil && v.Why != "":
		v.Words = "none yet: " + v.Why
	case p.scorer == nil:
		v.Words = "none yet: no model judges"
	case v.Mode == KernelOn:
		v.Words = v.Deciding.Words()
	default:
		v.Words = fmt.Sprintf("shadow: scorer %.8s of model %.8s counts and does nothing: %d scored, %d would be suspended, the model alarms on %d of them",
			v.Hash, v.Parent, scored, would, both)
	}
	return &v
}
