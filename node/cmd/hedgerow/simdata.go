package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/sim"
)

func simData() *cobra.Command {
	c := &cobra.Command{
		Use: "data", Short: "Look after the data sets that scenarios use", Args: noArgs,
		Example: "  hedgerow sim data check --data ../shared/data",
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(simDataCheck())
	return c
}

func simDataCheck() *cobra.Command {
	var folder string
	c := &cobra.Command{
		Use: "check [SET | SCENARIO.toml]...", Short: "Compare data sets with the hashes and counts that they should have",
		Long: `Compare data sets with the hashes of their files and the number of rows of each
class that they should have: the named ones, those of scenarios, or all. It ends
with status 1 when one of them is absent or has other data.`,
		Example: `  hedgerow sim data check --data ../shared/data
  hedgerow sim data check nsl-kdd first.toml --data ../shared/data`,
	}
	dataFlag(c, &folder)
	c.RunE = func(c *cobra.Command, names []string) error {
		lib := sim.Builtin()
		if len(names) == 0 {
			names = lib.DataSets(folder)
		}
		bad, checked := 0, 0
		for _, name := range names {
			all, err := checkData(lib, name, folder)
			if err != nil {
				return err
			}
			for _, found := range all {
				checked++
				if found.State == sim.DataAbsent || found.State == sim.DataOther {
					bad++
				}
				if _, err := fmt.Fprintln(c.OutOrStdout(), found); err != nil {
					return err
				}
			}
		}
		if bad > 0 {
			return fmt.Errorf("sim data check: %d of %d data sets are not what they should be", bad, checked)
		}
		return nil
	}
	return c
}

// checkData looks at a set by its name, or at those of a scenario or a sweep.
func checkData(lib *sim.Library, name, folder string) ([]*sim.DataCheck, error) {
	if !strings.HasSuffix(name, ".toml") {
		found, err := lib.CheckSet(name, folder)
		if err != nil {
			return nil, fmt.Errorf("sim data check: %w", err)
		}
		return []*sim.DataCheck{found}, nil
	}
	w, err := readSweep(name)
	if err != nil {
		return nil, err
	}
	all, err := w.CheckData(lib, folder)
	if err != nil {
		return nil, fmt.Errorf("sim data check: %s: %w", name, err)
	}
	return all, nil
}
