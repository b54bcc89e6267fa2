package learner

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/wide"
)

// sieve says of references how much a vector differs from each at the least, so that
// few need be compared with it in full. References that are alike share a block, whose
// bounds are in sixteenths of a unit, which costs a tenth of comparing; and eight blocks
// share boxes, which say that a block has nothing near.
type sieve struct {
	of     []uint16 // of each lane of each block its reference
	blocks []wide.Block
	boxes  []wide.Boxes
}

// maxBlocks is how many blocks the references fill.
const maxBlocks = maxRefs / wide.Eight

// bounds is the working memory of a search.
type bounds struct {
	block [maxBlocks / wide.Eight]wide.Bounds
	lane  wide.Bounds
}

func newSieve(z []wide.Row) (s sieve) {
	order := make([]uint16, len(z))
	for k := range order {
		order[k] = uint16(k)
	}
	gather(z, order)
	for b := 0; b < len(order); b += wide.Eight {
		var block wide.Block
		for lane := range wide.Eight {
			k := order[min(b+lane, len(order)-1)] // the last more than once
			s.of = append(s.of, k)
			block.Set(lane, &z[k], sides)
		}
		s.blocks = append(s.blocks, block)
	}
	s.boxes = make([]wide.Boxes, (len(s.blocks)+wide.Eight-1)/wide.Eight)
	for k := range s.blocks {
		s.boxes[k/wide.Eight].Set(k%wide.Eight, &s.blocks[k])
	}
	return s
}

// gather orders references so that each eight are alike: it halves them by the feature
// that varies most, the halves too, and so on.
func gather(z []wide.Row, order []uint16) {
	if len(order) <= wide.Eight {
		return
	}
	by := widest(z, order)
	slices.SortFunc(order, func(a, b uint16) int {
		if c := cmp.Compare(z[a][by], z[b][by]); c != 0 {
			return c
		}
		return cmp.Compare(a, b)
	})
	half := (len(order)/2 + wide.Eight - 1) / wide.Eight * wide.Eight
	gather(z, order[:half])
	gather(z, order[half:])
}

// widest is the feature that varies most, the context's twice as much since they weigh
// more. What is wild in a few is no way to part the others.
func widest(z []wide.Row, order []uint16) (by int) {
	const wild = 4
	var most float32
	n := float32(len(order))
	for i := range feature.Dim {
		var sum, sq float32
		for _, k := range order {
			x := z[k][i]
			if i >= ownFeatures {
				x *= 2
			}
			x = min(max(x, -wild), wild)
			sum, sq = sum+x, sq+x*x
		}
		if v := sq/n - sum/n*(sum/n); v > most {
			most, by = v, i
		}
	}
	return by
}

// nearest finds the reference that differs least from a vector, the first of equals,
// and by how much: exactly what comparing it with each of them gives.
func (r *references) nearest(q *wide.Query, work *bounds) (at int, d float32) {
	for k := range r.boxes {
		q.Boxes(&work.block[k], &r.boxes[k])
	}
	best := 0
	for b := range r.blocks {
		if work.block[b/wide.Eight][b%wide.Eight] < work.block[best/wide.Eight][best%wide.Eight] {
			best = b
		}
	}
	at, d = r.within(q, work, best, 0, math.MaxFloat32)
	for b := range r.blocks {
		if work.block[b/wide.Eight][b%wide.Eight] <= d && b != best {
			at, d = r.within(q, work, b, at, d)
		}
	}
	return at, d
}

// within looks into a block for what differs less than the nearest so far. It begins
// with what may differ least.
func (r *references) within(q *wide.Query, work *bounds, b, at int, d float32) (int, float32) {
	which := q.Block(&work.lane, &r.blocks[b], d)
	for which != 0 {
		lane := -1
		for left := which; left != 0; left &= left - 1 {
			if l := bits.TrailingZeros32(left); lane < 0 || work.lane[l] < work.lane[lane] {
				lane = l
			}
		}
		which &^= 1 << lane
		if work.lane[lane] > d {
			break
		}
		k := int(r.of[b*wide.Eight+lane])
		if x := q.Differ(&r.z[k], sides); x < d || x == d && k < at {
			at, d = k, x
		}
	}
	return at, d
}
