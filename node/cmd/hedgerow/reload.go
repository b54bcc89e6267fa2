package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"sync"

	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// liveKeys are those that a running site takes over. The others size tables,
// name files, open sockets or say who this is, and take a new process.
func liveKeys() []string {
	return []string{
		"dataplane.never_block", "learner.incidents_per_day",
		"policy.suspend", "policy.block", "policy.max_blocks_per_hour", "policy.max_share", "policy.rules", "policy.remediation",
		"flood.source", "flood.source_net", "flood.service", "flood.destination", "flood.breaker", "flood.breaker_drops", "flood.protected", "flood.dark",
		"feeds.warning_lists", "feeds.ignore_warnings", "feed", "telemetry.log",
	}
}

// tuning is what of a configuration a running site takes over.
func tuning(cfg *config.Config) node.Tuning {
	t := node.Tuning{
		Spared: cfg.Dataplane.NeverBlock, Flood: cfg.Flood, IncidentsPerDay: cfg.Learner.IncidentsPerDay, Feeds: feedOptions(cfg),
		Policy: node.PolicyOptions{
			Suspend: cfg.Policy.Suspend, Block: cfg.Policy.Block, MaxBlocksPerHour: cfg.Policy.MaxBlocksPerHour,
			MaxShare: cfg.Policy.MaxShare, Rules: cfg.Policy.Rules, Remediation: cfg.Policy.Remediation,
		},
	}
	// In the file 0 is none; in the site's options it is what was not said.
	if t.Policy.MaxBlocksPerHour == 0 {
		t.Policy.MaxBlocksPerHour = -1
	}
	if t.Policy.MaxShare == 0 {
		t.Policy.MaxShare = math.SmallestNonzeroFloat64
	}
	return t
}

// rereader knows the configuration that a site runs with, and reads it anew.
type rereader struct {
	path    string                     // as it was given
	from    string                     // the file that was read at the start, "" when there was none
	flags   func(*config.Config) error // what the command line says instead
	started *config.Config             // what the process was started with
	level   slog.LevelVar              // of the log
	node    interface{ Tune(node.Tuning) error }

	mu    sync.Mutex
	taken *config.Config // what is in force, but for what waits for a restart
}

func newRereader(path string, flags func(*config.Config) error) (*rereader, error) {
	cfg, from, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	if err := flags(cfg); err != nil {
		return nil, err
	}
	r := &rereader{path: path, from: from, flags: flags, started: cfg, taken: cfg}
	r.level.Set(cfg.Telemetry.Log)
	return r, nil
}

// reread takes over what can change while the site runs, all of it or nothing.
func (r *rereader) reread() (api.Reloaded, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg, from, err := readConfig(r.path)
	switch {
	case err != nil:
		return api.Reloaded{}, err
	case from == "" && r.from != "":
		// Its absence would mean the defaults: no feed, nothing spared.
		return api.Reloaded{}, fmt.Errorf("configuration %s is gone: put it back; until then what it said stays in force", r.from)
	}
	if err := r.flags(cfg); err != nil {
		return api.Reloaded{}, err
	}
	if err := r.node.Tune(tuning(cfg)); err != nil {
		return api.Reloaded{}, fmt.Errorf("configuration %s: %v", from, err)
	}
	r.level.Set(cfg.Telemetry.Log)
	out := api.Reloaded{Path: from, Taken: []string{}, Restart: []string{}}
	live := liveKeys()
	for _, k := range config.Changed(r.taken, cfg) {
		if slices.Contains(live, k) {
			out.Taken = append(out.Taken, k)
		}
	}
	for _, k := range config.Changed(r.started, cfg) {
		if !slices.Contains(live, k) {
			out.Restart = append(out.Restart, k)
		}
	}
	r.taken = cfg
	return out, nil
}

// reloadOn reads configuration and feeds anew at each signal until ctx ends. The
// node tells what came of it.
func reloadOn(ctx context.Context, signals <-chan os.Signal, n *node.Node, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
		}
		if _, err := n.ReloadFeeds(ctx, ""); err != nil && ctx.Err() == nil {
			log.Debug("reload by signal failed", telemetry.KeyErr, err)
		}
	}
}
