// Package replay runs captures through the pipeline of the gateway: software
// plane, features, model, the machine that decides. It learns from captures or
// from the beginning of one, tells flows and alerts, and against ground truth
// how well the flows were told apart. Time is the captures' own; nothing is
// enforced beyond the run, nothing is stored.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
	"github.com/hedgerow-mesh/hedgerow/node/internal/intake"
)

// Options of a run.
type Options struct {
	Files  []string
	Learn  []string       // captures and flow logs to learn from first
	First  float64        // or the share of the files' packets to learn from, 0..1
	Truth  []string       // one for each file: a per-packet CSV, "attack", "benign", or "" for none
	Inside []netip.Prefix // protected prefixes; empty: private ones
	Mode   dataplane.Mode
	Alpha  float64 // p-value of an alert; 0: the model's floor or 1e-4, whichever is higher
	Seed   uint64
	// Event is told every alert, incident and verdict, and with Flows every flow.
	Event    func(*event.Event)
	Flows    bool
	Progress func(file string, done, total int64)
}

// FileReport is what became of one capture.
type FileReport struct {
	File      string            `json:"file"`
	Packets   int64             `json:"packets"`
	Flows     int               `json:"flows"`
	Judged    int               `json:"judged"`
	Alerts    int               `json:"alerts"`
	Incidents int               `json:"incidents"`
	Malformed map[string]uint64 `json:"malformed,omitempty"`
	Error     string            `json:"error,omitempty"` // the capture ended early
}

// Report is the result of a run.
type Report struct {
	Learnt     int          `json:"learnt_reports"` // reports of flows that the model was trained on
	TrainS     float64      `json:"train_s"`
	Model      string       `json:"model,omitempty"`
	Alpha      float64      `json:"alpha"`
	Files      []FileReport `json:"files"`
	Truth      *Truth       `json:"truth,omitempty"`
	Packets    int64        `json:"packets"`
	Seconds    float64      `json:"seconds"`
	PacketsSec float64      `json:"packets_per_s"`
}

// run is the state of one replay.
type run struct {
	o       Options
	plane   *softplane.Plane
	sensor  *enforce.Sensor
	machine *enforce.Machine
	now     time.Time
	flows   map[uint64]*judged
	learn   []feature.Vector
	record  bool // reports teach instead of being judged
	report  *FileReport
	bad     map[flow.Key][]int64 // times of malicious packets, by flow
	errs    error
}

// judged is the strongest that was said of a flow.
type judged struct {
	score     float64 // raw, higher is stranger
	p         float64
	alerted   bool
	known     bool // a model judged it
	malicious bool
}

// maxLearn bounds what a capture may teach; a longer one is thinned evenly.
const maxLearn = 60000

// Run replays. A capture that breaks off is reported and the next one goes on;
// an error is returned for what makes the whole run meaningless.
func Run(ctx context.Context, o Options) (*Report, error) {
	if len(o.Files) == 0 {
		return nil, errors.New("replay: no capture given")
	}
	if len(o.Truth) > 0 && len(o.Truth) != len(o.Files) {
		return nil, fmt.Errorf("replay: %d ground truths for %d captures: expected one for each, in their order", len(o.Truth), len(o.Files))
	}
	if o.First < 0 || o.First >= 1 {
		return nil, fmt.Errorf("replay: share to learn from: found %g: expected 0 to below 1", o.First)
	}
	began := time.Now()
	rep := &Report{Files: []FileReport{}}
	model, err := o.train(ctx, rep)
	if err != nil {
		return nil, err
	}
	score := &scores{}
	for i, f := range o.Files {
		fr, err := o.file(ctx, f, i, model, rep, score)
		if err != nil {
			return nil, err
		}
		rep.Files = append(rep.Files, *fr)
		rep.Packets += fr.Packets
	}
	if len(o.Truth) > 0 {
		rep.Truth = score.truth()
	}
	rep.Seconds = time.Since(began).Seconds()
	rep.PacketsSec = float64(rep.Packets) / rep.Seconds
	return rep, nil
}

