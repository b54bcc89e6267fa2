package robust

import "slices"

// krum takes the one update whose n-f-2 nearest others are nearest in all:
// Blanchard et al. (NeurIPS 2017). It withstands f when 2f + 2 < n. One update
// out of n is little where sites differ, and it costs accuracy without a liar.
type krum struct{}

const krumPaper = "Blanchard et al., Machine learning with adversaries: Byzantine tolerant gradient descent, NeurIPS 2017"

func (krum) About() About {
	return About{Name: NameKrum, Paper: krumPaper, Breakdown: "2f + 2 < n"}
}

func (krum) Check(n, f int) error { return less(n, f, 2, 3) }

func (krum) Combine(x [][]int32, f int) ([]int32, error) {
	best := krumOrder(newCrowd(x), f)[0]
	return slices.Clone(x[best]), nil
}

// multiKrum is the mean of the n-f-2 updates of the best scores: the largest
// number for which El Mhamdi et al. (ICML 2018) show what Krum promises.
type multiKrum struct{}

func (multiKrum) About() About {
	return About{
		Name: NameMultiKrum, Paper: krumPaper + "; El Mhamdi, Guerraoui, Rouault, ICML 2018",
		Breakdown: "2f + 2 < n",
	}
}

func (multiKrum) Check(n, f int) error { return less(n, f, 2, 3) }

func (multiKrum) Combine(x [][]int32, f int) ([]int32, error) {
	var chosen [][]int32
	for _, i := range krumOrder(newCrowd(x), f)[:len(x)-f-2] {
		chosen = append(chosen, x[i])
	}
	return average(chosen), nil
}

// crowd is rows by their distances, some of which may have left.
type crowd struct {
	d    [][]uint64
	near [][]int // others of each row, the nearest first
	here []int   // who has not left, in order
	gone []bool
}

func newCrowd(x [][]int32) *crowd {
	c := &crowd{d: distances(x), gone: make([]bool, len(x))}
	for i, d := range c.d {
		c.here = append(c.here, i)
		c.near = append(c.near, slices.DeleteFunc(neighbours(d), func(k int) bool { return k == i }))
	}
	return c
}

// score is the sum of a row's squared distances to the nearest k others that are here.
func (c *crowd) score(i, k int) (s wide) {
	for _, at := range c.near[i] {
		if k <= 0 {
			break
		}
		if !c.gone[at] {
			s = s.plus(c.d[i][at])
			k--
		}
	}
	return s
}

func (c *crowd) leave(i int) {
	c.gone[i] = true
	c.here = slices.DeleteFunc(c.here, func(k int) bool { return k == i })
}

// krumOrder lists who is here by Krum's score, the best first.
func krumOrder(c *crowd, f int) []int {
	score := make(map[int]wide, len(c.here))
	for _, i := range c.here {
		score[i] = c.score(i, len(c.here)-f-2)
	}
	order := slices.Clone(c.here)
	slices.SortStableFunc(order, func(a, b int) int { return score[a].compare(score[b]) })
	return order
}
