package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// daily is a command that talks to the running daemon.
type daily struct {
	use, short, long, example string
	args                      cobra.PositionalArgs
	flags                     func(*cobra.Command)
	// ask returns what --json prints, and how a person reads it.
	ask func(ctx context.Context, cl *api.Client, c *cobra.Command, args []string) (any, func(io.Writer), error)
}

func (d daily) command() *cobra.Command {
	c := &cobra.Command{Use: d.use, Short: d.short, Long: d.long, Example: d.example, Args: d.args, GroupID: "daily"}
	if c.Args == nil {
		c.Args = noArgs
	}
	socket := c.Flags().String("socket", socketDefault(), "the daemon's control socket")
	asJSON := c.Flags().Bool("json", false, "print JSON")
	if d.flags != nil {
		d.flags(c)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		cl := api.NewClient(*socket)
		defer cl.Close()
		v, text, err := d.ask(c.Context(), cl, c, args)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), v)
		}
		text(c.OutOrStdout())
		return nil
	}
	return c
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func socketDefault() string {
	if s := os.Getenv("HEDGEROW_SOCKET"); s != "" {
		return s
	}
	return defaultSocket
}

func dailyCommands() []*cobra.Command {
	var out []*cobra.Command
	for _, d := range []daily{
		statusCommand(), alertsCommand(), explainCommand(),
		labelCommand("confirm", "Say that an alert or incident was an attack: the learner keeps the behaviour", true),
		labelCommand("dismiss", "Say that an alert or incident was harmless: everything it caused is undone", false),
		blocksCommand(), blockCommand(), quarantineCommand(), limitCommand(), unblockCommand(), allowCommand(),
		modeCommand(), panicCommand(), stopCommand(), peersCommand(), indicatorsCommand(), whatIfCommand(), roundCommand(), huntCommand(),
	} {
		out = append(out, d.command())
	}
	return out
}

func statusCommand() daily {
	return daily{
		use: "status", short: "The site at a glance: packets, learning, mesh, blocks",
		example: "  hedgerow status\n  hedgerow status --json | jq .learning",
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			s, err := cl.Status(ctx)
			return s, func(w io.Writer) { printStatus(w, s) }, err
		},
	}
}

func printStatus(w io.Writer, s api.Status) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	mode := s.Mode
	if s.Mode == "monitor" {
		mode += " (nothing is dropped; `hedgerow mode enforce` lets verdicts act)"
	}
	if s.Panic {
		mode += "; PANIC: learned and shared verdicts are lifted (`hedgerow panic --off` ends it)"
	}
	row := func(k, f string, a ...any) { _, _ = fmt.Fprintf(t, "%s\t%s\n", k, fmt.Sprintf(f, a...)) }
	row("site", "%s, up %s, version %s", s.Site, s.Uptime.Round(time.Second), s.Version)
	row("mode", "%s", mode)
	row("packets", "%d seen on %s (%s), %d dropped, %d would have been", s.Plane.Packets, orNone(s.Plane.Interface), s.Plane.Attach, s.Plane.Dropped, s.Plane.WouldDrop)
	for _, a := range s.Plane.Attached {
		if a.Down != "" {
			row("not filtered", "%s: %s", a.Interface, a.Down)
		}
	}
	if s.Plane.Away != "" {
		row("daemon away", "%s", s.Plane.Away)
	}
	row("flows", "%d now, %d in all; rules %d enforced of %d intended; events lost %d", s.Plane.Flows, s.Plane.FlowsTotal, s.Plane.RulesEnforced, s.Plane.RulesIntended, s.Plane.EventsLost)
	if words := listRow(s.Lists); words != "" {
		row("lists", "%s", words)
	}
	if words := floodRow(&s.Plane.Flood); words != "" {
		row("floods", "%s", words)
	}
	for _, e := range s.Floods {
		row("flood now", "%s (hedgerow explain %s)", e.Flood.Sentence, e.ID)
	}
	row("learning", "%s", s.Learning.Words)
	if b := s.Learning.BenefitWords; b != "" {
		row("mesh taught", "%s", b)
	}
	if k := s.Learning.Kernel; k != nil {
		row("kernel model", "%s", k.Words)
		if words := k.Steps(); words != "" {
			row("", "%s", words)
		}
	}
	if a := s.Learning.Alone; a != nil {
		row("alone", "%s", a.Words)
	}
	row("budget", "incidents: %s", s.Learning.Budget.Incidents.Words("a day"))
	row("", "blocks: %s", s.Learning.Budget.Blocks.Words("a month"))
	if d := s.Learning.Drift; d != nil {
		row("drift", "%s (%s); a new model is made at %s", d.Words, clock(d.At), clock(d.Retrain))
	}
	if q := s.Learning.Quality; q != nil {
		row("quality", "%s", qualityWords(q))
	}
	if s.Mesh.Enabled {
		row("mesh", "%s; connected to %s; round %d (adopted %d)", s.Mesh.Preset, orNone(strings.Join(s.Mesh.Connected, ", ")), s.Mesh.Round, s.Mesh.Adopted)
	} else {
		row("mesh", "none: a single site is complete; [[mesh.peer]] in the configuration adds others")
	}
	if p := s.Privacy; p != nil {
		row("privacy", "%s", p.Words)
	}
	row("feeds", "%s", s.Feeds.Words)
	row("incidents", "%d open; %d blocks standing", s.Open, s.Blocks)
	row("state", "%s: %s, %d events, %d flows", s.Store.Dir, size(s.Store.Bytes), s.Store.Events, s.Store.Flows)
	for _, x := range s.Warnings {
		row("warning", "%s", x)
	}
	_ = t.Flush()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

