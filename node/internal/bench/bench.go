//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
)

// Options say what to measure. The zero value measures everything, in full.
type Options struct {
	Only   []string // rows; empty: all
	Rounds int      // 0: 7, or 3 when quick
	Sizes  []int    // of the lists on a link, 1000 to 1000000, and the largest of the one that is loaded; empty: 1k, 10k, 100k, 1M
	Quick  bool     // few packets and small tables: for seeing that it works, not for figures
	// Gateway starts a process that is the gateway of package forwarding.
	Gateway []string
	// Doomed starts a process that calls Doomed with its own input and output.
	Doomed   []string
	Progress func(Progress)
}

// Progress is how far a measurement is. Left is a guess.
type Progress struct {
	Row, Doing string
	Left       time.Duration
}

// rowInfo is a row of the table: what it is and how long it takes, in seconds
// on the machine that the guess was made on.
type rowInfo struct {
	id, about  string
	full, fast float64
	run        func(*runner) error
}

// rows are in the order of the table. Those of the wire share their receivers.
var rows = []rowInfo{
	{"hot", "drop: 1,000 attackers of a list of up to a million", 400, 8, (*runner).wireRows},
	{"random", "drop: every listed source, at random", 60, 2, nil},
	{"miss", "a packet that no list holds", 60, 2, nil},
	{"load", "replace the whole list in one step, under traffic", 300, 3, (*runner).loadRow},
	{"block", "one block, from the call until it is enforced", 20, 2, (*runner).blockRow},
	{"full", "the whole program on a legitimate packet, against its own HASH and LPM_TRIE", 40, 3, (*runner).fullRow},
	{"flow", "a packet of a known flow, of up to a million, against LRU_HASH", 40, 3, (*runner).flowRow},
	{"flood", "a flood of new flows, against LRU_HASH, and whose flows it leaves", 110, 6, (*runner).floodRow},
	{"forward", "forwarding while the gateway thinks, against idle", 120, 5, (*runner).forwardRow},
	{"leaks", "reloads, takeovers and a kill under traffic", 60, 6, (*runner).leakRow},
}

// Rows are the names that Options.Only takes, with what they measure.
func Rows() (names, about []string) {
	for _, r := range rows {
		names, about = append(names, r.id), append(about, r.about)
	}
	return names, about
}

func (o Options) validate() error {
	names, _ := Rows()
	for _, n := range o.Only {
		if !slices.Contains(names, n) {
			return fmt.Errorf("row %q: expected one of %s", n, strings.Join(names, ", "))
		}
	}
	for _, n := range o.Sizes {
		if n < 1000 || n > 1000000 {
			return fmt.Errorf("size %d: expected 1000 to 1000000", n)
		}
	}
	if o.Rounds < 0 || o.Rounds > 100 {
		return fmt.Errorf("rounds %d: expected 1 to 100", o.Rounds)
	}
	return nil
}

// runner is one measurement under way.
type runner struct {
	Options
	ctx    context.Context
	dir    string
	report *Report
	began  time.Time
	spent  float64 // guessed seconds of the rows that are done
	total  float64
	row    rowInfo
	open   []func() error // what the row under way has to close
}

// later has the row close something when it ends, what was opened last first.
func (r *runner) later(close ...func() error) { r.open = append(r.open, close...) }

func (r *runner) closeAll() error {
	var errs []error
	for _, c := range slices.Backward(r.open) {
		errs = append(errs, c())
	}
	r.open = nil
	return errors.Join(errs...)
}

// Run measures. It needs root. A row that cannot be measured here says why in
// the report; an error means that a measurement was wrong, for instance that
// verdicts were not what they had to be.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("measuring needs root: it loads programs and makes network namespaces")
	}
	if o.Rounds == 0 {
		o.Rounds = 7
		if o.Quick {
			o.Rounds = 3
		}
	}
	dir, err := os.MkdirTemp("", "hedgerow-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := &runner{Options: o, ctx: ctx, dir: dir, began: time.Now(), report: newReport(o)}
	for _, row := range rows {
		if r.wanted(row.id) {
			r.total += r.guess(row)
		}
	}
	if err := r.measure(); err != nil {
		return nil, err
	}
	r.report.Seconds = time.Since(r.began).Seconds()
	return r.report, nil
}

// measure goes through the rows. One without a function of its own is measured
// together with the one before it.
func (r *runner) measure() error {
	for i := 0; i < len(rows); {
		end := i + 1
		for end < len(rows) && rows[end].run == nil {
			end++
		}
		wanted := false
		var guess float64
		for _, row := range rows[i:end] {
			if r.wanted(row.id) {
				wanted = true
				guess += r.guess(row)
			}
		}
		if wanted {
			r.row = rows[i]
			if err := rows[i].run(r); err != nil {
				return fmt.Errorf("%s: %w", r.row.id, err)
			}
			r.spent += guess
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		i = end
	}
	return nil
}

func (r *runner) wanted(id string) bool { return len(r.Only) == 0 || slices.Contains(r.Only, id) }

func (r *runner) guess(row rowInfo) float64 {
	if r.Quick {
		return row.fast
	}
	return row.full
}

// doing tells what is done, and how long the rest will take if it goes on as so far.
func (r *runner) doing(format string, args ...any) error {
	if r.Progress != nil {
		left := r.total - r.spent
		if took := time.Since(r.began).Seconds(); r.spent > 0 {
			left *= took / r.spent
		}
		r.Progress(Progress{Row: r.row.id, Doing: fmt.Sprintf(format, args...), Left: time.Duration(left * float64(time.Second))})
	}
	return r.ctx.Err()
}

// size is a number of packets or the like, a good part fewer when quick.
func (r *runner) size(full, quick int) int {
	if r.Quick {
		return quick
	}
	return full
}

func newReport(o Options) *Report {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("unknown")
	}
	return &Report{
		Began: time.Now().UTC().Truncate(time.Second), Kernel: strings.TrimSpace(string(kernel)), CPUs: runtime.NumCPU(),
		Go: runtime.Version(), Object: xdpbench.ObjectHash(), Rounds: o.Rounds, Quick: o.Quick,
	}
}

// subject is what takes part in the rounds of a row.
type subject struct {
	name    string
	measure func() (float64, error)
}

// rounds lets the subjects take turns, in an order that moves on each round.
func (r *runner) rounds(n int, subjects []subject) ([]Series, error) {
	out := make([]Series, len(subjects))
	for i, s := range subjects {
		out[i].Name = s.name
	}
	for round := range n {
		for k := range subjects {
			i := (k + round) % len(subjects)
			if err := r.doing("round %d of %d: %s", round+1, n, subjects[i].name); err != nil {
				return nil, err
			}
			v, err := subjects[i].measure()
			if err != nil {
				return nil, err
			}
			out[i].Values = append(out[i].Values, v)
		}
	}
	for i := range out {
		out[i].Median = median(out[i].Values)
	}
	return out, nil
}
