package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
)

// feedOptions translates the configuration of feeds.
func feedOptions(cfg *config.Config) node.FeedOptions {
	o := node.FeedOptions{
		WarningLists: cfg.Feeds.WarningLists, IgnoreWarnings: cfg.Feeds.IgnoreWarnings, MaxEntries: cfg.Feeds.MaxEntries,
		Dir: filepath.Join(cfg.Site.StateDir, "feeds"),
	}
	for _, f := range cfg.Feeds.List {
		o.Feeds = append(o.Feeds, node.Feed{
			Name: f.Name, Path: f.Path, URL: f.URL, Format: f.Format, Column: f.Column, Every: f.Every, Expires: f.Expires,
			MinScore: f.MinScore, ScoreColumn: f.ScoreColumn, MaxSize: f.MaxSize, AuthFile: f.AuthFile,
		})
	}
	return o
}

func feedsCommand() *cobra.Command {
	c := daily{
		use: "feeds", short: "The blocklists: entries, refusals, age, hits",
		example: "  hedgerow feeds\n  hedgerow feeds refused ipsum\n  hedgerow feeds why 45.9.148.7\n  hedgerow feeds check bad.txt",
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			f, err := cl.Feeds(ctx)
			return f, func(w io.Writer) { printFeeds(w, &f) }, err
		},
	}.command()
	for _, d := range []daily{feedsReloadCommand(), feedsRefusedCommand(), feedsWhyCommand()} {
		sub := d.command()
		sub.GroupID = ""
		c.AddCommand(sub)
	}
	c.AddCommand(feedCheckCommand())
	return c
}

func printFeeds(w io.Writer, f *api.Feeds) {
	if len(f.List) == 0 {
		_, _ = fmt.Fprintln(w, "none: [[feed]] in the configuration names blocklists; `hedgerow feeds check FILE` tries one")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "FEED\tLISTED\tENFORCED\tREFUSED\tSKIPPED\tHITS\tREAD\tNEXT\tEXPIRES")
	for _, x := range f.List {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.Name, thousands(x.Listed), thousands(x.Enforced),
			thousands(x.Counts.Of(feed.Refused)), thousands(x.Counts.Of(feed.Skipped)), thousands(x.Hits), ago(x.Read), in(x.Next), in(x.Expires))
	}
	_ = t.Flush()
	for _, x := range f.List {
		if x.Error != "" {
			_, _ = fmt.Fprintf(w, "%s: %s\n", x.Name, x.Error)
		}
		if x.Kept {
			_, _ = fmt.Fprintf(w, "%s: what is enforced is the copy of an earlier run\n", x.Name)
		}
	}
	if f.Problem != "" {
		_, _ = fmt.Fprintln(w, f.Problem)
	}
	_, _ = fmt.Fprintf(w, "%s; %s networks are protected (%d warning lists); tables of %s\n", f.Words, thousands(f.Protected), f.WarningLists, size(int64(f.Bytes)))
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return time.Since(t).Round(time.Second).String() + " ago"
}

func in(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	if d := time.Until(t).Round(time.Second); d > 0 {
		return "in " + d.String()
	}
	return "now"
}

func feedsReloadCommand() daily {
	return daily{
		use: "reload [NAME]", short: "Take over the configuration's feeds, and read one of them, or all, now",
		long: `Read the configuration anew and take over its feeds and whatever else can change
while the site runs; then read the named blocklist, or all, now instead of at
their time. What only a restart takes over is named. A file with a mistake
changes nothing. SIGHUP to ` + "`hedgerow up`" + ` does the same and tells the log.`,
		example: "  hedgerow feeds reload\n  hedgerow feeds reload ipsum",
		args:    cobra.MaximumNArgs(1),
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			f, err := cl.ReloadFeeds(ctx, name)
			return f, func(w io.Writer) {
				if f.Configuration != nil {
					_, _ = fmt.Fprintln(w, f.Configuration.Words())
				}
				printFeeds(w, &f)
			}, err
		},
	}
}

func feedsRefusedCommand() daily {
	return daily{
		use: "refused NAME", short: "The lines of a blocklist that were not simply taken, and why",
		example: "  hedgerow feeds refused ipsum\n  hedgerow feeds refused ipsum --json | jq '.[] | select(.kind == \"warned\")'",
		args:    exactArgs(1, "the NAME of a feed"),
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			ns, err := cl.Refused(ctx, args[0])
			return ns, func(w io.Writer) {
				if len(ns) == 0 {
					_, _ = fmt.Fprintln(w, "none: every line was taken as it stands")
				}
				for _, n := range ns {
					_, _ = fmt.Fprintln(w, noteWords(n))
				}
			}, err
		},
	}
}

func feedsWhyCommand() daily {
	return daily{
		use: "why ADDRESS", short: "Which blocklists name an address, on which line, and whether that counts",
		example: "  hedgerow feeds why 45.9.148.7",
		args:    exactArgs(1, "one address"),
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			l, err := cl.WhyListed(ctx, args[0])
			if err != nil {
				return nil, nil, err
			}
			return l, func(w io.Writer) { printListing(w, l) }, nil
		},
	}
}

func printListing(w io.Writer, l *api.Listing) {
	_, _ = fmt.Fprintln(w, l.Sentence)
	for _, x := range l.On {
		_, _ = fmt.Fprintf(w, "  %s  %s:%d  %s\n", x.Feed, x.Source, x.Line, x.Entry)
	}
	if l.Listed {
		_, _ = fmt.Fprintf(w, "enforced as %s, until %s unless it is renewed; never block it: hedgerow allow %s\n", l.Entry, clock(l.Expires), l.Address)
	}
}
