package flowlog

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestArgusEqualsCapture: what Argus says of the capture equals what our plane
// says, bytes included once the link header is known.
func TestArgusEqualsCapture(t *testing.T) {
	recs := planeRecords(t, officeFile(t))
	flows, rep := readAll(t, "office.binetflow", fixture(t, "office.argus.csv"), Options{LinkHeader: 14})
	if rep.Format != Argus || rep.RefusedLines() != 0 || rep.Skipped[NotIP] != 0 {
		t.Fatalf("%v", rep.Words())
	}
	n := matched(t, recs, flows, 2e-4)
	t.Logf("%d flows, %.1f features each", len(flows), n)
	if n < 17 {
		t.Errorf("%.1f features for each flow", n)
	}
	// Without it, bytes lack and nothing that is made of them is there.
	flows, _ = readAll(t, "office.binetflow", fixture(t, "office.argus.csv"), Options{})
	for i := range flows {
		var v feature.Vector
		feature.FromRecord(&v, &flows[i].Record)
		if v.Known(feature.Index("size_mean_out")) {
			t.Fatalf("flow %d: bytes of frames taken for bytes of IP", i)
		}
	}
}

// TestNetFlowEqualsCapture: halves that softflowd exported are the plane's flows.
func TestNetFlowEqualsCapture(t *testing.T) {
	recs := planeRecords(t, officeFile(t))
	flows, rep := readAll(t, "nf.csv", fixture(t, "office.nfdump.csv"), Options{})
	if rep.Format != NetFlow || rep.RefusedLines() != 0 {
		t.Fatalf("%v", rep.Words())
	}
	n := matched(t, recs, flows, 2e-2) // nfdump writes milliseconds
	t.Logf("%d flows, %.1f features each", len(flows), n)
	if n < 14 {
		t.Errorf("%.1f features for each flow", n)
	}
}

// matched compares a log's flows with the plane's records of the same key, the
// features of the flow itself only, and gives how many were compared for each.
func matched(t *testing.T, recs []flow.Record, flows []Flow, tolerance float64) float64 {
	t.Helper()
	if len(flows) != len(recs) {
		t.Errorf("%d flows, %d in the capture", len(flows), len(recs))
	}
	by := map[flow.Key]*flow.Record{}
	for i := range recs {
		by[recs[i].Key] = &recs[i]
	}
	n := 0
	var a, b feature.Vector
	for i := range flows {
		other := &flows[i].Record
		own := by[other.Key]
		if own == nil || own.InitB != other.InitB {
			t.Errorf("flow %v from %v is not in the capture", other.Key, other.Initiator())
			continue
		}
		feature.FromRecord(&a, own)
		feature.FromRecord(&b, other)
		for k := range feature.Dim {
			if !b.Known(k) {
				continue
			}
			if n++; !a.Known(k) || math.Abs(float64(a.X[k]-b.X[k])) > tolerance {
				t.Errorf("flow %v: %s is %v (%s), in the capture %v (%s)", own.Key, feature.Name(k), b.X[k], feature.Describe(k, &b), a.X[k], feature.Describe(k, &a))
			}
		}
	}
	return float64(n) / float64(len(flows))
}
