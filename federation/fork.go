package federation

import (
	"context"
	"errors"
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/federation/round"
)

// Two sealed blocks of one round prove that a third of the organisations lie. From
// then on no model of rounds reaches this site's gate, until its operator has
// compared the members' chains and says so. The rounds themselves go on: a site that
// fell silent would help those who lie.

// maxFork bounds what is stored of it.
const maxFork = 512

func (m *Member) forkKey() string { return m.councilKey() + "/fork" }

// restoreFork brings a stop back.
func (m *Member) restoreFork() error {
	b, err := m.opt.Storage.Load(m.forkKey())
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("load %s: %w", m.forkKey(), err)
	}
	m.parley.fork = string(b[:min(len(b), maxFork)])
	return nil
}

// stopAdopting is what a fork leads to. m.mu is held.
func (m *Member) stopAdopting(why string) {
	if m.parley.fork != "" {
		return
	}
	m.parley.fork, m.toAdopt = why[:min(len(why), maxFork)], nil
	if err := m.opt.Storage.Save(m.forkKey(), []byte(m.parley.fork)); err != nil {
		m.opt.Log.Error("that two sealed models conflict could not be stored: after a restart models are adopted again", "error", err)
	}
	m.opt.Log.Error("two sealed models conflict: models of rounds are no longer adopted here", "reason", why)
}

// Resume lets models of rounds reach the gate again after a fork, and offers the
// latest final one. ErrNotFound says that nothing was stopped.
func (m *Member) Resume(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.council == nil || m.parley.fork == "" {
		return fmt.Errorf("federation: resume: %w: no two sealed models conflict", ErrNotFound)
	}
	if err := m.opt.Storage.Delete(m.forkKey()); err != nil {
		return fmt.Errorf("federation: resume: %w", err)
	}
	m.parley.fork = ""
	if f := m.council.Final(); f != nil {
		m.toAdopt = &round.Head{Round: f.Round, Hash: f.Hash, Params: f.Params.Params}
		signal(m.adopt)
	}
	return nil
}
