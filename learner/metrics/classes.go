package metrics

import (
	"fmt"
	"math"
)

// Confusion counts rows by true class (first index) and said class (second).
type Confusion [][]float64

// Confuse compares classes 0 to n-1, each row as often as times says (nil: once).
func Confuse(truth, said []int, n int, times []float64) (Confusion, error) {
	if len(truth) != len(said) || (times != nil && len(times) != len(truth)) {
		return nil, fmt.Errorf("confusion: %d true and %d said classes", len(truth), len(said))
	}
	c := make(Confusion, n)
	for i := range c {
		c[i] = make([]float64, n)
	}
	for i, t := range truth {
		if t < 0 || t >= n || said[i] < 0 || said[i] >= n {
			return nil, fmt.Errorf("confusion: row %d: classes %d and %d: expected 0 to %d", i, t, said[i], n-1)
		}
		k := 1.0
		if times != nil {
			k = times[i]
		}
		c[t][said[i]] += k
	}
	return c, nil
}

// F1 is the harmonic mean of precision and recall of each class; 0 for a class
// that was never said, NaN for one that neither was nor was said.
func (c Confusion) F1() []float64 {
	out := make([]float64, len(c))
	for k := range c {
		var was, said float64
		for j := range c {
			was += c[k][j]
			said += c[j][k]
		}
		out[k] = 2 * c[k][k] / (was + said)
	}
	return out
}

// MacroF1 is the mean F1 over the classes that occur, in truth or in word.
func (c Confusion) MacroF1() float64 {
	var sum, n float64
	for _, f := range c.F1() {
		if !math.IsNaN(f) {
			sum, n = sum+f, n+1
		}
	}
	return sum / n
}

// Accuracy is the share of rows whose class was said.
func (c Confusion) Accuracy() float64 {
	var right, all float64
	for i := range c {
		right += c[i][i]
		for _, x := range c[i] {
			all += x
		}
	}
	return right / all
}

// MacroF1Bounds is the macro-F1 with its interval.
func MacroF1Bounds(truth, said []int, n int, s *Sampler, draws int) (Interval, error) {
	whole, err := Confuse(truth, said, n, nil)
	if err != nil {
		return Interval{}, err
	}
	d, err := macroDraws([][]int{said}, truth, n, s, draws)
	if err != nil {
		return Interval{}, err
	}
	return percentile(whole.MacroF1(), d[0]), nil
}

// MacroF1Paired is how much higher the macro-F1 of a is than that of b, on the
// same draws.
func MacroF1Paired(truth, a, b []int, n int, s *Sampler, draws int) (Interval, error) {
	ca, err := Confuse(truth, a, n, nil)
	if err != nil {
		return Interval{}, err
	}
	cb, err := Confuse(truth, b, n, nil)
	if err != nil {
		return Interval{}, err
	}
	d, err := macroDraws([][]int{a, b}, truth, n, s, draws)
	if err != nil {
		return Interval{}, err
	}
	for i := range d[0] {
		d[0][i] -= d[1][i]
	}
	return percentile(ca.MacroF1()-cb.MacroF1(), d[0]), nil
}

func macroDraws(said [][]int, truth []int, n int, s *Sampler, draws int) ([][]float64, error) {
	if draws < 2 || draws > 100_000 || s.rows != len(truth) {
		return nil, fmt.Errorf("bootstrap: %d draws of %d rows: expected 2 to 100000 of %d", draws, s.rows, len(truth))
	}
	out := make([][]float64, len(said))
	times := make([]float64, len(truth))
	for range draws {
		s.Draw(times)
		for i := range said {
			c, err := Confuse(truth, said[i], n, times)
			if err != nil {
				return nil, err
			}
			out[i] = append(out[i], c.MacroF1())
		}
	}
	return out, nil
}

// Bin is one stretch of said probabilities beside what came true.
type Bin struct {
	Said   float64    `json:"said"` // mean probability that was said
	True   float64    `json:"true"` // share that were attacks
	Count  int        `json:"count"`
	Bounds [2]float64 `json:"bounds"` // of True, at 95 %
}

// Reliability cuts probabilities of attack into equal stretches of 0 to 1 and
// leaves out the empty ones. Its second result is the expected calibration
// error: the mean distance of said and true, weighted by count.
func Reliability(prob []float64, attack []bool, bins int) ([]Bin, float64, error) {
	if len(prob) != len(attack) || len(prob) == 0 || bins < 1 || bins > 1000 {
		return nil, 0, fmt.Errorf("reliability: %d probabilities, %d labels, %d bins", len(prob), len(attack), bins)
	}
	all := make([]Bin, bins)
	for i, p := range prob {
		if !(p >= 0 && p <= 1) {
			return nil, 0, fmt.Errorf("reliability: row %d: probability %v", i, p)
		}
		b := &all[min(int(p*float64(bins)), bins-1)]
		b.Said += p
		b.Count++
		if attack[i] {
			b.True++
		}
	}
	var out []Bin
	var off float64
	for _, b := range all {
		if b.Count == 0 {
			continue
		}
		w := Proportion(int(b.True), b.Count)
		b.Said /= float64(b.Count)
		b.True, b.Bounds = w.Value, [2]float64{w.Low, w.High}
		off += math.Abs(b.Said-b.True) * float64(b.Count) / float64(len(prob))
		out = append(out, b)
	}
	return out, off, nil
}
