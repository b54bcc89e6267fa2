package detection

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the report as tables for people.
func (r *Report) Print(w io.Writer) error {
	var b strings.Builder
	b.WriteString("Share of attacks found at 1 % false alarms, at the same packet of the same flows\n\n")
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(cells ...any) {
		_, _ = fmt.Fprintln(t, strings.TrimSuffix(fmt.Sprintln(joined(cells)), "\n")) // into memory
	}
	row("capture", "attack", "packet", "attacks", "normals", "full model", "kernel's scorer", "within 3 points", "flow alone", "8-bit net", "control")
	for _, x := range r.Captures {
		for i := range x.Cells {
			c := &x.Cells[i]
			met := "yes"
			switch {
			case c.Attacks < leastAttacks:
				met = "too few to say"
			case !c.Met():
				met = "NO"
			}
			row(short(x.Capture), x.Class, c.Packets, c.Attacks, c.Normals, three(c.Full), three(c.Scorer), met, three(c.Alone), three(c.Net), three(c.Control))
		}
	}
	_ = t.Flush()
	b.WriteString("\nOne budget over all milestones: thresholds for 1 % of flows\n\n")
	row("capture", "taught", "found", "false alarms", "exact interval, 95 %")
	for _, x := range r.Captures {
		if x.Absent == "" {
			row(short(x.Capture), x.Taught, three(x.Found), fmt.Sprintf("%.4f", x.FalseAlarms), fmt.Sprintf("%.4f to %.4f", x.Low, x.High))
		}
	}
	_ = t.Flush()
	for _, x := range r.Captures {
		if x.Absent != "" {
			fmt.Fprintf(&b, "\nnot measured: %s: %s", short(x.Capture), x.Absent)
		}
	}
	if l := r.Loop; l != nil {
		fmt.Fprintf(&b, "\n\nfrom a label to a scorer, %d flows (%d looks) remembered, %d labelled: retrained %s, distilled %s, together %s; finds %d of the labelled, acts on %d of %d held normal ones\n",
			l.Flows, l.Looks, l.Labelled, l.Retrained.Round(time.Millisecond), l.Distilled.Round(time.Millisecond),
			(l.Retrained + l.Distilled).Round(time.Millisecond), l.Found, l.Over, l.Held)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func joined(cells []any) string {
	out := make([]string, len(cells))
	for i, c := range cells {
		out[i] = fmt.Sprint(c)
	}
	return strings.Join(out, "\t")
}

func three(x float64) string { return fmt.Sprintf("%.3f", x) }

// short is a capture's own name.
func short(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
