package roster

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// copyOf is another site's directory with the same history.
func copyOf(t testing.TB, l *Log) *Directory {
	t.Helper()
	var buf bytes.Buffer
	if _, err := l.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	c, err := ReadLog(&buf, differ)
	if err != nil {
		t.Fatal(err)
	}
	return NewDirectory(c)
}

// pull has a learn from b until there is nothing more.
func pull(t testing.TB, a, b *Directory) (all Learnt, err error) {
	t.Helper()
	for more := true; more; {
		q, err := a.Ask(noon)
		if err != nil {
			t.Fatal(err)
		}
		out, err := b.Answer(q, noon)
		if err != nil {
			t.Fatal(err)
		}
		l, err := a.Learn(out, noon)
		if err != nil {
			return all, err
		}
		all.Entries, all.Sites, all.Pending, all.Refused = all.Entries+l.Entries, all.Sites+l.Sites, all.Pending+l.Pending, all.Refused+l.Refused
		more = l.More
	}
	return all, nil
}

func TestDirectorySites(t *testing.T) {
	l, hs := found(t, 3)
	d := NewDirectory(l)
	first := hs[1].site(t, 0, 2, 7*24*time.Hour)
	for _, c := range []struct {
		name    string
		raw     []byte
		changed bool
		want    error
	}{
		{"a site", first.Raw, true, nil},
		{"again", first.Raw, false, nil},
		{"an older one", hs[1].site(t, 0, 1, identity.MaxSite).Raw, false, nil},
		{"a stranger's", newHouse(t, 9).site(t, 0, 1, identity.MaxSite).Raw, false, ErrNotMember},
		{"garbage", []byte("x"), false, identity.ErrCertificate},
	} {
		changed, err := d.AddSite(c.raw, noon)
		if changed != c.changed || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v; expected %v, %v", c.name, changed, err, c.changed, c.want)
		}
	}
	rec, err := d.Lookup(first.Site, noon)
	if err != nil || rec.Standing != Counted || !rec.Voter || rec.Serial != 2 {
		t.Errorf("looked up: %+v, %v", rec, err)
	}
	late := noon.Add(7*24*time.Hour + time.Minute)
	if _, err := d.Lookup(first.Site, late); !errors.Is(err, identity.ErrExpired) || len(d.Records(late)) != 0 {
		t.Errorf("after its end: %v, expected ErrExpired", err)
	}
	if _, err := d.Lookup(first.Site, noon.Add(-time.Hour)); !errors.Is(err, identity.ErrNotYet) {
		t.Errorf("before its beginning: %v, expected ErrNotYet", err)
	}
	if _, applied, err := d.Propose(signed(t, l, &Entry{Kind: Revoke, Organisation: hs[1].name}, hs[0], hs[2])); err != nil || !applied {
		t.Fatal(applied, err)
	}
	if _, err := d.Lookup(first.Site, noon); !errors.Is(err, ErrNotMember) {
		t.Errorf("after its organisation's revocation: %v, expected ErrNotMember", err)
	}
}

func TestTooManySites(t *testing.T) {
	l, hs := found(t, 1)
	d, h := NewDirectory(l), hs[0]
	for i := range MaxSitesOf + 1 {
		h.sites = append(h.sites, testKey(t, byte(100+i), 7))
		_, err := d.AddSite(h.site(t, len(h.sites)-1, 1, identity.MaxSite).Raw, noon)
		if (i < MaxSitesOf) != (err == nil) {
			t.Fatalf("site %d: %v", i, err)
		}
	}
}

// Four sites hear of an admission in a row, each adds its vote, and all end with
// the same roster.
func TestSignaturesGather(t *testing.T) {
	l, hs := found(t, 4)
	ds := make([]*Directory, 4)
	for i := range ds {
		ds[i] = copyOf(t, l)
	}
	h := newHouse(t, 9)
	for i, d := range ds {
		if i > 0 {
			if _, err := pull(t, d, ds[i-1]); err != nil {
				t.Fatal(err)
			}
		}
		if i == 3 {
			break // three of four were enough
		}
		e := signed(t, d.log, h.admission())
		if p := d.Pending(); len(p) == 1 {
			e = p[0]
		} else if i > 0 {
			t.Fatalf("site %d: %d pending, expected the admission", i, len(p))
		}
		changed, applied, err := d.Propose(signed(t, d.log, e, hs[i]))
		if err != nil || !changed || applied != (i == 2) {
			t.Fatalf("site %d: changed %v, applied %v, %v", i, changed, applied, err)
		}
	}
	for i, d := range ds {
		if _, err := pull(t, d, ds[2]); err != nil {
			t.Fatal(err)
		}
		if d.Roster().Head() != ds[2].Roster().Head() || d.Roster().Member("org9") == nil || len(d.Pending()) != 0 {
			t.Errorf("site %d: epoch %d, %d pending", i, d.Roster().Epoch(), len(d.Pending()))
		}
	}
}

