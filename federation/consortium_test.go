package federation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/council"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// orgOf is the organisation of a site of a consortium under test: sites 0 and 7
// are of the same.
func orgOf(i int) string { return fmt.Sprintf("org%d", i%7) }

// roll is the consortium of w's sites as one organisation sees it.
func (w *world) roll(self string, standing func(i int) string) federation.Roll {
	var r federation.Roll
	for i, s := range w.roster {
		if standing(i) == "" {
			continue
		}
		if orgOf(i) != self {
			s.Organisation, s.Standing, s.Name = orgOf(i), standing(i), "gate"
			r.Others = append(r.Others, s)
		}
		m := chain.Member{Org: orgOf(i), Voter: s.ID}
		switch {
		case i >= 7:
		case standing(i) == federation.StandingCounted:
			r.Counted = append(r.Counted, m)
		default:
			r.Observers = append(r.Observers, m)
		}
	}
	return r
}

func counted(int) string { return federation.StandingCounted }

// newConsortium starts n sites of seven organisations.
func newConsortium(t *testing.T, n int, standing func(i int) string, tune func(i int, o *federation.Options)) *world {
	t.Helper()
	w := &world{}
	return newWorldIn(t, w, n, lan, func(o *federation.Options) {
		i := slices.IndexFunc(w.roster, func(s federation.Site) bool { return s.Name == o.Site })
		o.Roster = slices.DeleteFunc(slices.Clone(w.roster), func(s federation.Site) bool {
			return orgOf(slices.IndexFunc(w.roster, func(x federation.Site) bool { return x.ID == s.ID })) != orgOf(i)
		})
		o.Consortium = &federation.Consortium{Organisation: orgOf(i), Roll: w.roll(orgOf(i), standing), Keep: 3}
		o.RoundEvery, o.DeltaDeadline = 10*time.Second, 5*time.Second
		if g, err := federation.NewGenesis("grove", schema, make([]float32, dim), o.Consortium.Roll.Counted); err == nil {
			o.Consortium.Genesis = g
		} else if !errors.Is(err, robust.ErrVoid) {
			t.Fatal(err)
		}
		if tune != nil {
			tune(i, o)
		}
	})
}

// quietly has rounds so seldom that there are none.
func quietly(_ int, o *federation.Options) { o.RoundEvery = 24 * time.Hour }

// same says whether the sites agree on the final model of a height.
func (w *world) same(height uint64) bool {
	first := w.sites[0].Status()
	for _, s := range w.sites {
		st := s.Status()
		if st.Height < height || st.Hash != first.Hash {
			return false
		}
	}
	return true
}

func (w *world) audit(s *site) (found []chain.Finding, err error) {
	g, err := federation.NewGenesis("grove", schema, make([]float32, dim), w.roll("", counted).Counted)
	if err != nil {
		w.t.Fatal(err)
	}
	combine, err := federation.Combine(g)
	if err != nil {
		w.t.Fatal(err)
	}
	src := federation.Archive{Storage: s.store, Chain: g.Hash()}
	err = chain.Audit(*g, chain.Ed25519{}, combine, src, func(f chain.Finding) { found = append(found, f) })
	return found, err
}

// TestConsortiumRounds: sites of seven organisations make one model after the other;
// one that poisons its changes moves nothing, a second site of an organisation
// follows, one that was killed comes back, and the chain on every disk recomputes.
func TestConsortiumRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newConsortium(t, 8, counted, func(i int, o *federation.Options) {
			o.Consortium.Keep = 1000
			if i == 6 { // it drags every parameter away, as far as may be
				o.Trainer.(*trainer).target = -1000
			}
		})
		defer w.close()
		until(t, 10*time.Minute, "four models in a row", func() bool { return w.same(4) })
		_, _, params := w.sites[0].Model()
		if len(params) != dim || params[0] < 0.3 || params[0] > 4 {
			t.Errorf("model %v: six honest organisations pull towards 0 to 5, one towards -1000", params)
		}
		w.sites[3].stop()
		pass(time.Minute)
		w.start(w.sites[3])
		until(t, 5*time.Minute, "who was away is back", func() bool { return w.same(8) })
		for _, s := range []*site{w.sites[0], w.sites[7]} {
			found, err := w.audit(s)
			if err != nil || len(found) < 8 || !found[len(found)-1].Recomputed && s == w.sites[0] {
				t.Errorf("audit at %s: %d blocks, %v", s.name, len(found), err)
			}
		}
		if n := len(w.sites[7].steps(council.Committed)); n != 0 {
			t.Errorf("the second site of an organisation committed %d times: one voting site each", n)
		}
		if len(w.sites[7].trainer.adopted) == 0 {
			t.Error("the second site's gate was never offered a model")
		}
		if s := w.sites[0].Status(); s.Counted != 7 || !strings.Contains(s.Preset, "geometric-median+mask") {
			t.Errorf("status %+v", s)
		}
	})
}

