package node

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
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
	got, err := x.LearnHistory(t.Context(), lesson)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(got.Words)
	if got.Model == nil || got.Model.Stage != "active" || got.Attacks != 200 || got.Later == 0 {
		t.Fatalf("%+v", got)
	}
	// The same file again replaces what it gave.
	if _, err := x.LearnHistory(t.Context(), lesson); err != nil || len(x.learn.attacks) != 200 {
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
	got, err := x.LearnHistory(t.Context(), lesson)
	if err != nil || got.Model != nil || !strings.Contains(got.Words, "no model was trained") {
		t.Fatalf("%+v %v", got, err)
	}
	x.restart()
	if len(x.learn.attacks) != 5 || x.learn.active() != nil {
		t.Errorf("%d attacks after a start", len(x.learn.attacks))
	}
}
