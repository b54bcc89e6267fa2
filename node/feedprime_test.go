package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// A plane with tables of its own gets the set of before, from the copies alone,
// before anything runs.
func TestPrimeBringsBackWhatWasKept(t *testing.T) {
	s := newFeedSite(t, "bad", "never-read")
	s.write("bad", "45.9.148.7\n")
	s.start()
	s.reload()
	s.stop()
	if err := os.Remove(filepath.Join(s.dir, "bad")); err != nil {
		t.Fatal(err)
	}
	fresh, err := softplane.Open(softplane.Options{Now: s.o.Now})
	if err != nil {
		t.Fatal(err)
	}
	s.o.Plane = fresh
	n, err := New(s.o)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := fresh.BulkState(); err != nil || b.Enforced != 0 {
		t.Fatalf("before: %+v, %v", b, err)
	}
	n.Prime(t.Context())
	if b, err := fresh.BulkState(); err != nil || b.Enforced != 1 {
		t.Errorf("primed: %+v, %v: expected the one entry", b, err)
	}
	f, err := n.ReloadFeeds(t.Context(), "")
	if err != nil || !f.List[0].Kept || f.List[0].Error == "" {
		t.Errorf("the look after it: %+v, %v: expected the copy to be said", f, err)
	}
}
