package evaluate

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

// logOf writes a Zeek log of flows that a function gives by their number.
func logOf(t *testing.T, name string, n int, line func(i int, rng *rand.Rand) string) string {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, uint64(n)))
	var b strings.Builder
	for i := range n {
		b.WriteString(line(i, rng) + "\n")
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// zeek is a line of conn.log: a flow of a host to a port, with some kilobytes back.
func zeek(at float64, host, to string, port, sent, got int, state string) string {
	return fmt.Sprintf(`{"ts":%.3f,"uid":"C%.0f","id.orig_h":%q,"id.orig_p":%d,"id.resp_h":%q,"id.resp_p":%d,"proto":"tcp","duration":%.3f,"orig_bytes":%d,"resp_bytes":%d,"conn_state":%q,"local_orig":%t,"local_resp":%t,"missed_bytes":0,"history":"ShADadFf","orig_pkts":%d,"orig_ip_bytes":%d,"resp_pkts":%d,"resp_ip_bytes":%d}`,
		at, at*1000, host, 30000+int(at)%30000, to, port, 0.2+float64(got)/1e6, sent, got, state, strings.HasPrefix(host, "10."), strings.HasPrefix(to, "10."), 4+sent/1000, 4*40+sent, 4+got/1000, 4*40+got)
}

// office is a day of a host that calls a few web servers.
func office(t *testing.T) string {
	return logOf(t, "office.log", 900, func(i int, rng *rand.Rand) string {
		return zeek(1.7e9+float64(i)*40+20*rng.Float64(), "10.0.0.7", fmt.Sprintf("203.0.113.%d", 1+rng.IntN(6)), 443, 400+rng.IntN(900), 3000+rng.IntN(20000), "SF")
	})
}

// knock is somebody outside who tries port after port and gets nothing.
func knock(t *testing.T) string {
	return logOf(t, "knock.log", 80, func(i int, _ *rand.Rand) string {
		return strings.ReplaceAll(zeek(1.6e9+float64(i)/2, "198.51.100.4", "10.0.0.7", 1000+i, 0, 0, "REJ"), "ShADadFf", "Sr")
	})
}

func readFor(t *testing.T, o Options) *field {
	t.Helper()
	o.Progress = func(string) {}
	f := &field{o: &o, campaigns: []dataset.Campaign{{Name: "knock", File: o.Dataset, Of: dataset.NotHarmless}}, hosts: o.Normal}
	if err := f.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// A campaign is put into the day whole, in order, and nothing else is changed.
func TestACampaignJoinsTheDay(t *testing.T) {
	f := readFor(t, Options{Dataset: knock(t), Normal: []string{office(t)}})
	day, c := f.watched, f.traces[0]
	both := day.at(0.5, c)
	if len(both) != len(day)+len(c) || !slices.IsSortedFunc(both, byTime) {
		t.Fatalf("%d reports of %d and %d, in order %v", len(both), len(day), len(c), slices.IsSortedFunc(both, byTime))
	}
	flows, from, to := both.attacks()
	if middle := (day.begin() + day.end()) / 2; from != middle || flows != 80 {
		t.Errorf("%d flows from %d on, expected 80 from %d", flows, from, middle)
	}
	if _, was, until := c.attacks(); to-from != until-was {
		t.Errorf("it takes %d, and took %d before", to-from, until-was)
	}
}

// Rules alone tell of a scan, with few of its flows over, and of nothing else;
// without rules and model nothing is told.
func TestWatchingWithRules(t *testing.T) {
	f := readFor(t, Options{Dataset: knock(t), Normal: []string{office(t)}})
	day := f.watched.at(0.3, f.traces[0])
	for _, rules := range []bool{true, false} {
		o, err := (&gateway{rules: rules}).watch(f.teach, day)
		if err != nil {
			t.Fatal(err)
		}
		if o.attacks != 80 || o.flows != 360 || o.alarms != 0 || o.incidents != 0 || o.days <= 0 {
			t.Errorf("rules %v: %+v", rules, o)
		}
		if found := o.sure >= 0 && o.sure < 40 && o.by == "rule:scan"; found != rules {
			t.Errorf("rules %v: %+v", rules, o)
		}
	}
}

// Each tactic changes the campaign as it says, by more the more it costs, leaves
// what is beside alone, and at no cost changes nothing.
func TestTacticsChangeOnlyTheCampaign(t *testing.T) {
	f := readFor(t, Options{Dataset: office(t), Normal: []string{office(t)}})
	base := f.traces[0]
	base[5].attack, base[5].beside = false, true
	beside := base[5].rec
	measure := map[string]func(trace) float64{
		"padding": func(t trace) (sum float64) {
			for i := range t {
				sum += float64(t[i].rec.Dir[0].Payload)
			}
			return sum
		},
		"jitter": func(t trace) (moved float64) {
			by := map[uint64]int64{}
			for i := range base {
				by[base[i].rec.ID] = base[i].rec.Start
			}
			for i := range t {
				d := t[i].rec.Start - by[t[i].rec.ID]
				moved += float64(max(d, -d))
			}
			return moved
		},
		"low and slow": func(t trace) float64 { _, from, to := t.attacks(); return float64(to - from) },
		"many sources": func(t trace) float64 {
			from := map[string]bool{}
			for i := range t {
				from[t[i].rec.Initiator().Addr().String()] = true
			}
			return float64(len(from))
		},
	}
	for _, tc := range tactics {
		before := measure[tc.name](base)
		for step, cost := range tc.costs {
			got := tc.apply(slices.Clone(base), cost, rand.New(rand.NewPCG(1, 2)))
			m := measure[tc.name](got)
			if step == 0 && m != before || step > 0 && m <= before {
				t.Errorf("%s at %v: %v after %v", tc.name, cost, m, before)
			}
			before = m
			if !slices.ContainsFunc(got, func(x report) bool { return x.beside && x.rec == beside }) {
				t.Errorf("%s at %v changes what is beside", tc.name, cost)
			}
		}
	}
}

func TestTimelyCountsWhatWasNeverFound(t *testing.T) {
	got := timely([]outcome{{attacks: 10, told: 0, sure: 2, by: "self"}, {attacks: 10, told: -1, sure: -1}, {attacks: 10, told: 1, sure: 5, by: "self"}})
	if got.Told != 0.1 || got.Sure != 0.5 || got.Half < 0.33 || got.Half > 0.34 || got.By != "self" || got.Runs[1] != 1 {
		t.Errorf("%+v", got)
	}
}
