package lifecycle

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Errors that callers test.
var (
	ErrUnknown = errors.New("no such model")
	ErrRefused = errors.New("not possible")
)

const (
	maxModels    = 256
	maxHistory   = 24 // steps of one model
	maxFallbacks = 8
	askAgain     = time.Minute // after an examination that was not answered
	patience     = 4           // lengths of a canary that wait for its hosts' reports
)

var idForm = regexp.MustCompile(`^[0-9a-f]{1,64}$`)

// Machine is the life cycle of one site's models. It is for one goroutine.
type Machine struct {
	o  Options
	st state
	// asked is when an examination was asked for that has not come yet, by model.
	asked  map[string]time.Time
	looked time.Time // when the active model was last examined
}

// New makes a machine without models.
func New(o Options) *Machine {
	return &Machine{o: o.withDefaults(), st: state{V: stateVersion}, asked: map[string]time.Time{}}
}

// Options are those in force, with their defaults.
func (m *Machine) Options() Options { return m.o }

func (m *Machine) get(id string) *Model {
	for _, x := range m.st.Models {
		if x.ID == id {
			return x
		}
	}
	return nil
}

// Models are all that are known, in the order in which they came.
func (m *Machine) Models() []Model {
	out := make([]Model, len(m.st.Models))
	for i, x := range m.st.Models {
		out[i] = x.copy()
	}
	return out
}

// Model is one of them.
func (m *Machine) Model(id string) (Model, error) {
	x := m.get(id)
	if x == nil {
		return Model{}, fmt.Errorf("model %q: %w", id, ErrUnknown)
	}
	return x.copy(), nil
}

// Spent is what promotions have used up of the allowances.
func (m *Machine) Spent() Spent { return m.st.Spent }

// Roles is who does what now.
func (m *Machine) Roles() Roles {
	r := Roles{Active: m.st.Active, Champion: m.st.Champion}
	if x := m.get(m.st.Trial); x != nil {
		switch x.Stage {
		case Shadow:
			r.Shadow = x.ID
		case Canary:
			r.Canary, r.Share = x.ID, m.o.Share
		}
	}
	if x := m.get(m.st.Active); x != nil && m.st.Watched == x.ID {
		r.Fallback = m.fallback()
	}
	return r
}

func (m *Machine) fallback() string {
	if n := len(m.st.Fallbacks); n > 0 {
		return m.st.Fallbacks[n-1]
	}
	return ""
}

// Propose takes a new model in. One waits for each origin: a newer one takes
// its place.
func (m *Machine) Propose(now time.Time, p Proposal) ([]Effect, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if m.get(p.ID) != nil {
		return nil, fmt.Errorf("model %.12s is known already: %w", p.ID, ErrRefused)
	}
	if p.Base == "" {
		p.Base = p.ID
	}
	x := &Model{ID: p.ID, Parent: p.Parent, Base: p.Base, Origin: p.Origin, Round: p.Round, Data: p.Data}
	var fx []Effect
	for _, id := range slices.Clone(m.st.Waiting) {
		if old := m.get(id); old.Origin == p.Origin {
			fx = append(fx, m.retire(now, old, Superseded, ByGate, fmt.Sprintf("a newer candidate came before it was examined: %.12s", p.ID), nil))
		}
	}
	m.st.Models = append(m.st.Models, x)
	m.st.Waiting = append(m.st.Waiting, x.ID)
	fx = append(fx, m.move(now, x, Candidate, ByGate, "proposed: "+p.words(), nil))
	fx = append(fx, m.forget()...)
	return append(fx, m.next(now)...), nil
}

func (p *Proposal) check() error {
	switch {
	case !idForm.MatchString(p.ID):
		return fmt.Errorf("propose: id %q: expected lower-case hex, 1 to 64 digits", p.ID)
	case p.Parent != "" && !idForm.MatchString(p.Parent), p.Base != "" && !idForm.MatchString(p.Base):
		return fmt.Errorf("propose %.12s: parent or base: expected lower-case hex, 1 to 64 digits", p.ID)
	case p.Origin != Local && p.Origin != Round:
		return fmt.Errorf("propose %.12s: origin %q: expected %s or %s", p.ID, p.Origin, Local, Round)
	case !counts(p.Data.Normals, p.Data.Attacks):
		return fmt.Errorf("propose %.12s: data: expected no negative count", p.ID)
	case !sane(p.Data.From) || !sane(p.Data.Until):
		return fmt.Errorf("propose %.12s: data: times: expected years 0 to 9999", p.ID)
	}
	return nil
}

