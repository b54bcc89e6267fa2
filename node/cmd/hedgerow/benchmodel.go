package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/bench"
	"github.com/hedgerow-mesh/hedgerow/node/internal/detection"
)

func benchKernelModelCommand() *cobra.Command {
	var o detection.Options
	var in bench.ModelOptions
	var asJSON bool
	part := bothParts
	c := &cobra.Command{
		Use: "kernel-model", Short: "What the small scorer of the kernel detects, beside the full model",
		Long: `Distil the full model into the integer scorer that the kernel can run, on labelled
captures, and compare both at the same packets of the same flows, at 1 % false
alarms. Beside them stand the full model without a flow's surroundings, a network
of 8-bit integers, and the control: a scorer whose labels were drawn at random.
Then the time from a label to a new scorer is taken for a site with a full memory.
It takes some minutes, and the captures that CONTRIBUTING.md names.

As root, it also measures the scorer in the kernel: what a milestone's packet costs
with it, how long a new one takes there, whether swaps leave a milestone unscored,
and what comes through of flows that it detects, beside a process that decides on
the same events. For that, network namespaces are made and taken away.`,
		Example: "  hedgerow bench kernel-model --data ../shared/data\n  hedgerow bench kernel-model --data ../shared/data --json > kernel-model.json\n  sudo hedgerow bench kernel-model --part kernel",
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
	f.StringVar(&part, "part", part, "what to measure: detection, kernel or both; both leaves the kernel out without root")
	f.IntVar(&in.Rounds, "rounds", 0, "rounds of the measurements in the kernel (default 7)")
	f.StringVar(&in.Capture, "capture", "", "a capture whose packets weigh the cost, for --part kernel or both")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.Progress = func(s string) { _, _ = fmt.Fprintln(c.ErrOrStderr(), s) }
		in.Progress = o.Progress
		r, err := kernelModel(c.Context(), part, o, in)
		if err != nil {
			return fmt.Errorf("bench kernel-model: %w", err)
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), r)
		}
		return r.print(c.OutOrStdout())
	}
	return c
}

const bothParts = "both"

// kernelModelReport is what was measured of both parts.
type kernelModelReport struct {
	*detection.Report
	Kernel *bench.ModelReport `json:"kernel,omitempty"`
}

func kernelModel(ctx context.Context, part string, o detection.Options, in bench.ModelOptions) (r kernelModelReport, err error) {
	switch part {
	case bothParts, "detection", "kernel":
	default:
		return r, fmt.Errorf("--part %q: expected detection, kernel or both", part)
	}
	if part != "kernel" {
		if r.Report, err = detection.Run(ctx, o); err != nil {
			return r, err
		}
	}
	if part == "kernel" || part == bothParts && os.Geteuid() == 0 {
		r.Kernel, err = bench.Model(ctx, in)
	}
	return r, err
}

func (r *kernelModelReport) print(w io.Writer) error {
	if r.Report != nil {
		if err := r.Print(w); err != nil {
			return err
		}
	}
	if r.Kernel != nil {
		return r.Kernel.Print(w)
	}
	return nil
}
