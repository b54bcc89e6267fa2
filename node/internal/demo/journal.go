package demo

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// journal is everything that all sites told, in the order of arrival, and lets
// the story wait for what it needs.
type journal struct {
	mu      sync.Mutex
	all     []*event.Event
	changed chan struct{} // closed and replaced at each addition
	seen    map[eventKey]bool
	watch   func(*event.Event) // called in order, without the lock
}

// eventKey tells records apart: an incident keeps its id while it grows.
type eventKey struct {
	id string
	at int64
}

func newJournal(watch func(*event.Event)) *journal {
	return &journal{changed: make(chan struct{}), seen: make(map[eventKey]bool), watch: watch}
}

func (j *journal) add(e *event.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	k := eventKey{e.ID, e.Time.UnixNano()}
	if j.seen[k] {
		return
	}
	j.seen[k] = true
	j.all = append(j.all, e)
	if j.watch != nil {
		j.watch(e)
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

// mark is the present end of the journal; what comes later has it as from.
func (j *journal) mark() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.all)
}

// find returns the first event from a mark on that matches, or nil and a
// channel that is closed when there is more to look at.
func (j *journal) find(from int, match func(*event.Event) bool) (*event.Event, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.all[from:] {
		if match(e) {
			return e, nil
		}
	}
	return nil, j.changed
}

// count returns how many events from a mark on match.
func (j *journal) count(from int, match func(*event.Event) bool) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, e := range j.all[from:] {
		if match(e) {
			n++
		}
	}
	return n
}

// wait returns the first event from a mark on that matches, as soon as it is there.
func (j *journal) wait(ctx context.Context, from int, within time.Duration, what string, match func(*event.Event) bool) (*event.Event, error) {
	t := time.NewTimer(within)
	defer t.Stop()
	for {
		e, changed := j.find(from, match)
		if e != nil {
			return e, nil
		}
		select {
		case <-changed:
		case <-t.C:
			return nil, fmt.Errorf("%s: did not happen within %v", what, within)
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", what, ctx.Err())
		}
	}
}

// follow feeds a site's events into the journal until ctx ends. A stream that
// breaks off is taken up again where it ended; what comes twice counts once.
func (j *journal) follow(ctx context.Context, s Site, since time.Time) error {
	for failures := 0; ; {
		events, err := s.Events(ctx, since)
		if err == nil {
			for e := range events {
				j.add(e)
				failures = 0
				if e.Time.After(since) {
					since = e.Time
				}
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if failures++; failures > 5 {
			return fmt.Errorf("events of site %s ended: %v", s.Name(), err)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return nil
		}
	}
}

// pause is a pace of the story: its length is part of what is told, and
// nothing relies on it.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
