package sim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
)

// Scenario is one run, said in full.
type Scenario struct {
	Name      string    `toml:"name"`
	Depth     string    `toml:"depth"`
	Seed      uint64    `toml:"seed"`
	Sites     Sites     `toml:"sites"`
	Data      Data      `toml:"data"`
	Training  Training  `toml:"training"`
	Rule      Rule      `toml:"rule"`
	Gate      Gate      `toml:"gate"`
	Privacy   Privacy   `toml:"privacy"`
	Attackers Attackers `toml:"attackers"`
	Measure   Measure   `toml:"measure"`
	Network   Network   `toml:"network"`
	Nodes     Nodes     `toml:"nodes"`
	Campaigns Campaigns `toml:"campaigns"`
}

// Sites are who takes part.
type Sites struct {
	Count     int     `toml:"count"`
	Partition string  `toml:"partition"` // how the training rows are dealt out
	Alpha     float64 `toml:"alpha"`     // of the dirichlet partition
	Absent    float64 `toml:"absent"`    // chance that a site misses a round
}

// Data are the labelled rows.
type Data struct {
	Set      string   `toml:"set"`      // name of a data set of the library, or
	File     string   `toml:"file"`     // a CSV file, from the scenario's folder,
	Mapping  string   `toml:"mapping"`  // and what its columns mean, or
	Captures string   `toml:"captures"` // a list of captures and logs of flows
	SHA256   []string `toml:"sha256"`   // of the files, in order; empty: not checked
	Rows     int      `toml:"rows"`     // most training rows in all; 0: all
	Shuffle  bool     `toml:"shuffle"`  // shuffle the training labels: a control
}

// Training is what a site does between two rounds.
type Training struct {
	Rounds int     `toml:"rounds"`
	Steps  int     `toml:"steps"`
	Batch  int     `toml:"batch"`
	Rate   float64 `toml:"rate"`
	Hidden []int   `toml:"hidden"` // widths of the hidden layers
}

// Rule makes one update of many.
type Rule struct {
	Name string  `toml:"name"`
	F    int     `toml:"f"`    // liars to withstand; -1: as many as the rule can promise, at most 30 %
	Clip float64 `toml:"clip"` // longest update
}

// Gate is each site's own examination of what came out of a round.
type Gate struct {
	On      bool    `toml:"on"`
	Held    float64 `toml:"held"`    // share of a site's rows that it keeps to examine models with
	Normals int     `toml:"normals"` // held normal rows that an examination needs
	Mix     bool    `toml:"mix"`     // try mixtures of the round's model with the site's own
}

// Attackers lie together.
type Attackers struct {
	Attack string  `toml:"attack"`
	Share  float64 `toml:"share"` // of the sites
}

// Measure is what is measured.
type Measure struct {
	Every int `toml:"every"` // rounds between measurements; the last is always measured
	Rows  int `toml:"rows"`  // most validation, and most test rows
}

// Default is what a scenario says where it says nothing.
func Default() Scenario {
	return Scenario{
		Name: "scenario", Depth: DepthRounds, Seed: 1,
		Sites:    Sites{Count: 20, Partition: "dirichlet", Alpha: 0.5},
		Training: Training{Rounds: 25, Steps: 10, Batch: 32, Rate: 0.05, Hidden: []int{48}},
		Rule:     Rule{Name: robust.NameGeometricMasked, F: -1, Clip: robust.DefaultClip},
		Gate:     Gate{Held: 0.25, Normals: 10},
		Privacy:  Privacy{Clip: 1, Delta: 1e-5},
		Measure:  Measure{Every: 5, Rows: 4000},
		Network:  Network{Delay: 0.05, Jitter: 0.05, Spell: 30, Cuts: []Cut{}},
		Nodes:    defaultNodes(), Campaigns: defaultCampaigns(),
	}
}

// Limits of a scenario.
const (
	maxFile   = 1 << 20
	maxSites  = robust.MaxUpdates
	maxRounds = 100_000
	maxSteps  = 100_000
	maxBatch  = 4096
	maxLayers = 6
	maxWidth  = 512
)

