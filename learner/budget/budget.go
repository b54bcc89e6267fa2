// Package budget holds what the learner did against what the operator asked
// for: false incidents a day and false blocks a month. Truth is what people
// said: an incident that was dismissed was false, one that was confirmed was
// not, and of the others nothing is known. Every rate comes with its exact
// interval, so that "kept" and "over" are said only when they are so, and
// "not known yet" otherwise.
//
// An Account is pure: the caller passes the time, and serialises the calls.
package budget

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
)

const (
	day = 24 * time.Hour
	// window is how far back an account looks.
	window = 30 * day
	// maxIncidents bounds what is remembered; the oldest goes first.
	maxIncidents = 4096
	confidence   = 0.95
	maxID        = 64
)

// Truth is what is known of an incident.
type Truth string

// Truths.
const (
	Unknown Truth = ""
	False   Truth = "false" // dismissed
	Right   Truth = "right" // confirmed
)

// incident is one that was raised.
type incident struct {
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
	Model   string    `json:"model,omitempty"` // that judged then
	Learner bool      `json:"learner"`         // the learner raised it, not a counting rule
	Blocked bool      `json:"blocked,omitempty"`
	Truth   Truth     `json:"truth,omitempty"`
}

// Asked is what the operator accepts.
type Asked struct {
	IncidentsPerDay     float64
	FalseBlocksPerMonth float64
}

// Account is what happened in the last thirty days.
type Account struct {
	st    state
	dirty bool
}

type state struct {
	V         int        `json:"v"`
	Since     time.Time  `json:"since"` // of the account
	Model     string     `json:"model,omitempty"`
	ModelAt   time.Time  `json:"model_at,omitzero"`
	Incidents []incident `json:"incidents"`
	// Flows that the present model judged, and those of them on which it would
	// raise an alarm by themselves, without what was confirmed.
	Flows  int `json:"flows"`
	Alarms int `json:"alarms"`
}

const version = 1

// New begins an account.
func New(now time.Time) *Account {
	return &Account{st: state{V: version, Since: now.UTC()}, dirty: true}
}

// Judging says that a model judges from now on: its own figures begin anew.
func (a *Account) Judging(now time.Time, model string) {
	if a.st.Model == model {
		return
	}
	a.st.Model, a.st.ModelAt, a.st.Flows, a.st.Alarms, a.dirty = model, now.UTC(), 0, 0, true
}

// Flow counts a judged flow that has ended and belongs to no incident of a rule
// or of a confirmed attack; alarm says that it was one by itself.
func (a *Account) Flow(alarm bool) {
	a.st.Flows++
	if alarm {
		a.st.Alarms++
	}
}

// Incident notes one that was raised; the same again changes nothing.
func (a *Account) Incident(now time.Time, id string, learner bool) {
	if id == "" || len(id) > maxID || a.find(id) != nil {
		return
	}
	a.st.Incidents = append(a.st.Incidents, incident{ID: id, At: now.UTC(), Model: a.st.Model, Learner: learner})
	old := now.Add(-window)
	a.st.Incidents = slices.DeleteFunc(a.st.Incidents, func(x incident) bool { return x.At.Before(old) })
	a.st.Incidents = a.st.Incidents[max(0, len(a.st.Incidents)-maxIncidents):]
	a.dirty = true
}

// Blocked notes that an incident led to a block.
func (a *Account) Blocked(id string) {
	if x := a.find(id); x != nil {
		x.Blocked, a.dirty = true, true
	}
}

// Label takes what a person said of an incident; the last word counts.
func (a *Account) Label(id string, attack bool) {
	if x := a.find(id); x != nil {
		x.Truth, a.dirty = False, true
		if attack {
			x.Truth = Right
		}
	}
}

func (a *Account) find(id string) *incident {
	for i := len(a.st.Incidents) - 1; i >= 0; i-- {
		if a.st.Incidents[i].ID == id {
			return &a.st.Incidents[i]
		}
	}
	return nil
}

// State says how a budget stands.
type State string

// States.
const (
	Kept    State = "kept"          // surely not above what was asked
	Over    State = "over"          // surely above
	Unsure  State = "not known yet" // the interval holds what was asked
	Nothing State = "nothing seen yet"
)

// Rate is how often something was false, in events a period, with its exact
// Poisson interval at 95 %.
type Rate struct {
	Count   int     `json:"count"`
	Periods float64 `json:"periods"` // days, or months of thirty days
	Rate    float64 `json:"rate"`
	Lo      float64 `json:"lo"`
	Hi      float64 `json:"hi"`
	Asked   float64 `json:"asked"`
	State   State   `json:"state"`
	// Unlabelled is how many more nobody has said anything of; Most is the rate
	// if all of them were false.
	Unlabelled int     `json:"unlabelled"`
	Most       float64 `json:"most"`
}

// Share is a share with its exact binomial interval at 95 %.
type Share struct {
	Count int     `json:"count"`
	Of    int     `json:"of"`
	Share float64 `json:"share"`
	Lo    float64 `json:"lo"`
	Hi    float64 `json:"hi"`
}

