package own

import (
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
	"github.com/hedgerow-mesh/hedgerow/node/sim"
)

// Halves is a partition: the first half of the sites has no attacks.
type Halves struct{}

// Name is how a scenario calls it.
func (Halves) Name() string { return "halves" }

// Deal gives each row to one site.
func (Halves) Deal(t *tabular.Table, d sim.Deal, rng *rand.Rand) ([][]int, error) {
	out := make([][]int, d.Sites)
	for r, attack := range t.Attack() {
		who := rng.IntN(d.Sites)
		if attack && d.Sites > 1 {
			who = d.Sites/2 + rng.IntN(d.Sites-d.Sites/2)
		}
		out[who] = append(out[who], r)
	}
	return out, nil
}
