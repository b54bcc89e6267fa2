// Package attack is what members who lie together might send in a round, as the
// literature has it, so that rules can be tried. It is pure, and seeded by its
// caller.
//
// The colluders know everything: the honest updates, what they themselves would
// have sent, and the rule. An Attack works on labels or rows, before training, or on
// updates, after it, or on both.
package attack

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// View is what the colluders of a round know. They change nothing of it.
type View struct {
	Honest [][]float32 // what the honest members send; at least one
	Own    [][]float32 // what each colluder's own training made; at least one
	Rand   *rand.Rand
	// Last is what the last round made of all updates, nil where there was none.
	Last []float32
	// Rule is the rule in use, for attacks that try out how far they can go; nil
	// where it is not known.
	Rule func(updates [][]float32) ([]float32, error)
}

// An Attack is one way to lie.
type Attack struct {
	Name  string
	Paper string
	// Relabel is what a colluder trains on instead of a true label (attack or
	// not); nil trains honestly.
	Relabel func(attack bool) bool
	// Trigger is the mark of rows that colluders train as normal besides; "" is none.
	Trigger Trigger
	// Craft is what the colluders send, one update each; nil sends what
	// training made.
	Craft func(v View) ([][]float32, error)
}

// All is every attack of this package.
func All() []Attack {
	return []Attack{
		{Name: "label-flip", Paper: "Tolpegin et al., ESORICS 2020", Relabel: func(a bool) bool { return !a }},
		{Name: "hide-attacks", Paper: "all is called normal", Relabel: func(bool) bool { return false }},
		{Name: "sign-flip", Paper: "Li et al., RSA, AAAI 2019", Craft: scaledOwn(-1)},
		{Name: "scaling", Paper: "Bagdasaryan et al., AISTATS 2020", Craft: scaledOwn(10)},
		{Name: "gaussian", Paper: "Blanchard et al., NeurIPS 2017", Craft: gaussian},
		{Name: "alie", Paper: "Baruch, Baruch, Goldberg, A little is enough, NeurIPS 2019", Craft: alie},
		{Name: "inner-product", Paper: "Xie, Koyejo, Gupta, Fall of empires, UAI 2019", Craft: innerProduct},
		{Name: "min-max", Paper: "Shejwalkar, Houmansadr, NDSS 2021", Craft: unnoticed(widest)},
		{Name: "min-sum", Paper: "Shejwalkar, Houmansadr, NDSS 2021", Craft: unnoticed(total)},
		{Name: "mimic", Paper: "Karimireddy, He, Jaggi, ICLR 2022", Craft: mimic},
		{Name: "free-rider", Paper: "Lin, Du, Liu, Free-riders in federated learning, 2019: advanced delta weights", Craft: freeRide},
		{Name: "adaptive", Paper: "Shejwalkar, Houmansadr, NDSS 2021: tailored to the rule in use", Craft: adaptive},
		{Name: "backdoor-rare", Paper: "Wang et al., Attack of the tails, NeurIPS 2020", Trigger: Rare},
		{Name: "backdoor-common", Paper: "Gu et al., BadNets, 2017", Trigger: Common},
		{Name: "model-replacement", Paper: "Bagdasaryan et al., AISTATS 2020", Trigger: Rare, Craft: replacement},
	}
}

// Send is what the colluders send under an attack.
func (a Attack) Send(v View) ([][]float32, error) {
	if len(v.Honest) == 0 || len(v.Own) == 0 {
		return nil, fmt.Errorf("attack %s: %d honest updates and %d colluders: expected at least one of each", a.Name, len(v.Honest), len(v.Own))
	}
	for _, u := range append(append([][]float32(nil), v.Honest...), v.Own...) {
		if len(u) != len(v.Honest[0]) {
			return nil, fmt.Errorf("attack %s: updates of %d and %d numbers", a.Name, len(u), len(v.Honest[0]))
		}
	}
	if n := len(v.Last); n > 0 && n != len(v.Honest[0]) {
		return nil, fmt.Errorf("attack %s: the last round's update has %d numbers: expected %d", a.Name, n, len(v.Honest[0]))
	}
	if a.Craft == nil {
		return v.Own, nil
	}
	return a.Craft(v)
}

// everyone sends one update from all colluders.
func (v View) everyone(u []float32) [][]float32 {
	out := make([][]float32, len(v.Own))
	for i := range out {
		out[i] = append([]float32(nil), u...)
	}
	return out
}

func scaledOwn(by float32) func(View) ([][]float32, error) {
	return func(v View) ([][]float32, error) {
		out := make([][]float32, len(v.Own))
		for i, u := range v.Own {
			out[i] = make([]float32, len(u))
			for j, x := range u {
				out[i][j] = by * x
			}
		}
		return out, nil
	}
}

