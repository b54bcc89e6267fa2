package flowlog

import (
	"math"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// westermoLacks is what the Westermo flow tables (ICSFlowGenerator) tell of no flow:
// they have no ports, and means where we have sums of squares.
const westermoLacks = flow.LackPort | flow.LackSizeSpread | flow.LackGapSpread | flow.LackGapMax | flow.LackFirsts | flow.LackHint | flow.LackHello |
	flow.LackRetrans | flow.LackProof | flow.LackRTT | flow.LackWindow

// westermo reads a line of a Westermo flow table. Labels are those of NST_M_Label:
// the binary ones call a good login an attack.
func (t *table) westermo(w *row) (*Flow, *LineError) {
	name, _ := w.need("protocol", "a protocol")
	if w.bad == nil && !strings.HasPrefix(name, "IP") {
		return nil, &LineError{Kind: NotIP}
	}
	p, ip := proto(name)
	if w.bad == nil && !ip {
		return nil, &LineError{Kind: NotIP}
	}
	f := &Flow{}
	rec := &f.Record
	rec.Lacks, rec.End = westermoLacks, flow.EndIdle
	e := ends{src: w.addr("sAddress"), dst: w.addr("rAddress"), proto: p}
	for i, s := range [2]string{"s", "r"} {
		westermoDir(w, rec, i, s, p == flow.TCP)
	}
	start, end := w.stamp("start", t.r.o.Zone), w.stamp("end", t.r.o.Zone)
	if w.bad == nil && end < start {
		w.fault("end", Negative, time.Duration(end-start).String(), "an end not before the start")
	}
	l, _ := w.get("NST_M_Label")
	f.Class, f.Family = westermoLabel(l)
	if w.bad != nil {
		return nil, w.bad
	}
	if p == flow.TCP {
		rec.End = endOf(rec)
	}
	t.r.ended(rec, e)
	if p != flow.TCP {
		rec.Lacks &^= flow.LackHint
	}
	lasted(rec, start, time.Duration(min(end-start, int64(maxSpan))))
	single(rec)
	return f, nil
}

// westermoDir fills one direction. Rates of flags are shares of the packets.
func westermoDir(w *row, rec *flow.Record, i int, s string, tcp bool) {
	d := &rec.Dir[i]
	packets(w, rec, i, s+"Packets")
	n := float64(d.Packets)
	var known [4]bool
	d.Bytes, known[0] = w.count(s+"BytesSum", maxBytes)
	d.Payload, known[1] = w.count(s+"PayloadSum", maxBytes)
	if !known[0] {
		rec.Lacks |= flow.LackBytes
	}
	if !known[1] {
		rec.Lacks |= flow.LackPayload
	}
	if d.Packets == 0 {
		return
	}
	low, _ := w.count(s+"BytesMin", math.MaxUint16)
	high, known2 := w.count(s+"BytesMax", math.MaxUint16)
	d.SizeMin, d.SizeMax = uint16(low), uint16(high)
	if !known2 {
		rec.Lacks |= flow.LackSizeMax
	}
	ttl, known3 := w.number(s+"ttl", 255)
	if d.TTL = uint8(ttl); !known3 || ttl != math.Trunc(ttl) {
		rec.Lacks |= flow.LackTTL
	}
	if !tcp {
		return
	}
	times := func(name string, lack flow.Lack) uint16 {
		share, ok := w.number(s+name, 1)
		if !ok {
			rec.Lacks |= lack
		}
		return uint16(min(math.Round(share*n), math.MaxUint16))
	}
	d.FIN, d.RST = times("FinRate", flow.LackFlags), times("RstRate", flow.LackFlags)
	d.SYN, d.PSH = times("SynRate", flow.LackSYN), times("PshRate", flow.LackPSH)
}

func westermoLabel(l string) (Class, string) {
	switch l = strings.TrimSpace(l); {
	case l == "":
		return Unlabelled, ""
	case l == "Normal", strings.HasPrefix(l, "GOOD"):
		return Normal, ""
	}
	return Attack, family(l)
}

// cicLacks is what CICFlowMeter's tables tell of no flow. Its packet lengths are
// of payload, and its counts of flags are known to be wrong.
const cicLacks = flow.LackBytes | flow.LackSizeSpread | flow.LackSizeMax | flow.LackFirsts | flow.LackHint | flow.LackHello | flow.LackFlags |
	flow.LackSYN | flow.LackPSH | flow.LackRetrans | flow.LackProof | flow.LackRTT | flow.LackTTL

// cic reads a line of a CICFlowMeter table. The published samples have neither
// addresses nor times, and then the flow lacks them; the tool's own files have.
func (t *table) cic(w *row) (*Flow, *LineError) {
	first := func(names ...string) string {
		for _, n := range names {
			if _, ok := t.at[n]; ok {
				return n
			}
		}
		return names[0]
	}
	f := &Flow{}
	rec := &f.Record
	rec.Lacks, rec.End = cicLacks, flow.EndIdle
	for i, n := range [2]string{first("Total Fwd Packets", "Tot_Fwd_Pkts", "Tot Fwd Pkts"), first("Total Backward Packets", "Total Bwd packets", "Tot_Bwd_Pkts", "Tot Bwd Pkts")} {
		if _, ok := t.at[n]; ok {
			packets(w, rec, i, n)
		} else {
			rec.Lacks |= flow.LackPackets
		}
	}
	var known [2]bool
	rec.Dir[0].Payload, known[0] = w.count(first("Total Length of Fwd Packets", "TotLen_Fwd_Pkts", "TotLen Fwd Pkts"), maxBytes)
	rec.Dir[1].Payload, known[1] = w.count(first("Total Length of Bwd Packets", "TotLen_Bwd_Pkts", "TotLen Bwd Pkts"), maxBytes)
	if !known[0] || !known[1] {
		rec.Lacks |= flow.LackPayload
	}
	us, ok := w.number(first("Flow Duration", "Flow_Duration"), maxSpan.Seconds()*1e6)
	if !ok {
		w.fault("Flow Duration", Missing, "", "microseconds")
	}
	cicGaps(w, rec, first)
	tcp := cicWindow(w, rec, first("Init_Win_bytes_forward", "Init_Fwd_Win_Byts", "Init Fwd Win Byts"))
	l, _ := w.get(first("Label", "Labelb"))
	f.Class, f.Family = cicLabel(l)
	t.cicEnds(w, f, tcp, time.Duration(us)*time.Microsecond, first)
	if w.bad != nil {
		return nil, w.bad
	}
	return f, nil
}

// cicWindow reads the first window; -1 is how the tool writes "not TCP".
func cicWindow(w *row, rec *flow.Record, name string) (tcp bool) {
	s, ok := w.get(name)
	switch {
	case !ok:
		rec.Lacks |= flow.LackWindow | flow.LackProto
	case s == "-1":
		rec.Lacks |= flow.LackWindow
	default:
		n, _ := w.count(name, math.MaxUint16)
		rec.Dir[0].Window = uint16(n)
		return true
	}
	return false
}

// cicGaps takes the initiator's longest pause, in microseconds.
func cicGaps(w *row, rec *flow.Record, first func(...string) string) {
	rec.Lacks |= flow.LackGapSpread // the span of the direction is not told apart
	longest, ok := w.number(first("Fwd IAT Max", "Fwd_IAT_Max"), maxSpan.Seconds()*1e6)
	if !ok {
		rec.Lacks |= flow.LackGapMax
	}
	rec.Dir[0].GapMax = uint32(min(longest, math.MaxUint32))
}

func cicLabel(l string) (Class, string) {
	switch {
	case l == "":
		return Unlabelled, ""
	case l == "0", strings.EqualFold(l, "benign"), strings.EqualFold(l, "normal"):
		return Normal, ""
	}
	return Attack, family(l)
}

// cicEnds fills ends and times where the table has them.
func (t *table) cicEnds(w *row, f *Flow, tcp bool, d time.Duration, first func(...string) string) {
	rec := &f.Record
	e := ends{proto: flow.UDP}
	if tcp {
		e.proto = flow.TCP
	}
	if s, ok := w.get("Protocol"); ok {
		if e.proto, ok = proto(s); !ok {
			w.fault("Protocol", Range, s, "an IP protocol")
		}
		rec.Lacks &^= flow.LackProto
	}
	port := first("Destination Port", "Dst Port", "Dst_Port")
	if _, ok := t.at[port]; ok {
		e.dport = w.port(port)
	} else {
		rec.Lacks |= flow.LackPort
	}
	src, dst := first("Source IP", "Src IP"), first("Destination IP", "Dst IP")
	_, ok := t.at[src]
	if ok {
		e.src, e.dst = w.addr(src), w.addr(dst)
		e.sport = w.port(first("Source Port", "Src Port"))
	} else {
		rec.Lacks |= flow.LackAddrs
		e.src, e.dst = unnamed(0), unnamed(1)
	}
	var start int64
	if _, dated := t.at["Timestamp"]; dated && ok {
		start = w.stamp("Timestamp", t.r.o.Zone)
		t.zoned(w, "Timestamp")
	} else {
		rec.Lacks |= flow.LackClock
	}
	if w.bad != nil {
		return
	}
	t.r.ended(rec, e)
	if rec.Lacks&flow.LackAddrs != 0 {
		rec.InitInside, rec.RespInside = false, false
	}
	lasted(rec, start, d)
}
