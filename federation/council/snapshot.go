package council

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// ErrSnapshot says that stored state cannot be used. A member that forgot what it
// signed must not sign: a new key for it is to be put into the roster.
var ErrSnapshot = errors.New("council: stored state is not usable")

// snapshot is what must survive, but for the bytes under hashes.
type snapshot struct {
	Version   int         `cbor:"1,keyasint"`
	Voted     uint64      `cbor:"2,keyasint"`
	Locked    uint64      `cbor:"3,keyasint"`
	SetVoted  uint64      `cbor:"4,keyasint"`
	SaidSet   uint64      `cbor:"5,keyasint"`
	SaidList  uint64      `cbor:"6,keyasint"`
	Committed ownCommit   `cbor:"7,keyasint"`
	Own       ownDelta    `cbor:"8,keyasint"`
	Tree      chain.Saved `cbor:"9,keyasint"`
	Mute      uint64      `cbor:"10,keyasint,omitempty"`
	Earlier   []ownCommit `cbor:"11,keyasint,omitempty"`
}

// Snapshot encodes what must survive a restart.
func (m *Machine) Snapshot() ([]byte, error) {
	return cbor.Marshal(snapshot{
		Version: 1, Voted: m.safe.voted, Locked: m.safe.locked, SetVoted: m.safe.setVoted, SaidSet: m.safe.saidSet, SaidList: m.safe.saidList,
		Committed: m.safe.committed, Own: m.safe.own, Tree: m.tree.Save(), Mute: m.safe.mute, Earlier: m.safe.earlier,
	})
}

// Restore puts a new machine where Snapshot was taken; load gives bytes that
// Ready.Keep stored, nil where there are none. After an error the machine is at
// genesis.
func (m *Machine) Restore(b []byte, load func(wire.Hash) []float32) error {
	var s snapshot
	if err := cbor.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%w: %v", ErrSnapshot, err)
	}
	if s.Version != 1 {
		return fmt.Errorf("%w: version %d: expected 1", ErrSnapshot, s.Version)
	}
	tree, err := chain.Load(m.tree.Chain(), s.Tree, m.cfg.Crypto)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrSnapshot, err)
	}
	m.tree = tree
	m.safe = safety{
		voted: s.Voted, locked: s.Locked, setVoted: s.SetVoted, saidSet: s.SaidSet, saidList: s.SaidList,
		committed: s.Committed, own: s.Own, mute: s.Mute, earlier: s.Earlier[:min(len(s.Earlier), commitsEach-1)],
	}
	hashes := append(m.safe.deltas(), tree.Final().Next.Model)
	for _, l := range tree.Above() {
		hashes = append(hashes, l.Next.Model)
	}
	for _, h := range hashes {
		if p := load(h); len(p) == len(m.cfg.Genesis.Init) && wire.ModelHash(m.cfg.Genesis.Schema, p) == h {
			m.params[h] = p
		}
	}
	m.adopt = wire.Hash{} // a final model whose bytes are not here was never offered
	if f := tree.Final().Next.Model; m.params[f] != nil {
		m.adopt = f
	}
	return nil
}
