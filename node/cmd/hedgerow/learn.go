package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/evidence"
	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
)

func learnCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "learn", Short: "Learn from what was recorded before", GroupID: "study",
		Example: "  hedgerow learn history /var/log/zeek/2026-03-01/conn.log.gz",
		Args:    noArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(learnHistoryCommand())
	return c
}

// historyFlags are what the command line says of a history.
type historyFlags struct {
	config, state, truth, zone string
	socket                     string // of the daemon; "" for the configuration's
	inside, evidence           []string
	settle                     time.Duration
	header                     int
	asJSON, dry                bool
	logs                       []*evidence.Report // of evidence, once it was read
}

func learnHistoryCommand() *cobra.Command {
	var f historyFlags
	c := &cobra.Command{
		Use: "history FILE...", Short: "Learn from old captures and flow logs, with labels where there are some",
		Long: `Learn from old captures (pcap, pcapng) and flow logs of other tools: Zeek's
conn.log (TSV or JSON, with the ssl, ssh and dns logs beside it), Suricata's EVE
JSON, Argus flows, CSV exports of nfdump, Westermo flow tables; each also as .gz.
What a file is, its content tells. All of it passes the gate of data quality; what
is younger than learner.wait does not teach normal. Labels in the logs, and those
of --truth, become attacks that the classifier learns. A daemon that runs is handed
what was learnt, by its control socket, and trains beside its work; without one the
model goes into the site's state, and judges when the daemon is started.`,
		Example: "  hedgerow learn history /var/log/zeek/2026-03-0*/conn.*.log.gz\n  hedgerow learn history --truth labels.csv monday.pcap\n  hedgerow learn history --truth attack --dry-run flood.pcap.gz",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("learn history: expected at least one capture or log (see `hedgerow learn history --help`)")}
			}
			return nil
		},
	}
	g := c.Flags()
	g.StringVarP(&f.config, "config", "c", "", "configuration (default: "+defaultConfig+" where it exists)")
	g.StringVar(&f.state, "state", "", "state folder, instead of site.state_dir")
	g.StringVar(&f.socket, "socket", "", "control socket of the daemon that learns (default: site.socket, where its daemon holds the state)")
	g.StringVar(&f.truth, "truth", "", "labels: a table with label and uid (or src,sport,dst,dport,proto), a per-packet CSV, or attack or benign for all")
	g.StringArrayVar(&f.evidence, "evidence", nil, "log of logins or bans that labels flows: auth.log, journalctl -o json, fail2ban.log (repeatable)")
	g.StringSliceVar(&f.inside, "inside", nil, "protected prefixes (default: those of the configuration, what the log says, private addresses)")
	g.StringVar(&f.zone, "zone", "UTC", "zone of times that name none, such as Europe/Prague")
	g.DurationVar(&f.settle, "settle", 0, "how long until a host is familiar (default: learner.settle)")
	g.IntVar(&f.header, "link-header", 0, "bytes below IP that Argus and Suricata counted for each packet; 14 for Ethernet, 0 when unknown")
	g.BoolVar(&f.dry, "dry-run", false, "read and judge, and change nothing")
	g.BoolVar(&f.asJSON, "json", false, "print the report as JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := loadConfig(f.config)
		if err != nil {
			return err
		}
		if f.state != "" {
			if cfg.Site.StateDir, err = filepath.Abs(f.state); err != nil {
				return err
			}
		}
		o, err := f.options(cfg)
		if err != nil {
			return err
		}
		o.Progress = progress(c.ErrOrStderr())
		return learnHistory(c.Context(), cfg, args, o, &f, c.OutOrStdout(), c.ErrOrStderr())
	}
	return c
}

// options turns flags and configuration into what reading needs.
func (f *historyFlags) options(cfg *config.Config) (o history.LearnOptions, err error) {
	o = history.LearnOptions{Now: time.Now(), Wait: cfg.Learner.Wait, Options: history.Options{
		Inside: cfg.Dataplane.Inside, Settle: cfg.Learner.Settle, LinkHeader: f.header,
	}}
	if f.settle > 0 {
		o.Settle = f.settle
	}
	if o.Zone, err = time.LoadLocation(f.zone); err != nil {
		return o, usageError{fmt.Errorf("--zone %q: expected a zone such as UTC or Europe/Prague", f.zone)}
	}
	if f.header < 0 || f.header > 64 {
		return o, usageError{fmt.Errorf("--link-header %d: expected 0 to 64 bytes", f.header)}
	}
	if len(f.inside) > 0 {
		o.Inside = nil
	}
	for _, s := range f.inside {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return o, usageError{fmt.Errorf("--inside %q: expected a prefix such as 10.1.0.0/24", s)}
		}
		o.Inside = append(o.Inside, p.Masked())
	}
	if o.Truth, err = history.ReadTruth(f.truth); err != nil {
		return o, err
	}
	f.logs, err = o.Truth.ReadEvidence(f.evidence, evidence.Options{Now: o.Now, Zone: o.Zone})
	return o, err
}

// learned is the report of the command.
type learned struct {
	*history.Lesson
	Evidence []*evidence.Report `json:"evidence,omitempty"`
	Result   *history.Trained   `json:"result,omitempty"`
}

func learnHistory(ctx context.Context, cfg *config.Config, files []string, o history.LearnOptions, f *historyFlags, out, errw io.Writer) (err error) {
	r := learned{Evidence: f.logs}
	at, err := teachable(ctx, cfg, f, errw)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.close()) }()
	o.Ref, o.Wait = at.basis.Reference, at.basis.Wait
	if r.Lesson, err = history.Learn(ctx, files, o); err != nil {
		return err
	}
	if f.dry {
		return printLearned(out, &r, f.asJSON)
	}
	t, err := at.learn(ctx, r.Lesson, sayings(errw))
	if terminal(errw) {
		_, _ = fmt.Fprint(errw, "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	r.Result = &t
	return printLearned(out, &r, f.asJSON)
}

func printLearned(w io.Writer, r *learned, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	for _, e := range r.Evidence {
		_, _ = fmt.Fprintf(w, "%s: %d lines, %d of logins and bans, %d of other things\n", e.Path, e.Lines, e.Entries, e.Other)
		if e.Refused > 0 {
			_, _ = fmt.Fprintf(w, "  refused: %d lines, the first:\n", e.Refused)
		}
		for i := range e.Faults[:min(len(e.Faults), 3)] {
			_, _ = fmt.Fprintf(w, "    %s: %v\n", e.Path, &e.Faults[i])
		}
		if e.Cut != "" {
			_, _ = fmt.Fprintf(w, "  not read to its end: %s\n", e.Cut)
		}
	}
	for _, s := range r.Words() {
		_, _ = fmt.Fprintln(w, s)
	}
	if r.Result == nil {
		_, err := fmt.Fprintln(w, "dry run: nothing was changed")
		return err
	}
	_, err := fmt.Fprintf(w, "%s\n(trained on %d reports of normal traffic and %d of attacks, examined on %d later ones)\n", r.Result.Words, r.Result.Normals, r.Result.Attacks, r.Result.Later)
	return err
}
