//go:build !race

package leak

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
)

// What epsilon allows: guessing at 0, everything when it is large, and in between
// what the curve through (x, e^epsilon x) and its mirror image encloses.
func TestBound(t *testing.T) {
	if b := bound(0, 0); b != 0.5 {
		t.Errorf("epsilon 0: %g", b)
	}
	if b := bound(40, 0); math.Abs(b-1) > 1e-9 {
		t.Errorf("epsilon 40: %g", b)
	}
	x := 1 / (1 + math.E)
	if b, want := bound(1, 0), 1-x; math.Abs(b-want) > 1e-12 {
		t.Errorf("epsilon 1: %g, want %g", b, want)
	}
	if bound(1, 0.01) <= bound(1, 0) || bound(2, 0) <= bound(1, 0) {
		t.Error("a wider promise bounds an attacker more")
	}
}

// The attacks work where nothing is hidden, and one of them is seen to fail under
// heavy noise; all on a few flows and steps.
func TestAttacksOnRealFlows(t *testing.T) {
	dir := realdata.Dir(t, "pcap-ndpi-tests/pcap")
	r, err := Run(t.Context(), Options{
		Captures: filepath.Join(dir, "pcap-ndpi-tests/pcap"),
		Attack:   filepath.Join(dir, "slips/dataset/test19-malicious-ssh/malicious-ssh-bruteforce.pcap"),
		Flows:    150, Steps: 40, Trials: 1, Noise: []float64{0, 50}, Seed: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 3 {
		t.Fatalf("%d rows", len(r.Rows))
	}
	plain, cut, noisy := r.Rows[0], r.Rows[1], r.Rows[2]
	if plain.One > 1e-3 || cut.One > 1e-3 {
		t.Errorf("control: one flow in one step is rebuilt to %g and %g only", plain.One, cut.One)
	}
	if noisy.One < 0.1 {
		t.Errorf("one flow in one step is rebuilt to %g through 50 clips of noise", noisy.One)
	}
	if plain.Epsilon != 0 || noisy.Epsilon <= 0 || noisy.Bound <= 0.5 || noisy.Bound >= 1 {
		t.Errorf("epsilon %g and %g, bound %g", plain.Epsilon, noisy.Epsilon, noisy.Bound)
	}
	for _, x := range r.Rows {
		if x.Member < 0 || x.Member > 1 || x.Utility < 0 || x.Utility > 1 {
			t.Errorf("%+v", x)
		}
	}
	var b strings.Builder
	if err := r.Print(&b); err != nil || strings.Count(b.String(), "\n") != 6 {
		t.Errorf("%v, printed:\n%s", err, b.String())
	}
}
