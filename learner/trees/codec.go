package trees

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// magic begins a stored model; its last byte is the version of the format.
const magic = "HGOT\x01"

// MaxModelBytes is the longest stored model.
const MaxModelBytes = 64 << 20

// MarshalBinary stores a model: little-endian numbers, each list behind its length.
func (m *Model) MarshalBinary() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("store trees: %w", err)
	}
	b := []byte(magic)
	u := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }
	floats := func(xs []float32) {
		for _, x := range xs {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
	}
	u(m.Columns)
	u(m.Outputs)
	for _, x := range m.Bias {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	for _, list := range m.Borders {
		u(len(list))
		floats(list)
	}
	u(len(m.Trees))
	for i := range m.Trees {
		t := &m.Trees[i]
		u(int(t.Output))
		u(len(t.Column))
		for l, c := range t.Column {
			u(int(c))
			b = append(b, t.Border[l])
		}
		floats(t.Leaf)
		floats(t.Cover)
	}
	if len(b) > MaxModelBytes {
		return nil, fmt.Errorf("store trees: %d bytes: expected at most %d", len(b), MaxModelBytes)
	}
	return b, nil
}

// UnmarshalBinary reads what MarshalBinary stored. Memory is never more than a
// small multiple of the input's size; after an error m is unchanged.
func (m *Model) UnmarshalBinary(b []byte) error {
	if len(b) > MaxModelBytes {
		return fmt.Errorf("read trees: %d bytes: expected at most %d", len(b), MaxModelBytes)
	}
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return errors.New("read trees: not a stored model of this version")
	}
	r := reader{b: b[len(magic):]}
	var n Model
	n.Columns, n.Outputs = r.number(MaxColumns), r.number(MaxClasses)
	for range n.Outputs {
		n.Bias = append(n.Bias, math.Float64frombits(binary.LittleEndian.Uint64(r.take(8))))
	}
	for range n.Columns {
		n.Borders = append(n.Borders, r.floats(r.number(MaxBins-1)))
	}
	for range r.number(maxTrees) {
		if r.err != nil {
			break
		}
		n.Trees = append(n.Trees, r.tree())
	}
	switch {
	case r.err != nil:
		return fmt.Errorf("read trees: %w", r.err)
	case len(r.b) > 0:
		return fmt.Errorf("read trees: %d bytes too many", len(r.b))
	}
	if err := n.Validate(); err != nil {
		return fmt.Errorf("read trees: %w", err)
	}
	*m = n
	return nil
}

// reader takes numbers from the front, and zeros after the first error.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.fail(errors.New("ends early"))
		return make([]byte, min(n, 8))
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) number(most int) int {
	x, n := binary.Uvarint(r.b)
	if n <= 0 || x > uint64(most) {
		r.fail(fmt.Errorf("a number is missing or above %d", most))
		return 0
	}
	r.b = r.b[n:]
	return int(x)
}

func (r *reader) floats(n int) []float32 {
	b := r.take(4 * n)
	if r.err != nil {
		return nil
	}
	out := make([]float32, n)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

func (r *reader) tree() Tree {
	t := Tree{Output: uint16(r.number(MaxClasses - 1))}
	d := r.number(MaxDepth)
	for range d {
		t.Column = append(t.Column, uint16(r.number(MaxColumns-1)))
		t.Border = append(t.Border, r.take(1)[0])
	}
	t.Leaf, t.Cover = r.floats(1<<d), r.floats(1<<d)
	return t
}