// TestTooFewForRounds: six organisations share indicators and learn each alone.
func TestTooFewForRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newConsortium(t, 7, func(i int) string {
			if i == 6 {
				return "observer"
			}
			return federation.StandingCounted
		}, nil)
		defer w.close()
		pass(2 * time.Minute)
		for _, s := range w.sites {
			if st := s.Status(); st.Height != 0 || st.Round != 0 || st.Counted != 6 {
				t.Errorf("%s: %+v", s.name, st)
			}
		}
		said(t, w, 6, "203.0.113.66", wire.TLPGreen)
		pass(time.Second)
		if w.sites[0].effects(federation.Refused) != 1 {
			t.Errorf("an observer's word: %+v", w.sites[0].events())
		}
	})
}

// said publishes an indicator of a site on its own evidence.
func said(t *testing.T, w *world, i int, value string, tlp wire.TLP) string {
	t.Helper()
	ind := indicator(value)
	ind.TLP, ind.EvidenceHash = tlp, wire.Hash{byte(i + 1), 7}
	id, err := w.sites[i].Publish(t.Context(), ind)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestWordsOfOthersClimbTheLadder follows one value from the first organisation's
// word to the third's and back, at a site of a fourth.
func TestWordsOfOthersClimbTheLadder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const value = "203.0.113.9"
		w := newConsortium(t, 8, counted, quietly)
		defer w.close()
		pass(time.Second)
		at := w.sites[5]
		last := func() federation.Effect { evs := at.events(); return evs[len(evs)-1].Effect }
		said(t, w, 1, value, wire.TLPGreen)
		pass(time.Second)
		if e := at.events(); len(e) != 1 || e[0].Effect != federation.Observe || e[0].From != "org1" || e[0].Author != "org1/gate" {
			t.Fatalf("one organisation: %+v", e)
		}
		said(t, w, 2, value, wire.TLPGreen)
		pass(time.Second)
		if last() != federation.Limit {
			t.Fatalf("two organisations: %+v", at.events())
		}
		id := said(t, w, 3, value, wire.TLPGreen)
		pass(time.Second)
		if at.effects(federation.Enforce) != 3 {
			t.Fatalf("three organisations: %+v", at.events())
		}
		if err := w.sites[3].Withdraw(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if last() != federation.Limit {
			t.Fatalf("one took it back: %+v", at.events())
		}
		// The second site of org0 has the first one's word, and is believed.
		said(t, w, 0, "203.0.113.10", wire.TLPAmber)
		pass(time.Second)
		if got := w.sites[7].events(); got[len(got)-1].Effect != federation.Enforce || got[len(got)-1].From != "" {
			t.Errorf("our own site's word: %+v", got)
		}
	})
}

// TestAmberStaysHome: what is marked for its organisation reaches its sites and no
// other, by gossip and by pulls.
func TestAmberStaysHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newConsortium(t, 8, counted, quietly)
		defer w.close()
		pass(time.Second)
		said(t, w, 0, "203.0.113.20", wire.TLPAmber)
		id := said(t, w, 0, "203.0.113.21", wire.TLPGreen)
		pass(2 * time.Minute) // pulls of all kinds
		if err := w.sites[0].Withdraw(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		for i, s := range w.sites[1:] {
			seen := map[string]bool{}
			for _, e := range s.events() {
				seen[e.Indicator.Value] = true
			}
			if seen["203.0.113.20"] != (i+1 == 7) || !seen["203.0.113.21"] {
				t.Errorf("%s heard of %v", s.name, seen)
			}
			if n := len(s.Indicators()); n != len(seen)-1 {
				t.Errorf("%s: %d in force after the withdrawal", s.name, n)
			}
		}
	})
}

