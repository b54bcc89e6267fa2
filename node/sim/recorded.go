package sim

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/soft"
)

// recorded is a flow of a log, as packets are made of it again.
type recorded struct {
	rec   flow.Record
	visit *visit // nil: ordinary
	gone  bool   // a packet of it was dropped: what was recorded after it did not come
	first bool   // it is the first of its visit
}

// knock says that somebody outside asked for a service and got no answer.
func (x *recorded) knock() bool {
	return x.rec.Key.Proto == flow.TCP && !x.rec.InitInside && x.rec.RespInside && x.rec.Dir[1].Packets == 0
}

// packet is one of a recorded flow. end 0 is who began it.
type packet struct {
	at   time.Time
	flow *recorded
	end  int
	seg  soft.Segment
}

// script is a site's packets, those that were shown before at.
type script struct {
	packets []packet
	at      int
}

func (s *script) next() *packet {
	if s.at == len(s.packets) {
		return nil
	}
	return &s.packets[s.at]
}

// newScript makes packets of flows.
func newScript(flows []*recorded) script {
	var s script
	for _, x := range flows {
		s.packets = append(s.packets, x.packets()...)
	}
	slices.SortStableFunc(s.packets, func(a, b packet) int { return a.at.Compare(b.at) })
	return s
}

// mostPackets is how many packets of payload an end sends; what was longer is cut.
const mostPackets = 8

// largest is the most payload of a packet.
const largest = 1400

// packets are a flow's: requests as often as they were sent, a handshake where there
// was an answer, payload to and fro in at most a few packets, and how it ended. They
// are spread over the flow's time.
func (x *recorded) packets() []packet {
	var out []packet
	r := &x.rec
	ends := [2]netip.AddrPort{r.Initiator(), r.Responder()}
	seq := [2]uint32{1000, 5000}
	add := func(end int, flags uint8, payload int) {
		p := packet{flow: x, end: end, seg: soft.Segment{Src: ends[end], Dst: ends[1-end], Proto: r.Key.Proto, Flags: flags, Seq: seq[end], Payload: payload}}
		if flags&flow.ACK != 0 {
			p.seg.Ack = seq[1-end]
		}
		seq[end] += uint32(payload)
		if flags&(flow.SYN|flow.FIN) != 0 {
			seq[end]++
		}
		out = append(out, p)
	}
	switch {
	case r.Key.Proto != flow.TCP:
		x.datagrams(add)
	case r.Dir[1].Packets == 0:
		for range min(max(r.Dir[0].Packets, 1), 4) {
			seq[0] = 1000
			add(0, flow.SYN, 0)
		}
	case r.Dir[0].Payload+r.Dir[1].Payload == 0 && r.Dir[1].RST > 0:
		add(0, flow.SYN, 0)
		add(1, flow.RST|flow.ACK, 0)
	default:
		x.connection(add)
	}
	step := r.Duration() / time.Duration(len(out))
	step = max(step, time.Millisecond)
	for i := range out {
		out[i].at = time.Unix(0, r.Start).UTC().Add(time.Duration(i) * step)
	}
	return out
}

// connection is a handshake, payload, and an end.
func (x *recorded) connection(add func(end int, flags uint8, payload int)) {
	add(0, flow.SYN, 0)
	add(1, flow.SYN|flow.ACK, 0)
	add(0, flow.ACK, 0)
	x.payload(func(end, size int) { add(end, flow.ACK|flow.PSH, size) })
	switch {
	case x.rec.Dir[0].RST > 0:
		add(0, flow.RST|flow.ACK, 0)
	case x.rec.Dir[1].RST > 0:
		add(1, flow.RST|flow.ACK, 0)
	case x.rec.Dir[0].FIN > 0:
		add(0, flow.FIN|flow.ACK, 0)
		add(1, flow.FIN|flow.ACK, 0)
		add(0, flow.ACK, 0)
	}
}

func (x *recorded) datagrams(add func(end int, flags uint8, payload int)) {
	if x.rec.Dir[0].Payload+x.rec.Dir[1].Payload == 0 {
		add(0, 0, 8)
	}
	x.payload(func(end, size int) { add(end, 0, size) })
}

// payload is what both ends said, in turn.
func (x *recorded) payload(add func(end, size int)) {
	left := [2]uint64{x.rec.Dir[0].Payload, x.rec.Dir[1].Payload}
	for range mostPackets {
		for end := range left {
			if n := min(left[end], largest); n > 0 {
				add(end, int(n))
				left[end] -= n
			}
		}
	}
}

// show shows the node the next packet.
func (w *whole) show() {
	p := w.script.next()
	w.script.at++
	x := p.flow
	if x.gone {
		return
	}
	hook := dataplane.ToInside
	if (p.end == 0) == x.rec.InitInside {
		hook = dataplane.FromInside
	}
	passed := w.plane.Frame(hook, softplane.Ethernet, p.seg.Frame(nil), 0, p.at)
	x.gone = !passed
	w.count(x, passed)
	w.steps.Seen()
}

// count keeps what became of a flow's first packet.
func (w *whole) count(x *recorded, passed bool) {
	v := x.visit
	if v == nil {
		if !passed {
			w.seen.lost++
		}
		return
	}
	if x.first && !v.met {
		v.met, v.prevented = true, !passed
	}
	if w.proofs && passed && x.knock() {
		w.proved = append(w.proved, x)
	}
}

// prover is a plane beside a responder that answers for unused services: whoever
// knocks there completes the handshake, and the node is told so, once for each flow,
// as the kernel's plane tells it. The plane in software answers nobody.
type prover struct {
	*softplane.Plane
	w *whole
}

// Drain gives the plane's events, and then the proofs.
func (p *prover) Drain(handle func(*dataplane.Event)) int {
	n := p.Plane.Drain(handle)
	for len(p.w.proved) > 0 {
		x := p.w.proved[0]
		p.w.proved = p.w.proved[1:]
		ev := dataplane.Event{Kind: dataplane.EventProof, Record: x.rec, At: p.w.clock.UnixNano()}
		ev.Record.Lacks, ev.Record.Validated[0] = 0, true
		handle(&ev)
		n++
	}
	return n
}

// byBegin sorts flows by their begin.
func byBegin(a, b *recorded) int { return cmp.Compare(a.rec.Start, b.rec.Start) }
