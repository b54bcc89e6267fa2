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
// would be said.
const (
	slack      = 3.0
	root       = 0.94
	minLimit   = 12.0
	maxLimit   = 18.0
	maxCauses  = 8192
	maxLooking = 32768
)

type sequence struct {
	s float64 // of flows that ended
	n int     // flows in the present climb
}

// looks is how often a flow was judged, and the least p of it. Looking k times
// gives chance k tries, so p counts k times as much.
type looks struct {
	p float64
	k int
}

func (l looks) gain() float64 { return -math.Log(math.Min(1, l.p*float64(l.k))) - slack }

type sequences struct {
	limit   float64
	causes  map[string]*sequence
	order   []string
	looking map[uint64]looks
}

func newSequences() *sequences {
	return &sequences{limit: minLimit, causes: map[string]*sequence{}, looking: map[uint64]looks{}}
}

// judge counts one report of a flow and says whether the cause has reached the
// limit, with how many flows.
func (q *sequences) judge(cause string, flow uint64, p float64, end bool) (flows int, reached bool) {
	l, known := q.looking[flow]
	if !known {
		l.p = 1
		if len(q.looking) >= maxLooking {
			clear(q.looking) // a flood: every open flow starts anew
		}
	}
	l.p, l.k = math.Min(l.p, p), l.k+1
	c := q.cause(cause)
	if end {
		delete(q.looking, flow)
		c.s = math.Max(0, c.s+l.gain())
		c.n++
		if c.s == 0 {
			c.n = 0
		}
		return c.n, c.s >= q.limit
	}
	q.looking[flow] = l
	return c.n + 1, c.s+l.gain() >= q.limit
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
