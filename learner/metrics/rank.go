package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Ranking is a set of scored rows, cut at every distinct score.
type Ranking struct {
	order []int32   // rows, highest score first
	ends  []int32   // order[ends[i-1]:ends[i]] have equal scores
	cut   []float64 // that score
	pos   []bool
	tp    []float64 // attacks with a score of at least cut[i]
	fp    []float64 // normals likewise
}

// ErrOneClass says that there are only attacks or only normals, so that nothing
// can be ranked.
var ErrOneClass = errors.New("expected both attacks and normals")

// Rank sorts rows by score. Scores must be finite.
func Rank(score []float64, attack []bool) (*Ranking, error) {
	if len(score) != len(attack) {
		return nil, fmt.Errorf("rank: %d scores and %d labels", len(score), len(attack))
	}
	if len(score) > math.MaxInt32 {
		return nil, fmt.Errorf("rank: %d rows: expected fewer", len(score))
	}
	r := &Ranking{order: make([]int32, len(score)), pos: attack}
	for i, s := range score {
		if math.IsNaN(s) || math.IsInf(s, 0) {
			return nil, fmt.Errorf("rank: score of row %d is not finite", i)
		}
		r.order[i] = int32(i)
	}
	slices.SortFunc(r.order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(score[b], score[a]), cmp.Compare(a, b))
	})
	for i, row := range r.order {
		if i+1 == len(r.order) || score[r.order[i+1]] != score[row] {
			r.ends, r.cut = append(r.ends, int32(i+1)), append(r.cut, score[row])
		}
	}
	r.tp, r.fp = r.cumulate(nil)
	if p, n := r.totals(); p == 0 || n == 0 {
		return nil, fmt.Errorf("rank: %d attacks, %d normals: %w", int(p), int(n), ErrOneClass)
	}
	return r, nil
}

// cumulate counts attacks and normals down to each cut, each row as often as
// times says (nil: once).
func (r *Ranking) cumulate(times []float64) (tp, fp []float64) {
	tp, fp = make([]float64, len(r.ends)), make([]float64, len(r.ends))
	r.cumulateInto(tp, fp, times)
	return tp, fp
}

func (r *Ranking) cumulateInto(tp, fp, times []float64) {
	var p, n float64
	at := int32(0)
	for i, end := range r.ends {
		for ; at < end; at++ {
			row, k := r.order[at], 1.0
			if times != nil {
				k = times[row]
			}
			if r.pos[row] {
				p += k
			} else {
				n += k
			}
		}
		tp[i], fp[i] = p, n
	}
}

func (r *Ranking) totals() (attacks, normals float64) {
	if len(r.tp) == 0 {
		return 0, 0
	}
	return r.tp[len(r.tp)-1], r.fp[len(r.fp)-1]
}

// AUC is the chance that an attack scores higher than a normal row, a tie
// counting half: the area under the ROC curve.
func (r *Ranking) AUC() float64 { return area(r.tp, r.fp) }

func area(tp, fp []float64) float64 {
	var sum, p, n float64
	for i := range tp {
		sum += (fp[i] - n) * (tp[i] + p) / 2
		p, n = tp[i], fp[i]
	}
	return sum / (p * n)
}

// Detection is the greatest share of attacks at or above a threshold that at
// most share (0 to 1) of the normals reach, and that threshold: +Inf where
// even the highest cut has more.
func (r *Ranking) Detection(share float64) (detected, threshold float64) {
	i := lastWithin(r.fp, share)
	if i < 0 {
		return 0, math.Inf(1)
	}
	p, _ := r.totals()
	return r.tp[i] / p, r.cut[i]
}

// lastWithin is the lowest cut with at most share of all normals, -1 if none.
func lastWithin(fp []float64, share float64) int {
	most := share * fp[len(fp)-1] * (1 + 1e-12) // 1 % of 100 is 1, whatever the binary fraction
	at, _ := slices.BinarySearchFunc(fp, most, func(have, most float64) int {
		if have <= most {
			return -1
		}
		return 1
	})
	return at - 1
}

func detection(tp, fp []float64, share float64) float64 {
	i := lastWithin(fp, share)
	if i < 0 {
		return 0
	}
	return tp[i] / tp[len(tp)-1]
}

// AveragePrecision is the area under the precision-recall curve as a sum of
// steps, which does not flatter as straight lines between points would (Davis
// and Goadrich 2006).
func (r *Ranking) AveragePrecision() float64 {
	p, _ := r.totals()
	var sum, before float64
	for i := range r.tp {
		sum += (r.tp[i] - before) / p * r.tp[i] / (r.tp[i] + r.fp[i])
		before = r.tp[i]
	}
	return sum
}

// Point is one threshold of a curve.
type Point struct {
	X float64 `json:"x"` // share of false alarms, or recall
	Y float64 `json:"y"` // share of attacks found, or precision
}

// ROC is the curve of detection over false alarms from (0,0) to (1,1), thinned
// to at most about most points that keep its shape.
func (r *Ranking) ROC(most int) []Point {
	p, n := r.totals()
	out := make([]Point, 1, len(r.tp)+1)
	for i := range r.tp {
		out = append(out, Point{r.fp[i] / n, r.tp[i] / p})
	}
	return thin(out, most)
}

// PrecisionRecall is the curve of precision over recall, thinned like ROC.
func (r *Ranking) PrecisionRecall(most int) []Point {
	p, _ := r.totals()
	out := make([]Point, 0, len(r.tp))
	for i := range r.tp {
		out = append(out, Point{r.tp[i] / p, r.tp[i] / (r.tp[i] + r.fp[i])})
	}
	return thin(out, most)
}

// thin keeps the ends and whatever is at least one step away, in either
// direction, from what was kept before.
func thin(in []Point, most int) []Point {
	if len(in) <= most || most < 2 {
		return in
	}
	step := 2 / float64(most)
	out := in[:1:1]
	for _, p := range in[1 : len(in)-1] {
		last := out[len(out)-1]
		// Near the left edge every false alarm counts: there steps are relative.
		dx := min(step, max(step*p.X, step*step))
		if math.Abs(p.X-last.X) >= dx || math.Abs(p.Y-last.Y) >= step {
			out = append(out, p)
		}
	}
	return append(out, in[len(in)-1])
}
