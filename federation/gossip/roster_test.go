package gossip_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/gossip"
)

const loopback = "/ip4/127.0.0.1/tcp/0"

// ear is a handler that accepts and keeps everything.
type ear struct {
	mute
	deaf  atomic.Bool // it passes nothing on
	mu    sync.Mutex
	heard map[identity.ID]map[string]bool
}

func (e *ear) Receive(_ context.Context, _ federation.Topic, from identity.ID, b []byte) federation.Verdict {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heard == nil {
		e.heard = make(map[identity.ID]map[string]bool)
	}
	if e.heard[from] == nil {
		e.heard[from] = make(map[string]bool)
	}
	e.heard[from][string(b)] = true
	if e.deaf.Load() {
		return federation.Ignore
	}
	return federation.Accept
}

// count is how many messages of an author begin with a prefix.
func (e *ear) count(from identity.ID, prefix string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for m := range e.heard[from] {
		if strings.HasPrefix(m, prefix) {
			n++
		}
	}
	return n
}

// end is a transport that runs, with its ear.
type end struct {
	*gossip.Transport
	ear ear
	id  identity.ID
}

func runEnd(t *testing.T, n byte, opt gossip.Options) *end {
	t.Helper()
	opt.Key, opt.Organisation, opt.DialEvery = key(t, n), "test", 20*time.Millisecond
	tr, err := gossip.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	e := &end{Transport: tr, id: opt.Key.ID()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx, &e.ear) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("end %d: %v", n, err)
		}
	})
	return e
}

func siteOf(t *testing.T, n byte) federation.Site {
	return federation.Site{Name: fmt.Sprintf("site%d", n), ID: key(t, n).ID()}
}

// ring starts n ends of n organisations that all know each other.
func ring(t *testing.T, n int, opt gossip.Options) []*end {
	t.Helper()
	var roster []federation.Site
	for i := range n {
		s := siteOf(t, byte(i+1))
		s.Organisation = fmt.Sprintf("org%d", i)
		roster = append(roster, s)
	}
	var ends []*end
	for i := range n {
		opt.Roster, opt.Listen = slices.Clone(roster), []string{loopback}
		e := runEnd(t, byte(i+1), opt)
		roster[i].Addrs = e.Addrs()
		ends = append(ends, e)
	}
	until(t, "everybody hears everybody", func() bool {
		for _, e := range ends {
			_ = e.Broadcast(t.Context(), federation.TopicIntel, fmt.Appendf(nil, "hello %d", time.Now().UnixNano()/1e8))
		}
		return !slices.ContainsFunc(ends, func(e *end) bool {
			return slices.ContainsFunc(ends, func(x *end) bool { return x != e && e.ear.count(x.id, "hello") == 0 })
		})
	})
	return ends
}

func (e *end) up(id identity.ID) bool {
	return slices.ContainsFunc(e.Peers(), func(p federation.PeerInfo) bool { return p.ID == id && p.Connected })
}

// A stranger that speaks libp2p gets no stream, neither of its own nor of ours.
func TestStrangerGetsNoStream(t *testing.T) {
	e := runEnd(t, 1, gossip.Options{Listen: []string{loopback, "/ip4/127.0.0.1/udp/0/quic-v1"}, Roster: []federation.Site{siteOf(t, 2)}})
	priv, err := crypto.UnmarshalEd25519PrivateKey(key(t, 66).Private())
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range e.Addrs() {
		h, err := libp2p.New(libp2p.Identity(priv), libp2p.NoListenAddrs, libp2p.DisableRelay())
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan network.ConnStats, 8)
		h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
			for _, s := range c.GetStreams() {
				if s.Stat().Direction == network.DirInbound {
					t.Errorf("%s: a stream %s was opened towards the stranger", addr, s.Protocol())
				}
			}
			closed <- c.Stat()
		}})
		before := e.Refusals()["stranger"]
		pid, err := peer.Decode(string(e.id))
		if err != nil {
			t.Fatal(err)
		}
		err = h.Connect(t.Context(), peer.AddrInfo{ID: pid, Addrs: []ma.Multiaddr{ma.StringCast(addr)}})
		if err == nil {
			<-closed // the handshake ends before the other end's judgement shows
		}
		until(t, "it is counted", func() bool { return e.Refusals()["stranger"] > before })
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRevokedIsDroppedAtOnce(t *testing.T) {
	ends := ring(t, 3, gossip.Options{})
	without := func(self, gone int) (out []federation.Site) {
		for i, e := range ends {
			if i != self && i != gone {
				s := siteOf(t, byte(i+1))
				s.Addrs = e.Addrs()
				out = append(out, s)
			}
		}
		return out
	}
	if err := ends[0].SetRoster(without(0, 2)); err != nil {
		t.Fatal(err)
	}
	if ends[0].up(ends[2].id) || len(ends[0].Peers()) != 1 {
		t.Errorf("after its revocation it is still there: %+v", ends[0].Peers())
	}
	if _, err := ends[2].Request(t.Context(), ends[0].id, []byte("x")); err == nil {
		t.Error("its request was answered")
	}
	// The third end has not heard of the revocation and forwards what it says.
	before := ends[0].Refusals()["stranger"]
	until(t, "what it signed is not taken from others either", func() bool {
		_ = ends[2].Broadcast(t.Context(), federation.TopicIntel, fmt.Appendf(nil, "late %d", time.Now().UnixNano()/1e7))
		return ends[1].ear.count(ends[2].id, "late") > 0 && ends[0].Refusals()["stranger"] > before
	})
	if n := ends[0].ear.count(ends[2].id, "late"); n != 0 {
		t.Errorf("%d messages of a revoked site were delivered", n)
	}
	if err := ends[0].SetRoster([]federation.Site{{Name: "x", ID: "nonsense"}}); err == nil || len(ends[0].Peers()) != 1 {
		t.Errorf("a bad roster: %v, %d peers; expected an error and no change", err, len(ends[0].Peers()))
	}
	if err := ends[0].SetRoster(append(without(0, 2), without(0, 1)...)); err != nil {
		t.Fatal(err)
	}
	until(t, "it is back once it is in the roster again", func() bool { return ends[0].up(ends[2].id) })
}

