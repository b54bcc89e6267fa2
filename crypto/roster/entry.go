package roster

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// Limits of an entry.
const (
	MaxEntry = 64 << 10 // bytes of an encoded one
	MaxWhy   = 200      // bytes
	maxProof = 20 << 10 // bytes of either message of a proof
)

// A Kind says what an entry does.
type Kind string

// Kinds. Those of the first group need two thirds of the counted organisations;
// those of the second only their own organisation, or its root.
const (
	Admit        Kind = "admit"        // Cert, Voter: a new organisation, as observer
	Count        Kind = "count"        // an observer counts from now on
	Revoke       Kind = "revoke"       // an organisation leaves; by itself or by two thirds
	Equivocation Kind = "equivocation" // Proof: it signed two things that exclude each other; it leaves
	Reroot       Kind = "reroot"       // Cert under another root: the way out of a lost one

	Renew      Kind = "renew"       // Cert of the same root with a higher serial; the root's word is enough
	Voter      Kind = "voter"       // another voting site
	RevokeSite Kind = "revoke-site" // a site, by its own organisation or by two thirds
)

// Kinds lists every kind.
func Kinds() []Kind {
	return []Kind{Admit, Count, Revoke, Equivocation, Reroot, Renew, Voter, RevokeSite}
}

// An Entry changes a roster. Which fields it has follows from its Kind.
type Entry struct {
	Parent       Hash // the Head that it follows
	Kind         Kind
	Organisation string
	Cert         []byte      // an encoded organisation's certificate
	Site         identity.ID // the voting site, or the revoked one
	Why          string      // printable ASCII, for people
	Proof        *Proof
	Votes        []Vote // by organisation, ascending
}

// A Vote is an organisation's signature on an entry, by its present key.
type Vote struct {
	Organisation string
	Sig          []byte
}

// A Proof shows that one key signed two messages of a kind. Whether they exclude
// each other is for who knows the kind: see Conflict.
type Proof struct {
	Author     identity.ID // the organisation's key, or its voting site
	Kind       string      // of the signatures
	A, B       []byte
	SigA, SigB []byte
}

// Conflict says whether two messages of a kind, signed by one author, exclude each
// other. It must be a pure function.
type Conflict func(kind string, a, b []byte) bool

type entryBody struct {
	Version      uint8      `cbor:"1,keyasint"`
	Parent       []byte     `cbor:"2,keyasint"`
	Kind         string     `cbor:"3,keyasint"`
	Organisation string     `cbor:"4,keyasint"`
	Cert         []byte     `cbor:"5,keyasint,omitempty"`
	Site         string     `cbor:"6,keyasint,omitempty"`
	Why          string     `cbor:"7,keyasint,omitempty"`
	Proof        *proofBody `cbor:"8,keyasint,omitempty"`
	Votes        []voteBody `cbor:"9,keyasint,omitempty"`
}

type voteBody struct {
	Organisation string `cbor:"1,keyasint"`
	Sig          []byte `cbor:"2,keyasint"`
}

type proofBody struct {
	Author string `cbor:"1,keyasint"`
	Kind   string `cbor:"2,keyasint"`
	A      []byte `cbor:"3,keyasint"`
	B      []byte `cbor:"4,keyasint"`
	SigA   []byte `cbor:"5,keyasint"`
	SigB   []byte `cbor:"6,keyasint"`
}

const kindVote = "roster-entry"

func (e *Entry) body(votes bool) entryBody {
	b := entryBody{
		Version: 1, Parent: e.Parent[:], Kind: string(e.Kind), Organisation: e.Organisation,
		Cert: e.Cert, Site: string(e.Site), Why: e.Why,
	}
	if p := e.Proof; p != nil {
		b.Proof = &proofBody{string(p.Author), p.Kind, p.A, p.B, p.SigA, p.SigB}
	}
	if votes {
		for _, v := range e.Votes {
			b.Votes = append(b.Votes, voteBody(v))
		}
	}
	return b
}

// Encode is the entry as it travels, refused where ParseEntry would refuse it.
func (e *Entry) Encode() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	b, err := canon.Marshal(e.body(true))
	if err == nil && len(b) > MaxEntry {
		err = fmt.Errorf("%d bytes: expected at most %d", len(b), MaxEntry)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrEntry, err)
	}
	return b, nil
}

