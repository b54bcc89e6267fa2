package quality

import (
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// Class is what is known of a report's flow.
type Class uint8

// Classes.
const (
	Unlabelled Class = iota
	Normal
	Attack
)

// Item is one report of a flow.
type Item struct {
	At                  time.Time // of the flow's last packet
	Seen                time.Time // when the report came, for whoever keeps it
	Key                 uint64    // names flow and report; 0 for none. Equal keys are duplicates
	Host, Peer, Service uint64
	Class               Class
	Family              string // of an attack
	Weight              float32
	Final               bool         // the flow has ended
	Blind               feature.Mask // features that the report's source cannot give
	V                   feature.Vector
}

// Limits of a window. Zero values take the defaults.
type Limits struct {
	// Size is how many reports a window takes; default 1024, at most 16384.
	Size int
	// Slack is how far back or ahead a clock may go without a word; default five
	// minutes, for a flow is told ended that long after its last packet.
	Slack time.Duration
	// Shares of a window from which it is bad: reports that the schema does not
	// allow (default 0.01), duplicates (0.2), reports with a wrong time (0.02),
	// ended TCP flows heard from one side only (0.9), attacks among reports of
	// which nobody said that they are normal (0.3), and inputs that hardly overlap
	// with the training window (2/3).
	Invalid, Duplicate, Clock, OneSided, Attacks, Torn float64
	// Least is how many of a kind a share needs to be judged; default 50.
	Least int
}

func (l Limits) withDefaults() (Limits, error) {
	if l.Size == 0 {
		l.Size = 1024
	}
	if l.Slack == 0 {
		l.Slack = 5 * time.Minute
	}
	if l.Least == 0 {
		l.Least = 50
	}
	for _, d := range []struct {
		p *float64
		v float64
	}{{&l.Invalid, 0.01}, {&l.Duplicate, 0.2}, {&l.Clock, 0.02}, {&l.OneSided, 0.9}, {&l.Attacks, 0.3}, {&l.Torn, 2.0 / 3}} {
		if *d.p == 0 {
			*d.p = d.v
		}
		if !(*d.p > 0 && *d.p <= 1) {
			return l, fmt.Errorf("quality: share %v: expected above 0 and at most 1", *d.p)
		}
	}
	if l.Size < 16 || l.Size > 1<<14 || l.Slack < 0 || l.Least < 1 {
		return l, errors.New("quality: size: expected 16 to 16384; slack and least: not below 0 and 1")
	}
	return l, nil
}

// Window gathers reports up to a bound. It is for one goroutine. What it knows of
// clocks and of keys goes on to Next, so that the second of two windows knows what
// the first one saw.
type Window struct {
	l      Limits
	items  []Item
	count  counts
	seen   [2]map[uint64]struct{} // keys, two generations
	last   time.Time
	hosts  map[uint64]int
	closed bool
}

// counts are what a report is made of.
type counts struct {
	offered, invalid, duplicate, back, ahead int
	heard, oneSided                          int
	attacks, unlabelled                      int
	blind                                    feature.Mask
	from, to                                 time.Time
	example                                  string
}

// maxKeys of one generation; a key is known for one to two of them.
const maxKeys = 1 << 16

// NewWindow makes an empty one.
func NewWindow(l Limits) (*Window, error) {
	l, err := l.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Window{l: l, seen: [2]map[uint64]struct{}{{}, {}}, hosts: map[uint64]int{}}, nil
}

// Next is an empty window that goes on where this one ends; this one takes no
// more.
func (w *Window) Next() *Window {
	n := &Window{l: w.l, seen: w.seen, last: w.last, hosts: map[uint64]int{}}
	w.seen = [2]map[uint64]struct{}{}
	w.closed = true
	return n
}

// NewClock says that what comes now was written by another clock.
func (w *Window) NewClock() { w.last = time.Time{} }

// Full says that the window takes no more.
func (w *Window) Full() bool { return w.closed || len(w.items) >= w.l.Size }

// Len is how many reports it holds.
func (w *Window) Len() int { return len(w.items) }

// Offered is how many reports were offered to it.
func (w *Window) Offered() int { return w.count.offered }

// Items are the reports that it holds. Those that were refused one by one are not
// among them.
func (w *Window) Items() []Item { return w.items }

// Drop removes reports, because their host or peer was indicted meanwhile.
func (w *Window) Drop(bad func(*Item) bool) {
	kept := w.items[:0]
	for i := range w.items {
		if !bad(&w.items[i]) {
			kept = append(kept, w.items[i])
		}
	}
	clear(w.items[len(kept):])
	w.items = kept
}

// Add offers a report, now being the time of whoever reads. It says whether the
// window keeps it: not when it is full, and not what is invalid, known already, or
// of a time that cannot be; those are counted.
func (w *Window) Add(now time.Time, it *Item) bool {
	if w.Full() {
		return false
	}
	c := &w.count
	c.offered++
	if err := it.V.Valid(); err != nil {
		c.invalid++
		c.example = err.Error()
		return false
	}
	if it.At.After(now.Add(w.l.Slack)) {
		c.ahead++
		return false
	}
	if it.At.Before(w.last.Add(-w.l.Slack)) {
		c.back++
	}
	if it.At.After(w.last) {
		w.last = it.At
	}
	if w.known(it.Key) {
		c.duplicate++
		return false
	}
	w.tally(it)
	w.items = append(w.items, *it)
	return true
}

func (w *Window) tally(it *Item) {
	c := &w.count
	if c.from.IsZero() || it.At.Before(c.from) {
		c.from = it.At
	}
	if it.At.After(c.to) {
		c.to = it.At
	}
	c.blind = c.blind.Or(it.Blind)
	w.hosts[it.Host]++
	switch it.Class {
	case Attack:
		c.attacks++
	case Unlabelled:
		c.unlabelled++
	}
	if v := &it.V; it.Final && it.Class != Attack && v.Known(iTCP) && v.X[iTCP] == 1 && v.Known(iIn) && v.Known(iOut) {
		c.heard++
		if v.X[iIn] == 0 || v.X[iOut] == 0 {
			c.oneSided++
		}
	}
}

var iTCP, iIn, iOut = feature.Index("tcp"), feature.Index("packets_in"), feature.Index("packets_out")

// known says whether a key was seen lately, and remembers it.
func (w *Window) known(k uint64) bool {
	if k == 0 {
		return false
	}
	for _, g := range w.seen {
		if _, ok := g[k]; ok {
			return true
		}
	}
	if len(w.seen[0]) >= maxKeys {
		w.seen[0], w.seen[1] = map[uint64]struct{}{}, w.seen[0]
	}
	w.seen[0][k] = struct{}{}
	return false
}

// vectors are those that are not of known attacks.
func (w *Window) vectors() []feature.Vector {
	out := make([]feature.Vector, 0, len(w.items))
	for i := range w.items {
		if w.items[i].Class != Attack {
			out = append(out, w.items[i].V)
		}
	}
	return out
}

// Reference is how the window's inputs are distributed, attacks left out.
func (w *Window) Reference() *Reference { return NewReference(w.vectors()) }
