package distill

import (
	"math"
	"sort"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner/trees"
)

// classes are the borders between the kinds of ports: none, well-known, of a
// service, ephemeral. The teacher knows no port either; a pupil that did would
// know the one port of the one attack that it was shown.
var classes = []int32{0, 1023, 32767}

// column is one feature of a scorer as the trees see it.
type column struct {
	feature uint8
	kinds   []int32 // borders of a feature of which only the kind is asked, nil: the number
}

// columns leaves out what says who somebody is and not what he does: the times to
// live, which a sender chooses as he likes.
var columns = func() (out []column) {
	for i := range score.Dim {
		c := column{feature: uint8(i)}
		switch i {
		case score.DirBase + score.TTL, score.DirBase + score.DirDim + score.TTL:
			continue
		case score.Service:
			c.kinds = classes
		}
		out = append(out, c)
	}
	return out
}()

// value is a feature as the trees see it.
func (c *column) value(v *score.Vector) float32 {
	x := v[c.feature]
	if c.kinds == nil {
		return float32(x)
	}
	return float32(sort.Search(len(c.kinds), func(i int) bool { return x <= c.kinds[i] }))
}

// threshold is the integer that parts a feature as a border parts the column: x >
// threshold if, and only if, value > border.
func (c *column) threshold(border float32) int32 {
	if c.kinds != nil {
		k := int(math.Floor(float64(border)))
		return c.kinds[min(max(k, 0), len(c.kinds)-1)]
	}
	// float32(x) rises with x, though not strictly: the last x that is not above.
	lo, hi := int64(math.MinInt32), int64(math.MaxInt32-1)
	n := sort.Search(int(hi-lo), func(i int) bool { return float32(lo+int64(i)+1) > border })
	return int32(lo + int64(n))
}

// rows are looks as the trees want them.
type rows struct {
	data          trees.Data
	share, weight []float32
}

func newRows(n int) *rows {
	r := &rows{data: make(trees.Data, len(columns))}
	for c := range r.data {
		r.data[c] = make([]float32, 0, n)
	}
	return r
}

func (r *rows) add(v *score.Vector, share, weight float32) {
	for c := range columns {
		r.data[c] = append(r.data[c], columns[c].value(v))
	}
	r.share, r.weight = append(r.share, share), append(r.weight, weight)
}
