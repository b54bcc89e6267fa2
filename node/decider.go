package node

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// kernelReason marks what the plane's own scorer holds. It is of no rule.
const kernelReason = 0xfffff0

// decider has the plane score by the pupil's scorer, and act by it where the site
// wants that. A scorer that follows another which decides does so for a share of the
// hosts first, as models do. Its fields are under the node's lock.
type decider struct {
	mode   string           // KernelOff: the plane scores nothing
	plane  dataplane.Scorer // nil: it has none
	active *score.Scorer    // that is wanted there
	trial  *score.Scorer    // the newest, while it decides for some hosts only
	until  time.Time        // its end
	in     dataplane.Scoring
	since  time.Time
	why    string // what is wanted is not there
	back   string // why it no longer acts, "" while it may
	prompt prompt
}

func newDecider(n *Node) decider {
	d := decider{mode: KernelOff}
	d.plane, _ = n.o.Plane.(dataplane.Scorer)
	if n.o.Learner.Enabled && n.o.Learner.Kernel != "" {
		d.mode = n.o.Learner.Kernel
	}
	return d
}

// begin takes out what an earlier process left in the plane, unless the plane goes on
// to decide by it until the first scorer of this process.
func (p *pupil) begin() error {
	d := &p.decider
	if d.plane == nil {
		if d.mode == KernelOn {
			p.n.o.Warnings = append(p.n.o.Warnings, "this plane scores nothing by itself: learner.kernel = \"on\" has the effect of \"shadow\"")
		}
		return nil
	}
	if d.mode == KernelOn && !p.n.machine.Panicked() {
		return nil
	}
	if err := d.plane.SetScoring(dataplane.Scoring{}); err != nil {
		return fmt.Errorf("node: plane: %v", err)
	}
	return nil
}

// offer is a new scorer. Where none decides yet, or nothing follows from a score, it
// is the one at once.
func (d *decider) offer(now time.Time, s *score.Scorer, trial time.Duration) {
	if d.active == nil || d.mode != KernelOn || trial <= 0 {
		d.active, d.trial = s, nil
		return
	}
	d.trial, d.until = s, now.Add(trial)
}

// due ends a trial whose time is over.
func (d *decider) due(now time.Time) {
	if d.trial != nil && !now.Before(d.until) {
		d.active, d.trial = d.trial, nil
	}
}

// wanted is what the plane is to score by. The hosts of a trial are picked as those
// for which a model on trial judges.
func (p *pupil) wanted() dataplane.Scoring {
	d := &p.decider
	s := dataplane.Scoring{
		Active: d.active, Trial: d.trial, Shadow: d.mode != KernelOn || p.n.onProbation(p.n.now()) != nil, Hold: p.n.o.Policy.Suspend, Reason: kernelReason,
	}
	if d.trial != nil {
		s.Canary = p.n.models.key.Share(p.now.Hash, p.n.models.m.Options().Share)
	}
	return s
}

// install brings the plane in step with the scorers that count. Making and checking
// the program takes some milliseconds, for which the node is not held up.
func (p *pupil) install() {
	d := &p.decider
	p.n.mu.Lock()
	d.due(p.n.now())
	want := p.wanted()
	if d.mode == KernelOff || d.plane == nil || p.n.machine.Panicked() || want.Active == nil || want == d.in {
		p.n.mu.Unlock()
		return
	}
	p.n.mu.Unlock()
	err := d.plane.SetScoring(want)
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	if err != nil {
		d.why = err.Error()
		p.n.log.Error("the plane did not take the scorer: what decided before stays", telemetry.KeyErr, err)
		return
	}
	d.in, d.since, d.why = want, p.n.now(), ""
	if p.scorer != nil && (want.Active == p.scorer || want.Trial == p.scorer) {
		p.arrived(d.since)
	}
	if p.n.machine.Panicked() || d.active == nil { // meanwhile
		p.lift()
	}
}

// lift takes the scorers out of the plane, and frees what they held. The caller holds
// the node's lock.
func (p *pupil) lift() {
	d := &p.decider
	if d.plane == nil || d.mode == KernelOff {
		return
	}
	if err := d.plane.SetScoring(dataplane.Scoring{}); err != nil {
		p.n.log.Error("the plane goes on to decide by its scorer", telemetry.KeyErr, err)
		return
	}
	d.in = dataplane.Scoring{}
}

// found takes a verdict of the plane's own: the incident that it belongs to, and why
// the model of this site finds the flow unusual, or that it does not.
func (n *Node) found(now time.Time, ev *dataplane.Event) {
	if ev.Verdict == nil || ev.Verdict.Outcome == dataplane.Shadowed {
		return
	}
	j, vec := n.sensor.Look(&ev.Record)
	fx, incident := n.machine.Decided(now, ev, j, n.sensor.Reasons)
	n.act(fx)
	if why := n.machine.Retreat(); why != "" {
		n.pupil.retreat(why)
	}
	if incident == "" {
		return
	}
	n.pupil.decider.prompt.count(n.now().Sub(time.Unix(0, ev.At)))
	if vec != nil {
		n.buffer.add(incident, enforce.CauseOf(&ev.Record), vec)
	}
}

// retreat ends that the plane acts by its scorer, until the daemon starts again: it goes
// on to count. What it held is let go. The caller holds the node's lock.
func (p *pupil) retreat(why string) {
	d := &p.decider
	if d.mode != KernelOn {
		return
	}
	d.mode, d.back = KernelShadow, "acts no longer, until the daemon starts again: "+why
	p.n.log.Warn("the kernel's scorer only counts from now on, until the daemon starts again", telemetry.KeyReason, why)
	p.lift()
	p.poke()
}

// prompt is how soon after a verdict of the plane its incident, with the reasons of the
// model, was there. Clocks that are set meanwhile count as no time.
type prompt struct {
	n    uint64
	most time.Duration
}

func (p *prompt) count(d time.Duration) {
	p.n++
	p.most = max(p.most, d)
}

// view is what status tells of it; nil where the plane scores nothing.
func (d *decider) view() *api.KernelDeciding {
	if d.mode == KernelOff || d.plane == nil {
		return nil
	}
	s, err := d.plane.ScoringState()
	if err != nil {
		return &api.KernelDeciding{Why: err.Error()}
	}
	v := &api.KernelDeciding{
		Shadow: s.Shadow, Since: d.since, Why: cmp.Or(d.back, d.why), Stale: s.Stale, Held: s.Held, Dropped: s.Dropped,
		Explained: d.prompt.n, ExplainedMS: ms(d.prompt.most), CompileMS: ms(s.Compile), VerifyMS: ms(s.Load), SwapMS: ms(s.Swap),
	}
	if s.Active != nil {
		v.Hash, v.Version = hex.EncodeToString(s.Active.Hash[:]), s.Active.Version
	}
	if s.Trial != nil {
		v.Trial, v.TrialUntil = hex.EncodeToString(s.Trial.Hash[:]), d.until
	}
	for m := range s.Due {
		v.Reached += s.Due[m]
		v.Scored += s.Scored[m]
	}
	for by := range s.Verdicts {
		of := &s.Verdicts[by][score.Suspend]
		v.Suspended += of[dataplane.Acted] + of[dataplane.Crowded]
		v.Spared += of[dataplane.Spared]
		v.Monitored += of[dataplane.Monitored]
	}
	v.Shadowed = s.Verdicts[0][score.Suspend][dataplane.Shadowed]
	return v
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
