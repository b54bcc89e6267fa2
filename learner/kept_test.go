package learner_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/flowgen"
)

// stream plays an office's ordinary work piece by piece, so that memory stays
// small however long it lasts.
type stream struct {
	office *flowgen.Office
	ctx    *feature.Context
	now    time.Time
	low    map[uint64]float64 // least p-value of open flows
}

func newStream(t testing.TB, seed uint64) *stream {
	t.Helper()
	c, err := feature.NewContext(feature.ContextOptions{Settle: 30 * time.Second, Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	return &stream{flowgen.NewOffice(seed, false), c, time.Unix(1_700_000_000, 0), map[uint64]float64{}}
}

// play hands on every report with its vector; d is of the traffic's own time.
func (s *stream) play(d time.Duration, each func(r *flowgen.Report, v *feature.Vector)) {
	var v feature.Vector
	for end := s.now.Add(d); s.now.Before(end); s.now = s.now.Add(time.Minute) {
		reports := s.office.Work(s.now, time.Minute, 25)
		for i := range reports {
			r := &reports[i]
			s.ctx.Update(&r.Rec, r.Final)
			s.ctx.Vector(&v, &r.Rec)
			if s.ctx.Settled() {
				each(r, &v)
			}
		}
	}
}

// judge gives the least p-value of each flow that ends, and its cause.
func (s *stream) judge(m *learner.Model, d time.Duration, each func(p float64, cause uint64)) {
	scratch := learner.NewScratch()
	s.play(d, func(r *flowgen.Report, v *feature.Vector) {
		p := m.Score(v, scratch).P
		if low, ok := s.low[r.Rec.ID]; ok {
			p = min(p, low)
		}
		s.low[r.Rec.ID] = p
		if r.Final {
			delete(s.low, r.Rec.ID)
			each(p, causeHash(r))
		}
	})
}

func causeHash(r *flowgen.Report) (h uint64) {
	for _, c := range causeOf(&r.Rec) {
		h = h*1099511628211 + uint64(c)
	}
	return h
}

// A share of flows that was asked for is kept on later normal traffic, within a
// half: each flow is judged at a level that was told from flows before it alone,
// none of which trained or calibrated the model. As at a site, the level is asked
// for anew now and then. The control is the model's own p-value of single reports,
// taken as if it were one of flows.
func TestBudgetIsKeptOnLaterTraffic(t *testing.T) {
	if raced {
		t.Skip("measures, and in one goroutine: run without -race")
	}
	long := os.Getenv("HEDGEROW_LONG") == "1"
	train, settle, later := 4*time.Minute, 14*time.Minute, 30*time.Minute
	shares, size := []float64{1e-2, 1e-3}, 20_000
	if long { // a million flows, of which a hundred may be alarms
		settle, later = 140*time.Minute, 670*time.Minute
		shares, size = append(shares, 1e-4), 200_000
	}
	s := newStream(t, 31)
	var normal []feature.Vector
	s.play(train, func(_ *flowgen.Report, v *feature.Vector) { normal = append(normal, *v) })
	m, err := learner.Train(context.Background(), learner.Config{Seed: 1}, nil, normal, nil)
	if err != nil {
		t.Fatal(err)
	}
	track := calibrate.NewTrack(size)
	s.judge(m, settle, track.Add)
	levels := make([]float64, len(shares))
	n, under, plain := 0, make([]int, len(shares)), make([]int, len(shares))
	s.judge(m, later, func(p float64, cause uint64) {
		if n%2000 == 0 {
			for i, share := range shares {
				ok := false
				if levels[i], ok = track.Level(share); !ok {
					t.Fatalf("no level for %g from %d flows", share, track.Len())
				}
			}
		}
		n++
		track.Add(p, cause)
		for i := range shares {
			if p < levels[i] {
				under[i]++
			}
			if p < shares[i] {
				plain[i]++
			}
		}
	})
	if long && n < 1_000_000 {
		t.Fatalf("%d flows: expected a million", n)
	}
	for i, share := range shares {
		asked := share * float64(n)
		lo, hi := calibrate.Binomial(under[i], n, 0.95)
		t.Logf("asked for %g of %d later flows: got %d, %.2f of what was asked (95 %%: %.2f to %.2f), at last at level %.2g from %d flows; the model's own p-value of reports: %.2f",
			share, n, under[i], float64(under[i])/asked, lo/share, hi/share, levels[i], track.Len(), float64(plain[i])/asked)
		if r := float64(under[i]) / asked; r < 0.5 || r > 1.5 {
			t.Errorf("share %g: %.2f of what was asked for: expected 0.5 to 1.5", share, r)
		}
	}
}
