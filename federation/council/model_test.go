//go:build !race

package council

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// The model check explores every way in which four organisations can vote in
// the first rounds, with the Machine of production as the model of an honest
// member. What it knows of a member is what is on its disk, so every member also
// crashes and restarts in every round. The adversary proposes in every round, also
// under the names of honest members: any of two lists on any sealed parent, to
// each member what it likes or nothing; and every liar signs everything.
//
// Rounds are explored in order. That loses nothing: whether a member signs in a
// round depends on what it signed in lower rounds and on seals of lower rounds, so
// every run has the same outcome as one in which rounds are told in order.

// A world is one state of the search.
type world struct {
	disks  [][]byte // of the honest members, sorted: they are alike
	sealed []int    // of search.blocks, by round
}

func (w world) key() [32]byte {
	h := sha256.New()
	for _, d := range w.disks {
		_, _ = fmt.Fprintf(h, "%d:", len(d))
		_, _ = h.Write(d)
	}
	_, _ = fmt.Fprint(h, w.sealed)
	return [32]byte(h.Sum(nil))
}

type search struct {
	t       testing.TB
	gen     chain.Genesis
	id      wire.Hash
	liars   int
	unlock  bool // the mutant: members forget what they are locked on
	rotates bool // the first block gives an honest organisation another key; the old site goes on voting
	hasty   bool // the mutant: the new key counts at once
	params  map[wire.Hash][]float32
	deltas  []Params
	blocks  []*wire.Block
	at      map[wire.Hash]int
	next    map[wire.Hash]chain.Context
	memo    map[string][]byte // disk after a vote, nil when refused
	visited int
	found   string
}

func newSearch(t testing.TB, liars int) *search {
	s := &search{
		t: t, gen: testGenesis(t, 4), liars: liars, params: make(map[wire.Hash][]float32),
		at: make(map[wire.Hash]int), next: make(map[wire.Hash]chain.Context), memo: make(map[string][]byte),
	}
	s.id = s.gen.Hash()
	tree, err := chain.NewTree(s.gen, hashes{})
	if err != nil {
		t.Fatal(err)
	}
	root := tree.Tip()
	s.next[root.Hash] = root.Next
	s.params[root.Next.Model] = s.gen.Init
	for i := range s.gen.Orgs {
		p := []float32{float32(i + 1), 1}
		s.deltas = append(s.deltas, Params{wire.ModelHash(s.gen.Schema, p), p})
	}
	return s
}

