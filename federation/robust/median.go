package robust

// median is the middle of each number by itself: Yin et al. (ICML 2018). It
// breaks down at half; what it loses where sites differ is that the middle of
// each number together may be like no site.
type median struct{}

func (median) About() About {
	return About{
		Name: NameMedian, Paper: "Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, ICML 2018",
		Breakdown: "f < n/2",
	}
}

func (median) Check(n, f int) error { return less(n, f, 2, 1) }

func (median) Combine(x [][]int32, _ int) ([]int32, error) { return coordinateMedian(x), nil }

func coordinateMedian(x [][]int32) []int32 {
	z := make([]int32, len(x[0]))
	columns(x, func(j int, col []int32) { z[j] = middleOf(col) })
	return z
}

// trimmed is the mean of each number without its f smallest and f largest
// values: Yin et al. (ICML 2018). It breaks down at half, and earlier when f was
// set too low.
type trimmed struct{}

func (trimmed) About() About {
	return About{
		Name: NameTrimmed, Paper: "Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, ICML 2018",
		Breakdown: "f < n/2, if f was not set too low",
	}
}

func (trimmed) Check(n, f int) error { return less(n, f, 2, 1) }

func (trimmed) Combine(x [][]int32, f int) ([]int32, error) { return trimmedMean(x, f), nil }

func trimmedMean(x [][]int32, f int) []int32 {
	if f == 0 {
		return average(x)
	}
	z := make([]int32, len(x[0]))
	columns(x, func(j int, col []int32) {
		settle(col, f)
		rest := col[f:]
		settle(rest, len(rest)-f)
		var sum int64
		for _, v := range rest[:len(rest)-f] {
			sum += int64(v)
		}
		z[j] = int32(divide(sum, int64(len(rest)-f)))
	})
	return z
}
