package replay

import (
	"math"
	"math/rand/v2"
	"testing"
)

// slowAUC counts pairs.
func slowAUC(good, bad []float64) float64 {
	s := 0.0
	for _, b := range bad {
		for _, g := range good {
			switch {
			case b > g:
				s++
			case b == g:
				s += 0.5
			}
		}
	}
	return s / float64(len(good)*len(bad))
}

func TestAUCAgreesWithCountingPairs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		good, bad := make([]float64, 1+r.IntN(40)), make([]float64, 1+r.IntN(40))
		for i := range good {
			good[i] = float64(r.IntN(12))
		}
		for i := range bad {
			bad[i] = float64(r.IntN(12) + 2)
		}
		if got, want := *auc(good, bad), slowAUC(good, bad); math.Abs(got-want) > 1e-12 {
			t.Fatalf("auc %v, want %v", got, want)
		}
	}
	if auc(nil, []float64{1}) != nil || auc([]float64{1}, nil) != nil {
		t.Fatal("auc of one kind alone is a number")
	}
}

func TestDetectionSaysNothingWithTooFewBenignFlows(t *testing.T) {
	good := make([]float64, 999)
	for i := range good {
		good[i] = float64(i)
	}
	bad := []float64{998.5, 989.5, 10}
	if d := detection(good, bad, 0.001); d != nil {
		t.Fatalf("detection at 0.1 %% of 999 benign flows: %v, want nothing", *d)
	}
	if d := detection(good, bad, 0.01); d == nil || math.Abs(*d-2.0/3) > 1e-12 {
		t.Fatalf("detection at 1 %%: %v, want 2/3", d)
	}
	// The threshold lets at most the allowed share of benign flows through.
	if d := detection([]float64{1, 1, 1, 1}, []float64{1}, 0.25); *d != 0 {
		t.Fatalf("a tie with more benign flows than allowed counts as detected: %v", *d)
	}
}
