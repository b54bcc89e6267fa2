package sim

import (
	"math"
	"math/rand/v2"
)

// What a source of randomness is for: each purpose has its own, so that changing
// one part of a scenario leaves the others as they were.
const (
	forPartition = iota + 1
	forLiars
	forHeld
	forShuffle
	forTraining
	forAlone
	forAttack
	forAbsence
	forTest
	forInit
	forMessages
	forKeys
	forCampaigns
	forChurn
	forCuts
	forLies
	forFate
	forMarks
	forNoise
)

// source is the randomness of a purpose; a and b tell sites and rounds apart.
func source(seed uint64, purpose, a, b int) *rand.Rand {
	x := mix(seed ^ uint64(purpose)*0x9e3779b97f4a7c15)
	return rand.New(rand.NewPCG(mix(x^uint64(a)), mix(x+uint64(b)*0xd1342543de82ef95+1)))
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// gamma draws from the gamma distribution of a shape above 0 (Marsaglia and Tsang
// 2000), never quite 0.
func gamma(shape float64, rng *rand.Rand) float64 {
	if shape < 1 {
		u := 1 - rng.Float64()
		return max(gamma(shape+1, rng)*math.Pow(u, 1/shape), math.SmallestNonzeroFloat64*1e10)
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := rng.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v *= v * v
		if math.Log(1-rng.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}
