package lifecycle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	stateVersion = 1
	// MaxEncoded bounds an encoded state, in bytes.
	MaxEncoded = 8 << 20
	maxWhy     = 1000
	maxMetrics = 32
	maxCount   = 1 << 40
)

// state is what a machine remembers.
type state struct {
	V         int      `json:"v"`
	Active    string   `json:"active,omitempty"`
	Champion  string   `json:"champion,omitempty"` // may be inside of another model and on the list or not
	Trial     string   `json:"trial,omitempty"`    // in shadow or canary
	Watched   string   `json:"watched,omitempty"`  // the active model while it is new
	Waiting   []string `json:"waiting,omitempty"`
	Fallbacks []string `json:"fallbacks,omitempty"` // the latest last
	Spent     Spent    `json:"spent"`
	Models    []*Model `json:"models"`
}

// Encode gives the whole state as JSON, which Decode reads back; it is also
// what an export shows.
func (m *Machine) Encode() ([]byte, error) {
	b, err := json.Marshal(m.st)
	if err != nil {
		return nil, fmt.Errorf("encode life cycle: %w", err)
	}
	return b, nil
}

// Decode makes a machine from an encoded state. Whatever the machine itself
// could not have come to is refused, with the field and what was expected.
func Decode(b []byte, o Options) (*Machine, error) {
	if len(b) > MaxEncoded {
		return nil, fmt.Errorf("decode life cycle: %d bytes: expected at most %d", len(b), MaxEncoded)
	}
	m := New(o)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var st state
	if err := d.Decode(&st); err != nil {
		return nil, fmt.Errorf("decode life cycle: %v", err)
	}
	if d.More() {
		return nil, errors.New("decode life cycle: something follows the state")
	}
	if err := st.check(); err != nil {
		return nil, fmt.Errorf("decode life cycle: %w", err)
	}
	m.st = st
	return m, nil
}

func (s *state) check() error {
	if s.V != stateVersion {
		return fmt.Errorf("v: %d: expected %d", s.V, stateVersion)
	}
	if len(s.Models) > maxModels+maxFallbacks+8 {
		return fmt.Errorf("models: %d: expected at most %d", len(s.Models), maxModels+maxFallbacks+8)
	}
	if !finite(s.Spent.FalseAlarms, s.Spent.Detection) || s.Spent.FalseAlarms < 0 || s.Spent.Detection < 0 {
		return fmt.Errorf("spent: %+v: expected shares from 0 on", s.Spent)
	}
	by := map[string]*Model{}
	for i, x := range s.Models {
		if x == nil {
			return fmt.Errorf("models[%d]: null: expected a model", i)
		}
		if err := x.check(); err != nil {
			return fmt.Errorf("models[%d]: %w", i, err)
		}
		if by[x.ID] != nil {
			return fmt.Errorf("models[%d]: id %.12s: it is on the list twice", i, x.ID)
		}
		by[x.ID] = x
	}
	return s.checkRoles(by)
}

// checkRoles wants each role to be held by a model of the right stage, and each
// model of a stage to hold its role.
func (s *state) checkRoles(by map[string]*Model) error {
	role := func(name, id string, ok func(*Model) bool) error {
		if id == "" || by[id] != nil && ok(by[id]) {
			return nil
		}
		return fmt.Errorf("%s: %.12q: expected a model on the list whose stage fits", name, id)
	}
	if err := errors.Join(
		role("active", s.Active, func(x *Model) bool { return x.Stage == Active && x.Gated && x.Served }),
		role("trial", s.Trial, func(x *Model) bool { return (x.Stage == Shadow || x.Stage == Canary) && x.Gated }),
		role("watched", s.Watched, func(x *Model) bool { return x.ID == s.Active }),
	); err != nil {
		return err
	}
	if s.Champion != "" && !idForm.MatchString(s.Champion) || (s.Champion == "") != (s.Active == "") {
		return fmt.Errorf("champion: %.12q: expected the base of the active model", s.Champion)
	}
	if a := by[s.Active]; a != nil && a.Base != s.Champion {
		return fmt.Errorf("champion: %.12q: expected the base of the active model, %.12q", s.Champion, a.Base)
	}
	if len(s.Fallbacks) > maxFallbacks || len(s.Waiting) > 2 {
		return fmt.Errorf("fallbacks, waiting: %d and %d: expected at most %d and 2", len(s.Fallbacks), len(s.Waiting), maxFallbacks)
	}
	for _, id := range s.Fallbacks {
		if x := by[id]; x == nil || x.Stage != Retired || !x.Gated || !x.Served {
			return fmt.Errorf("fallbacks: %.12q: expected a retired model that was active", id)
		}
	}
	for _, id := range s.Waiting {
		if x := by[id]; x == nil || x.Stage != Candidate {
			return fmt.Errorf("waiting: %.12q: expected a candidate", id)
		}
	}
	if twice(s.Fallbacks) || twice(s.Waiting) || len(s.Waiting) == 2 && by[s.Waiting[0]].Origin == by[s.Waiting[1]].Origin {
		return errors.New("fallbacks, waiting: expected no model twice, and one candidate for each origin")
	}
	for id, x := range by {
		held := x.Stage == Retired || x.Stage == Active && id == s.Active || x.Stage == Candidate && slices.Contains(s.Waiting, id) ||
			(x.Stage == Shadow || x.Stage == Canary) && id == s.Trial
		if !held {
			return fmt.Errorf("model %.12s: stage %q: nobody holds that place", id, x.Stage)
		}
	}
	if t := by[s.Trial]; t != nil && t.Stage == Canary && s.Active == "" {
		return errors.New("trial: a canary without an active model")
	}
	return nil
}

