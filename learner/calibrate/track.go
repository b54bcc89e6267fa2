package calibrate

import (
	"math"
	"slices"
	"sort"
)

// Limits of a Track.
const (
	// MinTrack is the least number of flows that a level is told from.
	MinTrack = 500
	// trackShare is the largest share of a track that one cause may hold.
	trackShare = 0.05
	// enough flows beyond a level and it is counted instead of fitted.
	enough = 30
	// What is believed of the tail of -ln rank. Normal is a mixture of kinds: of the
	// highest hundredth the tail says how much farther they go, of more it says too
	// little.
	trackTail     = 0.01
	trackMaxShape = 0.25
	tie           = 1e-4 // in -ln rank
	// A level is told down to a tenth of what one flow of those it holds is.
	trackBeyond = 10
)

// Track follows what ranks a site's normal flows really get: of each flow the
// least over its reports, so that looking often does not multiply alarms. From the
// last flows of it, Level says under which rank a share of later ones will fall. A model's own p-values say that of single reports and of the
// traffic that it was calibrated on; a track says it of flows, now. It is for
// one goroutine.
//
// No cause (who does what where) holds more than a twentieth of it, so nobody
// can move the level by being loud. What is known to be an attack must not be
// added.
type Track struct {
	ring []tracked
	at   int
	per  map[uint64]int
}

type tracked struct {
	x     float32 // -ln rank
	cause uint64
}

// NewTrack holds the last size flows, at least MinTrack.
func NewTrack(size int) *Track {
	return &Track{ring: make([]tracked, 0, max(size, MinTrack)), per: map[uint64]int{}}
}

// Len is how many flows it holds.
func (t *Track) Len() int { return len(t.ring) }

// Add counts a flow that has ended by the least rank that it got. NaN and what is
// no rank is left out.
func (t *Track) Add(rank float64, cause uint64) {
	if !(rank > 0 && rank <= 1) {
		return
	}
	e := tracked{float32(-math.Log(rank)), cause}
	if len(t.ring) < cap(t.ring) {
		if t.per[cause] >= max(1, int(trackShare*float64(cap(t.ring)))) {
			return
		}
		t.ring = append(t.ring, e)
		t.per[cause]++
		return
	}
	old := t.ring[t.at].cause
	if old != cause && t.per[cause] >= max(1, int(trackShare*float64(cap(t.ring)))) {
		return
	}
	if t.per[old]--; t.per[old] <= 0 {
		delete(t.per, old)
	}
	t.per[cause]++
	t.ring[t.at] = e
	t.at = (t.at + 1) % len(t.ring)
}

// Reset forgets all flows, as when another model begins to judge.
func (t *Track) Reset() {
	t.ring, t.at = t.ring[:0], 0
	clear(t.per)
}

// Level is the rank under which a share of later flows will fall: counted
// where there are enough flows beyond it, else by a generalised Pareto tail as
// in Scale. ok is false when there are too few flows to say.
func (t *Track) Level(share float64) (level float64, ok bool) {
	n := len(t.ring)
	if n < MinTrack || !(share > 0 && share < 1) || share*float64(n)*trackBeyond < 1 {
		return 0, false
	}
	xs := make([]float64, n)
	for i := range t.ring {
		xs[i] = float64(t.ring[i].x)
	}
	slices.Sort(xs)
	if ties := n - sort.SearchFloat64s(xs, xs[n-1]-tie); ties > 1 && float64(ties) > share*float64(n) {
		return 0, false
	}
	if beyond := share * float64(n); beyond >= enough {
		i := n - int(beyond)
		return math.Exp(-between(xs, i)), true
	}
	tail := fit(xs, Options{Share: trackTail, MaxShape: trackMaxShape})
	if !(tail.Sigma > 0) {
		return math.Exp(-xs[n-1]), true
	}
	return math.Exp(-tail.quantile(share, n)), true
}

// between is half-way from sorted value i-1 to i, so that ties at i are beyond.
func between(xs []float64, i int) float64 {
	if i <= 0 {
		return xs[0]
	}
	return (xs[i-1] + xs[i]) / 2
}

// quantile is the score that a share of all n goes beyond.
func (t Tail) quantile(share float64, n int) float64 {
	rel := share / (float64(t.Above) / float64(n))
	if rel >= 1 {
		return t.Threshold
	}
	if math.Abs(t.Shape) < 1e-9 {
		return t.Threshold - t.Sigma*math.Log(rel)
	}
	return t.Threshold + t.Sigma/t.Shape*(math.Pow(rel, -t.Shape)-1)
}
