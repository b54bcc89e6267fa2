package chain

import (
	"fmt"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// checker knows one chain's name and how to check signatures.
type checker struct {
	chain  wire.Hash
	crypto Crypto
}

// check says whether a block may follow c. It is complete but for the seal and
// the model's hash.
func (k checker) check(c *Context, b *wire.Block) error {
	switch {
	case b.Round <= c.Round:
		return wire.Refuse(wire.WrongRound, "block of round %d on a parent of round %d", b.Round, c.Round)
	case b.Height != c.Height+1:
		return wire.Refuse(wire.BadField, "height: %d: expected %d", b.Height, c.Height+1)
	case b.Epoch != c.Epoch:
		return wire.Refuse(wire.WrongBase, "epoch: %d: expected %d", b.Epoch, c.Epoch)
	}
	set := wire.SetHash(b.Round, b.Epoch, b.Parent, b.Commits)
	if err := k.quorum(c, Statement{Kind: SaySetVote, Round: b.Round, Hash: set}, b.SetSigs); err != nil {
		return fmt.Errorf("commit set: %w", err)
	}
	if err := c.CheckCommits(b.Round, b.Commits); err != nil {
		return err
	}
	if err := k.deltas(c, b); err != nil {
		return err
	}
	for i := range b.Entries {
		if err := k.entry(c, b, &b.Entries[i]); err != nil {
			return err
		}
	}
	return nil
}

// CheckCommits says whether these may commit together in a round on c.
func (c *Context) CheckCommits(round uint64, commits []wire.OrgHash) error {
	if least := MinList(len(c.Orgs)); len(commits) < least {
		return wire.Refuse(wire.WrongLength, "%d commitments: expected at least %d of %d organisations", len(commits), least, len(c.Orgs))
	}
	for _, commit := range commits {
		if commit.Org >= uint64(len(c.Orgs)) || c.Barred(int(commit.Org), round) {
			return wire.Refuse(wire.NotMember, "commitment of organisation %d, which is barred or not in the roster", commit.Org)
		}
	}
	return nil
}

func (k checker) deltas(c *Context, b *wire.Block) error {
	if least := MinList(len(c.Orgs)); len(b.Deltas) < least {
		return wire.Refuse(wire.WrongLength, "%d deltas listed: expected at least %d of %d organisations", len(b.Deltas), least, len(c.Orgs))
	}
	for _, d := range b.Deltas {
		i := slices.IndexFunc(b.Commits, func(o wire.OrgHash) bool { return o.Org == d.Org })
		if i < 0 {
			return wire.Refuse(wire.NotFound, "a delta of organisation %d, which did not commit", d.Org)
		}
		opened := CommitHash(k.chain, c.Orgs[d.Org].Voter, b.Round, b.Epoch, b.Parent, d.Salt, d.Delta)
		if opened != b.Commits[i].Hash {
			return wire.Refuse(wire.Equivocation, "the delta of organisation %d is not what it committed to", d.Org)
		}
	}
	return nil
}

// entry checks a change of the roster: one at a time, two thirds for it.
func (k checker) entry(c *Context, b *wire.Block, e *wire.Entry) error {
	pending := len(c.Pending) > 0 && b.Round != c.Round+1
	if pending || e.Epoch != c.Epoch+uint64(len(c.Pending)) {
		return wire.Refuse(wire.WrongBase, "entry for epoch %d: another change of the roster is on its way, or came first", e.Epoch)
	}
	after := c.Settled()
	if err := after.fits(e); err != nil {
		return err
	}
	if e.Kind == wire.Equivocated {
		return k.proof(e)
	}
	if n := after.approvals(k, e); n < after.Quorum() {
		return wire.Refuse(wire.BadSignature, "entry %s %q: %d approvals: expected %d", e.Kind, e.Org, n, after.Quorum())
	}
	return nil
}

// fits says whether the roster can be changed so.
func (c *Context) fits(e *wire.Entry) error {
	m := Member{Org: e.Org, Voter: e.Voter}
	same := func(o Member) bool { return o.Org == m.Org || o.Voter == m.Voter }
	org := slices.ContainsFunc(c.Orgs, func(o Member) bool { return o.Org == e.Org })
	ok := false
	switch e.Kind {
	case wire.Observes:
		ok = !slices.ContainsFunc(c.Orgs, same) && !slices.ContainsFunc(c.Observers, same) && len(c.Observers) < wire.MaxOrgs
	case wire.Admits:
		ok = slices.Contains(c.Observers, m) && len(c.Orgs) < wire.MaxOrgs
	case wire.Rotates:
		taken := slices.ContainsFunc(slices.Concat(c.Orgs, c.Observers), func(o Member) bool { return o.Voter == m.Voter })
		ok = org && !taken
	case wire.Revokes:
		ok = slices.Contains(c.Observers, m) || (slices.Contains(c.Orgs, m) && len(c.Orgs) > MinOrgs)
	case wire.Equivocated:
		ok = slices.Contains(c.Orgs, m) && len(c.Orgs) > MinOrgs
	}
	joins := e.Kind == wire.Observes || e.Kind == wire.Admits || e.Kind == wire.Rotates
	if !ok || (joins && slices.Contains(c.Expelled, e.Voter)) {
		return wire.Refuse(wire.BadField, "entry %s %q: does not fit the roster of epoch %d", e.Kind, e.Org, c.Epoch)
	}
	return nil
}

func (c *Context) approvals(k checker, e *wire.Entry) (n int) {
	kind, msg := EntryBytes(k.chain, e)
	for _, a := range e.Approvals {
		if a.Org < uint64(len(c.Orgs)) && k.crypto.Verify(c.Orgs[a.Org].Voter, kind, msg, a.Sig[:]) {
			n++
		}
	}
	return n
}

// proof checks that two statements exclude each other and are of one voter.
func (k checker) proof(e *wire.Entry) error {
	p := e.Proof
	switch p.Statement {
	case SayCommit:
	case SaySet, SaySetVote, SayList, SayVote:
		if p.Parent != (wire.Hash{}) {
			return wire.Refuse(wire.BadField, "proof: expected no parent with %s", p.Statement)
		}
	default:
		return wire.Refuse(wire.BadField, "proof: statement %.20q", p.Statement)
	}
	if p.A == p.B {
		return wire.Refuse(wire.BadField, "proof: twice the same statement")
	}
	for _, side := range []struct {
		hash wire.Hash
		sig  wire.Sig
	}{{p.A, p.SigA}, {p.B, p.SigB}} {
		st := Statement{Kind: p.Statement, Round: p.Round, Parent: p.Parent, Hash: side.hash}
		if !k.crypto.Verify(e.Voter, st.Kind, st.Bytes(k.chain), side.sig[:]) {
			return wire.Refuse(wire.BadSignature, "proof against %q", e.Org)
		}
	}
	return nil
}

// quorum checks that two thirds signed a statement, by keys that count already.
func (k checker) quorum(c *Context, st Statement, sigs []wire.OrgSig) error {
	if len(sigs) < c.Quorum() {
		return wire.Refuse(wire.BadSignature, "%d signatures: expected %d", len(sigs), c.Quorum())
	}
	msg := st.Bytes(k.chain)
	for _, s := range sigs {
		if s.Org >= uint64(len(c.Orgs)) || !c.Seals(int(s.Org)) || !k.crypto.Verify(c.Orgs[s.Org].Voter, st.Kind, msg, s.Sig[:]) {
			return wire.Refuse(wire.BadSignature, "of organisation %d", s.Org)
		}
	}
	return nil
}
