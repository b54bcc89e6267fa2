//go:build !race

package sim

import (
	"cmp"
	"os"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
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
