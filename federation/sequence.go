package federation

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// reserve is how many sequence numbers are stored as used before the first of
// them is. After a restart the rest of them is skipped.
const reserve = 64

// stream tells the two counters apart: numbers of indicators are dense, which
// keeps digests short.
type stream int

const (
	streamIntel stream = iota
	streamModels
	streams
)

// sequences hands out numbers that no earlier run has used.
type sequences struct {
	last     [streams]uint64
	reserved [streams]uint64
}

func (s *sequences) load(st Storage) error {
	b, err := st.Load(keySeq)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load %s: %w", keySeq, err)
	}
	if len(b) != 8*int(streams) {
		return fmt.Errorf("load %s: %d bytes: expected %d; the state is damaged: restore it, or start with a new state folder and key", keySeq, len(b), 8*int(streams))
	}
	for i := range s.last {
		n := binary.BigEndian.Uint64(b[8*i:])
		if n > wire.MaxSeq {
			return fmt.Errorf("load %s: number %d is %d: expected at most %d; the state is damaged: restore it, or start with a new state folder and key", keySeq, i, n, uint64(wire.MaxSeq))
		}
		s.last[i], s.reserved[i] = n, n
	}
	return nil
}

// next is the next number of a stream; it is on disk as used before it is returned.
func (s *sequences) next(st Storage, which stream) (uint64, error) {
	if s.last[which] == s.reserved[which] {
		ahead := s.reserved
		ahead[which] += reserve
		b := make([]byte, 0, 8*int(streams))
		for _, n := range ahead {
			b = binary.BigEndian.AppendUint64(b, n)
		}
		if err := st.Save(keySeq, b); err != nil {
			return 0, fmt.Errorf("reserve sequence numbers: %w", err)
		}
		s.reserved = ahead
	}
	s.last[which]++
	return s.last[which], nil
}
