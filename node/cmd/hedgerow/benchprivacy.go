package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/leak"
)

func benchPrivacyCommand() *cobra.Command {
	var o leak.Options
	var asJSON bool
	data := cmp.Or(os.Getenv("HEDGEROW_DATA"), "../shared/data")
	c := &cobra.Command{
		Use: "privacy", Short: "What a site's updates betray of its flows, with noise and without",
		Long: `Attack updates of the shared model as somebody would who sees them: tell which
flows taught, tell whether one odd flow was among them, and rebuild flows from the
update. Each attack has its control: flows that did not teach, and an update of a
single flow, from which rebuilding must succeed. See docs/privacy.md.

It takes some minutes, and the captures that CONTRIBUTING.md names.`,
		Example: "  hedgerow bench privacy --data ../shared/data\n  hedgerow bench privacy --noise 0,1,2,4 --json > privacy.json",
		Args:    noArgs,
	}
	f := c.Flags()
	f.StringVar(&data, "data", data, "folder of the captures")
	f.StringVar(&o.Captures, "captures", "", "folder of captures of normal traffic (default: nDPI's in --data)")
	f.StringVar(&o.Attack, "attack", "", "capture of an attack (default: guessing at SSH, in --data)")
	f.IntVar(&o.Flows, "flows", 0, "flows that teach (default 1000)")
	f.IntVar(&o.Steps, "steps", 0, "steps of a training (default 1000, as on a gateway)")
	f.IntVar(&o.Trials, "trials", 0, "trainings with the planted flow, and without (default 20)")
	f.Float64SliceVar(&o.Noise, "noise", nil, "noise to try, in clips (default 0,2,8)")
	f.Float64Var(&o.Clip, "clip", 0, "length that a flow's gradient is cut to (default 0.1)")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of everything but the noise")
	f.BoolVar(&asJSON, "json", false, "print the report as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.Captures = cmp.Or(o.Captures, filepath.Join(data, "pcap-ndpi-tests", "pcap"))
		o.Attack = cmp.Or(o.Attack, filepath.Join(data, "slips", "dataset", "test19-malicious-ssh", "malicious-ssh-bruteforce.pcap"))
		o.Progress = func(s string) { _, _ = fmt.Fprintln(c.ErrOrStderr(), s) }
		r, err := leak.Run(c.Context(), o)
		if err != nil {
			return fmt.Errorf("bench privacy: %w", err)
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), r)
		}
		return r.Print(c.OutOrStdout())
	}
	return c
}
