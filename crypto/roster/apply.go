package roster

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// Tally says who of those who count has signed an entry validly, and how many are
// needed. Votes of others, and void ones, are left out.
func (r *Roster) Tally(e *Entry) (signed []string, needed int) {
	b, err := e.unsigned()
	if err != nil {
		return nil, Quorum(len(r.Counted()))
	}
	for _, v := range e.Votes {
		m := r.members[v.Organisation]
		if m != nil && m.Standing == Counted && identity.Verify(m.Key, kindVote, ballot(v.Organisation, b), v.Sig) == nil {
			signed = append(signed, v.Organisation)
		}
	}
	return signed, Quorum(len(r.Counted()))
}

// ownVote says whether the organisation that the entry is about has signed it,
// whatever its standing.
func (r *Roster) ownVote(e *Entry) bool {
	m := r.members[e.Organisation]
	b, err := e.unsigned()
	if m == nil || err != nil {
		return false
	}
	return slices.ContainsFunc(e.Votes, func(v Vote) bool {
		return v.Organisation == e.Organisation && identity.Verify(m.Key, kindVote, ballot(v.Organisation, b), v.Sig) == nil
	})
}

// Apply is the roster after an entry, or why the entry cannot stand: ErrParent,
// ErrVotes, or another ErrEntry. Conflict judges proofs of equivocation; nil
// accepts none. The receiver stays as it was.
func (r *Roster) Apply(e *Entry, conflict Conflict) (*Roster, error) {
	if err := r.Fits(e, conflict); err != nil {
		return nil, err
	}
	if err := r.authorised(e); err != nil {
		return nil, err
	}
	return r.next(e, conflict)
}

// Fits says whether the entry could stand once enough have signed.
func (r *Roster) Fits(e *Entry, conflict Conflict) error {
	if err := e.check(); err != nil {
		return err
	}
	if e.Parent != r.head {
		return fmt.Errorf("%w: %s, ours is %s at epoch %d", ErrParent, e.Parent.String()[:12], r.head.String()[:12], r.epoch)
	}
	_, err := r.next(e, conflict)
	return err
}

// authorised checks the votes of a kind.
func (r *Roster) authorised(e *Entry) error {
	switch e.Kind {
	case Renew:
		return nil // the certificate's own root has signed it
	case Voter, RevokeSite, Revoke:
		if r.ownVote(e) {
			return nil
		}
	}
	if signed, needed := r.Tally(e); len(signed) < needed || e.Kind == Voter {
		return fmt.Errorf("%w: %s of %s: %d of %d needed", ErrVotes, e.Kind, e.Organisation, len(signed), needed)
	}
	return nil
}

// next carries the entry out on a copy.
func (r *Roster) next(e *Entry, conflict Conflict) (*Roster, error) {
	if r.epoch >= MaxEpoch {
		return nil, fmt.Errorf("%w: %d entries are the most that a consortium can have", ErrEntry, uint64(MaxEpoch))
	}
	b, err := e.unsigned()
	if err != nil {
		return nil, err
	}
	c := r.clone()
	if err := c.carryOut(e, conflict); err != nil {
		return nil, fmt.Errorf("%w: %s of %s: %w", ErrEntry, e.Kind, e.Organisation, err)
	}
	if len(c.Counted()) == 0 {
		return nil, fmt.Errorf("%w: %s of %s: nobody would be left who counts; count another organisation first", ErrEntry, e.Kind, e.Organisation)
	}
	c.head = headAfter(r.head, b)
	c.epoch++
	return c, nil
}

// headAfter chains an entry to the head before it. Votes are left out: two sites
// may have collected different ones.
func headAfter(head Hash, unsigned []byte) Hash {
	return sha256.Sum256(slices.Concat([]byte("hedgerow/roster/1\x00"), head[:], unsigned))
}

// carryOut changes a cloned roster.
func (r *Roster) carryOut(e *Entry, conflict Conflict) error {
	switch e.Kind {
	case Admit:
		return r.admit(e)
	case Count:
		return r.change(e, func(m *Member) error {
			if m.Standing == Counted {
				return errors.New("it counts already")
			}
			m.Standing = Counted
			return nil
		})
	case Revoke:
		return r.remove(e.Organisation)
	case Equivocation:
		if err := r.proves(e, conflict); err != nil {
			return err
		}
		return r.remove(e.Organisation)
	case Reroot, Renew:
		return r.recertify(e)
	case Voter:
		return r.change(e, func(m *Member) error { return r.setVoter(m, e.Site) })
	case RevokeSite:
		return r.change(e, func(m *Member) error { return m.revoke(e.Site) })
	}
	return errors.New("unknown kind")
}

