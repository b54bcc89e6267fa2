// Package agenda is virtual time for tests of state machines: what is due, in order,
// on one goroutine and without a clock, so that one seed gives one run.
package agenda

import (
	"container/heap"
	"time"
)

// Agenda holds what is due. Its zero value begins at the zero time with nothing to do.
type Agenda struct {
	Now   time.Time
	items items
	n     int
}

// item is one thing to do; n orders those of one time as they were asked for.
type item struct {
	at time.Time
	n  int
	do func()
}

// After does f once d has passed.
func (a *Agenda) After(d time.Duration, f func()) {
	a.n++
	heap.Push(&a.items, item{a.Now.Add(d), a.n, f})
}

// Run does all that is due within d, and what becomes due by it.
func (a *Agenda) Run(d time.Duration) {
	end := a.Now.Add(d)
	for len(a.items) > 0 && !a.items[0].at.After(end) {
		x := heap.Pop(&a.items).(item)
		a.Now = x.at
		x.do()
	}
	a.Now = end
}

// Alarm is one time at which somebody asked to be called. Its zero value is off.
type Alarm struct{ at time.Time }

// Set has f called after d, unless it is called before that anyway; an alarm that
// was set to a later time does not ring. A node that died leaves its alarm behind
// and takes a new one: alive says whether it is still the one that asked.
func (r *Alarm) Set(a *Agenda, d time.Duration, alive func() bool, f func()) {
	at := a.Now.Add(d)
	if r.at.After(a.Now) && !at.Before(r.at) {
		return
	}
	r.at = at
	a.After(d, func() {
		if alive() && r.at.Equal(at) {
			r.at = time.Time{}
			f()
		}
	})
}

type items []item

func (q items) Len() int { return len(q) }
func (q items) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || (q[i].at.Equal(q[j].at) && q[i].n < q[j].n)
}
func (q items) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *items) Push(x any)   { *q = append(*q, x.(item)) }
func (q *items) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}
