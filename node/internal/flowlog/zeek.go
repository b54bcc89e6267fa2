package flowlog

import (
	"encoding/hex"
	"fmt"
	"math"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// zeekLacks is what conn.log tells of no flow: it has sums, not packets, and its
// history names each flag once.
const zeekLacks = flow.LackSizeSpread | flow.LackSizeMax | flow.LackGapSpread | flow.LackGapMax | flow.LackFirsts | flow.LackHello |
	flow.LackSYN | flow.LackPSH | flow.LackRetrans | flow.LackProof | flow.LackRTT | flow.LackWindow | flow.LackTTL

// uncounted is what lacks when a tool says that it left packets out.
const uncounted = flow.LackPackets | flow.LackSplit | flow.LackBytes | flow.LackPayload

// zeek reads conn.log. Field meanings:
// https://docs.zeek.org/en/master/scripts/base/protocols/conn/main.zeek.html
type zeek struct {
	r      *Reader
	json   bool
	head   tsv
	beside map[uint64]*Meta
}

// tsv is the state that Zeek's header lines set.
type tsv struct {
	sep          byte
	unset, empty string
	path         string
	names        []string
	at           map[string]int
	vals         []string
}

func newZeek(r *Reader, json bool) *zeek {
	return &zeek{r: r, json: json, head: tsv{sep: '\t', unset: "-", empty: "(empty)"}}
}

// row cuts a line; nil without an error for a header line, which is taken.
func (t *tsv) row(line string) (*row, *LineError) {
	if head := strings.TrimLeft(line, " \t"); strings.HasPrefix(head, "#") {
		return nil, t.comment(head)
	}
	if t.at == nil {
		return nil, &LineError{Kind: Broken, Found: line, Want: "a #fields line ahead of the first record"}
	}
	var err error
	if t.vals, err = split(t.vals, line, t.sep); err != nil {
		return nil, &LineError{Kind: Broken, Found: line, Want: "separated values"}
	}
	if len(t.vals) < len(t.names) && strings.Contains(line, "   ") {
		t.vals, _ = split(t.vals, strings.ReplaceAll(line, "   ", string(t.sep)), t.sep)
	}
	if len(t.vals) != len(t.names) {
		return nil, &LineError{Kind: Broken, Found: fmt.Sprintf("%d values", len(t.vals)), Want: fmt.Sprintf("%d, one for each name of #fields", len(t.names))}
	}
	return lookup(t.at, t.vals, t.unset, t.empty), nil
}

// comment takes a header line. A log may be several, one after the other.
func (t *tsv) comment(line string) *LineError {
	key, rest, _ := strings.Cut(line, string(t.sep))
	if strings.HasPrefix(line, "#separator") {
		key, rest, _ = strings.Cut(line, " ")
	}
	switch strings.TrimSpace(key) {
	case "#separator":
		b, err := hex.DecodeString(strings.TrimPrefix(strings.TrimSpace(rest), `\x`))
		if err != nil || len(b) != 1 || b[0] == '\n' {
			return &LineError{Field: "#separator", Kind: Broken, Found: rest, Want: `one byte such as \x09`}
		}
		t.sep = b[0]
	case "#unset_field":
		t.unset = rest
	case "#empty_field":
		t.empty = rest
	case "#path":
		t.path = strings.TrimSpace(rest)
	case "#fields":
		// One labelled set joins its last names by three blanks.
		t.names = strings.Split(strings.ReplaceAll(rest, "   ", string(t.sep)), string(t.sep))
		t.at = columns(t.names)
	}
	return nil
}

func (z *zeek) line(b []byte, emit func(*Flow)) *LineError {
	var w *row
	if z.json {
		var err error
		if w, err = object(b); err != nil {
			return &LineError{Kind: Broken, Found: string(b), Want: "one JSON object on each line"}
		}
	} else {
		var bad *LineError
		if w, bad = z.head.row(string(b)); w == nil {
			return bad
		}
		if p := z.head.path; p != "" && p != "conn" {
			return &LineError{Field: "#path", Kind: NoFlow, Found: p, Want: "conn: give the conn.log beside it"}
		}
	}
	f, bad := z.flow(w)
	if bad != nil {
		return bad
	}
	emit(f)
	return nil
}

func (z *zeek) flush(func(*Flow)) {}

func (z *zeek) flow(w *row) (*Flow, *LineError) {
	name, _ := w.need("proto", "a protocol")
	p, ip := proto(name)
	if w.bad == nil && !ip {
		return nil, &LineError{Kind: NotIP}
	}
	f := &Flow{}
	rec := &f.Record
	rec.Lacks = zeekLacks
	e := ends{src: w.addr("id.orig_h"), dst: w.addr("id.resp_h"), sport: w.port("id.orig_p"), dport: w.port("id.resp_p"), proto: p}
	if p == flow.ICMP && e.src.Is6() {
		e.proto = flow.ICMPv6
	}
	for i, n := range [2]string{"local_orig", "local_resp"} {
		if s, ok := w.get(n); ok {
			e.local[i] = -1
			if s == "T" || s == "true" {
				e.local[i] = 1
			}
		}
	}
	z.counts(w, rec)
	start := w.stamp("ts", z.r.o.Zone)
	d, known := w.span("duration")
	if !known && rec.Packets() > 1 {
		rec.Lacks |= flow.LackSpan
	}
	history, _ := w.get("history")
	z.state(w, f, history)
	f.UID = w.text("uid")
	f.Class, f.Family = label(w)
	if w.bad != nil {
		return nil, w.bad
	}
	if strings.ContainsAny(history, "Cc") {
		rec.Lacks |= uncounted
		z.r.note("flows with packets of bad checksums, which Zeek does not count (capture before the network card fills them in): counts taken as unknown")
	}
	if rec.Packets() == 0 && rec.Lacks&flow.LackPackets == 0 {
		return nil, &LineError{Kind: Nothing}
	}
	z.r.ended(rec, e)
	lasted(rec, start, d)
	z.r.fits(rec)
	z.r.fitsPayload(rec)
	single(rec)
	z.join(f, w)
	return f, nil
}

// counts fills packets, bytes and payload. Zeek's payload is taken from sequence
// numbers, so it is ours only where nothing was sent twice or missed.
func (z *zeek) counts(w *row, rec *flow.Record) {
	for i, n := range [2]string{"orig", "resp"} {
		pkts, ok := w.count(n+"_pkts", maxPackets)
		if !ok {
			rec.Lacks |= flow.LackPackets | flow.LackBytes
		}
		rec.Dir[i].Packets = uint32(pkts)
		if rec.Dir[i].Bytes, ok = w.count(n+"_ip_bytes", maxBytes); !ok {
			rec.Lacks |= flow.LackBytes
		}
		if rec.Dir[i].Payload, ok = w.count(n+"_bytes", maxBytes); !ok && (pkts > 0 || rec.Lacks&flow.LackPackets != 0) {
			// Unset, and nothing was carried: a lone SYN, a probe.
			if rec.Lacks&flow.LackBytes != 0 || rec.Dir[i].Bytes > 60*pkts {
				rec.Lacks |= flow.LackPayload
			}
		}
	}
	missed, _ := w.count("missed_bytes", math.MaxUint64)
	if missed > 0 {
		rec.Lacks |= flow.LackPayload
	}
}

// state fills how the flow ended and what it was.
func (z *zeek) state(w *row, f *Flow, history string) {
	rec := &f.Record
	rec.End = flow.EndIdle
	name, _ := w.get("proto")
	tcp := name == "tcp"
	if conn, _ := w.get("conn_state"); tcp {
		switch conn {
		case "SF":
			rec.End = flow.EndFIN
		case "REJ", "RSTO", "RSTR", "RSTOS0", "RSTRH":
			rec.End = flow.EndRST
		}
		seen(rec, history)
	}
	service, ok := w.get("service")
	rec.Hint, ok = hinted(service, ok, tcp)
	if !ok {
		rec.Lacks |= flow.LackHint
	}
}

// seen takes from the history of a TCP connection which flags there were, and
// whether its payload was told once.
func seen(rec *flow.Record, history string) {
	if history == "" { // older logs and thinned ones
		rec.Lacks |= flow.LackFlags
	}
	for i, letters := range [2]string{"FR", "fr"} {
		d := &rec.Dir[i]
		if strings.IndexByte(history, letters[0]) >= 0 {
			d.FIN, d.Flags = 1, d.Flags|flow.FIN
		}
		if strings.IndexByte(history, letters[1]) >= 0 {
			d.RST, d.Flags = 1, d.Flags|flow.RST
		}
	}
	if strings.ContainsAny(history, "TtGg") {
		rec.Lacks |= flow.LackPayload
	}
}

// hinted maps the protocol that a tool found to what the first payload looks
// like. A tool that names none, or several one after the other, does not say it.
func hinted(service string, named, tcp bool) (flow.Hint, bool) {
	switch {
	case !tcp:
		return flow.HintNone, true
	case !named || strings.Contains(service, ","):
		return flow.HintNone, false
	case service == "ssl" || service == "tls":
		return flow.HintTLS, true
	case service == "ssh":
		return flow.HintSSH, true
	case service == "http":
		return flow.HintHTTP, true
	case service == "failed" || service == "unknown":
		return flow.HintNone, false
	}
	return flow.HintNone, true
}

// label reads the columns of the labelled sets.
func label(w *row) (Class, string) {
	l, _ := w.get("label")
	for _, n := range [...]string{"detailedlabel", "detailed-label", "detailed_label"} {
		if d, ok := w.get(n); ok {
			return classify(l, d)
		}
	}
	return classify(l, "")
}

// join adds what the logs beside conn.log tell.
func (z *zeek) join(f *Flow, w *row) {
	if f.UID == "" || len(z.beside) == 0 {
		return
	}
	m := z.beside[hashText(f.UID)]
	if m == nil {
		return
	}
	f.Meta = *m
	for name, told := range map[string]bool{"ssl": m.TLS != "" || m.SNI || m.JA3 != "", "ssh": m.Login != LoginUnknown || m.Tries > 0, "dns": m.RCode != ""} {
		if told {
			j := z.r.rep.Joined[name]
			j.Used++
			z.r.rep.Joined[name] = j
		}
	}
	if _, named := w.get("service"); !named && m.TLS != "" && f.Record.Key.Proto == flow.TCP {
		f.Record.Hint, f.Record.Lacks = flow.HintTLS, f.Record.Lacks&^flow.LackHint
	}
	f.greeted()
}
