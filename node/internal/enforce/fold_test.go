package enforce

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Many causes that only the model of normal finds become a handful of incidents
// and one that acts on nothing; what looks like a confirmed attack is told by
// itself all the same, and so are new causes later.
func TestManyCausesAreFolded(t *testing.T) {
	m := machine(Options{Mode: dataplane.Enforce, Burst: 4, Every: time.Hour})
	incidents := map[string]bool{}
	rules, folded, events := 0, "", 0
	see := func(now time.Time, i int, j Judgement) string {
		f := fl{id: uint64(i + 1), from: fmt.Sprintf("10.0.0.%d:40000", 1+i%9), to: fmt.Sprintf("203.0.113.%d:443", 1+i), validated: true, kind: dataplane.EventMilestone}
		fx, id := m.Flow(now, f.event(), j, why)
		incidents[id] = true
		for len(fx) > 0 {
			x := fx[0]
			fx = fx[1:]
			switch {
			case x.Ask != nil:
				fx = append(fx, m.Answer(now, x.Ask.Incident, nil)...)
			case x.Apply != nil && len(incidents) > 4:
				rules++
			case x.Emit != nil && x.Emit.Incident != nil && x.Emit.Incident.Cause == manyCauses:
				folded = x.Emit.Incident.Sentence
				events++
			}
		}
		return id
	}
	for i := range 60 {
		see(t0, i, odd)
	}
	if len(incidents) != 5 || rules != 0 {
		t.Errorf("%d incidents, %d rules for what was folded: expected a burst of 4 and one for all others, and none", len(incidents), rules)
	}
	if !strings.Contains(folded, "32 flows of 9 hosts") || events > 8 {
		t.Errorf("told %d times, last %q", events, folded)
	}
	known := odd
	known.Detector = "attack"
	if id := see(t0, 70, known); len(incidents) != 6 || m.byID[id].cause == manyCauses {
		t.Error("what looks like an attack that was learnt was folded")
	}
	if id := see(t0.Add(2*time.Hour), 71, odd); m.byID[id].cause == manyCauses {
		t.Error("two hours later a new cause is still folded")
	}
	var many string
	for id := range incidents {
		if m.byID[id].cause == manyCauses {
			many = id
		}
	}
	if _, err := m.Dismiss(t0, many); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		see(t0.Add(2*time.Hour), 80+i, odd)
	}
	if n := m.incidents[manyCauses].alerts; n > 60 {
		t.Errorf("a change that the operator called harmless is told again (%d)", n)
	}
}
