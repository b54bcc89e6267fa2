package learner_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// The offices that the model was designed on say what it can do at best; only
// the fresh ones, which no choice was made on, say what it does. There, trained
// on some 750 normal flows and nothing else, it sees scans and spurts at once
// at p < 0.001, about the finest level that so few flows can tell apart. Brute
// force and beacons rank above almost all normal flows (AUC), but mostly not
// beyond that level: it takes persistence, some per cent of false alarms, or
// the attack part, to catch them.
//
// A flow is scored some four times, so p < 0.001 is to alarm on one normal flow
// in 250. That claim must hold within a factor of two over the fresh offices.
// It does not in each: where an office has a kind of session that its first
// hour did not show, each flow of it is one more alarm of the same cause.
func TestSelfSeesAttacksItNeverMet(t *testing.T) {
	slow(t)
	designed, fresh := []uint64{1, 2, 3}, []uint64{21, 22, 23, 24}
	for _, seed := range designed {
		judge(t, "designed on", seed)
	}
	var alarms, normals int
	for _, seed := range fresh {
		n, of := judge(t, "fresh", seed)
		alarms, normals = alarms+n, normals+of
	}
	if claimed := 4 * level * float64(normals); float64(alarms) > 2*claimed {
		t.Errorf("%d alarms on %d normal flows of fresh offices at p < %g: claimed are %.0f", alarms, normals, level, claimed)
	}
}

// level is the p-value under which a score counts as an alarm here.
const level = 0.001

// judge tells how a model of one office does, and demands what holds for all.
func judge(t *testing.T, what string, seed uint64) (alarms, normals int) {
	t.Helper()
	d := someDay(t)
	if seed != 2 {
		var err error
		if d, err = makeDay(seed, false); err != nil {
			t.Fatal(err)
		}
	}
	work := flows(d.model, d.after, "normal")
	alarms, _ = below(work, level)
	wrong, of := causes(d.model, d.after, "normal", level), causes(d.model, d.after, "normal", 2)
	t.Logf("office %d (%s): trained on %d flows (%d vectors) in %v; at p < %g alarms on %d of %d normal flows, of %d of %d causes",
		seed, what, d.flows, len(d.normal), d.trained.Round(time.Millisecond), level, alarms, len(work), wrong, of)
	for _, kind := range kindsOfAttack {
		p := flows(d.model, d.after, kind)
		caught, first := below(p, level)
		at := make([]int, 3)
		for i, share := range []float64{0.001, 0.01, 0.05} {
			at[i], _ = below(p, quantile(work, share))
		}
		_, late := below(p, quantile(work, 0.05))
		area := auc(p, work)
		t.Logf("  %-6s caught %d of %d, first was number %d; AUC %.4f; at 0.1/1/5 %% false alarms: %v", kind, caught, len(p), first, area, at)
		if obvious := kind == "scan" || kind == "spurt"; obvious && (first < 0 || first > 10) {
			t.Errorf("office %d: %s: first caught was flow %d: expected by the tenth", seed, kind, first)
		}
		if area < 0.98 || late < 0 || late > 10 {
			t.Errorf("office %d: %s: AUC %.4f, first above all but 5 %% of normal was flow %d", seed, kind, area, late)
		}
	}
	return alarms, len(work)
}

// quantile is the level-quantile of p-values: flows under it are the given share.
func quantile(p []float64, level float64) float64 {
	s := sorted(p)
	return s[int(level*float64(len(s)))]
}

// swap makes feature i known in the one of two that lacks it, and in it alone.
func swap(a, b *feature.Mask, i int) {
	if a.Has(i) {
		a, b = b, a
	}
	a.Add(i)
	b.Remove(i)
}

