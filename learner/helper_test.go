package learner_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/flowgen"
)

// alpha is the alarm level of these tests, for each vector: one alarm in 2000
// flows, of which each is scored some four times.
const alpha = 1.0 / 2000 / 4

// seen is a vector with where it came from.
type seen struct {
	v     feature.Vector
	label string
	nth   int
	final bool
	cause string // who talks to which service where: what an operator counts as one
}

// site is an office whose traffic passes a context.
type site struct {
	office *flowgen.Office
	ctx    *feature.Context
	now    time.Time
}

func newSite(t testing.TB, seed uint64, uploads bool) *site {
	t.Helper()
	c, err := feature.NewContext(feature.ContextOptions{Settle: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return &site{flowgen.NewOffice(seed, uploads), c, time.Unix(1_700_000_000, 0)}
}

// watch passes reports through the context; what comes before it has settled is left out.
func (s *site) watch(reports []flowgen.Report) []seen {
	var out []seen
	for i := range reports {
		r := &reports[i]
		s.ctx.Update(&r.Rec, r.Final)
		x := seen{label: r.Label, nth: r.Nth, final: r.Final, cause: causeOf(&r.Rec)}
		s.ctx.Vector(&x.v, &r.Rec)
		if s.ctx.Settled() {
			out = append(out, x)
		}
	}
	return out
}

// work is ordinary traffic for d, mixed with attacks that begin at its start.
func (s *site) work(d time.Duration, attacks ...[]flowgen.Report) []seen {
	all := s.office.Work(s.now, d, 25)
	s.now = s.now.Add(d + 20*time.Second)
	return s.watch(flowgen.Merge(append(attacks, all)...))
}

func vectors(in []seen, label string) []feature.Vector {
	var out []feature.Vector
	for _, x := range in {
		if x.label == label {
			out = append(out, x.v)
		}
	}
	return out
}

func examples(in []seen, label string) []learner.Example {
	var out []learner.Example
	for _, v := range vectors(in, label) {
		out = append(out, learner.Example{V: v, Family: label})
	}
	return out
}

// flows gives the lowest p-value of each flow of a label, in order.
func flows(m *learner.Model, in []seen, label string) []float64 {
	s := learner.NewScratch()
	low := map[int]float64{}
	for i := range in {
		if in[i].label != label {
			continue
		}
		p := m.Score(&in[i].v, s).P
		if old, ok := low[in[i].nth]; !ok || p < old {
			low[in[i].nth] = p
		}
	}
	keys := make([]int, 0, len(low))
	for k := range low {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := make([]float64, len(keys))
	for i, k := range keys {
		out[i] = low[k]
	}
	return out
}

func causeOf(r *flow.Record) string {
	return fmt.Sprintf("%s>%s/%d", r.Initiator().Addr(), r.Responder(), r.Key.Proto)
}

// causes counts who raised p-values under a level: the flows of one host to one
// service at one peer depend on each other, and are one false alarm, not many.
func causes(m *learner.Model, in []seen, label string, level float64) int {
	s := learner.NewScratch()
	found := map[string]bool{}
	for i := range in {
		if in[i].label == label && m.Score(&in[i].v, s).P < level {
			found[in[i].cause] = true
		}
	}
	return len(found)
}

// below counts the flows under a level, and tells which was the first.
func below(p []float64, level float64) (n, first int) {
	first = -1
	for i, x := range p {
		if x < level {
			n++
			if first < 0 {
				first = i
			}
		}
	}
	return n, first
}

// auc is the chance that an attack's p-value is below a normal one's; ties count half.
func auc(attack, normal []float64) float64 {
	var sum float64
	for _, a := range attack {
		for _, n := range normal {
			switch {
			case a < n:
				sum++
			case a == n:
				sum += 0.5
			}
		}
	}
	return sum / float64(len(attack)) / float64(len(normal))
}

var kindsOfAttack = []string{"scan", "brute", "beacon", "spurt"}

// day is a trained site and what came after its training; made once, for
// training costs more than all else here.
type day struct {
	normal  []feature.Vector
	model   *learner.Model
	after   []seen
	trained time.Duration
	flows   int
}

var theDay = sync.OnceValues(func() (*day, error) { return makeDay(2, false) })

func makeDay(seed uint64, uploads bool) (*day, error) {
	c, err := feature.NewContext(feature.ContextOptions{Settle: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	s := &site{flowgen.NewOffice(seed, uploads), c, time.Unix(1_700_000_000, 0)}
	d := &day{}
	learnt := s.work(45 * time.Second)
	d.normal = vectors(learnt, "normal")
	for _, x := range learnt {
		if x.final {
			d.flows++
		}
	}
	start := time.Now()
	if d.model, err = learner.Train(context.Background(), learner.Config{Seed: 1}, nil, d.normal, nil); err != nil {
		return nil, err
	}
	d.trained = time.Since(start)
	at := func(s2 int) time.Time { return s.now.Add(time.Duration(s2) * time.Second) }
	o := s.office
	d.after = s.work(160*time.Second, o.Scan(at(15), 40), o.Brute(at(30), 30), o.Beacon(at(60), 20), o.Spurt(at(90), 8))
	return d, nil
}

func someDay(t testing.TB) *day {
	t.Helper()
	d, err := theDay()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func sorted(x []float64) []float64 {
	s := slices.Clone(x)
	slices.Sort(s)
	return s
}

// slow leaves a test that trains much to the run without the race detector.
func slow(t *testing.T) {
	t.Helper()
	if raced {
		t.Skip("trains much: asked without -race")
	}
}
