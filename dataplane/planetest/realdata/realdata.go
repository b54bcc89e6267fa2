// Package realdata finds the real captures, logs and tables that tests may use
// and the project never contains: the folder that the environment's HEDGEROW_DATA
// names, or shared/data beside the project. See CONTRIBUTING.md.
package realdata

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Dir is that folder. Where it does not hold a file or folder of this name ("."
// for any) the test is skipped, or fails where CI is set and nothing may be
// skipped.
func Dir(tb testing.TB, holds string) string {
	tb.Helper()
	dir, err := find(holds)
	if err == nil {
		return dir
	}
	if os.Getenv("CI") != "" {
		tb.Fatalf("real data: %v: set HEDGEROW_DATA to the folder that holds it", err)
	}
	tb.Skipf("real data is absent (HEDGEROW_DATA): %v", err)
	return ""
}

func find(holds string) (dir string, err error) {
	if dir = os.Getenv("HEDGEROW_DATA"); dir == "" {
		root, err := projectRoot()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, "..", "shared", "data")
	}
	_, err = os.Stat(filepath.Join(dir, holds))
	return dir, err
}

// projectRoot is the nearest folder above the tests that holds a go.mod.
func projectRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("no go.mod above %s", dir)
		}
	}
}
