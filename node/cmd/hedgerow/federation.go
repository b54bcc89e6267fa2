package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
)

func federationCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "federation", Short: "The models that the consortium made: check them again", GroupID: "daily",
		Example: "  hedgerow federation audit",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, sub := range []*cobra.Command{federationAuditCommand(), federationResumeCommand()} {
		sub.GroupID = ""
		c.AddCommand(sub)
	}
	return c
}

func federationResumeCommand() *cobra.Command {
	d := daily{
		use: "resume", short: "Adopt models of rounds again after two sealed ones excluded each other",
		long: `Two sealed models of one round prove that a third of the organisations lie. From then
on this site adopts no model of rounds. Compare the members' chains first, each by its
` + "`hedgerow federation audit`" + `, and have those leave that signed both.`,
		example: "  hedgerow federation resume",
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			return struct{}{}, done("models of rounds are adopted again"), cl.ResumeRounds(ctx)
		},
	}
	return d.command()
}

func federationAuditCommand() *cobra.Command {
	d := daily{
		use: "audit", short: "Check the chain of rounds again, and make every global model anew",
		long: `Check the chain of rounds again, from its beginning on: every signature, every rule,
and, as long as the updates of a round and the model before it are still stored,
the model that they make. For older rounds the signatures vouch, and it says for which.
It fails and names the first block that does not hold.`,
		example: "  hedgerow federation audit\n  hedgerow federation audit --json | jq .broken",
		ask: func(ctx context.Context, cl *api.Client, c *cobra.Command, _ []string) (any, func(io.Writer), error) {
			a, err := cl.AuditRounds(ctx)
			if err == nil && a.Broken != "" && !c.Flags().Changed("json") {
				printRounds(c.OutOrStdout(), &a)
				return nil, nil, errors.New(a.Broken)
			}
			return a, func(w io.Writer) { printRounds(w, &a) }, err
		},
	}
	return d.command()
}

func printRounds(w io.Writer, a *api.RoundAudit) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	made := 0
	var vouched []uint64
	for _, b := range a.Blocks {
		how := "signatures vouch: its updates are no longer stored"
		if b.Recomputed {
			how, made = "made anew, the same", made+1
		} else {
			vouched = append(vouched, b.Height)
		}
		notes := b.Change
		if len(b.Withheld) > 0 {
			notes = strings.TrimSpace(notes + " withheld by " + strings.Join(b.Withheld, ", "))
		}
		_, _ = fmt.Fprintf(t, "%d\tround %d\tmodel %.12s\tfrom %d organisations\t%s\t%s\n", b.Height, b.Round, b.Model, b.Listed, how, notes)
	}
	_ = t.Flush()
	if a.Broken == "" {
		_, _ = fmt.Fprintf(w, "all %d models hold, %d of them made anew by %s\n", len(a.Blocks), made, a.Rule)
	}
	if len(vouched) > 0 {
		_, _ = fmt.Fprintf(w, "signatures vouch for %s\n", ranges(vouched))
	}
}

// ranges writes ascending heights as "1-5, 9".
func ranges(heights []uint64) string {
	var out []string
	for i := 0; i < len(heights); {
		last := i
		for last+1 < len(heights) && heights[last+1] == heights[last]+1 {
			last++
		}
		if last == i {
			out = append(out, fmt.Sprint(heights[i]))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", heights[i], heights[last]))
		}
		i = last + 1
	}
	return strings.Join(out, ", ")
}

func whatIfCommand() daily {
	var peers []string
	var lies bool
	return daily{
		use: "what-if", short: "Tell what other organisations cause at this site, and what they could by lying",
		long: `Tell what other organisations cause at this site: for each address that they spoke
about, what is done now and what would be done without their word. With --lies, also
the most that they could reach if they lied about it together from now on, and what
they could reach about an address that nobody else has spoken of.`,
		example: "  hedgerow what-if --peer briar\n  hedgerow what-if --peer briar --peer cedar --lies",
		flags: func(c *cobra.Command) {
			c.Flags().StringArrayVar(&peers, "peer", nil, "an organisation of the consortium; several act together")
			c.Flags().BoolVar(&lies, "lies", false, "also tell what they could cause")
		},
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			x, err := cl.WhatIf(ctx, peers)
			return x, func(w io.Writer) { printWhatIf(w, &x, lies) }, err
		},
	}
}

func printWhatIf(w io.Writer, x *api.WhatIf, lies bool) {
	who := strings.Join(x.Peers, " and ")
	if lies && len(x.Rows) > 0 {
		_, _ = fmt.Fprintf(w, "the most that %s can cause alone, among %d organisations: %s\n", who, x.Counted, x.Rows[0].Lies)
	}
	if len(x.Rows) < 2 {
		_, _ = fmt.Fprintf(w, "no word of %s is in force here\n", who)
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := "VALUE\tNOW\tWITHOUT THEM"
	if lies {
		head += "\tIF THEY LIE"
	}
	_, _ = fmt.Fprintln(t, head)
	for _, r := range x.Rows[1:] {
		row := r.Value + "\t" + r.Now + "\t" + r.Without
		if lies {
			row += "\t" + r.Lies
		}
		_, _ = fmt.Fprintln(t, row)
	}
	_ = t.Flush()
}
