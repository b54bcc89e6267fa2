//go:build linux

package bench

import (
	"cmp"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
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

// palette tells subjects apart, also for those who see fewer colours; ours is
// the first.
var palette = []string{"#0072b2", "#999999", "#56b4e9", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#000000", "#f0e442"}

const (
	plotW, plotH                   = 860.0, 480.0
	plotLeft, plotTop              = 80.0, 70.0
	plotRight, plotBottom          = 640.0, 410.0
	svgHead                        = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="13">` + "\n" + `<rect width="100%%" height="100%%" fill="white"/>` + "\n"
	textLine                       = `<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>` + "\n"
	start, middle, end, bold, none = "start", "middle", "end", ` font-weight="bold" font-size="16"`, ""
)

// canvas keeps the first error, so that drawing reads like drawing.
type canvas struct {
	w   io.Writer
	err error
}

func (c *canvas) put(format string, args ...any) {
	if c.err == nil {
		_, c.err = fmt.Fprintf(c.w, format, args...)
	}
}

func (c *canvas) text(x, y float64, anchor, style, s string) {
	c.put(textLine, x, y, anchor, style, html.EscapeString(s))
}

func (c *canvas) line(x1, y1, x2, y2 float64, style string) {
	c.put(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`+"\n", x1, y1, x2, y2, style)
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
	x := scale(first, last, plotLeft, plotRight)
	y := scale(math.Pow(10, math.Floor(math.Log10(lo))), math.Pow(10, math.Ceil(math.Log10(hi))), plotBottom, plotTop)
	c := &canvas{w: w}
	c.put(svgHead, plotW, plotH)
	title, _, _ := strings.Cut(row.Title, fmt.Sprintf(", %d", row.Curve[len(row.Curve)-1].Size))
	c.text(plotLeft, 28, start, bold, row.ID+": "+title)
	c.text(plotLeft, 48, start, ` fill="#555"`, r.caption())
	c.axes(row, lo, hi, x, y)
	for i, s := range row.Curve[0].Series {
		c.curve(row.Curve, s.Name, i, x, y)
	}
	c.put("</svg>\n")
	return c.err
}

// scale maps values to places, logarithmically.
func scale(from, to, at, until float64) func(float64) float64 {
	span := math.Log(to / from)
	return func(v float64) float64 { return at + (until-at)*math.Log(v/from)/span }
}

func (c *canvas) axes(row *Row, lo, hi float64, x, y func(float64) float64) {
	for _, p := range row.Curve {
		at := x(float64(p.Size))
		c.line(at, plotTop, at, plotBottom, `stroke="#eee"`)
		c.text(at, plotBottom+20, middle, none, short(p.Size))
	}
	for e := math.Floor(math.Log10(lo)); e <= math.Ceil(math.Log10(hi)); e++ {
		for _, m := range []float64{1, 2, 5} {
			v := m * math.Pow(10, e)
			at := y(v)
			if at < plotTop-1 || at > plotBottom+1 {
				continue
			}
			c.line(plotLeft, at, plotRight, at, `stroke="#eee"`)
			c.text(plotLeft-8, at+4, end, none, fmt.Sprintf("%g", v))
		}
	}
	c.line(plotLeft, plotBottom, plotRight, plotBottom, `stroke="black"`)
	c.line(plotLeft, plotTop, plotLeft, plotBottom, `stroke="black"`)
	c.text((plotLeft+plotRight)/2, plotBottom+44, middle, none, cmp.Or(row.Axis, "addresses in the list"))
	mid := (plotTop + plotBottom) / 2
	c.text(24, mid, middle, fmt.Sprintf(` transform="rotate(-90 24 %.1f)"`, mid), row.Unit)
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
func (c *canvas) curve(points []Point, name string, i int, x, y func(float64) float64) {
	colour, width := palette[i%len(palette)], 1.5
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
		c.put(`<circle cx="%.1f" cy="%.1f" r="%.1f" fill="%s"/>`+"\n", x(float64(p.Size)), y(s.Median), width+1, colour)
	}
	c.put(`<path d="%s" fill="none" stroke="%s" stroke-width="%.1f"/>`+"\n", strings.TrimSpace(path.String()), colour, width)
	at := plotTop + 10 + 22*float64(i)
	c.line(plotRight+20, at, plotRight+44, at, fmt.Sprintf(`stroke="%s" stroke-width="%.1f"`, colour, width))
	label := name
	if s := series(points[len(points)-1].Series, name); s != nil {
		label = fmt.Sprintf("%s (%s)", name, figure(s.Median))
	}
	c.text(plotRight+52, at+4, start, none, label)
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
	x := scale(lo/1.2, hi*1.2, left, right)
	height := plotTop + step*float64(len(bars)) + 70
	c := &canvas{w: w}
	c.put(svgHead, plotW, height)
	c.text(20, 28, start, bold, "Ratios with their bounds at 95 % and the targets")
	c.text(20, 48, start, ` fill="#555"`, r.caption())
	for i, b := range bars {
		y := plotTop + step*float64(i)
		colour := "#0072b2"
		if !b.Met() {
			colour = "#d55e00"
		}
		from, to := x(min(1, b.Mean)), x(max(1, b.Mean))
		c.text(left-10, y+15, end, none, b.row+": "+b.Name)
		c.put(`<rect x="%.1f" y="%.1f" width="%.1f" height="16" fill="%s" fill-opacity="0.75"/>`+"\n", from, y+2, max(to-from, 1), colour)
		if b.Bound > 0 {
			c.line(x(b.Bound), y, x(b.Bound), y+20, `stroke="black" stroke-width="1.5"`)
		}
		c.line(x(b.Target), y-2, x(b.Target), y+22, `stroke="#009e73" stroke-width="3"`)
		c.text(right+2, y+15, start, ` font-size="11"`, figure(b.Mean))
	}
	y := plotTop + step*float64(len(bars)) + 24
	c.text(20, y, start, none, "bar: mean ratio, logarithmic, from 1; blue when its bound meets the target, else red")
	c.text(20, y+20, start, none, "thin black line: bound; thick green line: target")
	c.put("</svg>\n")
	return c.err
}
