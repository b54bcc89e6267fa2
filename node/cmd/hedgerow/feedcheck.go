package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
	"github.com/hedgerow-mesh/hedgerow/node/internal/feed/fetch"
)

// feedCheck is what `feeds check` found.
type feedCheck struct {
	Files     []fileCheck `json:"files"`
	Protected int         `json:"protected_networks"`
	Entries   int         `json:"entries"` // of all files together, after the merge
}

type fileCheck struct {
	File    string      `json:"file"`
	Format  feed.Format `json:"format,omitempty"`
	Error   string      `json:"error,omitempty"` // then nothing of the file is taken
	Lines   int         `json:"lines"`
	Listed  int         `json:"listed"` // different networks
	Kept    int         `json:"kept"`   // of them, after the guard
	Counts  feed.Counts `json:"counts,omitempty"`
	Notes   []feed.Note `json:"notes,omitempty"`
	Omitted int         `json:"notes_omitted,omitempty"`

	noted feed.Counts
}

// note keeps up to limit lines of each kind.
func (f *fileCheck) note(limit int) func(feed.Note) {
	if f.noted == nil {
		f.noted = feed.Counts{}
	}
	return func(n feed.Note) {
		if f.noted[n.Kind]++; f.noted[n.Kind] > limit {
			f.Omitted++
			return
		}
		f.Notes = append(f.Notes, n)
	}
}

func feedCheckCommand() *cobra.Command {
	var o feed.Options
	var format, path string
	var warn, ignore []string
	var limit int
	var asJSON bool
	c := &cobra.Command{
		Use: "check [FILE...]", Short: "Say what of blocklists would be enforced, and what refused, line by line",
		Long: `Say what of blocklists would be enforced, and what refused, line by line. It
needs no daemon and changes nothing. Refused are private and other special
networks, this site's never-block list and its warning lists, when --config
names the configuration, and those of --warning-lists. Columns, scores and
formats of the configuration's own feeds hold for its files; without FILE those
files are checked.`,
		Example: "  hedgerow feeds check bad.txt\n  hedgerow feeds check --warning-lists ./misp-warninglists/lists --min-score 3 ipsum.txt.gz\n  hedgerow feeds check --config /etc/hedgerow/hedgerow.toml --json drop.netset",
	}
	f := c.Flags()
	f.StringVar(&format, "format", "auto", "auto, plain, csv, ipset, stix or misp")
	f.StringVar(&o.Column, "column", "", "column of the address in a CSV file, by name or by number from 1")
	f.Float64Var(&o.MinScore, "min-score", 0, "leave out entries with a lower score")
	f.StringVar(&o.ScoreColumn, "score-column", "", "column of the score (default 2)")
	f.StringVarP(&path, "config", "c", "", "configuration, for its feeds, never-block and warning lists")
	f.StringArrayVar(&warn, "warning-lists", nil, "warning list, or folder of them (repeatable)")
	f.StringArrayVar(&ignore, "ignore-warnings", nil, "name of a warning list that does not count (repeatable)")
	f.IntVar(&limit, "limit", 5, "print at most so many lines of each kind; 0 for all")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		o.Format = feed.Format(format)
		if !knownFormat(o.Format) {
			return usageError{fmt.Errorf("--format %q: expected one of %v", format, feed.Formats())}
		}
		o.Now = time.Now()
		cfg := config.Default()
		if path != "" {
			given, err := loadConfig(path)
			if err != nil {
				return err
			}
			cfg = *given
		}
		if len(args) == 0 {
			args = feedFiles(&cfg)
		}
		if len(args) == 0 {
			return usageError{errors.New("feeds check: expected at least one FILE, or --config with feeds that are files (see `hedgerow feeds check --help`)")}
		}
		cfg.Feeds.WarningLists = append(cfg.Feeds.WarningLists, warn...)
		cfg.Feeds.IgnoreWarnings = append(cfg.Feeds.IgnoreWarnings, ignore...)
		if limit <= 0 {
			limit = feed.DefaultMaxEntries
		}
		r, err := checkFeeds(c.Context(), args, o, &cfg, limit)
		if err != nil {
			return err
		}
		if asJSON {
			e := json.NewEncoder(c.OutOrStdout())
			e.SetIndent("", "  ")
			err = e.Encode(r)
		} else {
			printFeedCheck(c.OutOrStdout(), r)
		}
		return errors.Join(err, r.failed())
	}
	return c
}

// feedFiles are the files of the configuration's feeds.
func feedFiles(cfg *config.Config) (paths []string) {
	for _, f := range cfg.Feeds.List {
		if f.Path != "" {
			paths = append(paths, f.Path)
		}
	}
	return paths
}

func knownFormat(f feed.Format) bool {
	for _, k := range feed.Formats() {
		if k == f {
			return true
		}
	}
	return false
}