func alertsCommand() daily {
	var all, follow bool
	var limit int
	return daily{
		use: "alerts", short: "What does not fit, and floods, newest first",
		example: "  hedgerow alerts\n  hedgerow alerts --incidents\n  hedgerow alerts --limit 5 --json",
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&all, "incidents", false, "one line for each incident instead of each alert")
			c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as they come, one JSON record a line")
			c.Flags().IntVar(&limit, "limit", 20, "at most so many, 1 to 10000")
		},
		ask: func(ctx context.Context, cl *api.Client, c *cobra.Command, _ []string) (any, func(io.Writer), error) {
			q := api.Query{Kinds: []event.Kind{event.KindAlert, event.KindFlood}, Limit: limit}
			if all {
				q.Kinds[0] = event.KindIncident
			}
			if follow {
				return nil, func(io.Writer) {}, followTo(ctx, cl, q, c.OutOrStdout())
			}
			es, err := cl.Events(ctx, q)
			return es, func(w io.Writer) { printAlerts(w, es) }, err
		},
	}
}

func followTo(ctx context.Context, cl *api.Client, q api.Query, w io.Writer) error {
	q.Since = time.Now()
	ch, err := cl.Follow(ctx, q)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(w)
	for e := range ch {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

func printAlerts(w io.Writer, es []*event.Event) {
	if len(es) == 0 {
		_, _ = fmt.Fprintln(w, "nothing: no alert so far (`hedgerow status` tells whether the learner can judge yet)")
		return
	}
	for _, e := range es {
		switch {
		case e.Alert != nil:
			label := ""
			if e.Alert.Label != "" {
				label = " [" + e.Alert.Label + "]"
			}
			_, _ = fmt.Fprintf(w, "%s  %s  %s  p=%.1g%s\n    %s\n", e.ID, clock(e.Time), e.Alert.Detector, e.Alert.P, label, e.Alert.Sentence)
		case e.Incident != nil:
			_, _ = fmt.Fprintf(w, "%s  %s  %s  %s, %d alerts, %s\n    %s\n", e.ID, clock(e.Incident.Last), e.Incident.Cause, e.Incident.State, e.Incident.Alerts, e.Incident.Action, e.Incident.Sentence)
		case e.Flood != nil:
			_, _ = fmt.Fprintf(w, "%s  %s  flood over %s  %s, %s\n    %s\n", e.ID, clock(e.Flood.Last), e.Flood.Bound, e.Flood.State, e.Flood.Mode, e.Flood.Sentence)
		}
	}
	_, _ = fmt.Fprintln(w, "\n`hedgerow explain ID` tells the whole story of one; `confirm ID` or `dismiss ID` teaches the learner.")
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }

func explainCommand() daily {
	return daily{
		use: "explain ID", short: "The whole chain of an alert, incident, flood or block, and how to undo it",
		example: "  hedgerow explain 019a2b3c4d5e6f\n  hedgerow explain 203.0.113.9",
		args:    exactArgs(1, "the ID of an alert, incident or flood, or a blocked target"),
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			x, err := cl.Explain(ctx, args[0])
			if err != nil {
				return nil, nil, err
			}
			return x, func(w io.Writer) { printExplanation(w, x) }, nil
		},
	}
}

func printExplanation(w io.Writer, x *api.Explanation) {
	p := func(f string, a ...any) { _, _ = fmt.Fprintf(w, f+"\n", a...) }
	p("%s", x.Sentence)
	if x.Flood != nil && x.Flood.Flood != nil {
		f := x.Flood.Flood
		p("\nflood %s over %s: %s, from %s to %s, in %s mode", x.Flood.ID, f.Bound, f.State, clock(f.First), clock(f.Last), f.Mode)
		p("  what it means: %s\n  what to do:    %s", f.Means, f.Advice)
	}
	if x.Incident != nil && x.Incident.Incident != nil {
		in := x.Incident.Incident
		p("\nincident %s: %s; %s; %d alerts from %s to %s", x.Incident.ID, in.Cause, in.State, in.Alerts, clock(in.First), clock(in.Last))
	}
	for _, e := range x.Alerts {
		a := e.Alert
		p("\nalert %s at %s, packet %d of the flow, by %s (p=%.2g, model %.8s)", e.ID, clock(e.Time), a.Milest, a.Detector, a.P, orNone(a.Model))
		for _, r := range a.Reasons {
			p("  %3.0f %%  %s (normal here: %.4g)", 100*r.Weight, r.Words, r.Normal)
		}
	}
	if len(x.Chain) > 0 {
		p("\nwhat was done:")
	}
	for _, e := range x.Chain {
		switch {
		case e.Verdict != nil:
			p("  %s  %s %s (%s, evidence %s): %s", clock(e.Time), e.Verdict.Action, e.Verdict.Target, e.Verdict.Mode, e.Verdict.Evidence, e.Verdict.Sentence)
		case e.Block != nil:
			p("  %s  %s of %s is %s until %s, from %s", clock(e.Time), e.Block.Action, e.Block.Target, e.Block.State, clock(e.Block.Expires), e.Block.Source)
		case e.Indicator != nil:
			p("  %s  indicator %s for %s by %s: %s %s", clock(e.Time), e.Indicator.Op, e.Indicator.Value, e.Indicator.Author, e.Indicator.Outcome, e.Indicator.Why)
		}
	}
	if x.Feeds != nil && x.Feeds.Sentence != x.Sentence {
		p("\n%s", x.Feeds.Sentence)
	}
	if x.Undo != "" {
		p("\nundo all of it: %s", x.Undo)
	}
}

func done(s string) func(io.Writer) {
	return func(w io.Writer) { _, _ = fmt.Fprintln(w, s) }
}

func labelCommand(name, short string, attack bool) daily {
	return daily{
		use: name + " ID", short: short,
		example: "  hedgerow " + name + " 019a2b3c4d5e6f",
		args:    exactArgs(1, "the ID of an alert or incident"),
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			err := cl.Label(ctx, args[0], attack)
			s := "confirmed: the behaviour is remembered and trains the next model"
			if !attack {
				s = "dismissed: what it caused is lifted here and withdrawn from the mesh, and it is not raised again for a day"
			}
			return map[string]any{"id": args[0], "attack": attack}, done(s), err
		},
	}
}

