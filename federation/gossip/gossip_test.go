package gossip_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/gossip"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

func TestMain(m *testing.M) {
	// Gossipsub waits a second before it connects its direct peers, closed or not.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/libp2p/go-libp2p-pubsub.(*GossipSubRouter).Attach.func1"))
}

func key(t testing.TB, n byte) *identity.Key {
	t.Helper()
	k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestIDIsThePeerID(t *testing.T) {
	for n := range byte(64) {
		k := key(t, n)
		priv, err := crypto.UnmarshalEd25519PrivateKey(k.Private())
		if err != nil {
			t.Fatal(err)
		}
		want, err := peer.IDFromPrivateKey(priv)
		if err != nil || want.String() != string(k.ID()) {
			t.Fatalf("id %s, libp2p says %s (%v)", k.ID(), want, err)
		}
	}
}

// until polls a condition on the wall clock.
func until(t *testing.T, what string, cond func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("not within two minutes: %s", what)
		}
		<-tick.C
	}
	return time.Since(began)
}

type node struct {
	*federation.Member
	tr   *gossip.Transport
	key  *identity.Key
	stop func()

	mu     sync.Mutex
	intel  []federation.IndicatorEvent
	rounds []federation.RoundEvent
}

func (n *node) got(value string, eff federation.Effect) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.intel, func(e federation.IndicatorEvent) bool {
		return e.Indicator.Value == value && e.Effect == eff
	})
}

func (n *node) step(step string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := 0
	for _, e := range n.rounds {
		if e.Step == step {
			c++
		}
	}
	return c
}

type halfway struct{ target float32 }

func (h halfway) Train(_ context.Context, _ uint64, base []float32) ([]float32, int, error) {
	for i := range base {
		base[i] += (h.target - base[i]) / 2
	}
	return base, 10, nil
}

func (halfway) Adopt(context.Context, uint64, string, []float32) (bool, string, error) {
	return true, "", nil
}

const dim = 12000 // of the size of a real model: 48 KB a delta

func start(t *testing.T, i int, roster []federation.Site, store federation.Storage, listen string) *node {
	t.Helper()
	n := &node{key: key(t, byte(i+1))}
	tr, err := gossip.New(gossip.Options{Key: n.key, Organisation: "test", Listen: []string{listen}, Roster: roster, DialEvery: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	n.tr = tr
	n.Member, err = federation.New(federation.Options{
		Site: roster[i].Name, Key: n.key, Roster: roster, Transport: tr, Storage: store, Trainer: halfway{float32(i)},
		Schema: "test/1", ParamDim: dim, RoundEvery: -1, DeltaDeadline: 20 * time.Second, SyncEvery: time.Second,
		OnIndicator: func(e federation.IndicatorEvent) { n.mu.Lock(); defer n.mu.Unlock(); n.intel = append(n.intel, e) },
		OnRound:     func(e federation.RoundEvent) { n.mu.Lock(); defer n.mu.Unlock(); n.rounds = append(n.rounds, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	n.serve(t, roster[i].Name)
	return n
}

// serve runs the member until n.stop, or the test's end.
func (n *node) serve(t *testing.T, name string) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: run: %v", name, err)
		}
	})
	t.Cleanup(n.stop)
}

// mesh starts n hosts on loopback; each knows the addresses of those before it.
func mesh(t *testing.T, n int, listen string) ([]*node, []federation.Site) {
	t.Helper()
	var roster []federation.Site
	for i := range n {
		roster = append(roster, federation.Site{Name: fmt.Sprintf("site%d", i), ID: key(t, byte(i+1)).ID()})
	}
	var nodes []*node
	for i := range n {
		nd := start(t, i, slices.Clone(roster), nil, listen)
		roster[i].Addrs = nd.tr.Addrs()
		nodes = append(nodes, nd)
	}
	until(t, "all connected", func() bool { return connected(nodes, n-1) })
	return nodes, roster
}

func connected(nodes []*node, each int) bool {
	return !slices.ContainsFunc(nodes, func(n *node) bool { return n.Status().Connected != each })
}

func indicator(value string) wire.Indicator {
	return wire.Indicator{Type: wire.TypeAddress, Value: value, Score: 0.9, Confidence: 0.8, Evidence: wire.Validated, Sentence: "tried 40 passwords in a minute"}
}

func TestStoryOverTCP(t *testing.T)  { story(t, "/ip4/127.0.0.1/tcp/0") }
func TestStoryOverQUIC(t *testing.T) { story(t, "/ip4/127.0.0.1/udp/0/quic-v1") }

func story(t *testing.T, listen string) {
	nodes, roster := mesh(t, 3, listen)
	id := published(t, nodes)
	if err := nodes[0].Withdraw(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	until(t, "the withdrawal lifts it elsewhere", func() bool {
		return nodes[1].got("203.0.113.0", federation.Lift) && nodes[2].got("203.0.113.0", federation.Lift)
	})
	began := time.Now()
	answers, err := nodes[1].Ask(t.Context(), "203.0.113.200")
	if err != nil || len(answers) != 2 {
		t.Errorf("ask: %+v, %v; expected two sites that have not seen it", answers, err)
	}
	t.Logf("asking two sites took %s", time.Since(began))
	if _, err := nodes[2].StartRound(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := until(t, "one model", func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) bool { return n.Status().Round != 1 })
	})
	for _, n := range nodes[1:] {
		if n.Status().Hash != nodes[0].Status().Hash {
			t.Error("the sites have different models")
		}
	}
	t.Logf("a round of %d parameters took %s", dim, took)
	until(t, "adopted everywhere", func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) bool { return n.step("adopted") != 1 })
	})
	rejoins(t, nodes, roster, listen)
}

