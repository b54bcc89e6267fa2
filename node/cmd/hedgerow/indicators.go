package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/stix"
)

func indicatorsCommand() daily {
	var asSTIX, public bool
	return daily{
		use: "indicators", short: "List what sites say of addresses that is in force here, or write it as STIX 2.1",
		long: `List what this site and others say of addresses that is in force here. With --stix,
write it as a STIX 2.1 bundle for other tools. Each indicator keeps the mark of its
author (TLP 2.0); --public leaves out what is not for everybody (amber). STIX has no
form for fingerprints and behaviours: these are left out.`,
		example: "  hedgerow indicators\n  hedgerow indicators --stix --public > indicators.json",
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&asSTIX, "stix", false, "write a STIX 2.1 bundle")
			c.Flags().BoolVar(&public, "public", false, "only what is marked TLP green or clear")
		},
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			list, err := cl.Indicators(ctx)
			if public {
				list = slices.DeleteFunc(list, func(x api.Indicator) bool { return x.TLP != "green" && x.TLP != "clear" })
			}
			if err != nil || !asSTIX {
				return list, func(w io.Writer) { printIndicators(w, list) }, err
			}
			b, err := bundleOf(list)
			return list, func(w io.Writer) { _, _ = fmt.Fprintf(w, "%s\n", b) }, err
		},
	}
}

func bundleOf(list []api.Indicator) ([]byte, error) {
	return stix.Bundle(slices.DeleteFunc(claimed(list), func(x stix.Indicator) bool { return !stix.Expressible(x) }))
}

// claimed are the words that ask for a defence: other tools would take a dispute, which
// says that somebody is innocent, for an indicator.
func claimed(list []api.Indicator) (out []stix.Indicator) {
	for _, x := range list {
		if x.Stance == api.Claim {
			out = append(out, stixOf(x))
		}
	}
	return out
}

func stixOf(x api.Indicator) stix.Indicator {
	return stix.Indicator{
		ID: x.ID, Type: x.Type, Value: x.Value, Author: x.Author, Sentence: x.Sentence, Conf: x.Conf, TLP: x.TLP,
		First: x.First, Last: x.Last, Expires: x.Expires,
	}
}

// says is a stance as people read it.
func says(stance string) string {
	switch stance {
	case api.Claim:
		return "hostile"
	case "sighting":
		return "met it too"
	case "dispute":
		return "innocent"
	}
	return stance
}

func printIndicators(w io.Writer, list []api.Indicator) {
	if len(list) == 0 {
		_, _ = fmt.Fprintln(w, "none is in force")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "VALUE\tBY\tSAYS\tHERE\tEVIDENCE\tTLP\tUNTIL\tWHY")
	for _, x := range list {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.Value, x.Author, says(x.Stance), x.Effect, x.Evidence, x.TLP, clock(x.Expires), x.Sentence)
	}
	_ = t.Flush()
}
