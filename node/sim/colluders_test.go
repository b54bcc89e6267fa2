//go:build !race

package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

// untargeted are the attacks that want the model to be useless, in whatever way.
var untargeted = []string{"label-flip", "hide-attacks", "sign-flip", "gaussian", "alie", "min-max", "inner-product", "mimic"}

// hardSeeds are the seeds of the tables in docs/aggregation.md.
const hardSeeds = 5

// hard is twenty unlike sites on all of NSL-KDD, and all honest updates are listed.
func hard(rule, attack string, share float64, seed uint64) *Scenario {
	s := Default()
	s.Seed, s.Data.Set, s.Measure.Every = seed, dataset.NSLKDD, 25
	s.Rule.Name = rule
	if attack != "" {
		s.Attackers = Attackers{Attack: attack, Share: share}
	}
	return &s
}

// informed is TPR - FPR of what a model says by itself (Youden's J).
func informed(f Figures) float64 { return 1 - f.Passed - f.False }

// long skips what trains for minutes, and finds the data.
func long(t *testing.T) Options {
	t.Helper()
	if os.Getenv("HEDGEROW_LONG") != "1" {
		t.Skip("minutes of training: HEDGEROW_LONG=1 runs it")
	}
	return Options{Workers: 1, data: &benches{folder: realdata.Dir(t, dataset.NSLKDD), lib: Builtin()}}
}

// summed is the mean and the least of a figure over seeds.
func summed(xs []float64) (mean, least float64) {
	for _, x := range xs {
		mean += x / float64(len(xs))
	}
	return mean, slices.Min(xs)
}

// TestColluders makes the table of docs/aggregation.md: what six of twenty sites that
// know everything do to a rule.
func TestColluders(t *testing.T) {
	o := long(t)
	plain := map[string]float64{}
	for _, rule := range []string{robust.NameMean, robust.NameGeometricMasked, robust.NameMixedTrimmedMask} {
		t.Run(rule, func(t *testing.T) {
			for _, attack := range append([]string{""}, untargeted...) {
				mean, least := summed(played(t, o, rule, attack))
				t.Logf("| %s | %s | %.3f (%.3f) |", rule, cmp.Or(attack, "none"), mean, least)
				switch {
				case attack == "":
					plain[rule] = mean
					if best, known := plain[robust.NameMean]; known && best-mean > 0.01 {
						t.Errorf("without an attack %s costs %.3f beside the mean", rule, best-mean)
					}
				case rule != robust.NameMean && mean < 0.8:
					t.Errorf("%s under %s: %.3f", rule, attack, mean)
				}
			}
		})
	}
}

// played is what rounds made under an attack of 30 %, on validation rows, of each seed.
func played(t *testing.T, o Options, rule, attack string) (js []float64) {
	for seed := range uint64(hardSeeds) {
		s := hard(rule, attack, 0.3, seed+1)
		if rule == robust.NameMean {
			s.Rule.F = 0
		}
		r, err := Run(t.Context(), s, o)
		if err != nil {
			t.Fatal(err)
		}
		js = append(js, informed(r.Last(Validation, Mesh)))
	}
	return js
}

// withholding deals as another partition does and keeps a fifth of each site's rows for
// itself: what comes at the site later, and no gate has seen.
type withholding struct {
	Partition
	kept [][]int
}

func (l *withholding) Deal(t *tabular.Table, d Deal, rng *rand.Rand) ([][]int, error) {
	parts, err := l.Partition.Deal(t, d, rng)
	l.kept = nil
	for i, rows := range parts {
		rng.Shuffle(len(rows), func(a, b int) { rows[a], rows[b] = rows[b], rows[a] })
		keep := len(rows) / 5
		l.kept = append(l.kept, rows[:keep])
		parts[i] = rows[keep:]
	}
	return parts, err
}

// wrong is the share of a site's later rows that a model takes for the other kind.
func (w *world) wrong(weights []float32, rows []int) float64 {
	n := 0
	for _, r := range rows {
		if (argmax(w.trainers[0].Forward(weights, w.b.learn, r)) != 0) != (w.b.learn.Class[r] != 0) {
			n++
		}
	}
	return float64(n) / float64(max(1, len(rows)))
}

// TestNeverWorseThanAlone holds what gates let judge to what sites have alone, on rows
// that come later at each, whoever lies.
func TestNeverWorseThanAlone(t *testing.T) {
	o := long(t)
	for _, x := range []struct {
		share  float64
		attack string
	}{{0, ""}, {0.3, "label-flip"}, {0.3, "alie"}, {0.3, "inner-product"}, {0.5, "label-flip"}, {0.5, "alie"}, {0.5, "inner-product"}, {0.8, "label-flip"}, {0.8, "alie"}, {0.8, "inner-product"}} {
		t.Run(fmt.Sprint(x.share, cmp.Or(x.attack, "none")), func(t *testing.T) {
			var gains []float64
			uses, judged := 0, 0
			for seed := range uint64(hardSeeds) {
				g, adopted, all := gained(t, o, x.attack, x.share, seed+1)
				gains, uses, judged = append(gains, g...), uses+adopted, judged+all
			}
			slices.Sort(gains)
			worse := 0
			for _, g := range gains {
				if g < -0.01 {
					worse++
				}
			}
			t.Logf("| %.0f %% | %s | %+.1f | %+.1f | %d of %d | %.0f %% |", 100*x.share, cmp.Or(x.attack, "none"),
				100*gains[0], 100*gains[len(gains)/2], worse, len(gains), 100*float64(uses)/float64(judged))
		})
	}
}

// gained is what each honest site's errors fell by, and how many models of rounds came
// to judge of all that could.
func gained(t *testing.T, o Options, attack string, share float64, seed uint64) (gains []float64, uses, all int) {
	s, lib := hard(robust.NameGeometricMasked, attack, share, seed), Builtin()
	p := &withholding{Partition: dirichlet{}}
	lib.Partitions = []Partition{p}
	o.Library = lib
	s.Gate.On = true
	w, err := newWorld(s, o)
	if err != nil {
		t.Fatal(err)
	}
	for round := range s.Training.Rounds {
		if err := w.round(round + 1); err != nil {
			t.Fatal(err)
		}
	}
	for i, x := range w.sites {
		if x.liar {
			continue
		}
		gains = append(gains, w.wrong(x.alone, p.kept[i])-w.wrong(x.used, p.kept[i]))
		uses += s.Training.Rounds - x.gate.refused
		all += s.Training.Rounds
	}
	return gains, uses, all
}
