package chain

import (
	"fmt"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Saved is a Tree as it is stored: the last final block and what it leads to,
// and the sealed blocks above.
type Saved struct {
	Chain wire.Hash      `cbor:"1,keyasint"`
	Final wire.Hash      `cbor:"2,keyasint"`
	Next  Context        `cbor:"3,keyasint"`
	Above []*wire.Sealed `cbor:"4,keyasint"`
}

// Save returns the tree to be stored.
func (t *Tree) Save() Saved {
	s := Saved{Chain: t.chain, Final: t.final.Hash, Next: t.final.Next}
	for _, l := range t.Above() {
		s.Above = append(s.Above, l.Sealed)
	}
	return s
}

// Load brings a stored tree back. The blocks above the final one are checked as
// if they came from another site; the final one is believed, for it is our own.
func Load(chain wire.Hash, s Saved, crypto Crypto) (*Tree, error) {
	n := len(s.Next.Orgs)
	if s.Chain != chain || n < MinOrgs || n > wire.MaxOrgs || !slices.IsSortedFunc(s.Next.Orgs, byOrg) {
		return nil, fmt.Errorf("chain: load: the stored chain is another one, or damaged")
	}
	t := treeAt(chain, &Link{Hash: s.Final, Next: s.Next}, crypto)
	for _, b := range s.Above {
		if b == nil {
			return nil, fmt.Errorf("chain: load: an empty block")
		}
		if _, _, err := t.Add(b); err != nil {
			return nil, fmt.Errorf("chain: load: %w", err)
		}
	}
	return t, nil
}
