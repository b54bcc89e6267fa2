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
	sub := federationAuditCommand()
	sub.GroupID = ""
	c.AddCommand(sub)
	return c
}

func federationAuditCommand() *cobra.Command {
	d := daily{
		use: "audit", short: "Check the chain of rounds again, and make every global model anew",
		long: `Check the chain of rounds again, from its beginning on: every signature, every rule,
and, as long as the updates of a round are still stored, the model that they make.
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
	for _, b := range a.Blocks {
		how := "signatures vouch: its updates are no longer stored"
		if b.Recomputed {
			how, made = "made anew, the same", made+1
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
}
