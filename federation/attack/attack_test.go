package attack

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/federation/robust"
)

const honest, liars, numbers = 14, 6, 40

// world is honest updates about a common one, and what colluders would have sent.
func world(seed uint64) View {
	r := rand.New(rand.NewPCG(seed, 1))
	common := make([]float64, numbers)
	for j := range common {
		common[j] = 0.3 * r.NormFloat64()
	}
	make1 := func() []float32 {
		u := make([]float32, numbers)
		for j := range u {
			u[j] = float32(common[j] + 0.1*r.NormFloat64())
		}
		return u
	}
	v := View{Rand: r, Last: make1()}
	for range honest {
		v.Honest = append(v.Honest, make1())
	}
	for range liars {
		v.Own = append(v.Own, make1())
	}
	return v
}

func with(t *testing.T, s robust.Spec) func([][]float32) ([]float32, error) {
	t.Helper()
	return func(us [][]float32) ([]float32, error) {
		res, err := s.Aggregate(us)
		return res.Update, err
	}
}

// Each attack on updates gives one finite update for each colluder, differs from
// honesty, changes nothing of the view, and equal seeds give equal bytes.
func TestEveryAttackSends(t *testing.T) {
	for _, a := range All() {
		if a.Craft == nil && a.Relabel == nil && a.Trigger == "" || a.Paper == "" {
			t.Errorf("%s: does nothing, or is nobody's", a.Name)
		}
		v, same := world(3), world(3)
		v.Rule = with(t, robust.Lab())
		same.Rule = v.Rule
		sent, err := a.Send(v)
		if err != nil || len(sent) != liars {
			t.Fatalf("%s: %d updates, %v", a.Name, len(sent), err)
		}
		again, err := a.Send(same)
		if err != nil {
			t.Fatal(err)
		}
		before := world(3)
		for i, u := range sent {
			if !slices.Equal(u, again[i]) {
				t.Errorf("%s: equal seeds, unequal lies", a.Name)
			}
			if a.Craft != nil && slices.Equal(u, before.Own[i]) || !slices.Equal(v.Own[i], before.Own[i]) {
				t.Errorf("%s: colluder %d sends what he would have sent, or the view was changed", a.Name, i)
			}
			for _, x := range u {
				if x-x != 0 {
					t.Fatalf("%s: sends %g", a.Name, x)
				}
			}
		}
	}
	if _, err := All()[0].Send(View{}); err == nil {
		t.Error("an empty view was taken")
	}
}

// 30 % under every attack leave the two presets near the honest mean, where some
// of the same attacks leave less than half of the plain mean's progress.
func TestPresetsStayWhereTheMeanGoes(t *testing.T) {
	halved := 0
	for _, a := range All() {
		if a.Craft == nil {
			continue
		}
		for _, name := range []string{robust.NameMean, robust.NameGeometricMasked, robust.NameMixedTrimmedMask} {
			s := robust.Spec{Rule: name, F: liars}
			if name == robust.NameMean {
				s.F = 0
			}
			worst := 1.0
			for seed := range uint64(5) {
				v := world(seed)
				v.Rule = with(t, s)
				sent, err := a.Send(v)
				if err != nil {
					t.Fatal(err)
				}
				z, err := v.Rule(append(append([][]float32(nil), v.Honest...), sent...))
				if err != nil {
					t.Fatal(err)
				}
				worst = min(worst, progress(v.Honest, z))
			}
			if name == robust.NameMean {
				if worst < 0.5 {
					halved++
				}
			} else if worst < 0.7 {
				t.Errorf("%s under %s: %.2f of the honest mean is left", name, a.Name, worst)
			}
		}
	}
	if halved < 2 {
		t.Errorf("%d attacks took half of the mean's progress: expected at least two", halved)
	}
}

// progress is how much of the honest mean a result goes along.
func progress(honest [][]float32, z []float32) float64 {
	mean, _ := moments(honest)
	var dot float64
	for j, x := range z {
		dot += float64(x) * mean[j]
	}
	return dot / (length(mean) * length(mean))
}
