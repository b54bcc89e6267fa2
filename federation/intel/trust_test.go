package intel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// town is a site among organisations o1, o2, ... whose sites are named
// "o1/1", "o1/2" and so on; ours are "o0/...".
type town struct {
	t    testing.TB
	s    *Set
	now  time.Time
	seq  map[identity.ID]uint64
	most map[string]Op // the highest rung that each value ever reached
}

func newTown(t testing.TB, orgs int) *town {
	own := netip.MustParsePrefix("198.51.100.0/24")
	tr := NewTrust(TrustConfig{
		Org: func(id identity.ID) (string, bool) {
			org, _, _ := strings.Cut(string(id), "/")
			if org == "o0" {
				org = ""
			}
			return org, org != "observer"
		},
		Orgs:    func() int { return orgs },
		Members: func() []netip.Prefix { return []netip.Prefix{own} },
	})
	return &town{t: t, s: New(Config{Self: "o0/1", Trust: tr, Rate: 1e6, Burst: 1e6}), now: epoch, seq: make(map[identity.ID]uint64), most: make(map[string]Op)}
}

// hash is evidence that nobody else has.
func hash(parts ...any) (h wire.Hash) {
	for i, b := range []byte(fmt.Sprint(parts...)) {
		h[(7*i)%32] = 31*h[(7*i)%32] + b
	}
	h[0] |= 1
	return h
}

// says brings one word of a site and notes what follows.
func (w *town) says(site identity.ID, value string, f func(*wire.Indicator)) []Effect {
	ind := claim(site, value, w.now, time.Hour)
	ind.Score, ind.Confidence, ind.EvidenceHash = 0.9, 0.9, hash(site, value)
	if f != nil {
		f(ind)
	}
	w.seq[site]++
	fx := w.s.Step(w.now, message(site, w.seq[site], w.now, ind), Gossip)
	for _, e := range fx {
		w.note(e)
	}
	return fx
}

func (w *town) note(e Effect) {
	if e.Indicator == nil || (e.Op != Enforce && e.Op != Limit) {
		return
	}
	if v := e.Indicator.Value; w.most[v] != Enforce {
		w.most[v] = e.Op
	}
}

func site(org, n int) identity.ID { return identity.ID(fmt.Sprintf("o%d/%d", org, n)) }

func dispute(ind *wire.Indicator) { ind.Stance = wire.Disputes }

const victim = "203.0.113.9"

