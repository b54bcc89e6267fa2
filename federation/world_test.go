package federation_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/membus"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

const (
	schema = "test/1"
	dim    = 8
)

func key(t testing.TB, n byte) *identity.Key {
	t.Helper()
	k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// trainer moves every parameter halfway to its target, after a while.
type trainer struct {
	target float32
	idle   bool // it changes nothing
	took   time.Duration
	gate   func(round uint64) (bool, string)

	mu      sync.Mutex
	adopted []string
}

func (tr *trainer) Train(ctx context.Context, _ uint64, base []float32) ([]float32, int, error) {
	select {
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	case <-time.After(tr.took):
	}
	out := slices.Clone(base)
	for i := range out {
		if tr.idle {
			break
		}
		out[i] += (tr.target - out[i]) / 2
	}
	return out, 100, nil
}

func (tr *trainer) Adopt(_ context.Context, round uint64, hash string, _ []float32) (bool, string, error) {
	if tr.gate != nil {
		if ok, why := tr.gate(round); !ok {
			return false, why, nil
		}
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.adopted = append(tr.adopted, hash)
	return true, "no worse than alone", nil
}

// site is a member under test with what it told.
type site struct {
	*federation.Member
	name    string
	key     *identity.Key
	store   *federation.MemoryStorage
	trainer *trainer
	stop    func()

	mu     sync.Mutex
	intel  []federation.IndicatorEvent
	rounds []federation.RoundEvent
	peers  []federation.PeerEvent
}

func (s *site) events() []federation.IndicatorEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.intel)
}

func (s *site) steps(step string) (out []federation.RoundEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.rounds {
		if e.Step == step {
			out = append(out, e)
		}
	}
	return out
}

// effects counts the events with an effect.
func (s *site) effects(eff federation.Effect) (n int) {
	for _, e := range s.events() {
		if e.Effect == eff {
			n++
		}
	}
	return n
}

type world struct {
	t      *testing.T
	bus    *membus.Bus
	sites  []*site
	roster []federation.Site
	tune   func(*federation.Options)
}

// newWorld starts n sites on a bus. It is to be called inside a synctest bubble.
func newWorld(t *testing.T, n int, cfg membus.Config, tune func(*federation.Options)) *world {
	return newWorldIn(t, &world{}, n, cfg, tune)
}

// newWorldIn is newWorld where tune needs the world.
func newWorldIn(t *testing.T, w *world, n int, cfg membus.Config, tune func(*federation.Options)) *world {
	*w = world{t: t, bus: membus.New(cfg), tune: tune}
	for i := range n {
		k := key(t, byte(i+1))
		w.roster = append(w.roster, federation.Site{Name: fmt.Sprintf("site%d", i), ID: k.ID()})
	}
	for i := range n {
		s := &site{name: w.roster[i].Name, key: key(t, byte(i+1)), store: new(federation.MemoryStorage), trainer: &trainer{target: float32(i), took: 2 * time.Second}}
		w.sites = append(w.sites, s)
		w.start(s)
	}
	synctest.Wait()
	return w
}

func (w *world) start(s *site) {
	w.t.Helper()
	opt := federation.Options{
		Site: s.name, Key: s.key, Roster: w.roster, Transport: w.bus.Join(s.key.ID()), Storage: s.store, Trainer: s.trainer,
		Schema: schema, ParamDim: dim, RoundEvery: -1, DeltaDeadline: 10 * time.Second,
		OnIndicator: func(e federation.IndicatorEvent) { s.mu.Lock(); defer s.mu.Unlock(); s.intel = append(s.intel, e) },
		OnRound:     func(e federation.RoundEvent) { s.mu.Lock(); defer s.mu.Unlock(); s.rounds = append(s.rounds, e) },
		OnPeer:      func(e federation.PeerEvent) { s.mu.Lock(); defer s.mu.Unlock(); s.peers = append(s.peers, e) },
	}
	if w.tune != nil {
		w.tune(&opt)
	}
	m, err := federation.New(opt)
	if err != nil {
		w.t.Fatal(err)
	}
	s.Member = m
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("%s: run: %v", s.name, err)
		}
	})
}

func (w *world) close() {
	for _, s := range w.sites {
		s.stop()
	}
}

// pass lets virtual time go by.
func pass(d time.Duration) {
	time.Sleep(d) // inside a synctest bubble: no waiting, only a clock that moves on
	synctest.Wait()
}

func indicator(value string) wire.Indicator {
	return wire.Indicator{
		Type: wire.TypeAddress, Value: value, Score: 0.9, Confidence: 0.8,
		Evidence: wire.Validated, Sentence: "tried 40 passwords in a minute",
	}
}

// until polls a condition in virtual time.
func until(t *testing.T, limit time.Duration, what string, cond func() bool) time.Duration {
	t.Helper()
	for spent := time.Duration(0); ; spent += 10 * time.Millisecond {
		if cond() {
			return spent
		}
		if spent > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
		pass(10 * time.Millisecond)
	}
}
