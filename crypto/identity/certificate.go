package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
)

// Limits of certificates.
const (
	MaxCertificate  = 2048                 // bytes of an encoded one
	MaxOrganisation = 400 * 24 * time.Hour // life of an organisation's certificate
	MaxSite         = 30 * 24 * time.Hour  // life of a site's: how long a stolen key is worth something to who is not told
	MaxSerial       = 1 << 53
	MaxAddrs        = 8   // of a site
	MaxAddr         = 160 // bytes
	maxName         = 64
	// Skew is how far apart the clocks of two sites may be.
	Skew = 2 * time.Minute
)

// Kinds of signatures. A vote's kind is in package roster.
const (
	kindOrganisation = "organisation-certificate"
	kindSite         = "site-certificate"
	kindConsent      = "membership-consent"
)

// Errors that a caller may test for.
var (
	ErrCertificate = errors.New("identity: the certificate cannot be used")
	ErrExpired     = errors.New("identity: the certificate has expired")
	ErrNotYet      = errors.New("identity: the certificate is of the future; check the clocks of both sites")
)

// A Window is when a certificate holds, in whole seconds, both ends included.
type Window struct{ NotBefore, NotAfter time.Time }

// Within makes a window of life that begins a little before now, so that a site
// whose clock is behind can use it at once.
func Within(now time.Time, life time.Duration) Window {
	now = now.UTC().Truncate(time.Second)
	return Window{NotBefore: now.Add(-Skew), NotAfter: now.Add(life)}
}

// At says whether the window holds at a time: nil, ErrNotYet or ErrExpired.
func (w Window) At(now time.Time) error {
	if now.Before(w.NotBefore.Add(-Skew)) {
		return fmt.Errorf("%w: it begins at %s", ErrNotYet, w.NotBefore.Format(time.RFC3339))
	}
	if now.After(w.NotAfter) {
		return fmt.Errorf("%w at %s", ErrExpired, w.NotAfter.Format(time.RFC3339))
	}
	return nil
}

func (w Window) check(most time.Duration) error {
	if w.NotBefore.Unix() <= 0 || !w.NotAfter.After(w.NotBefore) {
		return errors.New("window: expected an end after its beginning")
	}
	if life := w.NotAfter.Sub(w.NotBefore); life > most+Skew {
		return fmt.Errorf("window: %s: expected at most %s", life, most)
	}
	return nil
}

// An Organisation is a root's word that a key speaks for the organisation. Its
// root stays offline; the key issues sites and votes. The certificate with the
// highest serial stands, and ends all that earlier keys have signed.
type Organisation struct {
	Name    string // a-z, 0-9, '-' and '.', at most 64
	Root    ID
	Key     ID
	Serial  uint64 // 1 to MaxSerial
	Consent []byte // the key's Consent to the root
	Window
	Raw []byte // the encoded certificate; shared, not to be changed
}

// A Site is an organisation's word that a peer id is one of its sites.
type Site struct {
	Organisation string
	Issuer       ID     // the organisation's key
	Name         string // like an organisation's
	Site         ID     // the libp2p peer id
	Serial       uint64 // the highest of a site stands
	Addrs        []string
	Consent      []byte // the site's Consent to the organisation's root
	Window
	Raw []byte
}

// Consent is a key's statement that it serves the organisation of a root. It is
// in every certificate, so that nobody can claim another's site or key.
func Consent(k *Key, root ID) []byte { return k.Sign(kindConsent, []byte(root)) }

type organisationBody struct {
	Version uint8  `cbor:"1,keyasint"`
	Name    string `cbor:"2,keyasint"`
	Root    []byte `cbor:"3,keyasint"`
	Key     []byte `cbor:"4,keyasint"`
	Serial  uint64 `cbor:"5,keyasint"`
	From    int64  `cbor:"6,keyasint"` // s since the Unix epoch
	To      int64  `cbor:"7,keyasint"`
	Consent []byte `cbor:"8,keyasint"`
}

type siteBody struct {
	Version      uint8    `cbor:"1,keyasint"`
	Organisation string   `cbor:"2,keyasint"`
	Issuer       []byte   `cbor:"3,keyasint"`
	Name         string   `cbor:"4,keyasint"`
	Site         []byte   `cbor:"5,keyasint"`
	Serial       uint64   `cbor:"6,keyasint"`
	From         int64    `cbor:"7,keyasint"`
	To           int64    `cbor:"8,keyasint"`
	Consent      []byte   `cbor:"9,keyasint"`
	Addrs        []string `cbor:"10,keyasint,omitempty"`
}

