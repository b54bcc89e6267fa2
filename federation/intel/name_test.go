package intel

import (
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Names of each kind climb the same ladder as addresses, apart from each other, and
// are found, withdrawn, forgotten and remembered like them.
func TestNamesClimbTheLadder(t *testing.T) {
	for typ, value := range map[wire.Type]string{
		wire.TypeDomain: "evil.example", wire.TypeFingerprint: "t13d1516h2_8daaf6152771_b186095e22b6", wire.TypeBehaviour: "features-2:AAEC",
	} {
		w := newTown(t, 7)
		of := func(ind *wire.Indicator) { ind.Type = typ }
		w.says(site(1, 1), value, of)
		w.says(site(1, 2), value, of) // the same organisation again
		if w.most[value] != 0 {
			t.Fatalf("%s: one organisation: %v", typ, w.most[value])
		}
		w.says(site(2, 1), value, of)
		if w.most[value] != Limit {
			t.Fatalf("%s: two: %v", typ, w.most[value])
		}
		w.says(site(3, 1), value, of)
		if w.most[value] != Enforce {
			t.Fatalf("%s: three: %v", typ, w.most[value])
		}
		claims, err := w.s.Seen(typ, value)
		if err != nil || len(claims) != 4 || claims[0].Level != Enforce {
			t.Errorf("%s: %d claims found, %v", typ, len(claims), err)
		}
		if other, err := w.s.Seen(wire.TypeDomain, "other.example"); err != nil || len(other) != 0 {
			t.Errorf("%s: another name has %d claims, %v", typ, len(other), err)
		}
		x, err := wire.ParseValue(typ, value)
		if err != nil {
			t.Fatal(err)
		}
		lifted := false
		for _, e := range w.s.Knows(w.now, x, w.now.Add(time.Hour)) {
			lifted = lifted || e.Op == Lift
		}
		if !lifted {
			t.Errorf("%s: called innocent here, and still in force", typ)
		}
		snap, err := w.s.TrustSnapshot()
		if err != nil {
			t.Fatal(err)
		}
		again := newTown(t, 7)
		if err := again.s.RestoreTrust(snap); err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 3; n++ {
			again.says(site(n, 1), value, of)
		}
		if again.most[value] != 0 {
			t.Errorf("%s: innocent before a restart, and after it %v", typ, again.most[value])
		}
	}
}

// An address and a name never stand for each other.
func TestNamesAreApart(t *testing.T) {
	w := newTown(t, 7)
	w.says(site(1, 1), "a.evil.example", func(i *wire.Indicator) { i.Type = wire.TypeDomain })
	w.says(site(2, 1), "b.evil.example", func(i *wire.Indicator) { i.Type = wire.TypeDomain })
	w.says(site(3, 1), "evil.example", func(i *wire.Indicator) { i.Type = wire.TypeDomain })
	w.says(site(4, 1), victim, nil)
	for _, v := range []string{"a.evil.example", "b.evil.example", "evil.example", victim} {
		if w.most[v] != 0 {
			t.Errorf("%s: one organisation each, and it came to %v", v, w.most[v])
		}
	}
	if n := w.s.Len(); n != 4 {
		t.Errorf("%d in force", n)
	}
}