func unblockCommand() daily {
	return daily{
		use: "unblock TARGET", short: "Undo a block completely: lifted, withdrawn from the mesh, not made again",
		example: "  hedgerow unblock 203.0.113.9\n  hedgerow unblock evil.example\n  hedgerow unblock 'to 10.0.0.5'\n  hedgerow unblock 203.0.113.9:443/tcp",
		args:    exactArgs(1, "one target"),
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			err := cl.Unblock(ctx, args[0])
			return map[string]string{"unblocked": args[0]}, done("lifted " + args[0] + " here and in the mesh"), err
		},
	}
}

func allowCommand() daily {
	var remove bool
	return daily{
		use: "allow [ENTRY]", short: "Never block an address, prefix or service; without ENTRY, list what is never blocked",
		example: "  hedgerow allow\n  hedgerow allow 198.51.100.0/24\n  hedgerow allow '192.0.2.1 tcp/443'\n  hedgerow allow --remove 198.51.100.0/24",
		args:    cobra.MaximumNArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&remove, "remove", false, "take the entry off the list")
		},
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			entry := ""
			if len(args) == 1 {
				entry = args[0]
			}
			list, err := cl.Allow(ctx, entry, remove)
			return list, func(w io.Writer) {
				for _, e := range list {
					_, _ = fmt.Fprintln(w, e)
				}
			}, err
		},
	}
}

