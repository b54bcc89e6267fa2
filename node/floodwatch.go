package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// States of a flood.
const (
	floodOpen   = "open"
	floodClosed = "closed"
)

// Times of a flood's records. Each bound is told of once a minute at most, and
// one flood keeps one record, so that a flood cannot flood the store.
const (
	floodQuiet  = time.Minute     // without it, it is over
	floodRejoin = 5 * time.Minute // what follows so soon is the same flood
	floodGap    = time.Minute     // least time between two records of one bound
)

// maxFloodTargets is how many services a record names.
const maxFloodTargets = 8

// floodBound is what a flood can run into, as records name it.
type floodBound int

const (
	boundBreaker   floodBound = floodBound(dataplane.OverDestination) // after the budgets
	boundChallenge floodBound = boundBreaker + 1
	floodBounds    floodBound = boundChallenge + 1
)

// boundOf is the bound that a kind is about; false for a kind that only says
// that something is over.
func boundOf(k dataplane.FloodKind) (floodBound, bool) {
	switch k {
	case dataplane.OverSource, dataplane.OverSourceNet, dataplane.OverService, dataplane.OverDestination:
		return floodBound(k - dataplane.OverSource), true
	case dataplane.BreakerOpened:
		return boundBreaker, true
	case dataplane.Challenged:
		return boundChallenge, true
	}
	return 0, false
}

func (b floodBound) String() string {
	switch b {
	case boundBreaker:
		return "breaker"
	case boundChallenge:
		return dataplane.Challenged.String()
	}
	return dataplane.Budgets()[b].String()
}

// limit is how many new flows a second a bound allows. A challenge is asked for
// over the budget of the service or of its address.
func (b floodBound) limit(f *dataplane.Flood) uint32 {
	switch b {
	case boundBreaker:
		return f.Breaker
	case boundChallenge:
		return cmp.Or(f.Service, f.Destination)
	}
	return f.Rates()[b]
}

// counts are packets over each bound.
type floodCounts [floodBounds]uint64

func countsOf(s *dataplane.FloodStats) (c floodCounts) {
	for i, k := range dataplane.Budgets() {
		c[i] = s.BudgetDropped[k.String()]
	}
	c[boundBreaker] = s.Untracked + s.BreakerDropped
	c[boundChallenge] = s.Challenges
	return c
}

// floodWatch makes records of what the plane tells of floods. It is pure: the
// caller passes the time and the plane's totals, and serialises the calls.
type floodWatch struct {
	site    string
	ready   bool        // counted holds the totals of a moment ago
	counted floodCounts // by the last look
	at      [floodBounds]*floodEpisode
}

// floodEpisode is one flood over one bound.
type floodEpisode struct {
	id          string
	first, last time.Time
	packets     uint64
	targets     []string
	over        bool
	told, next  time.Time // of records
	mode        dataplane.Mode
}

// seen takes one report. The packet at hand may be anybody's, so its source is
// not kept.
func (w *floodWatch) seen(now time.Time, ev *dataplane.Event) {
	b, ok := boundOf(ev.Flood)
	if !ok {
		return
	}
	e := w.episode(b, now, ev.Mode)
	r := &ev.Record
	target := dataplane.Target{Prefix: dataplane.Peer(r.Responder().Addr()).Prefix, Port: r.Responder().Port(), Proto: r.Key.Proto}.String()
	if !slices.Contains(e.targets, target) && len(e.targets) < maxFloodTargets {
		e.targets = append(e.targets, target)
	}
}

// episode is the flood over a bound that is going on at now.
func (w *floodWatch) episode(b floodBound, now time.Time, mode dataplane.Mode) *floodEpisode {
	e := w.at[b]
	switch {
	case e == nil || e.over && now.Sub(e.last) > floodRejoin:
		e = &floodEpisode{id: event.NewID(now), first: now, mode: mode}
		if w.at[b] != nil {
			e.next = w.at[b].told.Add(floodGap)
		}
		w.at[b] = e
	case e.over:
		e.over, e.next = false, e.told.Add(floodGap)
	}
	e.last = now
	return e
}

// look compares totals with those of the last look, and returns what is to be
// told. A report that was lost on its way is made up for by its count.
func (w *floodWatch) look(now time.Time, s *dataplane.FloodStats, f *dataplane.Flood, mode dataplane.Mode) (out []*event.Event) {
	counts := countsOf(s)
	if !w.ready {
		w.ready, w.counted = true, counts
	}
	for b := range floodBounds {
		more := counts[b] - w.counted[b]
		if counts[b] < w.counted[b] {
			more = 0 // tables were made anew
		}
		if more > 0 {
			w.episode(b, now, mode).packets += more
		}
		if e := w.at[b]; e != nil {
			if b == boundBreaker && !e.over && (s.BreakerOpen[dataplane.FromInside] || s.BreakerOpen[dataplane.ToInside]) {
				e.last = now
			}
			if ev := w.tell(b, e, now, f); ev != nil {
				out = append(out, ev)
			}
		}
	}
	w.counted = counts
	return out
}

