package wide

import "math"

// Eight is how many rows a Block has, and how many blocks a Boxes.
const Eight = 8

// groups of four features are one lane.
const groups = Lanes / 4

// Block is eight rows in bytes: four features of the first, the same of the second.
type Block [groups * 4 * Eight]byte

// Boxes says between what eight blocks lie, feature by feature.
type Boxes struct{ hi, lo Block }

func place(lane, i int) int { return i/4*4*Eight + lane*4 + i%4 }

// step is where a feature is, in bytes.
func step(z, flip float32) byte {
	if bits(flip) != 0 {
		z = -z
	}
	return byte(min(max(math.RoundToEven(float64((z+Clip)*units)), 0), 255))
}

// Set writes a row into a lane.
func (b *Block) Set(lane int, z *Row, s *Sides) {
	for i := range Dim {
		b[place(lane, i)] = step(z[i], s.flip[i])
	}
}

// Set puts a box about a block.
func (x *Boxes) Set(lane int, b *Block) {
	for i := range Dim {
		lo, hi := byte(255), byte(0)
		for row := range Eight {
			at := b[place(row, i)]
			lo, hi = min(lo, at), max(hi, at)
		}
		x.lo[place(lane, i)], x.hi[place(lane, i)] = lo, hi
	}
}

// Bounds are numbers that Differ is never below.
type Bounds [Eight]float32

// Boxes writes how much the query differs, at the least, from any row of each block.
func (q *Query) Boxes(out *Bounds, x *Boxes) {
	q.boxes(out, x)
}

func (q *Query) boxesPlain(out *Bounds, x *Boxes) {
	for lane := range out {
		out[lane] = q.least(lane, &x.hi, &x.lo)
	}
}

// Block says which rows of a block may differ by at most limit: bit i for row i. It
// writes how much they differ at the least; of the others out says nothing.
func (q *Query) Block(out *Bounds, b *Block, limit float32) (which uint32) {
	return q.block(out, b, limit)
}

func (q *Query) blockPlain(out *Bounds, b *Block, limit float32) (which uint32) {
	for lane := range out {
		if out[lane] = q.least(lane, b, b); out[lane] <= limit {
			which |= 1 << lane
		}
	}
	return which
}

// least is the bound of a lane, as the assembler has it.
func (q *Query) least(lane int, hi, lo *Block) float32 {
	var own, ctx int32
	for i := range Dim {
		at, up, down := int32(q.at[i]), int32(hi[place(lane, i)]), int32(lo[place(lane, i)])
		d := max(at-up, 0)
		ctx += bent(d - int32(q.ctx[i]))
		own += bent(max(d, down-at) - int32(q.own[i]))
	}
	return float32(own)*q.ownBound + float32(ctx)*q.ctxBound
}

func bent(d int32) int32 {
	d = max(d, 0)
	m := min(d, units)
	return m * min(2*d-m, 255)
}
