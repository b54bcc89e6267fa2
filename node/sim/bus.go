package sim

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
)

// bus carries messages between whole nodes. What a node sends waits until all have
// come to the same time, and is then put into the others' boxes in the nodes' order:
// so it does not matter how fast which of them got there. A message's fate comes
// from the seed, its way and its number alone.
type bus struct {
	s     *Scenario
	sites []*whole
	at    map[identity.ID]int
	links *links
	met   bool // the nodes know whom they reach
}

// message is on its way to a node, from the moment at which it arrives.
type message struct {
	at    time.Time
	from  int
	n     uint64
	topic federation.Topic
	b     []byte
}

func (m message) Before(o message) bool {
	if !m.at.Equal(o.at) {
		return m.at.Before(o.at)
	}
	return cmp.Or(cmp.Compare(m.from, o.from), cmp.Compare(m.n, o.n)) < 0
}

// pile gives its least first.
type pile[T interface{ Before(T) bool }] []T

func (p pile[T]) Len() int           { return len(p) }
func (p pile[T]) Less(i, j int) bool { return p[i].Before(p[j]) }
func (p pile[T]) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }
func (p *pile[T]) Push(x any)        { *p = append(*p, x.(T)) }
func (p *pile[T]) Pop() any {
	n := len(*p) - 1
	x := (*p)[n]
	(*p)[n] = *new(T)
	*p = (*p)[:n]
	return x
}

func (p *pile[T]) put(x T) { heap.Push(p, x) }
func (p *pile[T]) take() T { return heap.Pop(p).(T) }

// reach says whether what a node sends gets to another.
func (b *bus) reach(from, to int) bool { return b.links.reach(from, to) }

// post delivers what was sent since the last time.
func (b *bus) post() {
	for i, w := range b.sites {
		for _, m := range w.sent {
			for j, to := range b.sites {
				if !b.reach(i, j) || !m.topic.Shared() && w.org != to.org {
					continue
				}
				w.bytes += int64(len(m.b))
				w.messages++
				rng := source(b.s.Seed, forMessages, i<<16|j, int(m.n))
				if rng.Float64() < b.s.Network.Loss {
					continue
				}
				m.at = w.clock.Add(b.delay(rng))
				m.from = i
				to.inbox.put(m)
			}
		}
		w.sent = nil
	}
}

func (b *bus) delay(rng *rand.Rand) time.Duration {
	return seconds(b.s.Network.Delay + rng.Float64()*b.s.Network.Jitter)
}

func seconds(x float64) time.Duration { return time.Duration(x * float64(time.Second)) }

// addrOf is where a site is met.
func addrOf(w *whole) string { return fmt.Sprintf("/ip4/%s/tcp/4400", w.site.WAN) }

// port is a node's end of the bus. It implements federation.Transport.
type port struct {
	b *bus
	w *whole
}

// Run implements federation.Transport. A stepped member does not call it.
func (p *port) Run(ctx context.Context, _ federation.Handler) error {
	<-ctx.Done()
	return nil
}

// Broadcast implements federation.Transport.
func (p *port) Broadcast(_ context.Context, topic federation.Topic, b []byte) error {
	p.w.number++
	p.w.sent = append(p.w.sent, message{n: p.w.number, topic: topic, b: slices.Clone(b)})
	return nil
}

// Request implements federation.Transport. Only what was noted for later asks, and
// that is done for one node after the other; its time on the way is in when it is.
func (p *port) Request(ctx context.Context, peer identity.ID, b []byte) ([]byte, error) {
	i, j := p.w.i, p.b.at[peer]
	to := p.b.sites[j]
	p.w.number++
	p.w.messages++
	p.w.bytes += int64(len(b))
	rng := source(p.b.s.Seed, forMessages, i<<16|j, int(p.w.number))
	there, back := rng.Float64() < p.b.s.Network.Loss, rng.Float64() < p.b.s.Network.Loss
	if !p.b.reach(i, j) || to.handler == nil || there {
		return nil, federation.ErrUnreachable
	}
	out, err := to.handler.Serve(ctx, p.w.key.ID(), slices.Clone(b))
	to.messages++
	to.bytes += int64(len(out))
	if err == nil && back {
		err = federation.ErrUnreachable
	}
	return out, err
}

// Peers implements federation.Transport.
func (p *port) Peers() []federation.PeerInfo {
	var out []federation.PeerInfo
	for j, w := range p.b.sites {
		if j != p.w.i {
			out = append(out, federation.PeerInfo{ID: w.key.ID(), Connected: p.b.reach(p.w.i, j), Addr: addrOf(w)})
		}
	}
	slices.SortFunc(out, func(a, b federation.PeerInfo) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