// ParseEntry reads what Encode wrote and checks all that needs no roster. It keeps b.
func ParseEntry(b []byte) (*Entry, error) {
	if len(b) > MaxEntry {
		return nil, fmt.Errorf("%w: %d bytes: expected at most %d", ErrEntry, len(b), MaxEntry)
	}
	var body entryBody
	if err := canon.Unmarshal(b, &body); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrEntry, err)
	}
	if body.Version != 1 || len(body.Parent) != len(Hash{}) {
		return nil, fmt.Errorf("%w: version %d and a parent of %d bytes: expected 1 and %d", ErrEntry, body.Version, len(body.Parent), len(Hash{}))
	}
	e := &Entry{
		Parent: Hash(body.Parent), Kind: Kind(body.Kind), Organisation: body.Organisation,
		Cert: body.Cert, Site: identity.ID(body.Site), Why: body.Why,
	}
	if p := body.Proof; p != nil {
		e.Proof = &Proof{identity.ID(p.Author), p.Kind, p.A, p.B, p.SigA, p.SigB}
	}
	for _, v := range body.Votes {
		e.Votes = append(e.Votes, Vote(v))
	}
	return e, e.check()
}

// ID names the entry whoever has signed it so far.
func (e *Entry) ID() (Hash, error) {
	b, err := e.unsigned()
	return sha256.Sum256(b), err
}

func (e *Entry) unsigned() ([]byte, error) {
	b, err := canon.Marshal(e.body(false))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrEntry, err)
	}
	return b, nil
}

// Sign adds an organisation's vote, or replaces the one it has.
func (e *Entry) Sign(organisation string, key *identity.Key) error {
	b, err := e.unsigned()
	if err != nil {
		return err
	}
	v := Vote{organisation, key.Sign(kindVote, ballot(organisation, b))}
	i, found := slices.BinarySearchFunc(e.Votes, organisation, func(v Vote, name string) int { return strings.Compare(v.Organisation, name) })
	if found {
		e.Votes[i] = v
	} else {
		e.Votes = slices.Insert(e.Votes, i, v)
	}
	return nil
}

// ballot binds a vote to its organisation; a name has no zero byte.
func ballot(organisation string, unsigned []byte) []byte {
	return append([]byte(organisation+"\x00"), unsigned...)
}

// check holds the form of an entry: which fields, and how large.
func (e *Entry) check() error {
	if err := e.shape(); err != nil {
		return fmt.Errorf("%w: %s of %.64q: %v", ErrEntry, e.Kind, e.Organisation, err)
	}
	return nil
}

func (e *Entry) shape() error {
	if err := identity.CheckName(e.Organisation); err != nil {
		return err
	}
	cert, site := false, false
	switch e.Kind {
	case Admit:
		cert, site = true, true
	case Reroot, Renew:
		cert = true
	case Voter, RevokeSite:
		site = true
	case Count, Revoke, Equivocation:
	default:
		return errors.New("kind: it is not one that this version knows; update this site")
	}
	if cert != (len(e.Cert) > 0) || site != (e.Site != "") || (e.Kind == Equivocation) != (e.Proof != nil) {
		return errors.New("fields: expected those of its kind and no others")
	}
	if site {
		if _, err := e.Site.Public(); err != nil {
			return err
		}
	}
	if len(e.Why) > MaxWhy || strings.ContainsFunc(e.Why, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("why: expected at most %d printable characters", MaxWhy)
	}
	if p := e.Proof; p != nil && (len(p.A) > maxProof || len(p.B) > maxProof || len(p.Kind) > 64) {
		return fmt.Errorf("proof: expected messages of at most %d bytes", maxProof)
	}
	return e.checkVotes()
}

func (e *Entry) checkVotes() error {
	if len(e.Votes) > MaxOrganisations {
		return fmt.Errorf("votes: %d: expected at most %d", len(e.Votes), MaxOrganisations)
	}
	for i, v := range e.Votes {
		if err := identity.CheckName(v.Organisation); err != nil {
			return fmt.Errorf("votes: %v", err)
		}
		if i > 0 && e.Votes[i-1].Organisation >= v.Organisation {
			return errors.New("votes: expected ascending names, each once")
		}
	}
	return nil
}
