package node

import (
	"strings"
	"testing"
	"time"
)

func TestProbationTakesTimeHoursAndVariety(t *testing.T) {
	begin := time.Date(2026, 3, 1, 9, 10, 0, 0, time.UTC)
	for _, c := range []struct {
		name             string
		asked            time.Duration
		hours, relations int // with traffic, one after the other
		after            time.Duration
		want             string // "" is over
	}{
		{"none asked", 0, 0, 0, 0, ""},
		{"nothing seen", 24 * time.Hour, 0, 0, 0, "nothing ordinary was seen yet"},
		{"twenty seconds", 24 * time.Hour, 1, 49, 20 * time.Second, "another 23h59m40s"},
		{"a day of one hour", 24 * time.Hour, 1, 49, 25 * time.Hour, "1 of 8 hours"},
		{"a day of one relation", 24 * time.Hour, 9, 1, 25 * time.Hour, "1 of 8 ordinary relations"},
		{"a day", 24 * time.Hour, 9, 49, 25 * time.Hour, ""},
		{"an hour", time.Hour, 1, 8, time.Hour, ""},
	} {
		p := probation{asked: c.asked}
		stored := 0
		for h := range c.hours {
			for range 3 {
				if p.saw(begin.Add(time.Duration(h) * time.Hour)) {
					stored++
				}
			}
		}
		if c.asked > 0 && stored != c.hours {
			t.Errorf("%s: stored %d times in %d hours", c.name, stored, c.hours)
		}
		err := p.missing(begin.Add(c.after), c.relations)
		if got := ""; err != nil {
			if got = err.Error(); c.want == "" || !strings.Contains(got, c.want) {
				t.Errorf("%s: %q, expected %q", c.name, got, c.want)
			}
		} else if c.want != "" {
			t.Errorf("%s: over, expected %q", c.name, c.want)
		}
	}
}

// Probation outlasts a restart, and so does its end.
func TestProbationIsKept(t *testing.T) {
	x := newLearned(t)
	x.o.Learner.Probation = 24 * time.Hour
	x.restart()
	if n := x.probation; n.asked != 24*time.Hour || !n.first.IsZero() {
		t.Fatalf("begins with %+v", n)
	}
	x.probation.saw(x.now)
	x.probation.saw(x.now.Add(time.Hour))
	x.saveProbation()
	x.states()
	was := x.probation
	x.restart()
	if x.probation != was || was.hours != 2 {
		t.Errorf("after a restart %+v, before %+v", x.probation, was)
	}
	if v := x.alone(x.now.Add(2 * time.Hour)); v == nil || !strings.Contains(v.Words, "the learner is on probation, and tells only: learner.probation: another 22h0m0s") {
		t.Errorf("status says %+v", v)
	}
	var p probation
	for _, b := range [][]byte{nil, {1}, {1, 2, 3}, {1, 2, 3, 2}, {1, 2, 3, 1, 1}} {
		if p.decode(b) == nil {
			t.Errorf("%v is taken for an account", b)
		}
	}
}

// On probation the plane's scorer counts and does not act. One that would cut off too
// much goes back to that: what it held is let go, status says why, and it does not act
// again.
func TestWhenTheScorerOnlyCounts(t *testing.T) {
	x := taught(t, KernelOn)
	x.mu.Lock()
	x.probation.asked = time.Hour
	x.mu.Unlock()
	x.pupil.install()
	inPlane(t, x, "on probation", x.pupil.scorer, true)
	x.mu.Lock()
	x.probation.over = true
	x.mu.Unlock()
	x.pupil.install()
	inPlane(t, x, "after it", x.pupil.scorer, false)
	x.mu.Lock()
	x.pupil.retreat("held back: too much")
	x.mu.Unlock()
	inPlane(t, x, "at once", nil, false)
	x.pupil.install()
	inPlane(t, x, "from then on", x.pupil.scorer, true)
	x.mu.Lock()
	v := x.pupil.view()
	x.mu.Unlock()
	if v.Mode != KernelShadow || v.Deciding == nil || !strings.Contains(v.Deciding.Why, "until the daemon starts again: held back: too much") {
		t.Errorf("status says %+v, %+v", v, v.Deciding)
	}
}
