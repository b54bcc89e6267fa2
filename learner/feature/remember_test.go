package feature

import (
	"testing"
	"time"
)

// familiarContext has met aPeer's port 443 for ten settling times.
func familiarContext(t testing.TB, seed uint64) *Context {
	t.Helper()
	c, err := NewContext(ContextOptions{Window: 10 * time.Second, Settle: 2 * time.Second, Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		c.Update(syn(uint64(i+1), 443, time.Duration(i)*time.Second), true)
	}
	return c
}

// met is how familiar aPeer is to c, and whether that is known at all.
func met(c *Context, id uint64, at time.Duration) (float64, bool) {
	var v Vector
	r := syn(id, 443, at)
	c.Update(r, true)
	c.Vector(&v, r)
	return Natural(iNovelPeer, v.X[iNovelPeer]), v.Has.Has(iNovelPeer)
}

// What is familiar outlasts a restart; what had not rested long enough has to rest
// for its whole time again.
func TestFamiliarOutlastsARestart(t *testing.T) {
	before := familiarContext(t, 1)
	kept := before.AppendFamiliar(nil)
	want, ok := met(before, 100, 20*time.Second)
	if !ok {
		t.Fatal("not settled")
	}
	after, err := NewContext(ContextOptions{Window: 10 * time.Second, Settle: 2 * time.Second, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := met(after, 100, time.Hour); ok || after.Settled() {
		t.Fatal("the control: a new context knows who is familiar")
	}
	if err := after.ReadFamiliar(kept); err != nil {
		t.Fatal(err)
	}
	got, ok := met(after, 101, time.Hour)
	if !ok || !after.Settled() {
		t.Fatal("after a restart it is not known who is familiar")
	}
	if got > want || got < 10 {
		t.Errorf("familiar %v before, %v after: expected no more, and at least 10", want, got)
	}
	if got, _ := met(after, 102, time.Hour+time.Second); got > want {
		t.Error("what had not rested counts at once")
	}
	if got, _ := met(after, 103, time.Hour+5*time.Second); !(got > want) {
		t.Errorf("what had rested does not count after its time: %v, %v before", got, want)
	}
}

func TestFamiliarRefuses(t *testing.T) {
	good := familiarContext(t, 1).AppendFamiliar(nil)
	other := append([]byte{}, good...)
	other[0] = 9
	for name, b := range map[string][]byte{
		"nothing": nil, "another form": other, "another seed": familiarContext(t, 2).AppendFamiliar(nil),
		"more": append(append([]byte{}, good...), 0), "huge": make([]byte, maxFamiliar+1),
	} {
		c := familiarContext(t, 1)
		if c.ReadFamiliar(b) == nil {
			t.Errorf("%s: taken", name)
		}
		if _, ok := met(c, 1000, 21*time.Second); !ok {
			t.Errorf("%s: what was known is lost", name)
		}
	}
	c := familiarContext(t, 1)
	for n := range good {
		if c.ReadFamiliar(good[:n]) == nil {
			t.Fatalf("%d of %d bytes are taken", n, len(good))
		}
	}
}

func FuzzReadFamiliar(f *testing.F) {
	f.Add(familiarContext(f, 1).AppendFamiliar(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := NewContext(ContextOptions{Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		if c.ReadFamiliar(b) != nil {
			return
		}
		again, err := NewContext(ContextOptions{Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		kept := c.AppendFamiliar(nil)
		if err := again.ReadFamiliar(kept); err != nil {
			t.Fatal(err)
		}
		if string(again.AppendFamiliar(nil)) != string(kept) {
			t.Error("another encoding after a round")
		}
	})
}