// Report is how the budgets stand.
type Report struct {
	Incidents Rate `json:"incidents"`    // false ones a day, of the last thirty days
	Blocks    Rate `json:"false_blocks"` // a month
	// Model is the present model's part: false incidents that the learner
	// raised while it judged.
	Model Rate `json:"model"`
	// Right is how many of the labelled incidents were attacks.
	Right Share `json:"right"`
	// Alarms is the share of later flows that are alarms by themselves.
	Alarms Share `json:"alarms"`
}

// Report says how the budgets stand now.
func (a *Account) Report(now time.Time, asked Asked) Report {
	var all, blocks, model counted
	var right, labelled int
	old := now.Add(-window)
	for i := range a.st.Incidents {
		x := &a.st.Incidents[i]
		if x.At.Before(old) {
			continue
		}
		all.add(x)
		if x.Blocked {
			blocks.add(x)
		}
		if x.Learner && x.Model == a.st.Model && !x.At.Before(a.st.ModelAt) {
			model.add(x)
		}
		if x.Truth != Unknown {
			labelled++
			if x.Truth == Right {
				right++
			}
		}
	}
	seen := min(window, max(0, now.Sub(a.st.Since)))
	judged := min(window, max(0, now.Sub(a.st.ModelAt)))
	if a.st.Model == "" {
		judged = 0
	}
	return Report{
		Incidents: all.rate(seen, day, asked.IncidentsPerDay),
		Blocks:    blocks.rate(seen, window, asked.FalseBlocksPerMonth),
		Model:     model.rate(judged, day, asked.IncidentsPerDay),
		Right:     share(right, labelled), Alarms: share(a.st.Alarms, a.st.Flows),
	}
}

type counted struct{ wrong, unknown int }

func (c *counted) add(x *incident) {
	switch x.Truth {
	case False:
		c.wrong++
	case Unknown:
		c.unknown++
	}
}

// least is how much of a period has to have passed before a rate is called
// over: a few false incidents in the first minutes say little of a day.
const least = 1.0 / 24

func (c *counted) rate(seen, period time.Duration, asked float64) Rate {
	n := float64(seen) / float64(period)
	r := Rate{Count: c.wrong, Periods: n, Asked: asked, Unlabelled: c.unknown, State: Nothing}
	if n <= 0 {
		return r
	}
	r.Rate, r.Most = float64(c.wrong)/n, float64(c.wrong+c.unknown)/n
	r.Lo, r.Hi = calibrate.Poisson(c.wrong, n, confidence)
	_, worst := calibrate.Poisson(c.wrong+c.unknown, n, confidence)
	if lo, _ := calibrate.Poisson(c.wrong, math.Max(n, least), confidence); lo > asked {
		r.State = Over
		return r
	}
	r.State = Unsure
	if worst <= asked {
		r.State = Kept
	}
	return r
}

func share(k, n int) Share {
	s := Share{Count: k, Of: n}
	s.Lo, s.Hi = calibrate.Binomial(k, n, confidence)
	if n > 0 {
		s.Share = float64(k) / float64(n)
	}
	return s
}

// Words say how a rate stands in one sentence; unit is "a day" or "a month".
func (r *Rate) Words(unit string) string {
	if r.State == Nothing {
		return fmt.Sprintf("at most %.3g %s asked: %s", r.Asked, unit, r.State)
	}
	s := fmt.Sprintf("%d were false: %.2g %s (95 %% sure: %.2g to %.2g), at most %.3g asked: %s", r.Count, r.Rate, unit, r.Lo, r.Hi, r.Asked, r.State)
	if r.Unlabelled > 0 {
		s += fmt.Sprintf("; %d more nobody has confirmed or dismissed", r.Unlabelled)
	}
	return s
}

// Dirty says that there is something new to store, once.
func (a *Account) Dirty() bool {
	d := a.dirty
	a.dirty = false
	return d
}

// Encode gives the account as JSON.
func (a *Account) Encode() ([]byte, error) {
	b, err := json.Marshal(a.st)
	if err != nil {
		return nil, fmt.Errorf("encode budget account: %w", err)
	}
	return b, nil
}

// maxEncoded bounds an encoded account, in bytes.
const maxEncoded = 4 << 20

// Decode reads an account back, or says what is wrong with it.
func Decode(b []byte) (*Account, error) {
	if len(b) > maxEncoded {
		return nil, fmt.Errorf("decode budget account: %d bytes: expected at most %d", len(b), maxEncoded)
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("decode budget account: %v", err)
	}
	switch {
	case st.V != version:
		return nil, fmt.Errorf("decode budget account: v: %d: expected %d", st.V, version)
	case len(st.Incidents) > maxIncidents:
		return nil, fmt.Errorf("decode budget account: %d incidents: expected at most %d", len(st.Incidents), maxIncidents)
	case st.Flows < 0 || st.Alarms < 0 || st.Alarms > st.Flows:
		return nil, errors.New("decode budget account: flows and alarms: expected alarms from 0 to flows")
	case st.Since.IsZero() || len(st.Model) > maxID:
		return nil, errors.New("decode budget account: since or model: out of range")
	}
	for i := range st.Incidents {
		x := &st.Incidents[i]
		if x.ID == "" || len(x.ID) > maxID || len(x.Model) > maxID || !slices.Contains([]Truth{Unknown, False, Right}, x.Truth) {
			return nil, fmt.Errorf("decode budget account: incidents[%d]: expected an id, and a truth that is false, right or nothing", i)
		}
	}
	return &Account{st: st}, nil
}
