package evaluate

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

const toml = `label = "kind"
normal = ["ok"]
words = ["proto"]
`

// table is a CSV file with two families of attacks that differ from normal, one
// of them in how two columns go together.
func table(t *testing.T, n int) string {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	var b strings.Builder
	b.WriteString("a,b,noise,proto,kind\n")
	for range n {
		x, y := rng.NormFloat64(), 0.1*rng.NormFloat64()
		kind, proto := "ok", []string{"tcp", "udp"}[rng.IntN(2)]
		switch rng.IntN(6) {
		case 0:
			kind, y = "far<b>", y+6 // a name that wants to break out of a page
		case 1:
			kind, y = "crossed", -2*x-4
		}
		fmt.Fprintf(&b, "%.4f,%.4f,%.4f,%s,%s\n", x, x+y, rng.Float64(), proto, kind)
	}
	file := filepath.Join(t.TempDir(), "flows.csv")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// rows are few, so that every test run can afford them.
const rows = 2000

func options(t *testing.T) Options {
	t.Helper()
	m, err := dataset.ParseMapping(strings.NewReader(toml))
	if err != nil {
		t.Fatal(err)
	}
	return Options{Dataset: table(t, rows), Mapping: m, Quick: true, Seeds: 1}
}

func TestReportHoldsTogether(t *testing.T) {
	o := options(t)
	o.Seeds = 2
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.AUC < 0.95 || r.MacroF1 < 0.9 || r.At5 < r.At1 {
		t.Errorf("figures %v %v %v %v", r.AUC, r.At1, r.At5, r.MacroF1)
	}
	if len(r.Models) != 10 || r.Models[0].Name != Ours || r.Models[0].AUC != r.AUC || len(r.Against) != 9 {
		t.Fatalf("models %+v", r.Models)
	}
	for _, m := range r.Models {
		if len(m.Seeds) != 2 || m.Bounds.Low > m.Bounds.Value || m.Bounds.High < m.Bounds.Value {
			t.Errorf("%s: %+v", m.Name, m)
		}
	}
	var attacks int
	for _, f := range r.Families {
		attacks += f.Rows
	}
	if attacks != r.TestAttacks || len(r.Families) != 2 {
		t.Errorf("families of %d rows: %d attacks", attacks, r.TestAttacks)
	}
	var all float64
	for _, row := range r.Confusion {
		for _, x := range row {
			all += x
		}
	}
	if int(all) != r.Test || r.Train+r.Test != rows {
		t.Errorf("confusion of %v rows: %d and %d", all, r.Train, r.Test)
	}
	// The control is the mean of five: chance alone moves each.
	var control float64
	for _, c := range r.Control {
		control += c / float64(len(r.Control))
	}
	if control < 0.4 || control > 0.6 {
		t.Errorf("trained on shuffled labels: AUC %v", r.Control)
	}
	checkJSON(t, r)
	checkPage(t, r)
}

// checkJSON wants the main figures at the top level.
func checkJSON(t *testing.T, r *Report) {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var top map[string]any
	if err := json.Unmarshal(b, &top); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"auc", "dr_at_1pct", "dr_at_5pct", "macro_f1"} {
		if x, ok := top[key].(float64); !ok || !(x > 0 && x <= 1) {
			t.Errorf("%s: %v", key, top[key])
		}
	}
}

// checkPage wants a page that parses, loads nothing and runs nothing.
func checkPage(t *testing.T, r *Report) {
	t.Helper()
	var b strings.Builder
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<script", "http-equiv", "src=", "href=", "far<b>"} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	d := xml.NewDecoder(strings.NewReader(b.String()))
	d.Strict, d.Entity, d.AutoClose = false, xml.HTMLEntity, xml.HTMLAutoClose
	var page struct{} // every element is closed where it must be
	if err := d.Decode(&page); err != nil {
		t.Error(err)
	}
	if plots := strings.Count(b.String(), "<svg"); plots != 5 {
		t.Errorf("%d plots: expected 5", plots)
	}
}

func TestZeroDayOfACSV(t *testing.T) {
	o := options(t)
	o.ZeroDay = true
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.ZeroDay) != 2 || len(r.ZeroDay[0].Ways) != 1 || r.AUC != 0 || len(r.Models) != 0 {
		t.Fatalf("%+v", r)
	}
	for _, x := range r.ZeroDay {
		if x.Self.AUC < 0.8 || x.Self.AUC > 1 || x.Rows == 0 {
			t.Errorf("%+v", x)
		}
	}
	var b strings.Builder
	if err := errors.Join(r.Print(&b), r.HTML(&b)); err != nil || !strings.Contains(b.String(), "crossed") {
		t.Errorf("%v, printed %q", err, b.String())
	}
}

func TestRunRefuses(t *testing.T) {
	for _, o := range []Options{{Dataset: "kdd-2050"}, {Dataset: "nsl-kdd", Seeds: 1000}, {Dataset: "nsl-kdd", Data: "nowhere"}} {
		if _, err := Run(t.Context(), o); err == nil || !strings.HasPrefix(err.Error(), "evaluate: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
