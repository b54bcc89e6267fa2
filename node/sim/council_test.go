//go:build !race

package sim

import (
	"os"
	"testing"
)

// Seven organisations have rounds of models between them, by the gateways' own council,
// and two runs of that write the same bytes.
func TestMeshCouncil(t *testing.T) {
	if os.Getenv("HEDGEROW_LONG") != "1" {
		t.Skip("a minute of training: HEDGEROW_LONG=1 runs it")
	}
	s := smallMesh(7)
	s.Sites.Count, s.Nodes.Seconds = 7, 200
	s.Nodes.Learner, s.Nodes.Warmup, s.Nodes.Rounds, s.Nodes.Retrain = true, 200, 60, 100
	one := playMesh(t, s, 1)
	if rounds, models, _ := one.models(); rounds < 1 || models < 7 {
		t.Errorf("%d rounds made a model, %d models judged: expected at least one, and one for each site", rounds, models)
	}
	if bytesOf(t, one) != bytesOf(t, playMesh(t, s, 2)) {
		t.Error("one worker and two made different bytes")
	}
}
