package own

import (
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/node/sim"
)

const scenario = `
name = "own"
[sites]
count = 9
partition = "halves"
[data]
set = "rings"
[training]
rounds = 15
steps = 20
rate = 0.1
hidden = [16]
[rule]
name = "quartiles"
[attackers]
attack = "silence"
share = 0.2
[measure]
rows = 1000
`

// All four are in use: sites that saw no attack detect them after the rounds.
func TestOwn(t *testing.T) {
	lib := Library()
	s, err := sim.Parse(strings.NewReader(scenario), "own.toml", ".", lib)
	if err != nil {
		t.Fatal(err)
	}
	r, err := sim.Run(t.Context(), s, sim.Options{Library: lib})
	if err != nil {
		t.Fatal(err)
	}
	if f := r.Last(sim.Test, sim.Mesh); f.AUC < 0.8 || r.F != 2 || r.Steps[0].Liars != 2 {
		t.Errorf("%+v, f = %d, %d liars", f, r.F, r.Steps[0].Liars)
	}
	for _, x := range r.Sites[:4] {
		if x.Attacks != 0 || x.Used.AUC < x.Alone.AUC {
			t.Errorf("site %d: %d attacks, alone %.3f, in the mesh %.3f", x.Site, x.Attacks, x.Alone.AUC, x.Used.AUC)
		}
	}
	if _, err := sim.Parse(strings.NewReader(scenario), "own.toml", ".", sim.Builtin()); err == nil {
		t.Error("what was not registered was found")
	}
}
