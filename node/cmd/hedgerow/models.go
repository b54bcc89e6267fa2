package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
)

func modelsCommand() *cobra.Command {
	c := daily{
		use: "models", short: "The models of this site: which decides, where they come from, what decided about them",
		example: "  hedgerow models\n  hedgerow models show 3f2a\n  hedgerow models diff 3f2a 90bc\n  hedgerow models rollback --why 'too loud'\n  hedgerow models export > models.json",
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			ms, err := cl.Models(ctx)
			return ms, func(w io.Writer) { printModels(w, ms) }, err
		},
	}.command()
	for _, d := range []daily{modelShowCommand(), modelDiffCommand(), modelPromoteCommand(), modelRollbackCommand(), modelExportCommand()} {
		sub := d.command()
		sub.GroupID = ""
		c.AddCommand(sub)
	}
	return c
}

func printModels(w io.Writer, ms []api.Model) {
	if len(ms) == 0 {
		_, _ = fmt.Fprintln(w, "none yet (`hedgerow status` tells how long until the first)")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, " \tMODEL\tSTATE\tSINCE\tORIGIN\tPARENT\tNORMAL\tATTACKS\tALARMS\tDETECTS")
	for _, m := range ms {
		mark, since, alarms, detects := " ", clock(m.Created), "", ""
		if m.Active {
			mark = "*"
		}
		if m.Life != nil {
			since = clock(m.Life.Since)
			if x := m.Life.Trial; x != nil {
				alarms, detects = fmt.Sprintf("%d/%d", x.Own.Alarms, x.Causes), fmt.Sprintf("%d/%d", x.Own.Detected, x.AttackSet)
			}
		}
		_, _ = fmt.Fprintf(t, "%s\t%.12s\t%s\t%s\t%s\t%.12s\t%d\t%d\t%s\t%s\n", mark, m.Hash, stateWords(&m), since, originWords(&m), orNone(m.Parent), m.Flows, m.Attacks, alarms, detects)
	}
	_ = t.Flush()
	for _, m := range ms {
		if m.Active && m.Life != nil {
			_, _ = fmt.Fprintf(w, "%.12s decides: %s\n", m.Hash, m.Why)
			if b := m.Life.Benefit(); b != nil {
				_, _ = fmt.Fprintf(w, "with what the mesh taught it %s\n", b.Words())
			}
		}
	}
}

func stateWords(m *api.Model) string {
	if m.Role != "" && m.Role != m.State {
		return m.State + " (" + m.Role + ")"
	}
	return m.State
}

func originWords(m *api.Model) string {
	if m.Round > 0 {
		return fmt.Sprintf("%s, round %d", m.Origin, m.Round)
	}
	return m.Origin
}

func modelShowCommand() daily {
	return daily{
		use: "show ID", short: "The whole life of one model",
		example: "  hedgerow models show 3f2a", args: exactArgs(1, "the hash of a model, or its beginning"),
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			m, err := cl.Model(ctx, args[0])
			return m, func(w io.Writer) { printModel(w, &m) }, err
		},
	}
}

func printModel(w io.Writer, m *api.Model) {
	p := func(f string, a ...any) { _, _ = fmt.Fprintf(w, f+"\n", a...) }
	p("model %s", m.Hash)
	p("  %s, made %s, %s", stateWords(m), clock(m.Created), originWords(m))
	p("  grew from %s", orNone(m.Parent))
	if m.Dropped {
		p("  its weights were dropped to save space: it cannot judge again")
	}
	l := m.Life
	if l == nil {
		p("  %s", m.Why)
		return
	}
	if l.Base != l.ID {
		p("  inside of it is %.12s, which this site made alone", l.Base)
		if b := l.Benefit(); b != nil {
			p("  with what the mesh taught it %s", b.Words())
		}
	}
	p("  data: %d reports of normal traffic from %s to %s, %d labelled examples", l.Data.Normals, moment(l.Data.From), moment(l.Data.Until), l.Data.Attacks)
	if x := l.Live; x.Reports > 0 {
		p("  beside another in this stage: %d reports of %d causes; it alone would alarm on %d, the other alone on %d", x.Reports, x.Causes, x.Only, x.Other)
	}
	p("\nits life:")
	for _, s := range l.History {
		p("  %s  %s, by %s: %s", clock(s.At), s.To, s.By, s.Why)
		for _, k := range slices.Sorted(maps.Keys(s.Metrics)) {
			p("      %s %.4g", k, s.Metrics[k])
		}
	}
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "the beginning"
	}
	return clock(t)
}

