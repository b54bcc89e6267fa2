package own

import (
	"math"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
)

// Rings is a data set: normal rows lie in a ring, attacks within and without.
type Rings struct{}

// Name is how a scenario calls it.
func (Rings) Name() string { return "rings" }

// Files are none: the rows are made.
func (Rings) Files(string) []string { return nil }

// Load makes training and test rows that are not the same.
func (Rings) Load(string) (train, test *tabular.Table, err error) {
	return rings(4000, 1), rings(2000, 2), nil
}

func rings(n int, seed uint64) *tabular.Table {
	rng := rand.New(rand.NewPCG(seed, seed))
	t := &tabular.Table{Columns: []tabular.Column{{Name: "x"}, {Name: "y"}}}
	t.Class.Names = []string{"normal", "within", "without"}
	t.Place.Names = []string{"here"}
	for r := range n {
		class := max(0, rng.IntN(4)-1)
		radius := []float64{2, 0.5, 4}[class] + 0.3*rng.NormFloat64()
		sin, cos := math.Sincos(2 * math.Pi * rng.Float64())
		t.Columns[0].Num = append(t.Columns[0].Num, float32(radius*cos))
		t.Columns[1].Num = append(t.Columns[1].Num, float32(radius*sin))
		t.Class.Of, t.Place.Of, t.Group = append(t.Class.Of, class), append(t.Place.Of, 0), append(t.Group, r)
	}
	t.Family = t.Class
	return t
}
