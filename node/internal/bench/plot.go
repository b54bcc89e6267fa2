//go:build linux

package bench

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/node/internal/plot"
)

// Plot writes an SVG for each row with a curve, and one of all ratios with
// their bounds and targets. It makes the folder and returns the files' names.
func (r *Report) Plot(dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("plot: %w", err)
	}
	var files []string
	write := func(name string, draw func(io.Writer) error) error {
		file := filepath.Join(dir, name)
		f, err := os.Create(file)
		if err != nil {
			return fmt.Errorf("plot: %w", err)
		}
		if err := errors.Join(draw(f), f.Close()); err != nil {
			return fmt.Errorf("plot %s: %w", name, err)
		}
		files = append(files, file)
		return nil
	}
	for i := range r.Rows {
		if row := &r.Rows[i]; len(row.Curve) > 1 {
			if err := write(row.ID+".svg", func(w io.Writer) error { return drawCurve(w, r, row) }); err != nil {
				return files, err
			}
		}
	}
	if bars := r.bars(); len(bars) > 0 {
		return files, write("ratios.svg", func(w io.Writer) error { return drawBars(w, r, bars) })
	}
	return files, nil
}

func (r *Report) caption() string {
	s := fmt.Sprintf("object %s, Linux %s, %d rounds", r.Object, r.Kernel, r.Rounds)
	if r.Quick {
		s += " - QUICK: the figures mean nothing"
	}
	return s
}

// drawCurve is cost against size, both logarithmic.
func drawCurve(w io.Writer, r *Report, row *Row) error {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, p := range row.Curve {
		for _, s := range p.Series {
			if s.Median > 0 {
				lo, hi = min(lo, s.Median), max(hi, s.Median)
			}
		}
	}
	if lo > hi {
		return fmt.Errorf("row %s has no figures", row.ID)
	}
	first, last := float64(row.Curve[0].Size), float64(row.Curve[len(row.Curve)-1].Size)
	x := plot.Log(first, last, plot.Left, plot.Right)
	y := plot.Log(math.Pow(10, math.Floor(math.Log10(lo))), math.Pow(10, math.Ceil(math.Log10(hi))), plot.Bottom, plot.Top)
	c := plot.Begin(w, plot.Width, plot.Height)
	title, _, _ := strings.Cut(row.Title, fmt.Sprintf(", %d", row.Curve[len(row.Curve)-1].Size))
	c.Text(plot.Left, 28, plot.Start, plot.Bold, row.ID+": "+title)
	c.Text(plot.Left, 48, plot.Start, plot.Grey, r.caption())
	axes(c, row, lo, hi, x, y)
	for i, s := range row.Curve[0].Series {
		curve(c, row.Curve, s.Name, i, x, y)
	}
	return c.Done()
}

func axes(c *plot.Canvas, row *Row, lo, hi float64, x, y func(float64) float64) {
	for _, p := range row.Curve {
		at := x(float64(p.Size))
		c.Line(at, plot.Top, at, plot.Bottom, `stroke="#eee"`)
		c.Text(at, plot.Bottom+20, plot.Middle, plot.None, short(p.Size))
	}
	for e := math.Floor(math.Log10(lo)); e <= math.Ceil(math.Log10(hi)); e++ {
		for _, m := range []float64{1, 2, 5} {
			v := m * math.Pow(10, e)
			at := y(v)
			if at < plot.Top-1 || at > plot.Bottom+1 {
				continue
			}
			c.Line(plot.Left, at, plot.Right, at, `stroke="#eee"`)
			c.Text(plot.Left-8, at+4, plot.End, plot.None, fmt.Sprintf("%g", v))
		}
	}
	c.Axes(cmp.Or(row.Axis, "addresses in the list"), row.Unit)
}

func short(n int) string {
	switch {
	case n >= 1000000 && n%1000000 == 0:
		return fmt.Sprintf("%dM", n/1000000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

// curve is one subject: a line, its points, and its word in the legend.
func curve(c *plot.Canvas, points []Point, name string, i int, x, y func(float64) float64) {
	colour, width := plot.Palette[i%len(plot.Palette)], 1.5
	if i == 0 {
		width = 3.5
	}
	var path strings.Builder
	for _, p := range points {
		s := series(p.Series, name)
		if s == nil || s.Median <= 0 {
			continue
		}
		verb := "L"
		if path.Len() == 0 {
			verb = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f ", verb, x(float64(p.Size)), y(s.Median))
		c.Put(`<circle cx="%.1f" cy="%.1f" r="%.1f" fill="%s"/>`+"\n", x(float64(p.Size)), y(s.Median), width+1, colour)
	}
	c.Put(`<path d="%s" fill="none" stroke="%s" stroke-width="%.1f"/>`+"\n", strings.TrimSpace(path.String()), colour, width)
	label := name
	if s := series(points[len(points)-1].Series, name); s != nil {
		label = fmt.Sprintf("%s (%s)", name, figure(s.Median))
	}
	c.Legend(i, width, label)
}

// bar is one ratio with the row that it belongs to.
type bar struct {
	row string
	Ratio
}

func (r *Report) bars() []bar {
	var out []bar
	for _, row := range r.Rows {
		for _, x := range row.Ratios {
			if x.Mean > 0 && x.Target > 0 {
				out = append(out, bar{row.ID, x})
			}
		}
	}
	return out
}

// drawBars shows each ratio, its bound as a whisker, and its target as a mark.
func drawBars(w io.Writer, r *Report, bars []bar) error {
	lo, hi := 1.0, 1.0
	for _, b := range bars {
		for _, v := range []float64{b.Mean, b.Bound, b.Target} {
			if v > 0 {
				lo, hi = min(lo, v), max(hi, v)
			}
		}
	}
	const left, right, step = 400.0, 820.0, 30.0
	x := plot.Log(lo/1.2, hi*1.2, left, right)
	height := plot.Top + step*float64(len(bars)) + 70
	c := plot.Begin(w, plot.Width, height)
	c.Text(20, 28, plot.Start, plot.Bold, "Ratios with their bounds at 95 % and the targets")
	c.Text(20, 48, plot.Start, plot.Grey, r.caption())
	for i, b := range bars {
		y := plot.Top + step*float64(i)
		colour := "#0072b2"
		if !b.Met() {
			colour = "#d55e00"
		}
		from, to := x(min(1, b.Mean)), x(max(1, b.Mean))
		c.Text(left-10, y+15, plot.End, plot.None, b.row+": "+b.Name)
		c.Put(`<rect x="%.1f" y="%.1f" width="%.1f" height="16" fill="%s" fill-opacity="0.75"/>`+"\n", from, y+2, max(to-from, 1), colour)
		if b.Bound > 0 {
			c.Line(x(b.Bound), y, x(b.Bound), y+20, `stroke="black" stroke-width="1.5"`)
		}
		c.Line(x(b.Target), y-2, x(b.Target), y+22, `stroke="#009e73" stroke-width="3"`)
		c.Text(right+2, y+15, plot.Start, ` font-size="11"`, figure(b.Mean))
	}
	y := plot.Top + step*float64(len(bars)) + 24
	c.Text(20, y, plot.Start, plot.None, "bar: mean ratio, logarithmic, from 1; blue when its bound meets the target, else red")
	c.Text(20, y+20, plot.Start, plot.None, "thin black line: bound; thick green line: target")
	return c.Done()
}
