package council

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// long says whether the run may take minutes (`just verify`).
func long() bool { return os.Getenv("HEDGEROW_LONG") != "" }

func TestRoundsAmongHonest(t *testing.T) {
	w := newNet(t, 7, 1)
	w.Run(30 * time.Second)
	for _, nd := range w.nodes {
		f := nd.m.Tree().Final()
		if f.Next.Height < 8 || len(nd.adopted) == 0 {
			t.Errorf("%s: height %d, %d models adopted after 30 s: %v", w.gen.Orgs[nd.org].Org, f.Next.Height, len(nd.adopted), nd.events)
		}
		if nd.events[Skipped]+nd.events[Lied]+nd.events[Censored]+nd.events[Withheld]+nd.events[Failed] > 0 {
			t.Errorf("%s: honest rounds without trouble gave %v", w.gen.Orgs[nd.org].Org, nd.events)
		}
	}
	if c := w.conflict(); c != "" {
		t.Error(c)
	}
}

// liars turns the last organisations into liars with a twin each, and gives
// every liar a vice.
func (w *testnet) liars(n int) {
	orgs := len(w.gen.Orgs)
	for i := orgs - n; i < orgs; i++ {
		twins := []*testnode{w.nodes[i], w.join(i)}
		for _, nd := range twins {
			nd.liar = true
			nd.deaf = w.rng.IntN(4) == 0
			nd.bend = w.vice(nd)
		}
	}
}

// vice draws what a liar does to its own words.
func (w *testnet) vice(nd *testnode) func(wire.Payload) []wire.Payload {
	kind := w.rng.IntN(5)
	return func(p wire.Payload) []wire.Payload {
		switch p := p.(type) {
		case *wire.Reveal:
			if kind == 0 { // withholds its delta
				return nil
			}
		case *wire.Proposal:
			if kind == 1 { // censors
				return []wire.Payload{w.censor(nd, p, 1)}
			}
			if kind == 2 { // two lists
				return []wire.Payload{p, w.censor(nd, p, 1)}
			}
			if kind == 3 { // a short list
				return []wire.Payload{w.censor(nd, p, len(p.Block.Deltas)-1)}
			}
		case *wire.Vote:
			if kind == 4 && w.rng.IntN(2) == 0 { // withholds its vote
				return nil
			}
		}
		return []wire.Payload{p}
	}
}

// censor leaves deltas out and lists the model that the rest makes.
func (w *testnet) censor(nd *testnode, p *wire.Proposal, drop int) *wire.Proposal {
	b := p.Block
	b.Deltas = slices.Clone(b.Deltas[:len(b.Deltas)-drop])
	var deltas [][]float32
	for _, d := range b.Deltas {
		deltas = append(deltas, nd.m.rounds[b.Round].held[d.Delta])
	}
	if next, err := chain.Next(nd.m.params[nd.m.tree.Link(b.Parent).Next.Model], deltas, meanOf); err == nil {
		b.Model = wire.ModelHash(w.gen.Schema, next)
	}
	return w.proposal(nd, b)
}

func (w *testnet) proposal(nd *testnode, b wire.Block) *wire.Proposal {
	p := &wire.Proposal{Block: b}
	st := chain.Statement{Kind: chain.SayList, Round: b.Round, Hash: b.Hash()}
	copy(p.Sig[:], fakeSign(nd.id, st.Kind, st.Bytes(w.gen.Hash())))
	return p
}

// colludes lets every liar vote for every block and set that anybody ever saw,
// and tell it to some.
func (w *testnet) colludes() {
	for _, nd := range w.nodes {
		if !nd.liar || nd.down {
			continue
		}
		for hash, b := range w.block {
			if b.Round+2 < nd.m.Round() {
				continue
			}
			st := chain.Statement{Kind: chain.SayVote, Round: b.Round, Hash: hash}
			v := &wire.Vote{Round: b.Round, Block: hash}
			copy(v.Sig[:], fakeSign(nd.id, st.Kind, st.Bytes(w.gen.Hash())))
			w.voted(hash, nd.id)
			nd.seq++
			msg := &wire.Message{Author: nd.id, Seq: nd.seq, Time: w.Now, Payload: v}
			for _, to := range w.nodes {
				if to.id != nd.id && w.rng.IntN(2) == 0 && w.hears(nd, to) {
					w.After(w.delay(), func() { w.deliver(to, msg) })
				}
			}
		}
	}
}

