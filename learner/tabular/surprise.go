package tabular

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
)

// scale turns the scores of one part into surprise: minus the logarithm, to the
// base of ten, of the share of normal rows that score at least as high. Beyond
// the highest few of the held-out normals the tail is taken to be exponential,
// so that the surprise goes on rising and no two attacks are made equal. It is
// for putting parts together, and claims no probability out there; what an
// operator's budget is compared with is package calibrate.
type scale struct {
	sorted []float64
	tail   float64 // mean excess above the threshold
	from   int     // sorted[from] is the threshold
}

// tailShare is the part of the normals that are the tail.
const tailShare = 0.02

var errFewNormals = errors.New("too few held-out normal rows to calibrate on: expected at least 50")

func newScale(normal []float64) (*scale, error) {
	if len(normal) < 50 {
		return nil, errFewNormals
	}
	s := &scale{sorted: slices.Clone(normal)}
	slices.Sort(s.sorted)
	n := len(normal)
	s.from = n - max(10, int(tailShare*float64(n)))
	for _, x := range s.sorted[s.from:] {
		s.tail += (x - s.sorted[s.from]) / float64(n-s.from)
	}
	s.tail = max(s.tail, 1e-6)
	return s, nil
}

// of is the surprise of a score.
func (s *scale) of(x float64) float64 {
	n := len(s.sorted)
	if t := s.sorted[s.from]; x > t {
		top := float64(n-s.from+1) / float64(n+1)
		return -math.Log10(top) + (x-t)/s.tail*math.Log10E
	}
	return -math.Log10(float64(n-sort.SearchFloat64s(s.sorted, x)+1) / float64(n+1))
}

// Ways of putting surprises together.
const (
	// Sum is Fisher's (1925): what several parts find a little odd is odd.
	Sum = "sum"
	// Max believes whichever part is the most surprised.
	Max = "max"
	// Product wants several to agree: that one part is beside itself, as over a
	// normal row that is like none before, does not make up for the calm of the others.
	Product = "product"
)

// calm is the surprise below which a part counts as not surprised at all.
const calm = 0.1

// Way says which parts speak, how they are put together, and how far the trees
// are grown.
type Way struct {
	Parts []string `json:"parts"`
	How   string   `json:"how"`
	Grown
}

// Grown is how the trees and the forest learn: attack rows weighed by family do
// not let a great flood drown the rare. A forest has no rounds.
type Grown struct {
	Rounds   int  `json:"rounds,omitempty"`
	Balanced bool `json:"balanced,omitempty"`
}

func (g Grown) String() string {
	s := fmt.Sprintf("%s of %d rounds", Trees, g.Rounds)
	if g.Balanced {
		s += ", balanced"
	}
	return s
}

func (w Way) String() string {
	s := w.Parts[0]
	if len(w.Parts) > 1 {
		s = w.How + "(" + strings.Join(w.Parts, ", ") + ")"
	}
	if w.Rounds > 0 {
		s += ", " + w.Grown.String()
	} else if w.Balanced {
		s += ", balanced"
	}
	return s
}

// join puts surprises together, row by row.
func (w Way) join(surprise map[string][]float64) []float64 {
	out := make([]float64, len(surprise[w.Parts[0]]))
	for _, p := range w.Parts {
		for r, s := range surprise[p] {
			switch w.How {
			case Max:
				out[r] = max(out[r], s)
			case Product:
				out[r] += math.Log1p(s / calm)
			default:
				out[r] += s
			}
		}
	}
	return out
}

// ways are all that the choice is made among: parts with trees of every kind,
// and parts without trees.
func ways(kinds []Grown) []Way {
	parts := Parts()
	var out []Way
	for set := 1; set < 1<<len(parts); set++ {
		var in []string
		for i, p := range parts {
			if set>>i&1 == 1 {
				in = append(in, p)
			}
		}
		with := kinds
		if !slices.Contains(in, Trees) {
			with = plain(kinds, slices.Contains(in, Grove))
		}
		for _, g := range with {
			out = append(out, Way{in, Sum, g})
			if len(in) > 1 {
				out = append(out, Way{in, Max, g}, Way{in, Product, g})
			}
		}
	}
	return out
}

// plain are the kinds for parts without boosted trees: a forest has no rounds,
// and parts that are shown no weights have no kinds at all.
func plain(kinds []Grown, forest bool) []Grown {
	var out []Grown
	for _, g := range kinds {
		if k := (Grown{Balanced: forest && g.Balanced}); !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

// AllParts is the way of those who know nothing better.
func AllParts(rounds int) Way { return Way{Parts(), Sum, Grown{rounds, true}} }

func (s *scale) all(scores []float64) []float64 {
	out := make([]float64, len(scores))
	for i, x := range scores {
		out[i] = s.of(x)
	}
	return out
}