func (p *Proposal) words() string {
	s := fmt.Sprintf("made from %d reports of normal traffic and %d labelled examples", p.Data.Normals, p.Data.Attacks)
	if p.Origin == Round {
		s += fmt.Sprintf(", with the mesh's part of round %d", p.Round)
	}
	if p.Why != "" {
		s += ", because " + p.Why
	}
	return s
}

// next examines whoever waits longest, when nobody is on trial. The order of
// arrival lets neither origin starve the other.
func (m *Machine) next(now time.Time) []Effect {
	if m.st.Trial != "" || len(m.st.Waiting) == 0 {
		return nil
	}
	return m.ask(now, m.get(m.st.Waiting[0]))
}

func (m *Machine) ask(now time.Time, x *Model) []Effect {
	if at, ok := m.asked[x.ID]; ok && now.Sub(at) < askAgain && !now.Before(at) {
		return nil
	}
	m.asked[x.ID] = now
	e := &Examine{ID: x.ID, Since: x.Data.Until}
	if x.ID != m.st.Active {
		e.Alone, e.Incumbent = m.st.Champion, m.st.Active
		if x.Base != x.ID && x.Base != e.Alone {
			e.Base = x.Base
		}
	} else {
		e.Incumbent = m.fallback()
		if x.Base != x.ID {
			e.Base = x.Base // for Benefit
		}
	}
	if a := m.get(e.Alone); a != nil && a.Data.Until.After(e.Since) {
		e.Since = a.Data.Until
	}
	return []Effect{{Examine: e}}
}

// Examined takes a measurement that was asked for. One that nobody asked for,
// or of a model that has left the stage, changes nothing.
func (m *Machine) Examined(now time.Time, id string, t Trial) ([]Effect, error) {
	x := m.get(id)
	if x == nil {
		return nil, fmt.Errorf("examined %q: %w", id, ErrUnknown)
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("examined %.12s: %w", id, err)
	}
	if _, ok := m.asked[id]; !ok || x.Stage == Retired || x.Stage == Candidate && m.st.Trial != "" {
		return nil, nil
	}
	if x.ID != m.st.Active && (t.Alone == nil) != (m.st.Champion == "") || x.ID != m.st.Active && (t.Incumbent == nil) != (m.st.Active == "") {
		delete(m.asked, id) // measured against others than it has to be now
		return m.Tick(now), nil
	}
	delete(m.asked, id)
	t.At = now.UTC()
	x.Trial = &t
	if x.Stage == Active {
		return m.examinedActive(now, x, &t), nil
	}
	v := m.o.examine(&t, m.o.left(m.st.Spent), x.Base != x.ID)
	if !v.pass() {
		fx := append([]Effect{m.retire(now, x, Refused, ByGate, v.why(), v.metrics)}, m.ownPart(now, x)...)
		return append(fx, m.changed(now)...), nil
	}
	switch x.Stage {
	case Candidate:
		x.Gated = true
		m.st.Waiting = slices.DeleteFunc(m.st.Waiting, func(s string) bool { return s == id })
		m.st.Trial = id
		fx := []Effect{m.move(now, x, Shadow, ByGate, v.why(), v.metrics)}
		return append(fx, m.changed(now)...), nil
	case Shadow:
		if m.st.Active != "" {
			fx := []Effect{m.move(now, x, Canary, ByGate, v.why(), v.metrics)}
			return append(fx, m.changed(now)...), nil
		}
	}
	return m.promote(now, x, ByGate, v.why(), v.metrics, v.spend), nil
}