// adversary plays one schedule of partitions, crashes, skewed clocks and loss.
func adversary(w *testnet, steps int) {
	r := w.rng
	for range steps {
		nd := w.nodes[r.IntN(len(w.nodes))]
		switch r.IntN(8) {
		case 0, 1:
			w.split()
		case 2:
			w.kill(nd)
		case 3:
			for _, nd := range w.nodes {
				if nd.down {
					w.boot(nd)
				}
			}
		case 4:
			nd.skew = time.Duration(r.Int64N(int64(20*time.Second))) - 10*time.Second
		case 5:
			w.loss = 0.5 * r.Float64()
		case 6:
			w.slow = time.Duration(20+r.IntN(2000)) * time.Millisecond
		case 7:
			w.heal()
		}
		w.colludes()
		w.Run(time.Duration(r.IntN(8000)) * time.Millisecond)
	}
}

// split parts honest nodes at random; each liar has a twin on either side.
func (w *testnet) split() {
	seen := map[int]bool{}
	for _, nd := range w.nodes {
		nd.group = w.rng.IntN(2)
		if nd.liar {
			nd.group = 0
			if seen[nd.org] {
				nd.group = 1
			}
			seen[nd.org] = true
		}
	}
}

func (w *testnet) heal() {
	w.loss, w.slow = 0, 80*time.Millisecond
	for _, nd := range w.nodes {
		nd.group = 0
		if nd.down {
			w.boot(nd)
		}
	}
}

// TestNoConflictBelowOneThird plays adversarial schedules: below a third of
// liars there are never two conflicting final seals, honest members end on one
// chain, and it goes on. At a third and above, the same schedules do find
// conflicts: the test can see what it looks for.
func TestNoConflictBelowOneThird(t *testing.T) {
	runs := 5
	if long() {
		runs = 400
	}
	for _, c := range []struct{ orgs, liars int }{{4, 1}, {7, 2}, {6, 1}} {
		t.Run(fmt.Sprintf("%d of %d", c.liars, c.orgs), func(t *testing.T) {
			for seed := range uint64(runs) {
				w := newNet(t, c.orgs, seed)
				w.liars(c.liars)
				adversary(w, 10)
				if s := w.conflict(); s != "" {
					t.Fatalf("seed %d: conflicting final seals: %s", seed, s)
				}
				w.recovers(seed)
			}
		})
	}
}

// recovers demands that honest members, once they can talk, end on one chain
// and make new blocks, whatever the liars do.
func (w *testnet) recovers(seed uint64) {
	w.heal()
	var before uint64
	for _, nd := range w.honest() {
		before = max(before, nd.m.Tree().Final().Next.Height)
	}
	for range 20 {
		w.Run(15 * time.Second)
		if w.agreed() && w.honest()[0].m.Tree().Final().Next.Height >= before+2 {
			break
		}
	}
	first := w.honest()[0]
	if got := first.m.Tree().Final().Next.Height; got < before+2 || !w.agreed() {
		w.t.Errorf("seed %d: height %d after 5 quiet minutes, expected at least %d, the same everywhere: %s", seed, got, before+2, w.where())
	}
}

// agreed compares stored chains as far as both reach.
func (w *testnet) agreed() bool {
	nodes := w.honest()
	least := nodes[0].m.Tree().Final().Next.Height
	for _, nd := range nodes {
		least = min(least, nd.m.Tree().Final().Next.Height)
	}
	for _, nd := range nodes {
		for h := uint64(1); h <= least; h++ {
			a, b := nd.chain[h], nodes[0].chain[h]
			if a == nil || b == nil || a.Block.Hash() != b.Block.Hash() {
				return false
			}
		}
		if nd.m.Tree().Final().Next.Height > least+1 {
			return false
		}
	}
	return true
}

func (w *testnet) where() (s string) {
	for _, nd := range w.nodes {
		f, tip := nd.m.Tree().Final(), nd.m.Tree().Tip()
		s += fmt.Sprintf("\n%s liar=%v round %d wish %d final %d@%d tip %d@%d voted %d locked %d %v", w.gen.Orgs[nd.org].Org, nd.liar, nd.m.round, nd.m.wish,
			f.Round(), f.Next.Height, tip.Round(), tip.Next.Height, nd.m.safe.voted, nd.m.safe.locked, nd.events)
	}
	return s
}

func TestConflictAtOneThird(t *testing.T) {
	for _, c := range []struct{ orgs, liars int }{{6, 2}, {4, 2}} {
		found := 0
		for seed := range uint64(10) {
			w := newNet(t, c.orgs, seed)
			w.liars(c.liars)
			for _, nd := range w.nodes {
				nd.bend, nd.deaf = nil, false
			}
			half := w.honest()
			for i := range 3 {
				w.split()
				for j, nd := range half {
					nd.group = (j + i) % 2
				}
				w.Run(20 * time.Second)
				w.colludes()
			}
			if w.conflict() != "" {
				found++
			}
		}
		if found == 0 {
			t.Errorf("%d liars of %d: no schedule made a conflict: the judge is blind", c.liars, c.orgs)
		}
	}
}