func (r *Roster) change(e *Entry, f func(*Member) error) error {
	m, err := r.edit(e.Organisation)
	if err != nil {
		return err
	}
	return f(m)
}

func (r *Roster) remove(organisation string) error {
	if r.members[organisation] == nil {
		return ErrNotMember
	}
	delete(r.members, organisation)
	return nil
}

// admit adds an observer. A name that was here before needs a higher serial, so
// that no old entry or certificate brings anybody back.
func (r *Roster) admit(e *Entry) error {
	o, err := r.certificate(e)
	if err != nil {
		return err
	}
	if r.members[e.Organisation] != nil {
		return errors.New("it is a member already")
	}
	if len(r.members) >= MaxOrganisations || len(r.serials) >= MaxNames {
		return fmt.Errorf("the consortium is full: %d organisations, %d names ever: expected at most %d and %d", len(r.members), len(r.serials), MaxOrganisations, MaxNames)
	}
	m := &Member{Organisation: *o, Standing: Observer, Since: r.epoch + 1}
	if err := r.setVoter(m, e.Site); err != nil {
		return err
	}
	r.members[o.Name], r.serials[o.Name] = m, o.Serial
	return nil
}

// certificate reads the entry's, and refuses what would let one key or root be two.
func (r *Roster) certificate(e *Entry) (*identity.Organisation, error) {
	o, err := identity.ParseOrganisation(e.Cert)
	if err != nil {
		return nil, err
	}
	if o.Name != e.Organisation {
		return nil, fmt.Errorf("its certificate is of %q", o.Name)
	}
	if o.Serial <= r.serials[o.Name] {
		return nil, fmt.Errorf("serial %d: expected one above %d, which was used before", o.Serial, r.serials[o.Name])
	}
	for _, m := range r.members {
		if m.Name != o.Name && (m.Root == o.Root || m.Key == o.Key || m.Root == o.Key || m.Key == o.Root) {
			return nil, fmt.Errorf("its keys are those of %s: one organisation, one vote", m.Name)
		}
	}
	return o, nil
}

// setVoter wants each voting site to vote for one organisation.
func (r *Roster) setVoter(m *Member, site identity.ID) error {
	for _, other := range r.members {
		if other.Name != m.Name && other.Voter == site {
			return fmt.Errorf("site %s votes for %s", site.Short(), other.Name)
		}
	}
	if slices.Contains(m.revoked, site) {
		return fmt.Errorf("site %s: %w", site.Short(), ErrRevoked)
	}
	m.Voter = site
	return nil
}

// recertify takes a new key, and with reroot a new root as well. Sites of the old
// key end with it, so what was revoked among them may be forgotten.
func (r *Roster) recertify(e *Entry) error {
	o, err := r.certificate(e)
	if err != nil {
		return err
	}
	return r.change(e, func(m *Member) error {
		if (m.Root == o.Root) != (e.Kind == Renew) {
			return errors.New("root: expected the same for renew, another for reroot")
		}
		if o.Key != m.Key {
			m.revoked = nil
		}
		m.Organisation = *o
		r.serials[o.Name] = o.Serial
		return nil
	})
}

// revoke ends a site for as long as the organisation's key is in use.
func (m *Member) revoke(site identity.ID) error {
	if slices.Contains(m.revoked, site) {
		return errors.New("the site is revoked already")
	}
	if site == m.Voter {
		return errors.New("it is the voting site: name another one first (kind voter)")
	}
	if len(m.revoked) >= MaxRevokedSites {
		return fmt.Errorf("%d sites are revoked, which is the most: rotate the organisation's key, which ends them all", len(m.revoked))
	}
	m.revoked = append(m.revoked, site)
	return nil
}

// proves checks both signatures and that the messages exclude each other.
func (r *Roster) proves(e *Entry, conflict Conflict) error {
	m, p := r.members[e.Organisation], e.Proof
	if m == nil {
		return ErrNotMember
	}
	if p.Author != m.Key && p.Author != m.Voter {
		return errors.New("proof: its author is neither the organisation's key nor its voting site")
	}
	if err := errors.Join(identity.Verify(p.Author, p.Kind, p.A, p.SigA), identity.Verify(p.Author, p.Kind, p.B, p.SigB)); err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	if bytes.Equal(p.A, p.B) || conflict == nil || !conflict(p.Kind, p.A, p.B) {
		return errors.New("proof: the two messages do not exclude each other")
	}
	return nil
}
