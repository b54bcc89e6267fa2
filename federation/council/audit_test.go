package council

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Sealed and Delta make a node the chain.Source of what it stored.
func (nd *testnode) Sealed(height uint64) (*wire.Sealed, error) { return nd.chain[height], nil }
func (nd *testnode) Delta(hash wire.Hash) ([]float32, error)    { return nd.blobs[hash], nil }
func audit(w *testnet, nd *testnode) (f []chain.Finding, _ error) {
	err := chain.Audit(w.gen, hashes{}, meanOf, nd, func(x chain.Finding) { f = append(f, x) })
	return f, err
}

// TestAudit recomputes a chain, and then names the first height that was
// touched, whatever was touched.
func TestAudit(t *testing.T) {
	w := newNet(t, 4, 3)
	w.Run(20 * time.Second)
	nd := w.nodes[2]
	found, err := audit(w, nd)
	if err != nil || len(found) < 5 {
		t.Fatalf("%d blocks: %v", len(found), err)
	}
	for _, f := range found {
		if !f.Recomputed || f.Listed != 4 {
			t.Errorf("height %d: %+v, expected a model recomputed from 4 deltas", f.Height, f)
		}
	}
	good := nd.chain[3]
	for name, c := range map[string]struct {
		touch func(s *wire.Sealed)
		words string
	}{
		"another model":  {func(s *wire.Sealed) { s.Block.Model[0] ^= 1 }, "height 3, round 3: seal"},
		"a signature":    {func(s *wire.Sealed) { s.Sigs[1].Sig[5] ^= 1 }, "height 3, round 3: seal"},
		"few signatures": {func(s *wire.Sealed) { s.Sigs = s.Sigs[:2] }, "expected 3"},
		"a delta less":   {func(s *wire.Sealed) { s.Block.Deltas = s.Block.Deltas[:2] }, "expected at least 3"},
		"a salt":         {func(s *wire.Sealed) { s.Block.Deltas[0].Salt[0] ^= 1 }, "not what it committed to"},
		"set signature":  {func(s *wire.Sealed) { s.Block.SetSigs[0].Sig[0] ^= 1 }, "commit set"},
		"another round":  {func(s *wire.Sealed) { s.Block.Round = 2 }, "on a parent of round 2"},
		"epoch":          {func(s *wire.Sealed) { s.Block.Epoch = 5 }, "epoch: 5: expected 0"},
		"an entry nobody approved": {func(s *wire.Sealed) {
			s.Block.Entries = []wire.Entry{{Kind: wire.Revokes, Org: "a", Voter: w.gen.Orgs[0].Voter}}
		}, "does not fit"},
	} {
		bad := *good
		bad.Sigs = slices.Clone(good.Sigs)
		bad.Block.Deltas, bad.Block.SetSigs = slices.Clone(good.Block.Deltas), slices.Clone(good.Block.SetSigs)
		c.touch(&bad)
		nd.chain[3] = &bad
		found, err := audit(w, nd)
		if err == nil || len(found) != 2 || !strings.Contains(err.Error(), "height 3") || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %d blocks held, %v; expected an error at height 3 with %q", name, len(found), err, c.words)
		}
	}
	nd.chain[3] = good
	auditDeltas(t, w, nd)
}

// auditDeltas: a changed delta is found although every signature holds, a
// dropped one is said.
func auditDeltas(t *testing.T, w *testnet, nd *testnode) {
	d := nd.chain[4].Block.Deltas[1].Delta
	kept := nd.blobs[d]
	nd.blobs[d] = []float32{9, 9}
	if _, err := audit(w, nd); err == nil || !strings.Contains(err.Error(), "height 4") {
		t.Errorf("changed bytes: %v, expected an error at height 4", err)
	}
	delete(nd.blobs, d)
	found, err := audit(w, nd)
	if err != nil || found[3].Recomputed || !found[2].Recomputed || !found[4].Recomputed {
		t.Errorf("dropped bytes: %v, %+v; expected only the model of height 4 not to be recomputed", err, found)
	}
	model := nd.chain[4].Block.Model
	whole := nd.blobs[model]
	nd.blobs[model] = []float32{9, 9}
	if _, err := audit(w, nd); err == nil || !strings.Contains(err.Error(), "height 4: model: stored") {
		t.Errorf("a changed model behind a gap: %v", err)
	}
	nd.blobs[model] = whole
	nd.blobs[d] = kept
}

