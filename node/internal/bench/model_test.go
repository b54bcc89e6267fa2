//go:build linux

package bench

import (
	"os"
	"strings"
	"testing"
)

// The kernel's own verdict lets nothing through from the deciding packet on, and
// every milestone is scored whatever is swapped. Figures are for the command.
func TestModelInTheKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("HEDGEROW_KERNEL_TESTS") == "1" {
			t.Fatal("HEDGEROW_KERNEL_TESTS=1 but not root")
		}
		t.Skip("needs root: programs are loaded and namespaces made")
	}
	if os.Getenv("HEDGEROW_LONG") != "1" {
		t.Skip("sends for a minute: set HEDGEROW_LONG=1")
	}
	r, err := Model(t.Context(), ModelOptions{Quick: true, Rounds: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range r.Leaks {
		if l.By == byKernel && (l.Leaked != 0 || l.Deciding != 0 || l.Behind > uint64(3*l.Flows)) {
			t.Errorf("the kernel decided and let through: %+v", l)
		}
		if l.By == byUser && l.Deciding == 0 {
			t.Errorf("a process cannot drop the deciding packet, but did: %+v", l)
		}
	}
	if u := r.Under; u.Reached != u.Scored || u.Reached == 0 {
		t.Errorf("under traffic: %+v", u)
	}
	var b strings.Builder
	if err := r.Print(&b); err != nil || strings.Count(b.String(), "kernel") < 3 {
		t.Errorf("%v: printed %q", err, b.String())
	}
}
