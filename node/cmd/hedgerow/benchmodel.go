package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/bench"
	"github.com/hedgerow-mesh/hedgerow/node/internal/detection"
)

func benchKernelModelCommand() *cobra.Command {
	var o detection.Options
	var in bench.ModelOptions
	var asJSON bool
	part := bothParts
	parts := strings.Join(append([]string{bothParts, detectionPart, kernelPart}, bench.ModelParts...), ", ")
	c := &cobra.Command{
		Use: "kernel-model", Short: "What the small scorer of the kernel detects, beside the full model",
		Long: `Distil the full model into the integer scorer that the kernel can run, on labelled
captures, and compare both at the same packets of the same flows, at 1 % false
alarms. Beside them stand the full model without a flow's surroundings, a network
of 8-bit integers, and the control: a scorer whose labels were drawn at random.
Then the time from a label to a new scorer is taken for a site with a full memory.
It takes some minutes, and the captures that CONTRIBUTING.md names.

As root, it also measures the scorer in the kernel, in four parts that can be had
alone: what a milestone's packet costs with it (cost), how long a new one takes there
and whether 1,000 swaps leave a milestone unscored (swap), what comes through of flows
that it detects, beside a process that decides on the same events (leak), and what
training, distilling and swapping without a pause do to what is forwarded (forward).
For that, network namespaces are made and taken away.`,
		Example: `  hedgerow bench kernel-model --data ../shared/data
  hedgerow bench kernel-model --data ../shared/data --json > kernel-model.json
  sudo hedgerow bench kernel-model --part kernel
  sudo hedgerow bench kernel-model --part cost --capture office.pcap`,
		Args: noArgs,
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
	f.StringVar(&part, "part", part, "what to measure: "+parts+"; both leaves the kernel out without root")
	f.IntVar(&in.Rounds, "rounds", 0, "rounds of the measurements in the kernel (default 7)")
	f.StringVar(&in.Capture, "capture", "", "a capture whose packets weigh the cost, for --part cost, kernel or both")
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

// What --part says besides a part of the kernel's.
const (
	bothParts     = "both"
	detectionPart = "detection"
	kernelPart    = "kernel"
)

// kernelModelReport is what was measured of both parts.
type kernelModelReport struct {
	*detection.Report
	Kernel *bench.ModelReport `json:"kernel,omitempty"`
}

func kernelModel(ctx context.Context, part string, o detection.Options, in bench.ModelOptions) (r kernelModelReport, err error) {
	if slices.Contains(bench.ModelParts, part) {
		in.Only, part = part, kernelPart
	}
	switch part {
	case bothParts, detectionPart, kernelPart:
	default:
		return r, fmt.Errorf("--part %q: expected %s, %s, %s or one of %s", part, detectionPart, kernelPart, bothParts, strings.Join(bench.ModelParts, ", "))
	}
	if part != kernelPart {
		if r.Report, err = detection.Run(ctx, o); err != nil {
			return r, err
		}
	}
	if part == kernelPart || part == bothParts && os.Geteuid() == 0 {
		self, err := os.Executable()
		if err != nil {
			return r, err
		}
		in.Gateway = []string{self, "bench", "gateway"}
		r.Kernel, err = bench.Model(ctx, in)
		return r, err
	}
	return r, nil
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
