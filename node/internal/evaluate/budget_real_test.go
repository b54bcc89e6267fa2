//go:build !race

package evaluate

import (
	"hash/fnv"
	"os"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
)

// A share of flows that was asked for, on the normal days of three real hosts: four
// tenths of the flows train, two tenths settle the track, and each of the others is
// judged at a level that was told from flows before it alone. The control is the
// model's own p-value, taken as if it were one of later flows.
func TestBudgetOnRealTraffic(t *testing.T) {
	if os.Getenv("HEDGEROW_LONG") != "1" {
		t.Skip("trains three models: set HEDGEROW_LONG=1")
	}
	dir := realdata.Dir(t, "stratosphere-zeek")
	var site trace
	for _, h := range dataset.Hosts(dir) {
		tr, err := readNormal(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if len(site) > 0 {
			tr = tr.shift(site.begin() - tr.begin())
		}
		site = append(site, tr...)
	}
	slices.SortStableFunc(site, byTime)
	teach, later := site[:len(site)*4/10], site[len(site)*4/10:]
	normal, err := teach.learnt(teach.settle(), func(*report) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	shares := []float64{1e-2, 1e-3}
	under, plain, n := make([]int, len(shares)), make([]int, len(shares)), 0
	for seed := range uint64(3) {
		m, err := train(t.Context(), seed+1, normal)
		if err != nil {
			t.Fatal(err)
		}
		c, err := feature.NewContext(feature.ContextOptions{Settle: teach.settle(), Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		for i := range teach {
			c.Update(&teach[i].rec, teach[i].end)
		}
		track, scratch, levels := calibrate.NewTrack(8000), learner.NewScratch(), make([]float64, len(shares))
		for i := range later {
			x := &later[i]
			c.Update(&x.rec, x.end)
			if x.rec.OnlyResets() {
				continue
			}
			var v feature.Vector
			c.Vector(&v, &x.rec)
			s := m.Score(&v, scratch)
			if settled := i >= len(site)*2/10; settled {
				n++
				for k, share := range shares {
					if i%100 == 0 || levels[k] == 0 {
						levels[k], _ = track.Level(share)
					}
					if s.Rank < levels[k] {
						under[k]++
					}
					if s.P < share {
						plain[k]++
					}
				}
			}
			h := fnv.New64a()
			_, _ = h.Write([]byte(enforce.CauseOf(&x.rec)))
			track.Add(s.Rank, h.Sum64())
		}
	}
	for k, share := range shares {
		got := float64(under[k]) / share / float64(n)
		lo, hi := calibrate.Binomial(under[k]/3, n/3, 0.95)
		t.Logf("asked for %g of %d later flows, three seeds: %d, %.2f of what was asked (95 %%, of one seed's flows: %.2f to %.2f); by the model's own p-value %.2f",
			share, n, under[k], got, lo/share, hi/share, float64(plain[k])/share/float64(n))
		if hi/share < 0.5 || lo/share > 1.5 {
			t.Errorf("share %g: %.2f of what was asked for: surely outside of 0.5 to 1.5", share, got)
		}
	}
}
