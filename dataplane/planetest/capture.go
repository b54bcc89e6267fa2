package planetest

import (
	"os"
	"testing"
)

// RealData is the folder of real captures, for a test that is two folders below
// the project's root. Tests that need it are skipped where it is not, save where
// nothing may be skipped.
func RealData(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("HEDGEROW_DATA")
	if dir == "" {
		dir = "../../../shared/data"
	}
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("real data: %v: set HEDGEROW_DATA to the folder that holds it", err)
		}
		t.Skipf("real data is absent (HEDGEROW_DATA): %v", err)
	}
	return dir
}
