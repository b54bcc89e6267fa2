package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
)

func blocksCommand() daily {
	var verify bool
	return daily{
		use: "blocks", short: "Standing rules with reason, source, expiry and hits, as the kernel lists them",
		example: "  hedgerow blocks\n  hedgerow blocks --verify\n  hedgerow blocks --json | jq '.[] | select(.enforced | not)'",
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&verify, "verify", false, "only compare what is enforced with what is intended, and fail on a difference")
		},
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			if verify {
				d, err := cl.Verify(ctx)
				if err == nil && !d.None() {
					err = differenceError(d)
				}
				return d, func(w io.Writer) { printVerified(w, &d) }, err
			}
			bs, err := cl.Blocks(ctx)
			if err != nil {
				return nil, nil, err
			}
			monitor, err := monitors(ctx, cl)
			return bs, func(w io.Writer) { printBlocks(w, bs, monitor) }, err
		},
	}
}

func printVerified(w io.Writer, d *api.Difference) {
	_, _ = fmt.Fprintf(w, "verified: %d rules are intended, the plane lists these %d and no other\n", d.Intended, d.Enforced)
	for _, l := range d.Lists {
		_, _ = fmt.Fprintf(w, "verified: %s: %d entries are intended, and exactly these are in the plane's tables\n", l.List, l.Intended)
	}
}

// differenceError names what differs, the first of each kind in full.
func differenceError(d api.Difference) error {
	var parts []string
	add := func(list string, missing, changed, extra []string) {
		for _, k := range []struct {
			what  string
			names []string
		}{{"not enforced", missing}, {"enforced otherwise", changed}, {"enforced without being intended", extra}} {
			if len(k.names) > 0 {
				parts = append(parts, fmt.Sprintf("%s%d %s (%s)", list, len(k.names), k.what, strings.Join(k.names[:min(5, len(k.names))], ", ")))
			}
		}
	}
	add("", d.Missing, d.Changed, d.Extra)
	for _, l := range d.Lists {
		add(l.List+": ", l.Missing, l.Changed, l.Extra)
	}
	return fmt.Errorf("what is enforced is not what is intended: %s: the daemon puts it right within seconds; look for who else writes to its maps", strings.Join(parts, "; "))
}

// monitors says whether rules are in the kernel, and only count.
func monitors(ctx context.Context, cl *api.Client) (bool, error) {
	s, err := cl.Status(ctx)
	return s.Mode == dataplane.Monitor.String(), err
}

// ordered says what came of an order: the words for it and, where nothing is dropped, that.
func ordered(ctx context.Context, cl *api.Client, words string, err error) (func(io.Writer), error) {
	if err != nil {
		return nil, err
	}
	if monitor, err := monitors(ctx, cl); err == nil && monitor { // the order stands either way
		words += "\nin monitor mode its packets are counted, and not dropped: `hedgerow mode enforce` lets it act"
	}
	return done(words), nil
}

func printBlocks(w io.Writer, bs []api.Block, monitor bool) {
	if len(bs) == 0 {
		_, _ = fmt.Fprintln(w, "none")
	}
	for _, b := range bs {
		state := "enforced"
		if !b.Enforced {
			state = "NOT ENFORCED: the plane does not list it"
		} else if monitor {
			state = "in place, only counts in monitor mode"
		}
		action := b.Action
		if b.Rate > 0 {
			action = fmt.Sprintf("%s to %d new flows a second", action, b.Rate)
		}
		_, _ = fmt.Fprintf(w, "%s  %s  %s, expires in %s, %d packets, by %s (%s)\n    %s\n", b.Target, action, state,
			time.Until(b.Expires).Round(time.Second), b.Hits, b.Source, b.Evidence, b.Reason)
	}
}

func blockCommand() daily {
	var d time.Duration
	var reason string
	var share bool
	return daily{
		use: "block TARGET", short: "Block an address, a prefix, a service or a domain until it expires",
		long: `Block an address, a prefix, a service or a domain at this site until it expires.
With --share the organisation's other sites are told, and enforce an address, a
network up to /24 (IPv6 /48), a service or a domain at once, each within its own
never-block list and limits; the reason goes with it, and is required. unblock
takes it back everywhere. A TLS client's fingerprint (ja4:...) and the behaviour of a
confirmed incident (behaviour:INCIDENT) are only shared: they block nobody, and make
flows suspect that are unusual where they are met.`,
		example: "  hedgerow block 203.0.113.9\n  hedgerow block evil.example\n  hedgerow block 203.0.113.0/24 --for 12h --reason 'asked by the provider'\n  hedgerow block '203.0.113.9 tcp/443'\n  hedgerow block 203.0.113.9 --share --reason 'logs in with stolen passwords'",
		args:    exactArgs(1, "one target"),
		flags: func(c *cobra.Command) {
			c.Flags().DurationVar(&d, "for", 0, "how long (default: policy.block of the configuration)")
			c.Flags().StringVar(&reason, "reason", "", "why, for those who read it later")
			c.Flags().BoolVar(&share, "share", false, "at the organisation's other sites too; needs --reason")
		},
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			undo := "; undo: hedgerow unblock '" + args[0] + "'"
			if share {
				err := cl.Order(ctx, api.Order{Target: args[0], Action: "block", Seconds: d.Seconds(), Reason: reason, Share: true})
				say, err := ordered(ctx, cl, "blocked "+args[0]+", and told the organisation's other sites (`hedgerow explain '"+args[0]+"'` says when)"+undo, err)
				return map[string]any{"blocked": args[0], "shared": true}, say, err
			}
			say, err := ordered(ctx, cl, "blocked "+args[0]+undo, cl.Block(ctx, args[0], d, reason))
			return map[string]string{"blocked": args[0]}, say, err
		},
	}
}

func quarantineCommand() daily {
	o := api.Order{Action: "quarantine"}
	return orderCommand(daily{
		use: "quarantine HOST", short: "Let an inside host reach only policy.remediation, resolvers and leases, until it expires",
		example: "  hedgerow quarantine 10.0.0.23\n  hedgerow quarantine 10.0.0.23 --for 12h --reason 'beacons to 203.0.113.9'",
		args:    exactArgs(1, "one inside address"),
	}, &o)
}

func limitCommand() daily {
	o := api.Order{Action: "rate-limit"}
	d := orderCommand(daily{
		use: "limit TARGET", short: "Limit the new flows that an address begins, or that go to an address or a service",
		example: "  hedgerow limit 203.0.113.9 --rate 5\n  hedgerow limit 'to 10.0.0.5' --rate 50\n  hedgerow limit '10.0.0.5 tcp/22' --rate 2 --for 1h",
		args:    exactArgs(1, "one target"),
	}, &o)
	common := d.flags
	d.flags = func(c *cobra.Command) {
		common(c)
		c.Flags().Uint32Var(&o.Rate, "rate", 1, "new flows a second")
	}
	return d
}

// orderCommand is a command that puts one rule on its argument.
func orderCommand(d daily, o *api.Order) daily {
	var length time.Duration
	d.flags = func(c *cobra.Command) {
		c.Flags().DurationVar(&length, "for", 0, "how long (default: policy.block of the configuration)")
		c.Flags().StringVar(&o.Reason, "reason", "", "why, for those who read it later")
	}
	d.ask = func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
		o.Target, o.Seconds = args[0], length.Seconds()
		say, err := ordered(ctx, cl, o.Action+" of "+o.Target+"; undo: hedgerow unblock '"+o.Target+"'", cl.Order(ctx, *o))
		return o, say, err
	}
	return d
}
