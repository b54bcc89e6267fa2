package node

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

func memory(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open("", store.Options{InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var hidden = PrivacyOptions{Unit: PrivacyFlow, Epsilon: 2, Delta: 1e-6, Clip: 0.1, Noise: 4}

func discreet(t *testing.T, o PrivacyOptions, s *store.Store) *discretion {
	t.Helper()
	d, err := newDiscretion(o, s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// What was charged outlives the process, to the last digit, and nothing is
// charged beyond the budget.
func TestABudgetIsKept(t *testing.T) {
	s := memory(t)
	d := discreet(t, hidden, s)
	if v := d.view(); v.Spent != 0 || v.Left != -1 || !strings.Contains(v.Words, "epsilon 0.00 of 2") {
		t.Errorf("at first: %+v", v)
	}
	rounds := 0
	for ; rounds < 100; rounds++ {
		left := d.left
		first, err := d.charge(0.02, 1000)
		if err != nil {
			if !first || !errors.Is(err, errSpent) || left != 0 {
				t.Fatalf("after %d rounds, %d left: %v, first %v", rounds, left, err, first)
			}
			break
		}
		if left >= 0 && d.left != left-1 {
			t.Fatalf("round %d: %d left after %d", rounds, d.left, left)
		}
		next := discreet(t, hidden, s)
		if a, b := d.view(), next.view(); a.Spent != b.Spent || a.Rounds != b.Rounds || a.Spent > 2 || a.Rounds != uint64(rounds+1) {
			t.Fatalf("round %d: %+v became %+v", rounds, a, b)
		}
		next.left = d.left
		d = next
	}
	if rounds == 0 || rounds == 100 {
		t.Fatalf("%d rounds", rounds)
	}
	d = discreet(t, hidden, s) // another process does not say it again
	if first, err := d.charge(0.02, 1000); first || !errors.Is(err, errSpent) || !strings.Contains(d.view().Words, "spent") {
		t.Errorf("again: first %v, %v, %s", first, err, d.view().Words)
	}
	more := hidden
	more.Epsilon = 3
	if _, err := discreet(t, more, s).charge(0.02, 1000); err != nil {
		t.Errorf("a higher budget: %v", err)
	}
}

func TestAnAccountThatIsDamagedOrCannotBeStored(t *testing.T) {
	s := memory(t)
	if err := s.Save(keyPrivacy, []byte{0, 3, 9, 9}); err != nil {
		t.Fatal(err)
	}
	d := discreet(t, hidden, s)
	if first, err := d.charge(0.02, 1); !first || !errors.Is(err, errSpent) || !strings.Contains(d.view().Words, "cannot be read") {
		t.Errorf("damaged: first %v, %v, %s", first, err, d.view().Words)
	}
	if _, err := newDiscretion(PrivacyOptions{Unit: "site"}, s); err == nil || !strings.Contains(err.Error(), "off, flow or host") {
		t.Errorf("unit: %v", err)
	}
	if v := discreet(t, PrivacyOptions{}, s).view(); v != nil {
		t.Errorf("off: %+v", v)
	}
	d = discreet(t, hidden, memory(t))
	full := errors.New("disk is full")
	d.keep = func([]byte) error { return full }
	if _, err := d.charge(0.02, 1000); !errors.Is(err, full) || d.view().Spent != 0 || d.rounds != 0 {
		t.Errorf("not stored: %v, %+v", err, d.view())
	}
}

// noisyVectors are known normal traffic: every number is known, and like no other.
func noisyVectors(n int) []feature.Vector {
	rng := rand.New(rand.NewPCG(7, 7))
	out := make([]feature.Vector, n)
	for i := range out {
		out[i].Has = feature.All()
		for k := range out[i].X {
			out[i].X[k] = float32(0.2 + 0.6*rng.Float64())
		}
		out[i].X[feature.Index("ended")] = 1
	}
	return out
}

// teach puts finished flows of some hosts into a site's pool.
func (x *learned) teach(flows, hosts int) {
	x.learn.mu.Lock()
	defer x.learn.mu.Unlock()
	x.learn.first = x.now
	at := feature.Index("ended")
	for i := range flows {
		v := x.ordinary()
		v.X[at], v.Has = 1, v.Has.Or(feature.All())
		x.learn.pool.Add(x.now, &v, uint64(1+i%hosts), uint64(1+i%50), uint64(1+i%9))
	}
	x.now = x.now.Add(2 * x.o.Learner.Wait)
}

// A site with a budget for one update sends one, says once that it is spent, and
// is silent in later rounds.
func TestASpentSiteIsSilent(t *testing.T) {
	x := newLearned(t)
	x.slow()
	x.o.Privacy = hidden
	x.o.Privacy.Epsilon = 8
	x.restart()
	x.teach(400, 20)
	for i := range 8 {
		v := x.ordinary()
		v.X[0] = 1
		x.learn.attacks = append(x.learn.attacks, labelled{learner.Example{V: v, Weight: 1}, "i" + string(rune('0'+i))})
	}
	base := learner.InitShared(sharedSeed)
	p, n, err := x.learn.Train(t.Context(), 1, base)
	if err != nil || n != privateBatch*sharedSteps || slices.Equal(p, base) {
		t.Fatalf("first round: %d examples, %v", n, err)
	}
	for range 3 {
		if _, _, err := x.learn.Train(t.Context(), 2, base); !errors.Is(err, federation.ErrAbstains) || !strings.Contains(err.Error(), "epsilon") {
			t.Errorf("a spent site: %v", err)
		}
	}
	told := 0
	for _, j := range x.outbox.drain() {
		if j.emit != nil && j.emit.Model != nil && strings.Contains(j.emit.Model.Why, "sends no more changes") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("it was said %d times", told)
	}
	st, err := x.Status(t.Context())
	if err != nil || st.Privacy == nil || st.Privacy.Rounds != 1 || !strings.Contains(st.Privacy.Words, "nothing more is sent") {
		t.Errorf("status: %+v, %v", st.Privacy, err)
	}
}

func TestUnitsThatAreHidden(t *testing.T) {
	x := newLearned(t)
	x.o.Privacy = hidden
	x.restart()
	x.teach(300, 20)
	x.see(50) // reports of flows that go on
	x.now = x.now.Add(2 * x.o.Learner.Wait)
	if u := x.learn.units(); len(u) != 300 || slices.ContainsFunc(u, func(vs []feature.Vector) bool { return len(vs) != 1 }) {
		t.Errorf("%d flows ended, of 300", len(u))
	}
	x.o.Privacy.Unit = PrivacyHost
	x.restart()
	x.teach(300, 20)
	u := x.learn.units()
	if len(u) != 20 || slices.ContainsFunc(u, func(vs []feature.Vector) bool { return len(vs) != 15 }) {
		t.Errorf("%d hosts of 20", len(u))
	}
	if _, _, err := x.learn.trainPrivately(t.Context(), learner.InitShared(1), nil); err == nil || !strings.Contains(err.Error(), "20 units (hosts)") {
		t.Errorf("20 hosts: %v", err)
	}
}
