package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/replay"
)

func studyCommands() []*cobra.Command {
	return []*cobra.Command{replayCommand(), learnCommand(), benchCommand(), evaluateCommand(), simCommand()}
}

func replayCommand() *cobra.Command {
	var o replay.Options
	var inside []string
	var asJSON, quiet bool
	c := &cobra.Command{
		Use: "replay FILE...", Short: "Run captures through the gateway's pipeline and tell what it would have said", GroupID: "study",
		Long: `Run captures (pcap, pcapng, each also as .gz; Ethernet, raw IP, Linux cooked)
through the gateway's pipeline. Without --learn or --learn-first there is no
model: only the counting rules speak. --truth gives what was so, one for each
FILE: a per-packet CSV ("index;label"), or the word attack or benign for the
whole file.`,
		Example: "  hedgerow replay office.pcap\n  hedgerow replay --learn monday.pcap tuesday.pcap\n  hedgerow replay --learn-first 0.5 --truth labels.csv plant.pcap\n  hedgerow replay --learn monday.pcap --truth benign --truth attack tuesday.pcap flood.pcap.gz",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("replay: expected at least one capture (see `hedgerow replay --help`)")}
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.Learn, "learn", nil, "capture or flow log to learn from first (repeatable)")
	f.Float64Var(&o.First, "learn-first", 0, "learn from this share of each capture's packets instead, and judge the rest")
	f.StringArrayVar(&o.Truth, "truth", nil, "ground truth, one for each capture: a per-packet CSV, attack, or benign")
	f.StringSliceVar(&inside, "inside", nil, "protected prefixes (default: private addresses)")
	f.Float64Var(&o.Alpha, "alpha", 0, "p-value at which a flow is an alert (default: the least that the model can say)")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of the training")
	f.BoolVar(&o.Flows, "flows", false, "print every flow")
	f.BoolVar(&asJSON, "json", false, "print events and the report as lines of JSON")
	f.BoolVarP(&quiet, "quiet", "q", false, "print the report only")
	c.RunE = func(c *cobra.Command, args []string) error {
		o.Files = args
		for _, s := range inside {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return usageError{fmt.Errorf("--inside %q: expected a prefix such as 10.1.0.0/24", s)}
			}
			o.Inside = append(o.Inside, p.Masked())
		}
		out := c.OutOrStdout()
		if !quiet {
			o.Event = printer(out, asJSON)
		}
		o.Progress = progress(c.ErrOrStderr())
		return runReplay(c.Context(), o, out, asJSON)
	}
	return c
}

func runReplay(ctx context.Context, o replay.Options, out io.Writer, asJSON bool) error {
	r, err := replay.Run(ctx, o)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(out).Encode(r)
	}
	printReport(out, r)
	return nil
}

func printer(w io.Writer, asJSON bool) func(*event.Event) {
	enc := json.NewEncoder(w)
	return func(e *event.Event) {
		switch {
		case asJSON:
			_ = enc.Encode(e)
		case e.Alert != nil:
			_, _ = fmt.Fprintf(w, "%s  alert  %s  p=%.1g  %s\n", clock(e.Time), e.Alert.Detector, e.Alert.P, e.Alert.Sentence)
		case e.Verdict != nil && e.Verdict.FirstDropNS == 0:
			_, _ = fmt.Fprintf(w, "%s  %s  %s\n", clock(e.Time), e.Verdict.Action, e.Verdict.Target)
		case e.Flow != nil:
			x := e.Flow
			_, _ = fmt.Fprintf(w, "%s  flow  %s %s:%d > %s:%d  %.3f s  %d/%d packets  %d/%d bytes  %s\n", clock(e.Time), x.Proto, x.Src, x.SrcPort, x.Dst, x.DstPort,
				x.Duration, x.PktsOut, x.PktsIn, x.BytesOut, x.BytesIn, x.End)
		}
	}
}

// progress draws on a terminal, at most five times a second, for inputs that
// take longer than a moment.
func progress(w io.Writer) func(string, int64, int64) {
	if !terminal(w) {
		return nil
	}
	began, last := time.Now(), time.Now()
	return func(file string, done, total int64) {
		now := time.Now()
		if total <= 0 || now.Sub(last) < 200*time.Millisecond || now.Sub(began) < time.Second {
			return
		}
		last = now
		_, _ = fmt.Fprintf(w, "\r%s: %3.0f %%\x1b[K", file, 100*float64(done)/float64(total))
		if done >= total {
			_, _ = fmt.Fprint(w, "\r\x1b[K")
		}
	}
}

func printReport(w io.Writer, r *replay.Report) {
	p := func(f string, a ...any) { _, _ = fmt.Fprintf(w, f+"\n", a...) }
	p("")
	if r.Model == "" {
		p("no model: only the counting rules spoke (--learn or --learn-first makes one)")
	} else {
		p("model %.12s: learnt from %d reports of flows in %.1f s; alert at p <= %.2g", r.Model, r.Learnt, r.TrainS, r.Alpha)
	}
	for _, f := range r.Files {
		p("%s: %d packets, %d flows (%d judged), %d alerts in %d incidents", f.File, f.Packets, f.Flows, f.Judged, f.Alerts, f.Incidents)
		for k, n := range f.Malformed {
			p("  malformed %s: %d", k, n)
		}
		if f.Error != "" {
			p("  ended early: %s", f.Error)
		}
	}
	if t := r.Truth; t != nil {
		p("against the truth: %d malicious flows, %d benign (%d without judgement)", t.Malicious, t.Benign, t.Unjudged)
		p("  AUC %s; detection at 0.1 %% false alarms %s, at 1 %% %s, at 5 %% %s", num(t.AUC), num(t.At01), num(t.At1), num(t.At5))
		p("  alerts: %d of %d malicious flows, %d of %d benign ones", t.Detected, t.Malicious, t.FalseAlarms, t.Benign)
	}
	p("%d packets in %.2f s (%.0f a second)", r.Packets, r.Seconds, r.PacketsSec)
}

func num(v *float64) string {
	if v == nil {
		return "n/a"
	}
	return fmt.Sprintf("%.3f", *v)
}
