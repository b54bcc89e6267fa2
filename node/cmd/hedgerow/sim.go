package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/sim"
)

func simCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "sim", Short: "Try out a consortium: many sites, some of which lie, on real intrusion data", GroupID: "study",
		Long: `Simulate sites that learn together: with the gateways' own rules and gates, on
labelled data, from one seed. docs/simulation.md has a page for each task.`,
		Example: `  hedgerow sim new first.toml
  hedgerow sim run first.toml --data ../shared/data --out first`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(simNew(), simValidate(), simRun(), simSweep(), simMerge(), simData(), simHosts())
	return c
}

func simNew() *cobra.Command {
	return &cobra.Command{
		Use: "new FILE", Short: "Write a commented scenario", Args: exactArgs(1, "a file to write"),
		Example: "  hedgerow sim new first.toml",
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				return fmt.Errorf("sim new: %w", err)
			}
			_, err = io.WriteString(f, sim.Template)
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("sim new: %w", err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: run it with: hedgerow sim run %s --data FOLDER --out DIR\n", args[0], args[0])
			return err
		},
	}
}

func simValidate() *cobra.Command {
	return &cobra.Command{
		Use: "validate SCENARIO", Short: "Check a scenario, or every cell of a sweep, without running it", Args: exactArgs(1, "a scenario"),
		Example: "  hedgerow sim validate first.toml",
		RunE: func(c *cobra.Command, args []string) error {
			w, err := readSweep(args[0])
			if err != nil {
				return err
			}
			cells := ""
			if len(w.Keys) > 0 {
				cells = fmt.Sprintf(", a sweep of %d cells", len(w.Cells))
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: good%s\n", args[0], cells)
			return err
		},
	}
}

func readScenario(file string) (_ *sim.Scenario, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return sim.Parse(f, file, filepath.Dir(file), sim.Builtin())
}

func dataFlag(c *cobra.Command, folder *string) {
	c.Flags().StringVar(folder, "data", os.Getenv("HEDGEROW_DATA"), "folder of the known data sets (default: the environment's HEDGEROW_DATA)")
}

func simRun() *cobra.Command {
	var o sim.Options
	var out string
	var quiet bool
	c := &cobra.Command{
		Use: "run SCENARIO", Short: "Run one scenario and tell what was measured", Args: exactArgs(1, "a scenario"),
		Example: "  hedgerow sim run first.toml --data ../shared/data --out first",
	}
	dataFlag(c, &o.Folder)
	f := c.Flags()
	f.StringVar(&out, "out", "", "folder for the tables, figures and the report page (default: none are written)")
	f.IntVar(&o.Workers, "workers", 0, "cores to use (default: all); the result does not depend on it")
	f.BoolVarP(&quiet, "quiet", "q", false, "do not tell what is being done")
	c.RunE = func(c *cobra.Command, args []string) error {
		s, err := readScenario(args[0])
		if err != nil {
			return err
		}
		began := time.Now()
		if !quiet {
			o.Told = teller(c.ErrOrStderr(), map[string]string{sim.DepthRounds: "round", sim.DepthMesh: "second"}[s.Depth])
		}
		r, err := sim.Play(c.Context(), s, o)
		if err != nil {
			return err
		}
		if err := r.Print(c.OutOrStdout()); err != nil {
			return err
		}
		spent(c.OutOrStdout(), began)
		if out == "" {
			return nil
		}
		_, _ = fmt.Fprintf(c.OutOrStdout(), "written to %s: start with %s\n", out, filepath.Join(out, "report.html"))
		return r.Save(out)
	}
	return c
}

// spent tells what this process cost so far. It is told and not written to a file: equal
// scenarios make equal files.
func spent(w io.Writer, began time.Time) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return
	}
	processor := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	_, _ = fmt.Fprintf(w, "took %.1f s, %.1f s of processor time, %d MiB of memory\n", time.Since(began).Seconds(), processor.Seconds(), u.Maxrss>>10)
}

// teller draws progress with the time left on a terminal.
func teller(w io.Writer, what string) func(done, total int) {
	draw := progress(w)
	if draw == nil {
		return nil
	}
	began := time.Now()
	return func(done, total int) {
		left := time.Since(began) / time.Duration(max(done, 1)) * time.Duration(total-done)
		draw(fmt.Sprintf("%s %d of %d, about %s left", what, done, total, left.Round(time.Second)), int64(done), int64(total))
	}
}
