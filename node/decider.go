package node

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// kernelReason marks what the plane's own scorer holds. It is of no rule.
const kernelReason = 0xfffff0

// decider has the plane decide by the pupil's scorer, where the site wants that. Its
// fields are under the node's lock.
type decider struct {
	on    bool
	plane dataplane.Scorer // nil: it has none
	in    *score.Scorer    // what this process put there
	since time.Time
	why   string // the newest scorer is not there
}

func newDecider(n *Node) decider {
	plane, _ := n.o.Plane.(dataplane.Scorer)
	return decider{on: n.o.Learner.Enabled && n.o.Learner.Kernel == KernelDecide, plane: plane}
}

// begin takes out what an earlier process left in the plane, where this one decides
// by nothing. Otherwise it goes on until the first scorer of this process.
func (p *pupil) begin() error {
	d := &p.decider
	if d.plane == nil {
		if d.on {
			p.n.o.Warnings = append(p.n.o.Warnings, "this plane scores nothing by itself: learner.kernel = \"decide\" has the effect of \"shadow\"")
		}
		return nil
	}
	if d.on && !p.n.machine.Panicked() {
		return nil
	}
	if err := d.plane.SetScoring(dataplane.Scoring{}); err != nil {
		return fmt.Errorf("node: plane: %v", err)
	}
	return nil
}

// install brings the plane in step with the scorer that counts. Making and checking
// the program takes some milliseconds, for which the node is not held up.
func (p *pupil) install() {
	d := &p.decider
	p.n.mu.Lock()
	want := p.scorer
	if !d.on || d.plane == nil || p.n.machine.Panicked() || want == nil || want == d.in {
		p.n.mu.Unlock()
		return
	}
	s := dataplane.Scoring{Active: want, Hold: p.n.o.Policy.Suspend, Reason: kernelReason}
	p.n.mu.Unlock()
	err := d.plane.SetScoring(s)
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	if err != nil {
		d.why = err.Error()
		p.n.log.Error("the plane did not take the scorer: what decided before stays", telemetry.KeyErr, err)
		return
	}
	d.in, d.since, d.why = want, p.n.now(), ""
	if p.n.machine.Panicked() || p.scorer == nil { // meanwhile
		p.lift()
	}
}

// lift takes the scorer out of the plane, and frees what it held. The caller holds
// the node's lock.
func (p *pupil) lift() {
	d := &p.decider
	if d.plane == nil {
		return
	}
	if err := d.plane.SetScoring(dataplane.Scoring{}); err != nil {
		p.n.log.Error("the plane goes on to decide by its scorer", telemetry.KeyErr, err)
		return
	}
	d.in = nil
}

// decided takes a verdict of the plane's own. The milestone of the same flow came just
// ahead of it, so what the model says of it, and why, is told already.
func (p *pupil) decided(ev *dataplane.Event) {
	v, r := ev.Verdict, &ev.Record
	if v == nil {
		return
	}
	p.n.log.Info("the plane's scorer decided", "flow", r.Key.String(), "scorer", hex.EncodeToString(v.Model[:8]), "packets", v.Milestone.Packets(),
		"score", v.Score, "action", v.Action.String(), "outcome", v.Outcome.String())
}

// view is what status tells of it; nil where the plane does not decide.
func (d *decider) view() *api.KernelDeciding {
	if !d.on || d.plane == nil {
		return nil
	}
	s, err := d.plane.ScoringState()
	if err != nil {
		return &api.KernelDeciding{Why: err.Error()}
	}
	v := &api.KernelDeciding{
		Since: d.since, Why: d.why, Stale: s.Stale, Held: s.Held, Dropped: s.Dropped, CompileMS: ms(s.Compile), LoadMS: ms(s.Load), SwapMS: ms(s.Swap),
	}
	if s.Active != nil {
		v.Hash, v.Version = hex.EncodeToString(s.Active.Hash[:]), s.Active.Version
	}
	for m := range s.Due {
		v.Reached += s.Due[m]
		v.Scored += s.Scored[m]
	}
	of := &s.Verdicts[0][score.Suspend]
	v.Suspended, v.Spared, v.Monitored = of[dataplane.Acted]+of[dataplane.Crowded], of[dataplane.Spared], of[dataplane.Monitored]
	return v
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
