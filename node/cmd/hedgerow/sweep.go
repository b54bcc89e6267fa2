package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/sim"
)

func simSweep() *cobra.Command {
	var o sim.Options
	var out, shard string
	var quiet bool
	c := &cobra.Command{
		Use: "sweep SWEEP", Short: "Run a scenario over a grid of values, on all cores, from where it was left", Args: exactArgs(1, "a scenario with a grid"),
		Long: `Run a scenario with every combination of the values of its table [grid]. Cells
that are done are kept: start again after a crash, and it goes on. With --shard i/n
only every n-th cell is run, for a scheduler's array of jobs; sim merge puts the
folders together.`,
		Example: "  hedgerow sim sweep study.toml --data ../shared/data --out study\n  hedgerow sim sweep study.toml --out part-2 --shard 2/8",
	}
	dataFlag(c, &o.Folder)
	f := c.Flags()
	f.StringVar(&out, "out", "", "folder for what is found (needed)")
	f.StringVar(&shard, "shard", "", "run only part i of n, as i/n")
	f.IntVar(&o.Workers, "workers", 0, "cells at a time (default: one for each core)")
	f.BoolVarP(&quiet, "quiet", "q", false, "do not tell what is being done")
	c.RunE = func(c *cobra.Command, args []string) error {
		var part sim.Shard
		var err error
		if shard != "" {
			if part, err = sim.ParseShard(shard); err != nil {
				return usageError{err}
			}
		}
		if out == "" {
			return usageError{errors.New("sim sweep: --out: expected a folder")}
		}
		w, err := readSweep(args[0])
		if err != nil {
			return err
		}
		if !quiet {
			o.Told = teller(c.ErrOrStderr(), "cell")
		}
		began := time.Now()
		complete, err := w.Run(c.Context(), out, part, o)
		if err != nil {
			return err
		}
		spent(c.OutOrStdout(), began)
		if complete {
			_, err = fmt.Fprintf(c.OutOrStdout(), "%d cells: start with %s\n", len(w.Cells), filepath.Join(out, "report.html"))
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "part %s of %d cells is done: sim merge puts all parts together\n", shard, len(w.Cells))
		return err
	}
	return c
}

func readSweep(file string) (_ *sim.Sweep, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return sim.ParseSweep(f, file, filepath.Dir(file), sim.Builtin())
}

func simMerge() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "merge SHARD...", Short: "Put the folders of a sweep's shards together",
		Example: "  hedgerow sim merge --out study part-1 part-2 part-3",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("sim merge: expected the folders of shards (see `hedgerow sim merge --help`)")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return usageError{errors.New("sim merge: --out: expected a folder")}
			}
			if err := sim.Merge(out, args, sim.Builtin()); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "start with %s\n", filepath.Join(out, "report.html"))
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "folder for the whole (needed)")
	return c
}