// published sends twenty indicators and prints how long they took.
func published(t *testing.T, nodes []*node) (first string) {
	t.Helper()
	var took []time.Duration
	for i := range 20 {
		value := fmt.Sprintf("203.0.113.%d", i)
		began := time.Now()
		id, err := nodes[0].Publish(t.Context(), indicator(value))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = id
		}
		until(t, "enforced elsewhere", func() bool {
			return nodes[1].got(value, federation.Enforce) && nodes[2].got(value, federation.Enforce)
		})
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("publish -> enforced at both other sites: median %s, worst %s", took[len(took)/2], took[len(took)-1])
	return first
}

// rejoins stops a site, publishes meanwhile, and has it come back empty-handed.
func rejoins(t *testing.T, nodes []*node, roster []federation.Site, listen string) {
	t.Helper()
	nodes[2].stop()
	until(t, "the others see it go", func() bool { return connected(nodes[:2], 1) })
	if _, err := nodes[1].Publish(t.Context(), indicator("198.51.100.1")); err != nil {
		t.Fatal(err)
	}
	back := start(t, 2, roster, nil, listen)
	took := until(t, "it has caught up", func() bool {
		return back.Status().Round == 1 && back.got("198.51.100.1", federation.Enforce) && len(back.Indicators()) == 20
	})
	if back.Status().Hash != nodes[0].Status().Hash {
		t.Error("the returned site has another model")
	}
	t.Logf("an empty site has 20 indicators and the model after %s", took)
}

