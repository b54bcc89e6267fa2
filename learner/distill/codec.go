package distill

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
)

// confirmedVersion begins the encoding of confirmed flows: then their number, and
// of each the incident, the weight and the looks. Numbers are varints, fractions
// four bytes, little endian.
const confirmedVersion = 1

const maxIncident = 256 // bytes of an incident's name

// MarshalConfirmed encodes what people and rules confirmed, the part of a memory
// that does not come back by itself.
func (m *Memory) MarshalConfirmed() []byte {
	b := binary.AppendUvarint([]byte{confirmedVersion, score.FeatureVersion}, uint64(len(m.marked)))
	for i := range m.marked {
		x := &m.marked[i]
		b = binary.AppendUvarint(b, uint64(len(x.incident)))
		b = append(b, x.incident...)
		b = appendFraction(b, x.flow.Weight)
		b = append(b, byte(len(x.flow.Looks)))
		for k := range x.flow.Looks {
			l := &x.flow.Looks[k]
			b = appendFraction(append(b, byte(l.At)), l.P)
			for _, y := range l.X {
				b = binary.AppendVarint(b, int64(y))
			}
		}
	}
	return b
}

func appendFraction(b []byte, x float32) []byte {
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
}

// UnmarshalConfirmed brings back what MarshalConfirmed encoded, in place of what
// was confirmed so far. After an error the memory is as it was.
func (m *Memory) UnmarshalConfirmed(b []byte) error {
	if len(b) < 2 || b[0] != confirmedVersion || b[1] != score.FeatureVersion {
		return errors.New("decode confirmed flows: not of this version")
	}
	r := reader{b: b[2:]}
	var out []marked
	for range r.number(maxMarked) {
		x := marked{incident: string(r.take(r.number(maxIncident)))}
		x.flow.Weight = r.fraction()
		for range r.number(score.Milestones) {
			x.flow.Looks = append(x.flow.Looks, r.look())
		}
		if r.err != nil {
			return fmt.Errorf("decode confirmed flows: %w", r.err)
		}
		if err := x.flow.check(); err != nil {
			return fmt.Errorf("decode confirmed flows: %d: %w", len(out), err)
		}
		out = append(out, x)
	}
	if r.err != nil || len(r.b) > 0 {
		return fmt.Errorf("decode confirmed flows: %d bytes are left: %w", len(r.b), errors.Join(r.err, errTail))
	}
	m.marked = out
	return nil
}

var (
	errShort = errors.New("cut short or out of range")
	errTail  = errors.New("expected an end")
)

// reader takes numbers from the front, and zeros after the first error.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.err, r.b = errShort, nil
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) number(most int) int {
	x, n := binary.Uvarint(r.b)
	if n <= 0 || x > uint64(most) {
		r.err, r.b = errShort, nil
		return 0
	}
	r.b = r.b[n:]
	return int(x)
}

func (r *reader) fraction() float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(r.take(4)))
}

func (r *reader) look() (l Look) {
	l.At, l.P = score.Milestone(r.take(1)[0]), r.fraction()
	for i := range l.X {
		x, n := binary.Varint(r.b)
		if n <= 0 || x < math.MinInt32 || x > math.MaxInt32 {
			r.err, r.b = errShort, nil
			return l
		}
		r.b, l.X[i] = r.b[n:], int32(x)
	}
	return l
}
