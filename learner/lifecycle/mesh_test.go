package lifecycle_test

import (
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
)

// meshed is a model of the site's own with the mesh's part in it.
func meshed(n, base int, origin string) lifecycle.Proposal {
	p := proposal(n, origin)
	p.Base, p.Round = id(base), 3
	return p
}

// A site trained anew, and what the mesh taught is worse than what it made itself: the
// model is not worse than the old ones, but than its own part, which is tried instead.
func TestTheMeshDoesNotSpoilWhatASiteLearns(t *testing.T) {
	s := newSite(t)
	s.promoted(1, lifecycle.Local)
	s.counts[id(2)] = lifecycle.Count{Alarms: 5, Known: 1, Detected: 41}
	s.counts[id(3)] = lifecycle.Count{Alarms: 5, Known: 1, Detected: 48}
	s.do(s.m.Propose(s.now, meshed(2, 3, lifecycle.Local)))
	if why := s.last(id(2)).Why; !strings.Contains(why, "the part of it that this site made alone") {
		t.Errorf("refused because %q", why)
	}
	for range 2 {
		s.pass(id(3))
	}
	if s.roles.Active != id(3) || s.roles.Champion != id(3) {
		t.Errorf("%+v: expected what the site made alone to judge", s.roles)
	}
	for _, e := range s.asked {
		if e.ID == id(2) && e.Base != id(3) || e.ID == id(3) && e.Base != "" {
			t.Errorf("asked for %+v", e)
		}
	}
}

// With a mesh's part that is no worse than the site's own, both go in together.
func TestTheMeshGoesInWithWhatASiteLearns(t *testing.T) {
	s := newSite(t)
	s.promoted(1, lifecycle.Local)
	s.counts[id(2)] = lifecycle.Count{Alarms: 5, Known: 1, Detected: 49}
	s.counts[id(3)] = lifecycle.Count{Alarms: 5, Known: 1, Detected: 48}
	s.do(s.m.Propose(s.now, meshed(2, 3, lifecycle.Local)))
	for range 2 {
		s.pass(id(2))
	}
	if s.roles.Active != id(2) || s.roles.Champion != id(3) {
		t.Errorf("%+v", s.roles)
	}
	if _, err := s.m.Model(id(3)); err == nil {
		t.Error("its own part was tried too")
	}
}

// Each allowance alone lets a model of rounds pass; both together are more than a
// point. The same model of the site's own passes.
func TestAModelOfRoundsIsNotWorseInAll(t *testing.T) {
	for _, x := range []struct {
		alarms, detected int
		passes           bool
	}{{5, 40, true}, {10, 40, true}, {11, 40, false}, {5, 39, false}, {9, 39, false}, {10, 41, true}} {
		s := newSite(t)
		o := options()
		o.Worse = 0.01
		s.m = lifecycle.New(o)
		s.promoted(1, lifecycle.Local)
		s.counts[id(2)] = lifecycle.Count{Alarms: x.alarms, Known: 1, Detected: x.detected}
		s.do(s.m.Propose(s.now, meshed(2, 1, lifecycle.Round)))
		if got := s.roles.Shadow == id(2); got != x.passes {
			t.Errorf("%d alarms, %d detected: passed %v: %s", x.alarms, x.detected, got, s.last(id(2)).Why)
		}
	}
}
