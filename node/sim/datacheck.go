package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

// content is what a data set that comes with the library has to be: the hashes of
// its files, and how many rows of each class are read from them, all together.
type content struct {
	sha256 []string
	rows   map[string]int
}

// contents are those of the library's sets that are files. The hashes are of the
// packed files; the counts are those that their publishers state, where they do.
var contents = map[string]content{
	dataset.NSLKDD: {
		[]string{"39e78eaceffb1a183af002b4994b100b69795895bfbf67cfc62dabd4c9b76d4e", "1ebe1079af669e3c35ef7be25b5bafde1e47951244d1b4834682b14a22238da1"},
		map[string]int{"normal": 77054, "dos": 53385, "probe": 14077, "r2l": 3882, "u2r": 119},
	},
	dataset.UNSWNB15: {
		[]string{"611e2b334b3980ce1a7208a5ca55f751472b9dc47b8382e19b6bf89701ca31f7"},
		map[string]int{"normal": 37000, "Generic": 18871, "Exploits": 11132, "Fuzzers": 6062, "DoS": 4089, "Reconnaissance": 3496,
			"Analysis": 677, "Backdoor": 583, "Shellcode": 378, "Worms": 44},
	},
	dataset.Westermo: {
		[]string{"77199a75a6d392658e12f9541ee721e79023bd0e633c1004a28e4aba60e0f52b",
			"a82c978c692d698e0af7d942ddc6e70e21cf54a97f0b3c9dee6718c220cd74c1", "89d533c768976bd56abce8990c35302ce68f33d1331aa29daf85b94bf9c8af05"},
		map[string]int{"normal": 35674, "BAD-MISCONF": 2618, "BAD-MISCONF-DUPLICATION": 3052, "BAD-MITM": 682, "BAD-PORTSCAN1": 265,
			"BAD-PORTSCAN2": 1986, "BAD-SSH": 2964},
	},
	dataset.Stratosphere: {
		[]string{"7eb9b45e210045767e92082c41591d28af667ecd008bd838d8d2cd79d670b1d6",
			"7cf9cb711a173587f49346ecfae117771c7f0282b8a67e820b159de9f566dacc", "a192ffbed692015e1a20098defbe8add9abcd668e1cbe505417df10a05c47c37"},
		map[string]int{"normal": 8110, "external": 11525},
	},
	dataset.CICIDS2017: {
		[]string{"84b6ef6ad36fb70419816e07c7fe18947e1d960679a27a530b79f649a552eb50"},
		map[string]int{"normal": 4000, "dos": 2300, "scan": 1500, "ddos": 1000, "guessing": 900, "web": 271},
	},
	dataset.CICKMeans: {
		[]string{"62c5b0d7e2984fa29494203f36d0831979a4732159e8677fb89ea0a5d73b3311"},
		map[string]int{"normal": 22662, "attack": 5641},
	},
	dataset.IoTID20: {
		[]string{"cf5d623f36f0824fcc2e4c67f8d5d0da2998bfaee447a523010264e5ca15285b"},
		map[string]int{"normal": 361, "attack": 5891},
	},
}

// DataState is what is found of a data set.
type DataState string

// States of a data set.
const (
	DataGood   DataState = "good"
	DataAbsent DataState = "absent"
	DataOther  DataState = "other data"
	DataKnown  DataState = "read" // there is nothing to compare it with
)

// DataCheck is what was found of one data set.
type DataCheck struct {
	Name   string
	State  DataState
	Why    string         // in words, unless good
	Rows   map[string]int // of each class; nil where it was not read
	Hashes []string
}

// String is the check in a line.
func (c *DataCheck) String() string {
	line := fmt.Sprintf("%s: %s", c.Name, c.State)
	if c.Why != "" {
		return line + ": " + c.Why
	}
	var of []string
	all := 0
	for _, name := range slices.Sorted(maps.Keys(c.Rows)) {
		of = append(of, fmt.Sprintf("%s %d", name, c.Rows[name]))
		all += c.Rows[name]
	}
	return fmt.Sprintf("%s: %d files, %d rows: %s", line, len(c.Hashes), all, strings.Join(of, ", "))
}

// DataSets names the library's sets, those made of no file left out.
func (l *Library) DataSets(folder string) (names []string) {
	for _, s := range l.Sets {
		if len(s.Files(folder)) > 0 {
			names = append(names, s.Name())
		}
	}
	return names
}

// CheckSet compares a set of the library with what it has to be: the hashes of its
// files, and the number of rows of each class.
func (l *Library) CheckSet(name, folder string) (*DataCheck, error) {
	set, err := l.set(name)
	if err != nil {
		return nil, err
	}
	want, known := contents[name]
	return checkSet(set, folder, want.sha256, want.rows, known), nil
}

// CheckScenario compares a scenario's data with the hashes that it names, or where
// it names none with what its set has to be.
func (l *Library) CheckScenario(s *Scenario, folder string) (*DataCheck, error) {
	if s.Depth != DepthRounds {
		return nil, errors.New("data: whole nodes make their own traffic; there is nothing to check")
	}
	set, err := s.Data.in(l)
	if err != nil {
		return nil, err
	}
	want, known := contents[s.Data.Set]
	if len(s.Data.SHA256) > 0 {
		want.sha256, known = s.Data.SHA256, true
	}
	return checkSet(set, folder, want.sha256, want.rows, known), nil
}

// CheckData compares the data of a sweep's cells, each set once.
func (w *Sweep) CheckData(lib *Library, folder string) (all []*DataCheck, err error) {
	seen := map[string]bool{}
	for i := range w.Cells {
		s := w.Cells[i].Scenario
		s.Data.from(w.folder)
		if key := fmt.Sprint(s.Data.Set, s.Data.File, s.Data.Mapping, s.Data.Captures, s.Data.SHA256); !seen[key] {
			seen[key] = true
			found, err := lib.CheckScenario(&s, folder)
			if err != nil {
				return nil, err
			}
			all = append(all, found)
		}
	}
	return all, nil
}

func checkSet(set Set, folder string, hashes []string, rows map[string]int, known bool) *DataCheck {
	c := &DataCheck{Name: set.Name(), State: DataKnown}
	if known {
		c.State = DataGood
	}
	var err error
	if c.Hashes, err = checkFiles(set.Files(folder), hashes); err != nil {
		c.State, c.Why = DataOther, err.Error()
		if errors.Is(err, fs.ErrNotExist) {
			c.State, c.Why = DataAbsent, missing(set.Files(folder))
		}
		return c
	}
	train, test, err := set.Load(folder)
	if err != nil {
		c.State, c.Why = DataOther, err.Error()
		return c
	}
	c.Rows = count(train, test)
	if rows != nil && !maps.Equal(c.Rows, rows) {
		c.State, c.Why = DataOther, fmt.Sprintf("found rows %v: expected %v", c.Rows, rows)
	}
	return c
}

// missing says which files are not there.
func missing(files []string) string {
	var gone []string
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			gone = append(gone, filepath.ToSlash(f))
		}
	}
	return fmt.Sprintf("%s: put it there, or give the folder of the data sets with --data or HEDGEROW_DATA", strings.Join(gone, ", "))
}

// count is the rows of each class.
func count(tables ...*tabular.Table) map[string]int {
	out := map[string]int{}
	for _, t := range tables {
		for _, k := range t.Class.Of {
			out[t.Class.Names[k]]++
		}
	}
	return out
}
