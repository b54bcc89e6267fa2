package learner_test

import (
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// mean is the lab preset of the mesh: base plus the mean of the deltas.
func mean(parts ...[]float32) []float32 {
	out := make([]float32, len(parts[0]))
	for i := range out {
		for _, p := range parts {
			out[i] += p[i] / float32(len(parts))
		}
	}
	return out
}

// One site of three met the beacon. After some rounds of the plain mean, a
// third, whose normal is broad uploads and whose own model missed the beacon,
// catches it from another address, and few of its own normal flows come near.
// How many it catches depends on the sites; the level is what a run of flows of
// one cause needs, for no single flow carries an alarm.
func TestBehaviourLearntAtOneSiteIsCaughtAtAnother(t *testing.T) {
	slow(t)
	var normal [3][]feature.Vector
	var sites [3]*site
	for i := range sites {
		sites[i] = newSite(t, uint64(11+i), i == 2)
		normal[i] = vectors(sites[i].work(45*time.Second), "normal")
	}
	a := sites[0]
	met := examples(a.work(30*time.Second, a.office.Beacon(a.now.Add(5*time.Second), 15)), "beacon")
	for _, tc := range []struct {
		share  []learner.Example
		rounds int
		level  float64 // enough for an alarm when a few flows of one cause reach it
	}{{met, 4, 0.001}} {
		n, alpha := len(tc.share), tc.level
		base := learner.InitShared(7)
		cfg := learner.Config{Seed: 3}
		const steps = 500
		for range tc.rounds {
			var out [3][]float32
			for i := range sites {
				var attacks []learner.Example
				if i == 0 {
					attacks = tc.share
				}
				var err error
				if out[i], err = learner.TrainShared(t.Context(), cfg, base, normal[i], attacks, steps); err != nil {
					t.Fatal(err)
				}
			}
			base = mean(out[:]...)
		}
		c := sites[2]
		old, err := learner.Train(t.Context(), cfg, nil, normal[2], nil)
		if err != nil {
			t.Fatal(err)
		}
		next, err := old.WithShared(base, normal[2])
		if err != nil {
			t.Fatal(err)
		}
		after := c.work(100*time.Second, c.office.Beacon(c.now.Add(30*time.Second), 20))
		before, _ := below(flows(old, after, "beacon"), alpha)
		beacons := flows(next, after, "beacon")
		caught, first := below(beacons, alpha)
		work := flows(next, after, "normal")
		fresh, _ := below(work, alpha)
		was, _ := below(flows(old, after, "normal"), alpha)
		t.Logf("%d examples: beacons caught before %d, after %d of %d, the first was number %d; false alarms %d -> %d of %d; floor %.2g",
			n, before, caught, len(beacons), first, was, fresh, len(work), next.Floor())
		if caught <= before || first < 0 || first > 10 || caught < len(beacons)/3 {
			t.Errorf("%d examples: caught %d (first %d), before %d of %d", n, caught, first, before, len(beacons))
		}
		// Flows that reach the level by chance are few beside the beacons that do.
		if share := float64(fresh) / float64(len(work)); share > 0.02 || float64(caught)/float64(len(beacons)) < 20*share {
			t.Errorf("%d examples: normal flows at that level rose from %d to %d of %d", n, was, fresh, len(work))
		}
	}
}
