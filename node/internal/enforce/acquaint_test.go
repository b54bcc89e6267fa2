package enforce

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// talk is a finished conversation with the suspect, the nth of a test.
func talk(n uint64) fl {
	return fl{
		id: n, from: suspect + ":40000", to: "10.0.0.5:443", validated: true, kind: dataplane.EventEnd, end: flow.EndFIN,
		dirs: [2]flow.Dir{{Packets: 6, Payload: 500}, {Packets: 6, Payload: 900}},
	}
}

// deal lets the suspect talk as often as it takes, over as long as it takes.
func deal(m *Machine, from time.Time) (time.Time, []Effect) {
	var fx []Effect
	at := from
	for n := range uint64(wellMet) {
		at = from.Add(wellFor * time.Duration(n) / (wellMet - 1))
		more, _ := m.Flow(at, talk(1000+n).event(), usual, why)
		fx = append(fx, more...)
	}
	return at, fx
}

// TestProbationLetsEvidenceThrough: words alone leave the suspect more flows in a
// minute than any counting rule needs to see what it does, and more at once than a
// browser begins.
func TestProbationLetsEvidenceThrough(t *testing.T) {
	m := machine(Options{})
	fx, _ := m.Indicator(t0, Received{ID: "i", Author: "briar/gate", Value: suspect, Expires: t0.Add(time.Hour), Limit: true})
	r := fx[0].Apply.Rule
	if r.Action != dataplane.RateLimit || r.Rate < 6 {
		t.Fatalf("%+v", r)
	}
	for name, needed := range map[string]int{"scan": scanLimit, "guessing": guessLimit} {
		if seen := int(r.Rate) * int(ruleWindow/time.Second); seen < 4*needed {
			t.Errorf("%s needs %d flows in a window, and %d are let through", name, needed, seen)
		}
	}
	in := &incident{peer: mustTarget(t).Prefix.Addr()}
	if own := m.limit(t0, in)[0].Apply.Rule; own.Rate >= r.Rate {
		t.Errorf("what was seen here leaves %d flows a second, words alone %d", own.Rate, r.Rate)
	}
}

// TestWordsDoNotLimitTheWellMet: whom this site knows well is not limited on words of
// others alone, whichever came first, and is blocked when enough say so.
func TestWordsDoNotLimitTheWellMet(t *testing.T) {
	m := machine(Options{})
	at, _ := deal(m, t0)
	if fx, why := m.Indicator(at, Received{ID: "i", Author: "briar/gate", Value: suspect, Expires: at.Add(time.Hour), Limit: true}); fx != nil || why != acquainted {
		t.Fatalf("a limit of others: %s, %q", say(fx), why)
	}
	if fx, _ := m.Indicator(at, Received{ID: "i", Author: "briar/gate", Value: suspect, Expires: at.Add(time.Hour)}); fx == nil {
		t.Fatal("enough others for a block, and nothing was done")
	}

	m = machine(Options{})
	claimed(m, "briar/gate", true, time.Hour)
	_, fx := deal(m, t0)
	want(t, fx, "remove 203.0.113.9", "block 203.0.113.9 lifted")
	if bs := m.Standing(); len(bs) != 0 {
		t.Errorf("%+v stands", bs)
	}
}

// TestOwnWordsLimitWhoever: ours are believed whatever the dealings were.
func TestOwnWordsLimitWhoever(t *testing.T) {
	m := machine(Options{})
	at, _ := deal(m, t0)
	in := &incident{peer: mustTarget(t).Prefix.Addr()}
	if fx := m.limit(at, in); len(fx) == 0 || fx[0].Apply.Rule.Rate != 1 {
		t.Errorf("this site's own limit: %s", say(fx))
	}
}

// TestGoodDealingsAreNotForged: by nothing that a third party can send in its name
// does the suspect become, or cease to be, well met; one odd flow of its own ends it.
func TestGoodDealingsAreNotForged(t *testing.T) {
	p := partyOf(mustTarget(t))
	m := machine(Options{})
	for n := range uint64(10 * wellMet) {
		f := talk(n)
		switch n % 3 {
		case 0:
			f.validated = false
		case 1:
			f.dirs[1].Payload = 0
		case 2:
			f.kind = dataplane.EventMilestone
		}
		m.Flow(t0.Add(time.Duration(n)*time.Minute), f.event(), usual, why)
	}
	if d := m.known.of(p); d.n != 0 {
		t.Fatalf("%+v of conversations that were none", d)
	}
	at, _ := deal(m, t0)
	forged := talk(1)
	forged.validated = false
	m.Flow(at, forged.event(), odd, why)
	if !m.known.of(p).good(at) {
		t.Error("an odd flow in its name ended its good standing")
	}
	m.Flow(at, talk(2).event(), odd, why)
	if m.known.of(p).good(at) {
		t.Error("an odd flow of its own did not")
	}
}

// TestDealingsAtRandom: whatever comes in whatever order, words alone never limit who
// is well met, what they do is never more than probation, and memory is bounded.
func TestDealingsAtRandom(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 5))
		m := machine(Options{})
		at := t0
		for n := range uint64(400) {
			at = at.Add(time.Duration(rng.IntN(90)) * time.Second)
			switch f := talk(n); rng.IntN(40) {
			case 0:
				m.Flow(at, f.event(), odd, why)
			case 1:
				f.validated = false
				m.Flow(at, f.event(), odd, why)
			case 2, 3, 4:
				m.Indicator(at, Received{ID: "i", Author: "briar/gate", Value: suspect, Expires: at.Add(time.Hour), Limit: true})
			case 5:
				m.Withdrawn(at, "briar/gate", suspect)
			default:
				m.Flow(at, f.event(), usual, why)
			}
			m.Tick(at)
			good := m.known.of(partyOf(mustTarget(t))).good(at)
			for _, s := range m.standing {
				if s.onProbation() && (good || s.rule.Rate != probation) {
					t.Fatalf("seed %d, step %d: well met %v, yet %+v", seed, n, good, s.rule)
				}
			}
		}
	}
	a := newAcquaintances()
	for n := range 5 * maxWellMet {
		f := talk(0)
		f.from = fmt.Sprintf("203.%d.%d.9:40000", n/256, n%256)
		x, _, _, _ := targetOf(&f.event().Record)
		a.met(t0, partyOf(x))
	}
	if len(a.young) > maxWellMet || len(a.old) > maxWellMet {
		t.Errorf("%d and %d parties are remembered", len(a.young), len(a.old))
	}
}
