package council

import (
	"bytes"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Follow tells whom the consortium wants in the roster: organisations that are to
// count, and those that are to observe. Each member signs the next change on
// the way there and tells the others; a proposer puts it into its block once two
// thirds have signed.
func (m *Machine) Follow(now time.Time, counted, observers []chain.Member) {
	now = m.wake(now)
	m.counted, m.observers = counted, observers
	m.goal = goal{}
	m.progress(now)
}

// goal is the next change of the roster behind a block, as it was last found.
type goal struct {
	behind *chain.Context // of a link in the tree, which never changes
	change *wire.Entry
}

// wanted is the next change of the roster behind a block. It is not to be changed.
func (m *Machine) wanted(c *chain.Context) *wire.Entry {
	if m.counted == nil || len(c.Pending) > 0 {
		return nil
	}
	if m.goal.behind != c {
		m.goal = goal{c, c.Toward(m.counted, m.observers)}
	}
	return m.goal.change
}

// approve signs the next change, once.
func (m *Machine) approve() {
	tip := m.tree.Tip()
	e := m.wanted(&tip.Next)
	if e == nil || tip.Next.Org(m.cfg.Self) < 0 {
		return
	}
	if own := m.approvals[m.cfg.Self]; own != nil && m.same(&own.Entry, e) {
		return
	}
	kind, msg := chain.EntryBytes(m.tree.Chain(), e)
	p := &wire.Approve{Entry: *e}
	copy(p.Sig[:], m.cfg.Sign(kind, msg))
	m.approvals[m.cfg.Self] = p
	m.ready.Seal = append(m.ready.Seal, p)
}

// reapprove sends our signature again while it is wanted.
func (m *Machine) reapprove() {
	own := m.approvals[m.cfg.Self]
	if e := m.wanted(&m.tree.Tip().Next); m.approval != nil && own != nil && e != nil && m.same(&own.Entry, e) {
		m.ready.Send = append(m.ready.Send, m.approval)
	}
}

// same says whether two entries ask for the same: what an approval signs.
func (m *Machine) same(a, b *wire.Entry) bool {
	_, x := chain.EntryBytes(m.tree.Chain(), a)
	_, y := chain.EntryBytes(m.tree.Chain(), b)
	return bytes.Equal(x, y)
}

// takeApproval keeps one signature of each author: the latest.
func (m *Machine) takeApproval(msg *wire.Message, p *wire.Approve) *wire.Refusal {
	if msg.Author == m.cfg.Self {
		m.approval = msg
		return nil
	}
	if old := m.approvals[msg.Author]; old != nil && m.same(&old.Entry, &p.Entry) {
		return wire.Refuse(wire.Duplicate, "approval of %s %s", p.Entry.Kind, p.Entry.Org)
	}
	c := m.tree.Tip().Next
	if p.Entry.Epoch < c.Epoch {
		return wire.Refuse(wire.WrongRound, "approval for epoch %d: expected %d or later", p.Entry.Epoch, c.Epoch)
	}
	kind, signed := chain.EntryBytes(m.tree.Chain(), &p.Entry)
	if !m.cfg.Crypto.Verify(msg.Author, kind, signed, p.Sig[:]) {
		return wire.Refuse(wire.BadSignature, "approval of %s %s", p.Entry.Kind, p.Entry.Org)
	}
	m.approvals[msg.Author] = p
	return nil
}

// approved is the next change with its signatures, once there are enough.
func (m *Machine) approved(c *chain.Context) *wire.Entry {
	next := m.wanted(c)
	if next == nil {
		return nil
	}
	with := *next
	e := &with
	for i, o := range c.Orgs {
		if p := m.approvals[o.Voter]; p != nil && m.same(&p.Entry, e) && len(e.Approvals) < c.Quorum() {
			e.Approvals = append(e.Approvals, wire.OrgSig{Org: uint64(i), Sig: p.Sig})
		}
	}
	if len(e.Approvals) < c.Quorum() {
		return nil
	}
	return e
}
