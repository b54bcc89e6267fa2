package sim

import (
	"math"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/crypto/privacy"
)

// Noise is accounted for as on a gateway, is the same in every run, is worth what it
// costs, and leaves what sites have alone as it was.
func TestPrivacy(t *testing.T) {
	s := small()
	s.Training.Rounds = 4
	plain := run(t, s)
	s.Privacy.Noise = 1
	one, two := run(t, s), run(t, s)
	if one.Last(Test, Mesh) != two.Last(Test, Mesh) || one.Last(Test, Mesh) == plain.Last(Test, Mesh) {
		t.Error("expected the same noise twice, and some")
	}
	if one.Last(Test, Alone) != plain.Last(Test, Alone) {
		t.Error("noise is for what is sent, but changed what sites have alone")
	}
	for _, x := range one.Sites {
		var a privacy.Account
		if err := a.Spend(float64(s.Training.Batch)/float64(x.Teach), 1, 4*s.Training.Steps); err != nil {
			t.Fatal(err)
		}
		if want, err := a.Epsilon(s.Privacy.Delta); err != nil || math.Abs(x.Epsilon-want) > 1e-9 || !(want > 0) {
			t.Errorf("site %d: epsilon %g: expected %g, %v", x.Site, x.Epsilon, want, err)
		}
	}
	var b strings.Builder
	if err := one.Print(&b); err != nil || !strings.Contains(b.String(), "epsilon") {
		t.Errorf("the report does not tell epsilon: %v", err)
	}
	s.Privacy.Noise = 1000
	if loud := run(t, s).Last(Test, Mesh); loud.AUC > plain.Last(Test, Mesh).AUC-0.1 {
		t.Errorf("a thousand clips of noise: %+v: expected nothing to be learnt", loud)
	}
	for noise, want := range map[float64]string{-1: "privacy.noise: found -1", 0.05: "0 (off), or 0.1", math.Inf(1): "privacy.noise"} {
		s.Privacy.Noise = noise
		if err := s.Check(Builtin()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("noise %g: %v", noise, err)
		}
	}
	m := smallMesh(1)
	m.Privacy.Noise = 1
	if err := m.Check(Builtin()); err == nil || !strings.Contains(err.Error(), "no run could be repeated") {
		t.Errorf("whole nodes: %v", err)
	}
}
