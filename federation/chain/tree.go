package chain

import (
	"fmt"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// A Link is a sealed block in its place.
type Link struct {
	Hash   wire.Hash
	Parent *Link        // nil for the oldest that is kept
	Sealed *wire.Sealed // nil for the genesis
	Next   Context      // for blocks that follow
}

// Round of the block; 0 is the genesis.
func (l *Link) Round() uint64 { return l.Next.Round }

// Tree holds the last final block and the sealed blocks above it.
type Tree struct {
	checker
	links map[wire.Hash]*Link
	final *Link
	tip   *Link
}

// NewTree begins a chain.
func NewTree(g Genesis, crypto Crypto) (*Tree, error) {
	if err := g.Check(); err != nil {
		return nil, err
	}
	id := g.Hash()
	root := &Link{Hash: id, Next: Context{Orgs: sorted(g.Orgs), Model: wire.ModelHash(g.Schema, g.Init)}}
	return treeAt(id, root, crypto), nil
}

func treeAt(chain wire.Hash, root *Link, crypto Crypto) *Tree {
	return &Tree{checker: checker{chain, crypto}, links: map[wire.Hash]*Link{root.Hash: root}, final: root, tip: root}
}

// Chain is the chain's name.
func (t *Tree) Chain() wire.Hash { return t.chain }

// Final is the last final block.
func (t *Tree) Final() *Link { return t.final }

// Tip is the sealed block of the highest round.
func (t *Tree) Tip() *Link { return t.tip }

// Link returns a kept block, or nil.
func (t *Tree) Link(h wire.Hash) *Link { return t.links[h] }

// Verify checks one signature of a statement.
func (t *Tree) Verify(c *Context, org int, st Statement, sig wire.Sig) bool {
	return t.crypto.Verify(c.Orgs[org].Voter, st.Kind, st.Bytes(t.chain), sig[:])
}

// Check says whether a block may follow its parent, and returns the parent.
// ErrParent asks for a sync; every other error is a *wire.Refusal.
func (t *Tree) Check(b *wire.Block) (*Link, error) {
	parent := t.links[b.Parent]
	if parent == nil {
		return nil, fmt.Errorf("%w: %s", ErrParent, b.Parent.Short())
	}
	return parent, t.check(&parent.Next, b)
}

// Add takes a sealed block: it checks everything but the model's hash, which
// only who holds the deltas can. It returns the block's link and what became
// final by it, oldest first. A block that is known changes nothing.
func (t *Tree) Add(s *wire.Sealed) (*Link, []*Link, error) {
	hash := s.Block.Hash()
	if l := t.links[hash]; l != nil {
		return l, nil, nil
	}
	parent, err := t.Check(&s.Block)
	if err != nil {
		return nil, nil, err
	}
	vote := Statement{Kind: SayVote, Round: s.Block.Round, Hash: hash}
	if err := t.quorum(&parent.Next, vote, s.Sigs); err != nil {
		return nil, nil, fmt.Errorf("seal: %w", err)
	}
	for _, l := range t.links {
		if l.Round() == s.Block.Round {
			return nil, nil, fmt.Errorf("%w: round %d", ErrFork, s.Block.Round)
		}
	}
	l := t.put(parent, hash, s)
	if s.Block.Round == parent.Round()+1 {
		return l, t.finalise(parent), nil
	}
	return l, nil, nil
}

func (t *Tree) put(parent *Link, hash wire.Hash, s *wire.Sealed) *Link {
	l := &Link{Hash: hash, Parent: parent, Sealed: s, Next: parent.Next.After(&s.Block)}
	t.links[hash] = l
	if l.Round() > t.tip.Round() {
		t.tip = l
	}
	return l
}

// finalise makes a block and all before it final, and forgets what conflicts.
func (t *Tree) finalise(l *Link) []*Link {
	var path []*Link
	for at := l; at != t.final; at = at.Parent {
		path = append(path, at)
	}
	slices.Reverse(path)
	t.final = l
	l.Parent = nil
	kept := map[wire.Hash]*Link{l.Hash: l}
	t.tip = l
	for _, k := range t.ordered() {
		if k.Parent != nil && kept[k.Parent.Hash] != nil {
			kept[k.Hash] = k
			if k.Round() > t.tip.Round() {
				t.tip = k
			}
		}
	}
	t.links = kept
	return path
}

// ordered lists the kept blocks by round, so parents come first.
func (t *Tree) ordered() []*Link {
	out := make([]*Link, 0, len(t.links))
	for _, l := range t.links {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *Link) int { return int(a.Round()) - int(b.Round()) })
	return out
}

// Above lists the sealed blocks above the final one, parents first.
func (t *Tree) Above() []*Link {
	return slices.DeleteFunc(t.ordered(), func(l *Link) bool { return l == t.final })
}

// Path lists the blocks from above the final one to the tip.
func (t *Tree) Path() []*Link {
	var out []*Link
	for l := t.tip; l != t.final; l = l.Parent {
		out = append(out, l)
	}
	slices.Reverse(out)
	return out
}

// Withheld lists the organisations that committed in a block and did not reveal.
func (l *Link) Withheld() []Member {
	if l.Sealed == nil || l.Parent == nil {
		return nil
	}
	return l.Parent.Next.withheld(&l.Sealed.Block)
}