// signed is what travels.
type signed struct {
	Body []byte `cbor:"1,keyasint"`
	Sig  []byte `cbor:"2,keyasint"`
}

// IssueOrganisation signs a certificate by its root. Root and Raw of o are set here.
func IssueOrganisation(root *Key, o Organisation) (*Organisation, error) {
	o.Root = root.ID()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("%w: organisation %.64q: %v", ErrCertificate, o.Name, err)
	}
	raw, err := seal(root, kindOrganisation, organisationBody{
		1, o.Name, public(o.Root), public(o.Key), o.Serial, o.NotBefore.Unix(), o.NotAfter.Unix(), o.Consent,
	})
	if err != nil {
		return nil, err
	}
	return ParseOrganisation(raw)
}

// IssueSite signs a certificate by the organisation's key. Issuer and Raw of s are
// set here; the consent is not checked, since only the root shows what it must say:
// see Site.By.
func IssueSite(organisation *Key, s Site) (*Site, error) {
	s.Issuer = organisation.ID()
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%w: site %.64q: %v", ErrCertificate, s.Name, err)
	}
	raw, err := seal(organisation, kindSite, siteBody{
		1, s.Organisation, public(s.Issuer), s.Name, public(s.Site), s.Serial, s.NotBefore.Unix(), s.NotAfter.Unix(), s.Consent, s.Addrs,
	})
	if err != nil {
		return nil, err
	}
	return ParseSite(raw)
}

// public is the key of an ID that was checked before.
func public(id ID) []byte {
	pub, err := id.Public()
	if err != nil {
		return nil
	}
	return pub
}

func seal(k *Key, kind string, body any) ([]byte, error) {
	b, err := canon.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCertificate, err)
	}
	raw, err := canon.Marshal(signed{b, k.Sign(kind, b)})
	if err == nil && len(raw) > MaxCertificate {
		err = fmt.Errorf("%d bytes: expected at most %d; list fewer addresses", len(raw), MaxCertificate)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCertificate, err)
	}
	return raw, nil
}

// open decodes the outer part and then body. Nothing is trusted yet.
func open(b []byte, body any) (s signed, err error) {
	if len(b) > MaxCertificate {
		return s, fmt.Errorf("%w: %d bytes: expected at most %d", ErrCertificate, len(b), MaxCertificate)
	}
	if err := canon.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%w: %v", ErrCertificate, err)
	}
	if err := canon.Unmarshal(s.Body, body); err != nil {
		return s, fmt.Errorf("%w: body: %v", ErrCertificate, err)
	}
	return s, nil
}

// ParseOrganisation reads a certificate and checks its form, its root's signature
// and its key's consent; not the time, and not that the root is anybody's. It keeps b.
func ParseOrganisation(b []byte) (*Organisation, error) {
	var c organisationBody
	s, err := open(b, &c)
	if err != nil {
		return nil, err
	}
	if err := keys(c.Version, c.Root, c.Key); err != nil {
		return nil, err
	}
	o := &Organisation{
		Name: c.Name, Root: IDOf(c.Root), Key: IDOf(c.Key), Serial: c.Serial, Consent: c.Consent,
		Window: Window{time.Unix(c.From, 0).UTC(), time.Unix(c.To, 0).UTC()}, Raw: b,
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("%w: organisation %.64q: %v", ErrCertificate, c.Name, err)
	}
	if err := Verify(o.Root, kindOrganisation, s.Body, s.Sig); err != nil {
		return nil, fmt.Errorf("%w: organisation %q: %w", ErrCertificate, c.Name, err)
	}
	return o, nil
}

