package chain

import (
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Combine is a robust rule over deltas of equal length, f of which may lie. It
// must give the same bits for the same deltas in the same order.
type Combine func(deltas [][]float32, f int) ([]float32, error)

// Next is the model that a list of deltas, in the order of the list, makes of a
// model. It is the one place where that is computed.
func Next(base []float32, deltas [][]float32, combine Combine) ([]float32, error) {
	for _, d := range deltas {
		if len(d) != len(base) {
			return nil, wire.Refuse(wire.WrongLength, "%d parameters: expected %d", len(d), len(base))
		}
	}
	step, err := combine(deltas, Liars(len(deltas)))
	if err != nil {
		return nil, fmt.Errorf("combine: %w", err)
	}
	next := make([]float32, len(base))
	for i := range base {
		next[i] = float32(float64(base[i]) + float64(step[i]))
	}
	return next, wire.CheckParams(next)
}

// Source is a stored chain; Delta gives deltas and models. Sealed returns nil when there is no such height,
// Delta nil when those bytes were dropped.
type Source interface {
	Sealed(height uint64) (*wire.Sealed, error)
	Delta(hash wire.Hash) ([]float32, error)
}

// A Finding is one block as the audit saw it.
type Finding struct {
	Height, Round uint64
	Hash, Model   wire.Hash
	Listed        int
	Withheld      []string // organisations
	Entry         string   // the change of the roster in it, in words
	Recomputed    bool     // false: the deltas were dropped, and only the signatures vouch
}

// Audit walks a stored chain from its genesis, checks every signature and rule,
// and recomputes every model whose deltas are there. It ends without an error at
// the last block, or with one that names the first height that does not hold. tell
// gets each block that does. For a block whose deltas were dropped, or whose parent's
// model was and cannot be recomputed, signatures vouch. Behind such a gap it goes on
// from a stored model that has the hash under the parent's signatures.
func Audit(g Genesis, crypto Crypto, combine Combine, src Source, tell func(Finding)) error {
	t, err := NewTree(g, crypto)
	if err != nil {
		return err
	}
	model, named := g.Init, wire.Hash{} // the hash of the parent's, for when it cannot be recomputed
	for h := uint64(1); ; h++ {
		s, err := src.Sealed(h)
		if err != nil {
			return fmt.Errorf("chain: audit: height %d: %w", h, err)
		}
		if s == nil {
			return nil
		}
		l, _, err := t.Add(s)
		if err != nil {
			return fmt.Errorf("chain: audit: height %d, round %d: %w", h, s.Block.Round, err)
		}
		if l.Next.Height != h {
			return fmt.Errorf("chain: audit: height %d: holds the block of height %d", h, l.Next.Height)
		}
		f := finding(l)
		if model == nil {
			if model, err = stored(g.Schema, "model", named, src); err != nil {
				return fmt.Errorf("chain: audit: height %d: %w", h-1, err)
			}
		}
		if model, err = replay(g.Schema, model, s, combine, src); err != nil {
			return fmt.Errorf("chain: audit: height %d, round %d: %w", h, s.Block.Round, err)
		}
		f.Recomputed, named = model != nil, s.Block.Model
		tell(f)
	}
}

func finding(l *Link) Finding {
	b := &l.Sealed.Block
	f := Finding{Height: b.Height, Round: b.Round, Hash: l.Hash, Model: b.Model, Listed: len(b.Deltas)}
	for _, m := range l.Withheld() {
		f.Withheld = append(f.Withheld, m.Org)
	}
	for _, e := range b.Entries {
		f.Entry = fmt.Sprintf("%s %s", e.Kind, e.Org)
	}
	return f
}

// stored gives the parameters under a hash, what they are for in words; nil when
// they were dropped.
func stored(schema, what string, hash wire.Hash, src Source) ([]float32, error) {
	v, err := src.Delta(hash)
	if v == nil || err != nil {
		return nil, err
	}
	if got := wire.ModelHash(schema, v); got != hash {
		return nil, fmt.Errorf("%s: stored bytes have hash %s, the block names %s", what, got.Short(), hash.Short())
	}
	return v, nil
}

// replay recomputes one model; nil when bytes are missing.
func replay(schema string, base []float32, s *wire.Sealed, combine Combine, src Source) ([]float32, error) {
	if base == nil {
		return nil, nil
	}
	var deltas [][]float32
	for _, d := range s.Block.Deltas {
		v, err := stored(schema, fmt.Sprintf("delta of organisation %d", d.Org), d.Delta, src)
		if v == nil || err != nil {
			return nil, err
		}
		deltas = append(deltas, v)
	}
	next, err := Next(base, deltas, combine)
	if err != nil {
		return nil, err
	}
	if got := wire.ModelHash(schema, next); got != s.Block.Model {
		return nil, fmt.Errorf("model: the deltas make %s, the block was sealed with %s", got.Short(), s.Block.Model.Short())
	}
	return next, nil
}
