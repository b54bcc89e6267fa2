//go:build !race

package sim

import (
	"testing"

	"github.com/hedgerow-mesh/hedgerow/federation/robust"
)

// Control: without liars all rules agree within noise.
func TestWithoutLiarsAllRulesAgree(t *testing.T) {
	best := map[string]float64{}
	for _, name := range robust.All().Names() {
		s := small()
		s.Rule.Name = name
		s.Training.Rounds = 15
		best[name] = run(t, s).Last(Test, Mesh).AUC
	}
	for name, auc := range best {
		if d := best[robust.NameMean] - auc; auc < 0.9 || d > 0.02 || d < -0.02 {
			t.Errorf("%s: AUC %.4f, the mean's %.4f", name, auc, best[robust.NameMean])
		}
	}
}

// Control: on shuffled labels everything falls to chance, and only there.
func TestShuffledLabelsFallToChance(t *testing.T) {
	s := small()
	if f := run(t, s).Last(Test, Mesh); f.AUC < 0.9 || f.MacroF1 < 0.6 {
		t.Fatalf("true labels: %+v: nothing is learnt, so nothing can fall", f)
	}
	s.Data.Shuffle = true
	const seeds = 6 // a random line parts few clusters by chance: only the mean is near a half
	mean := map[string]float64{}
	for seed := range uint64(seeds) {
		s.Seed = seed
		r := run(t, s)
		for _, model := range []string{Mesh, Alone} {
			f := r.Last(Test, model)
			mean[model] += f.AUC / seeds
			if f.AUC < 0.2 || f.AUC > 0.8 || f.At1 > 0.1 || f.MacroF1 > 0.35 {
				t.Errorf("seed %d: %s: %+v: expected chance", seed, model, f)
			}
		}
	}
	for model, auc := range mean {
		if auc < 0.38 || auc > 0.62 {
			t.Errorf("%s: AUC %.3f on average: expected about a half", model, auc)
		}
	}
}

// Liars ruin the mean, the default withstands them, and where they do ruin the
// mesh's model, the gate leaves each site with what it could do alone.
func TestLiarsRuleAndGate(t *testing.T) {
	s := small()
	s.Attackers = Attackers{Attack: "sign-flip", Share: 0.27}
	s.Rule.Name = "geometric-median+mask"
	if f := run(t, s).Last(Test, Mesh); f.AUC < 0.9 {
		t.Errorf("the default under 3 liars of 11: %+v", f)
	}
	s.Rule.Name = robust.NameMean
	s.Attackers.Attack = "scaling"
	honest := run(t, s).Last(Test, Mesh).AUC // scaled, but in the right direction
	s.Attackers.Attack = "inner-product"
	r := run(t, s)
	ruined := r.Last(Test, Mesh)
	if ruined.AUC > honest-0.2 {
		t.Fatalf("the mean under an attack: AUC %.3f, under a harmless one %.3f: expected it to be ruined", ruined.AUC, honest)
	}
	s.Gate.On = true
	r = run(t, s)
	alone, used := r.Last(Test, Alone), r.Last(Test, Used)
	if used.AUC < alone.AUC-0.06 || used.AUC < ruined.AUC+0.1 {
		t.Errorf("gate on: used %.3f, alone %.3f, mesh %.3f", used.AUC, alone.AUC, r.Last(Test, Mesh).AUC)
	}
	refused := 0
	for _, x := range r.Sites {
		refused += x.RefusedModels
	}
	if refused == 0 {
		t.Error("no gate refused a ruined model")
	}
}
