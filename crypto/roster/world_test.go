package roster

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// house is an organisation of a test: its keys, and its sites' keys.
type house struct {
	name      string
	root, key *identity.Key
	sites     []*identity.Key
	cert      *identity.Organisation
}

func testKey(t testing.TB, n, role byte) *identity.Key {
	t.Helper()
	k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{n, role}, 16)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newHouse(t testing.TB, n byte) *house {
	t.Helper()
	h := &house{name: fmt.Sprintf("org%d", n), root: testKey(t, n, 0), key: testKey(t, n, 1)}
	h.sites = []*identity.Key{testKey(t, n, 2), testKey(t, n, 3)}
	h.certify(t, 1)
	return h
}

// certify issues the organisation's certificate for its present keys.
func (h *house) certify(t testing.TB, serial uint64) {
	t.Helper()
	var err error
	h.cert, err = identity.IssueOrganisation(h.root, identity.Organisation{
		Name: h.name, Key: h.key.ID(), Serial: serial, Consent: identity.Consent(h.key, h.root.ID()),
		Window: identity.Within(noon, identity.MaxOrganisation),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// site issues a certificate of one of its sites.
func (h *house) site(t testing.TB, i int, serial uint64, life time.Duration) *identity.Site {
	t.Helper()
	k := h.sites[i]
	s, err := identity.IssueSite(h.key, identity.Site{
		Organisation: h.name, Name: fmt.Sprintf("%s-%d", h.name, i), Site: k.ID(), Serial: serial,
		Consent: identity.Consent(k, h.root.ID()), Window: identity.Within(noon, life),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (h *house) voter() identity.ID { return h.sites[0].ID() }

func (h *house) admission() *Entry {
	return &Entry{Kind: Admit, Organisation: h.name, Cert: h.cert.Raw, Site: h.voter()}
}

// found makes a log of n organisations, all counted.
func found(t testing.TB, n int) (*Log, []*house) {
	t.Helper()
	hs := []*house{newHouse(t, 1)}
	g, err := NewGenesis("grove", hs[0].cert, hs[0].voter(), hs[0].key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLog(g, differ)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < n; i++ {
		h := newHouse(t, byte(i+1))
		must(t, l, h.admission(), hs...)
		must(t, l, &Entry{Kind: Count, Organisation: h.name}, hs...)
		hs = append(hs, h)
	}
	return l, hs
}

// differ takes every two messages of the kind "vote" that begin alike for a conflict.
func differ(kind string, a, b []byte) bool { return kind == "vote" && a[0] == b[0] }

// signed puts an entry on the present head and has it signed.
func signed(t testing.TB, l *Log, e *Entry, by ...*house) *Entry {
	t.Helper()
	e.Parent = l.Roster().Head()
	for _, h := range by {
		if err := e.Sign(h.name, h.key); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func must(t testing.TB, l *Log, e *Entry, by ...*house) {
	t.Helper()
	if err := l.Append(signed(t, l, e, by...)); err != nil {
		t.Fatalf("%s of %s: %v", e.Kind, e.Organisation, err)
	}
}
