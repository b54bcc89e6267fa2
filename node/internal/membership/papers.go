package membership

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/crypto/roster"
)

// Lives of certificates: half of the most that is allowed for sites, so that a site
// whose organisation is away for a while goes on.
const (
	organisationLife = identity.MaxOrganisation
	siteLife         = identity.MaxSite
)

// Us is this site, with what it needs to act for its organisation.
type Us struct {
	Name  string
	Key   *identity.Key
	Addrs []string // where others reach it
	Pass  identity.Secret
	Root  string // the root's key file; "" means the one in the folder
}

func (f *Folder) rootPath(u Us) string {
	if u.Root != "" {
		return u.Root
	}
	return f.Path(RootKey)
}

// serial is one above the last, and grows with time, so that a lost state makes no
// serial twice.
func serial(last uint64, now time.Time) uint64 { return max(last+1, uint64(max(now.Unix(), 1))) }

// found makes our organisation's root, key and certificate, unless it has them.
func (f *Folder) found(s *State, u Us, organisation string, now time.Time) error {
	if s.Certificate != nil {
		if s.Certificate.Name != organisation {
			return fmt.Errorf("this site is of organisation %s: expected that name, not %s", s.Certificate.Name, organisation)
		}
		return nil
	}
	if s.Organisation != "" && s.Organisation != organisation {
		return fmt.Errorf("this site's mesh is of organisation %s: expected that name, not %s", s.Organisation, organisation)
	}
	root, err := ownKey(f.rootPath(u), u.Pass)
	if err != nil {
		return err
	}
	key, err := ownKey(f.Path(OrganisationKey), u.Pass)
	if err != nil {
		return err
	}
	s.Certificate, err = certify(root, key, organisation, 0, now)
	s.Organisation = organisation
	return err
}

// ownKey loads a key of our organisation, and makes it at first use: there is one
// already where an earlier try did not come to its end, or a root that is kept.
func ownKey(path string, pass identity.Secret) (*identity.Key, error) {
	k, err := identity.LoadFile(path, pass)
	if errors.Is(err, identity.ErrNoKey) {
		return identity.CreateFile(path, pass)
	}
	return k, err
}

func certify(root, key *identity.Key, organisation string, last uint64, now time.Time) (*identity.Organisation, error) {
	return identity.IssueOrganisation(root, identity.Organisation{
		Name: organisation, Key: key.ID(), Serial: serial(last, now),
		Consent: identity.Consent(key, root.ID()), Window: identity.Within(now, organisationLife),
	})
}

