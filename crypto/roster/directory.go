package roster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// Limits of a directory.
const (
	MaxSitesOf  = 16 // of one organisation
	MaxPending  = 64 // entries that wait for signatures
	maxProposed = 8  // of those, what one organisation may bring in
)

// A Record is a site that may connect and speak now.
type Record struct {
	identity.Site
	Standing Standing
	Voter    bool // it is its organisation's voting site
}

// A Directory is what a site knows of its consortium: the log, the newest
// certificate of every site, and entries that wait for signatures. It takes the
// time as an argument; its methods are not safe for concurrent use.
type Directory struct {
	log     *Log
	sites   map[identity.ID]*identity.Site
	pending []*proposal // in the order of arrival, all on the present head
}

type proposal struct {
	id    Hash
	by    string // to whose account it goes
	entry *Entry
}

// NewDirectory makes one over a log, which it takes over.
func NewDirectory(l *Log) *Directory {
	return &Directory{log: l, sites: make(map[identity.ID]*identity.Site)}
}

// Log is the history. It must not be appended to but by the directory.
func (d *Directory) Log() *Log { return d.log }

// Roster is the present one.
func (d *Directory) Roster() *Roster { return d.log.roster }

// AddSite takes an encoded site's certificate. It says whether that changed
// anything; an older one than ours changes nothing and is no error.
func (d *Directory) AddSite(raw []byte, now time.Time) (changed bool, err error) {
	s, err := identity.ParseSite(raw)
	if err != nil {
		return false, err
	}
	if old := d.sites[s.Site]; old != nil && old.Serial >= s.Serial && old.Issuer == s.Issuer {
		return false, nil
	}
	if _, err := d.log.roster.Admits(s); err != nil {
		return false, err
	}
	if err := s.At(now); err != nil {
		return false, err
	}
	if old := d.sites[s.Site]; old == nil && d.countOf(s.Organisation, now) >= MaxSitesOf {
		return false, fmt.Errorf("%w: %s has %d sites already: expected at most that", ErrEntry, s.Organisation, MaxSitesOf)
	}
	d.sites[s.Site] = s
	return true, nil
}

// countOf drops an organisation's expired sites and counts the others.
func (d *Directory) countOf(organisation string, now time.Time) (n int) {
	for id, s := range d.sites {
		switch {
		case s.Organisation != organisation:
		case now.After(s.NotAfter):
			delete(d.sites, id)
		default:
			n++
		}
	}
	return n
}

// Lookup is a site that may connect and speak now, or why it may not:
// ErrNotMember, ErrRevoked, identity.ErrExpired, identity.ErrNotYet.
func (d *Directory) Lookup(id identity.ID, now time.Time) (Record, error) {
	s := d.sites[id]
	if s == nil {
		return Record{}, fmt.Errorf("%w: no certificate of site %s is known", ErrNotMember, id.Short())
	}
	m, err := d.log.roster.Admits(s)
	if err != nil {
		return Record{}, err
	}
	if err := errors.Join(s.At(now), m.At(now)); err != nil {
		return Record{}, err
	}
	return Record{Site: *s, Standing: m.Standing, Voter: m.Voter == id}, nil
}

// Records lists the sites that may connect now, by organisation and name.
func (d *Directory) Records(now time.Time) []Record {
	var out []Record
	for id := range d.sites {
		if r, err := d.Lookup(id, now); err == nil {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Record) int {
		return strings.Compare(a.Organisation+"\x00"+a.Name+"\x00"+string(a.Site.Site), b.Organisation+"\x00"+b.Name+"\x00"+string(b.Site.Site))
	})
	return out
}

// Pending lists the entries that wait for signatures, oldest first. They are
// copies as far as votes go.
func (d *Directory) Pending() []*Entry {
	var out []*Entry
	for _, p := range d.pending {
		e := *p.entry
		e.Votes = slices.Clone(e.Votes)
		out = append(out, &e)
	}
	return out
}

// Propose takes an entry, or more signatures of one that waits, and appends it to
// the log when that makes enough. changed says whether anything is new, applied
// whether the roster changed.
func (d *Directory) Propose(e *Entry) (changed, applied bool, err error) {
	if err := d.log.roster.Fits(e, d.log.conflict); err != nil {
		return false, false, err
	}
	p, changed, err := d.enter(e)
	if err != nil {
		return false, false, err
	}
	err = d.log.Append(p.entry)
	switch {
	case errors.Is(err, ErrVotes):
		return changed, false, nil
	case err != nil:
		return false, false, err
	}
	d.pending = nil // all of them followed the head that was
	return true, true, nil
}

// enter merges the entry with one that waits, or has it wait.
func (d *Directory) enter(e *Entry) (p *proposal, changed bool, err error) {
	id, err := e.ID()
	if err != nil {
		return nil, false, err
	}
	signed, _ := d.log.roster.Tally(e)
	if i := slices.IndexFunc(d.pending, func(p *proposal) bool { return p.id == id }); i >= 0 {
		p = d.pending[i]
		return p, p.merge(e, signed), nil
	}
	c := *e
	p = &proposal{id: id, entry: &c}
	if d.log.roster.authorised(e) == nil {
		return p, true, nil // it stands at once
	}
	c.Votes = nil
	if len(d.pending) >= MaxPending {
		return nil, false, fmt.Errorf("%w: %d entries wait for signatures, which is the most", ErrEntry, MaxPending)
	}
	i := slices.IndexFunc(signed, func(name string) bool { return d.proposedBy(name) < maxProposed })
	if i < 0 {
		return nil, false, fmt.Errorf("%w: it waits for signatures, and nobody who counts and has fewer than %d such entries has signed it", ErrVotes, maxProposed)
	}
	p.by = signed[i]
	p.merge(e, signed)
	d.pending = append(d.pending, p)
	return p, true, nil
}

func (d *Directory) proposedBy(name string) (n int) {
	for _, p := range d.pending {
		if p.by == name {
			n++
		}
	}
	return n
}

// merge takes over the valid votes that are new.
func (p *proposal) merge(e *Entry, signed []string) (changed bool) {
	for _, v := range e.Votes {
		i, found := slices.BinarySearchFunc(p.entry.Votes, v.Organisation, func(v Vote, name string) int { return strings.Compare(v.Organisation, name) })
		if !found && slices.Contains(signed, v.Organisation) {
			p.entry.Votes = slices.Insert(p.entry.Votes, i, v)
			changed = true
		}
	}
	return changed
}

// SiteNamed finds an organisation's site by its name or id, whether it may connect
// now or not.
func (d *Directory) SiteNamed(organisation, name string) (identity.ID, bool) {
	for id, s := range d.sites {
		if s.Organisation == organisation && (s.Name == name || string(id) == name) {
			return id, true
		}
	}
	return "", false
}
