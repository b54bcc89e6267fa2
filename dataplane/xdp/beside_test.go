package xdp

import (
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// bouncer is a blocklist of another program on the host, in the layout of CrowdSec's
// firewall bouncer: a set of addresses that time out, asked ahead of the input chain.
type bouncer struct {
	c     *nftables.Conn
	table *nftables.Table
	set   *nftables.Set
}

func (l *lab) bouncer(t *testing.T) *bouncer {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(int(l.host)))
	check(t, err)
	b := &bouncer{c: c, table: c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "crowdsec"})}
	b.set = &nftables.Set{Table: b.table, Name: "crowdsec-blacklists", KeyType: nftables.TypeIPAddr, HasTimeout: true}
	check(t, c.AddSet(b.set, nil))
	prio := nftables.ChainPriority(-10)
	chain := c.AddChain(&nftables.Chain{Name: "input", Table: b.table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: &prio})
	c.AddRule(&nftables.Rule{Table: b.table, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: b.set.Name, SetID: b.set.ID},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	check(t, c.Flush())
	return b
}

func (b *bouncer) block(t *testing.T) {
	t.Helper()
	check(t, b.c.SetAddElements(b.set, []nftables.SetElement{{Key: peerAddr.AsSlice(), Timeout: time.Hour}}))
	check(t, b.c.Flush())
}

func (b *bouncer) unblock(t *testing.T) {
	t.Helper()
	check(t, b.c.SetDeleteElements(b.set, []nftables.SetElement{{Key: peerAddr.AsSlice()}}))
	check(t, b.c.Flush())
}

func (b *bouncer) leave(t *testing.T) {
	t.Helper()
	b.c.DelTable(b.table)
	check(t, b.c.Flush())
}

// Another program that blocks by nftables stays what it is beside a plane that
// comes, blocks and goes, and so does the plane beside it: what either blocks is
// blocked, and who is to pass must be unblocked by both.
func TestBesideAnotherBlocker(t *testing.T) {
	l := newLab(t)
	b := l.bouncer(t)
	addr := l.echo(t)
	blocked := func(when string, want bool) {
		t.Helper()
		wait := patience
		if want {
			wait = impatience
		}
		if err := l.talk(t, addr, "x", wait); (err != nil) != want {
			t.Errorf("%s: %v: expected blocked %v", when, err, want)
		}
	}
	p := l.open(t, l.options(dataplane.Enforce))
	dropped := func() uint64 {
		t.Helper()
		s, err := p.Stats()
		check(t, err)
		return s.Dropped
	}
	blocked("by nobody", false)
	b.block(t)
	blocked("by the other only", true)
	if n := dropped(); n != 0 {
		t.Errorf("the plane dropped %d packets that only the other blocks", n)
	}
	check(t, p.Apply(blockPeer(time.Hour)))
	b.unblock(t)
	blocked("by the plane only", true)
	if dropped() == 0 {
		t.Error("the plane dropped nothing of a peer that only it blocks")
	}
	b.block(t)
	check(t, p.Remove(dataplane.Peer(peerAddr)))
	blocked("by the other again", true)
	check(t, p.Close())
	l.detachPinned(t)
	blocked("by the other, without the plane", true)
	p = l.open(t, l.options(dataplane.Enforce))
	check(t, p.Apply(blockPeer(time.Hour)))
	b.leave(t) // a bouncer takes its table away when it stops
	blocked("by the plane, without the other", true)
	check(t, p.Remove(dataplane.Peer(peerAddr)))
	blocked("by nobody again", false)
}
