package chain

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Bounds of a roster. Below MinOrgs organisations the shares of liars that the
// rules are stated for are less than one organisation.
const (
	MinOrgs = 4
	// BarredFor is how many rounds an organisation sits out that committed to a
	// delta and then withheld it.
	BarredFor = 3
)

// A Member is an organisation and the key of its one voting site.
type Member struct {
	_     struct{} `cbor:",toarray"`
	Org   string
	Voter identity.ID
}

// Quorum is two thirds of n organisations, rounded up: any two quorums share
// more members than a third of n, less one, can be.
func Quorum(n int) int { return (2*n + 2) / 3 }

// MinList is the shortest list that may be sealed. f = n/5 liars, all listed,
// are then at most 30 % of the list, which the robust rules withstand. A
// list is also never shorter than a majority.
func MinList(n int) int { return max((10*(n/5)+2)/3, n/2+1) }

// Liars is how many of a list's deltas the robust rule has to withstand.
func Liars(listed int) int { return 3 * listed / 10 }

// Genesis is what all members agree on before the first round.
type Genesis struct {
	Name   string // of the consortium
	Schema string // of the model
	Rule   string // that combines deltas, with its version
	Init   []float32
	Orgs   []Member
}

// Check validates a genesis.
func (g Genesis) Check() error {
	switch {
	case g.Name == "" || len(g.Name) > wire.MaxSchema:
		return fmt.Errorf("chain: genesis: name: %d bytes: expected 1 to %d", len(g.Name), wire.MaxSchema)
	case g.Rule == "" || len(g.Rule) > wire.MaxSchema:
		return fmt.Errorf("chain: genesis: rule: %d bytes: expected 1 to %d", len(g.Rule), wire.MaxSchema)
	case len(g.Orgs) < MinOrgs || len(g.Orgs) > wire.MaxOrgs:
		return fmt.Errorf("chain: genesis: %d organisations: expected %d to %d", len(g.Orgs), MinOrgs, wire.MaxOrgs)
	}
	seen := map[any]bool{}
	for _, m := range g.Orgs {
		if _, err := identity.ParseID(string(m.Voter)); err != nil {
			return fmt.Errorf("chain: genesis: organisation %q: %w", m.Org, err)
		}
		if m.Org == "" || len(m.Org) > wire.MaxSchema || seen[m.Org] || seen[m.Voter] {
			return fmt.Errorf("chain: genesis: organisation %q: expected a name and a key that no other has: one organisation, one voter", m.Org)
		}
		seen[m.Org], seen[m.Voter] = true, true
	}
	if err := wire.CheckSchema(g.Schema); err != nil {
		return fmt.Errorf("chain: genesis: %w", err)
	}
	if err := wire.CheckParams(g.Init); err != nil {
		return fmt.Errorf("chain: genesis: %w", err)
	}
	return nil
}

// Hash names the chain. Every signature covers it, so none can be carried from
// one consortium to another.
func (g Genesis) Hash() wire.Hash {
	h := sha256.New()
	put := func(format string, args ...any) { _, _ = fmt.Fprintf(h, format, args...) } // a hash never fails
	put("hedgerow/genesis/1\x00%d:%s%d:%s", len(g.Name), g.Name, len(g.Rule), g.Rule)
	model := wire.ModelHash(g.Schema, g.Init)
	_, _ = h.Write(model[:])
	for _, m := range sorted(g.Orgs) {
		put("%d:%s", len(m.Org), m.Org)
		put("%d:%s", len(m.Voter), m.Voter)
	}
	return wire.Hash(h.Sum(nil))
}

func sorted(orgs []Member) []Member {
	orgs = slices.Clone(orgs)
	slices.SortFunc(orgs, byOrg)
	return orgs
}

func byOrg(a, b Member) int { return cmp.Compare(a.Org, b.Org) }

// A Bar keeps an organisation out of the rounds up to one. Rounds, not blocks: bars
// and liars together can leave too few for a block, and then only rounds go by.
type Bar struct {
	_     struct{} `cbor:",toarray"`
	Voter identity.ID
	Until uint64
}

// Context is what a block finds that follows another.
type Context struct {
	Epoch     uint64       `cbor:"1,keyasint"` // changes of the roster so far
	Orgs      []Member     `cbor:"2,keyasint"` // sorted by name; an OrgSig counts into these
	Observers []Member     `cbor:"3,keyasint"`
	Pending   []wire.Entry `cbor:"4,keyasint"` // said in a block that is not final yet on this path
	Bars      []Bar        `cbor:"5,keyasint"`
	Height    uint64       `cbor:"6,keyasint"` // of the parent
	Round     uint64       `cbor:"7,keyasint"` // of the parent
	Model     wire.Hash    `cbor:"8,keyasint"` // of the parent
	// Expelled are voting sites that were proved to have lied. Their organisations
	// come back with another one.
	Expelled []identity.ID `cbor:"9,keyasint,omitempty"`
	// Fresh is the key that the last change put in the place of another, until a
	// later block is final on this path: see Seals.
	Fresh identity.ID `cbor:"10,keyasint,omitempty"`
}

// Org is an organisation's place, or -1.
func (c *Context) Org(voter identity.ID) int {
	return slices.IndexFunc(c.Orgs, func(m Member) bool { return m.Voter == voter })
}

// Quorum is how many signatures a block needs.
func (c *Context) Quorum() int { return Quorum(len(c.Orgs)) }

