package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

// trainShare is the share of training rows where a data set has no test file of
// its own.
const trainShare = 0.7

// splitSeed parts training and test rows, the same in every scenario, so that
// seeds vary the sites and not the question.
const splitSeed = 1

// tables is a data set whose reader is known.
type tables struct {
	name  string
	files []string
	load  func(folder string) (train, test *tabular.Table, err error)
}

func (s tables) Name() string { return s.name }

func (s tables) Files(folder string) []string {
	out := make([]string, len(s.files))
	for i, f := range s.files {
		out[i] = filepath.Join(folder, filepath.FromSlash(f))
	}
	return out
}

func (s tables) Load(folder string) (train, test *tabular.Table, err error) { return s.load(folder) }

func builtinSets() []Set {
	flows := "westermo-2023/data/reduced/flows/output_"
	sets := []Set{
		tables{dataset.NSLKDD, []string{"nsl-kdd/KDDTrain+.txt.gz", "nsl-kdd/KDDTest+.txt.gz"}, func(folder string) (*tabular.Table, *tabular.Table, error) {
			t, _, _, err := dataset.NSLBoth(folder)
			return parted(t, err, "files")
		}},
		madeUp{},
		tables{dataset.UNSWNB15, []string{"unsw-nb15/UNSW_NB15_training-set.csv.gz"}, func(folder string) (*tabular.Table, *tabular.Table, error) {
			t, _, err := dataset.UNSW(folder)
			return parted(t, err, "group")
		}},
		tables{dataset.Westermo, []string{flows + "bottom.csv.gz", flows + "left.csv.gz", flows + "right.csv.gz"}, func(folder string) (*tabular.Table, *tabular.Table, error) {
			t, _, err := dataset.WestermoFlows(folder)
			return parted(t, err, "time")
		}},
		hosts{},
	}
	for _, name := range []string{dataset.CICIDS2017, dataset.CICKMeans, dataset.IoTID20} {
		sets = append(sets, tables{name, []string{dataset.CICFile(name)}, func(folder string) (*tabular.Table, *tabular.Table, error) {
			t, _, err := dataset.CICSample(folder, name)
			return parted(t, err, "group")
		}})
	}
	return sets
}

// hosts are the flows of the three Stratosphere hosts.
type hosts struct{}

func (hosts) Name() string { return dataset.Stratosphere }

func (hosts) Files(folder string) []string { return dataset.Hosts(folder) }

func (hosts) Load(folder string) (train, test *tabular.Table, err error) {
	c := dataset.StratosphereHosts(folder)
	t, err := dataset.Flows(context.Background(), c)
	return parted(t, err, c.Split)
}

// captureSet is any captures and logs of flows, by a list.
type captureSet struct{ list string }

func (s captureSet) Name() string { return s.list }

func (s captureSet) read() (_ *dataset.Captures, err error) {
	f, err := os.Open(s.list)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return dataset.ParseCaptures(f, filepath.Dir(s.list))
}

// Files are the list and all that it names.
func (s captureSet) Files(string) []string {
	files := []string{s.list}
	c, err := s.read()
	if err != nil {
		return files // Load says what is wrong
	}
	for _, f := range c.Files {
		files = append(files, f.File)
	}
	return files
}

func (s captureSet) Load(string) (train, test *tabular.Table, err error) {
	c, err := s.read()
	if err != nil {
		return nil, nil, fmt.Errorf("data.captures: %s: %w", s.list, err)
	}
	t, err := dataset.Flows(context.Background(), c)
	return parted(t, err, c.Split)
}

// parted splits a table into training and test rows as its kind asks for.
func parted(t *tabular.Table, err error, how string) (train, test *tabular.Table, _ error) {
	if err != nil {
		return nil, nil, err
	}
	var first, second []int
	switch how {
	case "files", "place":
		first, second = t.ByPlace(0)
	case "time":
		first, second, err = t.ByTime(trainShare)
	default:
		first, second = t.ByGroup(trainShare, splitSeed)
	}
	if err != nil {
		return nil, nil, err
	}
	if len(first) == 0 || len(second) == 0 {
		return nil, nil, fmt.Errorf("%d training and %d test rows: expected some of both", len(first), len(second))
	}
	return t.Pick(first), t.Pick(second), nil
}

// csvSet is any CSV file with a mapping.
type csvSet struct{ file, mapping string }

func (s csvSet) Name() string { return s.file }

func (s csvSet) Files(string) []string { return []string{s.file} }

func (s csvSet) Load(string) (train, test *tabular.Table, err error) {
	f, err := os.Open(s.mapping)
	if err != nil {
		return nil, nil, fmt.Errorf("data.mapping: %w", err)
	}
	m, err := dataset.ParseMapping(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, nil, fmt.Errorf("data.mapping: %s: %w", s.mapping, err)
	}
	t, _, err := dataset.Read(m, dataset.Part{File: s.file})
	return parted(t, err, m.Split)
}

// fileHash is the SHA-256 of a file, in hex.
func fileHash(file string) (_ string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// checkFiles hashes a set's files and compares them with what the scenario wants.
func checkFiles(files, want []string) (hashes []string, err error) {
	if len(want) > 0 && len(want) != len(files) {
		return nil, fmt.Errorf("data.sha256: found %d hashes: expected %d, one for each of %q", len(want), len(files), files)
	}
	for i, f := range files {
		h, err := fileHash(f)
		if err != nil {
			return nil, fmt.Errorf("data: %w: give the folder of the data sets with --data or HEDGEROW_DATA, or correct data.file or data.captures", err)
		}
		if len(want) > 0 && h != want[i] {
			return nil, fmt.Errorf("data.sha256: %s has %s: expected %s; these are other data", f, h, want[i])
		}
		hashes = append(hashes, h)
	}
	return hashes, nil
}