// placed is a transport whose peers are met at given addresses.
type placed struct {
	federation.Transport
	at func(identity.ID) string
}

type placedHandler struct {
	federation.Handler
	at func(identity.ID) string
}

func (p placed) Run(ctx context.Context, h federation.Handler) error {
	return p.Transport.Run(ctx, placedHandler{h, p.at})
}

func (h placedHandler) PeerChanged(p federation.PeerInfo) {
	p.Addr = h.at(p.ID)
	h.Handler.PeerChanged(p)
}

// TestGuardsOfTheConsortium: no word of others touches what this site guards, nor an
// address at which a member of a counted organisation was met. To declare an address
// shelters nothing, and an observer shelters nothing at all.
func TestGuardsOfTheConsortium(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		observes := func(i int) string {
			if i == 6 {
				return "observing"
			}
			return federation.StandingCounted
		}
		w := newConsortium(t, 7, observes, func(_ int, o *federation.Options) {
			addr := map[identity.ID]string{}
			for i := range o.Consortium.Roll.Others {
				s := &o.Consortium.Roll.Others[i]
				addr[s.ID] = "/ip4/198.51.100.77/tcp/4400"
				s.Addrs = []string{addr[s.ID], "/ip4/198.51.100.78/tcp/4400"}
				if s.Standing != federation.StandingCounted {
					addr[s.ID] = "/ip4/198.51.100.79/tcp/4400"
					s.Addrs = []string{addr[s.ID]}
				}
			}
			o.Transport = placed{o.Transport, func(id identity.ID) string { return addr[id] }}
			o.Consortium.Spared = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")} }
		})
		defer w.close()
		pass(time.Second)
		for _, v := range []string{"198.51.100.77", "198.51.100.78", "198.51.100.79", "192.0.2.3"} {
			said(t, w, 1, v, wire.TLPGreen)
		}
		pass(time.Second)
		refused := map[string]bool{}
		for _, e := range w.sites[2].events() {
			refused[e.Indicator.Value] = e.Effect == federation.Refused
		}
		want := map[string]bool{"198.51.100.77": true, "198.51.100.78": false, "198.51.100.79": false, "192.0.2.3": true}
		if !maps.Equal(refused, want) {
			t.Errorf("refused: %v, expected %v", refused, want)
		}
		if s := w.sites[2].Standings()["org1"]; s != 0.5 {
			t.Errorf("who spoke of a member's address stands at %.2f", s)
		}
		said(t, w, 1, "198.41.0.4", wire.TLPGreen)
		pass(time.Second)
		if r := w.sites[2].Status().Refused; r[wire.Guarded] != 1 || r[wire.Spared] != 2 {
			t.Errorf("refused %v, expected one of what nobody may block, and two of what is spared here", r)
		}
		before := w.sites[2].Standings()
		w.sites[2].stop()
		w.start(w.sites[2])
		pass(time.Second)
		if after := w.sites[2].Standings(); before["org1"] >= 0.5 || before["org3"] != 0.5 || math.Abs(after["org1"]-before["org1"]) > 0.01 {
			t.Errorf("standing %v, after a restart %v: expected org1's to have fallen for good", before, after)
		}
	})
}

// TestWhoLeavesIsForgotten: after a roll without it an organisation's words count no
// longer, it is not heard, and the rounds go on without it.
func TestWhoLeavesIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newConsortium(t, 7, counted, nil)
		defer w.close()
		until(t, 5*time.Minute, "a first model", func() bool { return w.same(1) })
		said(t, w, 6, "203.0.113.30", wire.TLPGreen)
		pass(time.Second)
		for i, s := range w.sites[:6] {
			s.SetRoll(w.roll(orgOf(i), func(i int) string {
				if i == 6 {
					return ""
				}
				return federation.StandingCounted
			}))
		}
		pass(time.Second)
		if n := len(w.sites[0].Indicators()); n != 0 {
			t.Errorf("%d indicators of who left", n)
		}
		said(t, w, 6, "203.0.113.31", wire.TLPGreen)
		pass(100 * time.Second)
		st := w.sites[0].Status()
		if len(w.sites[0].Indicators()) != 0 || st.Refused[wire.NotMember] == 0 || st.Counted != 6 {
			t.Errorf("%+v", st)
		}
		if len(w.sites[0].steps(council.Changed)) != 1 {
			t.Error("the roster in the chain did not follow")
		}
		if st.Height < 4 || !strings.Contains(st.Preset, "over 6 organisations") {
			t.Errorf("height %d, %s", st.Height, st.Preset)
		}
	})
}

