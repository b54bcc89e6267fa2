package detection

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
	"github.com/hedgerow-mesh/hedgerow/learner/distill"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
)

// Options say what to measure.
type Options struct {
	Data string // folder of the captures
	Seed uint64 // default 1
	// Flows is how many the memory holds for the time of the loop; default 100,000.
	Flows int
	// Only measures captures whose path holds it; "" is all.
	Only     string
	Progress func(string) // may be nil
}

const (
	falseAlarms  = 0.01
	leastNormals = 100 // test flows at a milestone, else 1 % of them says nothing
	leastAttacks = 20  // flows of a capture that reach packet 4
	teachNormals = 4096
	teachAttacks = 400
	within       = 0.03 // what is asked
)

// Cell is one milestone of a capture: the share of attacks found at 1 % false alarms.
type Cell struct {
	Packets uint32  `json:"packets"`
	Attacks int     `json:"attacks"`
	Normals int     `json:"normals"`
	Full    float64 `json:"full"`    // the full model
	Alone   float64 `json:"alone"`   // the full model without a flow's surroundings
	Scorer  float64 `json:"scorer"`  // the kernel's
	Net     float64 `json:"net"`     // a network of 8-bit integers
	Control float64 `json:"control"` // a scorer of labels at random
}

// Met says that the scorer is within three points of the full model.
func (c *Cell) Met() bool { return c.Scorer >= c.Full-within-1e-9 }

// Row is one capture.
type Row struct {
	Capture   string `json:"capture"`
	Class     string `json:"class"`
	Companion string `json:"companion"`
	Taught    int    `json:"taught"`           // flows that were confirmed
	Absent    string `json:"absent,omitempty"` // why it is not measured
	Cells     []Cell `json:"cells,omitempty"`
	// With the thresholds that distillation set for a budget of 1 % of flows, over all
	// milestones of a flow: what the scorer acts on.
	Found       float64        `json:"found"`
	FalseAlarms float64        `json:"false_alarms"`
	Low         float64        `json:"false_alarms_low"` // exact, at 95 %
	High        float64        `json:"false_alarms_high"`
	Distilled   distill.Report `json:"distilled"`
}

// Report is a measurement.
type Report struct {
	Seed     uint64 `json:"seed"`
	Captures []Row  `json:"captures"`
	Loop     *Loop  `json:"loop,omitempty"`
}

// Run measures.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Flows == 0 {
		o.Flows = 100_000
	}
	if o.Flows < 1000 || o.Flows > distill.MaxMemory {
		return nil, fmt.Errorf("flows %d: expected 1000 to %d", o.Flows, distill.MaxMemory)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	o.Progress("reading the companion: " + companion)
	teach, test, err := normals(ctx, o.Data)
	if err != nil {
		return nil, fmt.Errorf("companion: %w", err)
	}
	rep := &Report{Seed: o.Seed}
	if rep.Captures, err = o.measure(ctx, teach, test); err != nil {
		return nil, err
	}
	o.Progress("timing the loop")
	if rep.Loop, err = o.loop(ctx, slices.Concat(teach, test)); err != nil {
		return nil, fmt.Errorf("loop: %w", err)
	}
	return rep, nil
}

// study is one capture's flows, parted.
type study struct {
	seed                 uint64
	normal, attack       []*seen // teach
	testNormal, testEvil []*seen
}

// models are all that are compared on a study.
type models struct {
	full, alone     *learner.Model
	scorer, control *score.Scorer
	net             *distill.Net
	report          distill.Report
}

func (s *study) row(ctx context.Context, r Row) (Row, error) {
	r.Taught = len(s.attack)
	m, err := s.train(ctx)
	if err != nil {
		return r, err
	}
	r.Distilled = m.report
	for at := range score.Milestone(score.Milestones) {
		if c, ok := s.cell(m, at); ok {
			r.Cells = append(r.Cells, c)
		}
	}
	hits := func(fs []*seen) (n int) {
		for _, f := range fs {
			if slices.ContainsFunc(f.flow.Looks, func(l distill.Look) bool {
				return m.scorer.Decide(l.At, m.scorer.Eval(l.At, &l.X)) != score.Pass
			}) {
				n++
			}
		}
		return n
	}
	wrong := hits(s.testNormal)
	r.FalseAlarms = float64(wrong) / float64(max(1, len(s.testNormal)))
	r.Low, r.High = calibrate.Binomial(wrong, len(s.testNormal), 0.95)
	r.Found = float64(hits(s.testEvil)) / float64(max(1, len(s.testEvil)))
	return r, nil
}