func (o *Options) newRun() (*run, error) {
	r := &run{o: *o, flows: map[uint64]*judged{}, report: &FileReport{}, bad: map[flow.Key][]int64{}}
	var err error
	if r.plane, err = softplane.Open(softplane.Options{
		Inside: o.Inside, Mode: o.Mode, Now: func() time.Time { return r.now },
	}); err != nil {
		return nil, err
	}
	if err = r.plane.WatchHellos(true); err != nil {
		return nil, err
	}
	// Captures are short: a host is familiar once it was seen at all.
	r.sensor, err = enforce.NewSensor(feature.ContextOptions{Settle: time.Second, Seed: o.Seed + 1})
	if err != nil {
		return nil, err
	}
	r.machine = enforce.New(enforce.Options{Site: "replay", Mode: o.Mode, Rules: true})
	return r, nil
}

// train makes the model: from other captures, or from the beginning of these.
func (o *Options) train(ctx context.Context, rep *Report) (*learner.Model, error) {
	var vecs []feature.Vector
	var err error
	switch {
	case len(o.Learn) > 0:
		vecs, err = o.past(ctx)
	case o.First > 0:
		vecs, err = o.beginnings(ctx)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	vecs = thin(vecs, maxLearn)
	began := time.Now()
	m, err := learner.Train(ctx, learner.Config{Seed: o.Seed + 1}, nil, vecs, nil)
	if errors.Is(err, learner.ErrTooFew) {
		return nil, fmt.Errorf("replay: %d reports of flows to learn from: at least %d are needed: give a longer capture to --learn", len(vecs), learner.MinNormal)
	}
	if err != nil {
		return nil, fmt.Errorf("replay: train: %v", err)
	}
	rep.Learnt, rep.TrainS, rep.Model = len(vecs), time.Since(began).Seconds(), m.Meta().Hash
	rep.Alpha = o.Alpha
	if rep.Alpha == 0 {
		rep.Alpha = max(m.Floor(), 1e-4)
	}
	return m, nil
}

// past is what other captures and flow logs tell. A host is familiar once it was
// seen at all, as in the captures that are judged.
func (o *Options) past(ctx context.Context) (vecs []feature.Vector, err error) {
	ho := history.Options{Inside: o.Inside, Settle: time.Second, Seed: o.Seed, Progress: o.Progress}
	for _, f := range o.Learn {
		if _, err := history.Read(ctx, f, ho, func(r *history.Report) {
			if vecs = append(vecs, *r.V); len(vecs) >= 4*maxLearn {
				vecs = thin(vecs, maxLearn)
			}
		}); err != nil {
			return nil, fmt.Errorf("replay: learn: %w", err)
		}
	}
	return vecs, nil
}

// beginnings is what the first packets of the captures tell.
func (o *Options) beginnings(ctx context.Context) (vecs []feature.Vector, err error) {
	for _, f := range o.Files {
		r, err := o.newRun()
		if err != nil {
			return nil, err
		}
		r.record = true
		total, err := count(ctx, f)
		if err != nil {
			return nil, err
		}
		if err := r.feed(ctx, f, nil, func(i int64) bool { return float64(i) < o.First*float64(total) }); err != nil {
			return nil, err
		}
		vecs = append(vecs, r.learn...)
	}
	return vecs, nil
}

func thin(v []feature.Vector, limit int) []feature.Vector {
	if len(v) <= limit {
		return v
	}
	out := make([]feature.Vector, 0, limit)
	for i := range limit {
		out = append(out, v[i*len(v)/limit])
	}
	return out
}

func count(ctx context.Context, file string) (n int64, err error) {
	c, err := intake.OpenCapture(file)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	for ctx.Err() == nil {
		if _, err := c.Next(); err != nil {
			return n, nil // the second pass says what is wrong
		}
		n++
	}
	return 0, ctx.Err()
}

// file replays one capture. With Options.First the learnt part runs too, so
// that context is complete, but only what comes after it is judged.
func (o *Options) file(ctx context.Context, f string, i int, m *learner.Model, rep *Report, sc *scores) (*FileReport, error) {
	r, err := o.newRun()
	if err != nil {
		return nil, err
	}
	r.report.File = f
	r.sensor.SetModel(m)
	r.machine.SetBudget(rep.Alpha, 0)
	skip := int64(0)
	if o.First > 0 && len(o.Learn) == 0 {
		total, err := count(ctx, f)
		if err != nil {
			return nil, err
		}
		skip = int64(o.First * float64(total))
	}
	truth := ""
	if i < len(o.Truth) {
		truth = o.Truth[i]
	}
	labels, err := readTruth(truth)
	if err != nil {
		return nil, err
	}
	r.record = skip > 0
	err = r.feed(ctx, f, labels, func(n int64) bool {
		r.record = n < skip
		return true
	})
	if err != nil {
		return nil, err
	}
	r.finish(labels, sc)
	return r.report, nil
}

// feed shows a capture's packets to the plane while more says so.
func (r *run) feed(ctx context.Context, file string, labels *labels, more func(i int64) bool) error {
	c, err := intake.OpenCapture(file)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for i := int64(0); ; i++ {
		if i&1023 == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if r.o.Progress != nil {
				r.o.Progress(file, c.Offset(), c.Size())
			}
		}
		p, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.report.Error = err.Error()
			break
		}
		if !more(i) {
			break
		}
		r.report.Packets++
		if p.At.After(r.now) {
			r.now = p.At
		}
		if labels.bad(i) {
			if k, ok := softplane.KeyOf(p.Link, p.Data); ok {
				r.bad[k] = append(r.bad[k], p.At.UnixNano())
			}
		}
		r.plane.Captured(p.Link, p.Data, p.OrigLen, p.At)
		r.plane.Drain(r.handle)
	}
	r.plane.Flush()
	r.plane.Drain(r.handle)
	st, err := r.plane.Stats()
	if err == nil {
		r.report.Malformed = st.Malformed
	}
	return r.errs
}