// TestAuditFindsAnotherRule: a quorum that computed by another rule than the
// genesis names is found although it sealed its model.
func TestAuditFindsAnotherRule(t *testing.T) {
	w := newNet(t, 4, 3)
	w.Run(10 * time.Second)
	half := func(d [][]float32, f int) ([]float32, error) { return meanOf(d[:2], f) }
	err := chain.Audit(w.gen, hashes{}, half, w.nodes[0], func(chain.Finding) {})
	if err == nil || !strings.Contains(err.Error(), "height 1, round 1: model") {
		t.Errorf("%v, expected the model of height 1", err)
	}
}

// TestWeeksAway: a site that was off for a long time ends where the others are.
func TestWeeksAway(t *testing.T) {
	w := newNet(t, 7, 5)
	w.Run(5 * time.Second)
	away := w.nodes[3]
	w.kill(away)
	w.Run(4 * time.Minute)
	w.boot(away)
	w.Run(15 * time.Second)
	if a, b := away.m.Tree().Final().Next.Height, w.nodes[0].m.Tree().Final().Next.Height; a+1 < b || b < 40 {
		t.Fatalf("height %d after coming back, the others %d", a, b)
	}
	if found, err := audit(w, away); err != nil || found[len(found)/2].Recomputed {
		t.Errorf("audit of who was away: %v; models of rounds it missed cannot have been recomputed here", err)
	}
	mine, theirs := away.adopted[len(away.adopted)-1], w.nodes[0].adopted[len(w.nodes[0].adopted)-1]
	if mine.Hash != theirs.Hash {
		t.Errorf("its gate was last offered the model of height %d, theirs that of %d", mine.Height, theirs.Height)
	}
}

// TestBoastsAreNotBelieved: a member that tells of seals that do not exist keeps
// nobody from fetching the models it lacks.
func TestBoastsAreNotBelieved(t *testing.T) {
	w := newNet(t, 7, 5)
	liar := w.nodes[6]
	liar.liar = true
	liar.bend = func(p wire.Payload) []wire.Payload {
		if v, ok := p.(*wire.Wish); ok {
			p = &wire.Wish{Round: 1 << 40, High: 1<<40 - 1, Height: v.Height, Hash: wire.Hash{1}}
		}
		return []wire.Payload{p}
	}
	w.Run(5 * time.Second)
	away := w.nodes[3]
	w.kill(away)
	w.Run(time.Minute)
	w.boot(away)
	w.Run(15 * time.Second)
	last := away.adopted[len(away.adopted)-1]
	if f := w.nodes[0].m.Tree().Final(); last.Height+1 < f.Next.Height || f.Next.Height < 12 {
		t.Errorf("its gate was last offered the model of height %d, the others are at %d", last.Height, f.Next.Height)
	}
	if away.m.heardSeal(1 << 20) {
		t.Error("a seal of round 2^20 is believed in")
	}
}

// approved is a change of the roster under the signatures of all.
func approved(w *testnet, e wire.Entry) wire.Entry { return signedEntry(w.gen, e) }

func signedEntry(gen chain.Genesis, e wire.Entry) wire.Entry {
	kind, msg := chain.EntryBytes(gen.Hash(), &e)
	for i, o := range gen.Orgs {
		a := wire.OrgSig{Org: uint64(i)}
		copy(a.Sig[:], fakeSign(o.Voter, kind, msg))
		e.Approvals = append(e.Approvals, a)
	}
	return e
}

// TestRosterInTheChain revokes an organisation; it counts until the change is
// final, and not after.
// TestNobodyIsAskedByAll: where answers take longer than Retry, everybody asks a
// second site and a third for each update. These are not the same for all: else a
// site would send each update to each other, which grows with the square of both.
func TestNobodyIsAskedByAll(t *testing.T) {
	const orgs = 12
	w := newNet(t, orgs, 5)
	w.slow = 1200 * time.Millisecond
	w.Run(3 * time.Minute)
	most, sum := 0, 0
	for _, nd := range w.nodes {
		most, sum = max(most, nd.asked), sum+nd.asked
	}
	if rounds := len(w.nodes[0].adopted); rounds < 3 || sum < rounds*orgs*(orgs-1) || 2*most*orgs > 3*sum {
		t.Errorf("%d rounds, %d questions, %d of them to one of %d sites: expected at most one and a half of its share", rounds, sum, most, orgs)
	}
}

