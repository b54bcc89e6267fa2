package planetest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Twin is one of two planes that see the same frames.
type Twin interface {
	Fixture
	// Flush delivers the events that wait, then ends all flows and delivers the
	// ends.
	Flush(handle func(*dataplane.Event)) error
}

// Twins compares two planes. Each keeps its own clock, so what depends on time
// is left out; budgets, whose verdicts do, must not be set.
type Twins struct {
	A, B Twin
	// Limit is how many differences Play tells; 0 is 10.
	Limit int
}

// pollEvery is how many frames go by before events are taken, so that no ring
// overflows.
const pollEvery = 256

// Play shows both planes the steps and then ends all flows. It returns each
// difference in one line: in verdicts, in events and their records, in what the
// statistics count. An error is one of a plane.
func (w *Twins) Play(steps []Step) (differences []string, err error) {
	p := play{limit: cmp.Or(w.Limit, 10)}
	sides := [2]Twin{w.A, w.B}
	var before, after [2]dataplane.Stats
	if before, err = stats(sides); err != nil {
		return nil, err
	}
	for i, s := range steps {
		if err := p.step(sides, i, s); err != nil {
			return p.out, err
		}
		if i%pollEvery == pollEvery-1 {
			if err := p.events(sides, Fixture.Poll); err != nil {
				return p.out, err
			}
		}
	}
	if err := p.events(sides, Fixture.Poll); err != nil {
		return p.out, err
	}
	if err := p.ends(sides); err != nil {
		return p.out, err
	}
	if after, err = stats(sides); err != nil {
		return p.out, err
	}
	p.compare("statistics", counted(before[0], after[0]), counted(before[1], after[1]))
	return p.out, nil
}

func stats(sides [2]Twin) (out [2]dataplane.Stats, err error) {
	for i, s := range sides {
		if out[i], err = s.Stats(); err != nil {
			return out, err
		}
	}
	return out, nil
}

// play is one comparison under way.
type play struct {
	limit int
	out   []string
}

func (p *play) tell(format string, args ...any) {
	if len(p.out) < p.limit {
		p.out = append(p.out, fmt.Sprintf(format, args...))
	}
}

func (p *play) compare(what string, a, b any) {
	if x, y := fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b); x != y {
		p.tell("%s:\n\t%s\n\t%s", what, x, y)
	}
}

func (p *play) step(sides [2]Twin, i int, s Step) error {
	var passed [2]bool
	for k, side := range sides {
		var err error
		if passed[k], err = side.Inject(s.Hook, s.Frame); err != nil {
			return fmt.Errorf("frame %d, side %d: %w", i, k, err)
		}
	}
	if passed[0] != passed[1] {
		p.tell("frame %d (% x) passed: %v, %v", i, s.Frame[:min(64, len(s.Frame))], passed[0], passed[1])
	}
	return nil
}

// told is the part of an event that both planes must agree on.
type told struct {
	Kind   dataplane.EventKind
	Reason uint32
	Mode   dataplane.Mode
	Record flow.Record
}

func collect(side Twin, take func(Fixture, func(*dataplane.Event)) error) ([]told, error) {
	var out []told
	err := take(side, func(e *dataplane.Event) {
		out = append(out, told{e.Kind, e.Reason, e.Mode, Timeless(e.Record)})
	})
	return out, err
}

// events compares what both told since the last time, in order.
func (p *play) events(sides [2]Twin, take func(Fixture, func(*dataplane.Event)) error) error {
	a, err := collect(sides[0], take)
	if err != nil {
		return err
	}
	b, err := collect(sides[1], take)
	if err != nil {
		return err
	}
	p.lists("event", a, b)
	return nil
}

func (p *play) lists(what string, a, b []told) {
	if len(a) != len(b) {
		p.tell("%ss: %d, %d", what, len(a), len(b))
	}
	for i := range min(len(a), len(b)) {
		p.compare(fmt.Sprintf("%s %d", what, i), a[i], b[i])
	}
}

// ends compares the flows that are left, in the order of their keys: how long a
// flow was silent may order them otherwise.
func (p *play) ends(sides [2]Twin) error {
	var left [2][]told
	for k, side := range sides {
		var err error
		left[k], err = collect(side, func(f Fixture, handle func(*dataplane.Event)) error {
			return f.(Twin).Flush(handle)
		})
		if err != nil {
			return err
		}
		slices.SortFunc(left[k], func(x, y told) int { return cmp.Compare(x.Record.Key.String(), y.Record.Key.String()) })
	}
	p.lists("open flow", left[0], left[1])
	return nil
}

// counted is what was counted between two moments.
func counted(before, after dataplane.Stats) map[string]uint64 {
	out := map[string]uint64{
		"packets": after.Packets - before.Packets, "bytes": after.Bytes - before.Bytes,
		"dropped": after.Dropped - before.Dropped, "would drop": after.WouldDrop - before.WouldDrop,
		"saved": after.NeverSaved - before.NeverSaved, "flows": after.FlowsTotal - before.FlowsTotal,
		"later fragments": after.NotAccountedFrag - before.NotAccountedFrag,
		"events lost":     after.EventsLost - before.EventsLost, "evicted": after.FlowsEvicted - before.FlowsEvicted,
	}
	for kind := range maps.Keys(after.Malformed) {
		if n := after.Malformed[kind] - before.Malformed[kind]; n > 0 {
			out["malformed "+kind] = n
		}
	}
	return out
}

// Timeless is a record without what the clock and the plane's own numbering put
// into it. A flow that was cut off by the end of the input ended by neither side.
func Timeless(r flow.Record) flow.Record {
	r.ID, r.Start, r.Last, r.Fellows = 0, 0, 0, 0 // what two clocks make of it
	r.Gaps = [flow.First]uint32{}
	for i := range r.Dir {
		d := &r.Dir[i]
		d.First, d.Last, d.GapSq, d.GapMax = 0, 0, 0, 0
	}
	r.SynAckUS, r.AckUS = min(1, r.SynAckUS), min(1, r.AckUS)
	if r.End == flow.EndIdle {
		r.End = flow.Open
	}
	return r
}
