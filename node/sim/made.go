package sim

import (
	"fmt"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
)

// MadeUp is the name of a data set that is made from nothing, for examples and
// tests: three places, a day of time, three classes of attacks in six families.
// What is measured on it says nothing about real traffic.
const MadeUp = "made-up"

type madeUp struct{}

func (madeUp) Name() string { return MadeUp }

func (madeUp) Files(string) []string { return nil }

// Sizes of the made-up set.
const (
	madeRows    = 6000
	madeNumbers = 12
	madeFamily  = 6
	madePlaces  = 3
)

// Load draws rows around a centre of each family, half of them normal; the word
// column mostly tells the class.
func (madeUp) Load(string) (train, test *tabular.Table, err error) {
	rng := rand.New(rand.NewPCG(0x3ade, 1))
	t := &tabular.Table{Columns: make([]tabular.Column, madeNumbers+1), Time: make([]float64, madeRows)}
	t.Class.Names = []string{"normal", "flood", "probe", "theft"}
	t.Family.Names, t.Place.Names = []string{"normal"}, []string{}
	for k := range madeFamily {
		t.Family.Names = append(t.Family.Names, fmt.Sprintf("family-%d", k+1))
	}
	for k := range madePlaces {
		t.Place.Names = append(t.Place.Names, fmt.Sprintf("place-%d", k+1))
	}
	var centre [madeFamily + 1][madeNumbers]float64
	for k := range centre {
		for j := range centre[k] {
			centre[k][j] = 0.8 * rng.NormFloat64()
		}
	}
	word := &t.Columns[madeNumbers]
	word.Name, word.Words = "service", []string{"web", "name", "mail", "other"}
	for j := range madeNumbers {
		t.Columns[j].Name = fmt.Sprintf("number-%d", j+1)
	}
	for r := range madeRows {
		kind := max(0, rng.IntN(2*madeFamily)-madeFamily+1)
		class := (kind + 1) / 2
		t.Class.Of, t.Family.Of = append(t.Class.Of, class), append(t.Family.Of, kind)
		t.Place.Of, t.Group = append(t.Place.Of, rng.IntN(madePlaces)), append(t.Group, r)
		t.Time[r] = float64(r) * 86400 / madeRows
		for j := range madeNumbers {
			t.Columns[j].Num = append(t.Columns[j].Num, float32(centre[kind][j]+rng.NormFloat64()))
		}
		if rng.IntN(4) == 0 {
			class = rng.IntN(len(word.Words))
		}
		word.Word = append(word.Word, int32(class))
	}
	return parted(t, nil, "group")
}
