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

// TestRealDataQuick trains on a few thousand rows of real data.
func TestRealDataQuick(t *testing.T) {
	dir := data(t)
	least := map[string][2]float64{dataset.UNSWNB15: {0.98, 0.3}, dataset.Westermo: {0.75, 0.4}}
	if os.Getenv("HEDGEROW_LONG") == "1" {
		least[dataset.NSLKDD] = [2]float64{0.93, 0.35} // ten seconds to read
	}
	for name, least := range least {
		r, err := Run(t.Context(), Options{Dataset: name, Data: dir, Quick: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r.AUC < least[0] || r.MacroF1 < least[1] || r.Data.Bad != 0 {
			t.Errorf("%s: AUC %.4f, macro-F1 %.3f, %d malformed rows", name, r.AUC, r.MacroF1, r.Data.Bad)
		}
	}
}
