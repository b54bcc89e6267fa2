package council

import (
	"errors"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// TestTwoSealsAreAFork: a second sealed block of a round is refused and told, and
// the driver hears that what this chain makes is no longer to be trusted. One with
// too few signatures is no fork.
func TestTwoSealsAreAFork(t *testing.T) {
	w := newNet(t, 7, 3)
	w.Run(10 * time.Second)
	nd := w.nodes[1]
	tip := nd.m.Tree().Tip()
	if tip.Sealed == nil || len(tip.Sealed.Block.Deltas) < 7 {
		t.Fatal("no block with all deltas after ten seconds")
	}
	b := tip.Sealed.Block
	b.Model = wire.Hash{1, 2, 3}
	forged := &wire.Sealed{Block: b}
	for i, o := range tip.Parent.Next.Orgs[:5] {
		st := chain.Statement{Kind: chain.SayVote, Round: b.Round, Hash: b.Hash()}
		s := wire.OrgSig{Org: uint64(i)}
		copy(s.Sig[:], fakeSign(o.Voter, st.Kind, st.Bytes(w.gen.Hash())))
		forged.Sigs = append(forged.Sigs, s)
	}
	few := *forged
	few.Sigs = few.Sigs[:4]
	nd.m.Ready()
	if err := nd.m.Add(w.clock(nd), &few); err == nil || errors.Is(err, chain.ErrFork) || nd.m.Ready().Fork != "" {
		t.Errorf("four of seven signatures: %v", err)
	}
	err := nd.m.Add(w.clock(nd), forged)
	rd := nd.m.Ready()
	if !errors.Is(err, chain.ErrFork) || rd.Fork == "" || nd.m.Tree().Tip().Hash != tip.Hash {
		t.Errorf("two seals of round %d: %v, told %q", b.Round, err, rd.Fork)
	}
	if nd.m.Final() == nil || nd.m.Final().Hash != nd.m.Tree().Final().Next.Model {
		t.Error("the final model is lost")
	}
}
