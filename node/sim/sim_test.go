package sim

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/federation/robust"
)

// small is a scenario that runs in a moment.
func small() *Scenario {
	s := Default()
	s.Data.Set = MadeUp
	s.Sites.Count, s.Sites.Partition = 11, "iid"
	s.Training = Training{Rounds: 8, Steps: 10, Batch: 16, Rate: 0.1, Hidden: []int{12}}
	s.Measure = Measure{Every: 4, Rows: 600}
	return &s
}

var shared = &benches{lib: Builtin()}

func run(t testing.TB, s *Scenario) *Result {
	t.Helper()
	r, err := Run(t.Context(), s, Options{data: shared})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// files reads all files of a folder.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	list, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if out[filepath.Base(f)], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func same(t testing.TB, a, b string) {
	t.Helper()
	x, y := files(t, a), files(t, b)
	if len(x) == 0 || !slices.Equal(slices.Sorted(maps.Keys(x)), slices.Sorted(maps.Keys(y))) {
		t.Fatalf("files %v and %v", slices.Sorted(maps.Keys(x)), slices.Sorted(maps.Keys(y)))
	}
	for name := range x {
		if !bytes.Equal(x[name], y[name]) {
			t.Errorf("%s differs", name)
		}
	}
}

// Every part that is random or parallel is on: the files are the same on one core
// and on two, and others for another seed.
func TestSameBytesOnAnyNumberOfCores(t *testing.T) {
	s := small()
	s.Sites.Partition, s.Sites.Absent = "dirichlet", 0.1
	s.Gate.On = true
	s.Attackers = Attackers{Attack: "alie", Share: 0.2}
	dir := t.TempDir()
	for _, n := range []int{1, 2} {
		old := runtime.GOMAXPROCS(n)
		err := run(t, s).Save(filepath.Join(dir, string(rune('0'+n))))
		runtime.GOMAXPROCS(old)
		if err != nil {
			t.Fatal(err)
		}
	}
	same(t, filepath.Join(dir, "1"), filepath.Join(dir, "2"))
	one := run(t, s)
	s.Seed = 2
	if two := run(t, s); slices.Equal(one.Rounds, two.Rounds) {
		t.Error("another seed gave the same figures")
	}
}

// A round in which too few are present makes no model, and costs nothing else.
func TestTooFewPresent(t *testing.T) {
	s := small()
	s.Rule.Name, s.Rule.F = robust.NameBulyan, 2 // needs all eleven
	s.Sites.Absent = 0.3
	r := run(t, s)
	if r.unsealed() == 0 || r.unsealed() == len(r.Steps) && r.Last(Test, Mesh).AUC > 0.6 {
		t.Errorf("%d of %d rounds made no model", r.unsealed(), len(r.Steps))
	}
	if !strings.Contains(r.withheld(), "at least 11") {
		t.Errorf("why: %q", r.withheld())
	}
}

