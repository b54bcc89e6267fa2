package softplane

import (
	"math"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// leftover counts a reset that belongs to no flow: after the end of one, or
// alone. Resets of one key that follow each other and are alike are one record,
// which nothing else touches: past is the one so far, or nil. They push out no
// flow.
func (p *Plane) leftover(past *state, q *parsed, inside [2]bool, t int64) {
	if past != nil && past.goesOn(q) {
		past.again(q, t)
		p.flows.touch(past)
		return
	}
	if past != nil {
		p.finish(past, flow.EndRST)
	}
	if p.flows.victim() != nil {
		p.stats.FlowsUntracked++
		return
	}
	s := p.create(q, inside, t)
	s.account(q, t)
	s.resets = true
}

// goesOn says whether a reset is like those before it.
func (s *state) goesOn(q *parsed) bool {
	d := &s.rec.Dir[0]
	return s.dir(q) == 0 && q.flags == d.Flags && q.flags&(flow.SYN|flow.FIN|flow.PSH) == 0 && q.payload == 0 &&
		d.Payload == 0 && q.Size == int(d.SizeMax) && d.RST < math.MaxUint16
}

// again counts one more, as one burst with those before: gaps are not kept.
func (s *state) again(q *parsed, t int64) {
	d := &s.rec.Dir[0]
	d.Packets++
	d.Bytes += uint64(q.Size)
	d.SizeSq += uint64(q.Size) * uint64(q.Size)
	d.RST++
	d.Last = max(t, d.Last)
	s.rec.Last = d.Last
}
