package membus_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/membus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ear keeps what it hears.
type ear struct {
	mu    sync.Mutex
	heard []string
	peers []federation.PeerInfo
	at    []time.Time
}

func (e *ear) Receive(_ context.Context, topic federation.Topic, from identity.ID, b []byte) federation.Verdict {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, string(topic)+" "+string(from)+" "+string(b))
	e.at = append(e.at, time.Now())
	return federation.Accept
}

func (e *ear) Serve(_ context.Context, from identity.ID, b []byte) ([]byte, error) {
	if string(b) == "fail" {
		return nil, errors.New("no")
	}
	return append([]byte(string(from)+" asked "), b...), nil
}

func (e *ear) PeerChanged(p federation.PeerInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.peers = append(e.peers, p)
}

func (e *ear) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.heard)
}

func join(ctx context.Context, t *testing.T, b *membus.Bus, id identity.ID, wg *sync.WaitGroup) (*membus.Endpoint, *ear) {
	t.Helper()
	end, h := b.Join(id), new(ear)
	wg.Go(func() {
		if err := end.Run(ctx, h); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	})
	return end, h
}

func TestDeliveryPartitionAndRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		bus := membus.New(membus.Config{Seed: 1, Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond})
		a, _ := join(ctx, t, bus, "a", &wg)
		_, hb := join(ctx, t, bus, "b", &wg)
		_, hc := join(ctx, t, bus, "c", &wg)
		synctest.Wait()
		began := time.Now()
		if err := a.Broadcast(ctx, federation.TopicIntel, []byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if hb.count() != 1 || hc.count() != 1 || hb.heard[0] != "intel a x" {
			t.Fatalf("b heard %v, c heard %v", hb.heard, hc.heard)
		}
		if d := hb.at[0].Sub(began); d < 20*time.Millisecond || d > 30*time.Millisecond {
			t.Errorf("the message took %s, expected 20 to 30 ms", d)
		}
		out, err := a.Request(ctx, "b", []byte("q"))
		if err != nil || string(out) != "a asked q" {
			t.Errorf("request: %q, %v", out, err)
		}
		if _, err := a.Request(ctx, "b", []byte("fail")); err == nil {
			t.Error("a failed answer: no error")
		}
		bus.Partition([]identity.ID{"b"})
		if err := a.Broadcast(ctx, federation.TopicIntel, []byte("y")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if hb.count() != 1 || hc.count() != 2 {
			t.Errorf("in the partition b heard %v, c heard %v", hb.heard, hc.heard)
		}
		if _, err := a.Request(ctx, "b", nil); !errors.Is(err, federation.ErrUnreachable) {
			t.Errorf("request over the partition: %v", err)
		}
		bus.Heal()
		synctest.Wait()
		last := hb.peers[len(hb.peers)-1]
		if len(hb.peers) != 6 || !last.Connected { // two came, two went, two came
			t.Errorf("b was told %+v", hb.peers)
		}
		cancel()
		wg.Wait()
	})
}

func TestLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		bus := membus.New(membus.Config{Seed: 1, Loss: 0.3})
		a, _ := join(ctx, t, bus, "a", &wg)
		_, hb := join(ctx, t, bus, "b", &wg)
		synctest.Wait()
		for range 2000 {
			if err := a.Broadcast(ctx, federation.TopicModels, nil); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if sent, lost := bus.Counts(); sent != 2000 || lost < 500 || lost > 700 || hb.count() != int(sent-lost) {
			t.Errorf("%d sent, %d lost, %d heard; expected about 600 lost", sent, lost, hb.count())
		}
		bus.SetLoss(1)
		short, done := context.WithTimeout(ctx, time.Second)
		if _, err := a.Request(short, "b", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a lost request: %v", err)
		}
		done()
		cancel()
		wg.Wait()
	})
}
