// Package datasettest finds the real data sets for tests.
package datasettest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

// Folder is the folder of real data, HEDGEROW_DATA or else beside the project, whose
// root is given from the test's folder; see CONTRIBUTING.md. Where it is absent the
// test is skipped, and fails in CI.
func Folder(t testing.TB, root string) string {
	t.Helper()
	dir := os.Getenv("HEDGEROW_DATA")
	if dir == "" {
		dir = filepath.Join(root, "..", "shared", "data")
	}
	if _, err := os.Stat(filepath.Join(dir, dataset.NSLKDD)); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("real data: %v: set HEDGEROW_DATA to the folder that holds it", err)
		}
		t.Skipf("real data is absent (HEDGEROW_DATA): %v", err)
	}
	return dir
}
