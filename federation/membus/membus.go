// Package membus carries a federation's messages in memory, with delay, loss
// and partitions drawn from a seed. It serves tests and the simulator: one Bus is
// one network, and each Endpoint is a federation.Transport of one site.
//
// Delivery runs on timers, so under testing/synctest the network lives in
// virtual time. A broadcast reaches each other site once, after Delay plus up to
// Jitter, or not at all; requests suffer both ways.
package membus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
)

// Config is what the network does to messages.
type Config struct {
	Seed   uint64
	Delay  time.Duration // one way
	Jitter time.Duration // 0 to this is added
	Loss   float64       // share of messages lost, 0..1
}

// Bus is a network. Its methods may be called from several goroutines.
type Bus struct {
	mu    sync.Mutex
	cfg   Config
	rng   *rand.Rand
	ends  map[identity.ID]*Endpoint
	group map[identity.ID]int
	sent  uint64
	lost  uint64
}

// New returns a network without sites.
func New(cfg Config) *Bus {
	return &Bus{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x6d656d627573)),
		ends: make(map[identity.ID]*Endpoint), group: make(map[identity.ID]int),
	}
}

// Join adds a site, or replaces it when it comes back.
func (b *Bus) Join(id identity.ID) *Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := &Endpoint{bus: b, id: id}
	b.ends[id] = e
	return e
}

// SetLoss changes the share of messages lost.
func (b *Bus) SetLoss(share float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cfg.Loss = share
}

// Counts returns how many messages were sent and how many of them were lost.
func (b *Bus) Counts() (sent, lost uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sent, b.lost
}

// Partition splits the network: only sites of one group reach each other. Sites
// that are not named form one more group. Connections are announced as gone.
func (b *Bus) Partition(groups ...[]identity.ID) {
	b.change(func() {
		clear(b.group)
		for i, g := range groups {
			for _, id := range g {
				b.group[id] = i + 1
			}
		}
	})
}

// Heal joins all groups again.
func (b *Bus) Heal() { b.Partition() }

// change applies f and announces to every running site who came and who went.
func (b *Bus) change(f func()) {
	b.mu.Lock()
	before := b.links()
	f()
	after := b.links()
	var calls []func()
	for pair := range after {
		if !before[pair] {
			calls = append(calls, b.announce(pair, true))
		}
	}
	for pair := range before {
		if !after[pair] {
			calls = append(calls, b.announce(pair, false))
		}
	}
	b.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

type link struct{ at, peer identity.ID }

func (b *Bus) links() map[link]bool {
	out := make(map[link]bool)
	for x, ex := range b.ends {
		for y, ey := range b.ends {
			if x != y && ex.handler != nil && ey.handler != nil && b.group[x] == b.group[y] {
				out[link{x, y}] = true
			}
		}
	}
	return out
}

// announce is called with the lock held and returns what to do without it.
func (b *Bus) announce(l link, up bool) func() {
	e := b.ends[l.at]
	h := e.handler
	if h == nil {
		return func() {}
	}
	info := federation.PeerInfo{ID: l.peer, Connected: up, Since: time.Now(), Addr: "membus"}
	if !up {
		info.Addr, info.Why = "", "the network is split or the site has gone"
	}
	return func() { h.PeerChanged(info) }
}

// Endpoint is one site's end of the network.
type Endpoint struct {
	bus     *Bus
	id      identity.ID
	handler federation.Handler // nil while it does not run
	flights sync.WaitGroup
}

// Run delivers to h until ctx ends.
func (e *Endpoint) Run(ctx context.Context, h federation.Handler) error {
	if h == nil {
		return fmt.Errorf("membus: run: expected a handler")
	}
	e.bus.change(func() { e.handler = h })
	<-ctx.Done()
	e.bus.change(func() { e.handler = nil })
	e.flights.Wait()
	return nil
}

// draw decides the fate of one message. The lock is held.
func (b *Bus) draw() (delay time.Duration, ok bool) {
	b.sent++
	if b.cfg.Loss > 0 && b.rng.Float64() < b.cfg.Loss {
		b.lost++
		return 0, false
	}
	delay = b.cfg.Delay
	if b.cfg.Jitter > 0 {
		delay += time.Duration(b.rng.Int64N(int64(b.cfg.Jitter) + 1))
	}
	return delay, true
}

// reach is the running endpoint of a peer that can be reached. The lock is held.
func (e *Endpoint) reach(peer identity.ID) *Endpoint {
	p := e.bus.ends[peer]
	if p == nil || p == e || p.handler == nil || e.handler == nil || e.bus.group[peer] != e.bus.group[e.id] {
		return nil
	}
	return p
}

// others lists every other site, in a fixed order.
func (e *Endpoint) others() []identity.ID {
	ids := make([]identity.ID, 0, len(e.bus.ends))
	for id := range e.bus.ends {
		if id != e.id {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Broadcast sends b to every site that can be reached now.
func (e *Endpoint) Broadcast(ctx context.Context, topic federation.Topic, b []byte) error {
	e.bus.mu.Lock()
	defer e.bus.mu.Unlock()
	for _, id := range e.others() {
		p := e.reach(id)
		if p == nil {
			continue
		}
		delay, ok := e.bus.draw()
		if !ok {
			continue
		}
		msg := slices.Clone(b)
		ctx := context.WithoutCancel(ctx)
		p.flights.Add(1)
		time.AfterFunc(delay, func() {
			defer p.flights.Done()
			if h := p.arrive(e.id); h != nil {
				h.Receive(ctx, topic, e.id, msg)
			}
		})
	}
	return nil
}

// arrive is the handler when the way from a site is still open.
func (e *Endpoint) arrive(from identity.ID) federation.Handler {
	e.bus.mu.Lock()
	defer e.bus.mu.Unlock()
	if e.handler == nil || e.bus.group[from] != e.bus.group[e.id] {
		return nil
	}
	return e.handler
}

// Request asks one site. A lost request or answer costs the whole of ctx's time.
func (e *Endpoint) Request(ctx context.Context, peer identity.ID, b []byte) ([]byte, error) {
	e.bus.mu.Lock()
	p := e.reach(peer)
	there, ok1 := e.bus.draw()
	back, ok2 := e.bus.draw()
	e.bus.mu.Unlock()
	if p == nil {
		return nil, federation.ErrUnreachable
	}
	if !ok1 || !ok2 {
		there = time.Hour // the context ends first
	}
	if err := wait(ctx, there); err != nil {
		return nil, err
	}
	h := p.arrive(e.id)
	if h == nil || !ok1 || !ok2 {
		return nil, federation.ErrUnreachable
	}
	out, err := h.Serve(ctx, e.id, slices.Clone(b))
	if err != nil {
		return nil, fmt.Errorf("membus: request: the other site failed: %v", err)
	}
	return out, wait(ctx, back)
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Peers lists the other sites of the network.
func (e *Endpoint) Peers() []federation.PeerInfo {
	e.bus.mu.Lock()
	defer e.bus.mu.Unlock()
	var out []federation.PeerInfo
	for _, id := range e.others() {
		out = append(out, federation.PeerInfo{ID: id, Connected: e.reach(id) != nil, Addr: "membus", RTT: 2 * e.bus.cfg.Delay})
	}
	return out
}