func TestRosterInTheChain(t *testing.T) {
	w := newNet(t, 5, 9)
	w.Run(5 * time.Second)
	gone := w.gen.Orgs[4]
	e := approved(w, wire.Entry{Kind: wire.Revokes, Org: gone.Org, Voter: gone.Voter, Epoch: 0})
	for _, nd := range w.nodes {
		if err := nd.m.Propose(e); err != nil {
			t.Fatal(err)
		}
	}
	w.Run(20 * time.Second)
	next := w.nodes[0].m.Tree().Tip().Next
	if next.Epoch != 1 || len(next.Orgs) != 4 || next.Org(gone.Voter) >= 0 {
		t.Fatalf("epoch %d with %d organisations, expected 1 with 4", next.Epoch, len(next.Orgs))
	}
	if h := w.nodes[0].m.Tree().Final().Next.Height; h < 10 {
		t.Errorf("height %d: the others did not go on", h)
	}
	if _, err := audit(w, w.nodes[1]); err != nil {
		t.Error(err)
	}
	late := &wire.Message{Author: gone.Voter, Payload: &wire.Wish{Round: 90, High: 1, Hash: wire.Hash{1}}}
	if err := w.nodes[0].m.Step(w.Now, late); wire.ReasonOf(err) != wire.NotMember {
		t.Errorf("a word of the revoked: %v", err)
	}
}

// TestRosterIsFollowed: the members want another roster, an organisation less, one
// with another voter, and one more, and the chain brings it about step by step.
func TestRosterIsFollowed(t *testing.T) {
	w := newNet(t, 6, 11)
	w.Run(5 * time.Second)
	all := testGenesis(t, 9).Orgs
	counted := append(slices.Clone(w.gen.Orgs[:4]), chain.Member{Org: w.gen.Orgs[4].Org, Voter: all[8].Voter}, all[7])
	for _, nd := range w.nodes {
		nd.m.Follow(w.Now, counted, nil)
		w.drain(nd)
	}
	w.Run(90 * time.Second)
	next := w.nodes[0].m.Tree().Final().Next
	if !slices.Equal(next.Orgs, counted) || next.Epoch != 4 {
		t.Fatalf("epoch %d: %v, expected after four changes %v", next.Epoch, next.Orgs, counted)
	}
	found, err := audit(w, w.nodes[1])
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, f := range found {
		if f.Entry != "" {
			told = append(told, f.Entry)
		}
	}
	if want := []string{"revoke f", "rotate e", "observe h", "admit h"}; !slices.Equal(told, want) {
		t.Errorf("changes %q, expected %q", told, want)
	}
}

// TestFewDoNotChangeTheRoster: as long as two thirds do not want a change, there
// is none.
func TestFewDoNotChangeTheRoster(t *testing.T) {
	w := newNet(t, 6, 12)
	for _, nd := range w.nodes[:3] {
		nd.m.Follow(w.Now, w.gen.Orgs[:5], nil)
		w.drain(nd)
	}
	w.Run(30 * time.Second)
	if next := w.nodes[0].m.Tree().Tip().Next; next.Epoch != 0 || next.Height < 5 {
		t.Errorf("epoch %d at height %d, expected no change and progress", next.Epoch, next.Height)
	}
}

// TestTrainsAgain: who could not train in the first rounds does so later.
func TestTrainsAgain(t *testing.T) {
	w := newNet(t, 4, 13)
	w.fail = 3
	w.Run(40 * time.Second)
	for _, nd := range w.nodes {
		if h := nd.m.Tree().Final().Next.Height; h < 3 {
			t.Errorf("height %d: %v", h, nd.events)
		}
	}
}

