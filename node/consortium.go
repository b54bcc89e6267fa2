package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
)

// ConsortiumOptions say which consortium this site is in.
type ConsortiumOptions struct {
	ID           string // that no other consortium has
	Organisation string // ours
	Roll         federation.Roll
	// Founders are those with whom the rounds of models began; none as long as too
	// few organisations count.
	Founders []chain.Member
}

// genesis is the beginning of the chain of rounds, equal at every site; nil without
// founders.
func (c *ConsortiumOptions) genesis() (*chain.Genesis, error) {
	if len(c.Founders) == 0 {
		return nil, nil
	}
	g, err := federation.NewGenesis(c.ID, modelSchema, learner.InitShared(sharedSeed), c.Founders)
	if err != nil {
		return nil, fmt.Errorf("node: consortium: %v", err)
	}
	return g, nil
}

// joinConsortium tells the member of the consortium, and says whether there are
// rounds between organisations.
func (n *Node) joinConsortium(o *federation.Options) (founded bool, err error) {
	c := n.o.Mesh.Consortium
	if c == nil {
		return false, nil
	}
	g, err := c.genesis()
	if err != nil {
		return false, err
	}
	o.Consortium = &federation.Consortium{Organisation: c.Organisation, Genesis: g, Roll: c.Roll, Spared: func() []netip.Prefix {
		if p := n.spare.Load(); p != nil {
			return *p
		}
		return nil
	}}
	return g != nil, nil
}

// SetRoll tells who is in the consortium from now on.
func (n *Node) SetRoll(r federation.Roll) {
	if n.member != nil {
		n.member.SetRoll(r)
	}
}

// spareFromOthers keeps a copy of the never-block list where the mesh may look at any
// time. Entries for one service alone are left to the guard.
func (n *Node) spareFromOthers(all []dataplane.Never) {
	var out []netip.Prefix
	for _, e := range all {
		if e.Proto == 0 && e.Port == 0 {
			out = append(out, e.Prefix)
		}
	}
	for _, a := range n.o.Own {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	n.spare.Store(&out)
}

// mark says who may hear of a block of ours: all organisations, when it rests on our
// own validated evidence, and our own otherwise.
func (n *Node) mark(s *enforce.Share) (wire.TLP, wire.Hash) {
	if s.Evidence != string(wire.Validated) {
		return wire.TLPAmber, wire.Hash{}
	}
	// A name for the evidence, which nobody else can give: whoever shows it too
	// has it from us.
	h := sha256.Sum256(fmt.Appendf(nil, "hedgerow/evidence/1\x00%s\x00%s\x00%s", n.o.Key.ID(), s.Incident, s.Key))
	if n.o.Mesh.Consortium == nil {
		return wire.TLPAmber, h
	}
	return wire.TLPGreen, h
}

// WhatIf tells what other organisations cause at this site, and what they could cause
// if they lied together from now on.
func (n *Node) WhatIf(_ context.Context, peers []string) (api.WhatIf, error) {
	out := api.WhatIf{Peers: peers, Rows: []api.Influence{}}
	c := n.o.Mesh.Consortium
	if len(peers) == 0 {
		return out, fmt.Errorf("which organisations? name them by --peer: %w", errInvalid)
	}
	for _, p := range peers {
		own := slices.ContainsFunc(n.o.Mesh.Roster, func(s federation.Site) bool { return s.Name == p })
		if own || (c != nil && p == c.Organisation) {
			return out, fmt.Errorf("%s is of this organisation and trusted directly: its validated word blocks here at once, within the never-block list and the caps: %w", p, errInvalid)
		}
	}
	if n.member == nil || c == nil {
		return out, fmt.Errorf("this site is in no consortium: other organisations cause nothing here: %w", errInvalid)
	}
	known := n.member.Organisations()
	for _, p := range peers {
		if !slices.Contains(known, p) {
			return out, fmt.Errorf("organisation %q: expected one of %s: %w", p, strings.Join(known, ", "), errNotFound)
		}
	}
	out.Counted = n.member.Status().Counted
	for _, x := range n.member.WhatIf(peers...) {
		out.Rows = append(out.Rows, api.Influence{Value: x.Value, Now: ladderWord(x.Now), Without: ladderWord(x.Without), Lies: ladderWord(x.Lies)})
	}
	return out, nil
}

// Indicators lists what sites say that is in force here, latest first.
func (n *Node) Indicators(context.Context) ([]api.Indicator, error) {
	out := []api.Indicator{}
	if n.member == nil {
		return out, nil
	}
	for _, l := range n.member.Indicators() {
		x := &l.Indicator
		out = append(out, api.Indicator{
			ID: x.ID, Type: string(x.Type), Value: x.Value, Author: l.Author, Own: l.Own, Effect: ladderWord(l.Effect), Evidence: string(x.Evidence),
			Conf: x.Confidence, TLP: string(x.TLP), First: x.First, Last: x.Last, Expires: x.Expires, Sentence: x.Sentence,
			Stance: cmp.Or(string(x.Stance), api.Claim),
		})
	}
	return out, nil
}

// ladderWord is an effect as the ladder calls it.
func ladderWord(e federation.Effect) string {
	switch e {
	case federation.Enforce:
		return dataplane.Block.String()
	case federation.Limit:
		return dataplane.RateLimit.String()
	}
	return dataplane.Observe.String()
}

// AuditRounds checks the stored chain of rounds again, from its beginning on, and
// makes every model anew whose updates are still stored.
func (n *Node) AuditRounds(ctx context.Context) (api.RoundAudit, error) {
	c := n.o.Mesh.Consortium
	if c == nil {
		return api.RoundAudit{}, fmt.Errorf("this site is in no consortium: `hedgerow consortium join` joins one: %w", errInvalid)
	}
	g, err := c.genesis()
	if err != nil {
		return api.RoundAudit{}, err
	}
	if g == nil {
		return api.RoundAudit{}, fmt.Errorf("no rounds yet: too few organisations count: %w", errInvalid)
	}
	combine, err := federation.Combine(g)
	if err != nil {
		return api.RoundAudit{}, err
	}
	a := api.RoundAudit{Chain: g.Hash().String(), Rule: g.Rule, Blocks: []api.AuditedBlock{}}
	src := source{federation.Archive{Storage: storage{n.o.Store}, Chain: g.Hash()}, ctx}
	err = chain.Audit(*g, chain.Ed25519{}, combine, src, func(f chain.Finding) {
		a.Blocks = append(a.Blocks, api.AuditedBlock{
			Height: f.Height, Round: f.Round, Hash: f.Hash.String(), Model: f.Model.String(), Listed: f.Listed,
			Withheld: f.Withheld, Change: f.Entry, Recomputed: f.Recomputed,
		})
	})
	if ctx.Err() != nil {
		return a, ctx.Err()
	}
	if err != nil {
		a.Broken = err.Error()
	}
	return a, nil
}

// ResumeRounds lets models of rounds reach the gate again after a fork.
func (n *Node) ResumeRounds(ctx context.Context) error {
	if n.member == nil {
		return fmt.Errorf("this site is in no consortium: %w", errInvalid)
	}
	return forAPI(n.member.Resume(ctx))
}

// source ends an audit with who asked for it.
type source struct {
	federation.Archive
	ctx context.Context
}

// Sealed implements chain.Source.
func (s source) Sealed(height uint64) (*wire.Sealed, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	return s.Archive.Sealed(height)
}
