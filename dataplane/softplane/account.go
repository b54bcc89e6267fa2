package softplane

import (
	"math"
	"math/bits"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// state is a flow in the table.
type state struct {
	rec          flow.Record
	side         [2]side // as rec.Dir
	payloadAt    int64   // of the latest payload-carrying packet
	sawSYN       bool    // without ACK
	resets       bool    // nothing but resets, see resets.go
	own          bool    // the gateway's, at its outside
	class        class
	newer, elder *state // neighbours in the class's list
}

// side is the TCP state of one direction.
type side struct {
	isn, high, finEnd           uint32
	synAt                       int64 // of the latest SYN
	sawSYN, sawAny, fin, finAck bool  // finAck: this side acknowledged the other's FIN
	isnAt                       uint8 // bits of the hooks that saw isn
	seenAt                      uint8 // bits of the hooks that saw packets
}

// account counts a packet at time t and says how the flow stands after it.
func (s *state) account(q *parsed, t int64) flow.End {
	r := &s.rec
	d := s.dir(q)
	t = max(t, r.Last)
	r.Last = t
	if q.Proto == flow.TCP && q.flags&(flow.SYN|flow.ACK) == flow.SYN && !s.sawSYN {
		s.sawSYN = true
		if d == 1 {
			s.swap()
			d = 0
		}
	}
	count(&r.Dir[d], q, t)
	s.firsts(q, d, t)
	if q.Proto != flow.TCP {
		return flow.Open
	}
	return s.tcp(q, d, t)
}

// dir is 0 for packets of the initiator.
func (s *state) dir(q *parsed) int {
	if q.fromB == s.rec.InitB {
		return 0
	}
	return 1
}

// swap makes the responder the initiator.
func (s *state) swap() {
	r := &s.rec
	r.InitB = !r.InitB
	r.InitInside, r.RespInside = r.RespInside, r.InitInside
	r.Dir[0], r.Dir[1] = r.Dir[1], r.Dir[0]
	r.Validated[0], r.Validated[1] = r.Validated[1], r.Validated[0]
	s.side[0], s.side[1] = s.side[1], s.side[0]
	for i := range r.Sizes {
		r.Sizes[i] = -r.Sizes[i]
	}
}

func count(d *flow.Dir, q *parsed, t int64) {
	size := uint16(min(q.Size, math.MaxUint16))
	if d.Packets == 0 {
		d.First, d.Window, d.TTL = t, q.window, q.ttl
		d.SizeMin, d.SizeMax = size, size
	} else {
		us := uint64(max(0, t-d.Last) / 1000)
		hi, sq := bits.Mul64(us, us)
		sum, carry := bits.Add64(d.GapSq, sq, 0)
		if hi != 0 || carry != 0 {
			sum = math.MaxUint64
		}
		d.GapSq = sum
		d.GapMax = max(d.GapMax, flow.SaturateUS(t-d.Last))
	}
	d.SizeMin, d.SizeMax = min(d.SizeMin, size), max(d.SizeMax, size)
	d.Last = t
	d.Packets++
	d.Bytes += uint64(q.Size)
	d.Payload += uint64(q.payload)
	d.SizeSq += uint64(size) * uint64(size)
	d.Flags |= q.flags
	bump(&d.SYN, q.flags&flow.SYN != 0)
	bump(&d.FIN, q.flags&flow.FIN != 0)
	bump(&d.RST, q.flags&flow.RST != 0)
	bump(&d.PSH, q.flags&flow.PSH != 0)
}

func bump(n *uint16, by bool) {
	if by && *n < math.MaxUint16 {
		*n++
	}
}

// firsts keeps size and gap of the first packets that carry payload, and what
// the very first payload looks like.
func (s *state) firsts(q *parsed, d int, t int64) {
	if q.payload <= 0 {
		return
	}
	r := &s.rec
	if r.NFirst == 0 {
		s.payloadAt = r.Start
		if q.hasHead && q.Proto == flow.TCP {
			r.Hint = hint(q.head)
		}
	}
	if d == 0 {
		q.show = shows(q, r)
	}
	if r.NFirst < flow.First {
		size := int16(min(q.payload, math.MaxInt16))
		if d == 1 {
			size = -size
		}
		r.Sizes[r.NFirst] = size
		r.Gaps[r.NFirst] = flow.SaturateUS(t - s.payloadAt)
		r.NFirst++
	}
	s.payloadAt = t
}

func hint(b [4]byte) flow.Hint {
	if b[0] == 0x16 && b[1] == 3 && b[2] <= 4 {
		return flow.HintTLS
	}
	switch string(b[:]) {
	case "SSH-":
		return flow.HintSSH
	case "GET ", "POST", "HEAD", "PUT ", "DELE", "OPTI", "PATC", "CONN", "TRAC":
		return flow.HintHTTP
	}
	return flow.HintNone
}

// tcp follows the handshake (RFC 9293, 3.5), the sequence space and the end.
func (s *state) tcp(q *parsed, d int, t int64) flow.End {
	me, other := &s.side[d], &s.side[1-d]
	if q.payload > 0 && me.sawAny && int32(q.seq-me.high) < 0 {
		bump(&s.rec.Dir[d].Retrans, true)
	}
	end := q.seq + uint32(q.payload)
	if q.flags&flow.SYN != 0 {
		if me.isn != q.seq {
			me.isnAt = 0
		}
		me.isn, me.sawSYN, me.synAt = q.seq, true, t
		me.isnAt |= q.at
		end++
	}
	if q.flags&flow.FIN != 0 {
		end++
		me.fin, me.finEnd = true, end
	}
	if !me.sawAny || int32(end-me.high) > 0 {
		me.high, me.sawAny = end, true
	}
	if q.flags&flow.ACK != 0 {
		s.acked(q, d, t)
		me.finAck = me.finAck || other.fin && int32(q.ack-other.finEnd) >= 0
	}
	switch {
	case q.flags&flow.RST != 0:
		return flow.EndRST
	case me.fin && other.fin && me.finAck && other.finAck:
		return flow.EndFIN
	}
	return flow.Open
}

// acked looks at the ACK number of a segment: whoever names the other side's
// initial sequence number plus one has received it, provided that the number
// left by the other hook. One that came in by the same hook may be the sender's
// own, under a borrowed name.
func (s *state) acked(q *parsed, d int, t int64) {
	r, other := &s.rec, &s.side[1-d]
	proof := other.sawSYN && q.ack == other.isn+1
	r.Validated[d] = r.Validated[d] || proof && (q.at == 0 || other.isnAt&^q.at != 0)
	switch {
	case !proof:
	case d == 1 && q.flags&flow.SYN != 0 && r.SynAckUS == 0:
		r.SynAckUS = max(1, flow.SaturateUS(t-other.synAt))
	case d == 0 && r.AckUS == 0:
		r.AckUS = max(1, flow.SaturateUS(t-other.synAt))
	}
}
