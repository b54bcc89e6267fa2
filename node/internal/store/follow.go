package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// ringSize is how many events a follower may fall behind and lose nothing.
const ringSize = 4096

// Told is one delivery to a follower.
type Told struct {
	Event *event.Event // shared: do not change it
	// Lost is how many events (of any kind) the follower missed just before
	// this one because it read too slowly.
	Lost uint64
}

// hub keeps the newest events for followers. They wait on a channel that the
// next publication closes.
type hub struct {
	mu   sync.Mutex
	ring [ringSize]*event.Event
	next uint64 // number of the event to come
	wake chan struct{}
	over bool
}

func (h *hub) init() { h.wake = make(chan struct{}) }

func (h *hub) publish(events []*event.Event) {
	if len(events) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		h.ring[h.next%ringSize] = e
		h.next++
	}
	close(h.wake)
	h.wake = make(chan struct{})
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		h.over = true
		close(h.wake)
	}
}

func (h *hub) position() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.next
}

// read returns the event at cursor, how many were overwritten before it, and
// the following cursor; or, when there is none yet, a channel to wait on; or
// over, when there will be none.
func (h *hub) read(cursor uint64) (e *event.Event, lost, after uint64, wait <-chan struct{}, over bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if cursor+ringSize < h.next {
		lost = h.next - ringSize - cursor
		cursor = h.next - ringSize
	}
	if cursor == h.next {
		return nil, 0, cursor, h.wake, h.over
	}
	return h.ring[cursor%ringSize], lost, cursor + 1, nil, false
}

// Follow delivers events of these kinds (none: every kind) as they are stored,
// preceded by the stored ones from since on (zero: none of them, only new
// ones). A reader may fall 4096 events behind and lose nothing; then it is told
// how many it lost. The channel closes when ctx ends or the store closes.
func (s *Store) Follow(ctx context.Context, kinds []event.Kind, since time.Time) <-chan Told {
	out := make(chan Told)
	cursor := s.hub.position() // before the query, so that nothing falls between
	go func() {
		defer close(out)
		seen, ok := s.catchUp(ctx, out, kinds, since)
		if ok {
			s.deliver(ctx, out, Query{Kinds: kinds}, cursor, seen)
		}
	}()
	return out
}

// catchUp sends the stored events and returns the ids of the newest of them,
// which the hub may hold as well.
func (s *Store) catchUp(ctx context.Context, out chan<- Told, kinds []event.Kind, since time.Time) (seen map[string]bool, ok bool) {
	if since.IsZero() {
		return nil, true
	}
	seen = map[string]bool{}
	list, err := s.Events(Query{Kinds: kinds, Since: since, Limit: maxLimit, Reverse: true})
	if err != nil {
		s.opt.Log.Warn("stored events cannot be followed", "err", err)
		return nil, false
	}
	for i, e := range slices.Backward(list) {
		if i < ringSize {
			seen[e.ID] = true
		}
		if !send(ctx, out, Told{Event: e}) {
			return nil, false
		}
	}
	return seen, true
}

func (s *Store) deliver(ctx context.Context, out chan<- Told, q Query, cursor uint64, seen map[string]bool) {
	var lost uint64
	for {
		e, missed, after, wait, over := s.hub.read(cursor)
		cursor, lost = after, lost+missed
		switch {
		case over:
			return
		case wait != nil:
			select {
			case <-ctx.Done():
				return
			case <-wait:
			}
		case seen[e.ID]:
			delete(seen, e.ID)
		case q.wants(e.Kind):
			if !send(ctx, out, Told{Event: e, Lost: lost}) {
				return
			}
			lost = 0
		}
	}
}

func send(ctx context.Context, out chan<- Told, t Told) bool {
	select {
	case <-ctx.Done():
		return false
	case out <- t:
		return true
	}
}
