package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
	"github.com/hedgerow-mesh/hedgerow/node/internal/evaluate"
)

func evaluateCommand() *cobra.Command {
	var o evaluate.Options
	var asJSON, quiet bool
	var page, mapping string
	c := &cobra.Command{
		Use: "evaluate DATASET", Short: "Measure the learner on labelled flows, beside simple models in the same run", GroupID: "study",
		Long: `Train the learner's parts on labelled flows and measure them on rows that no
training saw, beside simple models (forest, boosted trees, network, autoencoder)
trained on the same rows. DATASET is ` + strings.Join(dataset.Known(), ", ") + `
(read below --data), a CSV file whose columns --mapping explains, or a capture or log
of an attack that is looked for among the traffic of --normal.

How the parts are combined is chosen on training rows; every way that was tried
is in the report. --zero-day leaves each class of attacks out of all training in
turn and looks for it. docs/evaluate.md explains every figure.`,
		Example: "  hedgerow evaluate nsl-kdd --data ../shared/data --seeds 5\n  hedgerow evaluate unsw-nb15 --data ../shared/data --json > unsw.json\n  hedgerow evaluate westermo --data ../shared/data --zero-day --html westermo.html\n  hedgerow evaluate flows.csv --mapping flows.toml\n  hedgerow evaluate stratosphere --data ../shared/data --evasion --html campaigns.html\n  hedgerow evaluate attack.pcap --normal monday.pcap --normal tuesday/conn.log",
		Args:    exactArgs(1, "a data set"),
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print the report as JSON")
	f.StringVar(&page, "html", "", "also write the report as a page of its own, with plots, into this file")
	f.StringVar(&o.Data, "data", os.Getenv("HEDGEROW_DATA"), "folder of the known data sets (default: the environment's HEDGEROW_DATA)")
	f.StringVar(&mapping, "mapping", "", "TOML file that says what the columns of a CSV file mean")
	f.StringArrayVar(&o.Normal, "normal", nil, "capture or flow log of normal traffic, for a capture or log of an attack; may be given again, for other hosts")
	f.BoolVar(&o.Evasion, "evasion", false, "of captures and logs: also what it costs an attacker not to be found")
	f.IntVar(&o.Seeds, "seeds", 1, "how many seeds; figures are medians over them")
	f.Uint64Var(&o.Seed, "seed", 1, "the first seed")
	f.BoolVar(&o.ZeroDay, "zero-day", false, "leave each class of attacks out of all training, instead of the main study")
	f.BoolVar(&o.Quick, "quick", false, "few rows and rounds: shows that it works, the figures mean nothing")
	f.BoolVarP(&quiet, "quiet", "q", false, "do not tell what is being done")
	c.RunE = func(c *cobra.Command, args []string) error {
		o.Dataset = args[0]
		if err := evaluateInput(&o, mapping); err != nil {
			return err
		}
		if !quiet {
			o.Progress = func(s string) { _, _ = fmt.Fprintln(c.ErrOrStderr(), s) }
		}
		r, err := evaluate.Run(c.Context(), o)
		if err != nil {
			return err
		}
		return errors.Join(printEvaluation(c.OutOrStdout(), r, asJSON), writePage(page, r))
	}
	return c
}

// evaluateInput finds the mapping, or says what is missing.
func evaluateInput(o *evaluate.Options, mapping string) error {
	known := false
	for _, n := range dataset.Known() {
		known = known || n == o.Dataset
	}
	switch {
	case len(o.Normal) > 0 && (known || mapping != ""):
		return usageError{fmt.Errorf("evaluate %s: --normal is for a capture or log of an attack", o.Dataset)}
	case o.Evasion && o.Dataset != dataset.Stratosphere && len(o.Normal) == 0:
		return usageError{fmt.Errorf("evaluate %s: --evasion is for captures and logs of attacks", o.Dataset)}
	case len(o.Normal) > 0:
		return nil
	case known && mapping != "":
		return usageError{fmt.Errorf("evaluate %s: --mapping is for CSV files", o.Dataset)}
	case known && o.Data == "":
		return usageError{fmt.Errorf("evaluate %s: --data: expected the folder of the data sets", o.Dataset)}
	case known:
		return nil
	case mapping == "":
		return usageError{fmt.Errorf("evaluate %s: expected one of %s, a CSV file and --mapping, or a capture and --normal", o.Dataset, strings.Join(dataset.Known(), ", "))}
	}
	f, err := os.Open(mapping)
	if err != nil {
		return fmt.Errorf("evaluate: %w", err)
	}
	o.Mapping, err = dataset.ParseMapping(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("evaluate: %s: %w", mapping, err)
	}
	return nil
}

func printEvaluation(w io.Writer, r *evaluate.Report, asJSON bool) error {
	if !asJSON {
		return r.Print(w)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(r)
}

func writePage(file string, r *evaluate.Report) error {
	if file == "" {
		return nil
	}
	f, err := os.Create(filepath.Clean(file))
	if err != nil {
		return fmt.Errorf("evaluate: %w", err)
	}
	return errors.Join(r.HTML(f), f.Close())
}