func twice(ids []string) bool {
	seen := map[string]bool{}
	for _, id := range ids {
		if seen[id] {
			return true
		}
		seen[id] = true
	}
	return false
}

func (x *Model) check() error {
	p := Proposal{ID: x.ID, Parent: x.Parent, Base: x.Base, Origin: x.Origin, Data: x.Data}
	if err := p.check(); err != nil {
		return err
	}
	switch {
	case x.Base == "":
		return fmt.Errorf("model %.12s: base: expected one", x.ID)
	case !slices.Contains([]Stage{Candidate, Shadow, Canary, Active, Retired}, x.Stage):
		return fmt.Errorf("model %.12s: stage %.20q: expected candidate, shadow, canary, active or retired", x.ID, x.Stage)
	case x.Stage == Retired && !slices.Contains([]End{Refused, Superseded, RolledBack}, x.End), x.Stage != Retired && x.End != "":
		return fmt.Errorf("model %.12s: end %.20q: expected refused, superseded or rolled-back for a retired model, and none else", x.ID, x.End)
	case len(x.History) < 1 || len(x.History) > maxHistory:
		return fmt.Errorf("model %.12s: history of %d steps: expected 1 to %d", x.ID, len(x.History), maxHistory)
	case !sane(x.Since) || !sane(x.Data.From) || !sane(x.Data.Until):
		return fmt.Errorf("model %.12s: times: expected years 1 to 9999", x.ID)
	}
	for i := range x.History {
		if err := x.History[i].check(); err != nil {
			return fmt.Errorf("model %.12s: history[%d]: %w", x.ID, i, err)
		}
	}
	if x.Trial != nil {
		if err := x.Trial.check(); err != nil {
			return fmt.Errorf("model %.12s: trial: %w", x.ID, err)
		}
	}
	if err := x.Live.check(); err != nil {
		return fmt.Errorf("model %.12s: live: %w", x.ID, err)
	}
	return nil
}

func (s *Step) check() error {
	if len(s.Why) > maxWhy || len(s.By) > 32 || len(s.Metrics) > maxMetrics || !sane(s.At) {
		return fmt.Errorf("step: expected a reason of at most %d bytes, %d metrics, and a time", maxWhy, maxMetrics)
	}
	for k, v := range s.Metrics {
		if len(k) > 64 || !finite(v) {
			return fmt.Errorf("metrics: %.20q: expected finite numbers", k)
		}
	}
	return nil
}

func (t *Trial) check() error {
	if !counts(t.Normals, t.Causes, t.KnownSet, t.AttackSet) {
		return errors.New("counts: expected none to be negative or absurd")
	}
	for _, c := range []*Count{&t.Own, t.Alone, t.Base, t.Incumbent} {
		if c == nil {
			continue
		}
		if !counts(c.Alarms, c.Known, c.Detected, c.Errors) || c.Alarms > t.Causes || c.Known > t.KnownSet || c.Detected > t.AttackSet {
			return errors.New("counts: expected each between 0 and the number that was examined")
		}
		if !finite(c.Floor) || c.Floor < 0 {
			return fmt.Errorf("floor: %v: expected a p-value", c.Floor)
		}
	}
	return nil
}

func (l *Live) check() error {
	if !counts(l.Reports, l.Causes, l.Odd, l.Only, l.Other, l.Errors) {
		return errors.New("counts: expected none to be negative or absurd")
	}
	return nil
}

func counts(n ...int) bool {
	for _, x := range n {
		if x < 0 || x > maxCount {
			return false
		}
	}
	return true
}

func finite(x ...float64) bool {
	for _, f := range x {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return false
		}
	}
	return true
}

// sane says that a time can be written again.
func sane(t time.Time) bool { return t.Year() >= 0 && t.Year() <= 9999 }
