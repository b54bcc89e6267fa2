package federation_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation"
)

func (tr *trainer) offers() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.adopted)
}

// TestAForkStopsAdopting: a site that has seen two sealed models of one round takes
// part in rounds and adopts none of them, also after a restart, until its operator
// says so; then it adopts the latest at once.
func TestAForkStopsAdopting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newConsortium(t, 7, counted, nil)
		defer w.close()
		until(t, 10*time.Minute, "two models", func() bool { return w.same(2) })
		s := w.sites[2]
		if err := s.Resume(t.Context()); !errors.Is(err, federation.ErrNotFound) {
			t.Errorf("nothing was stopped: %v", err)
		}
		federation.Fork(s.Member, "two of round 2")
		pass(time.Second) // what was on its way to the gate
		before := s.trainer.offers()
		until(t, 10*time.Minute, "more models elsewhere", func() bool { return w.sites[0].Status().Height >= 4 })
		s.stop()
		w.start(s)
		until(t, 10*time.Minute, "and more, with it", func() bool { return w.same(6) })
		if st := s.Status(); s.trainer.offers() != before || st.Fork != "two of round 2" {
			t.Errorf("after a fork %d models were offered, status %q", s.trainer.offers()-before, st.Fork)
		}
		if w.sites[0].Status().Fork != "" {
			t.Error("another site stopped as well")
		}
		if err := s.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		until(t, time.Second, "the latest is adopted at once", func() bool { return s.trainer.offers() == before+1 })
		if st := s.Status(); st.Fork != "" {
			t.Errorf("still stopped: %q", st.Fork)
		}
	})
}
