package drift

import "time"

// Damper keeps an abrupt change from becoming a storm: a burst of causes is told
// one by one, then as many a day as the operator accepts, and the others have
// to be folded into one. It is a token bucket.
type Damper struct {
	Burst int           // causes told at once
	Every time.Duration // in which one more may be told
	left  float64
	last  time.Time
}

// Alone says whether one more cause may be told by itself now.
func (d *Damper) Alone(now time.Time) bool {
	if d.last.IsZero() {
		d.left = float64(d.Burst)
	} else if passed := now.Sub(d.last); passed > 0 && d.Every > 0 {
		d.left = min(float64(d.Burst), d.left+float64(passed)/float64(d.Every))
	}
	d.last = now
	if d.left < 1 {
		return false
	}
	d.left--
	return true
}
