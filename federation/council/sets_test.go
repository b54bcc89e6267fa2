package council

import (
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// shorter is a set of a liar's without the last commitment.
func (w *testnet) shorter(liar *testnode, set *wire.Set) *wire.Set {
	other := *set
	other.Commits = slices.Clone(set.Commits[:len(set.Commits)-1])
	st := chain.Statement{Kind: chain.SaySet, Round: set.Round, Hash: other.Hash()}
	copy(other.Sig[:], fakeSign(liar.id, st.Kind, st.Bytes(w.gen.Hash())))
	return &other
}

// TestLongSchedules plays longer schedules among more organisations, in which liars
// that propose also sign two sets, of which some hear one and some the other. It is
// for `just verify`.
func TestLongSchedules(t *testing.T) {
	if !long() {
		t.Skip("minutes of schedules: HEDGEROW_LONG=1 runs them")
	}
	for _, c := range []struct{ orgs, liars, steps int }{{7, 2, 60}, {10, 3, 30}, {13, 4, 20}} {
		for seed := range uint64(40) {
			w := newNet(t, c.orgs, 1000+seed)
			w.liars(c.liars)
			for _, nd := range w.nodes {
				if nd.liar {
					nd.bend = w.twoSets(nd)
				}
			}
			adversary(w, c.steps)
			if s := w.conflict(); s != "" {
				t.Fatalf("%d of %d, seed %d: conflicting final seals: %s", c.liars, c.orgs, seed, s)
			}
			w.recovers(seed)
		}
	}
}

// twoSets adds to a liar's vices that every other organisation hears another set.
func (w *testnet) twoSets(nd *testnode) func(wire.Payload) []wire.Payload {
	bend := nd.bend
	return func(p wire.Payload) []wire.Payload {
		set, ok := p.(*wire.Set)
		if !ok || len(set.Commits) < 2 {
			return bend(p)
		}
		nd.seq++
		msg := &wire.Message{Author: nd.id, Seq: nd.seq, Time: w.Now, Payload: w.shorter(nd, set)}
		for i, to := range w.nodes {
			if i%2 == 0 && w.hears(nd, to) {
				w.After(0, func() { w.deliver(to, msg) })
			}
		}
		return bend(p)
	}
}

// TestAnotherSetForOneVictim: a proposer tells one honest organisation another list
// of commitments than the rest, first or last. The victim reveals all the same, is not
// recorded as withholding, and the liar is out for what it signed.
func TestAnotherSetForOneVictim(t *testing.T) {
	for _, first := range []bool{true, false} {
		w := newNet(t, 7, 4)
		liar, victim := w.nodes[0], w.nodes[3]
		liar.liar = true
		liar.bend = func(p wire.Payload) []wire.Payload {
			set, ok := p.(*wire.Set)
			if !ok {
				return []wire.Payload{p}
			}
			liar.seq++
			msg := &wire.Message{Author: liar.id, Seq: liar.seq, Time: w.Now, Payload: w.shorter(liar, set)}
			after := time.Second // once the others have closed theirs
			if first {
				after = 0
			}
			w.After(after, func() { w.deliver(victim, msg) })
			return []wire.Payload{set}
		}
		w.Run(time.Minute)
		found, err := audit(w, w.nodes[1])
		if err != nil || len(found) < 6 {
			t.Fatalf("first %v: %d blocks: %v", first, len(found), err)
		}
		lied := false
		for _, f := range found {
			if len(f.Withheld) > 0 {
				t.Errorf("first %v, height %d: %v counts as having withheld", first, f.Height, f.Withheld)
			}
			lied = lied || f.Entry != ""
		}
		if victim.events[Lied] == 0 || !lied {
			t.Errorf("first %v: the victim saw %d lies, and the chain names none: %v", first, victim.events[Lied], !lied)
		}
		if c := w.conflict(); c != "" {
			t.Error(c)
		}
	}
}
