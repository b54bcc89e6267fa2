package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
	"github.com/hedgerow-mesh/hedgerow/node/internal/bench"
	"github.com/hedgerow-mesh/hedgerow/node/internal/forwarding"
)

func benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "bench", Short: "Measure this build on this machine, beside what it replaces", GroupID: "study",
		Example: "  hedgerow bench dataplane",
		Args:    noArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(benchDataplaneCommand(), benchKernelModelCommand(), benchMeshCommand(), benchPrivacyCommand(), benchGatewayCommand(), benchDoomedCommand())
	return c
}

func benchDataplaneCommand() *cobra.Command {
	var o bench.Options
	var asJSON bool
	var plots string
	names, about := bench.Rows()
	c := &cobra.Command{
		Use: "dataplane", Short: "What a packet costs, against nftables, ipset and the kernel's own maps",
		Long: `Measure the shipped packet path with all its stages on, in network namespaces
that are made for it and taken away; nothing of this machine's network is
touched. Peers that are not installed (nft, ipset, xdp-filter) are left out with
a word.

Each row takes its subjects in turn, round after round, and gives the ratio with
its bound at 95 %. All verdicts are counted and compared with what they must be:
one wrong verdict and there is no result. It takes about twenty minutes, two
processors, 4 GiB of memory and root; other work on the machine makes the bounds
wider, not the figures better.

Rows:
` + rowsHelp(names, about, 8),
		Example: "  sudo hedgerow bench dataplane\n  sudo hedgerow bench dataplane --only hot,load --rounds 15\n  sudo hedgerow bench dataplane --json --plot plots > bench.json\n  sudo hedgerow bench dataplane --quick",
		Args:    noArgs,
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print the report as JSON, every value of every round included")
	f.StringVar(&plots, "plot", "", "also draw the figures as SVG files into this folder")
	f.IntVar(&o.Rounds, "rounds", 0, "rounds of each row (default 7, or 3 with --quick)")
	f.StringSliceVar(&o.Only, "only", nil, "rows to measure (default: all)")
	f.IntSliceVar(&o.Sizes, "sizes", nil, "sizes of the lists of hot, random and miss (default 1000,10000,100000,1000000); load takes the largest")
	f.BoolVar(&o.Quick, "quick", false, "few packets and small tables: shows that it works, the figures mean nothing")
	c.RunE = func(c *cobra.Command, _ []string) error {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this command's own file: %w", err)
		}
		o.Gateway, o.Doomed = []string{self, "bench", "gateway"}, []string{self, "bench", "doomed"}
		o.Progress = benchProgress(c.ErrOrStderr())
		r, err := bench.Run(c.Context(), o)
		if err != nil {
			return fmt.Errorf("bench dataplane: %w", err)
		}
		if asJSON {
			enc := json.NewEncoder(c.OutOrStdout())
			enc.SetIndent("", " ")
			err = enc.Encode(r)
		} else {
			err = r.Print(c.OutOrStdout())
		}
		if err != nil {
			return err
		}
		return drawBench(c, r, plots)
	}
	return c
}

// rowsHelp lists a bench's rows for its help.
func rowsHelp(names, about []string, width int) string {
	var list strings.Builder
	for i, n := range names {
		fmt.Fprintf(&list, "  %-*s %s\n", width, n, about[i])
	}
	return list.String()
}

// drawBench draws a report's figures into a folder, if one is named, and says where.
func drawBench(c *cobra.Command, r interface {
	Plot(string) ([]string, error)
}, folder string) error {
	if folder == "" {
		return nil
	}
	files, err := r.Plot(folder)
	for _, name := range files {
		_, _ = fmt.Fprintln(c.ErrOrStderr(), "drew", name)
	}
	return err
}

// benchProgress tells on a terminal what is done at every step, elsewhere only
// when a row begins.
func benchProgress(w io.Writer) func(bench.Progress) {
	f, terminal := w.(*os.File)
	if terminal {
		fi, err := f.Stat()
		terminal = err == nil && fi.Mode()&os.ModeCharDevice != 0
	}
	last := ""
	return func(p bench.Progress) {
		left := max(p.Left, time.Second).Round(time.Second)
		switch {
		case terminal:
			_, _ = fmt.Fprintf(w, "\r%s: %s; about %s left\x1b[K", p.Row, p.Doing, left)
		case p.Row != last:
			_, _ = fmt.Fprintf(w, "%s; about %s left\n", p.Row, left)
		}
		last = p.Row
	}
}

// benchGatewayCommand is the gateway that the row forward measures: a process of
// its own, as on a real site.
func benchGatewayCommand() *cobra.Command {
	return &cobra.Command{
		Use: "gateway", Hidden: true, Args: noArgs, Short: "The gateway that bench dataplane measures",
		RunE: func(c *cobra.Command, _ []string) error {
			return forwarding.Gateway(context.WithoutCancel(c.Context()), func(iface string) (dataplane.Plane, error) {
				return xdp.Open(xdp.Options{Interface: iface, Mode: dataplane.Enforce})
			}, c.InOrStdin(), c.OutOrStdout())
		},
	}
}

// benchDoomedCommand is the process that the row leaks kills.
func benchDoomedCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doomed", Hidden: true, Args: noArgs, Short: "The process that bench dataplane kills",
		RunE: func(c *cobra.Command, _ []string) error { return bench.Doomed(c.InOrStdin(), c.OutOrStdout()) },
	}
}