func (r *feedCheck) failed() error {
	n := 0
	for _, f := range r.Files {
		if f.Error != "" {
			n++
		}
	}
	if n > 0 {
		return fmt.Errorf("feeds check: %d of %d files cannot be used", n, len(r.Files))
	}
	return nil
}

// checkFeeds reads each file, and puts all through the guard that the
// configuration asks for.
func checkFeeds(ctx context.Context, files []string, o feed.Options, cfg *config.Config, limit int) (*feedCheck, error) {
	warnings, err := fetch.Warnings(ctx, cfg.Feeds.WarningLists, cfg.Feeds.IgnoreWarnings)
	if err != nil {
		return nil, err
	}
	g := &feed.Guard{}
	g.ProtectSpecial()
	g.Protect(feed.Own, "dataplane.inside", cfg.Dataplane.Inside...)
	for _, n := range cfg.Dataplane.NeverBlock {
		g.Protect(feed.Never, "never-block "+config.FormatNever(n), n.Prefix)
	}
	for _, w := range warnings {
		g.Warn(w.Name, w.List)
	}
	g.Seal()
	r := &feedCheck{Protected: g.Len()}
	var sources []feed.Source
	var of []int // index of the file of each source
	for i, path := range files {
		r.Files = append(r.Files, fileCheck{File: path})
		f := &r.Files[i]
		l, err := fetch.New(fetch.Options{Path: path}).Read(ctx, optionsOf(path, o, cfg), f.note(limit))
		if err != nil {
			f.Error = err.Error()
			continue
		}
		f.Format, f.Lines, f.Listed, f.Counts = l.Format, l.Lines, l.Len(), l.Counts
		sources = append(sources, feed.Source{Name: path, List: l, Until: o.Now.Add(time.Hour)})
		of = append(of, i)
	}
	set, err := feed.Build(o.Now, sources, g, feed.Limits{Entries: cfg.Feeds.MaxEntries}, func(i int, n feed.Note) { r.Files[of[i]].note(limit)(n) })
	if err != nil {
		return nil, err
	}
	for i, p := range set.Parts {
		r.Files[of[i]].Kept = p.Kept
		r.Files[of[i]].Counts.Add(p.Counts)
		r.Files[of[i]].Error = p.Out
	}
	r.Entries = set.Len()
	return r, nil
}

// optionsOf takes over what the configuration says of a file that is a feed.
func optionsOf(path string, o feed.Options, cfg *config.Config) feed.Options {
	abs, err := filepath.Abs(path)
	if err != nil {
		return o
	}
	for _, f := range cfg.Feeds.List {
		if f.Path != abs {
			continue
		}
		if o.Format == feed.Auto {
			o.Format = feed.Format(f.Format)
		}
		if o.Column == "" {
			o.Column = f.Column
		}
		if o.MinScore == 0 {
			o.MinScore, o.ScoreColumn = f.MinScore, f.ScoreColumn
		}
	}
	return o
}

func printFeedCheck(w io.Writer, r *feedCheck) {
	p := func(f string, a ...any) { _, _ = fmt.Fprintf(w, f+"\n", a...) }
	for _, f := range r.Files {
		if f.Error != "" {
			p("%s\n    NOT USED: %s", f.File, strings.TrimPrefix(f.Error, f.File+": "))
			continue
		}
		p("%s: %s, %s lines: %s networks listed, %s kept; %s", f.File, f.Format, thousands(f.Lines), thousands(f.Listed), thousands(f.Kept), countWords(f.Counts))
		for _, n := range f.Notes {
			p("    %s", noteWords(n))
		}
		if f.Omitted > 0 {
			p("    and %s more (--limit 0 prints all)", thousands(f.Omitted))
		}
	}
	p("together %s entries after the merge; %s networks are protected", thousands(r.Entries), thousands(r.Protected))
}

func noteWords(n feed.Note) string {
	s := fmt.Sprintf("line %d: %s: %s", n.Line, n.Value, n.Kind)
	if n.Detail != "" {
		s += " (" + n.Detail + ")"
	}
	return s
}

// countWords is "12 refused (10 special, 2 warned), 3 skipped (3 name)".
func countWords(c feed.Counts) string {
	var out []string
	for _, class := range []feed.Class{feed.Refused, feed.Skipped, feed.Mended} {
		n := c.Of(class)
		if n == 0 {
			continue
		}
		var kinds []string
		for _, k := range c.Kinds() {
			if feed.ClassOf(k) == class {
				kinds = append(kinds, fmt.Sprintf("%s %s", thousands(c[k]), k))
			}
		}
		out = append(out, fmt.Sprintf("%s %s (%s)", thousands(n), class, strings.Join(kinds, ", ")))
	}
	if len(out) == 0 {
		return "nothing refused"
	}
	return strings.Join(out, "; ")
}

// thousands prints 1234567 as 1,234,567.
func thousands[N int | uint64](n N) string {
	s := strconv.FormatUint(uint64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