func target(t testing.TB, value string) wire.Target {
	t.Helper()
	x, err := wire.ParseValue(wire.TypeAddress, value)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestLadderTable prints the ladder and holds docs/trust.md to it.
func TestLadderTable(t *testing.T) {
	names := map[Op]string{Observe: "observe", Limit: "rate-limit", Enforce: "drop"}
	var b strings.Builder
	b.WriteString("| organisations that say so | of 4 | of 7 | of 10 | of 20 | of 50 |\n|---|---|---|---|---|---|\n")
	for _, k := range []int{1, 2, 3, 4, 7, 16, 17} {
		for _, local := range []bool{false, true} {
			if local && k > 1 {
				continue
			}
			fmt.Fprintf(&b, "| %d%s |", k, map[bool]string{true: " and a sighting here"}[local])
			for _, n := range []int{4, 7, 10, 20, 50} {
				rung := names[Rung(k, n, local)]
				if k > n {
					rung = "-"
				}
				fmt.Fprintf(&b, " %s |", rung)
			}
			b.WriteString("\n")
		}
	}
	doc, err := os.ReadFile("../../docs/trust.md")
	if err != nil || !strings.Contains(string(doc), b.String()) {
		t.Errorf("docs/trust.md (%v) lacks this table:\n%s", err, b.String())
	}
	for n := 1; n <= 100; n++ {
		if Rung(Liars(n), n, true) == Enforce {
			t.Errorf("among %d organisations %d liars block", n, Liars(n))
		}
	}
}

func TestTrustRungs(t *testing.T) {
	w := newTown(t, 7)
	w.says(site(1, 1), victim, nil)
	if w.most[victim] != 0 {
		t.Fatalf("one organisation: %v", w.most[victim])
	}
	w.says(site(2, 1), victim, nil)
	if w.most[victim] != Limit {
		t.Fatalf("two organisations: %v", w.most[victim])
	}
	fx := w.says(site(3, 1), victim, nil)
	if w.most[victim] != Enforce || len(fx) != 3 {
		t.Fatalf("three organisations: %+v", fx)
	}
	w.now = w.now.Add(time.Hour)
	lifts := 0
	for _, e := range w.s.Tick(w.now) {
		if e.Op == Lift {
			lifts++
		}
	}
	if lifts == 0 || w.s.Len() != 0 {
		t.Errorf("%d lifts, %d words left after all expired", lifts, w.s.Len())
	}
}

// TestOwnOrganisationIsBelieved: direct trust needs nobody else.
func TestOwnOrganisationIsBelieved(t *testing.T) {
	w := newTown(t, 7)
	w.says(site(0, 2), victim, nil)
	if w.most[victim] != Enforce {
		t.Errorf("a site of ours: %v", w.most[victim])
	}
}

func TestLocalSightingRaises(t *testing.T) {
	w := newTown(t, 7)
	w.says(site(1, 1), victim, nil)
	fx := w.s.Saw(w.now, target(t, victim), w.now.Add(time.Hour))
	if len(fx) != 1 || fx[0].Op != Limit {
		t.Fatalf("a sighting here: %+v", fx)
	}
	if got := w.s.cfg.Trust.Reputation(w.now, "o1"); got <= 0.5 {
		t.Errorf("standing %g after this site saw it too, expected more than 0.5", got)
	}
	fx = w.s.Knows(w.now, target(t, victim), w.now.Add(time.Hour))
	if len(fx) != 1 || fx[0].Op != Lift {
		t.Fatalf("known to be innocent here: %+v", fx)
	}
	if got := w.s.cfg.Trust.Reputation(w.now, "o1"); got >= 0.5 {
		t.Logf("standing %g", got) // one value settles once: the first settlement stands
	}
}

// TestLiarsBlockNobody plays each lie of the research with a third of ten
// organisations lying, each with a hundred sites, for a week. The victim is never
// blocked; a real attacker that four honest organisations saw is.
func TestLiarsBlockNobody(t *testing.T) {
	const orgs, liars = 10, 3
	for name, lie := range map[string]func(w *town, org, n int){
		"forged sources": func(w *town, org, n int) {
			for o := 1; o < orgs; o++ { // forged packets make honest organisations say so too
				w.says(site(o, n), victim, func(i *wire.Indicator) { i.Evidence = wire.Spoofable })
			}
		},
		"false flag": func(w *town, org, n int) { w.says(site(org, n), victim, nil) },
		"ballot stuffing": func(w *town, org, n int) {
			for o := 1; o <= liars; o++ { // they praise each other's inventions, to be believed later
				w.says(site(o, n), fmt.Sprintf("192.0.2.%d", n%250+1), nil)
			}
			w.says(site(org, n), victim, nil)
		},
		"echo": func(w *town, org, n int) {
			for o := 1; o < orgs; o++ {
				w.says(site(o, n), victim, func(i *wire.Indicator) { i.EvidenceHash = wire.Hash{7} })
			}
		},
		"no evidence": func(w *town, org, n int) {
			for o := 1; o < orgs; o++ {
				w.says(site(o, n), victim, func(i *wire.Indicator) { i.EvidenceHash = wire.Hash{} })
			}
		},
		"operators": func(w *town, org, n int) {
			for o := 1; o < orgs; o++ {
				w.says(site(o, n), victim, func(i *wire.Indicator) { i.Evidence = wire.Operator })
			}
		},
		"observers": func(w *town, org, n int) { w.says(identity.ID(fmt.Sprint("observer/", n)), victim, nil) },
		"bad-mouthing": func(w *town, org, n int) {
			w.says(site(org, n), "198.18.0.7", dispute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t, orgs)
			for n := range 100 {
				for org := 1; org <= liars; org++ {
					lie(w, org, n)
				}
				w.now = w.now.Add(7 * 24 * time.Hour / 100)
				w.s.Tick(w.now)
			}
			for o := liars + 1; o <= liars+4; o++ {
				w.says(site(o, 1), "198.18.0.7", nil)
			}
			if w.most[victim] == Enforce {
				t.Error("the victim was blocked")
			}
			if w.most["198.18.0.7"] != Enforce {
				t.Errorf("an attacker that four honest organisations saw: %v, expected a block", w.most["198.18.0.7"])
			}
			for o := 1; o <= liars; o++ {
				if rep := w.s.cfg.Trust.Reputation(w.now, fmt.Sprint("o", o)); rep > 0.5 {
					t.Errorf("liar %d stands at %.2f: lies earned", o, rep)
				}
			}
		})
	}
}

