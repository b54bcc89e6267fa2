package federation

import (
	"context"
	"errors"
	"time"
)

// Later has something done after a time. It only notes it: it is called under locks.
type Later func(after time.Duration, f func())

// Steps plays a member without goroutines and timers, for a driver with a time of its
// own: a simulation. What Run does when something happens, Step does when it is
// called, in an order that depends on nothing else. Training takes none of the
// driver's time.
//
// The driver calls Step, the Handler and what it was given by Later one at a time; its
// clock is Options.Now, and its Transport answers Request at once.
type Steps struct {
	m    *Member
	ctx  context.Context
	next time.Time
}

// Steps begins a member's life, until ctx ends, and gives what the driver's transport
// delivers to. A member either runs or is stepped, once.
func (m *Member) Steps(ctx context.Context, later Later) (*Steps, Handler, error) {
	if later == nil {
		return nil, nil, errors.New("federation: steps: expected a function for what comes later")
	}
	if err := m.start(ctx); err != nil {
		return nil, nil, err
	}
	m.mu.Lock()
	m.later = later
	m.mu.Unlock()
	return &Steps{m: m, ctx: ctx}, (*handler)(m), nil
}

// Step does all that is due.
func (s *Steps) Step() {
	m := s.m
	for again := true; again; {
		now := m.opt.Now()
		again = taken(m.poke)
		if again || !now.Before(s.next) {
			s.next = now.Add(m.due())
		}
		if taken(m.out.signal) {
			again = true
			m.out.drain(func(o outgoing) { m.send(s.ctx, o) })
		}
		if taken(m.train) {
			again = true
			m.trainNext(s.ctx)
		}
		if taken(m.adopt) {
			again = true
			m.adoptNext(s.ctx)
		}
		if taken(m.events.signal) {
			again = true
			m.events.drain(func(f func()) { f() })
		}
	}
}

// taken takes a signal, if there is one.
func taken(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
