package learner_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
	"github.com/hedgerow-mesh/hedgerow/learner/drift"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/flowgen"
)

// changed is a site that learns as a node does: a reservoir with a waiting time,
// a detector of drift, and a new model when what is new has waited.
type changed struct {
	t     *testing.T
	s     *stream
	m     *learner.Model
	pool  *learner.Reservoir
	d     *drift.Detector
	found []drift.Drift
	due   time.Time
	made  int // models after the first

	flows int // that ended since the change
	track *calibrate.Track
	level float64 // of single flows, as the site finds it
}

const (
	settleWait = 2 * time.Minute
	asked      = 0.005 // share of flows that may be odd
)

func newChanged(t *testing.T, seed uint64) *changed {
	t.Helper()
	pool, err := learner.NewReservoir(learner.ReservoirOptions{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	return &changed{t: t, s: newStream(t, seed), pool: pool, d: drift.New(drift.Options{}), track: calibrate.NewTrack(8000)}
}

func (c *changed) train(before time.Time) {
	c.t.Helper()
	normal := c.pool.Mature(before, nil)
	m, err := learner.Train(context.Background(), learner.Config{Seed: 1}, c.m, normal, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.m = m
	c.track.Reset()
	_, causes := c.pool.Later(time.Time{}, nil)
	slices.Sort(causes)
	c.d.Reference(normal, len(slices.Compact(causes)))
}

func hashOf(s string) (h uint64) {
	for _, b := range []byte(s) {
		h = h*1099511628211 + uint64(b) + 1
	}
	return h
}

// learn watches traffic before there is a model.
func (c *changed) learn(d time.Duration) {
	c.s.play(d, c.keep)
	c.train(c.s.now.Add(time.Minute))
}

func (c *changed) keep(r *flowgen.Report, v *feature.Vector) {
	rec := &r.Rec
	c.pool.Add(time.Unix(0, r.At), v, hashOf(rec.Initiator().Addr().String()), hashOf(rec.Responder().Addr().String()), uint64(rec.Responder().Port()))
}

// live judges d of traffic; told is asked for each flow under the level.
func (c *changed) live(d time.Duration, odd func(n int, at time.Time, r *flowgen.Report)) {
	scratch := learner.NewScratch()
	c.s.play(d, func(r *flowgen.Report, v *feature.Vector) {
		at := time.Unix(0, r.At)
		host, cause := hashOf(r.Rec.Initiator().Addr().String()), causeHash(r)
		x := c.s.lower(c.m.Score(v, scratch), r.Rec.ID)
		c.keep(r, v)
		c.heed(c.d.Report(v, host, cause), at)
		if r.Final {
			delete(c.s.low, r.Rec.ID)
			c.flows++
			c.heed(c.d.Score(x.p, host, cause), at)
			if x.rank < c.level {
				odd(c.flows, at, r)
			}
			c.track.Add(x.rank, cause)
			if c.flows%250 == 0 {
				c.level, _ = c.track.Level(asked)
			}
		}
		if !c.due.IsZero() && at.After(c.due) {
			c.due = time.Time{}
			c.made++
			c.train(at.Add(-settleWait))
		}
	})
}

// heed plans a new model for when what drifted has waited, and as long again, so
// that there is enough of it.
func (c *changed) heed(d *drift.Drift, at time.Time) {
	if d == nil {
		return
	}
	c.found = append(c.found, *d)
	if c.due.IsZero() {
		c.due = at.Add(2 * settleWait)
	}
}

// An abrupt change that is no attack settles: it is found, with what moved and
// who moved it, a new model is made when the new traffic has waited, and after
// settledWithin flows the new traffic raises no more alarms than the old. Until
// then the operator hears of a handful of causes, not of a storm.
func TestAbruptChangeSettles(t *testing.T) {
	if raced {
		t.Skip("measures, and in one goroutine: run without -race")
	}
	const settledWithin = 15_000
	for name, begin := range map[string]func(*flowgen.Office){
		"a new service": func(o *flowgen.Office) { o.OpenService(0.15) },
		"a new office":  func(o *flowgen.Office) { o.Grow(8) },
	} {
		c := newChanged(t, 41)
		c.learn(4 * time.Minute)
		c.live(4*time.Minute, func(int, time.Time, *flowgen.Report) {})
		c.flows = 0
		// Without a change nothing drifts: the control.
		for _, d := range c.found {
			t.Errorf("%s: before it: %s", name, d.Words())
		}
		before := len(c.found)
		begin(c.s.office)
		damper := drift.Damper{Burst: 8, Every: 24 * time.Hour / 5}
		causes := map[string]bool{}
		told, early, late, lateFlows := 0, 0, 0, 0
		c.live(14*time.Minute, func(n int, at time.Time, r *flowgen.Report) {
			if n > settledWithin {
				late++
			} else {
				early++
			}
			if cause := causeOf(&r.Rec); !causes[cause] {
				causes[cause] = true
				if damper.Alone(at) {
					told++
				}
			}
		})
		lateFlows = c.flows - settledWithin
		t.Logf("%s: %d drifts, %d new models; %d of the first %d flows were odd, of the last %d %d (asked for %.0f); %d causes, %d told alone",
			name, len(c.found)-before, c.made, early, settledWithin, lateFlows, late, asked*float64(lateFlows), len(causes), told)
		for _, d := range c.found {
			t.Logf("  %s: %s; first host has %.0f %%", d.Kind, d.Words(), 100*d.Hosts[0].Share)
		}
		if lateFlows < 3000 || len(c.found) == before || c.made == 0 {
			t.Errorf("%s: %d flows after it should have settled, %d drifts, %d new models", name, lateFlows, len(c.found)-before, c.made)
		}
		if float64(late) > 2*asked*float64(lateFlows) {
			t.Errorf("%s: %d of %d flows are odd after it should have settled", name, late, lateFlows)
		}
		if told > 8 {
			t.Errorf("%s: %d causes told one by one: expected a burst of at most 8", name, told)
		}
	}
}
