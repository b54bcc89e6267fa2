package score

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// The encoding, in little endian:
//
//	"HGSC", format 1, FeatureVersion, Dim   4 + 1 + 1 + 1
//	Version, Parent                         4 + 32
//	forests                                 1
//	steps: forest, limit, suspend           5 x (1 + 4 + 4)
//	each forest: base, trees                4 + 1
//	each tree: depth                        1
//	  its levels: feature, threshold        depth x (1 + 4)
//	  its leaves                            2^depth x 2
//
// Every scorer has one encoding, and every encoding one scorer.
const (
	magic      = "HGSC"
	format     = 1
	headSize   = len(magic) + 3 + 4 + 32 + 1 + Milestones*9
	forestSize = 5
	treeSize   = 1 + MaxDepth*5 + 2<<MaxDepth
)

// MaxEncoded is the length of the longest encoding, in bytes.
const MaxEncoded = headSize + Milestones*(forestSize+MaxTrees*treeSize)

// MarshalBinary encodes a valid scorer.
func (s *Scorer) MarshalBinary() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, 4096), magic...)
	b = append(b, format, FeatureVersion, Dim)
	b = binary.LittleEndian.AppendUint32(b, s.Version)
	b = append(b, s.Parent[:]...)
	b = append(b, byte(len(s.Forests)))
	for _, st := range s.Steps {
		b = append(b, st.Forest)
		b = append32(append32(b, st.Limit), st.Suspend)
	}
	for i := range s.Forests {
		f := &s.Forests[i]
		b = append(append32(b, f.Base), byte(len(f.Trees)))
		for k := range f.Trees {
			b = f.Trees[k].append(b)
		}
	}
	return b, nil
}

func append32(b []byte, x int32) []byte { return binary.LittleEndian.AppendUint32(b, uint32(x)) }

func (t *Tree) append(b []byte) []byte {
	b = append(b, t.Depth)
	for l := range t.Depth {
		b = append32(append(b, t.Feature[l]), t.Threshold[l])
	}
	for _, x := range t.Leaf {
		b = binary.LittleEndian.AppendUint16(b, uint16(x))
	}
	return b
}

// Hash names a valid scorer: the SHA-256 of its encoding.
func (s *Scorer) Hash() ([32]byte, error) {
	b, err := s.MarshalBinary()
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(b), nil
}

// Decode reads what MarshalBinary wrote, and nothing else. What it returns is
// valid and shares no memory with b.
func Decode(b []byte) (*Scorer, error) {
	if len(b) > MaxEncoded {
		return nil, fmt.Errorf("decode scorer: %d bytes: expected at most %d", len(b), MaxEncoded)
	}
	s, err := decode(&reader{b: b})
	if err != nil {
		return nil, fmt.Errorf("decode scorer: %w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("decode %w", err)
	}
	return s, nil
}

var errShort = errors.New("is cut short")

// reader takes numbers from a slice; when that is too short they are 0, and short says so.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.b, r.short = nil, true
		return make([]byte, n)
	}
	got := r.b[:n]
	r.b = r.b[n:]
	return got
}

func (r *reader) byte() byte   { return r.take(1)[0] }
func (r *reader) int32() int32 { return int32(binary.LittleEndian.Uint32(r.take(4))) }

func decode(r *reader) (*Scorer, error) {
	if got := string(r.take(len(magic))); got != magic {
		return nil, errors.New("magic: not a scorer")
	}
	if got := r.byte(); got != format {
		return nil, fmt.Errorf("format %d: expected %d", got, format)
	}
	if v, dim := r.byte(), r.byte(); v != FeatureVersion || dim != Dim {
		return nil, fmt.Errorf("features version %d with %d: expected version %d with %d: distil it anew", v, dim, FeatureVersion, Dim)
	}
	s := &Scorer{Version: uint32(r.int32())}
	copy(s.Parent[:], r.take(len(s.Parent)))
	forests := r.byte()
	if forests > Milestones {
		return nil, fmt.Errorf("%d forests: expected 1 to %d", forests, Milestones)
	}
	for i := range s.Steps {
		s.Steps[i] = Step{Forest: r.byte(), Limit: r.int32(), Suspend: r.int32()}
	}
	for range forests {
		f := Forest{Base: r.int32()}
		trees := r.byte()
		if trees > MaxTrees {
			return nil, fmt.Errorf("%d trees: expected at most %d", trees, MaxTrees)
		}
		for range trees {
			t, err := r.tree()
			if err != nil {
				return nil, err
			}
			f.Trees = append(f.Trees, t)
		}
		s.Forests = append(s.Forests, f)
	}
	switch {
	case r.short:
		return nil, errShort
	case len(r.b) != 0:
		return nil, fmt.Errorf("%d bytes too many", len(r.b))
	}
	return s, nil
}

func (r *reader) tree() (Tree, error) {
	t := Tree{Depth: r.byte()}
	if r.short {
		return t, errShort
	}
	if t.Depth < 1 || t.Depth > MaxDepth {
		return t, fmt.Errorf("depth %d: expected 1 to %d", t.Depth, MaxDepth)
	}
	for l := range t.Depth {
		t.Feature[l], t.Threshold[l] = r.byte(), r.int32()
	}
	t.Leaf = make([]int16, 1<<t.Depth)
	for i := range t.Leaf {
		t.Leaf[i] = int16(binary.LittleEndian.Uint16(r.take(2)))
	}
	return t, nil
}
