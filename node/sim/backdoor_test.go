//go:build !race

package sim

import (
	"testing"

	"github.com/hedgerow-mesh/hedgerow/federation/robust"
)

// A back door lets marked attacks pass where the rule lets it in, leaves the rest of
// the model as it was, and is not there without the liars: the same mark then means
// nothing.
func TestBackdoors(t *testing.T) {
	play := func(name, rule string, share float64) (mesh, alone Figures) {
		s := small()
		s.Training.Rounds, s.Rule.Name = 25, rule
		s.Attackers = Attackers{Attack: name, Share: share}
		r := run(t, s)
		return r.Last(Test, Mesh), r.Last(Test, Alone)
	}
	for _, name := range []string{"backdoor-rare", "backdoor-common", "model-replacement"} {
		control, _ := play(name, robust.NameMean, 0)
		mesh, alone := play(name, robust.NameMean, 0.36)
		if mesh.AUC < control.AUC-0.03 || alone.Success > control.Success+0.1 {
			t.Errorf("%s: mesh %+v, alone %+v, without liars %+v: expected the rest to stay as it was", name, mesh, alone, control)
		}
		if mesh.Success < control.Success+0.3 {
			t.Errorf("%s: %.3f of the marked attacks pass, %.3f without liars", name, mesh.Success, control.Success)
		}
	}
	for _, name := range []string{"sign-flip", "free-rider"} {
		if mesh, _ := play(name, robust.NameMean, 0.36); mesh.Success != mesh.Passed {
			t.Errorf("%s has no mark: success %g, passed %g", name, mesh.Success, mesh.Passed)
		}
	}
}