// machine boots an honest member from a disk.
func (s *search) machine(disk []byte) *Machine {
	m, err := New(Config{
		Self: s.gen.Orgs[0].Voter, Genesis: s.gen, Crypto: hashes{}, Combine: meanOf,
		Sign: func(kind string, msg []byte) []byte { return fakeSign(s.gen.Orgs[0].Voter, kind, msg) },
		Salt: func() [16]byte { return [16]byte{} },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if disk != nil {
		if err := m.Restore(disk, func(h wire.Hash) []float32 { return s.params[h] }); err != nil {
			s.t.Fatal(err)
		}
	}
	if s.unlock {
		m.safe.locked = 0
	}
	m.Tick(epoch)
	return m
}

func (s *search) disk(m *Machine) []byte {
	b, err := m.Snapshot()
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// statement signs for any organisation.
func (s *search) sign(id identity.ID, st chain.Statement) (sig wire.Sig) {
	copy(sig[:], fakeSign(id, st.Kind, st.Bytes(s.id)))
	return sig
}

// everyone signs whose signature counts.
func (s *search) everyone(c *chain.Context, st chain.Statement) (out []wire.OrgSig) {
	for i, o := range c.Orgs {
		if c.Seals(i) {
			out = append(out, wire.OrgSig{Org: uint64(i), Sig: s.sign(o.Voter, st)})
		}
	}
	return out
}

// rotated is the organisation that gets another key, and rotation says so.
const rotated = 1

func (s *search) rotation() wire.Entry {
	return signedEntry(s.gen, wire.Entry{Kind: wire.Rotates, Org: s.gen.Orgs[rotated].Org, Voter: testGenesis(s.t, 9).Orgs[8].Voter})
}

// candidate is one of two lists of a round on a parent.
func (s *search) candidate(round uint64, parent wire.Hash, variant int) int {
	c := s.next[parent]
	b := &wire.Block{Round: round, Height: c.Height + 1, Epoch: c.Epoch, Parent: parent}
	if s.rotates && parent == s.id {
		b.Entries = []wire.Entry{s.rotation()}
	}
	for i, o := range c.Orgs {
		hash := chain.CommitHash(s.id, o.Voter, round, c.Epoch, parent, [16]byte{}, s.deltas[i].Hash)
		b.Commits = append(b.Commits, wire.OrgHash{Org: uint64(i), Hash: hash})
		if i+variant < len(s.gen.Orgs) {
			b.Deltas = append(b.Deltas, wire.OrgDelta{Org: uint64(i), Delta: s.deltas[i].Hash})
		}
	}
	b.SetSigs = s.everyone(&c, chain.Statement{Kind: chain.SaySetVote, Round: round, Hash: wire.SetHash(round, c.Epoch, parent, b.Commits)})
	var deltas [][]float32
	for _, d := range b.Deltas {
		deltas = append(deltas, s.deltas[d.Org].Params)
	}
	model, err := chain.Next(s.params[c.Model], deltas, meanOf)
	if err != nil {
		s.t.Fatal(err)
	}
	b.Model = wire.ModelHash(s.gen.Schema, model)
	hash := b.Hash()
	if i, ok := s.at[hash]; ok {
		return i
	}
	s.params[b.Model] = model
	s.next[hash] = c.After(b)
	s.at[hash] = len(s.blocks)
	s.blocks = append(s.blocks, b)
	return s.at[hash]
}

// offer brings everything about a candidate before a member and says whether
// it signed, and what is on its disk then.
func (s *search) offer(disk []byte, at int) []byte {
	key := fmt.Sprintf("%d\x00%s", at, disk)
	if after, ok := s.memo[key]; ok {
		return after
	}
	b := s.blocks[at]
	m := s.machine(disk)
	s.learn(m, b.Parent)
	var after []byte
	if m.tree.Link(b.Parent) != nil {
		m.enter(epoch, b.Round)
		m.params[s.next[b.Parent].Model] = s.params[s.next[b.Parent].Model]
		before := m.safe.voted
		s.present(m, b)
		if before < b.Round && m.safe.voted == b.Round {
			after = s.disk(m)
		}
	}
	s.memo[key] = after
	return after
}

// learn brings a member the sealed blocks up to one.
func (s *search) learn(m *Machine, hash wire.Hash) {
	var path []*wire.Block
	for i, ok := s.at[hash]; ok; i, ok = s.at[hash] {
		path = append(path, s.blocks[i])
		hash = s.blocks[i].Parent
	}
	slices.Reverse(path)
	for _, b := range path {
		c := s.next[b.Parent]
		vote := chain.Statement{Kind: chain.SayVote, Round: b.Round, Hash: b.Hash()}
		_, _ = m.add(&wire.Sealed{Block: *b, Sigs: s.everyone(&c, vote)}) // what is final already refuses it
	}
}

func (s *search) present(m *Machine, b *wire.Block) {
	c := s.next[b.Parent]
	proposer := c.Proposer(b.Round)
	step := func(author identity.ID, p wire.Payload) {
		_ = m.Step(epoch, &wire.Message{Author: author, Payload: p}) // our own word under an honest name may be refused
	}
	set := &wire.Set{Round: b.Round, Epoch: b.Epoch, Parent: b.Parent, Commits: b.Commits}
	set.Sig = s.sign(proposer, chain.Statement{Kind: chain.SaySet, Round: b.Round, Hash: set.Hash()})
	step(proposer, set)
	for _, v := range b.SetSigs {
		step(c.Orgs[v.Org].Voter, &wire.SetVote{Round: b.Round, Set: set.Hash(), Sig: v.Sig})
	}
	for _, d := range b.Deltas {
		step(c.Orgs[d.Org].Voter, &wire.Reveal{Round: b.Round, Parent: b.Parent, Delta: d.Delta})
		_ = m.Fetched(epoch, d.Delta, s.deltas[d.Org].Params)
	}
	sig := s.sign(proposer, chain.Statement{Kind: chain.SayList, Round: b.Round, Hash: b.Hash()})
	step(proposer, &wire.Proposal{Block: *b, Sig: sig})
}

// explore goes through all rounds up to depth, breadth first.
func (s *search) explore(depth uint64) {
	first := world{}
	honest := len(s.gen.Orgs) - s.liars
	if s.rotates {
		honest++ // the old site and the new one, last
	}
	for range honest {
		first.disks = append(first.disks, s.disk(s.machine(nil)))
	}
	front := []world{first}
	for round := uint64(1); round <= depth && s.found == ""; round++ {
		seen := make(map[[32]byte]bool)
		var nextFront []world
		for _, w := range front {
			if s.found != "" {
				return
			}
			s.branch(w, round, func(n world) {
				if k := n.key(); !seen[k] {
					seen[k] = true
					s.visited++
					nextFront = append(nextFront, n)
					s.judge(n)
				}
			})
		}
		front = nextFront
	}
}

// branch gives every world that a round can lead to.
func (s *search) branch(w world, round uint64, emit func(world)) {
	var candidates []int
	parents := []wire.Hash{s.id}
	for _, i := range w.sealed {
		parents = append(parents, s.blocks[i].Hash())
	}
	for _, p := range parents {
		candidates = append(candidates, s.candidate(round, p, 0))
		if !s.rotates { // there the parents are what matters
			candidates = append(candidates, s.candidate(round, p, 1))
		}
	}
	disks := slices.Clone(w.disks)
	votes := make(map[int]int)
	var choose func(i int)
	choose = func(i int) {
		if i == len(w.disks) {
			emit(s.outcome(w, disks, votes))
			return
		}
		disks[i] = w.disks[i]
		choose(i + 1)
		for _, c := range candidates {
			if !s.mayVote(i, len(w.disks), c) {
				continue
			}
			if after := s.offer(w.disks[i], c); after != nil {
				disks[i] = after
				votes[c]++
				choose(i + 1)
				votes[c]--
			}
		}
		disks[i] = w.disks[i]
	}
	choose(0)
}

// mayVote says whether the vote of a member counts for a candidate. With a
// rotation the last but one is the old site of an organisation, the last the new.
func (s *search) mayVote(member, members, candidate int) bool {
	if !s.rotates || member < members-2 {
		return true
	}
	c := s.next[s.blocks[candidate].Parent]
	if old := c.Org(s.gen.Orgs[rotated].Voter) >= 0; old || member == members-2 {
		return old && member == members-2
	}
	return s.hasty || c.Seals(rotated)
}

func (s *search) outcome(w world, disks [][]byte, votes map[int]int) world {
	n := world{disks: slices.Clone(disks), sealed: slices.Clone(w.sealed)}
	alike := len(n.disks)
	if s.rotates {
		alike -= 2
	}
	slices.SortFunc(n.disks[:alike], bytes.Compare)
	for c, v := range votes {
		if v > 0 && v+s.liars >= chain.Quorum(len(s.gen.Orgs)) {
			n.sealed = append(n.sealed, c)
		}
	}
	slices.Sort(n.sealed)
	return n
}

func (s *search) judge(w world) {
	sealed := make(map[wire.Hash]*wire.Block)
	for _, i := range w.sealed {
		sealed[s.blocks[i].Hash()] = s.blocks[i]
	}
	if c := conflictIn(sealed); c != "" && s.found == "" {
		s.found = c
	}
}

// TestModel is the bounded exhaustive check, with controls that must find a
// conflict: one liar more, members that forget what they are locked on, and a new
// key of an organisation that counts at once.
func TestModel(t *testing.T) {
	depth := uint64(4)
	if long() {
		depth = 5
	}
	for _, c := range []struct {
		name   string
		liars  int
		mutate func(s *search)
		depth  uint64
		bad    bool
	}{
		{"one liar of four", 1, func(*search) {}, depth, false},
		{"two liars of four", 2, func(*search) {}, 4, true},
		{"one liar, no lock", 1, func(s *search) { s.unlock = true }, 4, true},
		{"one liar, another key", 1, func(s *search) { s.rotates = true }, depth, false},
		{"one liar, another key that counts at once", 1, func(s *search) { s.rotates, s.hasty = true, true }, 4, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSearch(t, c.liars)
			c.mutate(s)
			s.explore(c.depth)
			t.Logf("%d states to round %d, %d blocks, %d answers of the machine: %q", s.visited, c.depth, len(s.blocks), len(s.memo), s.found)
			if (s.found != "") != c.bad {
				t.Errorf("conflict %q, expected one: %v", s.found, c.bad)
			}
		})
	}
}

// TestSnapshotHoldsWhatIsSigned guards the model's assumption: a member that
// voted says so on its disk.
func TestSnapshotHoldsWhatIsSigned(t *testing.T) {
	s := newSearch(t, 1)
	first := s.disk(s.machine(nil))
	after := s.offer(first, s.candidate(1, s.id, 0))
	var snap snapshot
	if err := cbor.Unmarshal(after, &snap); err != nil || snap.Voted != 1 {
		t.Fatalf("voted %d (%v), expected 1", snap.Voted, err)
	}
	if again := s.offer(after, s.candidate(1, s.id, 1)); again != nil {
		t.Error("after a restart the member signed a second block of the round")
	}
}

// TestNewKeyWaits: a key that has just come in the place of another seals nothing
// until a block after the change is final.
func TestNewKeyWaits(t *testing.T) {
	s := newSearch(t, 1)
	s.rotates = true
	tree, err := chain.NewTree(s.gen, hashes{})
	if err != nil {
		t.Fatal(err)
	}
	parent := s.id
	for round, want := range []struct{ epoch, fresh bool }{{}, {}, {true, true}, {true, false}} {
		b := s.blocks[s.candidate(uint64(round+1), parent, 0)]
		c := tree.Link(parent).Next
		if (c.Epoch == 1) != want.epoch || (c.Fresh != "") != want.fresh {
			t.Fatalf("round %d: epoch %d, new key %q", round+1, c.Epoch, c.Fresh)
		}
		parent = b.Hash()
		vote := chain.Statement{Kind: chain.SayVote, Round: b.Round, Hash: parent}
		var sigs []wire.OrgSig
		for i, o := range c.Orgs[:3] { // with the organisation that changes its key
			sigs = append(sigs, wire.OrgSig{Org: uint64(i), Sig: s.sign(o.Voter, vote)})
		}
		if _, _, err := tree.Add(&wire.Sealed{Block: *b, Sigs: sigs}); (err != nil) != want.fresh {
			t.Errorf("round %d: sealed with the key of organisation %d: %v", b.Round, rotated, err)
		}
		if _, _, err := tree.Add(&wire.Sealed{Block: *b, Sigs: s.everyone(&c, vote)}); err != nil {
			t.Errorf("round %d: sealed by all that count: %v", b.Round, err)
		}
	}
}

// TestEarlierCommitmentIsRevealed: who committed on one block, and in the same round on
// a later one, shows what the set on the first one holds, also after a restart.
func TestEarlierCommitmentIsRevealed(t *testing.T) {
	s := newSearch(t, 1)
	m := s.machine(nil)
	m.enter(epoch, 2)
	b := s.blocks[s.candidate(1, s.id, 0)]
	set := s.blocks[s.candidate(2, s.id, 0)] // with our delta as below
	train := func(on, model wire.Hash, step float32) {
		m.params[model] = s.params[model]
		p := slices.Clone(s.params[model])
		p[0], p[1] = p[0]+step, p[1]+1
		if err := m.Trained(epoch, on, p); err != nil {
			t.Fatal(err)
		}
	}
	train(s.id, s.next[s.id].Model, 1)
	s.learn(m, b.Hash())
	train(b.Hash(), b.Model, 2)
	if m.safe.committed.Parent != b.Hash() || m.safe.committed.Round != 2 {
		t.Fatalf("last committed on %s in round %d", m.safe.committed.Parent.Short(), m.safe.committed.Round)
	}
	s.params[s.deltas[0].Hash] = s.deltas[0].Params
	m = s.machine(s.disk(m))
	s.present(m, set)
	rd := m.Ready()
	if !slices.ContainsFunc(rd.Seal, func(p wire.Payload) bool {
		r, ok := p.(*wire.Reveal)
		return ok && r.Parent == s.id && r.Delta == s.deltas[0].Hash
	}) {
		t.Errorf("no reveal on the first block: %v", rd.Seal)
	}
}
