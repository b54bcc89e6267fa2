package learner_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// A region holds the flows that it was made of and those like them, not others,
// and is the same after it was sent.
func TestRegion(t *testing.T) {
	evil := kinds(30, 0.3, 1)
	r, err := learner.NewRegion(evil[:10])
	if err != nil {
		t.Fatal(err)
	}
	back, err := learner.ParseRegion(r.String())
	if err != nil || *back != *r {
		t.Fatalf("%s came back as %v, %v", r, back, err)
	}
	for i := range evil {
		if !back.Contains(&evil[i]) {
			t.Errorf("flow %d of the behaviour lies outside", i)
		}
	}
	normal := kinds(200, 0, 2)
	for i := range normal {
		if back.Contains(&normal[i]) {
			t.Errorf("normal flow %d lies inside", i)
		}
	}
	unknown := evil[0]
	unknown.Has = feature.Mask{}
	unknown.X = [feature.Dim]float32{}
	if back.Contains(&unknown) {
		t.Error("a flow of which nothing is known lies inside")
	}
	m := learner.NewMemory(append(kinds(30, 0, 3), evil[:10]...))
	if c := m.Covers(back); c != 0.25 {
		t.Errorf("it covers %g of 30 normal flows and 10 like it", c)
	}
}

func TestRegionRefuses(t *testing.T) {
	if _, err := learner.NewRegion(kinds(learner.RegionFlows-1, 0, 1)); err == nil {
		t.Error("too few flows")
	}
	rng := rand.New(rand.NewPCG(1, 1))
	apart := kinds(20, 0, 1)
	for i := range apart {
		for k := range apart[i].X {
			apart[i].X[k] = rng.Float32()*2 - 1
		}
	}
	if _, err := learner.NewRegion(apart); err == nil || !strings.Contains(err.Error(), "bounded") {
		t.Errorf("flows that have nothing in common: %v", err)
	}
	r, err := learner.NewRegion(kinds(10, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	good := r.String()
	at := strings.Index(good, ":") + 1
	for what, s := range map[string]string{
		"schema": "features-1:" + good[at:], "no schema": good[at:], "short": good[:len(good)-2], "wide": good[:at] + strings.Repeat("Dw", 60),
		"narrow": good[:at] + "AA" + good[at+2:], "none": "", "turned": good[:at] + "UQ" + good[at+2:],
	} {
		if x, err := learner.ParseRegion(s); err == nil {
			t.Errorf("%s: %q was taken as %s", what, s, x)
		}
	}
}

func FuzzRegion(f *testing.F) {
	r, err := learner.NewRegion(kinds(10, 0, 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.String())
	f.Add("features-2:AAEC")
	v := kinds(1, 0, 2)[0]
	f.Fuzz(func(t *testing.T, s string) {
		r, err := learner.ParseRegion(s)
		if err != nil {
			return
		}
		r.Contains(&v)
		if again, err := learner.ParseRegion(r.String()); err != nil || *again != *r {
			t.Errorf("%q: %v", s, err)
		}
	})
}
