package enforce

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// While the operator's budget of false blocks is spent, what only the learner
// found is not blocked; it is told once, and a person who confirms it blocks it.
// What a counting rule found is blocked all the same.
func TestHeldBlockWaitsForAPerson(t *testing.T) {
	held := errors.New("too many false blocks")
	m := machine(Options{Mode: dataplane.Enforce, Hold: func(time.Time) error { return held }})
	told, blocks, id := 0, 0, ""
	take := func(fx []Effect) {
		for len(fx) > 0 {
			f := fx[0]
			fx = fx[1:]
			switch {
			case f.Ask != nil:
				fx = append(fx, m.Answer(t0, f.Ask.Incident, nil)...)
			case f.Emit != nil && f.Emit.Verdict != nil && strings.Contains(f.Emit.Verdict.Sentence, held.Error()):
				told++
			case f.Apply != nil && f.Apply.Rule.Action == dataplane.Block:
				blocks++
			}
		}
	}
	for i := range 6 {
		f := fl{id: uint64(i + 1), from: fmt.Sprintf("10.0.0.5:%d", 40000+i), to: "203.0.113.9:443", validated: true, kind: dataplane.EventMilestone}
		fx, in := m.Flow(t0, f.event(), odd, why)
		id = in
		take(fx)
	}
	if blocks != 0 || told != 1 {
		t.Fatalf("%d blocks, told %d times: expected none, and told once", blocks, told)
	}
	fx, err := m.Confirm(t0, id)
	if err != nil {
		t.Fatal(err)
	}
	if take(fx); blocks != 1 {
		t.Errorf("%d blocks after a person confirmed", blocks)
	}
}
