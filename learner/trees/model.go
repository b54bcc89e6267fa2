package trees

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Model is a sum of oblivious trees for each output. Its fields are the whole
// of it, so that other scorers can be made of it; they must not be changed.
type Model struct {
	Columns int
	Outputs int         // 1: the log-odds of class 1; else one score a class
	Bias    []float64   // of each output
	Borders [][]float32 // of each column, ascending
	Trees   []Tree
}

// Tree adds Leaf[i] to one output, where bit l of i is set if the value in
// Column[l] is above Borders[Column[l]][Border[l]].
type Tree struct {
	Output uint16
	Column []uint16
	Border []uint8
	Leaf   []float32
	Cover  []float32 // training rows in each leaf
}

// Limits of a model that comes from outside.
const maxTrees = 1 << 20

// Validate checks that a model can be scored without looking beyond its slices.
func (m *Model) Validate() error {
	if m.Columns < 1 || m.Columns > MaxColumns || len(m.Borders) != m.Columns {
		return fmt.Errorf("model: %d columns with %d lists of borders: expected 1 to %d and as many", m.Columns, len(m.Borders), MaxColumns)
	}
	if m.Outputs < 1 || m.Outputs > MaxClasses || len(m.Bias) != m.Outputs {
		return fmt.Errorf("model: %d outputs with %d biases: expected 1 to %d and as many", m.Outputs, len(m.Bias), MaxClasses)
	}
	for _, x := range m.Bias {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return errors.New("model: a bias is not finite")
		}
	}
	for c, b := range m.Borders {
		if len(b) > MaxBins-1 || !slices.IsSortedFunc(b, ascending) || slices.ContainsFunc(b, odd) {
			return fmt.Errorf("model: borders of column %d: expected at most %d finite numbers, ascending", c, MaxBins-1)
		}
	}
	if len(m.Trees) > maxTrees {
		return fmt.Errorf("model: %d trees: expected at most %d", len(m.Trees), maxTrees)
	}
	for i := range m.Trees {
		if err := m.checkTree(&m.Trees[i]); err != nil {
			return fmt.Errorf("model: tree %d: %w", i, err)
		}
	}
	return nil
}

func ascending(a, b float32) int {
	if a < b {
		return -1
	}
	return 1
}

func odd(x float32) bool { return x != x || math.IsInf(float64(x), 0) }

func (m *Model) checkTree(t *Tree) error {
	d := len(t.Column)
	if d > MaxDepth || len(t.Border) != d || len(t.Leaf) != 1<<d || len(t.Cover) != 1<<d {
		return fmt.Errorf("%d columns, %d borders, %d leaves, %d covers: expected d, d, 2^d and 2^d with d at most %d",
			d, len(t.Border), len(t.Leaf), len(t.Cover), MaxDepth)
	}
	if int(t.Output) >= m.Outputs {
		return fmt.Errorf("output %d: expected under %d", t.Output, m.Outputs)
	}
	for l, c := range t.Column {
		if int(c) >= m.Columns || int(t.Border[l]) >= len(m.Borders[c]) {
			return fmt.Errorf("level %d: column %d, border %d: not in this model", l, c, t.Border[l])
		}
	}
	if slices.ContainsFunc(t.Leaf, odd) || slices.ContainsFunc(t.Cover, func(x float32) bool { return odd(x) || x < 0 }) {
		return errors.New("a leaf is not finite, or has a negative cover")
	}
	return nil
}

// Score writes each output for a row. It allocates nothing.
func (m *Model) Score(row []float32, out []float64) {
	copy(out, m.Bias)
	for i := range m.Trees {
		t := &m.Trees[i]
		at := 0
		for l, c := range t.Column {
			if row[c] > m.Borders[c][t.Border[l]] {
				at |= 1 << l
			}
		}
		out[t.Output] += float64(t.Leaf[at])
	}
}

// Scores gives each output of all rows: [output][row].
func (m *Model) Scores(d Data) ([][]float64, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("score: %w", err)
	}
	if len(d) != m.Columns {
		return nil, fmt.Errorf("score: %d columns: expected %d", len(d), m.Columns)
	}
	out := make([][]float64, m.Outputs)
	for k := range out {
		out[k] = make([]float64, d.Rows())
		for r := range out[k] {
			out[k][r] = m.Bias[k]
		}
	}
	leaf := make([]uint8, d.Rows())
	for i := range m.Trees {
		t := &m.Trees[i]
		clear(leaf)
		for l, c := range t.Column {
			above, bit := m.Borders[c][t.Border[l]], uint8(1)<<l
			for r, x := range d[c] {
				if x > above {
					leaf[r] |= bit
				}
			}
		}
		s := out[t.Output]
		for r, at := range leaf {
			s[r] += float64(t.Leaf[at])
		}
	}
	return out, nil
}

// Probabilities turns one row's outputs into the classes' probabilities: two
// for one output.
func (m *Model) Probabilities(out, prob []float64) {
	if m.Outputs == 1 {
		prob[1] = sigmoid(out[0])
		prob[0] = 1 - prob[1]
		return
	}
	copy(prob, out)
	softmax(prob)
}

// Prefix is the model after its first rounds.
func (m *Model) Prefix(rounds int) *Model {
	p := *m
	p.Trees = m.Trees[:min(rounds*m.Outputs, len(m.Trees))]
	return &p
}

// Importance is each column's share in how much the trees' values vary over the
// training rows; shares sum to 1.
func (m *Model) Importance() []float64 {
	out := make([]float64, m.Columns)
	var total float64
	for i := range m.Trees {
		t := &m.Trees[i]
		for l, c := range t.Column {
			g := t.spread(l)
			out[c] += g
			total += g
		}
	}
	for c := range out {
		if total > 0 {
			out[c] /= total
		}
	}
	return out
}

// spread is how far apart level l parts the leaves, weighted by cover.
func (t *Tree) spread(l int) float64 {
	var sum float64
	for i := range t.Leaf {
		if i>>l&1 == 1 {
			continue
		}
		a, b := float64(t.Cover[i]), float64(t.Cover[i|1<<l])
		if a+b > 0 {
			d := float64(t.Leaf[i]) - float64(t.Leaf[i|1<<l])
			sum += a * b / (a + b) * d * d
		}
	}
	return sum
}