// Parse reads a scenario over the defaults; name stands in the errors. Paths in it
// are taken from folder. The scenario is checked as far as that goes without data.
func Parse(r io.Reader, name, folder string, lib *Library) (*Scenario, error) {
	b, err := readBounded(r, name)
	if err != nil {
		return nil, err
	}
	sc := Default()
	if err := decode(b, name, &sc); err != nil {
		return nil, err
	}
	sc.Data.from(folder)
	if err := sc.Check(lib); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &sc, nil
}

func (d *Data) from(folder string) {
	for _, p := range []*string{&d.File, &d.Mapping, &d.Captures} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(folder, *p)
		}
	}
}

func readBounded(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case len(b) > maxFile:
		return nil, fmt.Errorf("%s: larger than 1 MiB: expected a scenario", name)
	}
	return b, nil
}

// decode reads TOML into v and names the line and the key of what is wrong.
func decode(b []byte, name string, v any) error {
	err := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(v)
	var strict *toml.StrictMissingError
	var at *toml.DecodeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &strict) && len(strict.Errors) > 0:
		e := strict.Errors[0]
		row, _ := e.Position()
		key := strings.Join(e.Key(), ".")
		if e.Key()[0] == "grid" {
			return fmt.Errorf("%s:%d: grid: makes a sweep of a scenario: play it with sim sweep", name, row)
		}
		return fmt.Errorf("%s:%d: %s: is not a known key%s", name, row, key, config.Nearest(key, keys()))
	case errors.As(err, &at):
		row, _ := at.Position()
		key := strings.Join(at.Key(), ".")
		if key != "" {
			key += ": "
		}
		return fmt.Errorf("%s:%d: %s%s", name, row, key, strings.TrimPrefix(at.Error(), "toml: "))
	}
	return fmt.Errorf("%s: %w", name, err)
}

// keys are all keys of a scenario, dotted.
func keys() []string {
	b, err := toml.Marshal(Default())
	if err != nil {
		return nil
	}
	var out []string
	table := ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(line, "[]") + "."
		} else if k, _, ok := strings.Cut(line, " = "); ok {
			out = append(out, table+k)
		}
	}
	return out
}

// Check says what is wrong with a scenario, naming the field.
func (s *Scenario) Check(lib *Library) error {
	switch s.Depth {
	case DepthRounds:
		return s.checkRounds(lib)
	case DepthMesh:
		return s.checkMesh(lib)
	}
	return fmt.Errorf("depth: found %q: expected %q or %q", s.Depth, DepthRounds, DepthMesh)
}

