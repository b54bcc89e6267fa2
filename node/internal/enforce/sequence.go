package enforce

import (
	"math"
)

// A single flow of a beacon or of somebody who guesses passwords is only a
// little unusual; that one cause goes on being unusual is what gives it away.
// sequences sums, for each cause, how unusual its flows are, by Page's CUSUM
// (Page 1954): S rises by -ln p less slack with every flow and never falls below
// 0. Under normal traffic -ln p is exponential with mean 1, so S falls by 2 a
// flow on average, and the chance that a flow starts a climb to the limit is
// about exp(-0.94*limit) (0.94 is the root of E exp(t*(-ln p - slack)) = 1),
// which ties the limit to the operator's incidents a day. It stays within bounds:
// below, flows of one cause are too alike for the formula; above, nothing new
// would be said. S stays at the limit at most, and only a flow that adds to it
// is told: an ordinary flow after an unusual run is no evidence, and a cause
// whose flows have become ordinary is soon forgotten.
const (
	slack      = 3.0
	root       = 0.94
	minLimit   = 12.0
	maxLimit   = 18.0
	maxCauses  = 8192
	maxLooking = 32768
)

type sequence struct {
	s    float64            // of flows that ended
	n    int                // flows in the present climb
	part map[string]float64 // what each part of the model gave to it
}

// looks is how unusual a flow was found so far: a weighted mean of -ln p over its
// reports, the newest the heaviest, for it knows most. Whatever the dependence
// between the reports, the mean's exponential moments are at most those of a
// single -ln p (Jensen), so looking often costs no false alarms.
type looks struct {
	mean float64
	any  bool
	part string // whose opinion the newest report is
}

const newest = 0.7 // weight of the newest report

func (l looks) add(p float64, part string) looks {
	x := -math.Log(math.Max(p, 1e-12))
	if l.any {
		x = newest*x + (1-newest)*l.mean
	}
	return looks{x, true, part}
}

func (l looks) gain() float64 { return l.mean - slack }

type sequences struct {
	limit   float64
	causes  map[string]*sequence
	order   []string
	looking map[uint64]looks
}

func newSequences() *sequences {
	return &sequences{limit: minLimit, causes: map[string]*sequence{}, looking: map[uint64]looks{}}
}

// run is a climb that has reached the limit.
type run struct {
	flows int
	part  string // the part of the model that gave most to it
}

// judge counts one report of a flow, and returns the climb of its cause when
// this flow has brought it to the limit.
func (q *sequences) judge(cause string, flow uint64, j Judgement, end bool) (run, bool) {
	l := q.looking[flow].add(j.P, j.Detector)
	if len(q.looking) >= maxLooking {
		clear(q.looking) // a flood: every open flow starts anew
	}
	c := q.cause(cause)
	g := l.gain()
	if !end {
		q.looking[flow] = l
		return run{c.n + 1, c.lead(l.part, g)}, g > 0 && c.s+g >= q.limit
	}
	delete(q.looking, flow)
	c.s = math.Min(c.s+g, q.limit)
	c.n++
	if c.s <= 0 {
		*c = sequence{}
		return run{}, false
	}
	if c.part == nil {
		c.part = map[string]float64{}
	}
	c.part[l.part] += math.Max(g, 0)
	return run{c.n, c.lead("", 0)}, g > 0 && c.s >= q.limit
}

// lead is the part that gave most, with g more from part.
func (c *sequence) lead(part string, g float64) string {
	best, most := part, 0.0
	if part != "" {
		most = c.part[part] + g
	}
	for _, k := range sortedKeys(c.part) {
		if v := c.part[k]; k != part && v > most {
			best, most = k, v
		}
	}
	return best
}

func (q *sequences) cause(name string) *sequence {
	c := q.causes[name]
	if c == nil {
		for len(q.causes) >= maxCauses {
			delete(q.causes, q.order[0])
			q.order = q.order[1:]
		}
		c = &sequence{}
		q.causes[name] = c
		q.order = append(q.order, name)
	}
	return c
}

// height is how far a cause has climbed.
func (q *sequences) height(name string) float64 {
	if c := q.causes[name]; c != nil {
		return c.s
	}
	return 0
}

// budget sets the limit for a share of flows that may start a false climb.
func (q *sequences) budget(share float64) {
	q.limit = math.Min(math.Max(-math.Log(share)/root, minLimit), maxLimit)
}

// forget starts a cause anew, as after a dismissal.
func (q *sequences) forget(name string) {
	if c := q.causes[name]; c != nil {
		*c = sequence{}
	}
}
