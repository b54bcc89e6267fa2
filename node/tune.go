package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// Tuning is what of a site's options may change while it runs. Everything else
// sizes tables, names files or opens sockets, and takes a new process.
type Tuning struct {
	Spared          []dataplane.Never // never-block entries of the configuration
	Policy          PolicyOptions
	Flood           dataplane.Flood
	IncidentsPerDay float64
	Feeds           FeedOptions // lists and warning lists; the rest of it stays
}

// caps bound what the site decides by itself.
func (p *PolicyOptions) caps() policy.Caps {
	return policy.Caps{PerHour: p.MaxBlocksPerHour, Share: p.MaxShare}
}

// Tune takes all of t over, or nothing: an error names what was refused. Feeds
// are listed anew and not read yet, which ReloadFeeds does. What stands keeps its
// length; what the never-block list now covers is spared packet by packet.
func (n *Node) Tune(t Tuning) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var undo []func() error
	for _, step := range n.steps(&t) {
		err := step.do(&step.to)
		if err == nil {
			undo = append(undo, func() error { return step.do(&step.from) })
			continue
		}
		for i := len(undo) - 1; i >= 0; i-- {
			if e := undo[i](); e != nil {
				n.log.Error("what a refused configuration had begun was not undone", telemetry.KeyErr, e)
			}
		}
		return fmt.Errorf("%s: %v: everything stays as it was", step.key, err)
	}
	n.o.Learner.IncidentsPerDay = t.IncidentsPerDay
	n.machine.Damp(burst(t.IncidentsPerDay), every(t.IncidentsPerDay))
	n.setBudget()
	return nil
}

// step is one part of a tuning that can be refused.
type step struct {
	key      string
	from, to Tuning
	do       func(*Tuning) error
}

func (n *Node) steps(t *Tuning) []step {
	now := Tuning{Spared: n.o.Spared, Policy: n.o.Policy, Flood: n.o.Flood, Feeds: n.feeds.options()}
	var out []step
	for _, s := range []struct {
		key string
		do  func(*Tuning) error
	}{
		{"policy", func(t *Tuning) error {
			if err := n.guard.SetCaps(t.Policy.caps()); err != nil {
				return err
			}
			n.machine.Limits(t.Policy.MaxShare)
			n.machine.Tune(t.Policy.Suspend, t.Policy.Block, t.Policy.Rules)
			remediation := n.o.Policy.Remediation
			n.o.Policy = t.Policy
			n.o.Policy.Remediation = remediation
			return nil
		}},
		{"policy.remediation", func(t *Tuning) error {
			if err := n.o.Plane.SetRemediation(t.Policy.Remediation); err != nil {
				return err
			}
			n.o.Policy.Remediation = t.Policy.Remediation
			return nil
		}},
		{"dataplane.never_block", func(t *Tuning) error {
			before := n.o.Spared
			n.o.Spared = t.Spared
			if err := n.setNever(); err != nil {
				n.o.Spared = before
				return err
			}
			return nil
		}},
		{"flood", func(t *Tuning) error {
			if err := n.setFlood(&t.Flood); err != nil {
				return err
			}
			n.o.Flood = t.Flood
			return nil
		}},
		{"feed", func(t *Tuning) error { return n.feeds.configure(t.Feeds) }},
	} {
		out = append(out, step{s.key, now, *t, s.do})
	}
	return out
}

// ReloadFeeds reads the configuration anew, takes over what can change while the
// site runs, and then reads one feed, or with "" all.
func (n *Node) ReloadFeeds(ctx context.Context, feed string) (api.Feeds, error) {
	var done *api.Reloaded
	if n.o.Reread != nil {
		r, err := n.o.Reread()
		n.reread(&r, err)
		if err != nil {
			return api.Feeds{}, fmt.Errorf("%v: %w", err, errInvalid)
		}
		done = &r
	}
	if feed != "" && !slices.ContainsFunc(n.feeds.options().Feeds, func(f Feed) bool { return f.Name == feed }) {
		return api.Feeds{}, n.feeds.unknown(feed)
	}
	n.feeds.look(ctx, func(s *feedState) bool { return feed == "" || s.Name == feed })
	v, err := n.feeds.view()
	v.Configuration = done
	return v, err
}

// reread remembers and tells what became of the configuration.
func (n *Node) reread(r *api.Reloaded, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.misread = ""
	if err != nil {
		n.misread = strings.ReplaceAll(err.Error(), "\n", "; ")
		n.log.Error("configuration was not taken over: everything stays as it was", telemetry.KeyErr, n.misread)
		return
	}
	n.restart = r.Restart
	n.log.Info("configuration was read", "taken", r.Taken, "restart", r.Restart)
}

// reloadWarnings are what an operator should know of the file on disk. The
// caller holds n.mu.
func (n *Node) reloadWarnings() (out []string) {
	if n.misread != "" {
		out = append(out, "the configuration was not taken over, what was before stays in force: "+n.misread)
	}
	if len(n.restart) > 0 {
		out = append(out, "the configuration has changes that only a restart takes over: "+strings.Join(n.restart, ", "))
	}
	return out
}
