//go:build !race

package federation_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/council"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// finals is how many models are final at the site that has the fewest, and the most.
func (w *world) finals() (least, most uint64) {
	least = 1 << 62
	for _, s := range w.sites {
		h := s.Status().Height
		least, most = min(least, h), max(most, h)
	}
	return least, most
}

// TestPartitionOfTheConsortium parts three organisations of seven from four: neither side
// has two thirds, so no model becomes final, indicators go on within each side, and
// two rounds after it heals all have one model and all indicators.
func TestPartitionOfTheConsortium(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newConsortium(t, 7, counted, nil)
		defer w.close()
		until(t, 5*time.Minute, "two models", func() bool { return w.same(2) })
		var one []identity.ID
		for _, s := range w.sites[:3] {
			one = append(one, s.key.ID())
		}
		_, before := w.finals()
		w.bus.Partition(one)
		said(t, w, 0, "203.0.113.50", wire.TLPGreen)
		said(t, w, 6, "203.0.113.51", wire.TLPGreen)
		pass(2 * time.Minute) // ten rounds, had they gone on
		if _, most := w.finals(); most > before+1 {
			t.Errorf("%d models final before, %d in a part without two thirds", before, most)
		}
		w.bus.Heal()
		_, before = w.finals()
		took := until(t, 10*time.Minute, "two more models after healing, the same everywhere", func() bool { return w.same(before + 2) })
		t.Logf("two more final models %s after healing", took)
		for _, s := range w.sites {
			if n := len(s.Indicators()); n != 2 {
				t.Errorf("%s: %d indicators, expected both", s.name, n)
			}
		}
	})
}

// TestSitesKilledAtRandom kills up to two sites of seven at a time, whenever, and
// brings them back from their disks. What a site published stays, what was final
// stays, every chain recomputes, and all end on one model.
func TestSitesKilledAtRandom(t *testing.T) {
	kills := 4
	if os.Getenv("HEDGEROW_LONG") != "" {
		kills = 50
	}
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 7))
		w := newConsortium(t, 7, counted, func(_ int, o *federation.Options) { o.Consortium.Keep = 1000 })
		defer w.close()
		until(t, 5*time.Minute, "a first model", func() bool { return w.same(1) })
		said(t, w, 2, "203.0.113.60", wire.TLPGreen)
		var high uint64
		for range kills {
			a, b := w.sites[rng.IntN(7)], w.sites[rng.IntN(7)]
			a.stop()
			b.stop()
			pass(time.Duration(rng.IntN(20000)) * time.Millisecond)
			w.start(a)
			if b != a {
				w.start(b)
			}
			pass(time.Duration(rng.IntN(20000)) * time.Millisecond)
			least, most := w.finals()
			if most < high {
				t.Fatalf("%d models were final, now %d to %d", high, least, most)
			}
			high = most
		}
		until(t, 10*time.Minute, "one model everywhere", func() bool { return w.same(high + 2) })
		for _, s := range w.sites {
			if _, err := w.audit(s); err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
			if n := len(s.Indicators()); n != 1 {
				t.Errorf("%s: %d indicators, expected what was published", s.name, n)
			}
		}
	})
}

// TestOldDeltasAreDropped: only the newest blocks keep what an audit recomputes,
// and it says so. An update that is the same in every block stays.
func TestOldDeltasAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newConsortium(t, 7, counted, func(i int, o *federation.Options) { o.Trainer.(*trainer).idle = i == 6 })
		defer w.close()
		until(t, 10*time.Minute, "six models", func() bool { return w.same(6) })
		found, err := w.audit(w.sites[2])
		if err != nil || len(found) < 6 || found[0].Recomputed || !found[len(found)-1].Recomputed {
			t.Errorf("audit: %v, %+v; expected the first block's deltas gone, and the last model made anew", err, found)
		}
		kept := 0
		for _, k := range w.sites[2].store.Keys() {
			if strings.HasPrefix(k, "federation/params/") {
				kept++
			}
		}
		if most := (3 + 3) * 9; kept > most {
			t.Errorf("%d vectors on the disk: expected at most %d", kept, most)
		}
	})
}

// stalls never gets an answer from one site that it asks for bytes.
type stalls struct {
	federation.Transport
	site identity.ID
}

func (s stalls) Request(ctx context.Context, peer identity.ID, b []byte) ([]byte, error) {
	if req, err := wire.DecodeRequest(b); err == nil && req.Fetch != nil && peer == s.site {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Transport.Request(ctx, peer, b)
}

// TestAStalledFetchCostsNoRound: one organisation serves its update to some and
// stalls the others, who get it from those that have it, before the round is over.
func TestAStalledFetchCostsNoRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newConsortium(t, 7, counted, func(i int, o *federation.Options) {
			if i < 3 {
				o.Transport = stalls{o.Transport, key(t, 7).ID()}
			}
		})
		defer w.close()
		until(t, 10*time.Minute, "eight models", func() bool { return w.same(8) })
		if n := len(w.sites[4].steps(council.Skipped)); n != 0 {
			t.Errorf("%d rounds were lost", n)
		}
	})
}
