package realdata

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HEDGEROW_DATA", dir)
	if got, err := find("."); err != nil || got != dir {
		t.Errorf("got %q, %v: expected %s", got, err, dir)
	}
	if _, err := find("captures"); err == nil {
		t.Error("found what is not there")
	}
	if err := os.Mkdir(filepath.Join(dir, "captures"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := find("captures"); err != nil || got != dir {
		t.Errorf("got %q, %v: expected %s", got, err, dir)
	}
}

func TestBesideTheProject(t *testing.T) {
	root, err := projectRoot()
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if below, err := filepath.Rel(root, here); err != nil || below != filepath.FromSlash("dataplane/planetest/realdata") {
		t.Errorf("the root is %s, seen from %s (%v)", root, here, err)
	}
	t.Chdir(filepath.VolumeName(root) + string(filepath.Separator))
	if root, err := projectRoot(); err == nil {
		t.Errorf("found a project at %s", root)
	}
}
