package flowlog

import (
	"net/netip"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// ends are a flow's two ends as a log names them.
type ends struct {
	src, dst     netip.Addr
	sport, dport uint16
	proto        uint8
	// local says of each end whether the log calls it local: 0 nothing, 1 yes, -1 no.
	local [2]int8
}

// ended fills what names a flow. Ports of protocols that have none are 0, as the
// planes count them: tools put ICMP types there.
func (r *Reader) ended(rec *flow.Record, e ends) {
	if e.proto != flow.TCP && e.proto != flow.UDP {
		e.sport, e.dport = 0, 0
	}
	rec.Key, rec.InitB = flow.NewKey(netip.AddrPortFrom(e.src, e.sport), netip.AddrPortFrom(e.dst, e.dport), e.proto)
	rec.InitInside, rec.RespInside = r.inside(e.src, e.local[0]), r.inside(e.dst, e.local[1])
}

func (r *Reader) inside(a netip.Addr, local int8) bool {
	if len(r.o.Inside) == 0 {
		if local != 0 {
			return local > 0
		}
		return a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLoopback()
	}
	for _, p := range r.o.Inside {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// lasted fills the times of a flow.
func lasted(rec *flow.Record, start int64, d time.Duration) {
	rec.Start, rec.Last = start, start+int64(d)
	for i := range rec.Dir {
		if rec.Dir[i].Packets > 0 || rec.Lacks&flow.LackPackets != 0 {
			rec.Dir[i].First, rec.Dir[i].Last = rec.Start, rec.Last
		}
	}
}

// fits withholds bytes that cannot be: fewer than the headers of so many packets
// take, or more than IP can carry. Tools that lost count write such numbers.
func (r *Reader) fits(rec *flow.Record) {
	if rec.Lacks&(flow.LackBytes|flow.LackPackets|flow.LackSplit) != 0 {
		return
	}
	for i := range rec.Dir {
		d := &rec.Dir[i]
		n := uint64(d.Packets)
		if d.Bytes < 20*n || d.Bytes > 65575*n {
			rec.Lacks |= flow.LackBytes
			r.note("bytes that do not fit the packets: taken as unknown")
			return
		}
	}
}

// fitsPayload withholds payload that is more than all the bytes of its direction.
func (r *Reader) fitsPayload(rec *flow.Record) {
	if rec.Lacks&(flow.LackPayload|flow.LackBytes|flow.LackPackets|flow.LackSplit) != 0 {
		return
	}
	for i := range rec.Dir {
		d := &rec.Dir[i]
		if d.Payload > 0 && d.Payload+20*uint64(d.Packets) > d.Bytes {
			rec.Lacks |= flow.LackPayload
			r.note("payload that does not fit the bytes: taken as unknown")
			return
		}
	}
}

// single fills the spread and the largest of sizes where they follow: of a
// direction of one packet.
func single(rec *flow.Record) {
	if rec.Lacks&(flow.LackBytes|flow.LackPackets|flow.LackSplit) != 0 || rec.Dir[0].Packets > 1 || rec.Dir[1].Packets > 1 {
		return
	}
	for i := range rec.Dir {
		d := &rec.Dir[i]
		if d.Packets == 1 && d.Bytes <= 65535 {
			d.SizeMin, d.SizeMax, d.SizeSq = uint16(d.Bytes), uint16(d.Bytes), d.Bytes*d.Bytes
		}
	}
	rec.Lacks &^= flow.LackSizeSpread | flow.LackSizeMax
}

// classify reads a label in the words of the sets that exist.
func classify(label, detail string) (Class, string) {
	clean := func(s string) string {
		if s = strings.TrimSpace(s); s == "-" || s == "(empty)" {
			return ""
		}
		return s
	}
	label, detail = clean(label), clean(detail)
	low := strings.ToLower(label)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(low, w) {
				return true
			}
		}
		return false
	}
	switch {
	case low == "":
		return Unlabelled, ""
	case low == "0" || has("background"):
		if low == "0" {
			return Normal, ""
		}
		return Unsure, ""
	case has("benign", "normal", "good-"):
		return Normal, ""
	case low == "1" || has("malicious", "attack", "botnet", "malware"):
		if detail == "" {
			detail = strings.TrimPrefix(label, "flow=")
		}
		return Attack, family(detail)
	}
	return Unsure, ""
}

// family bounds what an attack is called.
func family(s string) string { return short(s) }

// short is a copy of at most 64 bytes: a part of a line would keep all of it.
func short(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.Clone(strings.ToValidUTF8(s, "?"))
}

// unnamed stands for an end whose address a table does not tell.
func unnamed(i byte) netip.Addr { return netip.AddrFrom4([4]byte{0, 0, 0, i}) }