// Control: when each feature is shuffled among the normal vectors, they keep
// every single feature's distribution and lose what belongs together. A model
// of that must lose the attacks that are odd only as a whole.
func TestShuffledNormalTeachesLess(t *testing.T) {
	if raced {
		t.Skip("measures, and in one goroutine: run without -race")
	}
	d := someDay(t)
	mixed := append([]feature.Vector(nil), d.normal...)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range feature.Dim {
		rng.Shuffle(len(mixed), func(a, b int) {
			mixed[a].X[i], mixed[b].X[i] = mixed[b].X[i], mixed[a].X[i]
			if one, other := &mixed[a].Has, &mixed[b].Has; one.Has(i) != other.Has(i) {
				swap(one, other, i)
			}
		})
	}
	m, err := learner.Train(t.Context(), learner.Config{Seed: 1}, nil, mixed, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Scans, guesses and spurts are odd in single features already; they tell nothing here.
	real, _ := below(flows(d.model, d.after, "beacon"), level)
	control, _ := below(flows(m, d.after, "beacon"), level)
	if t.Logf("beacon: caught %d, by the control %d", real, control); real < 8 || control > real/4 {
		t.Errorf("beacon: caught %d, by the control %d: expected at least 8, and at most a quarter of that", real, control)
	}
}

// Control: a classifier that is taught as many attacks, but normal vectors drawn
// by lot, learns nothing of use. (A lot over all vectors would now and then
// draw a true one, and a few true ones are enough to learn from.)
func TestShuffledLabelsTeachNothing(t *testing.T) {
	slow(t)
	d := someDay(t)
	rng := rand.New(rand.NewPCG(3, 4))
	pool := append([]feature.Vector(nil), d.normal...)
	rng.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
	var wrong []learner.Example
	for _, v := range pool[:60] {
		wrong = append(wrong, learner.Example{V: v})
	}
	right := examples(d.after, "beacon")
	good, err := learner.Train(t.Context(), learner.Config{Seed: 1}, d.model, d.normal, right[:len(right)/2])
	if err != nil {
		t.Fatal(err)
	}
	bad, err := learner.Train(t.Context(), learner.Config{Seed: 1}, d.model, d.normal, wrong)
	if err != nil {
		t.Fatal(err)
	}
	s := learner.NewScratch()
	later := right[len(right)/2:]
	count := func(m *learner.Model, level float64) (n int) {
		for i := range later {
			if m.Score(&later[i].V, s).PAttack < level {
				n++
			}
		}
		return n
	}
	// The strict level of the other tests is out of the attack part's reach in
	// some offices (it is logged, not required): a few normal flows that look
	// like the attack stretch the tail that it is measured by.
	g, b := count(good, 0.001), count(bad, 0.001)
	t.Logf("of %d later beacon vectors the attack part caught %d at p < 0.001 and %d at p < %.3g; with labels by lot %d and %d",
		len(later), g, count(good, alpha), alpha, b, count(bad, alpha))
	if g <= len(later)/2 || b > 2 {
		t.Errorf("caught %d of %d, with labels by lot %d", g, len(later), b)
	}
}

// The features that an explanation names are what makes the score: put at
// normal's values, they take more of it away than as many features by lot.
func TestExplanationNamesWhatMatters(t *testing.T) {
	slow(t)
	d := someDay(t)
	s := learner.NewScratch()
	rng := rand.New(rand.NewPCG(5, 6))
	want := map[string][]string{
		"scan":   {"outbound", "inbound", "reset", "port_", "contact_", "host_", "answered", "hops", "known_", "proven"},
		"brute":  {"pair_", "contact_", "inbound", "outbound", "fin", "ended", "host_", "known_"},
		"beacon": {"contact_", "upload_share", "peer_out", "size_", "known_", "pair_", "host_"},
		"spurt":  {"port_", "peer_out", "payload_out", "bytes_out", "packets", "rate_out", "contact_", "known_", "size_"},
	}
	for _, kind := range kindsOfAttack {
		var named, lot float64
		n := 0
		for _, x := range d.after {
			if x.label != kind || d.model.Score(&x.v, s).P >= 0.01 {
				continue
			}
			c := d.model.Explain(&x.v, s)
			checkWeights(t, c)
			if n == 5 {
				t.Logf("%s: %s; %s; %s", kind, c[0].Words, c[1].Words, c[2].Words)
			}
			if !names(c[:3], want[kind]) {
				t.Errorf("%s: explanation names %s, %s, %s: expected one of %v", kind, c[0].Name, c[1].Name, c[2].Name, want[kind])
			}
			before := d.model.Score(&x.v, s).Self
			named += before - d.model.Score(without(x.v, c, []int{0, 1, 2, 3, 4}), s).Self
			lot += before - d.model.Score(without(x.v, c, rng.Perm(len(c))[:5]), s).Self
			n++
		}
		if n == 0 || named <= 1.5*lot || named <= 0 {
			t.Errorf("%s: deleting the five named features takes %.2f, five by lot %.2f, over %d vectors", kind, named, lot, n)
		}
	}
}

// without puts the chosen contributions' features at their normal values.
func without(v feature.Vector, c []learner.Contribution, which []int) *feature.Vector {
	for _, k := range which {
		if k < len(c) {
			i := c[k].Feature
			v.X[i] = feature.Scaled(i, c[k].Normal)
			if !c[k].Usual {
				v.X[i] = 0
				v.Has.Remove(i)
			}
		}
	}
	return &v
}

func names(c []learner.Contribution, want []string) bool {
	for _, x := range c {
		for _, w := range want {
			if strings.HasPrefix(x.Name, w) {
				return true
			}
		}
	}
	return false
}

func checkWeights(t *testing.T, c []learner.Contribution) {
	t.Helper()
	var sum float64
	for i, x := range c {
		sum += x.Weight
		if !(x.Weight > 0) || i > 0 && x.Weight > c[i-1].Weight || x.Name == "" || x.Words == "" {
			t.Fatalf("contribution %d: %+v", i, x)
		}
	}
	if sum < 0.999999 || sum > 1.000001 {
		t.Fatalf("weights sum to %v", sum)
	}
}
