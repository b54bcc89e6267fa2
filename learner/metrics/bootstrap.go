package metrics

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Interval is a figure with its bounds at 95 %.
type Interval struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Sampler draws rows again, as often as there are, from a seed: from attacks
// and normals apart, so that their shares stay.
type Sampler struct {
	strata [][]int32 // units of each class
	member [][]int32 // rows of each unit; nil when each row is one
	rows   int
	rng    *rand.Rand
}

// NewSampler makes draws of rows that are one of the classes 0, 1, ... With
// cluster, rows of equal cluster are drawn together, at the class of the first.
func NewSampler(class []int, cluster []int, seed uint64) (*Sampler, error) {
	s := &Sampler{rows: len(class), rng: rand.New(rand.NewPCG(seed, 0xb007))}
	if cluster != nil && len(cluster) != len(class) {
		return nil, fmt.Errorf("sampler: %d rows and %d clusters", len(class), len(cluster))
	}
	unit := map[int]int{}
	for i, c := range class {
		if c < 0 || c > math.MaxUint16 {
			return nil, fmt.Errorf("sampler: row %d has class %d: expected 0 to 65535", i, c)
		}
		for len(s.strata) <= c {
			s.strata = append(s.strata, nil)
		}
		if cluster == nil {
			s.strata[c] = append(s.strata[c], int32(i))
			continue
		}
		u, seen := unit[cluster[i]]
		if !seen {
			u = len(s.member)
			unit[cluster[i]] = u
			s.member = append(s.member, nil)
			s.strata[c] = append(s.strata[c], int32(u))
		}
		s.member[u] = append(s.member[u], int32(i))
	}
	return s, nil
}

// Draw writes into times how often each row was drawn.
func (s *Sampler) Draw(times []float64) {
	clear(times)
	for _, units := range s.strata {
		for range units {
			u := units[s.rng.IntN(len(units))]
			if s.member == nil {
				times[u]++
				continue
			}
			for _, row := range s.member[u] {
				times[row]++
			}
		}
	}
}

// Rate is a figure of a ranking.
type Rate struct {
	// Alarms is the share of false alarms at which detection is asked; 0 asks for the AUC.
	Alarms float64
}

func (q Rate) of(tp, fp []float64) float64 {
	if q.Alarms == 0 {
		return area(tp, fp)
	}
	return detection(tp, fp, q.Alarms)
}

// Bounds gives each rate of a ranking with its interval.
func Bounds(r *Ranking, rates []Rate, s *Sampler, draws int) ([]Interval, error) {
	all, err := drawn([]*Ranking{r}, rates, s, draws)
	if err != nil {
		return nil, err
	}
	out := make([]Interval, len(rates))
	for j, q := range rates {
		out[j] = percentile(q.of(r.tp, r.fp), all[0][j])
	}
	return out, nil
}

// Paired is how much better a is than b on the same rows, with its interval:
// above 0 where a is better in at least 97.5 % of the draws.
func Paired(a, b *Ranking, rates []Rate, s *Sampler, draws int) ([]Interval, error) {
	if len(a.order) != len(b.order) {
		return nil, fmt.Errorf("paired bounds: %d and %d rows", len(a.order), len(b.order))
	}
	all, err := drawn([]*Ranking{a, b}, rates, s, draws)
	if err != nil {
		return nil, err
	}
	out := make([]Interval, len(rates))
	for j, q := range rates {
		d := all[0][j]
		for k := range d {
			d[k] -= all[1][j][k]
		}
		out[j] = percentile(q.of(a.tp, a.fp)-q.of(b.tp, b.fp), d)
	}
	return out, nil
}

// drawn computes every rate of every ranking on the same draws.
func drawn(rs []*Ranking, rates []Rate, s *Sampler, draws int) ([][][]float64, error) {
	if draws < 2 || draws > 100_000 {
		return nil, fmt.Errorf("bootstrap: %d draws: expected 2 to 100000", draws)
	}
	for _, r := range rs {
		if len(r.order) != s.rows {
			return nil, fmt.Errorf("bootstrap: a ranking of %d rows, a sampler of %d", len(r.order), s.rows)
		}
	}
	out := make([][][]float64, len(rs))
	for i := range out {
		out[i] = make([][]float64, len(rates))
	}
	times := make([]float64, s.rows)
	for range draws {
		s.Draw(times)
		for i, r := range rs {
			tp, fp := r.cumulate(times)
			if tp[len(tp)-1] == 0 || fp[len(fp)-1] == 0 {
				return nil, errors.New("bootstrap: a draw had only one class: the sampler's classes are not those of the ranking")
			}
			for j, q := range rates {
				out[i][j] = append(out[i][j], q.of(tp, fp))
			}
		}
	}
	return out, nil
}

// percentile is the middle 95 % of draws.
func percentile(value float64, draws []float64) Interval {
	slices.Sort(draws)
	at := func(q float64) float64 { return draws[int(q*float64(len(draws)-1)+0.5)] }
	return Interval{value, at(0.025), at(0.975)}
}

// Proportion is k of n with Wilson's interval (1927), which holds for small n
// and near 0 and 1.
func Proportion(k, n int) Interval {
	if n <= 0 {
		return Interval{0, 0, 1}
	}
	const z = 1.959964
	p, m := float64(k)/float64(n), float64(n)
	mid := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return Interval{p, max(0, min(p, mid-half)), min(1, max(p, mid+half))}
}
