package intel

import (
	"container/heap"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// windowBits is how far below an author's highest sequence a message may still
// come; as in the anti-replay window of RFC 6479, all below counts as seen.
const windowBits = 1 << 14

// window remembers which sequence numbers of one author were seen.
type window struct {
	high uint64 // highest seen, 0 none
	bits []uint64
}

// base is the lowest number that the bits still tell apart.
func (w *window) base() uint64 {
	if w.high < windowBits {
		return 1
	}
	return w.high - windowBits + 1
}

func (w *window) seen(seq uint64) bool {
	switch {
	case seq > w.high:
		return false
	case seq < w.base():
		return true
	}
	return w.bits[seq%windowBits/64]&(1<<(seq%64)) != 0
}

func (w *window) mark(seq uint64) {
	if w.bits == nil {
		w.bits = make([]uint64, windowBits/64)
	}
	if seq > w.high {
		if seq-w.high >= windowBits {
			clear(w.bits)
		} else {
			for s := w.high + 1; s < seq; s++ {
				w.bits[s%windowBits/64] &^= 1 << (s % 64)
			}
		}
		w.high = seq
	}
	if seq >= w.base() {
		w.bits[seq%windowBits/64] |= 1 << (seq % 64)
	}
}

// markUpTo marks everything from 1 to seq.
func (w *window) markUpTo(seq uint64) {
	if seq == 0 {
		return
	}
	w.mark(seq)
	for s := w.base(); s <= seq; s++ {
		w.mark(s)
	}
}

// spans lists what was seen, ascending. More than wire.MaxSpans runs are
// shortened by closing the lowest gaps: what is lost by that, only the author's
// own answer brings (see Set.Complete).
func (w *window) spans() []wire.Span {
	if w.high == 0 {
		return nil
	}
	var out []wire.Span
	if b := w.base(); b > 1 {
		out = append(out, wire.Span{From: 1, To: b - 1})
	}
	for s := w.base(); s <= w.high; s++ {
		if !w.seen(s) {
			continue
		}
		if n := len(out); n > 0 && out[n-1].To == s-1 {
			out[n-1].To = s
		} else {
			out = append(out, wire.Span{From: s, To: s})
		}
	}
	if extra := len(out) - wire.MaxSpans; extra > 0 {
		out[extra].From = out[0].From
		out = out[extra:]
	}
	return out
}

func (w *window) restore(spans []wire.Span) {
	for _, sp := range spans {
		from := sp.From
		if sp.To > windowBits && from < sp.To-windowBits {
			from = sp.To - windowBits
		}
		for s := max(from, 1); s <= sp.To; s++ {
			w.mark(s)
		}
	}
}

// bucket is a token bucket on given times. A clock that goes back adds nothing.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	b.tokens, b.at = b.left(now, rate, burst), now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *bucket) left(now time.Time, rate, burst float64) float64 {
	if b.at.IsZero() {
		return burst
	}
	return min(burst, b.tokens+max(0, now.Sub(b.at).Seconds())*rate)
}

// expiries is a heap by time; entries that are gone are dropped when they surface.
type expiries struct{ h entryHeap }

// push also sweeps once most of the heap is dead, or an author that refreshes
// without end would grow it without bound.
func (q *expiries) push(e *entry, live int) {
	heap.Push(&q.h, e)
	if len(q.h) > 2*live+64 {
		q.h = slices.DeleteFunc(q.h, func(e *entry) bool { return e.gone })
		heap.Init(&q.h)
	}
}

func (q *expiries) settle() {
	for len(q.h) > 0 && q.h[0].gone {
		heap.Pop(&q.h)
	}
}

func (q *expiries) due(now time.Time) *entry {
	q.settle()
	if len(q.h) == 0 || q.h[0].until.After(now) {
		return nil
	}
	return heap.Pop(&q.h).(*entry)
}

func (q *expiries) next() time.Time {
	q.settle()
	if len(q.h) == 0 {
		return time.Time{}
	}
	return q.h[0].until
}

type entryHeap []*entry

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return h[i].until.Before(h[j].until) }
func (h entryHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *entryHeap) Push(x any)        { *h = append(*h, x.(*entry)) }
func (h *entryHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