// ownPart proposes what the site made alone of a model that was refused with the
// mesh's part: whatever the mesh taught may not keep a site from its own learning.
func (m *Machine) ownPart(now time.Time, x *Model) []Effect {
	if x.Base == x.ID || m.get(x.Base) != nil {
		return nil
	}
	fx, err := m.Propose(now, Proposal{ID: x.Base, Origin: Local, Data: x.Data, Why: fmt.Sprintf("with the mesh's part, as %.12s, it was refused", x.ID)})
	if err != nil {
		return nil
	}
	return fx
}

// examinedActive gives the active model up when it has come to miss what its
// predecessor detects, or says no numbers.
func (m *Machine) examinedActive(now time.Time, x *Model, t *Trial) []Effect {
	m.looked = now
	switch {
	case t.Own.Errors > 0:
		return m.back(now, x, ByWatch, fmt.Sprintf("%d of its scores are no p-values", t.Own.Errors))
	case t.Incumbent != nil && t.Incumbent.Detected-t.Own.Detected > int(m.o.Detection*float64(t.AttackSet)):
		return m.back(now, x, ByWatch, fmt.Sprintf("it detects %d of %d confirmed behaviours, the model before it %d", t.Own.Detected, t.AttackSet, t.Incumbent.Detected))
	case t.Incumbent != nil && t.Own.Known-t.Incumbent.Known > m.o.allowed(t.KnownSet, m.o.FalseAlarms):
		return m.back(now, x, ByWatch, fmt.Sprintf("it alarms on %d of %d known-normal canaries, the model before it on %d", t.Own.Known, t.KnownSet, t.Incumbent.Known))
	}
	return nil
}

// promote makes a model active; what was becomes its fallback.
func (m *Machine) promote(now time.Time, x *Model, by, why string, metrics map[string]float64, spend Spent) []Effect {
	var fx []Effect
	m.st.Waiting = slices.DeleteFunc(m.st.Waiting, func(s string) bool { return s == x.ID })
	m.st.Fallbacks = slices.DeleteFunc(m.st.Fallbacks, func(s string) bool { return s == x.ID })
	if m.st.Trial == x.ID {
		m.st.Trial = ""
	}
	if old := m.get(m.st.Active); old != nil {
		fx = append(fx, m.retire(now, old, Superseded, by, fmt.Sprintf("replaced by %.12s", x.ID), nil))
		m.st.Fallbacks = append(m.st.Fallbacks, old.ID)
		if len(m.st.Fallbacks) > maxFallbacks {
			m.st.Fallbacks = m.st.Fallbacks[1:]
		}
	}
	if x.Origin == Local {
		m.st.Spent = m.st.Spent.plus(spend)
	}
	if by == ByOperator {
		m.st.Spent = Spent{}
	}
	fx = append(fx, m.activate(now, x, by, why, metrics))
	m.st.Watched = ""
	if m.fallback() != "" && m.o.Watch > 0 {
		m.st.Watched = x.ID
	}
	return append(fx, m.changed(now)...)
}

func (m *Machine) activate(now time.Time, x *Model, by, why string, metrics map[string]float64) Effect {
	m.st.Active, m.looked = x.ID, now
	x.Served, x.End = true, ""
	m.st.Champion = x.ID
	if x.Base != x.ID {
		m.st.Champion = x.Base
	}
	return m.move(now, x, Active, by, why, metrics)
}

// back retires the active model and lets its predecessor judge again, or nobody.
func (m *Machine) back(now time.Time, x *Model, by, why string) []Effect {
	fx := []Effect{m.retire(now, x, RolledBack, by, why, nil)}
	m.st.Active, m.st.Watched = "", ""
	if id := m.fallback(); id != "" {
		m.st.Fallbacks = m.st.Fallbacks[:len(m.st.Fallbacks)-1]
		fx = append(fx, m.activate(now, m.get(id), by, fmt.Sprintf("back again, for %.12s was rolled back: %s", x.ID, why), nil))
	} else {
		m.st.Champion = ""
	}
	// Whoever was on trial was compared with a model that is no more.
	if t := m.get(m.st.Trial); t != nil {
		fx = append(fx, m.retire(now, t, Superseded, by, "the model that it was compared with was rolled back", nil))
	}
	fx = append(fx, Effect{Retrain: fmt.Sprintf("%.12s was rolled back: %s", x.ID, why)})
	return append(fx, m.changed(now)...)
}

