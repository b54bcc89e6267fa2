package mesh

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation/council"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// small is a measurement of few sites: whether it measures, not what.
func small(only ...string) Options {
	return Options{Only: only, Sites: leastSites, Messages: 2, Rounds: 1, Params: 64, Flood: 100 * time.Millisecond, Quick: true}
}

// measured runs one row and checks its figures.
func measured(t *testing.T, id string, figures int) *Row {
	t.Helper()
	r, err := Run(t.Context(), small(id))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 1 || r.Rows[0].ID != id || len(r.Rows[0].Figures) != figures {
		t.Fatalf("%+v: expected one row %s of %d figures", r.Rows, id, figures)
	}
	for _, f := range r.Rows[0].Figures {
		if !(f.Value > 0) && id != "flood" { // what a flood leaves is what is measured
			t.Errorf("%s: %g", f.Name, f.Value)
		}
	}
	return &r.Rows[0]
}

// Whole nodes enforce each other's blocks, at each of the other sites.
func TestEnforce(t *testing.T) {
	row := measured(t, "enforce", 4)
	if n := len(row.Series[0].MS); n != 2*(leastSites-1) {
		t.Errorf("%d delays of 2 blocks at %d other sites each", n, leastSites-1)
	}
}

func TestQuery(t *testing.T) {
	row := measured(t, "query", 5)
	if len(row.Series[0].MS) != 2 || len(row.Series[1].MS) < leastSites-3 {
		t.Errorf("%d questions, %d sites led to a block", len(row.Series[0].MS), len(row.Series[1].MS))
	}
}

// A round becomes final at every site, and its bytes are counted: each site sends
// its update to the others.
func TestRound(t *testing.T) {
	row := measured(t, "round", 5)
	if n := len(row.Series[1].MS); n != 1 {
		t.Errorf("%d rounds", n)
	}
	for _, kind := range []wire.Kind{wire.KindCommit, wire.KindReveal, wire.KindProposal, wire.KindVote, "request"} {
		if !strings.Contains(row.Notes[1], string(kind)+" ") {
			t.Errorf("%s is not among what a round takes: %s", kind, row.Notes[1])
		}
	}
	for _, step := range []string{council.Entered, council.Committed, council.Sealed} {
		if !strings.Contains(row.Notes[0], step+" ") {
			t.Errorf("%s is not among the steps of a round: %s", step, row.Notes[0])
		}
	}
	if sent := row.Figures[2].Value; sent < 64*4/1e6 {
		t.Errorf("%g MB sent in a round of 64 parameters", sent)
	}
}

func TestAggregate(t *testing.T) { measured(t, "aggregate", 3) }

// Honest sites' words are counted with and without a flood, and never more of them
// than there were.
func TestFlood(t *testing.T) {
	row := measured(t, "flood", 18)
	for _, f := range row.Figures {
		if strings.HasPrefix(f.Name, "flood") && f.Value <= 0 {
			t.Errorf("%s: %g", f.Name, f.Value)
		}
		if strings.HasSuffix(f.Name, "delivered") && f.Value > 100 {
			t.Errorf("%s: %g %%", f.Name, f.Value)
		}
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"row": {Only: []string{"nonsense"}}, "sites": {Sites: 65}, "few sites": {Sites: 6},
		"messages": {Messages: -1}, "flood": {Flood: time.Hour}, "params": {Params: 1 << 20},
	} {
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The table says of each target whether it was met, the figures come back from
// JSON, and what has many delays is drawn.
func TestReport(t *testing.T) {
	delays := make([]time.Duration, 200)
	for i := range delays {
		delays[i] = time.Duration(i+1) * time.Millisecond
	}
	s := series("hare", delays)
	if s.at(0.5) != 100 || s.at(0.99) != 198 || s.at(1) != 200 || (&Series{}).at(0.5) != 0 {
		t.Errorf("p50 %g, p99 %g, most %g", s.at(0.5), s.at(0.99), s.at(1))
	}
	r := &Report{Quick: true, Rows: []Row{{ID: "a", Title: "races", Sites: 3, Series: []Series{s}, Figures: append(s.delays(50, 500),
		Figure{Name: "came", Value: 99.99, Unit: "%", Target: 99.9, AtLeast: true})}}}
	var text strings.Builder
	if err := r.Print(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"QUICK", "NOT met", "wanted at most 500", "99.990 %", "wanted at least 99.9"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, text.String())
		}
	}
	b, err := json.Marshal(r)
	var back Report
	if err != nil || json.Unmarshal(b, &back) != nil || len(back.Rows[0].Series[0].MS) != 200 {
		t.Errorf("%v: %+v", err, back)
	}
	files, err := r.Plot(t.TempDir())
	if err != nil || len(files) != 1 {
		t.Fatalf("%v: %v", files, err)
	}
	if svg, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(svg), "hare") {
		t.Errorf("%v: %.100s", err, svg)
	}
}
