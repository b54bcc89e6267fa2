//go:build !race

package sim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

// Every set that is made of files is in the list of what they have to be.
func TestDataCheckKnowsAllSets(t *testing.T) {
	lib := Builtin()
	for _, name := range lib.DataSets(t.TempDir()) {
		want := contents[name]
		set, err := lib.set(name)
		if err != nil || len(want.sha256) != len(set.Files("")) || want.rows["normal"] == 0 {
			t.Errorf("%s: %d hashes for %d files, %v, %v", name, len(want.sha256), len(set.Files("")), want.rows, err)
		}
	}
}

func TestDataCheckSaysWhatIsWrong(t *testing.T) {
	lib, dir := Builtin(), t.TempDir()
	c, err := lib.CheckSet(dataset.IoTID20, dir)
	if err != nil || c.State != DataAbsent || !strings.Contains(c.String(), "IoT_2020_b_0.01_fs.csv.gz: put it there, or give the folder") {
		t.Errorf("absent: %v, %v", c, err)
	}
	file := filepath.Join(dir, filepath.FromSlash(dataset.CICFile(dataset.IoTID20)))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, file, "something else")
	c, err = lib.CheckSet(dataset.IoTID20, dir)
	if err != nil || c.State != DataOther || !strings.Contains(c.String(), "expected cf5d623f") {
		t.Errorf("other: %v, %v", c, err)
	}
	if _, err := lib.CheckSet("kdd", dir); err == nil || !strings.Contains(err.Error(), "expected a data set, one of") {
		t.Errorf("unknown: %v", err)
	}
	s := small()
	if c, err = lib.CheckScenario(s, dir); err != nil || c.State != DataKnown || c.Rows["normal"] < 2000 {
		t.Errorf("a set without files: %v, %v", c, err)
	}
	s.Depth = DepthMesh
	if _, err := lib.CheckScenario(s, dir); err == nil {
		t.Error("whole nodes have no data to check")
	}
}

// The smaller sets are read in full; TestRealCounts of package dataset reads the others.
func TestDataCheckOnRealData(t *testing.T) {
	folder := realdata.Dir(t, dataset.NSLKDD)
	for _, name := range []string{dataset.Stratosphere, dataset.CICIDS2017, dataset.IoTID20} {
		if c, err := Builtin().CheckSet(name, folder); err != nil || c.State != DataGood {
			t.Errorf("%v, %v", c, err)
		}
	}
	// counts are compared, not only hashes
	lib := Builtin()
	set, err := lib.set(dataset.IoTID20)
	if err != nil {
		t.Fatal(err)
	}
	if c := checkSet(set, folder, nil, map[string]int{"normal": 362, "attack": 5890}, true); c.State != DataOther || !strings.Contains(c.String(), "found rows") {
		t.Errorf("other counts: %v", c)
	}
}

// A list of logs is a data set, with the hashes of the list and of all that it names.
func TestCapturesAreADataSet(t *testing.T) {
	folder := realdata.Dir(t, dataset.Stratosphere+"-zeek")
	slips := filepath.Join(folder, "slips", "dataset")
	list := filepath.Join(t.TempDir(), "list.toml")
	write(t, list, `
[[files]]
file = "`+filepath.Join(folder, "stratosphere-zeek", "010-zeek-mixed", "data", "conn.log.labeled.gz")+`"
[[files]]
file = "`+filepath.Join(slips, "test19-malicious-ssh", "malicious-ssh-bruteforce.pcap")+`"
truth = "attack"
class = "guessing"
place = "slips"
`)
	s := small()
	s.Data = Data{Captures: list}
	s.Sites.Count = 5
	r, err := Run(t.Context(), s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f := r.Last(Test, Mesh); len(r.Hashes) != 3 || f.AUC < 0.9 {
		t.Errorf("%d hashes, %+v", len(r.Hashes), f)
	}
	for text, want := range map[string]string{
		"":                                 "files: found 0",
		"[[files]]\nfile='a'\nkind='x'":    "is not a known key",
		"split='odd'\n[[files]]\nfile='a'": "split: found \"odd\"",
		"[[files]]\ntruth='attack'":        "number 1: file:",
		"[[files]]\nfile='nowhere.pcap'":   "nowhere.pcap",
	} {
		write(t, list, text)
		if _, err := Run(t.Context(), s, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v: expected %q", text, err, want)
		}
	}
}