// Watched takes what a model did beside another since its stage began, as far
// as whoever counts can tell: after a restart it counts anew, and the stage
// takes as much longer.
func (m *Machine) Watched(now time.Time, id string, d Live) ([]Effect, error) {
	x := m.get(id)
	if x == nil {
		return nil, fmt.Errorf("watched %q: %w", id, ErrUnknown)
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("watched %.12s: %w", id, err)
	}
	if x.ID != m.st.Trial && x.ID != m.st.Active {
		return nil, nil // it came too late
	}
	x.Live = d
	why := m.o.live(&x.Live)
	if why == "" {
		return m.Tick(now), nil
	}
	if x.ID == m.st.Active {
		return m.back(now, x, ByWatch, why), nil
	}
	return append([]Effect{m.retire(now, x, Refused, ByGate, "refused: "+why, nil)}, m.changed(now)...), nil
}

// Over says that the active model's false incidents are surely above what the
// operator asked for, in words. It goes back when it has a predecessor that
// was not found to do the same.
func (m *Machine) Over(now time.Time, id, words string) ([]Effect, error) {
	x := m.get(id)
	if x == nil {
		return nil, fmt.Errorf("over budget %q: %w", id, ErrUnknown)
	}
	if x.ID != m.st.Active {
		return nil, nil
	}
	if m.fallback() == "" {
		return []Effect{{Retrain: words}}, nil
	}
	return m.back(now, x, ByWatch, words), nil
}

// Tick moves on what only waits for time.
func (m *Machine) Tick(now time.Time) []Effect {
	var fx []Effect
	if a := m.get(m.st.Active); a != nil {
		if m.st.Watched == a.ID && now.Sub(a.Since) >= m.o.Watch {
			m.st.Watched = ""
			fx = append(fx, m.roles())
		}
		if m.looked.IsZero() || now.Before(m.looked) {
			m.looked = now
		}
		if m.fallback() != "" && now.Sub(m.looked) >= m.o.Look {
			fx = append(fx, m.ask(now, a)...)
		}
	}
	x := m.get(m.st.Trial)
	if x == nil {
		return append(fx, m.next(now)...)
	}
	done, words := m.over(now, x)
	switch {
	case words != "":
		fx = append(fx, m.retire(now, x, Refused, ByGate, words, nil))
		fx = append(fx, m.changed(now)...)
	case done:
		fx = append(fx, m.ask(now, x)...)
	}
	return fx
}

// over says whether a stage has come to its end, and what speaks against the
// model when it did so without traffic.
func (m *Machine) over(now time.Time, x *Model) (done bool, against string) {
	length := m.o.Shadow
	if x.Stage == Canary {
		length = m.o.Canary
	}
	// While nobody judges there is nothing to be compared with, and waiting
	// would only leave the site without a model.
	if length < 0 || m.st.Active == "" {
		return true, ""
	}
	age := now.Sub(x.Since)
	if age >= length && x.Live.Reports >= m.o.Reports {
		return true, ""
	}
	longest := max(m.o.Longest, length)
	if x.Stage == Canary {
		// A small site may have no host among the chosen ones, or a silent one;
		// that is no fault of the model, whose shadow was on all.
		longest = patience * length
	}
	if age < longest {
		return false, ""
	}
	if x.Stage == Shadow && x.Live.Reports < m.o.MinNormals && m.st.Active != "" {
		return true, fmt.Sprintf("refused: only %d reports came in %s to judge it on, %d are needed", x.Live.Reports, age.Round(time.Second), m.o.MinNormals)
	}
	return true, ""
}

// Promote makes a model active by the operator's word, ahead of its time. It
// must have passed the gate.
func (m *Machine) Promote(now time.Time, id, why string) ([]Effect, error) {
	x := m.get(id)
	switch {
	case x == nil:
		return nil, fmt.Errorf("promote %q: %w", id, ErrUnknown)
	case x.Stage == Active:
		return nil, fmt.Errorf("promote %.12s: it is active already: %w", id, ErrRefused)
	case !x.Gated:
		return nil, fmt.Errorf("promote %.12s: it has not passed the gate: %s: %w", id, x.last(), ErrRefused)
	}
	return m.promote(now, x, ByOperator, said("promoted by the operator", why), nil, Spent{}), nil
}