// TestLiarsAtRandom lets the liars say anything in any order, withdraw, change
// their evidence and sound like honest ones for a time.
func TestLiarsAtRandom(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		orgs := 4 + r.IntN(27)
		w := newTown(t, orgs)
		liars := Liars(orgs)
		for range 300 {
			by := site(1+r.IntN(max(liars, 1)), r.IntN(5))
			value := []string{victim, "2001:db8::7", "203.0.113.0/24", "203.0.113.9 tcp/443"}[r.IntN(4)]
			w.says(by, value, func(i *wire.Indicator) {
				if strings.Contains(value, " ") {
					i.Type, i.ID = wire.TypeService, wire.IndicatorID(by, wire.TypeService, value)
				}
				i.Stance = []wire.Stance{wire.Claims, wire.Claims, wire.Sights, wire.Disputes}[r.IntN(4)]
				i.EvidenceHash = hash(r.IntN(20))
				i.Score, i.Confidence = r.Float64(), r.Float64()
			})
			if r.IntN(5) == 0 {
				w.says(site(liars+1+r.IntN(orgs-liars), 1), fmt.Sprintf("198.18.1.%d", 1+r.IntN(250)), nil)
			}
			w.now = w.now.Add(time.Duration(r.IntN(40)) * time.Minute)
		}
		for v, op := range w.most {
			if op == Enforce && !strings.HasPrefix(v, "198.18.") {
				t.Fatalf("seed %d: %d liars of %d organisations had %s blocked", seed, liars, orgs, v)
			}
		}
	}
}

// TestNotBlindControl: one organisation more than the liars' share does block.
func TestNotBlindControl(t *testing.T) {
	for _, orgs := range []int{4, 7, 10, 30} {
		w := newTown(t, orgs)
		for o := 1; o <= Drops(orgs); o++ {
			w.says(site(o, 1), victim, nil)
		}
		if w.most[victim] != Enforce {
			t.Errorf("%d of %d organisations: %v, expected a block", Drops(orgs), orgs, w.most[victim])
		}
	}
}

func TestGuards(t *testing.T) {
	w := newTown(t, 7)
	for value, reason := range map[string]wire.Reason{
		"198.51.100.7": wire.Spared, "198.51.100.0/24": wire.Spared, // of members
		"198.41.0.4": wire.Guarded, "193.0.14.0/24": wire.Guarded, "2001:7fd::1": wire.Guarded, "2001:7fd::/48": wire.Guarded,
		"199.7.91.13": wire.Guarded, "192.203.230.10": wire.Guarded,
	} {
		before := w.s.cfg.Trust.Reputation(w.now, "o3")
		last(t, w.says(site(3, 1), value, nil), Refuse, reason)
		if after := w.s.cfg.Trust.Reputation(w.now, "o3"); (after < before) != (reason == wire.Guarded) {
			t.Errorf("%s: standing went from %.2f to %.2f", value, before, after)
		}
	}
	if rep := w.s.cfg.Trust.Reputation(w.now, "o3"); rep >= repFloor {
		t.Errorf("standing %.2f after six such claims: expected less than %g, so that its word does not count", rep, repFloor)
	}
}

func TestStandingComesBack(t *testing.T) {
	tr := NewTrust(TrustConfig{})
	tr.cost(epoch, "x", wire.Target{})
	low := tr.Reputation(epoch, "x")
	late := tr.Reputation(epoch.Add(8*halfLife), "x")
	if low > 0.2 || late < 0.49 {
		t.Errorf("standing %.2f, and %.2f after 16 weeks", low, late)
	}
}

// TestForgetTheGone: words of an organisation that has left count no longer.
func TestForgetTheGone(t *testing.T) {
	w := newTown(t, 7)
	for o := 1; o <= 3; o++ {
		w.says(site(o, 1), victim, nil)
	}
	fx := w.s.Forget(w.now, func(org string) bool { return org == "o2" })
	ops := map[Op]int{}
	for _, e := range fx {
		ops[e.Op]++
	}
	if ops[Keep]+ops[Lift] != 3 || ops[Limit] != 2 || w.s.Len() != 2 {
		t.Errorf("%v, %d words left: expected its own gone and the other two lowered", fx, w.s.Len())
	}
}

