package flowlog

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// eveLacks is what Suricata's flow records tell of no flow. Its bytes are of
// frames, link header and padding included; see Options.LinkHeader.
const eveLacks = flow.LackPayload | flow.LackSizeSpread | flow.LackSizeMax | flow.LackGapSpread | flow.LackGapMax | flow.LackFirsts | flow.LackHello |
	flow.LackSYN | flow.LackPSH | flow.LackRetrans | flow.LackProof | flow.LackRTT | flow.LackWindow | flow.LackTTL

// eve reads Suricata's EVE JSON. Field meanings:
// https://docs.suricata.io/en/latest/output/eve/eve-json-format.html
type eve struct {
	r *Reader
	// told is what other records said of flows whose own record has not come,
	// and order is in which order to forget them.
	told  map[uint64]*Meta
	order []uint64
}

func newEVE(r *Reader) *eve { return &eve{r: r, told: map[uint64]*Meta{}} }

func (e *eve) flush(func(*Flow)) {}

func (e *eve) line(b []byte, emit func(*Flow)) *LineError {
	var m map[string]json.RawMessage
	if json.Unmarshal(b, &m) != nil || m == nil {
		return &LineError{Kind: Broken, Found: string(b), Want: "one JSON object on each line"}
	}
	w := fields(m)
	kind, _ := w.need("event_type", "flow, tls, ssh, dns, alert or another type")
	id, _ := w.need("flow_id", "the number that joins records")
	if w.bad != nil {
		return w.bad
	}
	switch kind {
	case "flow":
		return e.flow(w, m, hashText(id), emit)
	case "tls", "quic", "ssh", "dns", "alert":
		e.tell(hashText(id), kind, fields(inner(m, kind)))
	}
	return &LineError{Kind: NoFlow}
}

// tell keeps what a record says of a flow until the flow's own record comes.
func (e *eve) tell(id uint64, kind string, w *row) {
	m := e.told[id]
	if m == nil {
		if len(e.order) >= e.r.o.MaxJoin {
			delete(e.told, e.order[0])
			e.order = e.order[1:]
			e.r.note("tls, quic, ssh, dns and alert records whose flow came too late: not joined")
		}
		m = &Meta{}
		e.told[id] = m
		e.order = append(e.order, id)
	}
	switch kind {
	case "tls", "quic":
		if kind == "tls" { // of QUIC it is another version
			m.TLS = w.text("version")
		}
		if s, ok := w.get("client_alpns"); ok {
			m.ALPN = firstOf(s)
		}
		_, m.SNI = w.get("sni")
		if m.JA3 = w.text("ja4"); m.JA3 == "" {
			if s, ok := w.get("ja3"); ok {
				var in map[string]json.RawMessage
				if json.Unmarshal([]byte(s), &in) == nil {
					m.JA3 = fields(in).text("hash")
				}
			}
		}
	case "dns":
		if s := w.text("rcode"); s != "" {
			m.RCode = s
		}
	case "alert":
		m.Alerts++
		if sev, ok := w.count("severity", 255); ok && (m.Severity == 0 || int(sev) < m.Severity) {
			m.Severity, m.Alert = int(sev), w.text("signature")
		}
	}
}

func (e *eve) flow(w *row, m map[string]json.RawMessage, id uint64, emit func(*Flow)) *LineError {
	name, _ := w.need("proto", "a protocol")
	p, ip := proto(strings.Replace(strings.ToLower(name), "ipv6-icmp", "icmpv6", 1))
	if w.bad == nil && !ip {
		return &LineError{Kind: NotIP}
	}
	f := &Flow{UID: w.text("flow_id")}
	rec := &f.Record
	rec.Lacks = eveLacks
	en := ends{src: w.addr("src_ip"), dst: w.addr("dest_ip"), sport: w.port("src_port"), dport: w.port("dest_port"), proto: p}
	in := fields(inner(m, "flow"))
	for i, n := range [2]string{"toserver", "toclient"} {
		pkts, ok := in.count("pkts_"+n, maxPackets)
		if !ok {
			in.fault("pkts_"+n, Missing, "", "packets in each direction")
		}
		rec.Dir[i].Packets = uint32(pkts)
		b, ok := in.count("bytes_"+n, maxBytes)
		rec.Dir[i].Bytes = below(b, pkts, e.r.o.LinkHeader)
		if !ok || e.r.o.LinkHeader == 0 {
			rec.Lacks |= flow.LackBytes
		}
	}
	start, end := in.stamp("start", e.r.o.Zone), in.stamp("end", e.r.o.Zone)
	if in.bad == nil && end < start {
		in.fault("end", Negative, time.Duration(end-start).String(), "an end not before the start")
	}
	e.state(w, m, rec)
	if w.bad == nil && in.bad != nil {
		w.bad = in.bad
		w.bad.Field = "flow." + w.bad.Field
	}
	switch {
	case w.bad != nil:
		return w.bad
	case rec.Packets() == 0:
		return &LineError{Kind: Nothing}
	}
	e.r.ended(rec, en)
	lasted(rec, start, time.Duration(min(end-start, int64(maxSpan))))
	e.r.fits(rec)
	if t := e.told[id]; t != nil {
		f.Meta = *t
		*t = Meta{} // the place in the order is kept
		f.greeted()
	}
	emit(f)
	return nil
}

// below takes the headers of so many packets off a count of bytes.
func below(b, pkts uint64, header int) uint64 {
	h := uint64(max(header, 0)) * pkts
	if b < h {
		return 0
	}
	return b - h
}

// state fills how the flow ended and what it was.
func (e *eve) state(w *row, m map[string]json.RawMessage, rec *flow.Record) {
	rec.End = flow.EndIdle
	name, _ := w.get("proto")
	tcp := strings.EqualFold(name, "tcp")
	if tcp {
		t := fields(inner(m, "tcp"))
		for i, n := range [2]string{"tcp_flags_ts", "tcp_flags_tc"} {
			s, ok := t.get(n)
			flags, err := strconv.ParseUint(s, 16, 8)
			if !ok || err != nil {
				rec.Lacks |= flow.LackFlags
				break
			}
			setFlags(&rec.Dir[i], uint8(flags))
		}
		rec.End = endOf(rec)
	}
	app, named := w.get("app_proto")
	var ok bool
	if rec.Hint, ok = hinted(app, named, tcp); !ok || !tcp && !named { // without payload there is no hint
		rec.Lacks |= flow.LackHint
	}
}

// setFlags says which of FIN and RST a direction showed.
func setFlags(d *flow.Dir, flags uint8) {
	d.Flags |= flags
	if flags&flow.FIN != 0 {
		d.FIN = 1
	}
	if flags&flow.RST != 0 {
		d.RST = 1
	}
}

// endOf is how a TCP flow ended, by its flags.
func endOf(rec *flow.Record) flow.End {
	switch {
	case rec.Dir[0].RST+rec.Dir[1].RST > 0:
		return flow.EndRST
	case rec.Dir[0].FIN > 0 && rec.Dir[1].FIN > 0:
		return flow.EndFIN
	}
	return flow.EndIdle
}
