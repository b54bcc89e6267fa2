package mesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Options say what to measure. The zero value measures everything, in full.
type Options struct {
	Only     []string      // rows; empty: all
	Sites    int           // 0: 50, or 8 when quick; rounds need at least 7
	Messages int           // indicators, and questions, in a row; 0: 100, or 8 when quick
	Rounds   int           // of models; 0: 5, or 2 when quick
	Params   int           // of a model; 0: 16384
	Flood    time.Duration // of each of the three parts of the flood; 0: 10 s, or 1 s when quick
	Quick    bool          // shows that it works; the figures mean nothing
	Progress func(string)
	// Flooder makes the process that floods; nil floods from this one.
	Flooder FloodCommand
}

// Bounds of Options. A consortium has at most 64 organisations.
const (
	leastSites = 7
	mostSites  = 64
)

// rows are in the order of the table.
var rows = []struct {
	id, about string
	run       func(context.Context, *runner) (*Row, error)
}{
	{"enforce", "from a block at one site until every other site enforces it", enforceRow},
	{"query", "a question to other organisations, and the word of as many as it takes to block", queryRow},
	{"round", "a round of models, and what a site sends in it", roundRow},
	{"aggregate", "one model out of 100, beside the same in floating point", aggregateRow},
	{"flood", "what a member that floods costs the others", floodRow},
}

// Rows are the names that Options.Only takes, with what they measure.
func Rows() (names, about []string) {
	for _, r := range rows {
		names, about = append(names, r.id), append(about, r.about)
	}
	return names, about
}

// runner is one measurement under way.
type runner struct {
	Options
	dir string // for the sites' stores
}

// Run measures. Each row starts its own sites and ends them. An error means that
// something did not happen at all, such as a block that a site never enforced; the
// report then has the rows in which all did.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hedgerow-bench")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &runner{o, dir}
	began := time.Now()
	out := &Report{Began: began.UTC().Truncate(time.Second), CPUs: runtime.GOMAXPROCS(0), Go: runtime.Version(), Quick: o.Quick}
	var failed error
	for _, row := range rows {
		if len(o.Only) > 0 && !slices.Contains(o.Only, row.id) {
			continue
		}
		r.Progress(row.id + ": " + row.about)
		got, err := row.run(ctx, r)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", row.id, err))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		got.ID, got.Title = row.id, row.about
		out.Rows = append(out.Rows, *got)
	}
	out.Seconds = time.Since(began).Seconds()
	return out, failed
}

func (o *Options) fill() error {
	names, _ := Rows()
	for _, n := range o.Only {
		if !slices.Contains(names, n) {
			return fmt.Errorf("row %q: expected one of %s", n, strings.Join(names, ", "))
		}
	}
	for _, x := range []struct {
		name                     string
		v                        *int
		full, quick, least, most int
	}{
		{"sites", &o.Sites, 50, 8, leastSites, mostSites},
		{"messages", &o.Messages, 100, 8, 1, 600},
		{"rounds", &o.Rounds, 5, 2, 1, 100},
		{"params", &o.Params, 16384, 16384, 1, 1 << 17},
	} {
		if *x.v == 0 && o.Quick {
			*x.v = x.quick
		} else if *x.v == 0 {
			*x.v = x.full
		}
		if *x.v < x.least || *x.v > x.most {
			return fmt.Errorf("%s %d: expected %d to %d", x.name, *x.v, x.least, x.most)
		}
	}
	if o.Flood == 0 {
		o.Flood = 10 * time.Second
		if o.Quick {
			o.Flood = time.Second
		}
	}
	if o.Flood < 100*time.Millisecond || o.Flood > 10*time.Minute {
		return fmt.Errorf("flood %s: expected 100ms to 10m", o.Flood)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return nil
}

// poll waits until a condition holds, and says what did not within patience.
func poll(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v: %s", patience, what))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// patience bounds every wait for what has to happen.
const patience = 2 * time.Minute
