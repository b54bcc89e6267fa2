package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/detection"
)

func benchKernelModelCommand() *cobra.Command {
	var o detection.Options
	var asJSON bool
	c := &cobra.Command{
		Use: "kernel-model", Short: "What the small scorer of the kernel detects, beside the full model",
		Long: `Distil the full model into the integer scorer that the kernel can run, on labelled
captures, and compare both at the same packets of the same flows, at 1 % false
alarms. Beside them stand the full model without a flow's surroundings, a network
of 8-bit integers, and the control: a scorer whose labels were drawn at random.
Then the time from a label to a new scorer is taken for a site with a full memory.
It takes some minutes, and the captures that CONTRIBUTING.md names.`,
		Example: "  hedgerow bench kernel-model --data ../shared/data\n  hedgerow bench kernel-model --data ../shared/data --json > kernel-model.json",
		Args:    noArgs,
	}
	data := os.Getenv("HEDGEROW_DATA")
	if data == "" {
		data = "../shared/data"
	}
	f := c.Flags()
	f.StringVar(&o.Data, "data", data, "folder of the captures")
	f.StringVar(&o.Only, "only", "", "only captures whose path holds this")
	f.IntVar(&o.Flows, "flows", 0, "flows in the memory for the time of the loop (default 100000)")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of all training (default 1)")
	f.BoolVar(&asJSON, "json", false, "print the report as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.Progress = func(s string) { _, _ = fmt.Fprintln(c.ErrOrStderr(), s) }
		r, err := detection.Run(c.Context(), o)
		if err != nil {
			return fmt.Errorf("bench kernel-model: %w", err)
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), r)
		}
		return r.Print(c.OutOrStdout())
	}
	return c
}
