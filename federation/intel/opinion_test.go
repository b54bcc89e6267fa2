package intel

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// TestTheFirstToArriveIsNoEcho: a liar that copies the evidence of an honest word and
// dates its own earlier does not make the honest one an echo.
func TestTheFirstToArriveIsNoEcho(t *testing.T) {
	w := newTown(t, 10)
	show := func(ind *wire.Indicator) { ind.EvidenceHash = hash("what o1 met") }
	w.says(site(1, 1), victim, show)
	honest := w.now
	w.now = honest.Add(-24 * time.Hour) // the liar's clock
	forged := claim(site(2, 1), victim, w.now, 48*time.Hour)
	forged.Score, forged.Confidence = 0.9, 0.9
	show(forged)
	m := message(site(2, 1), 1, w.now, forged)
	w.now = honest
	w.s.Step(w.now, m, Gossip)
	key := corroborates(target(t, victim))
	for _, again := range []bool{false, true} {
		if again { // who repeats its word keeps its place
			w.now = w.now.Add(time.Minute)
			w.says(site(1, 1), victim, show)
		}
		if ops := w.s.opinions(w.now, key, hosts); len(ops) != 1 || ops[0].org != "o1" {
			t.Errorf("repeated %v: opinions %+v, expected that of o1 alone", again, ops)
		}
	}
}

// TestArrivalSurvives: whose evidence came first is known after a restart too, whatever
// the order of the authors' names.
func TestArrivalSurvives(t *testing.T) {
	keys := make([]*identity.Key, 2)
	for i := range keys {
		k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{byte(i + 1)}, 32)))
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k
	}
	all := func(identity.ID) bool { return true }
	for first := range keys {
		cfg := Config{Trust: NewTrust(TrustConfig{
			Org: func(id identity.ID) (string, bool) { return string(id), true }, Orgs: func() int { return 7 },
		})}
		s := New(cfg)
		for _, k := range []*identity.Key{keys[first], keys[1-first]} {
			ind := claim(k.ID(), victim, epoch, time.Hour)
			ind.Score, ind.Confidence, ind.EvidenceHash = 0.9, 0.9, hash("the same")
			m, err := wire.Seal(k, 1, epoch, ind)
			if err != nil {
				t.Fatal(err)
			}
			s.Step(epoch, m, Pulled)
		}
		b, err := s.Snapshot(false)
		if err != nil {
			t.Fatal(err)
		}
		back := New(cfg)
		if n, err := back.Restore(b, epoch, all); err != nil || n != 0 {
			t.Fatalf("%d dropped, %v", n, err)
		}
		if ops := back.opinions(epoch, corroborates(target(t, victim)), hosts); len(ops) != 1 || ops[0].org != string(keys[first].ID()) {
			t.Errorf("opinions %+v, expected that of %s alone", ops, keys[first].ID())
		}
	}
}

// TestNobodyRidesOnA64: addresses of one /64 support each other, and nothing else: no
// network around them, and no word that does not count itself.
func TestNobodyRidesOnA64(t *testing.T) {
	const bystander, whole = "2001:db8::bad", "2001:db8::/64"
	for name, lie := range map[string]func(w *town) string{
		"a wider network": func(w *town) string {
			w.says(site(4, 1), whole, nil)
			return whole
		},
		"a smaller network": func(w *town) string {
			w.says(site(4, 1), "2001:db8::b00/120", nil)
			return "2001:db8::b00/120"
		},
		"forged sources": func(w *town) string {
			w.says(site(4, 1), bystander, func(i *wire.Indicator) { i.Evidence = wire.Spoofable })
			return bystander
		},
		"an echo": func(w *town) string {
			w.says(site(4, 1), bystander, func(i *wire.Indicator) { i.EvidenceHash = hash(site(1, 1), "2001:db8::1") })
			return bystander
		},
		"an organisation of bad standing": func(w *town) string {
			for i := range 8 {
				w.s.cfg.Trust.cost(w.now, "o4", wire.Target{Port: uint16(i)})
			}
			w.says(site(4, 1), bystander, nil)
			return bystander
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t, 7)
			w.s.Saw(w.now, target(t, "2001:db8::1"), w.now.Add(time.Hour))
			for o := 1; o <= 3; o++ {
				w.says(site(o, 1), fmt.Sprintf("2001:db8::%d", o), nil)
			}
			value := lie(w)
			w.says(site(5, 1), "2001:db8::5", nil) // all are judged once more
			if w.most["2001:db8::5"] != Enforce {
				t.Fatalf("an honest word: %v, expected a block", w.most["2001:db8::5"])
			}
			if got := w.most[value]; got != 0 {
				t.Errorf("%s on one organisation's word: %v, expected nothing", value, got)
			}
		})
	}
	w := newTown(t, 7)
	for o := 1; o <= 3; o++ {
		w.says(site(o, 1), whole, nil)
	}
	w.says(site(4, 1), bystander, nil)
	if w.most[whole] != Enforce || w.most[bystander] != Enforce {
		t.Errorf("three organisations met all of the /64: %v, an address of it %v", w.most[whole], w.most[bystander])
	}
}

// TestOneWordLessKeepsTheBlock: when one of more than enough words stops counting, what
// the others say stays enforced.
func TestOneWordLessKeepsTheBlock(t *testing.T) {
	w := newTown(t, 7)
	for o := 1; o <= 4; o++ {
		w.says(site(o, 1), victim, nil)
	}
	for i := range 8 {
		w.s.cfg.Trust.cost(w.now, "o4", wire.Target{Port: uint16(i)})
	}
	fx := w.s.reconsiderKey(w.now, corroborates(target(t, victim)))
	if len(fx) != 1 || fx[0].Op != Keep || fx[0].Author != site(4, 1) {
		t.Errorf("%+v, expected that the word of o4 alone is kept without effect", fx)
	}
}

// TestInnocentHere: a value that a person calls innocent is not enforced on the word of
// others, who lose by it; its neighbours of the /64 are judged without it, and all of
// that outlasts a restart.
func TestInnocentHere(t *testing.T) {
	const one, other = "2001:db8::1", "2001:db8::2"
	w := newTown(t, 7)
	w.s.Knows(w.now, target(t, one), w.now.Add(time.Hour))
	for round := range 2 {
		for o := 1; o <= 3; o++ {
			w.says(site(o, 1), one, nil)
		}
		w.says(site(4, 1), other, nil)
		if w.most[one] != 0 || w.most[other] != 0 {
			t.Fatalf("round %d: %v and %v: expected nothing", round, w.most[one], w.most[other])
		}
		if bad, fair := w.s.Standing(w.now, "o1"), w.s.Standing(w.now, "o4"); bad >= repFloor || fair != 0.5 {
			t.Errorf("round %d: o1 stands at %.2f, and o4, which spoke of another address, at %.2f", round, bad, fair)
		}
		b, err := w.s.TrustSnapshot()
		if err != nil {
			t.Fatal(err)
		}
		w = newTown(t, 7)
		if err := w.s.RestoreTrust(b); err != nil {
			t.Fatal(err)
		}
	}
	w = newTown(t, 7)
	for o := 1; o <= 3; o++ {
		w.says(site(o, 1), one, nil)
	}
	lifts := 0
	for _, e := range w.s.Knows(w.now, target(t, one), w.now.Add(time.Hour)) {
		if e.Op == Lift {
			lifts++
		}
	}
	if lifts != 3 {
		t.Errorf("%d of 3 words lifted", lifts)
	}
}
