package evidence

import (
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// Flow is a flow that ended, as far as labels need it.
type Flow struct {
	Key         flow.Key
	Start, Last time.Time
	V           feature.Vector
	Host, Peer  uint64 // hashes
}

// Joined is a flow and what was said of it.
type Joined struct {
	Said
	Flow
}

// Bounds of a Join. A flow takes some 600 bytes.
const (
	maxEnded   = 4096
	maxWaiting = 4096
	maxSources = 8 // that may say something of one flow
	// patience is how long a label waits for the end of its flow.
	patience = time.Hour
)

// Join brings together flows as they end and what other tools say of them, in
// whichever order they come. It keeps the latest flows, and labels for an hour; of
// either the oldest gives way to the newest. It is for one goroutine.
type Join struct {
	ended   ring[ended]
	waiting ring[Said]
}

type ended struct {
	Flow
	told []string // sources that have said what it is
}

// ring holds the newest of what was put into it, by key.
type ring[T any] struct {
	by    map[flow.Key][]*T
	order []slot[T]
	next  int
}

type slot[T any] struct {
	key flow.Key
	x   *T
}

func (r *ring[T]) put(k flow.Key, x *T, most int) {
	if r.by == nil {
		r.by = map[flow.Key][]*T{}
	}
	if len(r.order) < most {
		r.order = append(r.order, slot[T]{k, x})
	} else {
		r.drop(r.order[r.next].key, r.order[r.next].x)
		r.order[r.next] = slot[T]{k, x}
		r.next = (r.next + 1) % most
	}
	r.by[k] = append(r.by[k], x)
}

// drop takes an entry out; its place in the order stays until its turn comes.
func (r *ring[T]) drop(k flow.Key, x *T) {
	rest := slices.DeleteFunc(r.by[k], func(y *T) bool { return x == y })
	if r.by[k] = rest; len(rest) == 0 {
		delete(r.by, k)
	}
}

// Len is how many flows and labels it holds.
func (j *Join) Len() (flows, labels int) { return len(j.ended.order), len(j.waiting.order) }

func fits(f *Flow, s *Said) bool {
	return !s.At.Before(f.Start.Add(-slack)) && !s.At.After(f.Last.Add(slack))
}

// Say takes a label. It gives the flows that it is of, if they have ended; else the
// label waits.
func (j *Join) Say(s Said) (out []Joined) {
	known := false
	for _, e := range j.ended.by[s.Key] {
		if !fits(&e.Flow, &s) {
			continue
		}
		known = true
		if len(e.told) < maxSources && !slices.Contains(e.told, s.Source) {
			e.told = append(e.told, s.Source)
			out = append(out, Joined{s, e.Flow})
		}
	}
	if !known {
		j.waiting.put(s.Key, &s, maxWaiting)
	}
	return out
}

// End takes a flow that ended at a time, and gives it with each label that waited
// for it, the surest of each source.
func (j *Join) End(now time.Time, f *Flow) (out []Joined) {
	e := &ended{Flow: *f}
	for _, s := range slices.Clone(j.waiting.by[f.Key]) {
		old := now.Sub(s.At) > patience
		if !old && !fits(f, s) {
			continue
		}
		j.waiting.drop(f.Key, s)
		if old || len(e.told) >= maxSources {
			continue
		}
		if i := slices.IndexFunc(out, func(x Joined) bool { return x.Source == s.Source }); i >= 0 {
			if s.Weight > out[i].Weight {
				out[i].Said = *s
			}
			continue
		}
		e.told = append(e.told, s.Source)
		out = append(out, Joined{*s, *f})
	}
	j.ended.put(f.Key, e, maxEnded)
	return out
}
