package softplane

import (
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Role says what an interface stands before; dataplane/xdp tells each. A
// bridge's port is Inside.
type Role uint8

// Roles.
const (
	Inside Role = iota
	Host
	Outside
	Sensor // of Options.Inside; nothing is dropped there
)

// Sight is where a frame is seen.
type Sight struct {
	Role     Role
	Egress   bool // it leaves by the interface; else it enters
	Received bool // leaving, it had come in by some interface of the machine
}

// way is how a packet stands to what other hooks see of it; bpf/place.h of the
// kernel path has the same.
type way uint8

const (
	wayAgain  way = 1 << iota // it was received here: another hook may have counted it
	wayJoin                   // counted only if it answers a flow of the gateway's own
	wayPass                   // not counted
	wayOwn                    // the gateway's own, at the outside
	wayBoth                   // both ends are inside
	wayPaid                   // what a new flow costs was asked at the outside
	waySensor                 // a copy: it cannot be dropped
)

// At is Frame where the plane has several interfaces: a forwarded packet passes
// two of them, meets the rules at each, and is counted into its flow once.
func (p *Plane) At(where Sight, link LinkType, frame []byte, origLen int, at time.Time) (passed bool) {
	return p.shown(link, frame, origLen, at, func(q *parsed) dataplane.Hook { return p.place(q, where) })
}

// place finds the direction and the way of a packet.
func (p *Plane) place(q *parsed, where Sight) dataplane.Hook {
	inward := where.Role == Host || where.Role == Outside
	if where.Egress {
		inward = !inward
	}
	switch {
	case where.Role == Sensor:
		q.way = waySensor
		from := q.ip && p.inside(q.Src)
		if from && p.inside(q.Dst) {
			q.way |= wayBoth
		}
		inward = !from
	case where.Role == Outside && !where.Egress:
		q.way = wayJoin
	case where.Role == Outside && where.Received:
		q.way = wayPass
	case where.Role == Outside:
		q.way = wayOwn
	case where.Egress && where.Received:
		q.way = wayAgain
		if p.opts.Outside && q.syn() {
			q.way |= wayPaid
		}
	}
	if inward {
		return dataplane.ToInside
	}
	return dataplane.FromInside
}

// syn says that the packet begins a connection.
func (q *parsed) syn() bool {
	return q.Proto == flow.TCP && !q.NoPorts && q.flags&(flow.SYN|flow.ACK) == flow.SYN
}

// reset says that the packet is a TCP reset.
func (q *parsed) reset() bool { return q.Proto == flow.TCP && q.flags&flow.RST != 0 }

// begins says whether a packet without a flow makes one. What ended a flow at
// one hook does not begin it anew at the next.
func (q *parsed) begins() bool {
	switch {
	case q.way&(wayJoin|wayPass) != 0:
		return false
	case q.Proto != flow.TCP:
		return true
	}
	return !q.reset() && (q.way&wayAgain == 0 || q.flags&flow.SYN != 0)
}

// remains says whether a packet without a flow is a reset that is kept apart.
func (q *parsed) remains() bool { return q.reset() && q.way&^(wayBoth|waySensor) == 0 }

// knocks says that the packet meets the budgets at the outside, where nothing
// else of it is kept.
func (q *parsed) knocks() bool { return q.way&wayJoin != 0 && q.syn() }

// counts says whether a packet is counted into its flow, and notes what this
// hook knows of the ends.
func (s *state) counts(q *parsed, inside [2]bool) bool {
	d := s.dir(q)
	me := &s.side[d]
	switch {
	case q.way&wayPass != 0:
		return false
	case q.way&wayJoin != 0:
		return s.own
	case q.way&wayOwn != 0:
		s.own = true
	}
	if q.way&wayAgain == 0 || me.seenAt&^q.at == 0 {
		return true
	}
	me.seenAt |= q.at
	mark(&s.rec, d, inside)
	if q.flags&flow.SYN != 0 && me.sawSYN && q.seq == me.isn {
		me.isnAt |= q.at
	}
	return false
}

// found notes what the first packet of a flow says. The answer of a service at
// the gateway is the first that is counted, and its sender the responder.
func (s *state) found(q *parsed) {
	s.own = q.way&wayOwn != 0
	if s.own && q.Proto == flow.TCP && q.flags&(flow.SYN|flow.ACK) == flow.SYN|flow.ACK {
		s.swap()
		s.sawSYN = true
	}
}
