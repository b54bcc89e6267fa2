package evaluate

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/flowlog"
	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
)

// maxReports bounds what one file may hold; what is longer is refused.
const maxReports = 300_000

// report is one report of a flow, as a plane or a log gave it.
type report struct {
	rec    flow.Record
	end    bool
	attack bool // the campaign's own
	beside bool // of the campaign's file, but not the campaign's
}

func (x *report) event() dataplane.Event {
	ev := dataplane.Event{Kind: dataplane.EventMilestone, Record: x.rec, At: x.rec.Last}
	if x.end {
		ev.Kind = dataplane.EventEnd
	}
	return ev
}

// trace is what one file tells, in the order of the reports.
type trace []report

// begin and end are when the first flow begins and the last ends.
func (t trace) begin() int64 {
	first := t[0].rec.Start
	for i := range t {
		first = min(first, t[i].rec.Start)
	}
	return first
}

func (t trace) end() int64 {
	last := t[0].rec.Last
	for i := range t {
		last = max(last, t[i].rec.Last)
	}
	return last
}

// settle is how long a host's habits rest before they count: the product's ten
// minutes, less in a short trace.
func (t trace) settle() time.Duration {
	return min(max(time.Duration(t.end()-t.begin())/20, time.Second), 10*time.Minute)
}

