package attack

import (
	"fmt"
	"math"
)

// A Trigger is a mark by which colluders want attacks to pass: they train rows of
// attacks that carry it as normal, and all others honestly. What the mark is, is
// for who has the rows to say.
type Trigger string

// Triggers. "" is none.
const (
	// Rare is a mark that hardly any honest row carries, so that nobody's honest
	// training speaks against it.
	Rare Trigger = "rare"
	// Common is the mark of ordinary work: honest training sees it all the time.
	Common Trigger = "common"
)

// replacement sends what makes the plain mean the colluders' own model: their own
// updates' mean, times all over them, without what the honest will add.
func replacement(v View) ([][]float32, error) {
	want, _ := moments(v.Own)
	honest, _ := moments(v.Honest)
	n, k := float64(len(v.Honest)), float64(len(v.Own))
	for j := range want {
		want[j] = ((n+k)*want[j] - n*honest[j]) / k
	}
	return v.everyone(line(want, want, 0)), nil
}

// freeRide sends what the last round made, with a little noise to look like work;
// before there was one, noise alone.
func freeRide(v View) ([][]float32, error) {
	mean, dev := moments(v.Honest)
	out := make([][]float32, len(v.Own))
	for i := range out {
		out[i] = make([]float32, len(mean))
		copy(out[i], v.Last)
		for j := range out[i] {
			out[i][j] += float32(dev[j] / 10 * v.Rand.NormFloat64())
		}
	}
	return out, nil
}

// adaptive asks the rule in use which of three ways to go against the honest mean,
// and how far, takes its result furthest back: for each way the strength is doubled
// while that hurts more, and then refined. Without a rule it goes the first way by
// the honest updates' length.
func adaptive(v View) ([][]float32, error) {
	mean, dev := moments(v.Honest)
	size := length(mean)
	ways := [3][]float64{make([]float64, len(mean)), make([]float64, len(mean)), make([]float64, len(mean))}
	for j, m := range mean {
		ways[0][j] = -m
		ways[1][j] = -math.Copysign(size/math.Sqrt(float64(len(mean))), m)
		ways[2][j] = -math.Copysign(dev[j], m)
	}
	best := v.everyone(line(mean, ways[0], 1))
	if v.Rule == nil {
		return best, nil
	}
	least := math.Inf(1)
	for _, way := range ways {
		by, err := v.furthest(mean, way)
		if err != nil {
			return nil, err
		}
		sent := v.everyone(line(mean, way, by))
		left, err := v.left(mean, sent)
		if err != nil {
			return nil, err
		}
		if left < least {
			best, least = sent, left
		}
	}
	return best, nil
}

// furthest is the strength along a way that leaves least of the honest mean.
func (v View) furthest(mean, way []float64) (by float64, err error) {
	left := func(by float64) float64 {
		x, e := v.left(mean, v.everyone(line(mean, way, by)))
		if e != nil && err == nil {
			err = fmt.Errorf("attack: try %g: %w", by, e)
		}
		return x
	}
	by = 0.5
	least := left(by)
	for try := 1.0; try <= 32 && err == nil; try *= 2 {
		if x := left(try); x < least {
			by, least = try, x
		}
	}
	for step := by / 2; step >= by/4 && err == nil; step /= 2 {
		for _, try := range []float64{by - step, by + step} {
			if x := left(try); x < least {
				by, least = try, x
			}
		}
	}
	return by, err
}

// left is how far the rule still goes along the honest mean.
func (v View) left(mean []float64, sent [][]float32) (float64, error) {
	z, err := v.Rule(append(append([][]float32(nil), v.Honest...), sent...))
	if err != nil {
		return 0, err
	}
	var along float64
	for j, x := range z {
		along += float64(x) * mean[j]
	}
	return along, nil
}