// TestWithholdingCosts: who commits and does not reveal sits out the next blocks,
// and is the only one who does.
func TestWithholdingCosts(t *testing.T) {
	w := newNet(t, 7, 2)
	liar := w.nodes[5]
	liar.liar = true
	liar.bend = func(p wire.Payload) []wire.Payload {
		if _, ok := p.(*wire.Reveal); ok {
			return nil
		}
		return []wire.Payload{p}
	}
	w.Run(time.Minute)
	found, err := audit(w, w.nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	withheld, barred := 0, 0
	for _, f := range found {
		switch {
		case len(f.Withheld) == 0:
			barred++
		case !slices.Equal(f.Withheld, []string{"f"}):
			t.Errorf("height %d: withheld by %v, expected f alone", f.Height, f.Withheld)
		default:
			withheld++
		}
		if f.Listed != 6 {
			t.Errorf("height %d lists %d deltas, expected 6", f.Height, f.Listed)
		}
	}
	if withheld == 0 || barred < 2*withheld {
		t.Errorf("%d blocks with its commitment, %d without: expected it to sit out %d of each %d", withheld, barred, chain.BarredFor, chain.BarredFor+1)
	}
}

// TestShortListsAtOnceAreRefused: a proposer that omits an honest delta as soon as it
// holds all gets no votes, however new that delta is to the others.
func TestShortListsAtOnceAreRefused(t *testing.T) {
	w := newNet(t, 7, 2)
	liar := w.nodes[0]
	liar.liar = true
	liar.bend = func(p wire.Payload) []wire.Payload {
		if p, ok := p.(*wire.Proposal); ok {
			return []wire.Payload{w.censor(liar, p, 1)} // without the last organisation
		}
		return []wire.Payload{p}
	}
	w.Run(time.Minute)
	found, err := audit(w, w.nodes[1])
	if err != nil || len(found) < 6 {
		t.Fatalf("%d blocks: %v", len(found), err)
	}
	for _, f := range found {
		if len(f.Withheld) > 0 {
			t.Errorf("height %d, round %d: %v counts as having withheld", f.Height, f.Round, f.Withheld)
		}
	}
	if w.nodes[1].events[Censored] == 0 {
		t.Error("nobody saw what was omitted")
	}
}

// TestUnseenModelIsOfferedAfterRestart: who has the seals of a final model and not
// its bytes offers it to the gate when they come, also after a restart; what was offered
// is not offered again.
func TestUnseenModelIsOfferedAfterRestart(t *testing.T) {
	w := newNet(t, 7, 8)
	w.Run(10 * time.Second)
	for _, nd := range w.nodes[3:] {
		w.kill(nd)
	}
	w.Run(5 * time.Second)
	for i, nd := range w.nodes[3:5] {
		want := nd.m.Tree().Final().Next.Model
		nd.adopted = nil
		if i == 0 {
			delete(nd.blobs, want)
		}
		w.boot(nd)
		w.Run(5 * time.Second)
		if f := nd.m.Tree().Final().Next.Model; f != want {
			t.Fatalf("another final model with %d of 7", 4)
		}
		if n := len(nd.adopted); n != 1-i || n == 1 && nd.adopted[0].Hash != want {
			t.Errorf("bytes gone %v: %d models offered", i == 0, n)
		}
		w.kill(nd)
	}
}

// TestLostDiskIsSilent: a member that forgot what it signed signs no second word in
// any place (the net looks), and takes part again some rounds later.
func TestLostDiskIsSilent(t *testing.T) {
	for at := range 5 {
		w := newNet(t, 7, 4)
		w.Run(10*time.Second + time.Duration(at)*311*time.Millisecond)
		nd := w.nodes[3]
		w.kill(nd)
		nd.disk, nd.blobs, nd.chain = nil, make(map[wire.Hash][]float32), make(map[uint64]*wire.Sealed)
		nd.events = make(map[string]int)
		w.boot(nd)
		w.Run(40 * time.Second)
		if nd.events[Committed] == 0 || nd.m.safe.voted == 0 {
			t.Errorf("it stayed silent, mute %d at round %d: %v", nd.m.safe.mute, nd.m.round, nd.events)
		}
	}
}

func TestRestoreRefuses(t *testing.T) {
	w := newNet(t, 4, 1)
	w.Run(5 * time.Second)
	disk := w.nodes[0].disk
	other := newNet(t, 4, 1)
	other.gen.Name = "another"
	m, err := New(other.config(other.nodes[0]))
	if err != nil {
		t.Fatal(err)
	}
	none := func(wire.Hash) []float32 { return nil }
	for name, b := range map[string][]byte{"empty": nil, "cut": disk[:len(disk)/2], "of another chain": disk, "words": []byte("hello")} {
		if err := m.Restore(b, none); !errors.Is(err, ErrSnapshot) || m.Tree().Tip().Round() != 0 {
			t.Errorf("%s: %v, expected ErrSnapshot at genesis", name, err)
		}
	}
}

func FuzzRestore(f *testing.F) {
	w := newNet(f, 4, 1)
	w.Run(5 * time.Second)
	f.Add(bytes.Clone(w.nodes[0].disk))
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := New(w.config(w.nodes[0]))
		if err != nil {
			t.Fatal(err)
		}
		if m.Restore(b, func(wire.Hash) []float32 { return nil }) == nil {
			m.Tick(epoch) // usable, or it would fall here
		}
	})
}
