package feature

import (
	"math"
	"math/bits"
)

// linearCount estimates how many values set the bits.
func linearCount(b *[4]uint64) float64 {
	const m = 256
	set := 0
	for _, w := range b {
		set += bits.OnesCount64(w)
	}
	return -m * math.Log(math.Max(1, float64(m-set))/m)
}

const (
	rows  = 4
	width = 8192 // counters of a row, a power of two
)

// sketch counts keys approximately (count-min with conservative update,
// Cormode and Muthukrishnan 2005; Estan and Varghese 2002): never too low for
// what it was told, too high by chance when it is full.
type sketch [rows][width]float32

func cell(key uint64, row int) int {
	return int(mix(key+uint64(row)*0x9e3779b97f4a7c15) & (width - 1))
}

func (s *sketch) get(key uint64) float64 {
	low := float32(math.MaxFloat32)
	for r := range s {
		low = min(low, s[r][cell(key, r)])
	}
	return float64(low)
}

func (s *sketch) add(key uint64) {
	next := float32(s.get(key)) + 1
	for r := range s {
		c := &s[r][cell(key, r)]
		*c = max(*c, next)
	}
}

// A familiarity counts how often something was seen, but teaches what it saw
// only after it has rested: counts wait for one to two settling times before
// they are believed, so that an attack does not become familiar by going on.
type familiarity struct {
	settled, resting, fresh *sketch
	since                   int64 // of the fresh generation
	turns                   int
}

func newFamiliarity() familiarity {
	return familiarity{settled: new(sketch), resting: new(sketch), fresh: new(sketch)}
}

// turn moves the generations on when a settling time has passed; keep is what
// remains of settled counts after one. A clock that went back restarts the time.
func (f *familiarity) turn(now, settle int64, keep float32) {
	if f.since == 0 || now < f.since {
		f.since = now
		return
	}
	for steps := 0; now-f.since >= settle && steps < 2; steps++ {
		for r := range f.settled {
			for i := range f.settled[r] {
				f.settled[r][i] = f.settled[r][i]*keep + f.resting[r][i]
			}
		}
		f.resting, f.fresh = f.fresh, f.resting
		*f.fresh = sketch{}
		f.turns++
		f.since += settle
	}
	if now-f.since >= settle { // a long silence: both generations have settled
		f.since = now
	}
}

// ready says that at least one generation had the time to settle.
func (f *familiarity) ready() bool { return f.turns >= 2 }

// mix is the finaliser of splitmix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
