package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

// TestFigureIsXML draws one of everything, with words that want to break out.
func TestFigureIsXML(t *testing.T) {
	var b strings.Builder
	c := Begin(&b, Width, Height)
	c.Axes(`<script>"x"</script>`, "a & b")
	c.Legend(1, 2, "</svg><b>")
	c.Path([]float64{1, 2}, []float64{3, 4}, `stroke="black"`)
	c.Rect(0, 0, 1, 1, `fill="black"`)
	if err := c.Done(); err != nil {
		t.Fatal(err)
	}
	d, words := xml.NewDecoder(strings.NewReader(b.String())), 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "text" {
			words++
		} else if ok && (e.Name.Local == "script" || e.Name.Local == "b") {
			t.Fatalf("a word became the element %s", e.Name.Local)
		}
	}
	if words != 3 {
		t.Fatalf("%d words drawn", words)
	}
}

type broken struct{ left int }

func (w *broken) Write(p []byte) (int, error) {
	if w.left--; w.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestFirstErrorIsKept(t *testing.T) {
	c := Begin(&broken{left: 1}, 10, 10)
	c.Line(0, 0, 1, 1, "")
	if err := c.Done(); !errors.Is(err, io.ErrShortWrite) {
		t.Fatalf("got %v", err)
	}
}

func TestScales(t *testing.T) {
	if x := Log(1, 100, 0, 10)(10); math.Abs(x-5) > 1e-12 {
		t.Errorf("the middle of 1 and 100 lies at %v", x)
	}
	if x := Linear(0, 4, 10, 20)(1); x != 12.5 {
		t.Errorf("a quarter lies at %v", x)
	}
}

func TestUnderHasASecondLine(t *testing.T) {
	for words, lines := range map[int]int{1: 1, 20: 1, 40: 2} {
		var b strings.Builder
		c := Begin(&b, Width, Height)
		c.Under(Left, strings.TrimSpace(strings.Repeat("word ", words)))
		if got := strings.Count(b.String(), "<text"); c.Done() != nil || got != lines || strings.Count(b.String(), "word") != words {
			t.Errorf("%d words: %d lines: expected %d", words, got, lines)
		}
	}
}