// gaussian sends noise ten times as wide as the honest updates are long.
func gaussian(v View) ([][]float32, error) {
	mean, _ := moments(v.Honest)
	wide := 10 * length(mean) / math.Sqrt(float64(len(mean)))
	out := make([][]float32, len(v.Own))
	for i := range out {
		for range mean {
			out[i] = append(out[i], float32(wide*v.Rand.NormFloat64()))
		}
	}
	return out, nil
}

// alie goes against the honest mean by a few deviations in every number; how
// many is tried out on the rule.
func alie(v View) ([][]float32, error) {
	mean, dev := moments(v.Honest)
	against := make([]float64, len(mean))
	for j := range mean {
		against[j] = -math.Copysign(dev[j], mean[j])
	}
	return v.strongest(mean, against, []float64{0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3})
}

// innerProduct turns the honest mean round, by as much as hurts the rule most.
func innerProduct(v View) ([][]float32, error) {
	mean, _ := moments(v.Honest)
	against := make([]float64, len(mean))
	for j, m := range mean {
		against[j] = -m
	}
	return v.strongest(mean, against, []float64{1.1, 1.5, 2, 3, 6, 11})
}

// strongest sends mean + by * along with the by that takes the rule's result
// furthest back along the mean; without a rule the middle one.
func (v View) strongest(mean, along []float64, tries []float64) ([][]float32, error) {
	best := v.everyone(line(mean, along, tries[len(tries)/2]))
	if v.Rule == nil {
		return best, nil
	}
	least := math.Inf(1)
	for _, by := range tries {
		sent := v.everyone(line(mean, along, by))
		left, err := v.left(mean, sent)
		if err != nil {
			return nil, fmt.Errorf("attack: try %g: %w", by, err)
		}
		if left < least {
			best, least = sent, left
		}
	}
	return best, nil
}

// unnoticed goes against the mean, along the honest deviation, as far as it is no
// stranger than the strangest honest update: found by halving.
func unnoticed(strange func(honest [][]float32, u []float32) float64) func(View) ([][]float32, error) {
	return func(v View) ([][]float32, error) {
		mean, dev := moments(v.Honest)
		most := mostOf(v.Honest, func(h []float32) float64 { return strange(v.Honest, h) })
		against := make([]float64, len(mean))
		for j := range mean {
			against[j] = -math.Copysign(dev[j], mean[j])
		}
		low, high := 0.0, 64.0
		for range 30 {
			by := (low + high) / 2
			if strange(v.Honest, line(mean, against, by)) <= most {
				low = by
			} else {
				high = by
			}
		}
		return v.everyone(line(mean, against, low)), nil
	}
}

// widest is for min-max: no further from any honest update than two of these are apart.
func widest(from [][]float32, u []float32) float64 {
	return mostOf(from, func(h []float32) float64 { return apart(h, u) })
}

// total is for min-sum: no more in all from the honest updates than one of these is.
func total(from [][]float32, u []float32) (sum float64) {
	for _, h := range from {
		sum += apart(h, u)
	}
	return sum
}

func mostOf(us [][]float32, f func([]float32) float64) (most float64) {
	for _, u := range us {
		most = max(most, f(u))
	}
	return most
}

// mimic repeats the honest update that is furthest from the mean, so that one
// site counts for many.
func mimic(v View) ([][]float32, error) {
	mean, _ := moments(v.Honest)
	middle, odd := line(mean, mean, 0), v.Honest[0]
	for _, u := range v.Honest {
		if apart(u, middle) > apart(odd, middle) {
			odd = u
		}
	}
	return v.everyone(odd), nil
}

// moments is mean and deviation of every number.
func moments(us [][]float32) (mean, dev []float64) {
	mean, dev = make([]float64, len(us[0])), make([]float64, len(us[0]))
	n := float64(len(us))
	for _, u := range us {
		for j, x := range u {
			mean[j] += float64(x) / n
		}
	}
	for _, u := range us {
		for j, x := range u {
			d := float64(x) - mean[j]
			dev[j] += d * d / n
		}
	}
	for j, d := range dev {
		dev[j] = math.Sqrt(d)
	}
	return mean, dev
}

func line(from, along []float64, by float64) []float32 {
	out := make([]float32, len(from))
	for j, x := range from {
		out[j] = float32(x + by*along[j])
	}
	return out
}

// apart is a squared distance.
func apart(a, b []float32) (sq float64) {
	for j, x := range a {
		d := float64(x) - float64(b[j])
		sq += d * d
	}
	return sq
}

func length(v []float64) float64 {
	var sq float64
	for _, x := range v {
		sq += x * x
	}
	return math.Sqrt(sq)
}
