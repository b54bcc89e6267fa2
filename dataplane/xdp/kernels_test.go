package xdp

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// since says whether this kernel is of the given version or a later one.
func since(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	check(t, unix.Uname(&u))
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		t.Fatalf("release %q: %v", unix.ByteSliceToString(u.Release[:]), err)
	}
	return a > major || a == major && b >= minor
}

// needEgress skips where a plane cannot be hooked to egress, and only on
// kernels that are too old for it.
func needEgress(t *testing.T) {
	t.Helper()
	f := finding(Probe("lo", ""), "tcx")
	if f.Level != Fatal {
		return
	}
	if since(t, 6, 6) {
		t.Fatalf("probe of egress: %+v: this kernel has TCX", f)
	}
	t.Skip("this kernel has no TCX")
}

// A kernel without TCX is told so by name, together with what helps.
func TestProbeNamesWhatAnOldKernelLacks(t *testing.T) {
	needKernel(t)
	f := finding(Probe("lo", ""), "tcx")
	if since(t, 6, 6) {
		if f.Level != Fine {
			t.Errorf("probe of tcx: %+v: expected fine on this kernel", f)
		}
		return
	}
	if f.Level == Fine || !strings.Contains(f.Detail, "TCX") || f.Advice == "" && f.Level == Fatal {
		t.Errorf("probe of tcx: %+v: expected it to say that TCX is missing, and what to do", f)
	}
}