func TestPartitions(t *testing.T) {
	b, err := shared.of(small())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range Builtin().Partitions {
		parts, err := deal(p, b.table, Deal{Sites: 9, Alpha: 0.1}, source(1, forPartition, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		seen, all := map[int]bool{}, 0
		for i, rows := range parts {
			if len(rows) < leastRows {
				t.Errorf("%s: site %d has %d rows", p.Name(), i, len(rows))
			}
			for _, r := range rows {
				seen[r] = true
			}
			all += len(rows)
		}
		if all != b.table.Rows() || len(seen) != all {
			t.Errorf("%s dealt %d rows, %d distinct, of %d", p.Name(), all, len(seen), b.table.Rows())
		}
		if p.Name() == "family" {
			knowFamilies(t, b, parts)
		}
		if p.Name() == "time" {
			latest, earliest := b.table.Time[parts[0][len(parts[0])-1]], b.table.Time[parts[1][0]]
			if latest > earliest {
				t.Errorf("time: site 0 ends at %g, site 1 begins at %g", latest, earliest)
			}
		}
	}
	if _, err := deal(iid{}, b.table, Deal{Sites: 1000}, nil); err == nil || !strings.Contains(err.Error(), "sites.count") {
		t.Errorf("a thousand sites of a few rows: %v", err)
	}
}

// knowFamilies wants every family of attacks to be known to one or two of nine sites.
func knowFamilies(t *testing.T, b *bench, parts [][]int) {
	t.Helper()
	for k := range b.table.Family.Names {
		owners := 0
		for _, rows := range parts {
			if slices.ContainsFunc(rows, func(r int) bool { return b.table.Family.Of[r] == k }) {
				owners++
			}
		}
		if k == 0 && owners != 9 || k > 0 && owners > 2 {
			t.Errorf("family %d is known to %d sites of 9", k, owners)
		}
	}
}

// What is wrong is named by its field, in one line.
func TestBadInput(t *testing.T) {
	for text, want := range map[string]string{
		"[rule]\nnaem = 'mean'":  "s.toml:2: rule.naem: is not a known key: did you mean rule.name?",
		"[data]\nset = 'kdd'":    `data.set: found "kdd": expected a data set, one of`,
		"[data]\nfile = 'x.csv'": "data.mapping: expected the file",
		"name = 'nothing'":       "data.set: expected the name",
		"[data]\nset='made-up'\n[sites]\ncount = 20\n[rule]\nname='bulyan'\nf = 5": "rule.f: bulyan:",
		"[data]\nset='made-up'\n[rule]\nname='mean'\nf = 1":                        "rule.f: mean:",
		"[data]\nset='made-up'\n[rule]\nname='best'":                               `rule.name: found "best"`,
		"[data]\nset='made-up'\n[attackers]\nshare = 0.2":                          "attackers.attack: expected",
		"[data]\nset='made-up'\n[attackers]\nattack='x'\nshare = 0.2":              `attackers.attack: found "x"`,
		"[data]\nset='made-up'\n[attackers]\nattack='alie'\nshare = 1.2":           "attackers.share: found 1.2",
		"[data]\nset='made-up'\n[sites]\ncount = 0":                                "sites.count: found 0: expected 1 to",
		"[data]\nset='made-up'\n[sites]\nalpha = nan":                              "sites.alpha: found NaN",
		"[data]\nset='made-up'\n[training]\nhidden = [0]":                          "training.hidden: found 0",
		"[data]\nset='made-up'\nsha256 = ['12']":                                   `data.sha256: found "12": expected 64`,
		"[data]\nset='made-up'\n[gate]\nheld = 1.0":                                "gate.held: found 1",
		"[training]\nrounds = 'many'":                                              "s.toml:2: ",
	} {
		_, err := Parse(strings.NewReader(text), "s.toml", ".", Builtin())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v: expected one line with %q", text, err, want)
		}
	}
}

func TestDataAbsentOrOther(t *testing.T) {
	s := small()
	s.Data = Data{Set: "nsl-kdd"}
	if _, err := Run(t.Context(), s, Options{Folder: t.TempDir()}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "--data") {
		t.Errorf("absent data: %v", err)
	}
	dir := t.TempDir()
	csv, mapping := filepath.Join(dir, "flows.csv"), filepath.Join(dir, "flows.toml")
	write(t, csv, madeCSV())
	write(t, mapping, "label = 'kind'\nnormal = ['ok']\n")
	s.Data = Data{File: csv, Mapping: mapping, SHA256: []string{strings.Repeat("00", 32)}}
	if _, err := Run(t.Context(), s, Options{}); err == nil || !strings.Contains(err.Error(), "data.sha256: "+csv) {
		t.Errorf("other data: %v", err)
	}
	s.Data.SHA256 = nil
	r, err := Run(t.Context(), s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Data.SHA256 = r.Hashes
	if r, err = Run(t.Context(), s, Options{}); err != nil || r.Last(Test, Mesh).AUC < 0.9 {
		t.Errorf("a CSV file with its hash: %v, %+v", err, r.Last(Test, Mesh))
	}
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// madeCSV is a table in which the sum of two numbers tells attacks.
func madeCSV() string {
	var b strings.Builder
	b.WriteString("a,b,kind\n")
	rng := source(1, 99, 0, 0)
	for range 1500 {
		x, y := rng.NormFloat64(), rng.NormFloat64()
		kind := "ok"
		if x+y > 0.5 {
			kind = "bad"
		}
		b.WriteString(strings.Join([]string{number(x), number(y), kind}, ",") + "\n")
	}
	return b.String()
}

// The template is the defaults, with the attackers that it shows.
func TestTemplate(t *testing.T) {
	s, err := Parse(strings.NewReader(Template), "first.toml", ".", Builtin())
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Name, want.Data.Set, want.Attackers = "first", "nsl-kdd", Attackers{"alie", 0.2}
	a, _ := s.Encode()
	b, _ := want.Encode()
	if !bytes.Equal(a, b) {
		t.Errorf("the template says\n%s\nthe defaults are\n%s", a, b)
	}
	for _, k := range keys() {
		if last := k[strings.LastIndex(k, ".")+1:]; !strings.Contains(Template, last+" = ") {
			t.Errorf("the template does not show %s", k)
		}
	}
}

// FuzzParse wants what is accepted to be read back as the same.
func FuzzParse(f *testing.F) {
	f.Add(Template)
	f.Add("[data]\nset='made-up'\n[rule]\nf=-1\n[sites]\ncount=7")
	lib := Builtin()
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(strings.NewReader(text), "s.toml", ".", lib)
		if err != nil {
			return
		}
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(bytes.NewReader(b), "s.toml", ".", lib)
		if err != nil {
			t.Fatalf("%v in\n%s", err, b)
		}
		if c, _ := again.Encode(); !bytes.Equal(b, c) {
			t.Errorf("\n%s\nbecame\n%s", b, c)
		}
	})
}