// Seals says whether an organisation's signature counts towards a quorum. One that
// has changed its key is left out until a block that acts by the new roster is
// known to all branches: a quorum with the old key and one with the new share one
// member less than two of one roster, and that one may be the only honest one.
func (c *Context) Seals(org int) bool { return c.Orgs[org].Voter != c.Fresh }

// Barred says whether an organisation has to sit a round out. When bars would
// leave fewer than two thirds, there are none: they are to cost those who
// withhold, not everybody.
func (c *Context) Barred(org int, round uint64) bool {
	return c.barred(org, round) && len(c.Orgs)-c.bars(round) >= c.Quorum()
}

func (c *Context) barred(org int, round uint64) bool {
	return slices.ContainsFunc(c.Bars, func(b Bar) bool { return b.Voter == c.Orgs[org].Voter && b.Until >= round })
}

func (c *Context) bars(round uint64) (n int) {
	for i := range c.Orgs {
		if c.barred(i, round) {
			n++
		}
	}
	return n
}

// Proposer is whose turn it is in a round. Barred organisations are passed over.
func (c *Context) Proposer(round uint64) identity.ID {
	n := uint64(len(c.Orgs))
	for i := range n {
		if at := int((round + i) % n); !c.Barred(at, round) {
			return c.Orgs[at].Voter
		}
	}
	return c.Orgs[round%n].Voter
}

// After is the context behind a block that follows c.
func (c *Context) After(b *wire.Block) Context {
	next := *c
	next.Height, next.Round, next.Model = b.Height, b.Round, b.Model
	next.Bars = slices.DeleteFunc(slices.Clone(c.Bars), func(bar Bar) bool { return bar.Until <= b.Round })
	for _, m := range c.withheld(b) {
		next.Bars = append(next.Bars, Bar{Voter: m.Voter, Until: b.Round + BarredFor})
	}
	if b.Round == c.Round+1 { // the parent has become final, and with it all before
		next.Fresh = ""
		for i := range c.Pending {
			next.apply(&c.Pending[i])
		}
		next.Pending = nil
	}
	next.Pending = append(slices.Clone(next.Pending), b.Entries...)
	return next
}

// Settled is the context once what is pending in it has become final: the roster
// on which a new entry will act.
func (c *Context) Settled() Context {
	after := *c
	for i := range c.Pending {
		after.apply(&c.Pending[i])
	}
	after.Pending = nil
	return after
}

// Toward is the next change, bare of approvals, on the way to a roster of these
// organisations; nil when there is none, or none that fits. All who want the same
// roster name the same change.
func (c *Context) Toward(counted, observers []Member) *wire.Entry {
	at := c.Settled()
	for _, m := range slices.Concat(at.Orgs, at.Observers) {
		is := func(o Member) bool { return o.Org == m.Org }
		if !slices.ContainsFunc(counted, is) && !slices.ContainsFunc(observers, is) {
			if e := at.change(wire.Revokes, m); e != nil {
				return e
			}
		}
	}
	for _, m := range sorted(counted) {
		for _, kind := range []wire.EntryKind{wire.Rotates, wire.Admits, wire.Observes} {
			if slices.Contains(at.Orgs, m) {
				break
			}
			if e := at.change(kind, m); e != nil {
				return e
			}
		}
	}
	return nil
}

func (c *Context) change(kind wire.EntryKind, m Member) *wire.Entry {
	e := &wire.Entry{Kind: kind, Org: m.Org, Voter: m.Voter, Epoch: c.Epoch}
	if c.fits(e) != nil {
		return nil
	}
	return e
}

// withheld lists who committed and is not in the list.
func (c *Context) withheld(b *wire.Block) (out []Member) {
	for _, commit := range b.Commits {
		listed := slices.ContainsFunc(b.Deltas, func(d wire.OrgDelta) bool { return d.Org == commit.Org })
		if !listed {
			out = append(out, c.Orgs[commit.Org])
		}
	}
	return out
}

// apply changes the roster. The entry was checked when its block was.
func (c *Context) apply(e *wire.Entry) {
	is := func(m Member) bool { return m.Org == e.Org }
	m := Member{Org: e.Org, Voter: e.Voter}
	c.Epoch++
	switch e.Kind {
	case wire.Observes:
		c.Observers = sorted(append(slices.Clone(c.Observers), m))
	case wire.Admits:
		c.Observers = slices.DeleteFunc(slices.Clone(c.Observers), is)
		c.Orgs = sorted(append(slices.Clone(c.Orgs), m))
	case wire.Rotates:
		c.Orgs = sorted(append(slices.DeleteFunc(slices.Clone(c.Orgs), is), m))
		c.Fresh = e.Voter
	case wire.Revokes, wire.Equivocated:
		if e.Kind == wire.Equivocated {
			c.Expelled = append(slices.Clone(c.Expelled), e.Voter)
		}
		c.Observers = slices.DeleteFunc(slices.Clone(c.Observers), is)
		c.Orgs = slices.DeleteFunc(slices.Clone(c.Orgs), is)
	}
}

// Errors that a caller may test for.
var (
	// ErrParent says that a block's parent is not known here: sync first.
	ErrParent = errors.New("chain: the parent is not known")
	// ErrFork says that a sealed block conflicts with another one in the same
	// round: a third or more of the roster has lied.
	ErrFork = errors.New("chain: two sealed blocks in one round: at least a third of the roster lies; stop rounds and compare the members' chains")
)
