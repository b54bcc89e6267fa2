package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/bench/mesh"
)

func benchMeshCommand() *cobra.Command {
	var o mesh.Options
	var asJSON bool
	var plots string
	names, about := mesh.Rows()
	c := &cobra.Command{
		Use: "mesh", Short: "How soon other sites enforce, answer and agree, and what a liar's flood costs them",
		Long: `Measure fifty sites in this process: real libp2p hosts on the loopback interface,
real members of the federation, and, where blocks are measured, whole nodes with
their stores on the disk and the software packet path. Nothing of this machine's
network is touched, and no root is needed.

All sites share this machine's processors; what lies between real sites is not in
the figures. It takes about two minutes, 4 GiB of memory and 1 GiB of disk. Targets
that are missed are said, and are no error.

Rows:
` + rowsHelp(names, about, 10),
		Example: "  hedgerow bench mesh\n  hedgerow bench mesh --only enforce,query --sites 20\n  hedgerow bench mesh --json --plot plots > mesh.json\n  hedgerow bench mesh --quick",
		Args:    noArgs,
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print the report as JSON, every delay included")
	f.StringVar(&plots, "plot", "", "also draw the delays as SVG files into this folder")
	f.StringSliceVar(&o.Only, "only", nil, "rows to measure (default: all)")
	f.IntVar(&o.Sites, "sites", 0, "sites, 7 to 64 (default 50, or 8 with --quick); the flood has at most 10")
	f.IntVar(&o.Messages, "messages", 0, "blocks, and questions (default 100, or 8 with --quick)")
	f.IntVar(&o.Rounds, "rounds", 0, "rounds of models (default 5, or 2 with --quick)")
	f.IntVar(&o.Params, "params", 0, "parameters of a model (default 16384)")
	f.DurationVar(&o.Flood, "flood", 0, "length of the flood, and of the calm before and after it (default 10s, or 1s with --quick)")
	f.BoolVar(&o.Quick, "quick", false, "few sites and few messages: shows that it works, the figures mean nothing")
	c.AddCommand(benchFlooderCommand())
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		if o.Flooder, err = floodCommand(); err != nil {
			return err
		}
		o.Progress = func(s string) { _, _ = fmt.Fprintln(c.ErrOrStderr(), s) }
		r, failed := mesh.Run(c.Context(), o)
		if failed != nil {
			failed = fmt.Errorf("bench mesh: %w", failed)
		}
		if r == nil || len(r.Rows) == 0 {
			return failed
		}
		if asJSON {
			err = printJSON(c.OutOrStdout(), r)
		} else {
			err = r.Print(c.OutOrStdout())
		}
		if err == nil {
			err = drawBench(c, r, plots)
		}
		return errors.Join(failed, err)
	}
	return c
}

// floodCommand is this very program as a flooder.
func floodCommand() (mesh.FloodCommand, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("bench mesh: this program's own file: %w", err)
	}
	return func(ctx context.Context) *exec.Cmd {
		c := exec.CommandContext(ctx, self, "bench", "mesh", "flooder")
		c.Stderr = os.Stderr
		return c
	}, nil
}

func benchFlooderCommand() *cobra.Command {
	return &cobra.Command{
		Use: "flooder", Short: "The member that floods, for bench mesh", Hidden: true, Args: noArgs,
		Example: "  hedgerow bench mesh --only flood",
		RunE: func(c *cobra.Command, _ []string) error {
			giveWay()
			return mesh.Flood(c.Context(), c.InOrStdin(), c.OutOrStdout())
		},
	}
}

// giveWay lets every thread of this process run after all others: what a flooder's own
// work costs a machine, it costs another machine than those that it floods.
func giveWay() {
	const lowest = 19
	tasks, _ := os.ReadDir("/proc/self/task") // without, it only measures more
	for _, t := range tasks {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, lowest)
		}
	}
}
