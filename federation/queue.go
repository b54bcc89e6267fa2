package federation

import (
	"context"
	"sync"
	"time"
)

// queue hands items in order to one goroutine, without ever blocking who
// pushes. At its limit it drops the newest and counts.
type queue[T any] struct {
	limit   int
	signal  chan struct{}
	mu      sync.Mutex
	items   []T
	dropped uint64
}

func newQueue[T any](limit int) *queue[T] {
	return &queue[T]{limit: limit, signal: make(chan struct{}, 1)}
}

func (q *queue[T]) push(v T) {
	q.mu.Lock()
	if len(q.items) < q.limit {
		q.items = append(q.items, v)
	} else {
		q.dropped++
	}
	q.mu.Unlock()
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

func (q *queue[T]) take() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items
}

// run hands items to f until ctx ends.
func (q *queue[T]) run(ctx context.Context, f func(context.Context, T)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.signal:
		}
		for _, v := range q.take() {
			f(ctx, v)
		}
	}
}

// drain hands over what is left.
func (q *queue[T]) drain(f func(T)) {
	for _, v := range q.take() {
		f(v)
	}
}

// bucket is a token bucket; its zero value is full.
type bucket struct {
	used float64
	at   time.Time
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	if d := now.Sub(b.at); d > 0 && !b.at.IsZero() {
		b.used = max(0, b.used-d.Seconds()*rate)
	}
	b.at = now
	if b.used+1 > burst {
		return false
	}
	b.used++
	return true
}
