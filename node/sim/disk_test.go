//go:build linux

package sim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk that runs full in the middle of a sweep stops it with the reason; what is done
// stays done, and with more room the same command ends as if nothing had been.
func TestDiskFullInTheMiddle(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a small disk")
	}
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=24k"); err != nil {
		t.Skipf("no disk of one's own here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	w, dir, whole := parseSweep(t, sweepText), filepath.Join(disk, "sweep"), filepath.Join(t.TempDir(), "whole")
	_, err := w.Run(t.Context(), dir, Shard{}, Options{data: shared, Workers: 1})
	if err == nil || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), "what is done stays done") {
		t.Fatalf("a full disk: %v", err)
	}
	kept := files(t, filepath.Join(dir, cellsName))
	if len(kept) == 0 || len(kept) >= len(w.Cells) {
		t.Fatalf("%d of %d cells on the full disk: expected some", len(kept), len(w.Cells))
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	played := 0
	if !play(t, w, dir, Shard{}, Options{Told: func(_, n int) { played = n }}) || !play(t, w, whole, Shard{}, Options{}) {
		t.Fatal("not complete")
	}
	if played != len(w.Cells)-len(kept) {
		t.Errorf("%d cells were played again: expected the %d that were missing", played, len(w.Cells)-len(kept))
	}
	same(t, filepath.Join(dir, cellsName), filepath.Join(whole, cellsName))
}
