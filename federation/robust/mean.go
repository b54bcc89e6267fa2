package robust

import "fmt"

// mean is the average per number: FedAvg of McMahan et al. (AISTATS 2017) with
// equal weights. One liar among any number moves it by clip/n, which over the
// rounds is as far as he likes: its breakdown point is 0, and it is refused when
// there is anybody to withstand.
type mean struct{}

func (mean) About() About {
	return About{
		Name: NameMean, Paper: "McMahan et al., Communication-efficient learning of deep networks from decentralized data, AISTATS 2017",
		Breakdown: "none: a single liar takes it where he likes", Research: true,
	}
}

func (mean) Check(_, f int) error {
	if f > 0 {
		return fmt.Errorf("%w: the mean withstands no liar, and %d are to be withstood: use another rule", ErrVoid, f)
	}
	return nil
}

func (mean) Combine(x [][]int32, _ int) ([]int32, error) { return average(x), nil }
