package plot

import (
	"fmt"
	"io"
)

// Tenths are ticks of a share.
var Tenths = []float64{0, 0.2, 0.4, 0.6, 0.8, 1}

// Ticks draws the grid of a single figure and its numbers.
func (c *Canvas) Ticks(x, y func(float64) float64, xs, ys []float64) {
	for _, v := range xs {
		c.Line(x(v), Top, x(v), Bottom, `stroke="#eee"`)
		c.Text(x(v), Bottom+20, Middle, None, fmt.Sprintf("%g", v))
	}
	for _, v := range ys {
		c.Line(Left, y(v), Right, y(v), `stroke="#eee"`)
		c.Text(Left-8, y(v)+4, End, None, fmt.Sprintf("%g", v))
	}
}

// Bar is one row of a figure of bars, with values of 0 to 1.
type Bar struct {
	Name   string
	Values []float64 // each drawn in its own colour, one below the other
	Note   string
}

// Bars draws rows of bars below a title and a legend of their colours; without
// rows it draws nothing.
func Bars(w io.Writer, title string, legend []string, bars []Bar) error {
	if len(bars) == 0 {
		return nil
	}
	const left, right = 290.0, 740.0
	step := 10*float64(len(bars[0].Values)) + 10
	c := Begin(w, Width, Top+step*float64(len(bars))+20)
	c.Text(20, 28, Start, Bold, title)
	at := 20.0
	for i, l := range legend {
		c.Rect(at, 40, 12, 12, fmt.Sprintf(`fill="%s"`, Palette[i%len(Palette)]))
		c.Text(at+18, 51, Start, Grey, l)
		at += 40 + 8*float64(len(l))
	}
	x := Linear(0, 1, left, right)
	for i, b := range bars {
		y := Top + step*float64(i)
		c.Text(left-10, y+step/2, End, None, b.Name)
		for k, v := range b.Values {
			c.Rect(left, y+10*float64(k), max(x(v)-left, 0.5), 9, fmt.Sprintf(`fill="%s"`, Palette[k%len(Palette)]))
		}
		c.Text(right+10, y+step/2, Start, ` font-size="11"`, b.Note)
	}
	c.Line(left, Top, left, Top+step*float64(len(bars)), `stroke="black"`)
	return c.Done()
}

// Curve is one line of a figure, with a band around it where Low is not nil.
type Curve struct {
	Name      string
	X, Y      []float64
	Low, High []float64
}

// Curves draws lines over x from the first to the last tick, and y of 0 to 1.
func Curves(w io.Writer, title, under, xWord, yWord string, xs []float64, curves []Curve) error {
	c := Begin(w, Width, Height)
	c.Text(Left, 28, Start, Bold, title)
	c.Under(Left, under)
	x, y := Linear(xs[0], xs[len(xs)-1], Left, Right), Linear(0, 1, Bottom, Top)
	c.Ticks(x, y, xs, Tenths)
	c.Axes(xWord, yWord)
	for i, l := range curves {
		var px, py, bx, by []float64
		for k := range l.X {
			px, py = append(px, x(l.X[k])), append(py, y(l.Y[k]))
		}
		colour := Palette[i%len(Palette)]
		if l.Low != nil {
			for k := range l.X {
				bx, by = append(bx, x(l.X[k])), append(by, y(l.Low[k]))
			}
			for k := len(l.X) - 1; k >= 0; k-- {
				bx, by = append(bx, x(l.X[k])), append(by, y(l.High[k]))
			}
			c.area(bx, by, colour)
		}
		c.Path(px, py, fmt.Sprintf(`stroke="%s" stroke-width="2.5"`, colour))
		c.Legend(i, 2.5, l.Name)
	}
	return c.Done()
}

// area fills a shape lightly.
func (c *Canvas) area(xs, ys []float64, colour string) {
	c.Put(`<polygon points="`)
	for i := range xs {
		c.Put("%.1f,%.1f ", xs[i], ys[i])
	}
	c.Put(`" fill="%s" fill-opacity="0.15"/>`+"\n", colour)
}

// Heat draws a field of values of 0 to 1, one for each row and column, dark where
// the value is high. A NaN is left white.
func Heat(w io.Writer, title, under string, rows, cols []string, value func(row, col int) float64) error {
	const left, cell, high = 250.0, 76.0, 26.0
	c := Begin(w, max(Width, left+cell*float64(len(cols))+20), Top+110+high*float64(len(rows)))
	c.Text(20, 28, Start, Bold, title)
	c.Under(20, under)
	head := Top + 80
	for k, name := range cols {
		at := left + cell*(float64(k)+0.5)
		c.Text(at, head-8, Start, fmt.Sprintf(` font-size="11" transform="rotate(-35 %.1f %.1f)"`, at, head-8), name)
	}
	for i, name := range rows {
		y := head + high*float64(i)
		c.Text(left-8, y+17, End, ` font-size="11"`, name)
		for k := range cols {
			v := value(i, k)
			if v != v {
				continue
			}
			v = min(max(v, 0), 1)
			ink := "black"
			if v > 0.55 {
				ink = "white"
			}
			shade := func(from, to float64) int { return int(from + (to-from)*v) }
			c.Rect(left+cell*float64(k), y, cell-2, high-2, fmt.Sprintf(`fill="#%02x%02x%02x"`, shade(255, 0), shade(255, 60), shade(255, 110)))
			c.Text(left+cell*(float64(k)+0.5), y+17, Middle, fmt.Sprintf(` font-size="11" fill="%s"`, ink), fmt.Sprintf("%.2f", v))
		}
	}
	return c.Done()
}