func TestStrangerIsKeptOut(t *testing.T) {
	nodes, roster := mesh(t, 2, "/ip4/127.0.0.1/tcp/0")
	stranger := key(t, 77)
	tr, err := gossip.New(gossip.Options{Key: stranger, Organisation: "test", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Roster: roster, DialEvery: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx, mute{}) }()
	until(t, "the stranger is refused by both", func() bool {
		return nodes[0].tr.Strangers() > 0 && nodes[1].tr.Strangers() > 0
	})
	if _, err := tr.Request(ctx, nodes[0].key.ID(), []byte("x")); err == nil {
		t.Error("a stranger's request was answered")
	}
	if !connected(nodes, 1) {
		t.Error("the stranger disturbed the sites' own connection")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type mute struct{}

func (mute) Receive(context.Context, federation.Topic, identity.ID, []byte) federation.Verdict {
	return federation.Accept // its own broadcasts pass its own validator first
}

func (mute) Serve(_ context.Context, _ identity.ID, b []byte) ([]byte, error) {
	switch string(b) {
	case "huge":
		return make([]byte, wire.MaxResponse+1), nil
	case "fail":
		return nil, errors.New("no")
	}
	return b, nil
}

func (mute) PeerChanged(federation.PeerInfo) {}

// TestBadPeerIsCounted has a roster site that sends garbage over gossip and
// over streams to a real member.
func TestBadPeerIsCounted(t *testing.T) {
	roster := []federation.Site{{Name: "site0", ID: key(t, 1).ID()}, {Name: "site1", ID: key(t, 2).ID()}}
	good := start(t, 0, slices.Clone(roster), nil, "/ip4/127.0.0.1/tcp/0")
	roster[0].Addrs = good.tr.Addrs()
	evil, err := gossip.New(gossip.Options{Key: key(t, 2), Organisation: "test", Roster: roster, DialEvery: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- evil.Run(ctx, mute{}) }()
	until(t, "connected", func() bool {
		return good.Status().Connected == 1 && len(evil.Peers()) == 1 && evil.Peers()[0].Connected
	})
	if err := evil.Broadcast(ctx, federation.TopicIntel, make([]byte, wire.MaxSmall+1)); !errors.Is(err, gossip.ErrTooBig) {
		t.Errorf("oversized broadcast: %v", err)
	}
	n := 0
	until(t, "garbage is counted as malformed", func() bool {
		n++
		// Two messages only: a few more and its score would silence it.
		if n == 1 || n == 2000 {
			if err := evil.Broadcast(ctx, federation.TopicIntel, fmt.Appendf(nil, "garbage %d", n)); err != nil {
				t.Error(err)
			}
		}
		return good.Status().Refused[wire.Malformed] > 0
	})
	before := good.Status().Refused[wire.Malformed]
	if out, err := evil.Request(ctx, good.key.ID(), []byte("garbage")); err != nil || len(out) == 0 {
		t.Errorf("a garbage request: %v, %v; expected a refusal in words", out, err)
	}
	if good.Status().Refused[wire.Malformed] == before {
		t.Error("a garbage request was not counted")
	}
	if _, err := evil.Request(ctx, good.key.ID(), make([]byte, wire.MaxRequest+1)); !errors.Is(err, gossip.ErrTooBig) {
		t.Errorf("oversized request: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestRequestLimits is a raw pair: an answer that is too long, one that fails,
// and a request to a site that is not there.
func TestRequestLimits(t *testing.T) {
	roster := []federation.Site{{Name: "a", ID: key(t, 1).ID()}, {Name: "b", ID: key(t, 2).ID()}, {Name: "c", ID: key(t, 3).ID()}}
	var ends []*gossip.Transport
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for i := range 2 {
		tr, err := gossip.New(gossip.Options{Key: key(t, byte(i+1)), Organisation: "test", Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Roster: slices.Clone(roster), DialEvery: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		roster[i].Addrs = tr.Addrs()
		ends = append(ends, tr)
		go func() { done <- tr.Run(ctx, mute{}) }()
	}
	a, b := ends[0], key(t, 2).ID()
	until(t, "connected and answering", func() bool {
		out, err := a.Request(ctx, b, []byte("hello"))
		return err == nil && string(out) == "hello"
	})
	if _, err := a.Request(ctx, b, []byte("huge")); !errors.Is(err, gossip.ErrTooBig) {
		t.Errorf("a huge answer: %v", err)
	}
	if _, err := a.Request(ctx, b, []byte("fail")); err == nil {
		t.Error("a failing answer: no error")
	}
	if _, err := a.Request(ctx, roster[2].ID, []byte("hello")); !errors.Is(err, federation.ErrUnreachable) {
		t.Errorf("a request to nobody: %v", err)
	}
	cancel()
	for range ends {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	k := key(t, 1)
	used, err := gossip.New(gossip.Options{Key: k, Organisation: "test", Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := used.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		opt  gossip.Options
		is   error
		want string
	}{
		{gossip.Options{Organisation: "test"}, nil, "key"},
		{gossip.Options{Key: k, Organisation: "Not Plain"}, nil, "organisation"},
		{gossip.Options{Key: k, Organisation: "test", Listen: []string{"0.0.0.0:4400"}}, gossip.ErrAddress, "/ip4/"},
		{gossip.Options{Key: k, Organisation: "test", Listen: used.Addrs()}, gossip.ErrListen, "another address"},
		{gossip.Options{Key: k, Organisation: "test", Roster: []federation.Site{{Name: "x", ID: "nonsense"}}}, gossip.ErrAddress, "site x"},
		{gossip.Options{Key: k, Organisation: "test", Roster: []federation.Site{{Name: "x", ID: key(t, 2).ID(), Addrs: []string{"/ip4/127.0.0.1/tcp/1/p2p/" + string(key(t, 2).ID())}}}}, gossip.ErrAddress, "without /p2p"},
	} {
		_, err := gossip.New(c.opt)
		if err == nil || !strings.Contains(err.Error(), c.want) || (c.is != nil && !errors.Is(err, c.is)) {
			t.Errorf("%v, expected an error with %q", err, c.want)
		}
	}
	if err := used.Broadcast(t.Context(), federation.TopicIntel, nil); !errors.Is(err, gossip.ErrStopped) {
		t.Errorf("broadcast before run: %v", err)
	}
}
