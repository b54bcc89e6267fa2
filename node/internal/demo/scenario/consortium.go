package scenario

import "math/rand/v2"

// Organisations of the consortium's story that have a gateway here, in order. The
// first three are attacked; the last one teaches falsehoods. Liar has no gateway: it
// only talks.
var Organisations = []string{"ash", "briar", "elm", "fir", "hazel", "yew"}

// Parts that two organisations play.
const (
	Liar     = "ivy"
	Poisoner = "yew"
)

// Consortium is the world of a seed with one site for each of the Organisations.
func Consortium(seed uint64) *Scenario {
	s := New(seed)
	rng := rand.New(rand.NewPCG(seed, 0x67726f7665))
	second := rng.IntN(200)
	s.Sites = nil
	for i, name := range Organisations {
		s.Sites = append(s.Sites, newSite(rng, i, name, second))
	}
	return s
}