// TestLostMemoryDoesNotSign: a site whose state is damaged does not begin anew
// under its old key.
func TestLostMemoryDoesNotSign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newConsortium(t, 7, counted, nil)
		defer w.close()
		until(t, 5*time.Minute, "a first model", func() bool { return w.same(1) })
		s := w.sites[4]
		s.stop()
		for _, k := range s.store.Keys() {
			if strings.HasPrefix(k, "federation/council/") {
				if err := s.store.Save(k, []byte("damaged")); err != nil {
					t.Fatal(err)
				}
			}
		}
		opt := federation.Options{
			Site: s.name, Key: s.key, Transport: w.bus.Join(s.key.ID()), Storage: s.store, Trainer: s.trainer, Schema: schema, ParamDim: dim,
		}
		w.tune(&opt)
		if _, err := federation.New(opt); !errors.Is(err, council.ErrSnapshot) {
			t.Errorf("%v, expected council.ErrSnapshot", err)
		}
	})
}

// TestStrangersOnSharedTopics: who is in no roster is not heard, and who forwards it
// is not blamed.
func TestStrangersOnSharedTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newConsortium(t, 7, counted, nil)
		defer w.close()
		k := key(t, 99)
		h := federation.HandlerOf(w.sites[0].Member)
		for topic, p := range map[federation.Topic]wire.Payload{
			federation.TopicCouncil: &wire.Wish{Round: 2, High: 1, Height: 1, Hash: wire.Hash{1}},
			federation.TopicCommons: &wire.Withdrawal{ID: strings.Repeat("0a", 16)},
		} {
			msg, err := wire.Seal(k, 1, time.Now(), p)
			if err != nil {
				t.Fatal(err)
			}
			if v := h.Receive(context.Background(), topic, k.ID(), msg.Raw); v != federation.Ignore {
				t.Errorf("%s: verdict %v, expected to be ignored", topic, v)
			}
		}
		if n := w.sites[0].Status().Refused[wire.NotMember]; n != 2 {
			t.Errorf("%d refused, expected 2", n)
		}
	})
}

// TestReplayAfterRestart: what a site of another organisation said and took back is not
// believed again when somebody brings it after a restart, whoever that is.
func TestReplayAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newConsortium(t, 7, counted, quietly)
		defer w.close()
		pass(time.Second)
		author := w.sites[1]
		ind := indicator("203.0.113.40")
		ind.ID = wire.IndicatorID(author.key.ID(), ind.Type, ind.Value)
		ind.TLP, ind.EvidenceHash = wire.TLPGreen, wire.Hash{9}
		ind.First, ind.Last, ind.Expires = time.Now(), time.Now(), time.Now().Add(time.Hour)
		var said [][]byte
		for seq, p := range []wire.Payload{&ind, &wire.Withdrawal{ID: ind.ID}} {
			msg, err := wire.Seal(author.key, uint64(1000+seq), time.Now(), p)
			if err != nil {
				t.Fatal(err)
			}
			said = append(said, msg.Raw)
		}
		at := w.sites[4]
		hear := func(raw []byte) federation.Verdict {
			return federation.HandlerOf(at.Member).Receive(t.Context(), federation.TopicCommons, author.key.ID(), raw)
		}
		if hear(said[0]) != federation.Accept || hear(said[1]) != federation.Accept {
			t.Fatalf("refused: %v", at.Status().Refused)
		}
		pass(5 * time.Second) // it is stored
		at.stop()
		w.start(at)
		pass(time.Second)
		before := len(at.events())
		for _, raw := range said {
			if v := hear(raw); v != federation.Ignore {
				t.Errorf("a replay: verdict %v, expected to be ignored", v)
			}
		}
		r := at.Status().Refused
		if len(at.events()) != before || len(at.Indicators()) != 0 || r[wire.Replayed]+r[wire.Duplicate] != 2 {
			t.Errorf("%d events more, refused %v", len(at.events())-before, r)
		}
	})
}
