// Package roster says who is in a consortium: organisations, their standing, and
// what changes either.
//
// A Roster is a value that never changes. It begins with a genesis, the founder's
// certificate and the consortium's name, and every Entry that is applied makes the
// next one, with Epoch one higher and a Head that is the hash of all before. There
// is no administrator: an entry stands when two thirds of the counted
// organisations have signed it, or when it concerns nobody but the organisation
// that signs it (its keys, its voting site, its own sites, its leaving). An entry
// names the Head that it follows, so it is applied once and at one place; whoever
// orders entries (a sealed chain of rounds, or a Log where there are too few
// organisations for rounds) needs to know nothing more about them.
//
// Everything here is pure and depends on no clock, so that all sites that apply the
// same entries have the same roster. Whether a certificate is in its window is
// asked where somebody connects or speaks: see Directory.
package roster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// Limits of a roster.
const (
	MaxOrganisations = 200     // present ones
	MaxNames         = 4096    // all that ever were: their serials are remembered
	MaxRevokedSites  = 64      // of an organisation, under one key
	MaxEpoch         = 1 << 20 // entries of a consortium's whole life
)

// Errors that a caller may test for.
var (
	// ErrEntry says that an entry cannot stand here; its text says why.
	ErrEntry = errors.New("roster: the entry is refused")
	// ErrParent says that the entry follows another head: it is late, or of a fork.
	ErrParent = errors.New("roster: the entry follows another roster than ours")
	// ErrVotes says that too few of the counted organisations have signed.
	ErrVotes = errors.New("roster: too few organisations have signed")
	// ErrNotMember says that an organisation or site is not in the roster.
	ErrNotMember = errors.New("roster: not a member")
	// ErrRevoked says that a site was, and was revoked.
	ErrRevoked = errors.New("roster: revoked")
)

// Hash is a SHA-256 sum.
type Hash [32]byte

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Standing is what an organisation's word weighs.
type Standing uint8

// Standings. An observer hears and speaks, but neither votes nor counts.
const (
	Observer Standing = iota + 1
	Counted
)

// String is the standing in a word.
func (s Standing) String() string {
	switch s {
	case Observer:
		return "observer"
	case Counted:
		return "counted"
	}
	return "none"
}

// Quorum is how many of n organisations make two thirds: the least m with 3m >= 2n.
// Two sets of so many share more than the third that may lie.
func Quorum(n int) int { return (2*n + 2) / 3 }

// A Member is an organisation in the roster.
type Member struct {
	identity.Organisation
	Standing Standing
	Voter    identity.ID // its one voting site
	Since    uint64      // epoch of its admission
	revoked  []identity.ID
}

// Revoked lists the member's sites that were revoked since its key is in use.
func (m *Member) Revoked() []identity.ID { return slices.Clone(m.revoked) }

// Roster is the state after some entries. The zero value is of no use: see Found.
type Roster struct {
	name    string
	genesis Hash
	head    Hash
	epoch   uint64
	members map[string]*Member // never changed in place
	serials map[string]uint64  // highest serial ever seen, of all names
}

// A Genesis founds a consortium.
type Genesis struct {
	Name    string
	Founder *identity.Organisation
	Voter   identity.ID
	Sig     []byte // by the founder's key
}

type genesisBody struct {
	Version uint8  `cbor:"1,keyasint"`
	Name    string `cbor:"2,keyasint"`
	Founder []byte `cbor:"3,keyasint"`
	Voter   string `cbor:"4,keyasint"`
	Sig     []byte `cbor:"5,keyasint,omitempty"`
}

const kindGenesis = "consortium-genesis"

// NewGenesis makes the beginning of a consortium, signed by the founder's key.
func NewGenesis(name string, founder *identity.Organisation, voter identity.ID, key *identity.Key) (*Genesis, error) {
	g := &Genesis{Name: name, Founder: founder, Voter: voter}
	b, err := g.encode()
	if err != nil {
		return nil, err
	}
	g.Sig = key.Sign(kindGenesis, b)
	_, err = Found(g)
	return g, err
}

// encode is the signed part while Sig is empty.
func (g *Genesis) encode() ([]byte, error) {
	return canon.Marshal(genesisBody{1, g.Name, g.Founder.Raw, string(g.Voter), g.Sig})
}

