// Package plot draws figures as SVG text: curves, bars and fields, with the same
// colours and sizes everywhere, and nothing that is loaded from elsewhere.
package plot

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// Palette tells subjects apart, also for those who see fewer colours; ours is
// the first.
var Palette = []string{"#0072b2", "#999999", "#56b4e9", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#000000", "#f0e442"}

// Where a single figure with a legend at its right lies.
const (
	Width  = 900.0
	Height = 480.0
	Left   = 80.0
	Top    = 70.0
	Right  = 640.0
	Bottom = 410.0
)

// Anchors and styles of texts.
const (
	Start  = "start"
	Middle = "middle"
	End    = "end"
	Bold   = ` font-weight="bold" font-size="16"`
	None   = ""
	Grey   = ` fill="#555"`
)

const (
	head     = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" font-family="sans-serif" font-size="13">` + "\n" + `<rect width="100%%" height="100%%" fill="white"/>` + "\n"
	textLine = `<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>` + "\n"
)

// Canvas keeps the first error, so that drawing reads like drawing.
type Canvas struct {
	w   io.Writer
	err error
}

// Begin starts a figure of a size.
func Begin(w io.Writer, width, height float64) *Canvas {
	c := &Canvas{w: w}
	c.Put(head, width, height)
	return c
}

// Done ends the figure and tells the first error.
func (c *Canvas) Done() error {
	c.Put("</svg>\n")
	return c.err
}

// Put writes a piece of SVG; what comes from elsewhere must be escaped.
func (c *Canvas) Put(format string, args ...any) {
	if c.err == nil {
		_, c.err = fmt.Fprintf(c.w, format, args...)
	}
}

// Text writes a word, whatever it holds.
func (c *Canvas) Text(x, y float64, anchor, style, s string) {
	c.Put(textLine, x, y, anchor, style, html.EscapeString(s))
}

// under is how many letters a line below a title has room for.
const under = 105

// Under draws what stands below a title, on a second line where one is too short.
func (c *Canvas) Under(x float64, s string) {
	y := 48.0
	if len(s) > under {
		if cut := strings.LastIndexByte(s[:under], ' '); cut > 0 {
			c.Text(x, 46, Start, Grey, s[:cut])
			s, y = s[cut+1:], 62
		}
	}
	c.Text(x, y, Start, Grey, s)
}

// Line draws a straight line.
func (c *Canvas) Line(x1, y1, x2, y2 float64, style string) {
	c.Put(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`+"\n", x1, y1, x2, y2, style)
}

// Rect draws a filled rectangle.
func (c *Canvas) Rect(x, y, width, height float64, style string) {
	c.Put(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" %s/>`+"\n", x, y, width, height, style)
}

// Path draws a line through points.
func (c *Canvas) Path(xs, ys []float64, style string) {
	var b strings.Builder
	for i, x := range xs {
		verb := "L"
		if i == 0 {
			verb = "M"
		}
		fmt.Fprintf(&b, "%s%.1f %.1f ", verb, x, ys[i])
	}
	c.Put(`<path d="%s" fill="none" %s/>`+"\n", strings.TrimSpace(b.String()), style)
}

// Axes draws the frame of a single figure and its words.
func (c *Canvas) Axes(xWord, yWord string) {
	c.Line(Left, Bottom, Right, Bottom, `stroke="black"`)
	c.Line(Left, Top, Left, Bottom, `stroke="black"`)
	c.Text((Left+Right)/2, Bottom+44, Middle, None, xWord)
	mid := (Top + Bottom) / 2
	c.Text(24, mid, Middle, fmt.Sprintf(` transform="rotate(-90 24 %.1f)"`, mid), yWord)
}

// Legend writes the i-th entry of a single figure's legend.
func (c *Canvas) Legend(i int, width float64, word string) {
	at := Top + 10 + 22*float64(i)
	c.Line(Right+20, at, Right+44, at, fmt.Sprintf(`stroke="%s" stroke-width="%.1f"`, Palette[i%len(Palette)], width))
	c.Text(Right+52, at+4, Start, None, word)
}

// Log maps values to places, logarithmically.
func Log(from, to, at, until float64) func(float64) float64 {
	span := math.Log(to / from)
	return func(v float64) float64 { return at + (until-at)*math.Log(v/from)/span }
}

// Linear maps values to places.
func Linear(from, to, at, until float64) func(float64) float64 {
	return func(v float64) float64 { return at + (until-at)*(v-from)/(to-from) }
}