// ParseSite reads a certificate and checks its form and its issuer's signature;
// not the time, and not that the issuer is anybody: see By. It keeps b.
func ParseSite(b []byte) (*Site, error) {
	var c siteBody
	s, err := open(b, &c)
	if err != nil {
		return nil, err
	}
	if err := keys(c.Version, c.Issuer, c.Site); err != nil {
		return nil, err
	}
	out := &Site{
		Organisation: c.Organisation, Issuer: IDOf(c.Issuer), Name: c.Name, Site: IDOf(c.Site), Serial: c.Serial,
		Addrs: c.Addrs, Consent: c.Consent,
		Window: Window{time.Unix(c.From, 0).UTC(), time.Unix(c.To, 0).UTC()}, Raw: b,
	}
	if err := out.check(); err != nil {
		return nil, fmt.Errorf("%w: site %.64q: %v", ErrCertificate, c.Name, err)
	}
	if err := Verify(out.Issuer, kindSite, s.Body, s.Sig); err != nil {
		return nil, fmt.Errorf("%w: site %q: %w", ErrCertificate, c.Name, err)
	}
	return out, nil
}

func keys(version uint8, ks ...[]byte) error {
	if version != 1 {
		return fmt.Errorf("%w: version %d: expected 1; update the older site", ErrCertificate, version)
	}
	for _, k := range ks {
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("%w: a key of %d bytes: expected %d", ErrCertificate, len(k), ed25519.PublicKeySize)
		}
	}
	return nil
}

func (o *Organisation) check() error {
	if err := CheckName(o.Name); err != nil {
		return err
	}
	if o.Root == o.Key {
		return errors.New("key: it is the root: expected a key of its own, so that the root can stay offline")
	}
	if err := checkSerial(o.Serial); err != nil {
		return err
	}
	if err := o.Window.check(MaxOrganisation); err != nil {
		return err
	}
	if Verify(o.Key, kindConsent, []byte(o.Root), o.Consent) != nil {
		return errors.New("consent: expected the key's own signature on its root")
	}
	return nil
}

func (s *Site) check() error {
	if err := errors.Join(CheckName(s.Organisation), CheckName(s.Name)); err != nil {
		return err
	}
	if s.Site == s.Issuer {
		return errors.New("site: it is the organisation's key: expected a key of its own")
	}
	if _, err := s.Site.Public(); err != nil {
		return err
	}
	if err := checkSerial(s.Serial); err != nil {
		return err
	}
	if len(s.Consent) != ed25519.SignatureSize {
		return fmt.Errorf("consent: %d bytes: expected a signature of %d", len(s.Consent), ed25519.SignatureSize)
	}
	if err := CheckAddrs(s.Addrs); err != nil {
		return err
	}
	return s.Window.check(MaxSite)
}

// By checks that the organisation's present key issued the certificate and that
// the site consented. Both certificates' windows are the caller's to check.
func (s *Site) By(o *Organisation) error {
	if s.Organisation != o.Name || s.Issuer != o.Key {
		return fmt.Errorf("%w: site %q: it was not issued by the present key of %s; ask there for a new one", ErrCertificate, s.Name, o.Name)
	}
	if Verify(s.Site, kindConsent, []byte(o.Root), s.Consent) != nil {
		return fmt.Errorf("%w: site %q: the site itself has not agreed to be of %s", ErrCertificate, s.Name, o.Name)
	}
	return nil
}

// CheckName refuses what is not 1 to 64 of a-z, 0-9, '-' and '.', beginning with
// a letter or digit: a name is shown to people, and is part of topics and files.
func CheckName(s string) error {
	odd := func(r rune) bool { return r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }
	if s == "" || len(s) > maxName || s[0] == '-' || s[0] == '.' || strings.ContainsFunc(s, odd) {
		return fmt.Errorf("name %.80q: expected 1 to %d of a-z, 0-9, '-' and '.', beginning with a letter or digit", s, maxName)
	}
	return nil
}

func checkSerial(n uint64) error {
	if n == 0 || n > MaxSerial {
		return fmt.Errorf("serial: %d: expected 1 to %d", n, uint64(MaxSerial))
	}
	return nil
}

// CheckAddrs refuses what is not a short list of multiaddresses by their look; what
// dials them reads them again.
func CheckAddrs(addrs []string) error {
	if len(addrs) > MaxAddrs {
		return fmt.Errorf("addresses: %d: expected at most %d", len(addrs), MaxAddrs)
	}
	for _, a := range addrs {
		if len(a) > MaxAddr || !strings.HasPrefix(a, "/") || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("address %.40q: expected a multiaddress like /ip4/192.0.2.1/tcp/4400, at most %d bytes", a, MaxAddr)
		}
	}
	return nil
}
