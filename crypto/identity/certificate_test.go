package identity

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// house is an organisation with a root, a key and one site.
type house struct{ root, key, site *Key }

func newHouse(t testing.TB, n byte) house {
	t.Helper()
	var ks [3]*Key
	for i := range ks {
		k, err := Generate(bytes.NewReader(bytes.Repeat([]byte{n, byte(i)}, 16)))
		if err != nil {
			t.Fatal(err)
		}
		ks[i] = k
	}
	return house{ks[0], ks[1], ks[2]}
}

func (h house) organisation() Organisation {
	return Organisation{Name: "alder", Key: h.key.ID(), Serial: 1, Consent: Consent(h.key, h.root.ID()), Window: Within(noon, MaxOrganisation)}
}

func (h house) siteOf() Site {
	return Site{
		Organisation: "alder", Name: "alder-1", Site: h.site.ID(), Serial: 1, Consent: Consent(h.site, h.root.ID()),
		Addrs: []string{"/ip4/192.0.2.1/tcp/4400"}, Window: Within(noon, MaxSite),
	}
}

func (h house) issue(t testing.TB) (*Organisation, *Site) {
	t.Helper()
	o, err := IssueOrganisation(h.root, h.organisation())
	if err != nil {
		t.Fatal(err)
	}
	s, err := IssueSite(h.key, h.siteOf())
	if err != nil {
		t.Fatal(err)
	}
	return o, s
}

func TestCertificateChain(t *testing.T) {
	h := newHouse(t, 1)
	o, s := h.issue(t)
	if err := s.By(o); err != nil {
		t.Fatal(err)
	}
	if o.Root != h.root.ID() || s.Issuer != h.key.ID() || s.Site != h.site.ID() || !slices.Equal(s.Addrs, h.siteOf().Addrs) {
		t.Errorf("read back: %+v, %+v", o, s)
	}
	for _, c := range []struct {
		at   time.Time
		want error
	}{
		{noon, nil}, {noon.Add(-Skew), nil}, {noon.Add(MaxSite), nil},
		{noon.Add(-time.Hour), ErrNotYet}, {noon.Add(MaxSite + time.Second), ErrExpired},
	} {
		if err := s.At(c.at); !errors.Is(err, c.want) {
			t.Errorf("at %s: %v, expected %v", c.at, err, c.want)
		}
	}
}

func TestSiteOfAnother(t *testing.T) {
	h, thief := newHouse(t, 1), newHouse(t, 2)
	o, _ := h.issue(t)
	stolen := h.siteOf() // our site, claimed by another organisation with our consent to us
	stolen.Organisation = "briar"
	theirs, err := IssueSite(thief.key, stolen)
	if err != nil {
		t.Fatal(err)
	}
	to := thief.organisation()
	to.Name = "briar"
	other, err := IssueOrganisation(thief.root, to)
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.By(other); !errors.Is(err, ErrCertificate) {
		t.Errorf("a claimed site: %v, expected ErrCertificate", err)
	}
	if err := theirs.By(o); !errors.Is(err, ErrCertificate) {
		t.Errorf("under our organisation: %v, expected ErrCertificate", err)
	}
	to.Key = h.key.ID() // our key, claimed as theirs
	if _, err := IssueOrganisation(thief.root, to); !errors.Is(err, ErrCertificate) {
		t.Errorf("a claimed key: %v, expected ErrCertificate", err)
	}
	rotated := h.organisation()
	next := newHouse(t, 3).key
	rotated.Key, rotated.Serial, rotated.Consent = next.ID(), 2, Consent(next, h.root.ID())
	o2, err := IssueOrganisation(h.root, rotated)
	if err != nil {
		t.Fatal(err)
	}
	if _, s := h.issue(t); s.By(o2) == nil {
		t.Error("a site of the key before was accepted after the key had been rotated")
	}
}

func TestIssueRefuses(t *testing.T) {
	h := newHouse(t, 1)
	for name, spoil := range map[string]func(*Site){
		"a name in capitals":   func(s *Site) { s.Name = "Alder" },
		"no name":              func(s *Site) { s.Name = "" },
		"a long life":          func(s *Site) { s.NotAfter = s.NotBefore.Add(2 * MaxSite) },
		"an end before":        func(s *Site) { s.NotAfter = s.NotBefore },
		"no serial":            func(s *Site) { s.Serial = 0 },
		"a giant serial":       func(s *Site) { s.Serial = 1 << 60 },
		"no consent":           func(s *Site) { s.Consent = nil },
		"the issuer itself":    func(s *Site) { s.Site = h.key.ID() },
		"no site":              func(s *Site) { s.Site = "" },
		"a strange address":    func(s *Site) { s.Addrs = []string{"192.0.2.1:4400"} },
		"too many addresses":   func(s *Site) { s.Addrs = slices.Repeat([]string{"/ip4/192.0.2.1/tcp/1"}, MaxAddrs+1) },
		"too long all in all":  func(s *Site) { s.Addrs = slices.Repeat([]string{"/" + strings.Repeat("x", MaxAddr)}, 1) },
		"before the year 1970": func(s *Site) { s.NotBefore = time.Unix(-5, 0) },
	} {
		s := h.siteOf()
		spoil(&s)
		if _, err := IssueSite(h.key, s); !errors.Is(err, ErrCertificate) {
			t.Errorf("%s: %v, expected ErrCertificate", name, err)
		}
	}
	o := h.organisation()
	o.Key = h.root.ID()
	if _, err := IssueOrganisation(h.root, o); !errors.Is(err, ErrCertificate) {
		t.Errorf("the root as key: %v", err)
	}
}

// Every flipped bit of a certificate makes it void.
func TestFlippedBits(t *testing.T) {
	o, s := newHouse(t, 1).issue(t)
	for i := range s.Raw {
		b := bytes.Clone(s.Raw)
		b[i] ^= 1 << (i % 8)
		if got, err := ParseSite(b); err == nil {
			t.Fatalf("byte %d: accepted as %+v", i, got)
		}
	}
	for i := range o.Raw {
		b := bytes.Clone(o.Raw)
		b[i] ^= 1 << (i % 8)
		if got, err := ParseOrganisation(b); err == nil {
			t.Fatalf("byte %d: accepted as %+v", i, got)
		}
	}
	if _, err := ParseSite(o.Raw); err == nil {
		t.Error("an organisation's certificate was read as a site's")
	}
	if _, err := ParseSite(make([]byte, MaxCertificate+1)); !errors.Is(err, ErrCertificate) {
		t.Errorf("an oversized certificate: %v", err)
	}
}

func FuzzCertificate(f *testing.F) {
	o, s := newHouse(f, 1).issue(f)
	f.Add(o.Raw)
	f.Add(s.Raw)
	f.Add([]byte{0xa2, 1, 0x40, 2, 0x40})
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := ParseSite(b); err == nil && (got.check() != nil || Verify(got.Issuer, "x", nil, nil) == nil) {
			t.Fatalf("a site that passes is not well-formed: %+v", got)
		}
		if got, err := ParseOrganisation(b); err == nil && got.check() != nil {
			t.Fatalf("an organisation that passes is not well-formed: %+v", got)
		}
	})
}
