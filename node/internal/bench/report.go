//go:build linux

package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a measurement found.
type Report struct {
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	Kernel  string    `json:"kernel"`
	CPUs    int       `json:"cpus"`
	Go      string    `json:"go"`
	Object  string    `json:"object"` // hash of the embedded programs
	Rounds  int       `json:"rounds"`
	Quick   bool      `json:"quick"`
	Rows    []Row     `json:"rows"`
}

// Row is one line of the table. Absent says why it could not be measured here.
type Row struct {
	ID     string   `json:"id"`
	Title  string   `json:"title"`
	Unit   string   `json:"unit"`
	Series []Series `json:"series,omitempty"`
	Ratios []Ratio  `json:"ratios,omitempty"`
	Curve  []Point  `json:"curve,omitempty"`
	Axis   string   `json:"axis,omitempty"` // what the curve's sizes are of; empty: addresses in the list
	Notes  []string `json:"notes,omitempty"`
	Absent string   `json:"absent,omitempty"`
	// Packets are those whose verdicts were checked, all of them exact.
	Packets uint64 `json:"packets,omitempty"`
}

// Point is one size of a row's curve, with the same subjects as the row.
type Point struct {
	Size   int      `json:"size"`
	Series []Series `json:"series"`
}

// series finds one by name.
func series(all []Series, name string) *Series {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// against adds the ratio of a peer's cost to ours, where the peer was there.
func (row *Row) against(peer, ours string, target float64) {
	p, o := series(row.Series, peer), series(row.Series, ours)
	if p == nil || o == nil {
		return
	}
	row.Ratios = append(row.Ratios, compare(peer+" / "+ours, p.Values, o.Values, target, false))
}

// Print writes the report as a table for people.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "hedgerow bench dataplane: object %s, Linux %s, %d processors, %s, %d rounds\n", r.Object, r.Kernel, r.CPUs, r.Go, r.Rounds)
	if r.Quick {
		b.WriteString("QUICK: few packets and small tables. This shows that it works; the figures mean nothing.\n")
	}
	for i := range r.Rows {
		r.Rows[i].print(&b)
	}
	fmt.Fprintf(&b, "\n%.0f s. Values are medians of rounds; a ratio is taken within its rounds, and its bound holds at 95 %%.\n", r.Seconds)
	_, err := io.WriteString(w, b.String())
	return err
}

func (row *Row) print(b *strings.Builder) {
	fmt.Fprintf(b, "\n%s: %s", row.ID, row.Title)
	if row.Unit != "" {
		fmt.Fprintf(b, " (%s)", row.Unit)
	}
	b.WriteString("\n")
	if row.Absent != "" {
		fmt.Fprintf(b, "  not measured: %s\n", row.Absent)
	}
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, s := range row.Series {
		fmt.Fprintf(t, "  %s\t%s\n", s.Name, figure(s.Median))
	}
	_ = t.Flush() // into memory
	for _, x := range row.Ratios {
		b.WriteString("  " + x.String() + "\n")
	}
	for _, n := range row.Notes {
		b.WriteString("  " + n + "\n")
	}
	if row.Packets > 0 {
		fmt.Fprintf(b, "  verdicts of %d packets checked, all exact\n", row.Packets)
	}
}

// String is the ratio, its bound and what is asked of it.
func (x Ratio) String() string {
	sign, word := ">=", "at least"
	if x.AtMost {
		sign, word = "<=", "at most"
	}
	s := fmt.Sprintf("%s = %.2f", x.Name, x.Mean)
	if x.Bound > 0 {
		s += fmt.Sprintf(" (%s %.2f)", sign, x.Bound)
	}
	if x.Target > 0 {
		verdict := "met"
		if !x.Met() {
			verdict = "NOT met"
		}
		s += fmt.Sprintf("; wanted %s %g: %s", word, x.Target, verdict)
	}
	return s
}

// figure prints a value with three digits that mean something.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