func TestForkIsNamed(t *testing.T) {
	l, hs := found(t, 3)
	a, b := copyOf(t, l), copyOf(t, l)
	must(t, a.log, newHouse(t, 8).admission(), hs...)
	must(t, b.log, newHouse(t, 9).admission(), hs...)
	if _, err := pull(t, a, b); !errors.Is(err, ErrFork) {
		t.Errorf("two histories: %v, expected ErrFork", err)
	}
	must(t, b.log, &Entry{Kind: Count, Organisation: "org9"}, hs...)
	if _, err := pull(t, a, b); !errors.Is(err, ErrFork) {
		t.Errorf("a longer other history: %v, expected ErrFork", err)
	}
}

// An answer that was under way while another brought the same is no fork.
func TestLateAnswer(t *testing.T) {
	l, hs := found(t, 3)
	a, b := copyOf(t, l), copyOf(t, l)
	must(t, b.log, newHouse(t, 9).admission(), hs...)
	q, err := a.Ask(noon)
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.Answer(q, noon)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if got, err := a.Learn(out, noon); err != nil || got.Entries != 1-i {
			t.Errorf("answer %d: %+v, %v", i, got, err)
		}
	}
}

// One organisation cannot fill the table of what waits.
func TestPendingIsBounded(t *testing.T) {
	l, hs := found(t, 4)
	d := NewDirectory(l)
	propose := func(i int, h *house) error {
		_, _, err := d.Propose(signed(t, l, &Entry{Kind: Revoke, Organisation: "org4", Why: fmt.Sprint("reason ", i)}, h))
		return err
	}
	for i := range maxProposed {
		if err := propose(i, hs[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := propose(99, hs[0]); !errors.Is(err, ErrVotes) {
		t.Errorf("one too many: %v, expected ErrVotes", err)
	}
	if err := propose(100, hs[1]); err != nil {
		t.Errorf("another organisation's first: %v", err)
	}
	if err := propose(101, newHouse(t, 9)); !errors.Is(err, ErrVotes) {
		t.Errorf("a stranger's: %v, expected ErrVotes", err)
	}
}

func TestLearnsAllOfIt(t *testing.T) {
	l, hs := found(t, 5)
	d := NewDirectory(l)
	for _, h := range hs {
		for i := range h.sites {
			if _, err := d.AddSite(h.site(t, i, 1, identity.MaxSite).Raw, noon); err != nil {
				t.Fatal(err)
			}
		}
	}
	g, err := NewLog(l.Genesis(), differ)
	if err != nil {
		t.Fatal(err)
	}
	fresh := NewDirectory(g)
	got, err := pull(t, fresh, d)
	if err != nil || got.Entries != 8 || got.Sites != 10 || got.Refused != 0 || len(fresh.Records(noon)) != 10 {
		t.Errorf("%+v, %v; %d records", got, err, len(fresh.Records(noon)))
	}
}

func FuzzLearn(f *testing.F) {
	l, hs := found(f, 3)
	full := NewDirectory(l)
	if _, err := full.AddSite(hs[1].site(f, 0, 1, identity.MaxSite).Raw, noon); err != nil {
		f.Fatal(err)
	}
	g, err := NewLog(l.Genesis(), differ)
	if err != nil {
		f.Fatal(err)
	}
	q, err := NewDirectory(g).Ask(noon)
	if err != nil {
		f.Fatal(err)
	}
	out, err := full.Answer(q, noon)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(out)
	f.Add(q)
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := NewLog(l.Genesis(), differ)
		if err != nil {
			t.Fatal(err)
		}
		d := NewDirectory(g)
		if _, err := d.Answer(b, noon); err == nil && len(b) > MaxAsk {
			t.Fatal("an oversized question was answered")
		}
		if _, err := d.Learn(b, noon); err == nil && len(d.Roster().Counted()) == 0 {
			t.Fatal("nobody counts any more")
		}
	})
}
