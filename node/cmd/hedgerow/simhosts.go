package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/sim"
)

func simHosts() *cobra.Command {
	var o sim.Options
	var quiet, ceilings bool
	c := &cobra.Command{
		Use: "hosts", Short: "Tell what sharing would have been worth to three real hosts in the open", Args: noArgs,
		Long: `Play the logs of three hosts of one address range (Stratosphere Lab, 008, 010 and
011) through three nodes, under each setting of trust, with and without answers for
unused services, with and without a liar among them. First comes what sharing could
prevent at most, by what a host must have seen before it tells.`,
		Example: "  hedgerow sim hosts --data ../shared/data",
	}
	dataFlag(c, &o.Folder)
	c.Flags().BoolVar(&ceilings, "ceilings", false, "tell only what sharing could prevent at most")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not tell what is being done")
	c.RunE = func(c *cobra.Command, _ []string) error {
		h, err := sim.ReadHosts(c.Context(), o.Folder)
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		if err := h.PrintCeilings(out); err != nil || ceilings {
			return err
		}
		if _, err := fmt.Fprintf(out, "\n%s\n", sim.HostsHead); err != nil {
			return err
		}
		if !quiet {
			o.Told = teller(c.ErrOrStderr(), "second")
		}
		for _, cell := range sim.HostsCells() {
			r, err := h.Play(c.Context(), cell, o)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(out, sim.HostsRow(cell, r)); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}
