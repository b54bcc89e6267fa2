package flowlog

import (
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// argusLacks is what Argus tells of no flow in the columns that are exported.
// Its bytes are of frames; see Options.LinkHeader.
const argusLacks = flow.LackSizeSpread | flow.LackSizeMax | flow.LackGapSpread | flow.LackGapMax | flow.LackFirsts | flow.LackHint | flow.LackHello |
	flow.LackSYN | flow.LackPSH | flow.LackRetrans | flow.LackProof | flow.LackRTT | flow.LackWindow | flow.LackTTL

// argus reads a line of `ra -c ,`; names of columns are ra's (ra(1)).
func (t *table) argus(w *row) (*Flow, *LineError) {
	name, _ := w.need("Proto", "a protocol")
	p, ip := proto(strings.Replace(strings.ToLower(name), "ipv6-icmp", "icmpv6", 1))
	if w.bad == nil && !ip {
		return nil, &LineError{Kind: NotIP}
	}
	f := &Flow{}
	rec := &f.Record
	rec.Lacks = argusLacks
	e := ends{src: w.addr("SrcAddr"), dst: w.addr("DstAddr"), proto: p}
	if p == flow.TCP || p == flow.UDP {
		e.sport, e.dport = w.port("Sport"), w.port("Dport")
	}
	t.argusCounts(w, rec, strings.ToLower(name))
	start := w.stamp("StartTime", t.r.o.Zone)
	t.zoned(w, "StartTime")
	d, ok := w.span("Dur")
	if !ok {
		rec.Lacks |= flow.LackSpan
	}
	l, _ := w.get("Label")
	f.Class, f.Family = classify(l, "")
	if w.bad != nil {
		return nil, w.bad
	}
	state, _ := w.get("State")
	rec.End = argusState(rec, state, p == flow.TCP)
	if dir, _ := w.get("Dir"); strings.HasPrefix(dir, "<") && !strings.HasSuffix(dir, ">") {
		e.src, e.dst, e.sport, e.dport = e.dst, e.src, e.dport, e.sport
		rec.Dir[0], rec.Dir[1] = rec.Dir[1], rec.Dir[0]
	}
	if p != flow.TCP {
		rec.Lacks &^= flow.LackHint // without payload nobody asks
		if rec.Lacks&flow.LackPayload != 0 {
			rec.Lacks |= flow.LackHint
		}
	}
	t.r.ended(rec, e)
	lasted(rec, start, d)
	single(rec)
	return f, nil
}

// argusCounts fills packets, bytes and payload, of which older exports have only
// sums.
func (t *table) argusCounts(w *row, rec *flow.Record, name string) {
	total, ok := w.count("TotPkts", maxPackets)
	src, split := w.count("SrcPkts", maxPackets)
	dst, both := w.count("DstPkts", maxPackets)
	switch {
	case split && both:
	case split && ok && src <= total:
		dst = total - src
	case split && ok:
		w.fault("SrcPkts", Range, "", "at most TotPkts, %d", total)
	case ok:
		src, dst = total, 0
		rec.Lacks |= flow.LackSplit
	default:
		w.fault("TotPkts", Missing, "", "a number of packets")
	}
	rec.Dir[0].Packets, rec.Dir[1].Packets = uint32(src), uint32(dst)
	all, ok := w.count("TotBytes", maxBytes)
	out, half := w.count("SrcBytes", maxBytes)
	if !ok || !half || out > all || t.r.o.LinkHeader == 0 || rec.Lacks&flow.LackSplit != 0 {
		rec.Lacks |= flow.LackBytes
	} else {
		rec.Dir[0].Bytes, rec.Dir[1].Bytes = below(out, src, t.r.o.LinkHeader), below(all-out, dst, t.r.o.LinkHeader)
	}
	var known [2]bool
	rec.Dir[0].Payload, known[0] = w.count("SAppBytes", maxBytes)
	rec.Dir[1].Payload, known[1] = w.count("DAppBytes", maxBytes)
	if !known[0] || !known[1] {
		rec.Lacks |= flow.LackPayload
	}
	if strings.Contains(name, "icmp") { // whose header Argus counts with it
		for i := range rec.Dir {
			rec.Dir[i].Payload = below(rec.Dir[i].Payload, uint64(rec.Dir[i].Packets), 8)
		}
	}
}

// argusState reads states such as SPA_SRPA: the flags that each side showed. Of
// the words that Argus writes instead it believes nothing.
func argusState(rec *flow.Record, state string, tcp bool) flow.End {
	if !tcp {
		return flow.EndIdle
	}
	out, in, ok := strings.Cut(state, "_")
	if !ok || strings.Trim(out+in, "FSRPAUEC") != "" {
		rec.Lacks |= flow.LackFlags
		return flow.EndIdle
	}
	for i, s := range [2]string{out, in} {
		var flags uint8
		if strings.Contains(s, "F") {
			flags |= flow.FIN
		}
		if strings.Contains(s, "R") {
			flags |= flow.RST
		}
		setFlags(&rec.Dir[i], flags)
	}
	return endOf(rec)
}