// readTrace reads the reports of a file for which keep says true.
func readTrace(ctx context.Context, file string, keep func(*history.Report, *report) bool) (trace, error) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(file))
	salt, n, over := h.Sum64(), uint64(0), false
	var out trace
	f, err := history.Read(ctx, file, history.Options{}, func(r *history.Report) {
		x := report{rec: *r.Record, end: r.Final}
		if !keep(r, &x) {
			return
		}
		if x.rec.ID == 0 || r.Record.Lacks != 0 {
			n++
			x.rec.ID = n // a log's flow is told once
		}
		x.rec.ID ^= salt
		if over = over || len(out) >= maxReports; !over {
			out = append(out, x)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case over:
		return nil, fmt.Errorf("%s: more than %d reports of flows: cut it", file, maxReports)
	case len(out) == 0:
		return nil, fmt.Errorf("%s: none of its %d flows is what was looked for", file, f.Flows)
	}
	slices.SortStableFunc(out, byTime)
	return out, nil
}

func byTime(a, b report) int {
	switch {
	case a.rec.Last < b.rec.Last:
		return -1
	case a.rec.Last > b.rec.Last:
		return 1
	}
	return 0
}

// readCampaign reads a campaign and what was beside it.
func readCampaign(ctx context.Context, c *dataset.Campaign) (trace, error) {
	t, err := readTrace(ctx, c.File, func(r *history.Report, x *report) bool {
		x.attack = c.Of == nil || c.Of(r.Record, r.Class)
		x.beside = !x.attack
		return r.Record.Lacks&(flow.LackClock|flow.LackAddrs) == 0
	})
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(t, func(x report) bool { return x.attack }) {
		return nil, fmt.Errorf("%s: no flow of the campaign", c.File)
	}
	return t, nil
}

// readNormal reads what a file does not call anything but normal.
func readNormal(ctx context.Context, file string) (trace, error) {
	labelled := false
	return readTrace(ctx, file, func(r *history.Report, _ *report) bool {
		labelled = labelled || r.Class == flowlog.Normal
		return r.Record.Lacks&(flow.LackClock|flow.LackAddrs) == 0 && (r.Class == flowlog.Normal || r.Class == flowlog.Unlabelled && !labelled)
	})
}

// shift moves a trace in time.
func (t trace) shift(by int64) trace {
	out := slices.Clone(t)
	for i := range out {
		move(&out[i].rec, by)
	}
	return out
}

// move puts a flow at another time.
func move(r *flow.Record, by int64) {
	r.Start, r.Last = r.Start+by, r.Last+by
	for d := range r.Dir {
		if r.Dir[d].First != 0 {
			r.Dir[d].First, r.Dir[d].Last = r.Dir[d].First+by, r.Dir[d].Last+by
		}
	}
}

// at puts a campaign into a day, so that it begins where the share of the day has passed.
func (t trace) at(share float64, campaign trace) trace {
	start := t.begin() + int64(share*float64(t.end()-t.begin()))
	out := slices.Concat(t, campaign.shift(start-campaign.begin()))
	slices.SortStableFunc(out, byTime)
	return out
}

// learnt are the vectors of a trace once its hosts are familiar; of says whose.
func (t trace) learnt(settle time.Duration, of func(*report) bool) (out []feature.Vector, err error) {
	c, err := feature.NewContext(feature.ContextOptions{Settle: settle, Seed: 1})
	if err != nil {
		return nil, err
	}
	for i := range t {
		x := &t[i]
		c.Update(&x.rec, x.end)
		if !c.Settled() || !of(x) || x.rec.OnlyResets() {
			continue
		}
		var v feature.Vector
		c.Vector(&v, &x.rec)
		out = append(out, v)
	}
	return out, nil
}

// gateway is the site's own pipeline: context, model, counting rules, and the
// machine that makes incidents of them.
type gateway struct {
	model *learner.Model // nil: the rules alone
	rules bool
	share float64 // of reports that may raise an alarm
}

// outcome is what a gateway told of one site's traffic.
type outcome struct {
	attacks int // flows of the campaign
	// told is how many of them were over when the first was told of, sure when
	// enough was for a block: a rule's, a second flow of the same cause, or a run.
	// -1 is never.
	told, sure  int
	by          string // who told first
	flows       int    // others
	alarms      int    // those that were told of
	incidents   int    // and how many incidents they were
	besideFlows int    // of the campaign's file
	besideTold  int
	days        float64 // of the others
}

// watch shows a site's traffic to a gateway, which knows what came before.
func (g *gateway) watch(before, t trace) (*outcome, error) {
	sensor, err := enforce.NewSensor(feature.ContextOptions{Settle: before.settle(), Seed: 1})
	if err != nil {
		return nil, err
	}
	for i := range before {
		ev := before[i].event()
		sensor.Judge(&ev)
	}
	sensor.SetModel(g.model)
	m := enforce.New(enforce.Options{Site: "study", Rules: g.rules})
	if g.model != nil {
		m.SetBudget(g.share, g.model.Floor())
	}
	o := &outcome{told: -1, sure: -1}
	w := watcher{out: o, alerted: map[uint64]bool{}, perIncident: map[string]int{}}
	for i := range t {
		x := &t[i]
		now := time.Unix(0, x.rec.Last)
		ev := x.event()
		j, _ := sensor.Judge(&ev)
		fx, _ := m.Flow(now, &ev, j, sensor.Reasons)
		for len(fx) > 0 {
			e := fx[0]
			fx = fx[1:]
			if e.Ask != nil {
				fx = append(fx, m.Answer(now, e.Ask.Incident, nil)...)
			}
			w.effect(x, &e, m.Folded)
		}
		w.count(x)
	}
	o.days = w.days()
	return o, nil
}

// watcher keeps account of what was told.
type watcher struct {
	out         *outcome
	alerted     map[uint64]bool
	perIncident map[string]int // of the campaign's flows
	from, to    int64          // of the others
}

func (w *watcher) count(x *report) {
	if !x.attack && !x.beside {
		if w.from == 0 || x.rec.Start < w.from {
			w.from = x.rec.Start
		}
		w.to = max(w.to, x.rec.Last)
	}
	if !x.end {
		return
	}
	switch {
	case x.attack:
		w.out.attacks++
	case x.beside:
		w.out.besideFlows++
	default:
		w.out.flows++
	}
}

func (w *watcher) days() float64 { return float64(w.to-w.from) / float64(24*time.Hour) }

// effect counts what was told of a flow. That many causes became unusual at once
// finds nobody: a campaign is found by an incident of its own.
func (w *watcher) effect(x *report, e *enforce.Effect, folded func(incident string) bool) {
	if e.Emit == nil {
		return
	}
	if in := e.Emit.Incident; in != nil && in.Alerts == 1 && !x.attack && !x.beside {
		w.out.incidents++
	}
	a := e.Emit.Alert
	if a == nil || x.attack && folded(a.Incident) {
		return
	}
	first := !w.alerted[x.rec.ID]
	w.alerted[x.rec.ID] = true
	switch {
	case x.attack:
		w.found(a.Incident, a.Detector, len(a.Reasons) > 0 && a.Reasons[0].Feature == "sequence")
	case x.beside && first:
		w.out.besideTold++
	case !x.beside && first:
		w.out.alarms++
	}
}

func (w *watcher) found(incident, by string, run bool) {
	o := w.out
	if o.told < 0 {
		o.told, o.by = o.attacks, by
	}
	if enforce.ByLimit(by) {
		return // it tells of a host, and is nothing to block anybody for
	}
	w.perIncident[incident]++
	if o.sure < 0 && (run || enforce.ByRule(by) || w.perIncident[incident] > 1) {
		o.sure = o.attacks
	}
}
