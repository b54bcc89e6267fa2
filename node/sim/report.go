package sim

import (
	"cmp"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/node/internal/plot"
)

// drawing is one figure.
type drawing struct {
	name string
	draw func(io.Writer) error
}

func (r *Result) drawings() []drawing {
	return []drawing{
		{"detection.svg", r.drawCurve("Attacks found at 1 % false alarms, test rows", "share of attacks found", func(f Figures) float64 { return f.At1 })},
		{"auc.svg", r.drawCurve("Area under the ROC curve, test rows", "AUC", func(f Figures) float64 { return f.AUC })},
		{"passed.svg", r.drawCurve("Attacks that the model calls normal, test rows", "share of attacks", func(f Figures) float64 { return f.Passed })},
		{"sites.svg", r.drawSites},
	}
}

// ticks are the rounds that are written below a curve.
func ticks(last int) []float64 {
	step := max(1, (last+5)/6)
	out := []float64{0}
	for x := step; x < last; x += step {
		out = append(out, float64(x))
	}
	return append(out, float64(last))
}

func (r *Result) drawCurve(title, yWord string, of func(Figures) float64) func(io.Writer) error {
	return func(w io.Writer) error {
		var curves []plot.Curve
		for _, model := range []string{Mesh, Alone, Used} {
			c := plot.Curve{Name: model}
			for _, x := range r.Rounds {
				if x.Set == Test && x.Model == model {
					c.X, c.Y = append(c.X, float64(x.Round)), append(c.Y, of(x.Figures))
				}
			}
			if model != Used || r.Scenario.Gate.On {
				curves = append(curves, c)
			}
		}
		return plot.Curves(w, title, r.words(), "round", yWord, ticks(r.Scenario.Training.Rounds), curves)
	}
}

// shownSites is how many sites the figure has room for.
const shownSites = 40

// drawSites shows what each honest site has of the mesh, the least first.
func (r *Result) drawSites(w io.Writer) error {
	sites := r.honest()
	title := "Attacks found at 1 % false alarms, by site, test rows"
	if len(sites) > shownSites { // evenly spread over all
		some := make([]SiteRow, shownSites)
		for i := range some {
			some[i] = sites[i*(len(sites)-1)/(shownSites-1)]
		}
		title, sites = title+fmt.Sprintf(" (%d of %d honest sites)", shownSites, len(sites)), some
	}
	var bars []plot.Bar
	for _, x := range sites {
		bars = append(bars, plot.Bar{
			Name:   fmt.Sprintf("site %d: %d rows, %d classes of attack", x.Site, x.Teach, x.Classes),
			Values: []float64{x.Used.At1, x.Alone.At1}, Note: fmt.Sprintf("%+.2f", x.Used.At1-x.Alone.At1),
		})
	}
	return plot.Bars(w, title, []string{"used: in the mesh", "alone"}, bars)
}

// honest are the honest sites by their gain, the least first.
func (r *Result) honest() []SiteRow {
	out := slices.DeleteFunc(slices.Clone(r.Sites), func(x SiteRow) bool { return x.Liar })
	slices.SortStableFunc(out, func(a, b SiteRow) int { return cmp.Compare(a.Used.At1-a.Alone.At1, b.Used.At1-b.Alone.At1) })
	return out
}

// words says in a line what was run.
func (r *Result) words() string {
	s := &r.Scenario
	set := s.Data.Set
	if set == "" {
		set = s.Data.File + s.Data.Captures
	}
	gate := "gate off"
	if s.Gate.On {
		gate = "gate on"
	}
	liars := "nobody lies"
	if n := s.Attackers.liars(s.Sites.Count); n > 0 {
		liars = fmt.Sprintf("%d sites lie: %s", n, s.Attackers.Attack)
	}
	return fmt.Sprintf("%s, %d sites, %s; %s (f = %d), %s; %s; seed %d", set, s.Sites.Count, s.Sites.Partition, s.Rule.Name, r.F, gate, liars, s.Seed)
}

