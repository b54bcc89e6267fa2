//go:build linux

package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
)

// TestMain lets the test binary be the process that is killed, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "be-doomed" {
		if err := Doomed(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func needKernel(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("HEDGEROW_KERNEL_TESTS") == "1" {
		t.Fatal("HEDGEROW_KERNEL_TESTS=1 but not root")
	}
	t.Skip("needs root: it loads programs and makes network namespaces")
}

// Every row but forward, which has a test of its own, is measured, with
// verdicts that are exact in each round (a wrong one would be an error), and
// nothing came through the ordeal. How fast all that was is not asked.
func TestQuickMeasuresEveryRow(t *testing.T) {
	needKernel(t)
	names, _ := Rows()
	names = slices.DeleteFunc(names, func(n string) bool { return n == "forward" })
	steps := map[string]int{}
	r, err := Run(t.Context(), Options{
		Quick: true, Rounds: 2, Only: names, Doomed: []string{os.Args[0], "be-doomed"},
		Progress: func(p Progress) { steps[p.Row]++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*Row{}
	for i := range r.Rows {
		found[r.Rows[i].ID] = &r.Rows[i]
	}
	for _, n := range names {
		row := found[n]
		switch {
		case row == nil:
			t.Errorf("row %s is missing", n)
		case row.Absent == "" && (len(row.Series) == 0 || row.Packets == 0 || steps[n] == 0):
			t.Errorf("row %s: %d series, %d packets checked, %d steps told: expected some of each", n, len(row.Series), row.Packets, steps[n])
		}
	}
	if l := found["leaks"]; l != nil && l.Absent == "" && (l.Series[0].Values[0] != 0 || l.Packets < 200000) {
		t.Errorf("leaks: %g of %d packets came through: expected none of at least 200000", l.Series[0].Values[0], l.Packets)
	}
	if h := found["hot"]; h != nil && len(h.Curve) < 2 {
		t.Errorf("hot: a curve of %d sizes: expected at least 2", len(h.Curve))
	}
	for _, id := range []string{"hot", "random", "miss"} {
		checkPeers(t, found[id])
	}
	checkFlows(t, found["flow"], found["flood"])
	checkOutput(t, r)
}

// Every peer that is installed takes part, and only such.
func checkPeers(t *testing.T, row *Row) {
	t.Helper()
	if row == nil {
		return // said already
	}
	for name, there := range map[string]bool{
		nftBouncer.name: installed("nft"), nftInterval.name: installed("nft"), sets: installed("ipset", "iptables"), fltr: installed("xdp-filter"),
	} {
		if got := series(row.Series, name) != nil; got != there {
			t.Errorf("row %s: %s takes part %v: expected %v", row.ID, name, got, there)
		}
	}
}

// Both tables of flows take part, at every size, and ours leaves at least as many
// flows alone as the other.
func checkFlows(t *testing.T, flow, flood *Row) {
	t.Helper()
	if flow == nil || flood == nil {
		return // said already
	}
	for _, row := range []*Row{flow, flood} {
		if len(row.Curve) != 2 || row.Axis == "" || series(row.Series, ours) == nil || series(row.Series, lru) == nil {
			t.Errorf("row %s: %d sizes of %q, %d series: expected 2, and both tables", row.ID, len(row.Curve), row.Axis, len(row.Series))
		}
	}
	for _, name := range []string{keptOurs, keptLRU} {
		s := series(flood.Series, name)
		if s == nil || len(s.Values) != 2 || slices.Min(s.Values) < 0 || slices.Max(s.Values) > 100 {
			t.Errorf("%s: %+v: expected shares of two floods", name, s)
		}
	}
	if worst := flood.Ratios[len(flood.Ratios)-1]; !worst.Met() {
		t.Errorf("%s", worst)
	}
}

func checkOutput(t *testing.T, r *Report) {
	t.Helper()
	var text strings.Builder
	if err := r.Print(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{r.Object, "QUICK", "all exact", "hedgerow"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table lacks %q", want)
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil || len(back.Rows) != len(r.Rows) || back.Object != r.Object {
		t.Errorf("JSON does not come back as it went: %v", err)
	}
	if t.Failed() {
		t.Log(text.String())
	}
}

// A wrong verdict fails the measurement: here the list is empty, and all that
// should be dropped passes.
func TestWrongVerdictsFail(t *testing.T) {
	needKernel(t)
	w, err := newWire(100)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	m, err := newPlane(planeOptions{flows: 65536})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	x, err := w.receive(ours, attach(func() (*xdpbench.Program, error) { return xdpbench.Hedgerow(ours, m.Measured) }))
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	if err := w.stream.SetSources(sources(populate(100).listed, 100)); err != nil {
		t.Fatal(err)
	}
	r := &runner{}
	var row Row
	if _, err := r.wireRound(x, 10000, true, m, &row); err == nil || !strings.Contains(err.Error(), "verdicts") {
		t.Errorf("error %v: expected one about verdicts", err)
	}
	if _, err := r.wireRound(x, 10000, false, m, &row); err != nil {
		t.Errorf("the same packets, expected to pass: %v", err)
	}
}