// train teaches the full models and distils.
func (s *study) train(ctx context.Context) (m models, err error) {
	vecs, examples := lesson(s.normal, s.attack)
	if m.full, err = learner.Train(ctx, learner.Config{Seed: s.seed}, nil, vecs, examples); err != nil {
		return m, err
	}
	for i := range vecs {
		vecs[i] = ownOnly(vecs[i])
	}
	for i := range examples {
		examples[i].V = ownOnly(examples[i].V)
	}
	if m.alone, err = learner.Train(ctx, learner.Config{Seed: s.seed}, nil, vecs, examples); err != nil {
		return m, err
	}
	scratch := learner.NewScratch()
	for _, f := range slices.Concat(s.normal, s.attack) {
		for i := range f.vecs {
			f.flow.Looks[i].P = float32(m.full.Score(&f.vecs[i], scratch).P)
		}
	}
	normal, attacks := flows(s.normal, 0), flows(s.attack, 1)
	o := distill.Options{Seed: s.seed, Budget: falseAlarms}
	x, err := distill.Distil(ctx, normal, attacks, o)
	if err != nil {
		return m, err
	}
	m.scorer, m.report = x.Scorer, x.Report
	if m.net, err = distill.DistilNet(ctx, normal, attacks, o); err != nil {
		return m, err
	}
	m.control, err = control(ctx, slices.Concat(normal, attacks), len(attacks), o)
	return m, err
}

// control distils from the same flows after labels and p-values were dealt out anew.
func control(ctx context.Context, all []distill.Flow, attacks int, o distill.Options) (*score.Scorer, error) {
	rng := rand.New(rand.NewPCG(o.Seed, 0xc0))
	out := make([]distill.Flow, len(all))
	var ps []float32
	for i, f := range all {
		out[i] = distill.Flow{Looks: slices.Clone(f.Looks)}
		for _, l := range f.Looks {
			ps = append(ps, l.P)
		}
	}
	rng.Shuffle(len(ps), func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	k := 0
	for i := range out {
		for n := range out[i].Looks {
			out[i].Looks[n].P = ps[k]
			k++
		}
		if i < attacks {
			out[i].Weight = 1
		}
	}
	x, err := distill.Distil(ctx, out[attacks:], out[:attacks], o)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	return x.Scorer, nil
}

// cell ranks all flows at one milestone by each model.
func (s *study) cell(m models, at score.Milestone) (Cell, bool) {
	c := Cell{Packets: at.Packets()}
	var truth []bool
	var by [5][]float64
	scratch := learner.NewScratch()
	for k, set := range [][]*seen{s.testNormal, s.testEvil} {
		for _, f := range set {
			i := slices.IndexFunc(f.flow.Looks, func(l distill.Look) bool { return l.At == at })
			if i < 0 {
				continue
			}
			v, own, x := f.vecs[i], ownOnly(f.vecs[i]), &f.flow.Looks[i].X
			for j, y := range [...]float64{
				rank(m.full.Score(&v, scratch)), rank(m.alone.Score(&own, scratch)),
				float64(m.scorer.Eval(at, x)), float64(m.net.Eval(x)), float64(m.control.Eval(at, x)),
			} {
				by[j] = append(by[j], y)
			}
			truth = append(truth, k == 1)
			c.Normals, c.Attacks = c.Normals+1-k, c.Attacks+k
		}
	}
	if c.Normals < leastNormals || c.Attacks == 0 {
		return c, false
	}
	for j, to := range []*float64{&c.Full, &c.Alone, &c.Scorer, &c.Net, &c.Control} {
		r, err := metrics.Rank(by[j], truth)
		if err != nil {
			return c, false
		}
		*to, _ = r.Detection(falseAlarms)
	}
	return c, true
}

// rank orders by the p-value, and those that share the least one by the raw score.
func rank(s learner.Score) float64 { return -math.Log(s.P) + 1e-6*(s.Attack+s.Self) }

// ownOnly is a vector without what tells of the flow's surroundings.
func ownOnly(v feature.Vector) feature.Vector {
	for i := range v.X {
		if feature.IsContext(i) {
			v.X[i] = 0
			v.Has.Remove(i)
		}
	}
	return v
}

func flows(fs []*seen, weight float32) []distill.Flow {
	out := make([]distill.Flow, len(fs))
	for i, f := range fs {
		out[i] = f.flow
		out[i].Weight = weight
	}
	return out
}

// lesson is what the full model learns from, within the bounds of a site's memory.
func lesson(normal, attack []*seen) (vecs []feature.Vector, examples []learner.Example) {
	var all []feature.Vector
	for _, f := range normal {
		all = append(all, f.vecs...)
	}
	n := min(len(all), teachNormals)
	for i := range n {
		vecs = append(vecs, all[i*len(all)/n])
	}
	for _, f := range attack {
		for _, v := range f.vecs {
			if len(examples) < teachAttacks {
				examples = append(examples, learner.Example{V: v, Weight: 1})
			}
		}
	}
	return vecs, examples
}

// Loop is the time from a label to a scorer, for a site with a full memory.
type Loop struct {
	Flows     int           `json:"flows"`
	Looks     int           `json:"looks"`
	Labelled  int           `json:"labelled"`
	Retrained time.Duration `json:"retrained_ns"`
	Distilled time.Duration `json:"distilled_ns"`
	Found     int           `json:"found"` // of the labelled flows
	Over      int           `json:"over"`
	Held      int           `json:"held"`
}
