package enforce

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// knock is a connection of an inside host that got nothing, at a time.
func knock(t *testing.T, s *Sensor, m *Machine, host string, i int, at time.Duration) ([]Effect, string) {
	t.Helper()
	f := fl{id: uint64(i + 1), from: host + ":40000", to: fmt.Sprintf("203.0.%d.%d:445", i/200, 1+i%200), kind: dataplane.EventEnd}
	ev := f.event()
	ev.Record.Start, ev.Record.Last = int64(at)+1e18, int64(at)+1e18
	ev.Record.Dir[1].Packets, ev.Record.Dir[1].Payload = 0, 0
	j, _ := s.Judge(ev)
	return m.Flow(t0.Add(at), ev, j, nil)
}

// A host that tries an address a minute looks harmless flow by flow and minute by
// minute. Over an hour it does not, without any model; and it is told of and nothing more.
func TestTooMuchIsToldAndNothingMore(t *testing.T) {
	s, err := NewSensor(feature.ContextOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	m := machine(Options{Mode: dataplane.Enforce, Rules: true})
	var id, said string
	told := 0
	for i := range 120 {
		fx, in := knock(t, s, m, "10.0.0.7", i, time.Duration(i)*time.Minute)
		if in != "" {
			id = in
		}
		for _, x := range fx {
			switch {
			case x.Emit == nil:
				t.Fatalf("more than told: %+v", x)
			case x.Emit.Alert != nil:
				told++
				if !ByLimit(x.Emit.Alert.Detector) || !ByRule(x.Emit.Alert.Detector) || m.Attack(x.Emit.Alert.Incident) {
					t.Errorf("by %s", x.Emit.Alert.Detector)
				}
				if said == "" {
					said = x.Emit.Alert.Sentence
				}
			}
		}
	}
	if id == "" || told == 0 || told > 8 || !strings.Contains(said, "10.0.0.7 got nothing at about 31 different") || !strings.Contains(said, "within an hour; the limit is 30") {
		t.Errorf("%d alerts, the first: %q", told, said)
	}
	if _, err := m.Confirm(t0.Add(2*time.Hour), id); err != nil || len(m.Rules()) != 0 {
		t.Errorf("confirmed: %v, %d rules", err, len(m.Rules()))
	}
	// What a person calls harmless may go on for a month.
	if _, err := m.Dismiss(t0.Add(2*time.Hour), id); err != nil {
		t.Fatal(err)
	}
	for _, from := range []time.Duration{3 * time.Hour, 48 * time.Hour} {
		for i := range 120 {
			if fx, in := knock(t, s, m, "10.0.0.7", i, from+time.Duration(i)*time.Minute); len(fx) != 0 || in != "" {
				t.Fatalf("told of %s later: %+v", from, fx)
			}
		}
	}
	again := false
	for i := range 120 {
		fx, _ := knock(t, s, m, "10.0.0.7", i, 33*24*time.Hour+time.Duration(i)*time.Minute)
		again = again || len(fx) > 0
	}
	if !again {
		t.Error("not told of after a month")
	}
}

// The switch of the counting rules is theirs too.
func TestLimitsCanBeSwitchedOff(t *testing.T) {
	s, err := NewSensor(feature.ContextOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	m := machine(Options{Mode: dataplane.Enforce})
	for i := range 120 {
		if fx, in := knock(t, s, m, "10.0.0.7", i, time.Duration(i)*time.Minute); len(fx) != 0 || in != "" {
			t.Fatalf("told: %+v", fx)
		}
	}
}

// Many hosts that do too much, one after the other, are few incidents, and one for the rest.
func TestMuchOfManyIsFolded(t *testing.T) {
	s, err := NewSensor(feature.ContextOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	m := machine(Options{Mode: dataplane.Enforce, Rules: true, Burst: 4, Every: 5 * time.Hour})
	ids, folded := map[string]bool{}, false
	for host := range 30 {
		for i := range 60 {
			fx, in := knock(t, s, m, fmt.Sprintf("10.0.0.%d", 1+host), i, time.Duration(host)*2*time.Minute+time.Duration(i)*time.Second)
			if in != "" {
				ids[in] = true
			}
			for _, x := range fx {
				if x.Emit == nil {
					t.Fatalf("more than told: %+v", x)
				}
				folded = folded || x.Emit.Incident != nil && x.Emit.Incident.Cause == manyCauses
			}
		}
	}
	if len(ids) > 5 || !folded {
		t.Errorf("%d incidents, folded %v: expected a burst of 4, and one for the others", len(ids), folded)
	}
}
