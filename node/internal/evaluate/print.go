package evaluate

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
)

// printer keeps the first error, so that printing reads like printing.
type printer struct {
	w   *tabwriter.Writer
	err error
}

func (p *printer) line(format string, a ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", a...)
	}
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	p := &printer{w: tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)}
	if r.Quick {
		p.line("QUICK: few rows and rounds; the figures mean nothing")
	}
	if r.Campaigns != nil {
		r.printCampaigns(p)
		return p.done()
	}
	p.line("%s: %d rows to train, %d to test (%d attacks); %s; seeds %v", r.Dataset, r.Train, r.Test, r.TestAttacks, r.Split, r.Seeds)
	if r.Data != nil && r.Data.Bad > 0 {
		p.line("%d malformed rows were left out, first: %s", r.Data.Bad, r.Data.Faults[0])
	}
	r.printModels(p)
	r.printFamilies(p)
	r.printZeroDay(p)
	r.printPlaces(p)
	return p.done()
}

func (p *printer) done() error {
	if p.err != nil {
		return p.err
	}
	return p.w.Flush()
}

func (r *Report) printCampaigns(p *printer) {
	c := r.Campaigns
	p.line("%s: %s; seeds %v; %g incidents a day", r.Dataset, r.Split, r.Seeds, c.PerDay)
	p.line("\nshare of its flows that were over when a campaign was told of, and when enough was for a block; 1 is never; medians")
	p.line("campaign\tflows\tmodel and rules\t\tsure before half\tmodel alone\t\trules alone\t\tcontrol: shuffled\t\ttold beside")
	for _, x := range c.Rows {
		p.line("%s\t%d\t%.3f\t%.3f\t%.0f %%\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f of %d", x.Name, x.Flows, x.Whole.Told, x.Whole.Sure, 100*x.Whole.Half,
			x.Model.Told, x.Model.Sure, x.Rules.Told, x.Rules.Sure, x.Shuffled.Told, x.Shuffled.Sure, x.Told, x.Beside)
	}
	p.line("\nnormal traffic, watched alone: %d flows in %.2f days; incidents a day %.1f, flows told of %v, of each seed", c.Companion.Flows, c.Companion.Days, c.Companion.PerDay, c.Companion.Alarms)
	if len(c.Evasion) > 0 {
		p.line("\nshare that was over when enough was told for a block, by what evading costs")
	}
	for _, e := range c.Evasion {
		p.line("%s\t%s\t%v %s\t%.3f", e.Campaign, e.Way, e.Cost, e.Unit, e.Sure)
	}
}

func bounds(b metrics.Interval) string { return fmt.Sprintf("[%.3f, %.3f]", b.Low, b.High) }

func (r *Report) printModels(p *printer) {
	if len(r.Models) == 0 {
		return
	}
	p.line("\nmedians over seeds, in brackets the bounds at 95 %% for seed %d", r.Shown)
	p.line("model\tAUC\t\tat 1 %%\t\tat 5 %%\t\tmacro-F1\t")
	for _, m := range r.Models {
		macro, mb := "", ""
		if m.MacroF1 > 0 {
			macro, mb = fmt.Sprintf("%.3f", m.MacroF1), bounds(m.BoundsF)
		}
		p.line("%s\t%.4f\t%s\t%.3f\t%s\t%.3f\t%s\t%s\t%s", m.Name, m.AUC, bounds(m.Bounds), m.At1, bounds(m.Bounds1), m.At5, bounds(m.Bounds5), macro, mb)
	}
	p.line("\nhedgerow less the other, on the same draws\tAUC\tat 1 %%\tat 5 %%\tmacro-F1")
	for _, a := range r.Against {
		macro := ""
		if a.MacroF1 != (metrics.Interval{}) {
			macro = bounds(a.MacroF1)
		}
		p.line("%s\t%s\t%s\t%s\t%s", a.Name, bounds(a.AUC), bounds(a.At1), bounds(a.At5), macro)
	}
	p.line("\ncombined by (chosen on training rows)\t%v", r.Ways)
	p.line("calibration error\t%.3f", r.Off)
	p.line("control: AUC after training on shuffled labels\t%.3f", r.Control)
}

func (r *Report) printFamilies(p *printer) {
	if len(r.Families) == 0 {
		return
	}
	p.line("\nfamily\tclass\trows\tin training\tat 1 %%\t\tat 5 %%\tbest other at 1 %%")
	for _, f := range r.Families {
		shown := "yes"
		if !f.Shown {
			shown = "no"
		}
		p.line("%s\t%s\t%d\t%s\t%.3f\t%s\t%.3f\t%.3f", f.Name, f.Class, f.Rows, shown, f.At1.Value, bounds(f.At1), f.At5.Value, f.Best1)
	}
}

func (r *Report) printZeroDay(p *printer) {
	if len(r.ZeroDay) == 0 {
		return
	}
	p.line("\nleft out of all training: found at 1 %% (at 5 %%) false alarms, medians over seeds")
	p.line("class\trows\ttogether\tclassifier\tautoencoder\tnearest\tcombined by")
	for _, x := range r.ZeroDay {
		f := func(y Found) string { return fmt.Sprintf("%.3f (%.3f)", y.At1, y.At5) }
		p.line("%s\t%d\t%s\t%s\t%s\t%s\t%v", x.Class, x.Rows, f(x.Together), f(x.Trees), f(x.Self), f(x.Nearest), x.Ways)
	}
}

func (r *Report) printPlaces(p *printer) {
	if len(r.Places) == 0 {
		return
	}
	p.line("\nmacro-F1: trained at\ttested at\thedgerow\tforest\tdifference")
	for _, x := range r.Places {
		p.line("%s\t%s\t%.3f\t%.3f\t%s", x.Train, x.Test, x.Ours, x.Forest, bounds(x.Better))
	}
}