// organisationKey loads our organisation's key. A rotation that was cut short is
// brought to its end first.
func (f *Folder) organisationKey(s *State, pass identity.Secret) (*identity.Key, error) {
	if s.Certificate == nil {
		return nil, ErrNoConsortium
	}
	k, err := identity.LoadFile(f.Path(OrganisationKey), pass)
	if err == nil && k.ID() == s.Certificate.Key {
		return k, nil
	}
	next, nextErr := identity.LoadFile(f.Path(OrganisationKey+".next"), pass)
	if nextErr == nil && next.ID() == s.Certificate.Key {
		return next, os.Rename(f.Path(OrganisationKey+".next"), f.Path(OrganisationKey))
	}
	switch {
	case errors.Is(err, identity.ErrNoKey):
		return nil, fmt.Errorf("%w; run this at the site of %s that holds its key, or put the key there", err, s.Certificate.Name)
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("%s is not the present key of %s: put the present one there, or rotate", f.Path(OrganisationKey), s.Certificate.Name)
}

// issue makes a site's certificate by our organisation's key.
func (s *State) issue(key *identity.Key, name string, site identity.ID, addrs []string, consent []byte, last uint64, now time.Time) (*identity.Site, error) {
	return identity.IssueSite(key, identity.Site{
		Organisation: s.Certificate.Name, Name: name, Site: site, Serial: serial(last, now),
		Addrs: addrs, Consent: consent, Window: identity.Within(now, siteLife),
	})
}

func (s *State) issueOwn(key *identity.Key, u Us, now time.Time) (err error) {
	last := uint64(0)
	if s.Site != nil {
		last = s.Site.Serial
	}
	s.Site, err = s.issue(key, u.Name, u.Key.ID(), u.Addrs, identity.Consent(u.Key, s.Certificate.Root), last, now)
	if err == nil && s.Directory != nil && s.Directory.Roster().Member(s.Organisation) != nil {
		_, err = s.Directory.AddSite(s.Site.Raw, now)
	}
	return err
}

// Create founds a consortium of which our organisation is the first member, with
// this site as its voting site.
func (f *Folder) Create(u Us, consortium, organisation string, now time.Time) error {
	if err := errors.Join(identity.CheckName(consortium), identity.CheckName(organisation)); err != nil {
		return err
	}
	return f.Update(now, func(s *State) error {
		if s.Directory != nil {
			return ErrConsortium
		}
		if err := f.found(s, u, organisation, now); err != nil {
			return err
		}
		key, err := f.organisationKey(s, u.Pass)
		if err != nil {
			return err
		}
		g, err := roster.NewGenesis(consortium, s.Certificate, u.Key.ID(), key)
		if err != nil {
			return err
		}
		l, err := roster.NewLog(g, f.conflict)
		if err != nil {
			return err
		}
		s.Directory = roster.NewDirectory(l)
		return s.issueOwn(key, u, now)
	})
}

// Outcome says what became of an entry that we signed.
type Outcome struct {
	ID      roster.Hash
	Applied bool
	Signed  []string // the organisations that have signed it
	Needed  int
}

// propose signs an entry on the present head and takes it up. An organisation signs
// one entry on a head: with two, two histories could stand.
func (s *State) propose(e *roster.Entry, key *identity.Key) (out Outcome, err error) {
	if s.Directory == nil {
		return out, ErrNoConsortium
	}
	r := s.Directory.Roster()
	if e.Parent == (roster.Hash{}) {
		e.Parent = r.Head()
	}
	if out.ID, err = e.ID(); err != nil {
		return out, err
	}
	for _, p := range s.Directory.Pending() {
		id, err := p.ID()
		if err != nil {
			return out, err
		}
		for _, v := range p.Votes {
			if key != nil && v.Organisation == s.Organisation && id != out.ID {
				return out, fmt.Errorf("%s has %w (%s of %s, %s): one at a time; have it signed by the others first", s.Organisation, ErrWaits, p.Kind, p.Organisation, id.String()[:12])
			}
		}
	}
	if key != nil {
		if err := e.Sign(s.Organisation, key); err != nil {
			return out, err
		}
	}
	_, out.Applied, err = s.Directory.Propose(e)
	out.Signed, out.Needed = r.Tally(e)
	return out, err
}

// act proposes an entry that build makes, signed by our organisation.
func (f *Folder) act(u Us, now time.Time, build func(*State) (*roster.Entry, error)) (out Outcome, err error) {
	err = f.Update(now, func(s *State) error {
		if s.Directory == nil {
			return ErrNoConsortium
		}
		key, err := f.organisationKey(s, u.Pass)
		if err != nil {
			return err
		}
		e, err := build(s)
		if err != nil {
			return err
		}
		out, err = s.propose(e, key)
		return err
	})
	return out, err
}

// Count proposes that an observer counts from now on.
func (f *Folder) Count(u Us, organisation string, now time.Time) (Outcome, error) {
	return f.act(u, now, func(*State) (*roster.Entry, error) {
		return &roster.Entry{Kind: roster.Count, Organisation: organisation}, nil
	})
}

// RevokeOrganisation proposes that a member leaves; our own leaves at once.
func (f *Folder) RevokeOrganisation(u Us, organisation, why string, now time.Time) (Outcome, error) {
	return f.act(u, now, func(*State) (*roster.Entry, error) {
		return &roster.Entry{Kind: roster.Revoke, Organisation: organisation, Why: why}, nil
	})
}

// RevokeSite ends a site of ours: it is no longer trusted here, and in a consortium
// no longer let in anywhere. The first holds also when the error wraps ErrWaits: the
// second is to be tried again once the other entry stands.
func (f *Folder) RevokeSite(u Us, name, why string, now time.Time) (everywhere bool, err error) {
	var waits error
	err = f.Update(now, func(s *State) error {
		id, ok := s.siteNamed(name)
		if !ok {
			return fmt.Errorf("no site of ours is named %q: `hedgerow consortium members` lists them", name)
		}
		if id == u.Key.ID() {
			return errors.New("that is this site itself: revoke it at another one")
		}
		s.dropPeer(id)
		if s.Directory == nil || s.Directory.Roster().Member(s.Organisation) == nil {
			return nil
		}
		key, err := f.organisationKey(s, u.Pass)
		if err != nil {
			return err
		}
		out, err := s.propose(&roster.Entry{Kind: roster.RevokeSite, Organisation: s.Organisation, Site: id, Why: why}, key)
		everywhere = out.Applied
		if errors.Is(err, ErrWaits) {
			waits = err
			return nil
		}
		return err
	})
	return everywhere, errors.Join(err, waits)
}

// Approve signs an entry that waits, by the beginning of its ID.
func (f *Folder) Approve(u Us, id string, now time.Time) (Outcome, error) {
	return f.act(u, now, func(s *State) (*roster.Entry, error) {
		var found *roster.Entry
		for _, e := range s.Directory.Pending() {
			h, err := e.ID()
			if err != nil {
				return nil, err
			}
			if len(id) >= 8 && len(id) <= 64 && h.String()[:len(id)] == id {
				found = e
			}
		}
		if found == nil {
			return nil, fmt.Errorf("no entry %.64q waits for signatures: `hedgerow consortium members` lists those that do", id)
		}
		return found, nil
	})
}

// RotateSite gives this site a new certificate, with its present name and addresses.
func (f *Folder) RotateSite(u Us, now time.Time) error {
	return f.Update(now, func(s *State) error {
		key, err := f.organisationKey(s, u.Pass)
		if err != nil {
			return err
		}
		return s.issueOwn(key, u, now)
	})
}

// RotateOrganisation gives our organisation a new key, which its root certifies.
// Sites that we know get certificates of the new key; all of the old one end.
func (f *Folder) RotateOrganisation(u Us, now time.Time) error {
	return f.Update(now, func(s *State) error {
		if s.Certificate == nil {
			return ErrNoConsortium
		}
		root, err := identity.LoadFile(f.rootPath(u), u.Pass)
		if err != nil {
			return fmt.Errorf("the organisation's root certifies its keys: %w; name its file by --root", err)
		}
		if root.ID() != s.Certificate.Root {
			return fmt.Errorf("%s is not the root of %s", f.rootPath(u), s.Certificate.Name)
		}
		next, err := identity.Generate(rand.Reader)
		if err != nil {
			return err
		}
		cert, err := certify(root, next, s.Certificate.Name, s.Certificate.Serial, now)
		if err != nil {
			return err
		}
		if err := next.SaveNew(f.Path(OrganisationKey+".next"), u.Pass); err != nil {
			return err
		}
		if err := s.takeKey(u, next, cert, now); err != nil {
			return errors.Join(err, os.Remove(f.Path(OrganisationKey+".next")))
		}
		return nil
	})
}

// takeKey makes cert ours and certifies our sites anew. The key file takes its
// place at its first use (organisationKey), after the state was stored.
func (s *State) takeKey(u Us, key *identity.Key, cert *identity.Organisation, now time.Time) error {
	var ours []roster.Record
	if s.Directory != nil {
		for _, r := range s.Directory.Records(now) {
			if r.Organisation == s.Organisation && r.Site.Site != u.Key.ID() {
				ours = append(ours, r)
			}
		}
		if s.Directory.Roster().Member(s.Organisation) != nil {
			if _, err := s.propose(&roster.Entry{Kind: roster.Renew, Organisation: s.Organisation, Cert: cert.Raw}, nil); err != nil {
				return err
			}
		}
	}
	s.Certificate = cert
	for _, r := range ours {
		c, err := s.issue(key, r.Name, r.Site.Site, r.Addrs, r.Consent, r.Serial, now)
		if err != nil {
			return err
		}
		if _, err := s.Directory.AddSite(c.Raw, now); err != nil {
			return err
		}
	}
	return s.issueOwn(key, u, now)
}

// RenewSites certifies anew those of our sites whose certificates are past half of
// their life, where the organisation's key is at hand. It says how many.
func (s *State) RenewSites(key *identity.Key, now time.Time) (n int, err error) {
	if s.Directory == nil || s.Certificate == nil {
		return 0, nil
	}
	for _, r := range s.Directory.Records(now) {
		if r.Organisation != s.Organisation || r.NotAfter.Sub(now) > siteLife/2 {
			continue
		}
		c, err := s.issue(key, r.Name, r.Site.Site, r.Addrs, r.Consent, r.Serial, now)
		if err != nil {
			return n, err
		}
		if _, err := s.Directory.AddSite(c.Raw, now); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// siteNamed finds a site of ours by name or id, among those trusted directly and
// those with certificates.
func (s *State) siteNamed(name string) (identity.ID, bool) {
	for _, p := range s.Peers {
		if p.Name == name || string(p.ID) == name {
			return p.ID, true
		}
	}
	if s.Directory == nil {
		return "", false
	}
	return s.Directory.SiteNamed(s.Organisation, name)
}

func (s *State) dropPeer(id identity.ID) {
	for i, p := range s.Peers {
		if p.ID == id {
			s.Peers = append(s.Peers[:i:i], s.Peers[i+1:]...)
			return
		}
	}
}
