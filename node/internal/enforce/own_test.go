package enforce

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// own is a verdict of the plane's scorer on a flow to a service outside.
func own(id int, outcome dataplane.Outcome) *dataplane.Event {
	f := fl{id: uint64(id), from: fmt.Sprintf("10.0.0.5:%d", 40000+id), to: "203.0.113.9:443", validated: true, kind: dataplane.EventVerdict}
	ev := f.event()
	ev.At, ev.Mode = t0.UnixNano(), dataplane.Enforce
	ev.Verdict = &dataplane.Verdict{Model: [32]byte{0xab, 0xcd}, Version: 3, Milestone: 1, Score: 70, Action: score.Suspend, Outcome: outcome}
	if outcome == dataplane.Acted {
		ev.Verdict.Until = t0.Add(30 * time.Second).UnixNano()
	}
	return ev
}

type toldOf struct {
	alerts, verdicts []*event.Event
	drops            int
	removed, applied int
}

func tell(fx []Effect) (o toldOf) {
	for _, f := range fx {
		switch {
		case f.Emit != nil && f.Emit.Alert != nil:
			o.alerts = append(o.alerts, f.Emit)
		case f.Emit != nil && f.Emit.Verdict != nil && f.Emit.Verdict.FirstDropNS != 0:
			o.drops++
		case f.Emit != nil && f.Emit.Verdict != nil:
			o.verdicts = append(o.verdicts, f.Emit)
		case f.Remove != nil:
			o.removed++
		case f.Apply != nil:
			o.applied++
		}
	}
	return o
}

func TestOwnVerdictBecomesAnIncident(t *testing.T) {
	m := machine(Options{Mode: dataplane.Enforce})
	fx, id := m.Decided(t0, own(1, dataplane.Acted), usual, why)
	o := tell(fx)
	if id == "" || len(o.alerts) != 1 || len(o.verdicts) != 1 || o.drops != 1 || o.applied != 0 || o.removed != 0 {
		t.Fatalf("incident %q, told %+v: expected an alert, a verdict and its first drop, and no rule", id, o)
	}
	a, v := o.alerts[0].Alert, o.verdicts[0].Verdict
	if a.Detector != "kernel" || len(a.Reasons) != 1 || !strings.Contains(a.Sentence, "sent 3 MB") || a.P != usual.P {
		t.Errorf("alert %+v: expected the model's explanation", a)
	}
	if !strings.HasPrefix(v.Scorer, "abcd00") || v.ScorerVersion != 3 || v.Action != "suspend" || v.Incident != id ||
		v.DetectedNS != t0.UnixNano() || v.EnforcedNS != t0.UnixNano() || !v.Expires.Equal(t0.Add(30*time.Second)) {
		t.Errorf("verdict %+v", v)
	}
	// It is told once for a hold; who dismisses it frees the flow, and later ones.
	if o := tell(first(m.Decided(t0, own(1, dataplane.Acted), usual, why))); len(o.alerts) != 0 {
		t.Errorf("told again: %+v", o)
	}
	fx, err := m.Dismiss(t0, id)
	if err != nil || tell(fx).removed != 1 {
		t.Errorf("%v: dismissed, and %d flows were freed", err, tell(fx).removed)
	}
	if o := tell(first(m.Decided(t0, own(2, dataplane.Acted), usual, why))); o.removed != 1 || len(o.alerts) != 0 {
		t.Errorf("a dismissed cause again: %+v: expected the flow to be freed", o)
	}
}

func first(fx []Effect, _ string) []Effect { return fx }

// However many flows the scorer is against, a block takes what the model finds.
func TestOwnVerdictsDoNotBlock(t *testing.T) {
	m := machine(Options{Mode: dataplane.Enforce})
	for i := range 20 {
		if o := tell(first(m.Decided(t0, own(i, dataplane.Acted), odd, why))); o.applied != 0 {
			t.Fatalf("flow %d: a rule was made: %+v", i, o)
		}
	}
	if n := len(m.Standing()); n != 0 {
		t.Errorf("%d rules stand", n)
	}
}

func TestOwnVerdictsOutcomes(t *testing.T) {
	refuse := errors.New("a service that this site needs")
	for outcome, c := range map[dataplane.Outcome]struct {
		may                   error
		told, alerts, removed int
		says                  string
		noIncident            bool
	}{
		dataplane.Shadowed:  {noIncident: true},
		dataplane.Spared:    {told: 1, says: "never-block"},
		dataplane.Monitored: {told: 1, alerts: 1, says: "by scorer abcd0000"},
		dataplane.Crowded:   {told: 1, alerts: 1, says: "by scorer abcd0000"},
		dataplane.Acted:     {may: refuse, told: 1, removed: 1, says: "would suspend, but: a service"},
	} {
		m := machine(Options{Mode: dataplane.Enforce, May: func(time.Time, dataplane.Rule) error { return c.may }})
		fx, id := m.Decided(t0, own(1, outcome), usual, why)
		o := tell(fx)
		if (id == "") != c.noIncident || len(o.verdicts) != c.told || len(o.alerts) != c.alerts || o.removed != c.removed {
			t.Errorf("%s: incident %q, %+v", outcome, id, o)
		} else if c.told > 0 && !strings.Contains(o.verdicts[0].Verdict.Sentence, c.says) {
			t.Errorf("%s: says %q: expected %q", outcome, o.verdicts[0].Verdict.Sentence, c.says)
		}
	}
}

// A panic lets go of what the plane still reports to hold.
func TestOwnVerdictInAPanic(t *testing.T) {
	m := machine(Options{Mode: dataplane.Enforce})
	m.Panic(t0, true)
	if fx, id := m.Decided(t0, own(1, dataplane.Acted), usual, why); id != "" || tell(fx).removed != 1 {
		t.Errorf("incident %q, %+v: expected the flow to be freed", id, tell(fx))
	}
}
