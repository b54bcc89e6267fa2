//go:build linux

package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Print writes the report as tables for people.
func (r *ModelReport) Print(w io.Writer) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	table := func(title, head string, rows func(row func(format string, a ...any))) {
		_ = t.Flush() // into memory
		fmt.Fprintf(&b, "\n%s\n\n", title)
		_, _ = fmt.Fprintln(t, head)
		rows(func(format string, a ...any) { _, _ = fmt.Fprintf(t, format+"\n", a...) })
	}
	if len(r.Costs) > 0 {
		table("A milestone's packet in the kernel, test runs", "trees\tdepth\tpacket\twith, ns\twithout\tnet\tat 95 %\tof the fastest", r.costRows)
	}
	if len(r.Swaps) > 0 {
		table("A scorer's way into the kernel", "forests\ttrees of each\tdepth\tinstructions\tcompile, ms\tload\tswap\tslowest of all three", r.swapRows)
	}
	if len(r.Leaks) > 0 {
		table("Flows that are detected at their fourth packet, over a veth pair", "decided by\tpackets a second\tflows\tsent\tcame through\tdeciding packets\tleaked after them", r.leakRows)
	}
	_ = t.Flush()
	if u := r.Under; u != nil {
		fmt.Fprintf(&b, "\n%d swaps under traffic: %d milestones reached, %d scored, %d not\n", u.Swaps, u.Reached, u.Scored, u.Reached-u.Scored)
	}
	if c := r.Weighed; c != nil {
		fmt.Fprintf(&b, "%s: %d of %d packets are scored, %.1f ns a packet with %d trees of depth %d\n", c.Capture, c.Scored, c.Packets, c.Each, c.Trees, c.Depth)
	}
	if r.Forward != nil {
		b.WriteString("\n")
		r.Forward.print(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *ModelReport) costRows(row func(string, ...any)) {
	for _, c := range r.Costs {
		row("%d\t%d\t%d\t%.0f\t%.0f\t%.0f\t%.0f to %.0f\t%.0f", c.Trees, c.Depth, c.Packets, c.With, c.Without, c.Net, c.From, c.To, c.Least)
	}
}

func (r *ModelReport) swapRows(row func(string, ...any)) {
	for _, s := range r.Swaps {
		row("%d\t%d\t%d\t%d\t%.2f\t%.2f\t%.3f\t%.2f", s.Forests, s.Trees, s.Depth, s.Instructions, s.Compile, s.Load, s.Swap, s.Slowest)
	}
}

func (r *ModelReport) leakRows(row func(string, ...any)) {
	for _, l := range r.Leaks {
		leaked, deciding := fmt.Sprint(l.Leaked), fmt.Sprint(l.Deciding)
		if l.By == byNobody {
			leaked, deciding = "-", "-"
		}
		row("%s\t%.0f\t%d\t%d\t%d\t%s\t%s", l.By, l.Got, l.Flows, l.Sent, l.Behind, deciding, leaked)
	}
}