// tell returns the record that is due, nil when none is.
func (w *floodWatch) tell(b floodBound, e *floodEpisode, now time.Time, f *dataplane.Flood) *event.Event {
	ends := !e.over && now.Sub(e.last) >= floodQuiet && now.Sub(e.told) >= floodGap
	if !ends && (e.over || now.Before(e.next)) {
		return nil
	}
	e.over, e.told = ends, now
	switch age := now.Sub(e.first); {
	case age < time.Minute:
		e.next = now.Add(floodGap)
	case age < 10*time.Minute:
		e.next = later(e.first.Add(10*time.Minute), now.Add(floodGap))
	default:
		e.next = now.Add(time.Hour)
	}
	return w.record(b, e, now, f)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (w *floodWatch) record(b floodBound, e *floodEpisode, now time.Time, f *dataplane.Flood) *event.Event {
	return &event.Event{V: event.Version, ID: e.id, Time: now, Site: w.site, Kind: event.KindFlood, Flood: e.body(b, f)}
}

// open lists the floods that go on, as they are now.
func (w *floodWatch) open(now time.Time, f *dataplane.Flood) (out []*event.Event) {
	for b, e := range w.at {
		if e != nil && !e.over {
			out = append(out, w.record(floodBound(b), e, now, f))
		}
	}
	return out
}

func (e *floodEpisode) body(b floodBound, f *dataplane.Flood) *event.Flood {
	x := &event.Flood{
		Bound: b.String(), State: floodOpen, Mode: e.mode.String(), First: e.first, Last: e.last, Limit: b.limit(f),
		Packets: e.packets, Targets: append([]string{}, e.targets...),
	}
	if e.over {
		x.State = floodClosed
	}
	e.words(b, f, x)
	return x
}

// words say what happens, what it means and what to do.
func (e *floodEpisode) words(b floodBound, f *dataplane.Flood, x *event.Flood) {
	t := &floodTexts[b]
	fate := t.fate
	if b == boundBreaker && f.BreakerDrops {
		fate = "dropped"
	}
	if e.mode == dataplane.Monitor && fate != passedBy {
		fate = "would have been " + fate
	} else if fate != passedBy {
		fate = "were " + fate
	}
	x.Sentence = fmt.Sprintf("%s (%d a second): %d %s %s in %s", t.what, x.Limit, e.packets, t.unit, fate,
		max(time.Second, e.last.Sub(e.first).Round(time.Second)))
	if len(e.targets) > 0 {
		x.Sentence += ", towards " + strings.Join(e.targets, ", ")
	}
	x.Means, x.Advice = t.means, t.advice
}

// passedBy is the fate of packets that the open breaker does not drop.
const passedBy = "passed without being followed"

// floodText is what an operator reads of a bound.
type floodText struct{ what, unit, fate, means, advice string }

var floodTexts = [floodBounds]floodText{
	{"a source opens more new flows than flood.source allows", "packets", "dropped",
		"only new flows from there are refused; its established ones, and everybody else, pass. The address may be forged, so nothing is blocked and other sites are not told",
		"if it is an honest heavy client (a proxy, a NAT, your own scanner), spare it by `hedgerow allow ADDRESS` or raise flood.source; otherwise nothing"},
	{"a network opens more new flows than flood.source_net allows", "packets", "dropped",
		"only new flows from that network are refused; established ones, sources that lately proved their address, and everybody else pass. Addresses may be forged, so nothing is blocked and other sites are not told",
		"if it is a network of honest clients, spare it by `hedgerow allow NETWORK` or raise flood.source_net; otherwise nothing"},
	{"a service gets more new flows than flood.service allows", "packets", "dropped",
		"new clients of it are refused while it lasts; established flows, and sources that lately proved their address, pass. Sources may be forged, so nothing is blocked and other sites are not told",
		"name a TCP service in flood.protected, so that real clients can prove themselves; if this is its normal load, raise flood.service; what fills the line is for your provider"},
	{"an address gets more new flows than flood.destination allows", "packets", "dropped",
		"new clients of it are refused while it lasts; established flows, and sources that lately proved their address, pass. Sources may be forged, so nothing is blocked and other sites are not told",
		"name its TCP services in flood.protected, so that real clients can prove themselves; if this is its normal load, raise flood.destination; what fills the line is for your provider"},
	{"more new flows come than flood.breaker lets the gateway follow", "packets", passedBy,
		"the gateway and what it knows are protected; established flows, proved sources and the never-block list are followed as before. The others are not judged: an attack among them stays unseen",
		"see which targets are hit and ask your provider to filter; if this is your normal load, raise flood.breaker and dataplane.max_flows; flood.breaker_drops drops such packets from outside"},
	{"unknown clients come to a protected service faster than its budget", "connection attempts", "answered by a demand for proof",
		"a client that answers gets through at its next attempt; a forged source does not. Established flows and clients that lately proved their address do not notice",
		"nothing: this is the defence at work. If it begins without an attack, raise flood.service or flood.destination"},
}
