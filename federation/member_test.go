package federation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/membus"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var lan = membus.Config{Seed: 1, Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond}

func TestIndicatorReachesAllAndIsWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, lan, nil)
		defer w.close()
		ind := indicator("203.0.113.9")
		ind.Sentence = "host 10.0.0.7 met it\nfor the first time"
		id, err := w.sites[0].Publish(t.Context(), ind)
		if err != nil {
			t.Fatal(err)
		}
		pass(50 * time.Millisecond)
		for _, s := range w.sites[1:] {
			evs := s.events()
			if len(evs) != 1 {
				t.Fatalf("%s: %d events, expected one", s.name, len(evs))
			}
			e := evs[0]
			if e.Effect != federation.Enforce || e.Author != "site0" || e.Indicator.Value != "203.0.113.9" || e.Indicator.ID != id {
				t.Errorf("%s: %+v, expected site0's indicator enforced", s.name, e)
			}
			if e.Indicator.Sentence != "host (inside) met it for the first time" {
				t.Errorf("%s: sentence %q", s.name, e.Indicator.Sentence)
			}
			if d := e.ReceivedAt.Sub(e.SentAt); d <= 0 || d > 20*time.Millisecond {
				t.Errorf("%s: took %s", s.name, d)
			}
		}
		if len(w.sites[0].events()) != 0 {
			t.Errorf("the author is told its own news: %+v", w.sites[0].events())
		}
		if err := w.sites[0].Withdraw(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		pass(50 * time.Millisecond)
		for _, s := range w.sites {
			if n := len(s.Indicators()); n != 0 {
				t.Errorf("%s: %d in force after the withdrawal", s.name, n)
			}
		}
		if w.sites[1].effects(federation.Lift) != 1 || w.sites[2].effects(federation.Lift) != 1 {
			t.Error("the withdrawal was not lifted at both other sites")
		}
		if err := w.sites[0].Withdraw(t.Context(), id); !errors.Is(err, federation.ErrNotFound) {
			t.Errorf("second withdrawal: %v", err)
		}
	})
}

func TestExpiryAndSpoofable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, lan, nil)
		defer w.close()
		ind := indicator("198.51.100.7")
		ind.Expires = time.Now().Add(time.Minute)
		spoof := indicator("198.51.100.8")
		spoof.Evidence = wire.Spoofable
		for _, i := range []wire.Indicator{ind, spoof} {
			if _, err := w.sites[0].Publish(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Second)
		if w.sites[1].effects(federation.Enforce) != 1 || w.sites[1].effects(federation.Observe) != 1 {
			t.Fatalf("events %+v, expected one enforced and one observed", w.sites[1].events())
		}
		pass(time.Minute)
		var lifted []federation.IndicatorEvent
		for _, e := range w.sites[1].events() {
			if e.Effect == federation.Lift {
				lifted = append(lifted, e)
			}
		}
		if len(lifted) != 1 || lifted[0].Op != "expiry" || lifted[0].Indicator.Value != "198.51.100.7" {
			t.Fatalf("lifted %+v, expected the expiry of 198.51.100.7", lifted)
		}
	})
}

func TestPublishRefusesWhatMustNotLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, lan, nil)
		defer w.close()
		for value, want := range map[string]wire.Reason{
			"10.1.2.3": wire.PrivateValue, "fd00::1": wire.PrivateValue, "127.0.0.1": wire.PrivateValue,
			"224.0.0.1": wire.PrivateValue, "0.0.0.0": wire.PrivateValue, "203.0.0.0/16": wire.PrefixTooWide,
			"nonsense": wire.BadField,
		} {
			_, err := w.sites[0].Publish(t.Context(), indicator(value))
			if got, ok := federation.Refusal(err); !ok || got != want {
				t.Errorf("publish %s: %v, expected %s", value, err, want)
			}
			if _, err := w.sites[0].Ask(t.Context(), value); err == nil {
				t.Errorf("ask %s: no error", value)
			}
		}
		sent, _ := w.bus.Counts()
		pass(100 * time.Millisecond)
		if after, _ := w.bus.Counts(); after != sent {
			t.Errorf("%d messages left the site for refused values", after-sent)
		}
	})
}

// attacker is a member of the roster that sends what it likes.
func attacker(t *testing.T, w *world, i int) *membus.Endpoint {
	w.sites[i].stop()
	e := w.bus.Join(w.sites[i].key.ID())
	go func() {
		if err := e.Run(t.Context(), mute{}); err != nil {
			t.Errorf("attacker: %v", err)
		}
	}()
	synctest.Wait()
	return e
}

type mute struct{}

func (mute) Receive(context.Context, federation.Topic, identity.ID, []byte) federation.Verdict {
	return federation.Ignore
}
func (mute) Serve(context.Context, identity.ID, []byte) ([]byte, error) {
	return []byte("garbage"), nil
}
func (mute) PeerChanged(federation.PeerInfo) {}

func TestHostileMessagesAreCountedByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, lan, nil)
		defer w.close()
		evil := attacker(t, w, 1)
		k, now := w.sites[1].key, time.Now()
		seal := func(k *identity.Key, seq uint64, at time.Time, value string) []byte {
			ind := indicator(value)
			ind.ID = wire.IndicatorID(k.ID(), ind.Type, ind.Value)
			ind.First, ind.Last, ind.Expires, ind.TLP = now, now, now.Add(time.Hour), wire.TLPAmber
			m, err := wire.Seal(k, seq, at, &ind)
			if err != nil {
				t.Fatal(err)
			}
			return m.Raw
		}
		good := seal(k, 1, now, "203.0.113.1")
		bent := slices.Clone(seal(k, 2, now, "203.0.113.2"))
		bent[len(bent)-1] ^= 1
		steps := []struct {
			topic federation.Topic
			b     []byte
			want  wire.Reason // "" accepted
		}{
			{federation.TopicIntel, []byte("garbage"), wire.Malformed},
			{federation.TopicIntel, make([]byte, wire.MaxSmall+1), wire.Oversized},
			{federation.TopicIntel, good, ""},
			{federation.TopicIntel, good, wire.Duplicate},
			{federation.TopicIntel, seal(k, 1, now, "203.0.113.3"), wire.Equivocation},
			{federation.TopicIntel, bent, wire.BadSignature},
			{federation.TopicModels, seal(k, 4, now, "203.0.113.4"), wire.WrongTopic},
			{federation.TopicIntel, seal(k, 5, now.Add(time.Hour), "203.0.113.5"), wire.FromFuture},
			{federation.TopicIntel, seal(k, 6, now.Add(-8*24*time.Hour), "203.0.113.6"), wire.Stale},
			{federation.TopicIntel, seal(key(t, 99), 1, now, "203.0.113.7"), wire.NotMember},
			{federation.TopicIntel, seal(w.sites[0].key, 1, now, "203.0.113.8"), wire.NotSender},
		}
		want := map[wire.Reason]uint64{}
		before := w.sites[0].Status().Refused
		for _, st := range steps {
			if err := evil.Broadcast(t.Context(), st.topic, st.b); err != nil {
				t.Fatal(err)
			}
			pass(50 * time.Millisecond)
			if st.want != "" {
				want[st.want]++
			}
		}
		got := w.sites[0].Status().Refused
		for r, n := range want {
			if got[r]-before[r] < n {
				t.Errorf("refused as %s: %d, expected at least %d (all: %v)", r, got[r]-before[r], n, got)
			}
		}
		if n := len(w.sites[0].Indicators()); n != 1 {
			t.Errorf("%d indicators in force, expected only the good one", n)
		}
	})
}

func TestFloodIsRefusedOverBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, lan, nil)
		defer w.close()
		for i := range 200 {
			ind := indicator("203.0.113.0/24")
			ind.Evidence = []wire.Evidence{wire.Validated, wire.Operator}[i%2]
			_, err := w.sites[0].Publish(t.Context(), ind)
			if reason, _ := federation.Refusal(err); err != nil && reason != wire.OverBudget {
				t.Fatal(err)
			}
		}
		pass(time.Second)
		if n := len(w.sites[1].events()); n == 0 || n > 60 {
			t.Errorf("%d events from a flood of 200, expected at most the burst of 50 and a few", n)
		}
	})
}

func TestPartitionHealsByPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, lan, nil)
		defer w.close()
		w.bus.Partition([]identity.ID{w.sites[2].key.ID()})
		var ids []string
		for _, v := range []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"} {
			id, err := w.sites[0].Publish(t.Context(), indicator(v))
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		if err := w.sites[0].Withdraw(t.Context(), ids[1]); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if n := len(w.sites[2].events()); n != 0 {
			t.Fatalf("%d events crossed the partition", n)
		}
		w.sites[0].stop() // the author goes; the third site must learn from the second
		w.bus.Heal()
		pass(time.Second)
		if n := len(w.sites[2].Indicators()); n != 2 {
			t.Fatalf("%d indicators after healing, expected the two that stand", n)
		}
	})
}

func TestLossyGossipIsMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lossy := lan
		lossy.Loss = 0.4
		w := newWorld(t, 4, lossy, nil)
		defer w.close()
		for i := range 20 {
			if _, err := w.sites[i%4].Publish(t.Context(), indicator("203.0.113."+string(rune('0'+i%10))+string(rune('0'+i/10)))); err != nil && i > 0 {
				reason, _ := federation.Refusal(err)
				if reason != wire.BadField { // "203.0.113.00" is not canonical
					t.Fatal(err)
				}
			}
		}
		want := 0
		for _, s := range w.sites {
			want = max(want, len(s.Indicators()))
		}
		until(t, 10*time.Minute, "all sites hold the same", func() bool {
			n := len(w.sites[0].Indicators())
			return n > want && !slices.ContainsFunc(w.sites, func(s *site) bool { return len(s.Indicators()) != n })
		})
	})
}