func (s *Scenario) checkRounds(lib *Library) error {
	for _, check := range []func() error{
		s.Sites.check, s.Data.check, s.Training.check, s.Privacy.check, s.Measure.check, s.Network.check,
		func() error { return s.names(lib) },
		func() error { return s.Attackers.check(s.Sites.Count) },
		func() error { _, err := s.withstand(lib); return err },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	if g := s.Gate; !(g.Held > 0 && g.Held <= 0.9) {
		return fmt.Errorf("gate.held: found %g: expected more than 0, at most 0.9", g.Held)
	} else if g.Normals < 1 {
		return fmt.Errorf("gate.normals: found %d: expected at least 1", g.Normals)
	}
	return nil
}

// within names a whole number that is out of its range.
func within(field string, x, low, high int) error {
	if x < low || x > high {
		return fmt.Errorf("%s: found %d: expected %d to %d", field, x, low, high)
	}
	return nil
}

func (s *Sites) check() error {
	if !(s.Alpha > 0 && s.Alpha <= 1e6) {
		return fmt.Errorf("sites.alpha: found %g: expected more than 0, at most a million", s.Alpha)
	}
	if !(s.Absent >= 0 && s.Absent < 1) {
		return fmt.Errorf("sites.absent: found %g: expected 0 to less than 1", s.Absent)
	}
	return within("sites.count", s.Count, 1, maxSites)
}

func (d *Data) check() error {
	named := 0
	for _, x := range []string{d.Set, d.File, d.Captures} {
		if x != "" {
			named++
		}
	}
	switch {
	case named != 1:
		return errors.New("data.set: expected the name of a data set, or else data.file and data.mapping, or else data.captures")
	case d.File != "" && d.Mapping == "":
		return errors.New("data.mapping: expected the file that says what the columns of data.file mean")
	case d.File == "" && d.Mapping != "":
		return errors.New("data.mapping: is for data.file; nothing else needs one")
	case d.Rows < 0:
		return fmt.Errorf("data.rows: found %d: expected 0 (all) or more", d.Rows)
	}
	for _, h := range d.SHA256 {
		if b, err := hex.DecodeString(h); err != nil || len(b) != sha256.Size || strings.ToLower(h) != h {
			return fmt.Errorf("data.sha256: found %.80q: expected 64 hexadecimal digits", h)
		}
	}
	return nil
}

func (t *Training) check() error {
	if !(t.Rate > 0 && t.Rate <= 10) {
		return fmt.Errorf("training.rate: found %g: expected more than 0, at most 10", t.Rate)
	}
	if len(t.Hidden) > maxLayers {
		return fmt.Errorf("training.hidden: found %d layers: expected at most %d", len(t.Hidden), maxLayers)
	}
	for _, w := range t.Hidden {
		if err := within("training.hidden", w, 1, maxWidth); err != nil {
			return err
		}
	}
	return errors.Join(
		within("training.rounds", t.Rounds, 1, maxRounds),
		within("training.steps", t.Steps, 1, maxSteps),
		within("training.batch", t.Batch, 1, maxBatch))
}

func (m *Measure) check() error {
	return errors.Join(within("measure.every", m.Every, 1, maxRounds), within("measure.rows", m.Rows, 10, math.MaxInt32))
}

func (a *Attackers) check(sites int) error {
	switch n := a.liars(sites); {
	case !(a.Share >= 0 && a.Share < 1):
		return fmt.Errorf("attackers.share: found %g: expected 0 to less than 1", a.Share)
	case n > 0 && a.Attack == "":
		return errors.New("attackers.attack: expected the name of an attack, since attackers.share is not 0")
	case n > 0 && n == sites:
		return errors.New("attackers.share: nobody would be honest")
	}
	return nil
}

// liars is how many of n sites lie: the share, to the nearest number.
func (a *Attackers) liars(n int) int {
	if a.Attack == "" && a.Share == 0 {
		return 0
	}
	return int(math.RoundToEven(a.Share * float64(n)))
}

// names looks up all names but that of the rule.
func (s *Scenario) names(lib *Library) error {
	if _, err := lib.partition(s.Sites.Partition); err != nil {
		return fmt.Errorf("sites.partition: %w", err)
	}
	if s.Data.Set != "" {
		if _, err := lib.set(s.Data.Set); err != nil {
			return fmt.Errorf("data.set: %w", err)
		}
	}
	if s.Attackers.Attack != "" {
		if _, err := lib.attack(s.Attackers.Attack); err != nil {
			return fmt.Errorf("attackers.attack: %w", err)
		}
	}
	return nil
}

// withstand is the f of the rule, and fails where the rule promises nothing.
func (s *Scenario) withstand(lib *Library) (f int, err error) {
	r, err := lib.rule(s.Rule.Name)
	if err != nil {
		return 0, fmt.Errorf("rule.name: %w", err)
	}
	if c := s.Rule.Clip; !(c > 0 && c <= robust.MaxNorm) {
		return 0, fmt.Errorf("rule.clip: found %g: expected more than 0, at most %d", c, robust.MaxNorm)
	}
	n := s.Sites.Count
	if s.Rule.F >= 0 {
		if s.Rule.F > n {
			return 0, fmt.Errorf("rule.f: found %d: expected at most the %d sites", s.Rule.F, n)
		}
		if err := r.Check(n, s.Rule.F); err != nil {
			return 0, fmt.Errorf("rule.f: %s: %w", s.Rule.Name, err)
		}
		return s.Rule.F, nil
	}
	if s.Rule.F != -1 {
		return 0, fmt.Errorf("rule.f: found %d: expected 0 or more, or -1 for as many as the rule can promise", s.Rule.F)
	}
	for f := robust.Tolerated(n); f >= 0; f-- {
		if err = r.Check(n, f); err == nil {
			return f, nil
		}
	}
	return 0, fmt.Errorf("rule.name: %s: %w", s.Rule.Name, err)
}

// Encode is a scenario in TOML, every key said.
func (s *Scenario) Encode() ([]byte, error) {
	b, err := toml.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode scenario: %w", err)
	}
	return b, nil
}
