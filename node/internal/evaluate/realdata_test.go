//go:build !race

package evaluate

import (
	"os"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

// data is the folder of real data.
func data(t *testing.T) string {
	t.Helper()
	return realdata.Dir(t, dataset.NSLKDD)
}

// TestRealDataQuick trains on a few thousand rows of real data: half a minute.
// That every file is read as it should be is tested with the data sets.
func TestRealDataQuick(t *testing.T) {
	if os.Getenv("HEDGEROW_LONG") != "1" {
		t.Skip("trains on three tables, half a minute of processor time: set HEDGEROW_LONG=1")
	}
	dir := data(t)
	for name, least := range map[string][2]float64{
		dataset.UNSWNB15: {0.98, 0.3}, dataset.Westermo: {0.75, 0.4}, dataset.NSLKDD: {0.93, 0.35},
	} {
		r, err := Run(t.Context(), Options{Dataset: name, Data: dir, Quick: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r.AUC < least[0] || r.MacroF1 < least[1] || r.Data.Bad != 0 {
			t.Errorf("%s: AUC %.4f, macro-F1 %.3f, %d malformed rows", name, r.AUC, r.MacroF1, r.Data.Bad)
		}
	}
}
