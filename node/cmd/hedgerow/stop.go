package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
)

// stopPatience is how long `stop` waits for the daemon to end.
const stopPatience = 45 * time.Second

func stopCommand() daily {
	var keep, remove bool
	return daily{
		use: "stop", short: "Stop the daemon; what it blocks stays blocked until it expires, unless --remove",
		example: "  hedgerow stop\n  hedgerow stop --remove",
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&keep, "keep", false, "the kernel goes on enforcing (the default)")
			c.Flags().BoolVar(&remove, "remove", false, "end enforcement as well: unpin and remove programs and tables")
		},
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			if keep && remove {
				return nil, nil, usageError{errors.New("--keep and --remove: expected one of the two")}
			}
			if err := cl.Stop(ctx, remove); err != nil {
				return nil, nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, stopPatience)
			defer cancel()
			if err := cl.Gone(ctx); err != nil {
				return nil, nil, err
			}
			words := "stopped; what is blocked stays blocked until it expires (`hedgerow detach` ends it, `hedgerow up` takes over)"
			if remove {
				words = "stopped; nothing is enforced any more"
			}
			return map[string]bool{"stopped": true, "removed": remove}, done(words), nil
		},
	}
}
