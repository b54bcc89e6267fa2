package mixing

import (
	"math"
	"testing"
)

func TestMixIsBetweenBoth(t *testing.T) {
	got, err := Mix([]float32{0, 4, -8}, []float32{8, 4, 0}, 0.25)
	if err != nil || got[0] != 2 || got[1] != 4 || got[2] != -6 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Mix([]float32{1}, []float32{1, 2}, 0.5); err == nil {
		t.Error("weights of another length were mixed")
	}
}

func TestCompare(t *testing.T) {
	own := Exam{Normal: []float64{-2, -2, -2, 1}, Attack: []float64{2, -1}}
	for _, x := range []struct {
		name   string
		part   Exam
		points float64
		better bool
	}{
		{"itself", own, 0, false},
		{"finds the other attack", Exam{own.Normal, []float64{2, 1}}, 0.5, true},
		{"surer, nothing else", Exam{[]float64{-3, -3, -3, 1}, []float64{3, -1}}, 0, true},
		{"less sure, nothing else", Exam{[]float64{-1, -1, -1, 1}, []float64{1, -1}}, 0, false},
		{"surer of most, a new false alarm", Exam{[]float64{-9, -9, 1, 1}, []float64{9, -0.1}}, -0.25, false},
		{"all is normal", Exam{[]float64{-9, -9, -9, -9}, []float64{-9, -9}}, -0.25, false},
		{"all is an attack", Exam{[]float64{9, 9, 9, 9}, []float64{9, 9}}, -0.25, false},
		{"no numbers", Exam{[]float64{math.NaN(), math.NaN(), math.NaN(), math.NaN()}, []float64{math.NaN(), math.NaN()}}, -1.25, false},
		{"infinitely sure", Exam{[]float64{math.Inf(-1), math.Inf(-1), math.Inf(-1), math.Inf(-1)}, []float64{math.Inf(1), math.Inf(1)}}, 0.75, true},
	} {
		g, err := Compare(x.part, own)
		if err != nil || math.Abs(g.Points-x.points) > 1e-12 || g.Better() != x.better || math.IsNaN(g.Loss) || math.IsInf(g.Loss, 0) {
			t.Errorf("%s: %+v, better %v, %v", x.name, g, g.Better(), err)
		}
	}
	if _, err := Compare(Exam{Normal: []float64{1}}, own); err == nil {
		t.Error("exams of other rows were compared")
	}
}

// A part is one weight here: the odds of every attack, and minus those of every normal row.
func TestTryTakesWhatIsBetter(t *testing.T) {
	examine := func(w []float32) Exam {
		return Exam{Normal: []float64{-float64(w[0])}, Attack: []float64{float64(w[0])}}
	}
	good, err := Try([]float32{1}, []float32{3}, examine)
	if err != nil || len(good) != len(Shares) || good[0].Share != 0.5 || good[0].Weights[0] != 2 {
		t.Errorf("%+v, %v", good, err)
	}
	for _, mesh := range []float32{-50, 0.5, 1, float32(math.NaN())} {
		if bad, err := Try([]float32{1}, []float32{mesh}, examine); err != nil || len(bad) != 0 {
			t.Errorf("mesh %v: %+v, %v", mesh, bad, err)
		}
	}
	if _, err := Try([]float32{1}, nil, examine); err == nil {
		t.Error("weights of another length were tried")
	}
}
