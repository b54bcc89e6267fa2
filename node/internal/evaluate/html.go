package evaluate

import (
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
	"github.com/hedgerow-mesh/hedgerow/node/internal/plot"
)

// HTML writes the report as one page that loads nothing from elsewhere.
func (r *Report) HTML(w io.Writer) error {
	var plots []template.HTML
	for _, draw := range []func(io.Writer) error{r.drawROC, r.drawPR, r.drawCalibration, r.drawFamilies, r.drawImportance, r.drawZeroDay, r.drawCampaigns, r.drawEvasion} {
		var b strings.Builder
		if err := draw(&b); err != nil {
			return fmt.Errorf("report page: %w", err)
		}
		if b.Len() > 0 {
			// Drawn by package plot, which escapes every word.
			plots = append(plots, template.HTML(b.String()))
		}
	}
	var text strings.Builder
	if err := r.Print(&text); err != nil {
		return fmt.Errorf("report page: %w", err)
	}
	err := page.Execute(w, map[string]any{"R": r, "Plots": plots, "Text": text.String()})
	if err != nil {
		return fmt.Errorf("report page: %w", err)
	}
	return nil
}

var page = template.Must(template.New("report").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>hedgerow evaluate {{.R.Dataset}}</title>
<style>body{font-family:sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}svg{width:100%;height:auto}
table{border-collapse:collapse;font-size:.9rem}td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:right}pre{overflow-x:auto;font-size:.8rem}</style></head><body>
<h1>hedgerow evaluate {{.R.Dataset}}</h1>
<pre>{{.Text}}</pre>
{{range .Plots}}{{.}}{{end}}
{{if .R.Confusion}}<h2>Confusion (rows: what was so; columns: what was said)</h2>
<table><tr><th></th>{{range .R.Classes}}<th>{{.}}</th>{{end}}</tr>
{{range $i, $row := .R.Confusion}}<tr><th>{{index $.R.Classes $i}}</th>{{range $row}}<td>{{.}}</td>{{end}}</tr>
{{end}}</table>{{end}}
{{if .R.Trials}}<h2>Ways that were tried, on training rows</h2>
<table><tr><th>way</th><th>shown: AUC</th><th>at 1 %</th><th>at 5 %</th><th>unseen: AUC</th><th>at 1 %</th><th>at 5 %</th><th>worth</th><th></th></tr>
{{range .R.Trials}}<tr><th>{{.Way}}</th><td>{{printf "%.4f" .Known.AUC}}</td><td>{{printf "%.3f" .Known.At1}}</td><td>{{printf "%.3f" .Known.At5}}</td><td>{{printf "%.4f" .Unseen.AUC}}</td><td>{{printf "%.3f" .Unseen.At1}}</td><td>{{printf "%.3f" .Unseen.At5}}</td><td>{{printf "%.4f" .Worth}}</td><td>{{if .Chosen}}chosen{{end}}</td></tr>
{{end}}</table>{{end}}
</body></html>
`))

// curves draws one line for each model. Points left of least are drawn at it.
func (r *Report) curves(w io.Writer, title, xWord, yWord string, x func(float64) float64, least float64, xs []float64, of func(*Curve) ([]metrics.Point, float64)) error {
	if len(r.Curves) == 0 {
		return nil
	}
	c := plot.Begin(w, plot.Width, plot.Height)
	c.Text(plot.Left, 28, plot.Start, plot.Bold, title)
	c.Text(plot.Left, 48, plot.Start, plot.Grey, fmt.Sprintf("%s, seed %d", r.Split, r.Shown))
	y := plot.Linear(0, 1, plot.Bottom, plot.Top)
	c.Ticks(x, y, xs, plot.Tenths)
	c.Axes(xWord, yWord)
	for i := range r.Curves {
		points, figure := of(&r.Curves[i])
		var px, py []float64
		for _, p := range points {
			px, py = append(px, x(max(p.X, least))), append(py, y(p.Y))
		}
		width := 1.5
		if i == 0 {
			width = 3.5
		}
		c.Path(px, py, fmt.Sprintf(`stroke="%s" stroke-width="%.1f"`, plot.Palette[i%len(plot.Palette)], width))
		c.Legend(i, width, fmt.Sprintf("%s (%.3f)", r.Curves[i].Name, figure))
	}
	return c.Done()
}

func (r *Report) drawROC(w io.Writer) error {
	const least = 1e-4
	return r.curves(w, "Attacks found, at each share of false alarms (AUC)", "share of normal rows that raise an alarm, logarithmic", "share of attacks found",
		plot.Log(least, 1, plot.Left, plot.Right), least, []float64{1e-4, 1e-3, 1e-2, 0.05, 0.1, 1},
		func(c *Curve) ([]metrics.Point, float64) { return c.ROC, r.model(c.Name).AUC })
}

func (r *Report) model(name string) *Model {
	for i := range r.Models {
		if r.Models[i].Name == name {
			return &r.Models[i]
		}
	}
	return &Model{}
}

func (r *Report) drawPR(w io.Writer) error {
	return r.curves(w, "Precision, at each share of attacks found (average precision)", "share of attacks found", "share of alarms that are attacks",
		plot.Linear(0, 1, plot.Left, plot.Right), 0, plot.Tenths, func(c *Curve) ([]metrics.Point, float64) { return c.PR, c.AP })
}

func (r *Report) drawCalibration(w io.Writer) error {
	if len(r.Calibration) == 0 {
		return nil
	}
	c := plot.Begin(w, plot.Width, plot.Height)
	c.Text(plot.Left, 28, plot.Start, plot.Bold, fmt.Sprintf("Probability of attack: said and true (mean distance %.3f)", r.Off))
	c.Text(plot.Left, 48, plot.Start, plot.Grey, "bars: bounds at 95 %; said as if attacks were as frequent as in training")
	x, y := plot.Linear(0, 1, plot.Left, plot.Right), plot.Linear(0, 1, plot.Bottom, plot.Top)
	c.Ticks(x, y, plot.Tenths, plot.Tenths)
	c.Axes("said", "true")
	c.Line(x(0), y(0), x(1), y(1), `stroke="#999" stroke-dasharray="4"`)
	for _, b := range r.Calibration {
		c.Line(x(b.Said), y(b.Bounds[0]), x(b.Said), y(b.Bounds[1]), fmt.Sprintf(`stroke="%s" stroke-width="2"`, plot.Palette[0]))
		c.Put(`<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/>`+"\n", x(b.Said), y(b.True), plot.Palette[0])
	}
	return c.Done()
}

func (r *Report) drawFamilies(w io.Writer) error {
	var bars []plot.Bar
	for _, f := range r.Families {
		note := fmt.Sprintf("%.2f of %d", f.At1.Value, f.Rows)
		if !f.Shown {
			note += ", not in training"
		}
		bars = append(bars, plot.Bar{Name: f.Name, Values: []float64{f.At1.Value, f.Best1}, Note: note})
	}
	return plot.Bars(w, "Found of each family at 1 % false alarms", []string{Ours, "best of the others"}, bars)
}

func (r *Report) drawImportance(w io.Writer) error {
	var bars []plot.Bar
	for i, s := range r.Importance {
		if i == 15 || s.Share <= 0 {
			break
		}
		bars = append(bars, plot.Bar{Name: s.Column, Values: []float64{s.Share}, Note: fmt.Sprintf("%.3f", s.Share)})
	}
	return plot.Bars(w, "What the trees go by", nil, bars)
}

func (r *Report) drawZeroDay(w io.Writer) error {
	var bars []plot.Bar
	for _, x := range r.ZeroDay {
		bars = append(bars, plot.Bar{Name: x.Class, Values: []float64{x.Together.At1, x.Trees.At1, x.Self.At1, x.Nearest.At1}, Note: fmt.Sprintf("%.2f of %d", x.Together.At1, x.Rows)})
	}
	return plot.Bars(w, "Left out of all training: found at 1 % false alarms", []string{"together", "classifier alone", "autoencoder alone", "nearest alone"}, bars)
}

func (r *Report) drawCampaigns(w io.Writer) error {
	if r.Campaigns == nil {
		return nil
	}
	var bars []plot.Bar
	for _, x := range r.Campaigns.Rows {
		bars = append(bars, plot.Bar{Name: x.Name, Values: []float64{x.Whole.Sure, x.Rules.Sure, x.Shuffled.Sure}, Note: fmt.Sprintf("%.3f of %d", x.Whole.Sure, x.Flows)})
	}
	return plot.Bars(w, "Share of a campaign that was over when it was found; 1 is never", []string{Ours, "rules alone", "control: shuffled"}, bars)
}

// drawEvasion draws a figure for each tactic, with a line for each campaign.
func (r *Report) drawEvasion(w io.Writer) error {
	if r.Campaigns == nil {
		return nil
	}
	for _, tc := range tactics {
		var lines []plot.Curve
		for _, e := range r.Campaigns.Evasion {
			if e.Way == tc.name {
				lines = append(lines, plot.Curve{Name: e.Campaign, X: e.Cost, Y: e.Sure})
			}
		}
		if len(lines) == 0 {
			continue
		}
		if err := plot.Curves(w, "Evasion: "+tc.name, "medians; at the top nothing was found", tc.unit, "share of the campaign that was over", tc.costs, lines); err != nil {
			return err
		}
	}
	return nil
}