// TestMarkedForUs: only what is marked for all goes to other organisations.
func TestMarkedForUs(t *testing.T) {
	w := newTown(t, 7)
	for i, tlp := range []wire.TLP{wire.TLPClear, wire.TLPGreen, wire.TLPAmber, wire.TLPAmberStrict} {
		w.says(site(0, 1), fmt.Sprintf("192.0.2.%d", i+1), func(i *wire.Indicator) { i.TLP = tlp })
	}
	w.says(site(3, 1), victim, func(i *wire.Indicator) { i.TLP = wire.TLPGreen })
	ours, _ := w.s.Missing(nil, false, 100, 1<<20)
	theirs, _ := w.s.Missing(nil, true, 100, 1<<20)
	if len(ours) != 5 || len(theirs) != 3 {
		t.Errorf("%d messages for our sites and %d for others: expected 5 and 3", len(ours), len(theirs))
	}
}

// TestStandingSurvives: what was earned and lost is there after a restart, and is not
// settled again by the same words.
func TestStandingSurvives(t *testing.T) {
	w := newTown(t, 7)
	for o := 1; o <= 3; o++ {
		w.says(site(o, 1), victim, nil)
	}
	w.says(site(5, 1), "198.41.0.4", nil) // guarded
	b, err := w.s.TrustSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	again := newTown(t, 7)
	if err := again.s.RestoreTrust(b); err != nil {
		t.Fatal(err)
	}
	for o := 1; o <= 3; o++ {
		again.says(site(o, 1), victim, nil)
	}
	for _, org := range []string{"o1", "o3", "o5", "o6"} {
		if a, b := w.s.Standing(w.now, org), again.s.Standing(w.now, org); math.Abs(a-b) > 1e-6 {
			t.Errorf("%s stood at %.3f, and stands at %.3f after a restart", org, a, b)
		}
	}
	if s := again.s.Standing(w.now, "o5"); s >= 0.5 {
		t.Errorf("who claimed what is guarded stands at %.3f", s)
	}
	for name, bad := range map[string][]byte{"empty": nil, "cut": b[:len(b)/2], "words": []byte("hello")} {
		if err := again.s.RestoreTrust(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzRestoreTrust(f *testing.F) {
	w := newTown(f, 7)
	for o := 1; o <= 3; o++ {
		w.says(site(o, 1), victim, nil)
	}
	b, err := w.s.TrustSnapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newTown(t, 7)
		if w.s.RestoreTrust(b) != nil {
			return
		}
		if s := w.s.Standing(w.now, "o1"); !(s >= 0 && s <= 1) {
			t.Fatalf("standing %g", s)
		}
		w.says(site(1, 1), victim, nil)
	})
}

func TestIPv6CorroboratesAt64(t *testing.T) {
	w := newTown(t, 7)
	for o := 1; o <= 3; o++ {
		w.says(site(o, 1), fmt.Sprintf("2001:db8::%d", o), nil)
	}
	for o := 1; o <= 3; o++ {
		if v := fmt.Sprintf("2001:db8::%d", o); w.most[v] != Enforce {
			t.Errorf("%s: %v, expected a block: three organisations met that /64", v, w.most[v])
		}
	}
	w.says(site(4, 1), "2001:db8:0:1::1", nil)
	if w.most["2001:db8:0:1::1"] != 0 {
		t.Error("another /64 was raised too")
	}
}

func TestWhatIf(t *testing.T) {
	w := newTown(t, 7)
	for o := 1; o <= 3; o++ {
		w.says(site(o, 1), victim, nil)
	}
	got := w.s.WhatIf(w.now, "o2")
	want := []Influence{
		{Level: Observe, Without: Observe, Lies: Observe},
		{Value: victim, Level: Enforce, Without: Limit, Lies: Enforce},
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%+v, expected %+v", got, want)
	}
	if three := w.s.WhatIf(w.now, "o4", "o5", "o6")[0].Lies; three != Enforce {
		t.Errorf("three of seven who lie together: %v, expected a block: that is a majority of nothing, and more than a third", three)
	}
}
