package budget_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/budget"
)

var start = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

var asked = budget.Asked{IncidentsPerDay: 2, FalseBlocksPerMonth: 1}

// filled raises n incidents an hour apart, of which the first are dismissed and
// the next confirmed; every fourth led to a block.
func filled(n, wrong, right int) *budget.Account {
	a := budget.New(start)
	a.Judging(start, "aa")
	for i := range n {
		id := fmt.Sprintf("i%d", i)
		a.Incident(start.Add(time.Duration(i)*time.Hour), id, i%2 == 0)
		if i%4 == 0 {
			a.Blocked(id)
		}
		switch {
		case i < wrong:
			a.Label(id, false)
		case i < wrong+right:
			a.Label(id, true)
		}
	}
	return a
}

func TestBudgetsAgainstTruth(t *testing.T) {
	for name, tc := range map[string]struct {
		a                 *budget.Account
		after             time.Duration
		incidents, blocks budget.State
		want              string
	}{
		"nothing yet":     {budget.New(start), 0, budget.Nothing, budget.Nothing, "nothing seen yet"},
		"quiet day":       {budget.New(start), 24 * time.Hour, budget.Unsure, budget.Unsure, "0 were false: 0 a day (95 % sure: 0 to 3.7), at most 2 asked: not known yet"},
		"quiet month":     {budget.New(start), 30 * 24 * time.Hour, budget.Kept, budget.Unsure, "kept"},
		"all right":       {filled(40, 0, 40), 20 * 24 * time.Hour, budget.Kept, budget.Unsure, "0 were false"},
		"nobody labels":   {filled(40, 0, 0), 10 * 24 * time.Hour, budget.Unsure, budget.Unsure, "40 more nobody has confirmed or dismissed"},
		"many wrong":      {filled(40, 30, 0), 5 * 24 * time.Hour, budget.Over, budget.Over, "30 were false: 6 a day (95 % sure: 4 to 8.6), at most 2 asked: over"},
		"in first minute": {filled(1, 1, 0), time.Minute, budget.Unsure, budget.Unsure, "not known yet"},
	} {
		r := tc.a.Report(start.Add(tc.after), asked)
		if r.Incidents.State != tc.incidents || r.Blocks.State != tc.blocks || !strings.Contains(r.Incidents.Words("a day"), tc.want) {
			t.Errorf("%s: incidents %s, blocks %s, %q: expected %s, %s, %q", name, r.Incidents.State, r.Blocks.State, r.Incidents.Words("a day"), tc.incidents, tc.blocks, tc.want)
		}
		if r.Incidents.Lo > r.Incidents.Rate || r.Incidents.Rate > 0 && r.Incidents.Hi < r.Incidents.Rate {
			t.Errorf("%s: %+v", name, r.Incidents)
		}
	}
}

func TestLastWordCountsAndOldOnesGo(t *testing.T) {
	a := filled(10, 5, 0)
	a.Label("i0", true)
	a.Label("no such", true)
	a.Incident(start, "i0", true)
	r := a.Report(start.Add(48*time.Hour), asked)
	if r.Incidents.Count != 4 || r.Right.Count != 1 || r.Right.Of != 5 {
		t.Errorf("%+v %+v", r.Incidents, r.Right)
	}
	if r := a.Report(start.Add(40*24*time.Hour), asked); r.Incidents.Count != 0 || r.Incidents.Periods != 30 {
		t.Errorf("after forty days %+v", r.Incidents)
	}
}

// A new model's own figures begin anew; those of the site go on.
func TestNewModelBeginsAnew(t *testing.T) {
	a := filled(40, 40, 0)
	now := start.Add(50 * time.Hour)
	for range 1000 {
		a.Flow(false)
	}
	a.Flow(true)
	if r := a.Report(now, asked); r.Model.Count != 20 || r.Model.State != budget.Over || r.Alarms.Of != 1001 || r.Alarms.Lo <= 0 || r.Alarms.Hi > 0.006 {
		t.Errorf("%+v %+v", r.Model, r.Alarms)
	}
	a.Judging(now, "bb")
	r := a.Report(now.Add(time.Hour), asked)
	if r.Model.Count != 0 || r.Model.State == budget.Over || r.Alarms.Of != 0 || r.Incidents.Count != 40 {
		t.Errorf("%+v %+v", r.Model, r.Incidents)
	}
}

func TestAccountSurvivesAndIsBounded(t *testing.T) {
	a := filled(40, 10, 10)
	b, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	twin, err := budget.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	now := start.Add(60 * time.Hour)
	if twin.Report(now, asked) != a.Report(now, asked) {
		t.Error("a stored account says something else")
	}
	for i := range 10_000 {
		twin.Incident(now, fmt.Sprintf("x%d", i), true)
	}
	if b, err = twin.Encode(); err != nil || len(b) > 1<<20 {
		t.Errorf("%d bytes (%v)", len(b), err)
	}
	for name, in := range map[string]string{
		"version":     `{"v":2}`,
		"alarms":      `{"v":1,"since":"2026-03-01T00:00:00Z","flows":1,"alarms":2}`,
		"no incident": `{"v":1,"since":"2026-03-01T00:00:00Z","incidents":[{}]}`,
		"truth":       `{"v":1,"since":"2026-03-01T00:00:00Z","incidents":[{"id":"a","truth":"maybe"}]}`,
		"no json":     `nothing`,
	} {
		if _, err := budget.Decode([]byte(in)); err == nil || !strings.HasPrefix(err.Error(), "decode budget account: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := filled(5, 1, 1).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := budget.Decode(in)
		if err != nil {
			return
		}
		r := a.Report(start.Add(time.Hour), asked)
		if r.Incidents.Lo < 0 || r.Right.Lo < 0 || r.Right.Hi > 1 {
			t.Errorf("%+v", r)
		}
		if again, err := a.Encode(); err != nil {
			if !bytes.Contains([]byte(err.Error()), []byte("year")) {
				t.Error(err)
			}
		} else if len(again) == 0 {
			t.Error("nothing is stored")
		}
	})
}