func modeCommand() daily {
	return daily{
		use: "mode [monitor|enforce]", short: "Whether verdicts act; without an argument, say which mode it is",
		example: "  hedgerow mode\n  hedgerow mode enforce\n  hedgerow mode monitor",
		args:    cobra.MaximumNArgs(1),
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, args []string) (any, func(io.Writer), error) {
			if len(args) == 1 {
				if err := cl.SetMode(ctx, args[0]); err != nil {
					return nil, nil, err
				}
			}
			s, err := cl.Status(ctx)
			return map[string]string{"mode": s.Mode}, done(s.Mode), err
		},
	}
}

func panicCommand() daily {
	var off bool
	return daily{
		use: "panic", short: "Lift every learned and shared verdict at once, and keep it so",
		example: "  hedgerow panic\n  hedgerow panic --off",
		flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&off, "off", false, "end it: verdicts are made again")
		},
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			n, err := cl.Panic(ctx, !off)
			s := fmt.Sprintf("lifted %d verdicts; none is made until `hedgerow panic --off`", n)
			if off {
				s = "verdicts are made again"
			}
			return map[string]any{"panic": !off, "lifted": n}, done(s), err
		},
	}
}

func peersCommand() daily {
	return daily{
		use: "peers", short: "The other sites: connected, latency, standing, score, last words",
		example: "  hedgerow peers",
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			ps, err := cl.Peers(ctx)
			return ps, func(w io.Writer) {
				if len(ps) == 0 {
					_, _ = fmt.Fprintln(w, "none: this site is alone, which is complete")
				}
				for _, p := range ps {
					state := "gone"
					if p.Connected {
						state = fmt.Sprintf("connected, %.1f ms", p.LatencyMS)
					}
					if p.Relayed {
						state += ", relayed"
					}
					_, _ = fmt.Fprintf(w, "%s  %s  %s, score %.0f  %s\n    %s\n", p.Name, state, p.Standing, p.Score, p.ID, p.Words)
				}
			}, err
		},
	}
}

func roundCommand() daily {
	return daily{
		use: "round", short: "Begin the mesh's next model round now instead of at its time",
		example: "  hedgerow round",
		ask: func(ctx context.Context, cl *api.Client, _ *cobra.Command, _ []string) (any, func(io.Writer), error) {
			n, err := cl.StartRound(ctx)
			return map[string]uint64{"round": n}, done(fmt.Sprintf("round %d has begun", n)), err
		},
	}
}

// listRow says of each list that is not empty how much of it is enforced.
func listRow(lists []dataplane.ListState) string {
	var words []string
	for _, l := range lists {
		if l.Intended+l.Enforced == 0 {
			continue
		}
		w := fmt.Sprintf("%s %d of %d", l.List, l.Enforced, l.Intended)
		if !l.Fits() {
			w += " (NOT as intended: `hedgerow blocks --verify`)"
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}

// floodRow says what floods did, "" when there was none.
func floodRow(f *dataplane.FloodStats) string {
	var refused uint64
	for _, n := range f.BudgetDropped {
		refused += n
	}
	if refused+f.BreakerTrips+f.Challenges+f.DarkAnswers == 0 {
		return ""
	}
	s := fmt.Sprintf("%d packets over a budget, %d challenges, %d proofs of address, breaker opened %d times (%d packets not followed)",
		refused, f.Challenges, f.Proofs, f.BreakerTrips, f.Untracked+f.BreakerDropped)
	if f.BreakerOpen[dataplane.FromInside] || f.BreakerOpen[dataplane.ToInside] {
		s += ", OPEN NOW"
	}
	return s
}

// qualityWords says what became of the last window that was to teach.
func qualityWords(q *event.Quality) string {
	s := fmt.Sprintf("last window %s: %d of %d reports kept", q.Verdict, q.Kept, q.Reports)
	if q.Why != "" {
		s += "; " + q.Why
	}
	return s
}