func (r *run) handle(ev *dataplane.Event) {
	j, vec := r.sensor.Judge(ev)
	if vec == nil {
		r.tell(r.machine.Flow(r.now, ev, j, nil))
		return
	}
	if r.record {
		r.learn = append(r.learn, *vec)
		return
	}
	rec := &ev.Record
	f := r.flows[rec.ID]
	if f == nil {
		f = &judged{p: 1}
		r.flows[rec.ID] = f
		r.report.Flows++
	}
	if j.Judged {
		f.known = true
		f.p = min(f.p, j.P)
		f.score = max(f.score, r.sensor.Raw())
	}
	fx, _ := r.machine.Flow(r.now, ev, j, r.sensor.Reasons)
	for _, e := range fx {
		if e.Emit != nil && e.Emit.Alert != nil {
			f.alerted = true
		}
	}
	r.tell(fx, "")
	if ev.Kind == dataplane.EventEnd {
		f.malicious = r.malicious(rec)
		if r.o.Flows && r.o.Event != nil {
			b := enforce.FlowBody(rec, j.P)
			r.o.Event(&event.Event{V: event.Version, ID: event.NewID(r.now), Time: r.now, Site: "replay", Kind: event.KindFlow, Flow: &b})
		}
	}
}

// malicious says that a labelled packet lies within the flow.
func (r *run) malicious(rec *flow.Record) bool {
	for _, t := range r.bad[rec.Key] {
		if t >= rec.Start && t <= rec.Last {
			return true
		}
	}
	return false
}

// tell carries effects out within the run: rules act on the plane, records are
// passed on, the mesh is nobody.
func (r *run) tell(fx []enforce.Effect, _ string) {
	for len(fx) > 0 {
		e := fx[0]
		fx = fx[1:]
		switch {
		case e.Apply != nil:
			if err := r.plane.Apply(e.Apply.Rule); err != nil && r.errs == nil {
				r.errs = err
			}
			r.pass(e.Apply.Verdict)
		case e.Remove != nil:
			_ = r.plane.Remove(*e.Remove) // unknown targets are no error
		case e.Ask != nil:
			fx = append(fx, r.machine.Answer(r.now, e.Ask.Incident, nil)...)
		case e.Emit != nil:
			if e.Emit.Alert != nil {
				r.report.Alerts++
			}
			if e.Emit.Incident != nil && e.Emit.Incident.Alerts == 1 {
				r.report.Incidents++
			}
			r.pass(e.Emit)
		}
	}
}

func (r *run) pass(e *event.Event) {
	if e != nil && r.o.Event != nil {
		r.o.Event(e)
	}
}

func (r *run) finish(l *labels, sc *scores) {
	for _, f := range r.flows {
		if f.known {
			r.report.Judged++
		}
		if l == nil {
			continue
		}
		if l.whole {
			f.malicious = l.all
		}
		sc.add(f)
	}
}
