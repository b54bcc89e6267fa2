package robust

import (
	"cmp"
	"math/bits"
	"slices"
)

// columns hands over column after column; the callee may reorder it and must not
// keep it. Rows are read a cache line at a time.
func columns[T int32 | float32](x [][]T, f func(j int, col []T)) {
	const line = 16
	n := len(x)
	buf := make([]T, line*n)
	for from := 0; from < len(x[0]); from += line {
		k := min(line, len(x[0])-from)
		for i, row := range x {
			for c, v := range row[from : from+k] {
				buf[c*n+i] = v
			}
		}
		for c := range k {
			f(from+c, buf[c*n:(c+1)*n])
		}
	}
}

// settle reorders a so that a[k] is where sorting would put it, with nothing
// greater before and nothing smaller behind (Hoare's Find). When the pivots keep
// being bad, as only somebody's choice of numbers can bring about, the rest is
// sorted: so the time is bounded whatever is in a.
func settle[T cmp.Ordered](a []T, k int) {
	lo, hi := 0, len(a)-1
	for tries := 2 * bits.Len(uint(len(a))); lo < hi; tries-- {
		if tries == 0 || hi-lo < 12 {
			slices.Sort(a[lo : hi+1])
			return
		}
		i, j := lo, hi
		for pivot := middle(a[lo], a[lo+(hi-lo)/2], a[hi]); i <= j; {
			for a[i] < pivot {
				i++
			}
			for pivot < a[j] {
				j--
			}
			if i <= j {
				a[i], a[j] = a[j], a[i]
				i++
				j--
			}
		}
		switch {
		case k <= j:
			hi = j
		case k >= i:
			lo = i
		default:
			return
		}
	}
}

func middle[T cmp.Ordered](a, b, c T) T {
	return max(min(a, b), min(max(a, b), c))
}

// middleOf is the median of a column, which it reorders; of an even number of
// values it is the mean of the two in the middle.
func middleOf(col []int32) int32 {
	k := len(col) / 2
	settle(col, k)
	if len(col)%2 == 1 {
		return col[k]
	}
	return int32(divide(int64(slices.Max(col[:k]))+int64(col[k]), 2))
}