func TestCertificateEnds(t *testing.T) {
	ended := siteOf(t, 2)
	ended.Until = time.Now().Add(-time.Second)
	a := runEnd(t, 1, gossip.Options{Listen: []string{loopback}, Roster: []federation.Site{ended}})
	first := siteOf(t, 1)
	first.Addrs = a.Addrs()
	b := runEnd(t, 2, gossip.Options{Roster: []federation.Site{first}})
	until(t, "it is refused for its end", func() bool { return a.Refusals()["expired"] > 0 })
	if why := a.Peers()[0].Why; a.up(b.id) || !strings.Contains(why, "expired") {
		t.Errorf("connected %v, why %q; expected the reason", a.up(b.id), why)
	}
	ended.Until = time.Now().Add(time.Hour)
	if err := a.SetRoster([]federation.Site{ended}); err != nil {
		t.Fatal(err)
	}
	until(t, "a new certificate lets it in", func() bool { return a.up(b.id) })
	refused := a.Refusals()["expired"]
	ended.Until = time.Now().Add(100 * time.Millisecond)
	if err := a.SetRoster([]federation.Site{ended}); err != nil {
		t.Fatal(err)
	}
	until(t, "its end cuts the connection that stands", func() bool { return !a.up(b.id) && a.Refusals()["expired"] > refused })
}

// steps is the budgets' clock: it runs by a second whenever it is read, so that
// greetings are paid back at once, and then stands still.
type steps struct {
	began   time.Time
	n       atomic.Int64
	stopped atomic.Bool
}

func (s *steps) now() time.Time {
	if s.stopped.Load() {
		return s.began.Add(time.Duration(s.n.Load()) * time.Second)
	}
	return s.began.Add(time.Duration(s.n.Add(1)) * time.Second)
}

func (s *steps) stop() {
	s.stopped.Store(true)
	s.n.Add(3600)
}

// A member that sends a hundred times its budget costs the others nothing of what
// they say. What is counted is what was delivered, not when.
func TestFlood(t *testing.T) {
	const budget, honest = 60, 40
	clock := &steps{began: time.Now()}
	ends := ring(t, 4, gossip.Options{Budget: gossip.Budget{Messages: budget, Burst: budget}, Now: clock.now})
	clock.stop()
	evil := ends[3]
	var work sync.WaitGroup
	for _, e := range ends[:3] {
		work.Go(func() {
			for i := range honest {
				if err := e.Broadcast(t.Context(), federation.TopicIntel, fmt.Appendf(nil, "honest %d", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Go(func() {
		for i := range 100 * budget {
			if err := evil.Broadcast(t.Context(), federation.TopicIntel, fmt.Appendf(nil, "flood %d", i)); err != nil {
				t.Error(err)
			}
		}
	})
	work.Wait()
	until(t, "everything honest is delivered", func() bool {
		for i, e := range ends[:3] {
			for j, x := range ends[:3] {
				if i != j && e.ear.count(x.id, "honest") != honest {
					return false
				}
			}
		}
		return true
	})
	until(t, "the flood is seen for what it is", func() bool {
		return !slices.ContainsFunc(ends[:3], func(e *end) bool { return e.Refusals()["over-budget"] < budget })
	})
	for _, e := range ends[:3] {
		if n := e.ear.count(evil.id, "flood"); n > budget {
			t.Errorf("%d messages of the flood were delivered, expected at most %d", n, budget)
		}
		until(t, "who floods is cut off", func() bool {
			return !slices.ContainsFunc(e.Peers(), func(p federation.PeerInfo) bool { return p.ID == evil.id && p.Connected })
		})
		until(t, "the score shows who did it", func() bool {
			i := slices.IndexFunc(e.Peers(), func(p federation.PeerInfo) bool { return p.ID == evil.id })
			return e.Peers()[i].Score < -50
		})
		for _, p := range e.Peers() {
			if p.ID != evil.id && p.Score < 0 {
				t.Errorf("%s has score %g for what another did", p.Name, p.Score)
			}
		}
	}
}

// Two sites that nobody can reach talk through a third.
func TestThroughARelay(t *testing.T) {
	relay, hidden, caller := siteOf(t, 1), siteOf(t, 2), siteOf(t, 3)
	r := runEnd(t, 1, gossip.Options{Listen: []string{loopback}, Roster: []federation.Site{hidden, caller}, Relay: true})
	relay.Addrs = r.Addrs()
	h := runEnd(t, 2, gossip.Options{Roster: []federation.Site{relay, caller}, Behind: true})
	c := runEnd(t, 3, gossip.Options{Roster: []federation.Site{relay, hidden}, Behind: true})
	until(t, "a request goes through", func() bool {
		out, err := c.Request(t.Context(), h.id, []byte("hello"))
		return err == nil && string(out) == "hello"
	})
	until(t, "a message goes through", func() bool {
		_ = c.Broadcast(t.Context(), federation.TopicIntel, fmt.Appendf(nil, "hello %d", time.Now().UnixNano()/1e8))
		return h.ear.count(c.id, "hello") > 0
	})
	i := slices.IndexFunc(c.Peers(), func(p federation.PeerInfo) bool { return p.ID == h.id })
	if p := c.Peers()[i]; !p.Relayed {
		t.Errorf("%+v: expected a relayed connection, as neither listens", p)
	}
}
