//go:build !race

package history

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
	"github.com/hedgerow-mesh/hedgerow/node/internal/flowlog"
)

// sided are the vectors of a labelled log, in time.
type sided struct {
	normal, attack []feature.Vector
	greeted        [2]int // of both, whose TLS client told something
}

func readSided(t *testing.T, path string) (s sided) {
	t.Helper()
	tls := feature.Index("tls_server_named")
	_, err := Read(t.Context(), path, Options{}, func(r *Report) {
		k := 0
		switch r.Class {
		case flowlog.Normal:
			s.normal = append(s.normal, *r.V)
		case flowlog.Attack:
			s.attack = append(s.attack, *r.V)
			k = 1
		default:
			return
		}
		if r.V.Known(tls) {
			s.greeted[k]++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// firstSchema hides what the second schema added.
func firstSchema(vs []feature.Vector) []feature.Vector {
	vs = slices.Clone(vs)
	for i := range vs {
		for f := range vs[i].X {
			if !feature.First().Has(f) {
				vs[i].X[f] = 0
				vs[i].Has.Remove(f)
			}
		}
	}
	return vs
}

// found trains on the first half of the normal flows and looks for attacks among
// the others: the area under the curve, and what is found at 1 % and 5 %.
func found(t *testing.T, normal, attack []feature.Vector, seed uint64) (out [3]float64) {
	t.Helper()
	half := len(normal) / 2
	m, err := learner.Train(t.Context(), learner.Config{Seed: seed}, nil, normal[:half], nil)
	if err != nil {
		t.Fatal(err)
	}
	var score []float64
	var truth []bool
	s := learner.NewScratch()
	for k, set := range [][]feature.Vector{normal[half:], attack} {
		for i := range set {
			score = append(score, m.Score(&set[i], s).Self)
			truth = append(truth, k == 1)
		}
	}
	r, err := metrics.Rank(score, truth)
	if err != nil {
		t.Fatal(err)
	}
	out[0] = r.AUC()
	out[1], _ = r.Detection(0.01)
	out[2], _ = r.Detection(0.05)
	return out
}

// TestWhatHellosGive compares models of this schema and of the first on the same
// flows of Zeek's logs of three networks. It asks that what TLS clients say does no
// harm worth the name; the figures are in docs/features.md.
func TestWhatHellosGive(t *testing.T) {
	if os.Getenv("HEDGEROW_LONG") != "1" {
		t.Skip("trains eighteen models: set HEDGEROW_LONG=1")
	}
	root := realdata.Dir(t, ".")
	for _, name := range []string{"008-zeek-mixed", "010-zeek-mixed", "011-zeek-mixed"} {
		s := readSided(t, filepath.Join(root, "stratosphere-zeek", name, "data", "conn.log.labeled.gz"))
		t.Logf("%s: %d normal, %d attacks; told of %v", name, len(s.normal), len(s.attack), s.greeted)
		var median [2][3]float64
		for k, hide := range []func([]feature.Vector) []feature.Vector{firstSchema, slices.Clone[[]feature.Vector]} {
			var runs [3][]float64
			for seed := range uint64(3) {
				x := found(t, hide(s.normal), hide(s.attack), seed+1)
				for i := range x {
					runs[i] = append(runs[i], x[i])
				}
			}
			for i := range runs {
				slices.Sort(runs[i])
				median[k][i] = runs[i][1]
			}
			t.Logf("schema %d: AUC, at 1 %%, at 5 %%: %.3f", k+1, median[k])
		}
		if d := median[1][0] - median[0][0]; d < -0.02 || math.IsNaN(d) {
			t.Errorf("%s: the AUC is %.3f with hellos, and %.3f without", name, median[1][0], median[0][0])
		}
	}
}
