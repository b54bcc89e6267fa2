package mesh

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a measurement found.
type Report struct {
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	CPUs    int       `json:"cpus"`
	Go      string    `json:"go"`
	Quick   bool      `json:"quick"`
	Rows    []Row     `json:"rows"`
}

// Row is one measurement: its figures, and the delays that they were taken from.
type Row struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Sites   int      `json:"sites,omitempty"`
	Figures []Figure `json:"figures"`
	Series  []Series `json:"series,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// Figure is one number with what is asked of it.
type Figure struct {
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit,omitempty"`
	Target  float64 `json:"target,omitempty"` // 0: nothing is asked
	AtLeast bool    `json:"at_least,omitempty"`
}

// Series are delays in milliseconds, ascending.
type Series struct {
	Name string    `json:"name"`
	MS   []float64 `json:"ms"`
}

// Met says whether the figure is on the right side of its target.
func (f *Figure) Met() bool {
	if f.AtLeast {
		return f.Value >= f.Target
	}
	return f.Value <= f.Target
}

// series sorts delays.
func series(name string, delays []time.Duration) Series {
	s := Series{Name: name, MS: make([]float64, len(delays))}
	for i, d := range delays {
		s.MS[i] = float64(d) / float64(time.Millisecond)
	}
	slices.Sort(s.MS)
	return s
}

// at is the least value that a share q of all does not exceed; 0 of nothing.
func (s *Series) at(q float64) float64 {
	if len(s.MS) == 0 {
		return 0
	}
	return s.MS[max(0, int(math.Ceil(q*float64(len(s.MS))))-1)]
}

// delays are the two figures of a series that targets are set for; 0 is none.
func (s *Series) delays(p50, p99 float64) []Figure {
	return []Figure{
		{Name: s.Name + ", p50", Value: s.at(0.5), Unit: "ms", Target: p50},
		{Name: s.Name + ", p99", Value: s.at(0.99), Unit: "ms", Target: p99},
	}
}

// Print writes the report as one table.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "hedgerow bench mesh: %d processors, %s, %.0f s\n", r.CPUs, r.Go, r.Seconds)
	if r.Quick {
		b.WriteString("QUICK: few sites and few messages. This shows that it works; the figures mean nothing.\n")
	}
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for i := range r.Rows {
		row := &r.Rows[i]
		fmt.Fprintf(t, "\n%s: %s\n", row.ID, row.Title)
		for k := range row.Figures {
			fmt.Fprintln(t, "  "+row.Figures[k].cells())
		}
		for _, n := range row.Notes {
			fmt.Fprintf(t, "  %s\n", n)
		}
	}
	_ = t.Flush() // into memory
	_, err := io.WriteString(w, b.String())
	return err
}

func (f *Figure) cells() string {
	s := f.Name + "\t" + number(f.Value) + " " + f.Unit
	if f.Target == 0 {
		return s + "\t\t"
	}
	word, verdict := "at most", "met"
	if f.AtLeast {
		word = "at least"
	}
	if !f.Met() {
		verdict = "NOT met"
	}
	return fmt.Sprintf("%s\twanted %s %g\t%s", s, word, f.Target, verdict)
}

// number prints a value with the digits that mean something.
func number(v float64) string {
	switch {
	case v >= 99.9 && v < 100: // a share: what is missing is what counts
		return fmt.Sprintf("%.3f", v)
	case v >= 100 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
