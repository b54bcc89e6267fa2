package feature

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// familiarForm is the version of the encoding of what is familiar.
const familiarForm = 1

// maxFamiliar bounds an encoding: a gap of at most three bytes, and a number, for
// each counter.
const maxFamiliar = 1 + 8 + 1 + 3*(3+rows*width*(3+4))

// AppendFamiliar appends what is familiar, so that a later Context with the same seed
// can go on from there: a form byte, eight bytes that say which seed, how many
// generations have settled, and for each of three sketches the counters that are not
// zero, each as the distance from the one before and four bytes. It is at most 0.7 MB.
func (c *Context) AppendFamiliar(b []byte) []byte {
	f := &c.familiar
	b = append(b, familiarForm)
	b = binary.LittleEndian.AppendUint64(b, c.seedMark())
	b = append(b, byte(min(f.turns, 2)))
	for _, s := range []*sketch{f.settled, f.resting, f.fresh} {
		b = s.append(b)
	}
	return b
}

// ReadFamiliar takes what AppendFamiliar wrote. What had not settled has to rest
// for its whole time anew. An error says what is wrong, and changes nothing.
func (c *Context) ReadFamiliar(b []byte) error {
	switch {
	case len(b) < 10 || len(b) > maxFamiliar:
		return fmt.Errorf("familiarity: %d bytes: expected 10 to %d", len(b), maxFamiliar)
	case b[0] != familiarForm:
		return fmt.Errorf("familiarity: form %d: expected %d", b[0], familiarForm)
	case binary.LittleEndian.Uint64(b[1:]) != c.seedMark():
		return errors.New("familiarity: of another seed")
	case b[9] > 2:
		return fmt.Errorf("familiarity: %d generations: expected at most 2", b[9])
	}
	f := newFamiliarity()
	f.turns = int(b[9])
	b = b[10:]
	for _, s := range []*sketch{f.settled, f.resting, f.fresh} {
		var err error
		if b, err = s.read(b); err != nil {
			return err
		}
	}
	if len(b) > 0 {
		return fmt.Errorf("familiarity: %d bytes too many", len(b))
	}
	c.familiar = f
	return nil
}

// seedMark tells one seed from another without telling the seed.
func (c *Context) seedMark() uint64 { return mix(mix(c.o.Seed^0x66616d696c696172) + 1) }

func (s *sketch) append(b []byte) []byte {
	n, before := 0, -1
	for r := range s {
		for _, x := range s[r] {
			if x > 0 {
				n++
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for r := range s {
		for i, x := range s[r] {
			if at := r*width + i; x > 0 {
				b = binary.AppendUvarint(b, uint64(at-before))
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
				before = at
			}
		}
	}
	return b
}

func (s *sketch) read(b []byte) ([]byte, error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > rows*width {
		return nil, fmt.Errorf("familiarity: count of counters: expected at most %d", rows*width)
	}
	b = b[k:]
	at := -1
	for range n {
		gap, k := binary.Uvarint(b)
		if k <= 0 || gap == 0 || gap > rows*width || at+int(gap) >= rows*width || len(b) < k+4 {
			return nil, errors.New("familiarity: cut short or out of range")
		}
		at += int(gap)
		x := math.Float32frombits(binary.LittleEndian.Uint32(b[k:]))
		if !(x > 0 && x < math.MaxFloat32) {
			return nil, fmt.Errorf("familiarity: counter %v: expected a number above 0", x)
		}
		s[at/width][at%width] = x
		b = b[k+4:]
	}
	return b, nil
}
