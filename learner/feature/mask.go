package feature

import "math/bits"

// Mask is a set of features: bit i, of word i/64, is feature i.
type Mask [2]uint64

var _ = [1]struct{}{}[(Dim-1)/128] // all features have a bit

var every = func() (m Mask) {
	for i := range Dim {
		m.Add(i)
	}
	return m
}()

// All has every feature.
func All() Mask { return every }

// Has says whether feature i is in the set.
func (m Mask) Has(i int) bool { return m[i>>6&1]>>uint(i&63)&1 == 1 }

// Add puts feature i into the set.
func (m *Mask) Add(i int) { m[i>>6&1] |= 1 << uint(i&63) }

// Remove takes feature i out.
func (m *Mask) Remove(i int) { m[i>>6&1] &^= 1 << uint(i&63) }

// And is what both have.
func (m Mask) And(o Mask) Mask { return Mask{m[0] & o[0], m[1] & o[1]} }

// Or is what either has.
func (m Mask) Or(o Mask) Mask { return Mask{m[0] | o[0], m[1] | o[1]} }

// Without is what m has and o has not.
func (m Mask) Without(o Mask) Mask { return Mask{m[0] &^ o[0], m[1] &^ o[1]} }

// Xor is what one of them has and the other has not.
func (m Mask) Xor(o Mask) Mask { return Mask{m[0] ^ o[0], m[1] ^ o[1]} }

// Len is how many features there are in the set.
func (m Mask) Len() int { return bits.OnesCount64(m[0]) + bits.OnesCount64(m[1]) }
