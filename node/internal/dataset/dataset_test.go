package dataset

import (
	"compress/gzip"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
	"github.com/hedgerow-mesh/hedgerow/node/internal/lines"
)

const small = `# the columns of the file below
label = "kind"
normal = ["ok", "fine"]
words = ["proto"]
ignore = ["id"]
absent = ["-"]
time = "start"
split = "time"
[classes]
scan4 = "scan"
scan6 = "scan"
`

func mapping(t *testing.T, s string) *Mapping {
	t.Helper()
	m, err := ParseMapping(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	if strings.HasSuffix(name, ".gz") {
		z := gzip.NewWriter(f)
		_, err = z.Write([]byte(text))
		if err == nil {
			err = z.Close()
		}
	} else {
		_, err = f.WriteString(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestReadBringsColumnsIntoRoles(t *testing.T) {
	text := "\ufeffid,start,bytes,proto,kind\r\n1,10,5,tcp,ok\r\n2,12.5,-,\"u\"\"d,p\",scan4\r\n\n3,11,5,tcp,fine\n4,13,1e3,-,scan6\n5,14,2,tcp,worm\n"
	for _, name := range []string{"a.csv", "a.csv.gz"} {
		tab, rep, err := Read(mapping(t, small), Part{File: write(t, name, text)})
		if err != nil {
			t.Fatal(err)
		}
		if rep.Rows != 5 || rep.Bad != 0 || len(tab.Columns) != 2 {
			t.Fatalf("%+v with %d columns", rep, len(tab.Columns))
		}
		if got := fmt.Sprint(tab.Class.Names, tab.Class.Of, tab.Family.Names, tab.Family.Of, tab.Time, tab.Group); got !=
			"[normal scan worm] [0 1 0 1 2] [normal scan4 scan6 worm] [0 1 0 2 3] [10 12.5 11 13 14] [0 1 0 2 3]" {
			t.Fatal(got)
		}
		num, words := tab.Columns[0], tab.Columns[1]
		if num.Num[0] != 5 || num.Num[3] != 1000 || !math.IsNaN(float64(num.Num[1])) {
			t.Fatalf("numbers %v", num.Num)
		}
		if got := fmt.Sprintf("%q %v", words.Words, words.Word); got != `["tcp" "u\"d,p"] [0 1 0 -1 0]` {
			t.Fatal(got)
		}
	}
}

// TestFaultsAreNamed wants file, line and column of each kind of malformed row,
// and the rest to be read.
func TestFaultsAreNamed(t *testing.T) {
	lines := []string{"id,start,bytes,proto,kind"}
	for i := range 3000 {
		lines = append(lines, fmt.Sprintf("%d,%d,%d,tcp,ok", i, i, i%7))
	}
	bad := map[int][2]string{ // line: column, words
		5:  {"bytes", `"NaN": expected a finite number`},
		6:  {"bytes", `"1e99": expected a finite number`},
		7:  {"bytes", `"0x10": expected a number`},
		8:  {"bytes", `"": expected a number`},
		9:  {"proto", "expected a word"},
		10: {"start", "invalid syntax"},
		11: {"", "4 cells: expected 5"},
		12: {"", "a quote is not closed"},
		13: {"kind", "expected a word"},
		14: {"bytes", `"1_000": expected a number`},
	}
	for at, cells := range map[int]string{
		5: "1,1,NaN,tcp,ok", 6: "1,1,1e99,tcp,ok", 7: "1,1,0x10,tcp,ok", 8: "1,1,,tcp,ok", 9: "1,1,1," + strings.Repeat("x", 300) + ",ok",
		10: "1,soon,1,tcp,ok", 11: "1,1,1,tcp", 12: `1,1,1,"tcp,ok`, 13: "1,1,1,tcp,", 14: "1,1,1_000,tcp,ok",
	} {
		lines[at-1] = cells
	}
	file := write(t, "a.csv", strings.Join(lines, "\n")+"\n")
	tab, rep, err := Read(mapping(t, small), Part{File: file})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Bad != len(bad) || len(rep.Faults) != len(bad) || tab.Rows() != 3000-len(bad) {
		t.Fatalf("%d rows, %d bad, faults %v", tab.Rows(), rep.Bad, rep.Faults)
	}
	for _, f := range rep.Faults {
		if want := bad[f.Line]; f.File != file || f.Column != want[0] || !strings.Contains(f.Reason, want[1]) {
			t.Errorf("%s: expected column %q and %q", f, want[0], want[1])
		}
	}
}

func TestWrongMappingsAreRefused(t *testing.T) {
	many := "id,start,bytes,proto,kind\n" + strings.Repeat("1,1,many,tcp,ok\n", 30)
	for _, c := range []struct{ name, mapping, text, want string }{
		{"most rows malformed", small, many, `30 of 30 rows are malformed, first`},
		{"missing column", small, "id,bytes,proto,kind\n", `column "start" of the mapping is missing`},
		{"twice", small, "id,id,start,proto,kind\n", `column "id" occurs twice`},
		{"nothing", small, "", "0 rows"},
		{"no feature", `label="a"` + "\n" + `normal=["x"]`, "a\nx\n", "no column is left as a feature"},
	} {
		_, _, err := Read(mapping(t, c.mapping), Part{File: write(t, "a.csv", c.text)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v: expected %q", c.name, err, c.want)
		}
	}
	for text, want := range map[string]string{
		`normal = ["x"]`: "label: expected", `label = "x"`: "normal: expected",
		"label = \"x\"\nnormal = [\"y\"]\nlable = 1": "lable", `label = `: "line 1",
		"label = \"x\"\nnormal = [\"y\"]\nsplit = \"time\"": "time: expected", "label = \"x\"\nnormal = [\"y\"]\nsplit = \"odd\"": "expected group, time or place",
	} {
		if _, err := ParseMapping(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mapping %q: %v: expected %q", text, err, want)
		}
	}
	if _, _, err := Read(mapping(t, small), Part{File: write(t, "a.csv", strings.Repeat("x", maxLine+10))}); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("an endless line: %v", err)
	}
	if _, _, err := Read(mapping(t, small), Part{File: write(t, "a.gz", "")}, Part{File: "absent.csv"}); err == nil {
		t.Error("an absent file was read")
	}
}

func TestFilesOfOneTableAgree(t *testing.T) {
	m := mapping(t, small)
	a := write(t, "a.csv", "id,start,bytes,proto,kind\n1,1,1,tcp,ok\n")
	b := write(t, "b.csv", "id,start,octets,proto,kind\n1,1,1,tcp,ok\n")
	if _, _, err := Read(m, Part{a, "here"}, Part{b, "there"}); err == nil || !strings.Contains(err.Error(), "expected those of the first file") {
		t.Errorf("files of different columns: %v", err)
	}
	tab, _, err := Read(m, Part{a, "here"}, Part{a, "there"})
	if err != nil || fmt.Sprint(tab.Place) != "{[0 1] [here there]}" || tab.Group[0] != tab.Group[1] {
		t.Errorf("two places: %+v, %v", tab, err)
	}
}

// FuzzRead wants no panic and no table that does not hold together.
func FuzzRead(f *testing.F) {
	f.Add("id,start,bytes,proto,kind\n1,10,5,tcp,ok\n2,3,-,udp,scan4\n")
	f.Add("id,start,bytes,proto,kind\n\"1\",10,\"5\",\"t\"\"cp\",ok")
	f.Add("\ufeffkind,start,id,proto\r\nok,1,2,\"")
	f.Fuzz(func(t *testing.T, text string) {
		b := newBuilder(mapping(t, small))
		l, err := lines.New("fuzz", strings.NewReader(text), maxLine)
		if err != nil || b.read(l, Part{File: "fuzz"}) != nil {
			return
		}
		tab := b.table()
		if tab.Rows() != b.report.Rows {
			t.Fatalf("%d rows of %d", tab.Rows(), b.report.Rows)
		}
		if tab.Rows() > 0 {
			if err := tab.Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzMapping(f *testing.F) {
	f.Add(small)
	f.Add("label = 1")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMapping(strings.NewReader(text))
		if err == nil && m.check() != nil {
			t.Fatalf("a mapping that is not checked: %+v", m)
		}
	})
}

// data is the folder of real data.
func data(t *testing.T) string {
	t.Helper()
	return realdata.Dir(t, NSLKDD)
}

func classSizes(tab *tabular.Table) map[string]int {
	out := map[string]int{}
	for _, k := range tab.Class.Of {
		out[tab.Class.Names[k]]++
	}
	return out
}

// TestRealCounts compares what is read with the published counts.
func TestRealCounts(t *testing.T) {
	dir := data(t)
	nsl, train, rep, err := NSLBoth(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(train, nsl.Rows(), rep.Bad, classSizes(nsl)); got != "125973 148517 0 map[dos:53385 normal:77054 probe:14077 r2l:3882 u2r:119]" {
		t.Errorf("nsl-kdd: %s", got)
	}
	if len(nsl.Columns) != 40 || len(nsl.Family.Names) != 40 {
		t.Errorf("nsl-kdd: %d columns, %d families: %v", len(nsl.Columns), len(nsl.Family.Names), nsl.Family.Names)
	}
	un, rep, err := UNSW(dir)
	if err != nil {
		t.Fatal(err)
	}
	groups := map[int]bool{}
	for _, g := range un.Group {
		groups[g] = true
	}
	if un.Rows() != 82332 || rep.Bad != 0 || len(groups) != 53946 || len(un.Columns) != 42 || classSizes(un)["Worms"] != 44 {
		t.Errorf("unsw-nb15: %d rows, %d bad, %d groups, %d columns, %v", un.Rows(), rep.Bad, len(groups), len(un.Columns), classSizes(un))
	}
	w, rep, err := WestermoFlows(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s := classSizes(w); rep.Bad != 0 || s["GOOD-SSH"] != 0 || s["BAD-SSH"] < 2900 || len(w.Place.Names) != 3 || w.Time == nil {
		t.Errorf("westermo: %d bad, %v, places %v", rep.Bad, s, w.Place.Names)
	}
	for _, c := range w.Columns {
		if strings.Contains(c.Name, "Address") || strings.Contains(c.Name, "IP") || strings.Contains(c.Name, "MAC") || strings.HasPrefix(c.Name, "start") || strings.Contains(c.Name, "Label") {
			t.Errorf("westermo: column %s is a feature", c.Name)
		}
	}
}
