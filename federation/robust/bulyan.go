package robust

import "slices"

// bulyan chooses n-2f updates by Krum, one after the other, and of each number
// takes the mean of the values nearest to the median, all but 2f: El Mhamdi,
// Guerraoui, Rouault (ICML 2018). It withstands f when n >= 4f + 3, also the
// liar who hides one great change in a distance that many dimensions make large
// anyway.
type bulyan struct{}

func (bulyan) About() About {
	return About{
		Name: NameBulyan, Paper: "El Mhamdi, Guerraoui, Rouault, The hidden vulnerability of distributed learning in Byzantium, ICML 2018",
		Breakdown: "n >= 4f + 3",
	}
}

func (bulyan) Check(n, f int) error { return less(n, f, 4, 3) }

func (bulyan) Combine(x [][]int32, f int) ([]int32, error) {
	var chosen [][]int32
	c := newCrowd(x)
	for len(chosen) < len(x)-2*f {
		best := krumOrder(c, f)[0]
		chosen = append(chosen, x[best])
		c.leave(best)
	}
	z := make([]int32, len(x[0]))
	columns(chosen, func(j int, col []int32) { z[j] = aroundMedian(col, len(col)-2*f) })
	return z, nil
}

// aroundMedian is the mean of the keep values nearest to a column's median, the
// smaller of two equally near ones first.
func aroundMedian(col []int32, keep int) int32 {
	slices.Sort(col)
	twice := int64(col[(len(col)-1)/2]) + int64(col[len(col)/2])
	for len(col) > keep {
		if twice-2*int64(col[0]) > 2*int64(col[len(col)-1])-twice {
			col = col[1:]
		} else {
			col = col[:len(col)-1]
		}
	}
	var sum int64
	for _, v := range col {
		sum += int64(v)
	}
	return int32(divide(sum, int64(len(col))))
}
