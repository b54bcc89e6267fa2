package robust

import "slices"

// centred adds up what is left of each update's difference from a centre when it
// is cut to a radius: Karimireddy, He, Jaggi (ICML 2021). Their theory holds for
// a tenth of liars. They start from the last round's update and leave the radius
// to the user; here the start is no change, since the rule remembers nothing, and
// the radius is the median distance from the centre, which no minority sets.
type centred struct{}

func (centred) About() About {
	return About{
		Name: NameCentred, Paper: "Karimireddy, He, Jaggi, Learning from history for Byzantine robust optimization, ICML 2021",
		Breakdown: "f <= n/10",
	}
}

func (centred) Check(n, f int) error { return less(n, f, 10, 1) }

const centredSteps = 3

func (centred) Combine(x [][]int32, _ int) ([]int32, error) {
	v := make([]int32, len(x[0]))
	far := make([]uint64, len(x))
	for range centredSteps {
		for i, row := range x {
			far[i] = root(apart(row, v))
		}
		sorted := slices.Sorted(slices.Values(far))
		pull(v, x, far, sorted[(len(sorted)-1)/2])
	}
	return v, nil
}

// pull moves v by the mean difference, each cut to the radius. A part of a
// difference is a whole number of 2^-30 of it.
func pull(v []int32, x [][]int32, far []uint64, radius uint64) {
	move := make([]int64, len(v))
	for i, row := range x {
		share := int64(1 << 30)
		if far[i] > radius {
			share = int64(radius << 30 / far[i])
		}
		for j, a := range row {
			move[j] += (int64(a-v[j])*share + 1<<29) >> 30
		}
	}
	for j, m := range move {
		v[j] += int32(divide(m, int64(len(x))))
	}
}
