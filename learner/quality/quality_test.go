package quality

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// draw makes a report of an answered TCP flow of some payload; shift moves it.
func draw(rng *rand.Rand, at time.Time, shift float64) Item {
	it := Item{At: at, Seen: at, Key: rng.Uint64() | 1, Host: rng.Uint64N(20), Final: true, Class: Normal}
	set := func(name string, x float64) {
		i := feature.Index(name)
		it.V.X[i] = float32(min(1, max(0, x)))
		it.V.Has.Add(i)
	}
	set("tcp", 1)
	set("packets_out", 0.3+0.05*rng.NormFloat64()+shift)
	set("packets_in", 0.3+0.05*rng.NormFloat64()+shift)
	set("payload_out", 0.4+0.1*rng.NormFloat64()+shift)
	set("duration", 0.2+0.1*rng.Float64()+shift)
	set("tls", float64(rng.IntN(2)))
	return it
}

func window(t testing.TB, l Limits) *Window {
	t.Helper()
	w, err := NewWindow(l)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestVerdicts: each fault alone makes a window bad, with a reason that counts
// it, and without it the window is good.
func TestVerdicts(t *testing.T) {
	tcp, in := feature.Index("tcp"), feature.Index("packets_in")
	for name, c := range map[string]struct {
		change func(i int, it *Item)
		words  string // in the reason; "" is good
	}{
		"nothing":             {func(int, *Item) {}, ""},
		"few are invalid":     {func(i int, it *Item) { it.V.X[0] = nan(i == 7) }, ""},
		"NaN":                 {func(i int, it *Item) { it.V.X[tcp] = nan(i%50 == 0) }, "10 of 500 reports break the schema (feature tcp: NaN"},
		"twice":               {func(i int, it *Item) { it.Key = uint64(i/2 + 1) }, "250 of 500 reports were there before"},
		"clock goes back":     {func(i int, it *Item) { it.At = it.At.Add(-time.Duration(i%20/19) * time.Hour) }, "of 500 reports are older than what came before"},
		"clock is ahead":      {func(i int, it *Item) { it.At = it.At.Add(time.Duration(i%20/19) * 48 * time.Hour) }, "25 of 500 reports are of the future"},
		"one direction":       {func(i int, it *Item) { it.V.X[in] = 0 }, "500 of 500 TCP flows were heard from one side only"},
		"direction not known": {func(i int, it *Item) { it.V.X[in] = 0; it.V.Has.Remove(in) }, ""},
		"among attacks": {func(i int, it *Item) {
			it.Class = Unlabelled
			if i%2 == 0 {
				it.Class = Attack
			}
		}, "250 of 500 reports are of known attacks, and of 250 nobody said"},
		"labelled among attacks": {func(i int, it *Item) {
			if i%2 == 0 {
				it.Class = Attack
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			rng, w := rand.New(rand.NewPCG(1, 1)), window(t, Limits{})
			for i := range 500 {
				it := draw(rng, noon.Add(time.Duration(i)*time.Second), 0)
				if name != "few are invalid" {
					c.change(i, &it)
				} else if i == 7 {
					c.change(i, &it)
				}
				w.Add(noon.Add(time.Hour), &it)
			}
			rep := w.Judge(nil, nil)
			if rep.Offered != 500 || rep.Teaches() != (c.words == "") || !strings.Contains(rep.Words(), c.words) {
				t.Errorf("got %s: expected %q", rep.Words(), c.words)
			}
		})
	}
}

func nan(is bool) float32 {
	if is {
		return float32(math.NaN())
	}
	return 1
}

// TestRefusedOneByOne: what is invalid, of the future or known already is not in
// the window, nor is anything once it is full, and Drop takes out.
func TestRefusedOneByOne(t *testing.T) {
	rng, w := rand.New(rand.NewPCG(2, 2)), window(t, Limits{Size: 16})
	bad := draw(rng, noon, 0)
	bad.V.X[3] = 2
	late := draw(rng, noon.Add(time.Hour), 0)
	ok := draw(rng, noon, 0)
	if w.Add(noon, &bad) || w.Add(noon, &late) || !w.Add(noon, &ok) || w.Add(noon, &ok) || w.Len() != 1 {
		t.Fatalf("%d kept, expected the one that is right", w.Len())
	}
	next := w.Next()
	if again := ok; next.Add(noon, &again) {
		t.Error("the next window takes what the last one had")
	}
	if more := draw(rng, noon, 0); w.Add(noon, &more) || !w.Full() {
		t.Error("a window that was followed by another takes more")
	}
	for range 40 {
		it := draw(rng, noon, 0)
		it.Peer = uint64(next.Len() % 2)
		next.Add(noon, &it)
	}
	if next.Len() != 16 || !next.Full() {
		t.Errorf("%d in a window of 16", next.Len())
	}
	next.Drop(func(it *Item) bool { return it.Peer == 1 })
	if next.Len() != 8 {
		t.Errorf("%d left of 8", next.Len())
	}
}

func fill(t testing.TB, w *Window, rng *rand.Rand, n int, shift float64) *Window {
	t.Helper()
	for i := range n {
		it := draw(rng, noon.Add(time.Duration(i)*time.Second), shift)
		w.Add(noon.Add(24*time.Hour), &it)
	}
	return w
}

// TestDrift: the same traffic is good against its training, a moved input is a
// change that is named first, and inputs that hardly overlap are bad once and a
// change when they stay.
func TestDrift(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	ref := fill(t, window(t, Limits{}), rng, 800, 0).Reference()
	if rep := fill(t, window(t, Limits{}), rng, 800, 0).Judge(ref, nil); rep.Verdict != Good || len(rep.Drifted) != 0 || rep.Compared != feature.Dim {
		t.Errorf("the same traffic: %s", rep.Words())
	}
	moved := window(t, Limits{})
	for i := range 800 {
		it := draw(rng, noon.Add(time.Duration(i)*time.Second), 0)
		d := feature.Index("duration")
		it.V.X[d] = min(1, 2*it.V.X[d])
		moved.Add(noon.Add(24*time.Hour), &it)
	}
	rep := moved.Judge(ref, nil)
	if rep.Verdict != Changed || !rep.Teaches() || len(rep.Drifted) != 1 || rep.Drifted[0].Feature != "duration" || rep.Drifted[0].PSI < large {
		t.Errorf("longer flows: %s %+v", rep.Words(), rep.Drifted)
	}
	if !strings.Contains(rep.Drifted[0].Words, "duration is above") {
		t.Errorf("words: %s", rep.Drifted[0].Words)
	}
	// Of this traffic only a few inputs can move at all.
	strict := Limits{Torn: 0.04}
	other := fill(t, window(t, strict), rng, 800, 0.3)
	if rep := other.Judge(ref, nil); rep.Verdict != Bad || rep.Torn < 3 {
		t.Errorf("other traffic: %s, %d torn", rep.Words(), rep.Torn)
	}
	again := fill(t, window(t, strict), rng, 800, 0.3)
	if rep := again.Judge(ref, other.Reference()); rep.Verdict != Changed {
		t.Errorf("other traffic that stays: %s", rep.Words())
	}
	if rep := again.Judge(ref, ref); rep.Verdict != Bad {
		t.Errorf("other traffic after the old: %s", rep.Words())
	}
}

// TestBlindInputsAreNotCompared: what a log cannot give did not drift.
func TestBlindInputsAreNotCompared(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	ref := fill(t, window(t, Limits{}), rng, 400, 0).Reference()
	d := feature.Index("duration")
	run := func(blind feature.Mask) Report {
		w := window(t, Limits{})
		for i := range 400 {
			it := draw(rng, noon.Add(time.Duration(i)*time.Second), 0)
			it.V.X[d], it.Blind = 0, blind
			it.V.Has.Remove(d)
			w.Add(noon.Add(24*time.Hour), &it)
		}
		return w.Judge(ref, nil)
	}
	if rep := run(feature.Mask{}); rep.Verdict != Changed || !strings.Contains(rep.Words(), "duration is absent in 98 %") {
		t.Errorf("an input that went away: %s", rep.Words())
	}
	var only feature.Mask
	only.Add(d)
	if rep := run(only); rep.Verdict != Good || rep.Compared != feature.Dim-1 {
		t.Errorf("an input that the source does not give: %s", rep.Words())
	}
}

// slowPSI bins by comparing with every cut.
func slowPSI(r *Reference, i int, vecs []feature.Vector) (sum float64) {
	bins := len(r.cuts[i]) + 2
	for b := range bins {
		n := 0.5
		for j := range vecs {
			at := bins - 1
			if vecs[j].Known(i) {
				at = 0
				for _, c := range r.cuts[i] {
					if vecs[j].X[i] >= c {
						at++
					}
				}
			}
			if at == b {
				n++
			}
		}
		q := n / (float64(len(vecs)) + 0.5*float64(bins))
		sum += (q - r.p[i][b]) * math.Log(q/r.p[i][b])
	}
	return sum
}

// TestIndexAgreesWithTheSlowOne, is zero against itself and never below.
func TestIndexAgreesWithTheSlowOne(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	a := fill(t, window(t, Limits{}), rng, 300, 0).vectors()
	b := fill(t, window(t, Limits{}), rng, 200, 0.1).vectors()
	r := NewReference(a)
	for i := range feature.Dim {
		got, want := index(r.p[i], r.shares(i, b)), slowPSI(r, i, b)
		if math.Abs(got-want) > 1e-9 || got < 0 || index(r.p[i], r.shares(i, a)) != 0 {
			t.Errorf("%s: %v, expected %v", feature.Name(i), got, want)
		}
	}
	if NewReference(nil) != nil {
		t.Error("a reference of nothing")
	}
}

// TestChanceHolds: of samples of one distribution hardly any is called a change,
// in windows as small as are judged.
func TestChanceHolds(t *testing.T) {
	rng, false := rand.New(rand.NewPCG(6, 6)), 0
	const trials = 60
	for range trials {
		ref := fill(t, window(t, Limits{}), rng, 200, 0).Reference()
		if rep := fill(t, window(t, Limits{}), rng, Enough, 0).Judge(ref, nil); rep.Verdict != Good {
			false++
		}
	}
	if false > 1 {
		t.Errorf("%d of %d windows without a change are called changed", false, trials)
	}
	// The quantile that limits it, against the table of the chi-squared distribution
	// (0.99999 at 10 degrees: 41.30).
	if got := chance(10, 1000, 1000) / effect * 500; math.Abs(got-41.3) > 1 {
		t.Errorf("quantile %v, expected 41.3 and one more at most", got)
	}
}

func TestLimits(t *testing.T) {
	for _, l := range []Limits{{Size: 3}, {Size: 1 << 15}, {Invalid: 2}, {Torn: -1}, {Slack: -1}} {
		if _, err := NewWindow(l); err == nil {
			t.Errorf("%+v was taken", l)
		}
	}
}
