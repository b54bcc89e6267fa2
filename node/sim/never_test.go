//go:build !race

package sim

import (
	"cmp"
	"fmt"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/federation/robust"
)

// TestNeverWorseThanAlone makes the table of docs/aggregation.md: what sites have behind
// their gates beside what they have alone, whoever lies. Without gates the same models
// ruin them.
func TestNeverWorseThanAlone(t *testing.T) {
	o := long(t)
	o.Library = Builtin()
	for _, share := range []float64{0, 0.3, 0.5, 0.8} {
		attacks := []string{"label-flip", "alie", "inner-product"}
		if share == 0 {
			attacks = []string{""}
		}
		for _, attack := range attacks {
			t.Run(fmt.Sprint(share, cmp.Or(attack, "none")), func(t *testing.T) {
				h := held{}
				for seed := range uint64(hardSeeds) {
					s := hard(robust.NameGeometricMasked, attack, share, seed+1)
					s.Measure.Rows, s.Gate = 1<<20, Gate{On: true, Mix: true, Held: s.Gate.Held, Normals: 25}
					h.play(t, s, o, 5)
				}
				h.judge(t, share, cmp.Or(attack, "none"))
			})
		}
	}
}

func (h *held) judge(t *testing.T, share float64, attack string) {
	middle := h.gains[len(h.gains)/2]
	t.Logf("| %.0f %% | %s | %.0f %% | %+.1f | %+.1f | %+.1f | %d of %d | %+.1f | %+.1f | (error of a gain at most %.1f; %d sites cannot examine)", 100*share, attack, 100*h.adopted(),
		100*h.gains[0], 100*middle, 100*h.gains[len(h.gains)*9/10], h.worse(), len(h.gains), 100*h.bare[0], 100*h.bare[len(h.bare)/2], 100*h.deviation, h.unable)
	// Two looks of 310 at alie found -1.4, at a standard error of 1.3.
	if 100*h.worse() > len(h.gains) || h.gains[0] < -0.02 {
		t.Errorf("%d of %d times a site lost more than a point, %.1f at worst", h.worse(), len(h.gains), -100*h.gains[0])
	}
	if share == 0 && (h.adopted() < 0.7 || middle <= 0) {
		t.Errorf("nobody lies: %.0f %% of rounds used, the middle site gains %.2f points", 100*h.adopted(), 100*middle)
	}
	if share >= 0.5 && h.bare[0] > -0.1 {
		t.Errorf("control: without gates the worst site lost only %.1f points", -100*h.bare[0])
	}
}
