package round

import (
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// ErrSnapshot says that stored state cannot be used.
var ErrSnapshot = errors.New("round: stored state is not usable")

// snapshot is what must survive: the model, and what we signed for the next one.
type snapshot struct {
	Version int      `cbor:"1,keyasint"`
	Round   uint64   `cbor:"2,keyasint"`
	View    uint32   `cbor:"3,keyasint"`
	Hash    []byte   `cbor:"4,keyasint"`
	Params  []byte   `cbor:"5,keyasint"`
	Delta   []byte   `cbor:"6,keyasint,omitempty"`
	Lists   [][]byte `cbor:"7,keyasint,omitempty"`
}

// Snapshot encodes what must survive a restart.
func (m *Machine) Snapshot() ([]byte, error) {
	s := snapshot{Version: 1, Round: m.head.Round, View: m.head.View, Hash: m.head.Hash[:], Params: wire.EncodeParams(m.head.Params)}
	if m.ownDelta != nil {
		s.Delta = m.ownDelta.Raw
	}
	for _, l := range m.ownLists {
		s.Lists = append(s.Lists, l.Raw)
	}
	return cbor.Marshal(s)
}

// Restore puts a new machine where Snapshot was taken. On ErrSnapshot the
// machine is still at genesis and may be used: it will catch up.
func (m *Machine) Restore(b []byte, now time.Time) error {
	var s snapshot
	if err := cbor.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%w: %v", ErrSnapshot, err)
	}
	if s.Version != 1 {
		return fmt.Errorf("%w: version %d: expected 1", ErrSnapshot, s.Version)
	}
	params, err := wire.DecodeParams(s.Params)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrSnapshot, err)
	}
	hash := wire.ModelHash(m.cfg.Schema, params)
	if len(params) != len(m.cfg.Init) || string(s.Hash) != string(hash[:]) || s.Round > wire.MaxRound {
		return fmt.Errorf("%w: the model was made for another schema or size, or the file is damaged", ErrSnapshot)
	}
	m.head = Head{Round: s.Round, View: s.View, Hash: hash, Params: params}
	self := func(id identity.ID) bool { return id == m.cfg.Self }
	if msg, err := wire.Open(s.Delta, now, self); err == nil && msg.Kind() == wire.KindDelta {
		m.ownDelta = msg
	}
	for _, raw := range s.Lists {
		if msg, err := wire.Open(raw, now, self); err == nil && msg.Kind() == wire.KindList {
			m.ownLists = append(m.ownLists, msg)
		}
	}
	return nil
}