// Rollback lets the active model's predecessor judge again, by the operator's
// word; without one, nobody, and the counting rules are left.
func (m *Machine) Rollback(now time.Time, why string) ([]Effect, error) {
	x := m.get(m.st.Active)
	if x == nil {
		return nil, fmt.Errorf("roll back: no model is active: %w", ErrRefused)
	}
	return m.back(now, x, ByOperator, said("rolled back by the operator", why)), nil
}

// Lost says that a model's weights are gone: it cannot judge again.
func (m *Machine) Lost(now time.Time, id string) ([]Effect, error) {
	x := m.get(id)
	if x == nil {
		return nil, fmt.Errorf("lost %q: %w", id, ErrUnknown)
	}
	const why = "its weights are gone"
	switch {
	case x.ID == m.st.Active:
		x.Gated = false
		return m.back(now, x, ByWatch, why), nil
	case x.Stage != Retired:
		fx := m.retire(now, x, Refused, ByWatch, why, nil)
		return append([]Effect{fx}, m.changed(now)...), nil
	}
	x.Gated = false
	m.st.Fallbacks = slices.DeleteFunc(m.st.Fallbacks, func(s string) bool { return s == id })
	if m.fallback() == "" {
		m.st.Watched = ""
	}
	return []Effect{m.roles()}, nil
}

// retire ends a model's present part.
func (m *Machine) retire(now time.Time, x *Model, end End, by, why string, metrics map[string]float64) Effect {
	m.st.Waiting = slices.DeleteFunc(m.st.Waiting, func(s string) bool { return s == x.ID })
	if m.st.Trial == x.ID {
		m.st.Trial = ""
	}
	delete(m.asked, x.ID)
	x.End = end
	if end == Refused {
		x.Gated = false
	}
	return m.move(now, x, Retired, by, why, metrics)
}

// move records a new stage.
func (m *Machine) move(now time.Time, x *Model, to Stage, by, why string, metrics map[string]float64) Effect {
	x.Stage, x.Since, x.Live = to, now.UTC(), Live{}
	why = strings.ToValidUTF8(why, "")
	if len(why) > maxWhy {
		why = strings.ToValidUTF8(why[:maxWhy], "")
	}
	if len(x.History) >= maxHistory {
		x.History = append(x.History[:1:1], x.History[2:]...) // where it came from stays
	}
	x.History = append(x.History, Step{At: now.UTC(), To: to, By: by, Why: why, Metrics: metrics})
	c := x.copy()
	return Effect{Tell: &c}
}

// changed says who does what now, and lets the next candidate in.
func (m *Machine) changed(now time.Time) []Effect {
	return append([]Effect{m.roles()}, m.Tick(now)...)
}

func (m *Machine) roles() Effect {
	r := m.Roles()
	return Effect{Roles: &r}
}

// needed are the models that judge or may come to, those on trial and in wait among
// them, and what is inside of each: it becomes the champion with it.
func (m *Machine) needed() map[string]bool {
	out := map[string]bool{m.st.Champion: true}
	for _, x := range m.st.Models {
		if x.Stage != Retired || slices.Contains(m.st.Fallbacks, x.ID) {
			out[x.ID], out[x.Base] = true, true
		}
	}
	return out
}

// forget drops the oldest lineage that nobody needs.
func (m *Machine) forget() []Effect {
	var fx []Effect
	needed := m.needed()
	for len(m.st.Models) > m.o.MaxModels {
		i := slices.IndexFunc(m.st.Models, func(x *Model) bool { return !needed[x.ID] })
		if i < 0 {
			break
		}
		fx = append(fx, Effect{Forget: m.st.Models[i].ID})
		m.st.Models = slices.Delete(m.st.Models, i, i+1)
	}
	return fx
}

func (x *Model) last() string {
	if n := len(x.History); n > 0 {
		return x.History[n-1].Why
	}
	return "nothing is known of it"
}

func said(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}
