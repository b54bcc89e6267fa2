package lifecycle_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
)

// benefit is that of a model of this site.
func (s *site) benefit(n int) *lifecycle.Benefit {
	s.t.Helper()
	x, err := s.m.Model(id(n))
	if err != nil {
		s.t.Fatal(err)
	}
	return x.Benefit()
}

// The benefit of the mesh's part is measured when the model is tried, and anew while it
// is active.
func TestBenefitIsMeasured(t *testing.T) {
	s := newSite(t)
	s.promoted(1, lifecycle.Local)
	if b := s.benefit(1); b != nil {
		t.Errorf("a model that was made alone has %+v", b)
	}
	s.counts[id(1)] = lifecycle.Count{Alarms: 5, Known: 1, Detected: 42}
	s.counts[id(2)] = lifecycle.Count{Alarms: 6, Known: 1, Detected: 48}
	s.do(s.m.Propose(s.now, meshed(2, 1, lifecycle.Round)))
	for range 2 {
		s.pass(id(2))
	}
	b := s.benefit(2)
	if s.roles.Active != id(2) || b == nil || b.Detected != 48 || b.Alone != 42 || !strings.Contains(b.Words(), "14 % more") {
		t.Fatalf("%+v: %+v", s.roles, b)
	}
	s.counts[id(2)] = lifecycle.Count{Alarms: 6, Known: 1, Detected: 45}
	s.now = s.now.Add(24 * time.Hour)
	s.do(s.m.Tick(s.now), nil)
	if b := s.benefit(2); b == nil || b.Detected != 45 || b.Alone != 42 || !strings.Contains(b.Words(), "7 % more") {
		t.Errorf("while it is active: %+v", b)
	}
}

func TestBenefitInWords(t *testing.T) {
	for words, b := range map[string]lifecycle.Benefit{
		"not known, for no attack was confirmed here; alarms on 2 of 90": {Causes: 90, Alarms: 2},
		"detects as many of the 7":                                       {Attacks: 7, Detected: 5, Alone: 5},
		"detects 3 of the 7 behaviours":                                  {Attacks: 7, Detected: 3},
		"detects 20 % fewer of the behaviours":                           {Attacks: 7, Detected: 4, Alone: 5},
		"(5 beside 4 of 7)":                                              {Attacks: 7, Detected: 5, Alone: 4},
	} {
		if got := b.Words(); !strings.Contains(got, words) {
			t.Errorf("%q: expected %q", got, words)
		}
	}
}
