package enforce

import (
	"fmt"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// backed says that more than the learner's judgement is against an incident: a
// counting rule, the memory of what a person confirmed, another site, or a person.
func (in *incident) backed() bool {
	return in != nil && (in.rule || in.recalled || in.label == "confirmed" || len(in.seenBy) > 0)
}

// ripe says why the learner may not act by itself yet, nil when it may.
func (m *Machine) ripe(now time.Time) error {
	if m.o.Probation == nil {
		return nil
	}
	return m.o.Probation(now)
}

// aloneFlow says why a flow may not be stopped on the learner's word alone, nil when
// it may. It is the last to be asked: what it allows counts as done.
func (m *Machine) aloneFlow(now time.Time, rec *flow.Record) error {
	if err := m.ripe(now); err != nil {
		return err
	}
	r := relationOf(rec)
	if !m.habits.established(now, r) {
		return nil
	}
	if err := m.habits.mayFlow(now, r); err != nil {
		return err
	}
	m.habits.stopped(now, r)
	return nil
}

// What is ordinary here is blocked, on the learner's word alone, only when it has gone
// on being unusual: a single run of chance is none, and a change of the site shows
// before.
const (
	aloneFor   = time.Minute
	aloneFlows = 3
)

// aloneRule is aloneFlow for a rule that stands.
func (m *Machine) aloneRule(now time.Time, in *incident, r dataplane.Rule) error {
	if err := m.ripe(now); err != nil {
		return err
	}
	if m.habits.cold(now) {
		return m.habits.may(now, relation{})
	}
	rs := m.habits.under(now, r.Target)
	if len(rs) > 0 && r.Action == dataplane.Block && (in.alerts < aloneFlows || now.Sub(in.first) < aloneFor) {
		return fmt.Errorf("held back: it is ordinary here, and has to be unusual in %d flows and for %s before the learner alone may block it", aloneFlows, aloneFor)
	}
	if err := m.habits.may(now, rs...); err != nil {
		return err
	}
	m.habits.cutOff(now, rs...)
	return nil
}

// held tells that something was not done: the first time, the second, the fourth and
// so on.
func (m *Machine) held(now time.Time, in *incident, t dataplane.Target, a dataplane.Action, err error) []Effect {
	in.spared++
	if in.spared&(in.spared-1) != 0 {
		return nil
	}
	return []Effect{m.refused(now, in, t, a, err)}
}

// changing looks at an alarm that only the learner raises about an ordinary relation.
// done says that it is dealt with: it is no alarm, or one of many that come from a
// change of the site.
func (m *Machine) changing(now time.Time, ev *dataplane.Event, j Judgement, run int, explain func() []event.Reason) (fx []Effect, id string, done bool) {
	began := m.habits.unusual(now, relationOf(&ev.Record))
	if j.Detector == learner.Self.String() && explain != nil && resting(explain()) {
		m.asBefore = true
		if began {
			fx = m.turn(now, &ev.Record)
		}
		return fx, "", true
	}
	if !m.habits.changed(now) {
		return nil, "", false
	}
	m.asBefore = true
	if began {
		fx = m.turn(now, &ev.Record)
	}
	more, id := m.fold(now, ev, j, run, explain)
	return append(fx, more...), id, true
}

// AsBefore says that the last flow was unusual, and taken for a part of a change of
// the site: nothing is held against it, and it may teach what has become normal.
func (m *Machine) AsBefore() bool { return m.asBefore }

// turn begins a change of the site: what the learner alone had done to ordinary
// relations is undone, and told as one incident.
func (m *Machine) turn(now time.Time, rec *flow.Record) []Effect {
	var fx []Effect
	for _, k := range sortedKeys(m.suspended) {
		if s := m.suspended[k]; s.alone && now.Before(s.until) {
			t := s.target
			fx = append(fx, Effect{Remove: &t})
			delete(m.suspended, k)
		}
	}
	lifted := 0
	for _, k := range sortedKeys(m.standing) {
		s := m.standing[k]
		in := m.byID[s.block.Incident]
		if in == nil || in.backed() || s.block.Source != SourceLocal || len(m.habits.under(now, s.rule.Target)) == 0 {
			continue
		}
		in.blocked, in.limited = false, false
		fx = append(fx, m.lift(now, s, "lifted", "a change of the site, not an attack by each")...)
		lifted++
	}
	in := m.many(now, rec)
	if in == nil {
		return fx
	}
	in.sentence = m.turnWords(now)
	if n := len(fx); n > 0 {
		in.sentence += fmt.Sprintf("; what was done to them before is undone (%d blocks)", lifted)
	}
	return append(fx, Effect{Emit: in.record(m.o.Site, now)})
}

func (m *Machine) turnWords(now time.Time) string {
	hosts, parties := m.habits.spread()
	return fmt.Sprintf("%d of this site's %d live ordinary relations became unusual within %s (%d hosts, %d services and peers): a change of this site rather than an attack by each, so none of them is held up for it; what is new here is judged as before",
		len(m.habits.odd), m.habits.relations(now).recent, turnWithin, hosts, parties)
}

// NewModel says that another model judges from now on.
func (m *Machine) NewModel() { m.habits.renew() }

// Ordinary is what is ordinary here, what the learner alone did to it, and was kept from.
type Ordinary struct {
	Relations int // ordinary, and seen within a day
	Cut       int // of them cut off within an hour
	Flows     int // of them within an hour
	Stopped   int
	Held      int       // times that it was kept from more, since the start
	Changing  bool      // the site is taken to be changing
	Since     time.Time // of that
	Until     time.Time
}

// Ordinary counts it.
func (m *Machine) Ordinary(now time.Time) Ordinary {
	h := m.habits
	within(h.cut, now, cutWindow)
	a := Ordinary{Relations: h.relations(now).live, Cut: len(h.cut), Held: h.held}
	a.Flows, a.Stopped = h.flows(now)
	a.Flows += a.Stopped
	if h.changed(now) {
		a.Changing, a.Since, a.Until = true, h.turned, h.until
	}
	return a
}

// Retreat is why the plane's own scorer has to stop acting, "" while it may go on: it
// would have cut off more of what is ordinary than the learner alone may. Asking
// ends it.
func (m *Machine) Retreat() string {
	why := m.retreat
	m.retreat = ""
	return why
}

// Damp sets how many causes the learner may raise at once, and the time in which one
// more may follow. Zero values are the defaults.
func (m *Machine) Damp(burst int, every time.Duration) {
	m.o.Burst, m.o.Every = burst, every
	m.o.defaults()
	for _, d := range []*damper{&m.strange, &m.familiar, &m.often} {
		d.Burst, d.Every = m.o.Burst, m.o.Every
	}
}

// Limits sets the share of what is ordinary that the learner alone may cut off.
func (m *Machine) Limits(share float64) {
	if share > 0 {
		m.habits.share = share
	}
}

// waitAgain is how long a rule that was held back is not thought of again.
const waitAgain = 10 * time.Second

// waits says whether a rule has to wait for more than the learner's word, and tells it.
func (m *Machine) waits(now time.Time, in *incident, r dataplane.Rule) (fx []Effect, no bool) {
	if in.backed() {
		return nil, false
	}
	if err := m.aloneRule(now, in, r); err != nil {
		in.waits = now
		return m.held(now, in, r.Target, r.Action, err), true
	}
	return nil, false
}

// mayTell says whether the learner may raise one more cause by itself. Those of
// ordinary relations take nothing from those of strangers.
func (m *Machine) mayTell(now time.Time, known bool) bool {
	if known {
		return m.familiar.Alone(now)
	}
	return m.strange.Alone(now)
}

// once explains at most once.
func once(explain func() []event.Reason) func() []event.Reason {
	if explain == nil {
		return nil
	}
	return sync.OnceValue(explain)
}