func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
		w := newWorld(t, 4, lan, func(o *federation.Options) {
			if o.Site == "site1" {
				o.OnAsk = func(typ wire.Type, v string) (bool, uint64, time.Time) {
					return typ == wire.TypeAddress && v == "203.0.113.9", 7, last
				}
			}
		})
		defer w.close()
		if _, err := w.sites[2].Publish(t.Context(), indicator("203.0.113.9")); err != nil {
			t.Fatal(err)
		}
		pass(100 * time.Millisecond)
		w.sites[3].stop()
		before := time.Now()
		got, err := w.sites[0].Ask(t.Context(), "203.0.113.9")
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(before); d > 300*time.Millisecond {
			t.Errorf("asking took %s", d)
		}
		if len(got) != 2 || got[0].Site != "site2" || !got[0].Seen || got[1] != (federation.Answer{Site: "site1", Seen: true, Count: 7, Last: last}) {
			t.Errorf("answers %+v, expected site2 from shared indicators and site1 from its history", got)
		}
		limited := 0
		for range 100 {
			if _, err := w.sites[0].Ask(t.Context(), "203.0.113.77"); errors.Is(err, federation.ErrRateLimited) {
				limited++
			}
		}
		if limited == 0 {
			t.Error("100 questions in a row were all asked")
		}
	})
}

func TestRoundEndsOnOneHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, lan, nil)
		defer w.close()
		w.sites[2].trainer.gate = func(uint64) (bool, string) { return false, "worse on this site's own traffic" }
		n, err := w.sites[1].StartRound(t.Context())
		if err != nil || n != 1 {
			t.Fatalf("start: %d, %v", n, err)
		}
		if _, err := w.sites[1].StartRound(t.Context()); !errors.Is(err, federation.ErrRoundOpen) {
			t.Errorf("second start: %v", err)
		}
		took := until(t, 30*time.Second, "all sites are at round 1", func() bool { return w.at(1) })
		t.Logf("round took %s of virtual time (training: 2s)", took)
		w.oneHash(t)
		agg := w.sites[0].steps("aggregated")
		if len(agg) != 1 || len(agg[0].Sites) != 3 {
			t.Errorf("aggregated %+v, expected one model of three sites", agg)
		}
		_, hash, params := w.sites[0].Model()
		for i, p := range params { // targets 0, 1, 2, halfway: mean 0.5
			if p != 0.5 {
				t.Errorf("parameter %d is %g, expected 0.5", i, p)
			}
		}
		pass(time.Second)
		if a := w.sites[0].steps("adopted"); len(a) != 1 || a[0].Hash != hash {
			t.Errorf("adopted %+v, expected %s", a, hash)
		}
		if r := w.sites[2].steps("refused"); len(r) != 1 || !strings.Contains(r[0].Why, "own traffic") {
			t.Errorf("refused %+v, expected the gate's reason", r)
		}
	})
}

func (w *world) at(round uint64) bool {
	return !slices.ContainsFunc(w.sites, func(s *site) bool { return s.Status().Round != round })
}

func (w *world) oneHash(t *testing.T) {
	t.Helper()
	for _, s := range w.sites[1:] {
		if a, b := s.Status().Hash, w.sites[0].Status().Hash; a != b {
			t.Errorf("%s has %s, site0 has %s", s.name, a, b)
		}
	}
}

func TestRoundsUnderLossAndPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lossy := lan
		lossy.Loss = 0.3
		w := newWorld(t, 5, lossy, func(o *federation.Options) { o.RoundEvery = time.Minute })
		defer w.close()
		pass(5 * time.Minute)
		w.bus.Partition([]identity.ID{w.sites[3].key.ID(), w.sites[4].key.ID()})
		pass(5 * time.Minute)
		if a, b := w.sites[0].Status().Round, w.sites[4].Status().Round; b >= a {
			t.Errorf("the minority is at round %d, the majority at %d", b, a)
		}
		w.bus.Heal()
		until(t, 10*time.Minute, "all sites on one model", func() bool {
			st := w.sites[0].Status()
			return st.Round > 5 && !slices.ContainsFunc(w.sites, func(s *site) bool { return s.Status().Hash != st.Hash })
		})
		if c := w.sites[4].steps("caught-up"); len(c) == 0 {
			t.Error("the minority never caught up from another site")
		}
	})
}

func TestRestartKeepsSequenceAndModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, lan, nil)
		defer w.close()
		if _, err := w.sites[0].Publish(t.Context(), indicator("203.0.113.1")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.sites[0].StartRound(t.Context()); err != nil {
			t.Fatal(err)
		}
		until(t, 30*time.Second, "round 1", func() bool { return w.at(1) })
		hash := w.sites[0].Status().Hash
		w.sites[0].stop()
		w.start(w.sites[0])
		pass(time.Second)
		if got := w.sites[0].Status(); got.Hash != hash || got.Round != 1 || got.Live != 1 {
			t.Errorf("after the restart: %+v, expected round 1, %s, one indicator", got, hash)
		}
		if _, err := w.sites[0].Publish(t.Context(), indicator("203.0.113.2")); err != nil {
			t.Fatal(err)
		}
		pass(100 * time.Millisecond)
		for _, s := range w.sites[1:] {
			if n := s.effects(federation.Enforce); n != 2 {
				t.Errorf("%s: %d enforced, expected both; refused: %v", s.name, n, s.Status().Refused)
			}
			for _, r := range []wire.Reason{wire.Replayed, wire.Equivocation} {
				if n := s.Status().Refused[r]; n != 0 {
					t.Errorf("%s refused %d as %s", s.name, n, r)
				}
			}
		}
	})
}

func TestSoloSite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trainer{target: 1, took: time.Second}
		m, err := federation.New(federation.Options{Site: "alone", Key: key(t, 1), Trainer: tr, Schema: schema, ParamDim: dim})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()
		if _, err := m.Publish(ctx, indicator("203.0.113.1")); err != nil {
			t.Fatal(err)
		}
		if a, err := m.Ask(ctx, "203.0.113.1"); err != nil || len(a) != 0 {
			t.Errorf("ask: %v, %v; expected nobody to answer", a, err)
		}
		if _, err := m.StartRound(ctx); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		if st := m.Status(); st.Round != 1 || st.Sites != 1 || !strings.Contains(st.Preset, "f = 0") {
			t.Errorf("status %+v, expected round 1 of a solo site", st)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := m.Run(t.Context()); err == nil {
			t.Error("a member ran twice")
		}
	})
}

func TestOptionsAreNamed(t *testing.T) {
	a, b := key(t, 1), key(t, 2)
	two := []federation.Site{{Name: "a", ID: a.ID()}, {Name: "b", ID: b.ID()}}
	for want, opt := range map[string]federation.Options{
		"key":         {Site: "a"},
		"site":        {Key: a},
		"transport":   {Site: "a", Key: a, Roster: two},
		"roster":      {Site: "x", Key: a, Roster: two},
		"id that no":  {Site: "a", Key: a, Roster: append(slices.Clone(two), federation.Site{Name: "b", ID: key(t, 3).ID()})},
		"peer id":     {Site: "a", Key: a, Roster: []federation.Site{{Name: "b", ID: "nonsense"}}},
		"param dim":   {Site: "a", Key: a, Trainer: &trainer{}, Schema: "s"},
		"init":        {Site: "a", Key: a, Trainer: &trainer{}, Schema: "s", ParamDim: 3, Init: make([]float32, 2)},
		"schema":      {Site: "a", Key: a, Trainer: &trainer{}, ParamDim: 3},
		"round: rule": {Site: "a", Key: a, Trainer: &trainer{}, Schema: "s", ParamDim: 3, Rule: robust.Spec{Rule: robust.NameMean, Clip: -1}},
	} {
		if _, err := federation.New(opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected an error with %q", err, want)
		}
	}
}

// TestFloodIsNotRead: above its author's budget a message is refused before anything
// of it is read, and no event tells of it.
func TestFloodIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, lan, nil)
		defer w.close()
		from, at := w.sites[1].key, w.sites[0]
		hear := func(raw []byte) federation.Verdict {
			return federation.HandlerOf(at.Member).Receive(t.Context(), federation.TopicIntel, from.ID(), raw)
		}
		const burst = 50
		for i := range burst {
			msg, err := wire.Seal(from, uint64(100+i), time.Now(), &wire.Withdrawal{ID: strings.Repeat("0a", 16)})
			if err != nil {
				t.Fatal(err)
			}
			hear(msg.Raw)
		}
		before := len(at.events())
		if v := hear([]byte("nothing that could be read")); v != federation.Ignore {
			t.Errorf("above its budget: verdict %v, expected to be ignored", v)
		}
		pass(time.Second)
		if r := at.Status().Refused; r[wire.OverBudget] != 1 || r[wire.Malformed] != 0 || len(at.events()) != before {
			t.Errorf("refused %v, %d events more", r, len(at.events())-before)
		}
		if v := hear([]byte("nothing that could be read")); v != federation.Reject || at.Status().Refused[wire.Malformed] != 1 {
			t.Errorf("a second later it is read again: verdict %v, refused %v", v, at.Status().Refused)
		}
	})
}
