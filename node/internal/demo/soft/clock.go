package soft

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// clock is the time that a session lives in. pause fails when the session's own
// time is over.
type clock interface {
	now() time.Time
	pause(d time.Duration) error
}

// realTime waits.
type realTime struct{ ctx context.Context }

func (realTime) now() time.Time { return time.Now() }

func (c realTime) pause(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// Play is a session in a time that somebody else keeps. It is not safe for
// concurrent use.
type Play struct {
	Result scenario.Result // complete when the play is over
	at     time.Time
	until  time.Time
	yield  func(time.Time) bool
	next   func() (time.Time, bool)
	stop   func()
}

// Play prepares a session that begins at a time. Frames go to its site's packet path
// with the times that Next tells.
func (w *World) Play(s *scenario.Session, begin time.Time) (*Play, error) {
	sink := w.sinks[s.Site]
	if sink == nil {
		return nil, fmt.Errorf("session names no site: %q", s.Site)
	}
	p := &Play{Result: scenario.Result{Session: s, Start: begin}, at: begin, until: begin.Add(s.Timeout)}
	p.next, p.stop = iter.Pull(func(yield func(time.Time) bool) {
		p.yield = yield
		p.Result.Err = w.connection(p, sink, s).run(&p.Result)
		p.Result.OK = p.Result.Err == nil
		p.Result.Duration = p.at.Sub(begin)
	})
	return p, nil
}

// Next plays on from the present time, and says when it wants to be called again, or
// that it is over.
func (p *Play) Next() (at time.Time, more bool) { return p.next() }

// Stop ends a play that is not over.
func (p *Play) Stop() { p.stop() }

func (p *Play) now() time.Time { return p.at }

// pause hands over to whoever keeps the time, and goes on when called again.
func (p *Play) pause(d time.Duration) error {
	p.at = p.at.Add(d)
	late := p.at.After(p.until)
	if late {
		p.at = p.until
	}
	if !p.yield(p.at) {
		return context.Canceled
	}
	if late {
		return context.DeadlineExceeded
	}
	return nil
}