// Print writes what a run found, in a few lines.
func (r *Result) Print(w io.Writer) error {
	var b strings.Builder
	p := func(f string, a ...any) { fmt.Fprintf(&b, f+"\n", a...) }
	p("%s: %s", r.Scenario.Name, r.words())
	p("%d rounds of %d steps; a model of %d numbers, shape %v", r.Scenario.Training.Rounds, r.Scenario.Training.Steps, r.Params, r.Shape)
	p("")
	p("%-12s%-8s%9s%9s%9s%10s%9s", "rows", "model", "AUC", "at 1 %", "at 5 %", "macro-F1", "passed")
	for _, set := range []string{Validation, Test} {
		for _, model := range []string{Mesh, Alone, Used} {
			f := r.Last(set, model)
			p("%-12s%-8s%9.4f%9.3f%9.3f%10.3f%9.3f", set, model, f.AUC, f.At1, f.At5, f.MacroF1, f.Passed)
		}
	}
	p("")
	p("at 1 %%, at 5 %%: share of attacks found at that share of false alarms; passed: share of attacks called normal.")
	p("mesh: what the rounds made; alone: honest sites without the others (mean of %d); used: what judges there.", len(r.sampled()))
	honest := r.honest()
	better, worse := gains(honest, func(x *SiteRow) (float64, float64) { return x.Used.At1, x.Alone.At1 })
	p("of %d honest sites, %d find more at 1 %% false alarms than alone on test rows, %d find less;", len(honest), better, worse)
	better, worse = gains(honest, func(x *SiteRow) (float64, float64) { return x.Known.Used.At1, x.Known.Alone.At1 })
	p("on validation rows, which are like their own, %d find more and %d less.", better, worse)
	if s := &r.Scenario.Privacy; s.on() {
		low, high := r.epsilons()
		p("noise of %g clips: all updates of a site together tell of one of its rows at most epsilon %.2f to %.2f, by site, at delta %g.", s.Noise, low, high, s.Delta)
	}
	var sent int64
	for _, x := range r.Steps {
		sent += x.Bytes
	}
	p("sent between sites: %d bytes, each update to each other site.", sent)
	if n := r.unsealed(); n > 0 {
		p("%d of %d rounds made no model: %s", n, len(r.Steps), r.withheld())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// gains counts the sites where the first of two figures is greater, and less.
func gains(sites []SiteRow, of func(*SiteRow) (float64, float64)) (better, worse int) {
	for i := range sites {
		switch used, alone := of(&sites[i]); {
		case used > alone:
			better++
		case used < alone:
			worse++
		}
	}
	return better, worse
}

func (r *Result) sampled() []SiteRow {
	h := r.honest()
	return h[:min(len(h), sampled)]
}

func (r *Result) unsealed() (n int) {
	for _, x := range r.Steps {
		if !x.Sealed {
			n++
		}
	}
	return n
}

func (r *Result) withheld() string {
	for _, x := range r.Steps {
		if !x.Sealed {
			return x.Withheld
		}
	}
	return ""
}

// HTML writes a run as one page that loads nothing from elsewhere.
func (r *Result) HTML(w io.Writer) error {
	return writeReport(w, &r.Scenario, r.Print, r.drawings(), r.tables())
}

// writeReport is the page of a run.
func writeReport(w io.Writer, s *Scenario, print func(io.Writer) error, figures []drawing, tables []table) error {
	var text strings.Builder
	if err := print(&text); err != nil {
		return err
	}
	scenario, err := s.Encode()
	if err != nil {
		return err
	}
	return writePage(w, s.Name, text.String(), figures, string(scenario), tables)
}

// writePage is the page of a run or of a sweep.
func writePage(w io.Writer, name, text string, figures []drawing, scenario string, tables []table) error {
	var plots []template.HTML
	for _, f := range figures {
		var b strings.Builder
		if err := f.draw(&b); err != nil {
			return fmt.Errorf("report page: %w", err)
		}
		// Drawn by package plot, which escapes every word.
		plots = append(plots, template.HTML(b.String()))
	}
	var shown []map[string]any
	for _, t := range tables {
		shown = append(shown, map[string]any{"Name": t.name, "Head": t.head, "Rows": t.rows[:min(len(t.rows), 1000)], "Left": max(0, len(t.rows)-1000)})
	}
	if err := page.Execute(w, map[string]any{"Name": name, "Text": text, "Plots": plots, "Scenario": scenario, "Tables": shown}); err != nil {
		return fmt.Errorf("report page: %w", err)
	}
	return nil
}

var page = template.Must(template.New("report").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>hedgerow sim: {{.Name}}</title>
<style>body{font-family:sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}svg{width:100%;height:auto}
table{border-collapse:collapse;font-size:.8rem}td,th{border:1px solid #ccc;padding:.1rem .4rem;text-align:right}pre{overflow-x:auto;font-size:.8rem}
.told{white-space:pre-wrap}
details{margin:1rem 0}</style></head><body>
<h1>hedgerow sim: {{.Name}}</h1>
<pre class="told">{{.Text}}</pre>
{{range .Plots}}{{.}}{{end}}
<details><summary>the scenario in full</summary><pre>{{.Scenario}}</pre></details>
{{range .Tables}}<details><summary>{{.Name}}</summary><table><tr>{{range .Head}}<th>{{.}}</th>{{end}}</tr>
{{range .Rows}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>
{{end}}</table>{{if .Left}}<p>and {{.Left}} more rows, in the CSV file</p>{{end}}</details>
{{end}}</body></html>
`))
