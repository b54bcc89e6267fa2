package enforce

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Independent normal flows almost never reach the limit, whatever the cause
// they belong to; a cause whose flows are all a little unusual does within a few.
func TestSequenceTellsPersistenceFromChance(t *testing.T) {
	q := newSequences()
	rng := rand.New(rand.NewPCG(1, 2))
	reached := 0
	const flows = 400_000
	for i := range uint64(flows) {
		cause := fmt.Sprint(rng.IntN(500))
		same := rng.Float64()
		for look := range 4 {
			p := same
			if i%2 == 0 {
				p = rng.Float64()
			}
			if _, yes := q.judge(cause, i, Judgement{P: p}, look == 3); yes {
				reached++
			}
		}
	}
	// 1.2e-5 a flow is the bound, for independent looks and for equal ones.
	if reached > 12 {
		t.Fatalf("%d of %d normal flows reached the limit", reached, flows)
	}
	for _, c := range []struct {
		p     float64
		flows int
	}{{1e-2, 8}, {3e-3, 5}, {1e-3, 4}} {
		n := 0
		for i := range 100 {
			if _, yes := q.judge("beacon", uint64(flows+i), Judgement{P: c.p}, true); yes {
				n = i + 1
				break
			}
		}
		q.forget("beacon")
		if n == 0 || n > c.flows {
			t.Errorf("p %g each: reached with flow %d, want by %d", c.p, n, c.flows)
		}
	}
}

// The part of the model that gave most to a climb is named as its detector.
func TestSequenceNamesThePart(t *testing.T) {
	q := newSequences()
	for i := range uint64(20) {
		j := Judgement{P: 2e-3, Detector: "attack"}
		if i%4 == 3 {
			j = Judgement{P: 3e-2, Detector: "self"}
		}
		if r, yes := q.judge("beacon", i, j, true); yes {
			if r.part != "attack" || r.flows < 4 {
				t.Fatalf("climb %+v, want one of the attack part over several flows", r)
			}
			return
		}
	}
	t.Fatal("the limit was never reached")
}

func TestSequenceMemoryIsBounded(t *testing.T) {
	q := newSequences()
	for i := range uint64(3 * maxLooking) {
		q.judge(fmt.Sprint(i), i, Judgement{P: 0.5}, false)
	}
	if len(q.causes) > maxCauses || len(q.order) > maxCauses || len(q.looking) > maxLooking {
		t.Fatalf("%d causes, %d open flows", len(q.causes), len(q.looking))
	}
}

// A cause that is persistently a little unusual is blocked without a single flow
// below alpha; the alert says how many flows it took.
func TestPersistentlyUnusualCauseIsBlocked(t *testing.T) {
	m := machine(Options{Alpha: 1e-5})
	slightly := Judgement{Judged: true, P: 2e-3, Detector: "self", Model: "m1"}
	var said string
	for i := range 10 {
		f := fl{id: uint64(i + 1), from: fmt.Sprintf("10.0.0.3:%d", 4000+i), to: "198.51.100.7:443", validated: true, kind: dataplane.EventEnd}
		fx, id := m.Flow(t0, f.event(), slightly, why)
		said += say(fx)
		said += say(m.Answer(t0, id, nil))
		for _, e := range fx {
			if e.Emit != nil && e.Emit.Alert != nil && !strings.Contains(e.Emit.Alert.Sentence, "flows of this kind in a row") {
				t.Fatalf("sentence %q does not tell of the sequence", e.Emit.Alert.Sentence)
			}
		}
	}
	if !strings.Contains(said, "apply block 198.51.100.7:443/tcp") {
		t.Fatalf("ten unusual flows led to:\n%s", said)
	}
}
