package score

import (
	"fmt"
	"math"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// FeatureVersion numbers the list of features and the rules that derive them. A
// scorer made for another version cannot be decoded.
const FeatureVersion = 2

// Dim is the number of features.
const Dim = DirBase + 2*DirDim

// Vector is what a scorer looks at.
type Vector [Dim]int32

// Features of the flow, by their place in a Vector. The unit tick is 1024 ns. A
// value beyond an int32 is its largest.
const (
	Proto       = iota // IP protocol number
	Service            // the responder's port, 0 of protocols without
	Fellows            // flow.Record.Fellows
	InitInside         // 1 when the initiator is on the protected side
	RespInside         // 1 when the responder is
	InitProved         // 1 when the initiator proved its address, see flow.Record.Validated
	RespProved         // 1 when the responder did
	Hint               // flow.Hint
	Duration           // first to last packet, ticks
	SynAck             // SYN to SYN-ACK, us, 0 unknown
	Ack                // SYN-ACK to ACK, us, 0 unknown
	Answer             // first packet to the responder's first one, ticks; -1 when that sent none
	Firsts             // packets with payload, at most flow.First
	UploadShare        // of payload bytes, how many of 1024 are the initiator's
	PacketShare        // of packets, how many of 1024 are the initiator's
	Size1              // and on to Size1+7: flow.Record.Sizes, 0 beyond Firsts
	Gap1        = Size1 + flow.First
	DirBase     = Gap1 + flow.First // Gap1 to Gap1+7: flow.Record.Gaps, us
)

// Features of a direction: that of the initiator's direction is at DirBase+x,
// that of the responder's at DirBase+DirDim+x.
const (
	Packets    = iota
	Payload    // bytes
	SizeMean   // bytes of an IP packet
	SizeSpread // mean square of sizes, less the square of SizeMean
	SizeMin
	SizeMax
	GapMean   // ticks between packets of the direction
	GapMax    // us
	GapSpread // 64 times the mean square of gaps (us), over the square of GapMean plus one
	Rate      // bytes in 1024 ticks of the direction's own duration
	SYN       // packets with the flag
	FIN
	RST
	PSH
	Retrans // segments sent again
	Window  // of the first packet
	TTL     // of the first packet
	DirDim
)

var flowNames = [DirBase]string{
	"protocol", "service port", "flows alike", "initiator inside", "responder inside", "initiator proved", "responder proved",
	"protocol hint", "duration", "syn-ack time", "ack time", "answer time", "payload packets", "upload share", "packet share",
	"size 1", "size 2", "size 3", "size 4", "size 5", "size 6", "size 7", "size 8",
	"gap 1", "gap 2", "gap 3", "gap 4", "gap 5", "gap 6", "gap 7", "gap 8",
}

var dirNames = [DirDim]string{
	"packets", "payload", "mean size", "size spread", "smallest", "largest", "mean gap", "longest gap", "gap spread", "rate",
	"syn", "fin", "rst", "psh", "retransmissions", "window", "ttl",
}

// Name says what feature i is, for people.
func Name(i int) string {
	switch {
	case i < 0 || i >= Dim:
		return fmt.Sprintf("feature-%d", i)
	case i < DirBase:
		return flowNames[i]
	case i < DirBase+DirDim:
		return dirNames[i-DirBase] + " out"
	}
	return dirNames[i-DirBase-DirDim] + " in"
}

// Floor is the least that feature i can be, 0 for most. What evaluates scorers need
// not get less right.
func Floor(i int) int32 {
	if i == Answer || i >= Size1 && i < Gap1 {
		return math.MinInt16
	}
	return 0
}

// Needs are the fields of a record that features are made of: all but absolute
// times and what a client says first.
const Needs = flow.LackAll &^ (flow.LackClock | flow.LackHello)

// FromRecord derives the features of a flow and says at which milestone they
// are scored. ok is false when the record's source lacks what is needed, or the
// flow has no such number of packets, see At.
func FromRecord(r *flow.Record) (v Vector, at Milestone, ok bool) {
	at, ok = At(r.Packets())
	if !ok || r.Lacks&Needs != 0 {
		return Vector{}, 0, false
	}
	v.fill(r)
	return v, at, true
}

func (v *Vector) fill(r *flow.Record) {
	v[Proto] = int32(r.Key.Proto)
	v[Service], v[Fellows] = int32(r.Key.BPort), int32(r.Fellows)
	if r.InitB {
		v[Service] = int32(r.Key.APort)
	}
	v[InitInside], v[RespInside] = one(r.InitInside), one(r.RespInside)
	v[InitProved], v[RespProved] = one(r.Validated[0]), one(r.Validated[1])
	v[Hint] = int32(r.Hint)
	v[Duration] = sat(ticks(r.Start, r.Last))
	v[SynAck], v[Ack] = sat(uint64(r.SynAckUS)), sat(uint64(r.AckUS))
	v[Answer] = -1
	i, o := &r.Dir[0], &r.Dir[1]
	if o.Packets > 0 {
		v[Answer] = sat(ticks(r.Start, o.First))
	}
	v[Firsts] = int32(r.NFirst)
	up, down := uint64(sat(i.Payload)), uint64(sat(o.Payload))
	v[UploadShare] = sat(ratio(up<<10, up+down))
	v[PacketShare] = sat(ratio(uint64(i.Packets)<<10, uint64(i.Packets)+uint64(o.Packets)))
	for n := range min(int(r.NFirst), flow.First) {
		v[Size1+n] = int32(r.Sizes[n])
		v[Gap1+n] = sat(uint64(r.Gaps[n]))
	}
	direction(i, v[DirBase:DirBase+DirDim])
	direction(o, v[DirBase+DirDim:])
}

func direction(d *flow.Dir, v []int32) {
	n, bytes := uint64(d.Packets), uint64(sat(d.Bytes))
	span, mean := ticks(d.First, d.Last), ratio(bytes, n)
	gaps := n - 1
	if n == 0 {
		gaps = 0
	}
	gap := uint64(sat(ratio(span, gaps)))
	v[Packets], v[Payload] = sat(n), sat(d.Payload)
	v[SizeMean] = sat(mean)
	v[SizeSpread] = sat(less(ratio(d.SizeSq, n), mean*mean))
	v[SizeMin], v[SizeMax] = int32(d.SizeMin), int32(d.SizeMax)
	v[GapMean], v[GapMax] = sat(gap), sat(uint64(d.GapMax))
	v[GapSpread] = sat(ratio(min(ratio(d.GapSq, gaps), 1<<57)<<6, gap*gap+1))
	v[Rate] = sat(ratio(bytes<<10, span+1))
	v[SYN], v[FIN], v[RST], v[PSH] = int32(d.SYN), int32(d.FIN), int32(d.RST), int32(d.PSH)
	v[Retrans], v[Window], v[TTL] = int32(d.Retrans), int32(d.Window), int32(d.TTL)
}

func one(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// sat makes anything fit.
func sat(x uint64) int32 { return int32(min(x, math.MaxInt32)) }

// ratio is x/y, and 0 when y is.
func ratio(x, y uint64) uint64 {
	if y == 0 {
		return 0
	}
	return x / y
}

// less is x-y, not below 0.
func less(x, y uint64) uint64 {
	if x < y {
		return 0
	}
	return x - y
}

// ticks is the time from one moment to another, in units of 1024 ns.
func ticks(from, to int64) uint64 {
	if to < from {
		return 0
	}
	return uint64(to-from) >> 10
}