func modelDiffCommand() daily {
	return daily{
		use: "diff A B", short: "How two models differ on this site's recent flows",
		example: "  hedgerow models diff 3f2a 90bc\n  hedgerow models diff 3f2a 90bc --json",
		args:    exactArgs(2, "two hashes of models, or their beginnings"),
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			d, err := cl.DiffModels(ctx, args[0], args[1])
			return d, func(w io.Writer) { printDiff(w, &d) }, err
		},
	}
}

func printDiff(w io.Writer, d *api.ModelDiff) {
	p := func(f string, a ...any) { _, _ = fmt.Fprintf(w, f+"\n", a...) }
	p("A %.12s, B %.12s, on %d flows since %s", d.A, d.B, d.N, clock(d.Since))
	p("\nflows under a p-value:")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "  P\tA\tB\tEXPECTED")
	for _, l := range d.Levels {
		_, _ = fmt.Fprintf(t, "  %g\t%d\t%d\t%.1f\n", l.P, l.A, l.B, l.P*float64(d.N))
	}
	_ = t.Flush()
	p("\nfeatures whose share in the explanations changed most (of %d unusual flows):", d.Explained)
	for _, f := range d.Features {
		p("  %-18s %5.1f %% -> %5.1f %%", f.Name, 100*f.A, 100*f.B)
	}
	p("\nat p < %g only A would alarm on %d flows, only B on %d", d.Level, d.OnlyA, d.OnlyB)
	for i, x := range d.Differ {
		f := d.Flows[i]
		p("  %s %s:%d > %s:%d  p %.2g -> %.2g  %s", f.Proto, f.Src, f.SrcPort, f.Dst, f.DstPort, x.A, x.B, x.Words)
	}
}

func modelPromoteCommand() daily {
	var why string
	return daily{
		use: "promote ID", short: "Let a model that passed the gate decide now, ahead of its time, or again",
		example: "  hedgerow models promote 3f2a --why 'knows the new office'",
		args:    exactArgs(1, "the hash of a model, or its beginning"),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&why, "why", "", "the reason, for those who read it later")
		},
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			m, err := cl.PromoteModel(ctx, args[0], why)
			return m, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "%.12s decides; `hedgerow models rollback` goes back\n", m.Hash)
			}, err
		},
	}
}

func modelRollbackCommand() daily {
	var why string
	return daily{
		use: "rollback", short: "Go back to the model that decided before",
		example: "  hedgerow models rollback\n  hedgerow models rollback --why 'too loud'",
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&why, "why", "", "the reason, for those who read it later")
		},
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			m, err := cl.RollbackModel(ctx, why)
			return m, func(w io.Writer) {
				if m.Hash == "" {
					_, _ = fmt.Fprintln(w, "there is none before it: no model decides, only rules and indicators, until a new one has passed")
					return
				}
				_, _ = fmt.Fprintf(w, "%.12s decides again\n", m.Hash)
			}, err
		},
	}
}

func modelExportCommand() daily {
	return daily{
		use: "export", short: "Every model's lineage, data, figures and decisions as JSON",
		example: "  hedgerow models export > models.json",
		ask: func(ctx context.Context, cl *api.Client, c *cobra.Command, _ []string) (any, func(io.Writer), error) {
			e, err := cl.ExportModels(ctx)
			return e, func(w io.Writer) { _ = printJSON(w, e) }, err
		},
	}
}
