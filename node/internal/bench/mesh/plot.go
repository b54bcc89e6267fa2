package mesh

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/hedgerow-mesh/hedgerow/node/internal/plot"
)

// Plot draws the delays of each row that has many as the shares that were no slower,
// one SVG a row. It makes the folder and returns the files' names.
func (r *Report) Plot(dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("plot: %w", err)
	}
	var files []string
	for i := range r.Rows {
		row := &r.Rows[i]
		if len(row.Series) == 0 || len(row.Series[0].MS) < 10 {
			continue
		}
		file := filepath.Join(dir, "mesh-"+row.ID+".svg")
		f, err := os.Create(file)
		if err != nil {
			return files, fmt.Errorf("plot: %w", err)
		}
		if err := errors.Join(r.draw(f, row), f.Close()); err != nil {
			return files, fmt.Errorf("plot %s: %w", file, err)
		}
		files = append(files, file)
	}
	return files, nil
}

func (r *Report) draw(w io.Writer, row *Row) error {
	under := fmt.Sprintf("%d sites, %d processors, %s", row.Sites, r.CPUs, r.Go)
	if r.Quick {
		under += " - QUICK: the figures mean nothing"
	}
	longest := 0.0
	var curves []plot.Curve
	for _, s := range row.Series {
		c := plot.Curve{Name: s.Name}
		for q := 0.01; q < 0.995; q += 0.01 {
			c.X, c.Y = append(c.X, s.at(q)), append(c.Y, q)
		}
		longest = max(longest, s.at(0.99))
		curves = append(curves, c)
	}
	return plot.Curves(w, row.Title, under, "ms", "share that took no longer", ticks(longest), curves)
}

// ticks are round numbers from 0 to what holds most.
func ticks(most float64) (out []float64) {
	step := math.Pow(10, math.Floor(math.Log10(max(most, 1e-3))))
	for _, k := range []float64{5, 2} {
		if most/step < k {
			step /= 2
		}
	}
	for x := 0.0; ; x += step {
		out = append(out, x)
		if x >= most {
			return out
		}
	}
}
