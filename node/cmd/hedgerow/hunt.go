package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
)

func huntCommand() daily {
	var model string
	var since time.Duration
	var list, background bool
	return daily{
		use: "hunt [INDICATOR...]", short: "Search the archive of past flows for indicators, or by a model",
		example: "  hedgerow hunt 203.0.113.9\n  hedgerow hunt 198.51.100.0/24 '203.0.113.9 tcp/443' --since 168h\n  hedgerow hunt --model 3f2a\n  hedgerow hunt --list",
		args:    cobra.ArbitraryArgs,
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&model, "model", "", "search by this model instead: its hash, or the beginning of it")
			c.Flags().DurationVar(&since, "since", 0, "how far back (default: all that is kept)")
			c.Flags().BoolVar(&list, "list", false, "list the latest searches, those that ran by themselves too")
			c.Flags().BoolVar(&background, "background", false, "do not wait for the end")
		},
		ask: func(ctx context.Context, cl *api.Client, c *cobra.Command, args []string) (any, func(io.Writer), error) {
			if list {
				hs, err := cl.Hunts(ctx)
				return hs, func(w io.Writer) { printHunts(w, hs) }, err
			}
			if (len(args) == 0) == (model == "") {
				return nil, nil, usageError{fmt.Errorf("hunt: expected indicators, or --model (see `hedgerow hunt --help`)")}
			}
			h, err := cl.Hunt(ctx, api.HuntOrder{Indicators: args, Model: model, Seconds: since.Seconds()})
			if err == nil && !background {
				h, err = awaitHunt(ctx, cl, h, c.ErrOrStderr())
			}
			return h, func(w io.Writer) { printHunt(w, &h) }, err
		},
	}
}

// awaitHunt waits for the end of a search and says how far it is.
func awaitHunt(ctx context.Context, cl *api.Client, h api.Hunt, w io.Writer) (api.Hunt, error) {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	live := terminal(w)
	for !h.Over() {
		select {
		case <-ctx.Done():
			return h, ctx.Err()
		case <-t.C:
		}
		var err error
		if h, err = cl.HuntState(ctx, h.ID); err != nil {
			return h, err
		}
		if live {
			_, _ = fmt.Fprintf(w, "\r%s: %d of about %d flows, %d found\x1b[K", h.State, h.Flows, h.Of, h.Found)
		}
	}
	if live {
		_, _ = fmt.Fprint(w, "\r\x1b[K")
	}
	return h, nil
}

func printHunts(w io.Writer, hs []api.Hunt) {
	if len(hs) == 0 {
		_, _ = fmt.Fprintln(w, "none since the start")
	}
	for i := range hs {
		_, _ = fmt.Fprintf(w, "%d  by %s  ", hs[i].ID, hs[i].By)
		printHunt(w, &hs[i])
	}
}

func printHunt(w io.Writer, h *api.Hunt) {
	_, _ = fmt.Fprintf(w, "%s: %s, %d flows looked at, %d found in %d incidents\n", h.What, h.State, h.Flows, h.Found, len(h.Incidents))
	if h.Error != "" {
		_, _ = fmt.Fprintf(w, "    %s\n", h.Error)
	}
	for _, id := range h.Incidents {
		_, _ = fmt.Fprintf(w, "    hedgerow explain %s\n", id)
	}
}
