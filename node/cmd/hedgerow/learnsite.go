package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// teacher is a site that takes a lesson: one that runs, behind its socket, or one
// that does not, as its state has it.
type teacher struct {
	basis history.Basis
	learn func(context.Context, *history.Lesson, func(string)) (history.Trained, error)
	close func() error
}

// teachable finds the site that shall learn: the daemon of --socket, or that of the
// configuration if it holds the state, or else the state itself. A dry run opens no
// state.
func teachable(ctx context.Context, cfg *config.Config, f *historyFlags, errw io.Writer) (*teacher, error) {
	t, err := running(ctx, cfg, f)
	if t != nil || err != nil {
		return t, err
	}
	if f.dry {
		return &teacher{basis: history.Basis{Wait: cfg.Learner.Wait}, close: func() error { return nil }}, nil
	}
	n, closeAll, err := quietSite(cfg, errw)
	if err != nil {
		return nil, err
	}
	b, err := n.HistoryBasis(ctx)
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return &teacher{b, n.LearnHistory, closeAll}, nil
}

// running is the daemon, nil when none has to do with the state.
func running(ctx context.Context, cfg *config.Config, f *historyFlags) (*teacher, error) {
	c := api.NewClient(cmp.Or(f.socket, os.Getenv("HEDGEROW_SOCKET"), cfg.Site.Socket))
	s, err := c.Status(ctx)
	mine := err == nil && (f.socket != "" || s.Store.Dir == filepath.Join(cfg.Site.StateDir, "store"))
	var b history.Basis
	if mine {
		b, err = c.HistoryBasis(ctx)
	} else if f.socket == "" {
		err = nil // whatever answers there, or nobody: this is not about it
	}
	if !mine || err != nil {
		c.Close()
		return nil, err
	}
	return &teacher{b, c.LearnHistory, func() error { c.Close(); return nil }}, nil
}

// sayings shows how far the daemon is, to a person.
func sayings(w io.Writer) func(string) {
	if !terminal(w) {
		return nil
	}
	return func(words string) {
		_, _ = fmt.Fprintf(w, "\r%s\x1b[K", words)
	}
}

// terminal says that a person reads what is written.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&os.ModeCharDevice != 0
}

// quietSite is the site of a configuration as its state has it, beside no packets:
// for commands that change models while no daemon runs.
func quietSite(cfg *config.Config, errw io.Writer) (n *node.Node, closeAll func() error, err error) {
	log, err := telemetry.NewLogger(errw, cfg.Telemetry.LogFormat, slog.LevelError) // the report says the rest
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(cfg.Site.StateDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("state folder: %v: run as root, or name another with --state", err)
	}
	st, err := store.Open(filepath.Join(cfg.Site.StateDir, "store"), store.Options{
		MaxBytes: cfg.Store.MaxBytes, RetainEvents: cfg.Store.KeepEvents, RetainFlows: cfg.Store.KeepFlows,
		Log: log.With(telemetry.KeyComponent, "store"),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%w (a daemon that runs holds it: name its control socket with --socket, or `hedgerow stop` first)", err)
	}
	fail := func(err error) (*node.Node, func() error, error) { return nil, nil, errors.Join(err, st.Close()) }
	key, err := siteKey(cfg)
	if err != nil {
		return fail(err)
	}
	seed, err := learnerSeed(cfg, st)
	if err != nil {
		return fail(err)
	}
	plane, err := softplane.Open(softplane.Options{Inside: cfg.Dataplane.Inside})
	if err != nil {
		return fail(err)
	}
	cfg.Site.Name = cfg.SiteName(hostName())
	o := siteOptions(cfg, placed{}, seed)
	o.Plane, o.Store, o.Key, o.Log = plane, st, key, log
	if n, err = node.New(o); err != nil {
		return fail(errors.Join(err, plane.Close()))
	}
	return n, func() error { return errors.Join(plane.Close(), st.Close()) }, nil
}
