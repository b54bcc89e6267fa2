package feature

import (
	"encoding/binary"
	"fmt"
	"math"
)

// EncodedSize is the length of an encoded vector in bytes.
const EncodedSize = 1 + 16 + 4*Dim

// AppendBinary appends the vector's encoding: the schema version, the mask and
// the numbers, little endian, EncodedSize bytes in all. It never fails.
func (v *Vector) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, Version)
	b = binary.LittleEndian.AppendUint64(b, v.Has[0])
	b = binary.LittleEndian.AppendUint64(b, v.Has[1])
	for _, x := range v.X {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b, nil
}

// MarshalBinary encodes the vector; see AppendBinary.
func (v *Vector) MarshalBinary() ([]byte, error) {
	return v.AppendBinary(make([]byte, 0, EncodedSize))
}

// Size is how long the encoded vector is that begins with these bytes, by its
// schema version; 0 when that is none that can be read.
func Size(b []byte) int {
	switch {
	case len(b) == 0:
		return 0
	case b[0] == Version:
		return EncodedSize
	case b[0] == 1:
		return size1
	}
	return 0
}

// UnmarshalBinary decodes a vector and checks it. One of an earlier schema version
// is read as one that lacks what later ones added.
func (v *Vector) UnmarshalBinary(b []byte) error {
	n := Size(b)
	if n == 0 && len(b) > 0 {
		return fmt.Errorf("decode vector: schema version %d: expected 1 to %d", b[0], Version)
	}
	if len(b) != max(n, 1) {
		return fmt.Errorf("decode vector: %d bytes: expected %d", len(b), max(n, EncodedSize))
	}
	var w Vector
	if b[0] == 1 {
		w.read1(b)
	} else {
		w.Has = Mask{binary.LittleEndian.Uint64(b[1:]), binary.LittleEndian.Uint64(b[9:])}
		for i := range w.X {
			w.X[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[17+4*i:]))
		}
	}
	if err := w.Valid(); err != nil {
		return fmt.Errorf("decode vector: %w", err)
	}
	*v = w
	return nil
}

// Schema version 1 had 64 features: 50 of the flow itself, and 14 of its context.
const (
	dim1  = 64
	own1  = 50
	size1 = 1 + 8 + 4*dim1
)

// First are the features of schema version 1. Stored vectors that began in it
// know no others, whatever their flows were like.
func First() Mask { return first1 }

var first1 = func() (m Mask) {
	for i := range Dim {
		if i < own1 || i >= iHostFlows && i < iHostFlows+dim1-own1 {
			m.Add(i)
		}
	}
	return m
}()

// read1 reads a vector of schema version 1. Its features kept their meaning and
// their scale; version 2 put some behind those of the flow, and some at the end.
func (v *Vector) read1(b []byte) {
	has := binary.LittleEndian.Uint64(b[1:])
	for i := range dim1 {
		to := i
		if i >= own1 {
			to = iHostFlows + i - own1
		}
		v.X[to] = math.Float32frombits(binary.LittleEndian.Uint32(b[9+4*i:]))
		if has>>uint(i)&1 == 1 {
			v.Has.Add(to)
		}
	}
}
