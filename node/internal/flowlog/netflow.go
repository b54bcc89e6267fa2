package flowlog

import (
	"net/netip"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// netflowLacks is what NetFlow and IPFIX records tell of no flow in nfdump's CSV.
const netflowLacks = flow.LackPayload | flow.LackSizeSpread | flow.LackSizeMax | flow.LackGapSpread | flow.LackGapMax | flow.LackFirsts |
	flow.LackHint | flow.LackHello | flow.LackSYN | flow.LackPSH | flow.LackRetrans | flow.LackProof | flow.LackRTT | flow.LackWindow | flow.LackTTL

// netflow reads a line of `nfdump -o csv`. Fields that map, with their IPFIX
// information elements (RFC 7012): ts flowStart, td the length, sa and da the
// addresses, sp and dp the ports, pr protocolIdentifier, flg tcpControlBits,
// ipkt and ibyt packet and octet delta count, opkt and obyt their reverse (RFC
// 5103). Exporters mostly tell each direction by itself; halves joins them.
func (t *table) netflow(w *row, emit func(*Flow)) *LineError {
	name, _ := w.need("pr", "a protocol")
	p, ip := proto(name)
	if w.bad == nil && !ip {
		return &LineError{Kind: NotIP}
	}
	f := &Flow{}
	rec := &f.Record
	rec.Lacks = netflowLacks
	e := ends{src: w.addr("sa"), dst: w.addr("da"), proto: p}
	if p == flow.TCP || p == flow.UDP {
		e.sport, e.dport = w.port("sp"), w.port("dp") // of ICMP it is the type
	}
	packets(w, rec, 0, "ipkt")
	back, _ := w.count("opkt", maxPackets)
	rec.Dir[1].Packets = uint32(back)
	rec.Dir[0].Bytes, _ = w.count("ibyt", maxBytes)
	rec.Dir[1].Bytes, _ = w.count("obyt", maxBytes)
	start := w.stamp("ts", t.r.o.Zone)
	t.zoned(w, "ts")
	d, _ := w.span("td")
	if w.bad != nil {
		return w.bad
	}
	if rec.Packets() == 0 {
		return &LineError{Kind: Nothing}
	}
	flags, _ := w.get("flg")
	netflowFlags(rec, flags, p == flow.TCP && back == 0)
	t.r.ended(rec, e)
	lasted(rec, start, d)
	t.r.fits(rec)
	f.Line = t.r.src.N()
	if back > 0 {
		emit(f)
		return nil
	}
	t.halves.add(f, netip.AddrPortFrom(e.src, e.sport), emit)
	return nil
}

// netflowFlags reads "...AP.SF"; of both directions together it says nothing.
func netflowFlags(rec *flow.Record, s string, oneWay bool) {
	rec.End = flow.EndIdle
	if rec.Key.Proto != flow.TCP && !oneWay {
		rec.Lacks |= flow.LackFlags
		return
	}
	var flags uint8
	if strings.Contains(s, "F") {
		flags |= flow.FIN
	}
	if strings.Contains(s, "R") {
		flags |= flow.RST
	}
	setFlags(&rec.Dir[0], flags)
}

// apart is how long after its last packet a flow's other half, or its next part
// (exporters cut long flows), may begin.
const apart = int64(2 * time.Minute)

// halves joins flows that were exported by direction, and the parts of long ones,
// in bounded memory: of too many at once the oldest is given as it is.
type halves struct {
	limit int
	open  map[flow.Key]*half
	order []*half
	now   int64 // the latest end seen
}

type half struct {
	f    *Flow
	from netip.AddrPort // who Dir[0] is
	gone bool
}

func newHalves(limit int) *halves { return &halves{limit: limit, open: map[flow.Key]*half{}} }

func (h *halves) add(f *Flow, from netip.AddrPort, emit func(*Flow)) {
	h.now = max(h.now, f.Record.Last)
	k := f.Record.Key
	if o := h.open[k]; o != nil {
		a, b := &o.f.Record, &f.Record
		if b.Start <= a.Last+apart && a.Start <= b.Last+apart && max(a.Last, b.Last)-min(a.Start, b.Start) <= int64(maxSpan) {
			o.merge(f, from)
			h.expire(emit)
			return
		}
		h.give(o, emit)
	}
	o := &half{f: f, from: from}
	h.open[k] = o
	h.order = append(h.order, o)
	h.expire(emit)
}

// merge adds a part to the flow. Who began is the initiator; of a tie, as times
// may be whole seconds, the one with the higher port.
func (o *half) merge(f *Flow, from netip.AddrPort) {
	a, b := &o.f.Record, &f.Record
	dir := 0
	if from != o.from {
		dir = 1
		if a.Dir[1].Packets == 0 && (b.Start < a.Start || b.Start == a.Start && from.Port() > o.from.Port()) {
			a.InitB, a.InitInside, a.RespInside = b.InitB, b.InitInside, b.RespInside
			a.Dir[0], a.Dir[1] = a.Dir[1], a.Dir[0]
			o.from, dir = from, 0
		}
	}
	if whole(a) && whole(b) && (a.Last-a.Start != b.Last-b.Start || a.Last == a.Start) {
		a.Lacks |= flow.LackSpan // what lies between two times of whole seconds is not known
	}
	d, add := &a.Dir[dir], &b.Dir[0]
	d.Packets += min(add.Packets, ^d.Packets)
	d.Bytes = min(d.Bytes+add.Bytes, maxBytes)
	d.FIN, d.RST, d.Flags = d.FIN|add.FIN, d.RST|add.RST, d.Flags|add.Flags
	a.Lacks |= b.Lacks
	lasted(a, min(a.Start, b.Start), time.Duration(max(a.Last, b.Last)-min(a.Start, b.Start)))
}

// whole says that a record's start is told in whole seconds.
func whole(r *flow.Record) bool { return r.Start%int64(time.Second) == 0 }

// expire gives the flows at the front that nothing will be added to.
func (h *halves) expire(emit func(*Flow)) {
	for len(h.order) > 0 {
		o := h.order[0]
		if !o.gone && len(h.order) <= h.limit && o.f.Record.Last+apart >= h.now {
			return
		}
		h.order[0] = nil
		h.order = h.order[1:]
		h.give(o, emit)
	}
}

func (h *halves) give(o *half, emit func(*Flow)) {
	if o.gone {
		return
	}
	o.gone = true
	if h.open[o.f.Record.Key] == o {
		delete(h.open, o.f.Record.Key)
	}
	rec := &o.f.Record
	if rec.Key.Proto == flow.TCP && rec.Lacks&flow.LackFlags == 0 {
		rec.End = endOf(rec)
	}
	single(rec)
	emit(o.f)
}

func (h *halves) flush(emit func(*Flow)) {
	for _, o := range h.order {
		h.give(o, emit)
	}
	h.order = nil
}
