package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
)

// oldLog writes days of a site's conn.log in which every 20th flow is a labelled
// upload to a stranger.
func oldLog(t *testing.T, from time.Time, n int) string {
	t.Helper()
	rng := rand.New(rand.NewPCG(4, 4))
	var b strings.Builder
	for i := range n {
		at := from.Add(time.Duration(i) * 20 * time.Second)
		size, port, label := 400+rng.IntN(400), 443, "Benign"
		if i%20 == 19 {
			size, port, label = 2_000_000+rng.IntN(100_000), 8443, "Malicious"
		}
		pkts := 6 + size/1000
		fmt.Fprintf(&b, `{"ts":%d.%06d,"uid":"C%d","id.orig_h":"10.0.0.%d","id.orig_p":%d,"id.resp_h":"198.51.100.%d","id.resp_p":%d,"proto":"tcp","service":"ssl","duration":%.3f,"orig_bytes":%d,"resp_bytes":900,"conn_state":"SF","missed_bytes":0,"history":"ShADadFf","orig_pkts":%d,"orig_ip_bytes":%d,"resp_pkts":8,"resp_ip_bytes":1300,"label":"%s","detailedlabel":"upload"}`+"\n",
			at.Unix(), rng.IntN(1e6), i, 10+rng.IntN(12), 30000+i%30000, 1+rng.IntN(6), port, 0.2+rng.Float64(), size, pkts, size+52*pkts, label)
	}
	path := filepath.Join(t.TempDir(), "conn.log")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestHistoryMakesAModel: a site that was never started learns from its old log,
// and after a start that model judges: it knows the labelled attack, and it says
// nothing of flows half-way, which no log tells.
func TestHistoryMakesAModel(t *testing.T) {
	x := newLearned(t)
	x.slow()
	path := oldLog(t, x.now.Add(-5*24*time.Hour), 4000)
	o := history.LearnOptions{Now: x.now, Wait: 24 * time.Hour, Options: history.Options{Settle: time.Minute}}
	lesson, err := history.Learn(t.Context(), []string{path}, o)
	if err != nil {
		t.Fatal(err)
	}
	got, err := x.LearnHistory(t.Context(), lesson, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(got.Words)
	if got.Model == nil || got.Model.Stage != "active" || got.Attacks != 200 || got.Later == 0 {
		t.Fatalf("%+v", got)
	}
	// The same file again replaces what it gave.
	if _, err := x.LearnHistory(t.Context(), lesson, nil); err != nil || len(x.learn.attacks) != 200 {
		t.Errorf("%d attacks after the second time (%v)", len(x.learn.attacks), err)
	}
	x.restart()
	m := x.learn.active()
	if m == nil || m.Hash() != got.Model.ID || len(x.learn.attacks) != 200 || x.Reference() == nil {
		t.Fatalf("after a start: model %v, %d attacks", m, len(x.learn.attacks))
	}
	s := learner.NewScratch()
	alarms, n := 0, 0
	lesson.Normals.Each(func(_ time.Time, v *feature.Vector, _, _, _ uint64) {
		if n++; m.Score(v, s).P < 0.01 {
			alarms++
		}
	})
	attack := lesson.Attacks[0].V
	if p := m.Score(&attack, s).P; p > 0.01 || alarms > n/20 {
		t.Errorf("the attack has p %v, and %d of %d normal reports are under 0.01", p, alarms, n)
	}
	open := attack
	open.X[feature.Index("ended")] = 0
	if sc := m.Score(&open, s); sc.PSelf != 1 {
		t.Errorf("of a flow half-way the self part says %v, and it has never seen one", sc.PSelf)
	}
}

// TestShortHistoryKeepsLabels: too little normal traffic makes no model, and the
// labels are kept.
func TestShortHistoryKeepsLabels(t *testing.T) {
	x := newLearned(t)
	lesson, err := history.Learn(t.Context(), []string{oldLog(t, x.now.Add(-time.Hour), 100)}, history.LearnOptions{Now: x.now, Wait: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	got, err := x.LearnHistory(t.Context(), lesson, nil)
	if err != nil || got.Model != nil || !strings.Contains(got.Words, "no model was trained") {
		t.Fatalf("%+v %v", got, err)
	}
	x.restart()
	if len(x.learn.attacks) != 5 || x.learn.active() != nil {
		t.Errorf("%d attacks after a start", len(x.learn.attacks))
	}
}

// served is a client of the node's control socket.
func (x *learned) served() *api.Client {
	x.t.Helper()
	l, err := api.Listen(filepath.Join(x.t.TempDir(), "s"))
	if err != nil {
		x.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- api.Serve(ctx, l, x.Node, nil) }()
	cl := api.NewClient(l.Addr().String())
	x.t.Cleanup(func() {
		cl.Close()
		cancel()
		if err := <-ended; err != nil {
			x.t.Error(err)
		}
	})
	return cl
}

// TestHistoryIsHandedOver: over the control socket a lesson leads to the same model
// and the same words as on the state itself, and how far it is can be heard.
func TestHistoryIsHandedOver(t *testing.T) {
	var got [2]history.Trained
	heard := 0
	for i := range got {
		x := newLearned(t)
		x.slow()
		lesson, err := history.Learn(t.Context(), []string{oldLog(t, x.now.Add(-5*24*time.Hour), 2000)}, history.LearnOptions{Now: x.now, Wait: time.Minute, Options: history.Options{Settle: time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		for j := range lesson.Attacks {
			lesson.Attacks[j].Source = "conn.log"
		}
		teach := x.LearnHistory
		if i == 1 {
			teach = x.served().LearnHistory
		}
		if got[i], err = teach(t.Context(), lesson, func(string) { heard++ }); err != nil {
			t.Fatal(err)
		}
		x.restart() // what was answered is durable
		if m := x.learn.active(); m == nil || m.Hash() != got[i].Model.ID || len(x.learn.attacks) != 100 {
			t.Errorf("after a start: model %v, %d attacks", m, len(x.learn.attacks))
		}
	}
	for i := range got {
		if got[i].Model == nil || got[i].Words != got[0].Words || got[i].Normals != got[0].Normals || got[i].Later != got[0].Later || got[i].Attacks != 100 {
			t.Errorf("handed over: %+v, on the state: %+v", got[1], got[0])
		}
	}
	if heard < 4 {
		t.Errorf("%d words on the way: expected several", heard)
	}
}

// TestHandedOverLabelsStay: what is too short for a model leaves its labels with a
// site that runs, once however often it is handed over; and what is no lesson is
// refused and changes nothing.
func TestHandedOverLabelsStay(t *testing.T) {
	x := newLearned(t)
	cl := x.served()
	lesson, err := history.Learn(t.Context(), []string{oldLog(t, x.now.Add(-time.Hour), 100)}, history.LearnOptions{Now: x.now, Wait: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := cl.LearnHistory(t.Context(), lesson, nil)
		if err != nil || got.Model != nil || got.Attacks != 5 || len(x.learn.attacks) != 5 {
			t.Fatalf("%+v %v, %d attacks", got, err, len(x.learn.attacks))
		}
	}
	for i := range lesson.Attacks {
		lesson.Attacks[i].Weight = 7
	}
	if _, err := cl.LearnHistory(t.Context(), lesson, nil); !errors.Is(err, api.ErrInvalid) || !strings.Contains(err.Error(), "field weight") {
		t.Errorf("a broken lesson: %v", err)
	}
	if len(x.learn.attacks) != 5 {
		t.Errorf("%d attacks after a refusal", len(x.learn.attacks))
	}
	b, err := cl.HistoryBasis(t.Context())
	if err != nil || b.Wait != time.Minute || !b.Now.Equal(x.now) || b.Reference != nil {
		t.Errorf("basis %+v %v", b, err)
	}
}

// TestOwnTrafficOutlivesHistory: a site that has seen traffic keeps at least half of
// it, however long the history is that it is handed.
func TestOwnTrafficOutlivesHistory(t *testing.T) {
	x := newLearned(t)
	x.see(6000)
	own := x.learn.pool.Len()
	mine := func() (n int) {
		x.learn.pool.Each(func(at time.Time, _ *feature.Vector, _, _, _ uint64) {
			if at.After(x.now.Add(-time.Hour)) {
				n++
			}
		})
		return n
	}
	if mine() != own || own < 1000 {
		t.Fatalf("%d of %d are the site's own", mine(), own)
	}
	pool, err := learner.NewReservoir(learner.ReservoirOptions{Size: 8192})
	if err != nil {
		t.Fatal(err)
	}
	old := x.now.Add(-30 * 24 * time.Hour)
	for i := range 8192 {
		v := x.ordinary()
		pool.Add(old.Add(time.Duration(i)*time.Second), &v, uint64(100+i%50), uint64(200+i%90), uint64(300+i%40))
	}
	_, got := x.learn.takeHistory(&history.Lesson{Normals: pool})
	if n := mine(); n < own/2 || x.learn.pool.Len() <= n {
		t.Errorf("%d of %d of the site's own are left beside %d old ones (%+v)", n, own, x.learn.pool.Len()-n, got)
	}
}