func parseGenesis(b []byte) (*Genesis, error) {
	var body genesisBody
	if err := canon.Unmarshal(b, &body); err != nil {
		return nil, fmt.Errorf("%w: genesis: %v", ErrEntry, err)
	}
	if body.Version != 1 {
		return nil, fmt.Errorf("%w: genesis: version %d: expected 1; update this site", ErrEntry, body.Version)
	}
	o, err := identity.ParseOrganisation(body.Founder)
	if err != nil {
		return nil, fmt.Errorf("%w: genesis: %w", ErrEntry, err)
	}
	return &Genesis{body.Name, o, identity.ID(body.Voter), body.Sig}, nil
}

// Found is the roster of a genesis: its founder is counted and alone.
func Found(g *Genesis) (*Roster, error) {
	if err := identity.CheckName(g.Name); err != nil {
		return nil, fmt.Errorf("%w: genesis: %v", ErrEntry, err)
	}
	if _, err := g.Voter.Public(); err != nil {
		return nil, fmt.Errorf("%w: genesis: voting site: %v", ErrEntry, err)
	}
	unsigned := *g
	unsigned.Sig = nil
	b, err := unsigned.encode()
	if err != nil {
		return nil, fmt.Errorf("%w: genesis: %v", ErrEntry, err)
	}
	if err := identity.Verify(g.Founder.Key, kindGenesis, b, g.Sig); err != nil {
		return nil, fmt.Errorf("%w: genesis: %w", ErrEntry, err)
	}
	h := sha256.Sum256(append([]byte("hedgerow/consortium/1\x00"), b...))
	return &Roster{
		name: g.Name, genesis: h, head: h,
		members: map[string]*Member{g.Founder.Name: {Organisation: *g.Founder, Standing: Counted, Voter: g.Voter}},
		serials: map[string]uint64{g.Founder.Name: g.Founder.Serial},
	}, nil
}

// Name is the consortium's.
func (r *Roster) Name() string { return r.name }

// Consortium identifies it: the hash of its genesis.
func (r *Roster) Consortium() Hash { return r.genesis }

// Head is the hash of the genesis and all entries since.
func (r *Roster) Head() Hash { return r.head }

// Epoch is the number of entries since the genesis.
func (r *Roster) Epoch() uint64 { return r.epoch }

// Members lists the organisations by name. They are shared: not to be changed.
func (r *Roster) Members() []*Member {
	return slices.SortedFunc(maps.Values(r.members), func(a, b *Member) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
}

// Member is an organisation by name, or nil.
func (r *Roster) Member(organisation string) *Member { return r.members[organisation] }

// Counted lists the organisations that vote, by name: the n of every quorum.
func (r *Roster) Counted() []*Member {
	return slices.DeleteFunc(r.Members(), func(m *Member) bool { return m.Standing != Counted })
}

// Voters lists the voting sites of the counted organisations, in the order of
// Counted: one each, however many sites it has.
func (r *Roster) Voters() []identity.ID {
	var out []identity.ID
	for _, m := range r.Counted() {
		out = append(out, m.Voter)
	}
	return out
}

// Admits says whether a site's certificate fits the roster: its organisation is a
// member, its present key issued it, the site consented and is not revoked. It does
// not look at a clock.
func (r *Roster) Admits(s *identity.Site) (*Member, error) {
	m := r.members[s.Organisation]
	if m == nil {
		return nil, fmt.Errorf("%w: organisation %s", ErrNotMember, s.Organisation)
	}
	if slices.Contains(m.revoked, s.Site) {
		return nil, fmt.Errorf("%w: site %s of %s", ErrRevoked, s.Name, s.Organisation)
	}
	if err := s.By(&m.Organisation); err != nil {
		return nil, err
	}
	return m, nil
}

// clone copies what an entry may change.
func (r *Roster) clone() *Roster {
	c := *r
	c.members, c.serials = maps.Clone(r.members), maps.Clone(r.serials)
	return &c
}

// edit is a copy of a member, put in its place in a cloned roster.
func (r *Roster) edit(organisation string) (*Member, error) {
	m := r.members[organisation]
	if m == nil {
		return nil, fmt.Errorf("%w: organisation %q", ErrNotMember, organisation)
	}
	c := *m
	c.revoked = slices.Clone(m.revoked)
	r.members[organisation] = &c
	return &c, nil
}
