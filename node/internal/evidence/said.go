package evidence

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Said is what another tool says of one flow.
type Said struct {
	At     time.Time
	Key    flow.Key
	Family string  // of the attack
	Weight float32 // how sure that is, above 0 to MaxWeight
	Source string  // the tool
}

// Bounds of what tools may say at once.
const (
	MaxBody    = 1 << 20 // bytes
	MaxLines   = 4096
	MaxWeight  = 0.9 // an operator's own word weighs 1
	maxWord    = 64
	maxTold    = 20
	maxAlert   = 96
	fromSuri   = "suricata"
	latestSaid = 4102444800 // 2100
)

// Fault is a line that was refused, and why.
type Fault struct {
	Line   int    `json:"line"`
	Field  string `json:"field,omitempty"`
	Found  string `json:"found,omitempty"`
	Wanted string `json:"expected"`
}

func (f *Fault) Error() string {
	s := fmt.Sprintf("line %d: ", f.Line)
	if f.Field != "" {
		s += fmt.Sprintf("field %s: ", f.Field)
	}
	if f.Found != "" {
		s += fmt.Sprintf("found %.60q: ", f.Found)
	}
	return s + "expected " + f.Wanted
}

// Parsed says what became of a body's lines.
type Parsed struct {
	Said    []Said
	Other   int     // whole lines that tell of no attack: EVE records of other kinds
	Refused int     // lines
	Faults  []Fault // the first ones
}

// ParseSaid reads lines of JSON: labels in the form of the documentation
// (docs/intake.md), and alert records as Suricata writes them in eve.json. A broken
// line is counted and named, the others are used. It reads no more than MaxBody
// bytes and MaxLines lines, and what is beyond is a fault of its own.
func ParseSaid(r io.Reader) *Parsed {
	p := &Parsed{}
	lines := bufio.NewScanner(io.LimitReader(r, MaxBody+1))
	lines.Buffer(nil, maxLine)
	n, size := 0, 0
	for lines.Scan() {
		n++
		size += len(lines.Bytes()) + 1
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		if n > MaxLines || size > MaxBody+1 {
			p.refuse(n, &Fault{Wanted: fmt.Sprintf("at most %d lines and %d bytes at once: send the rest in another request", MaxLines, MaxBody)})
			return p
		}
		switch s, err := parseSaid(text); {
		case err != nil:
			p.refuse(n, err)
		case s == nil:
			p.Other++
		default:
			p.Said = append(p.Said, *s)
		}
	}
	if err := lines.Err(); err != nil {
		p.refuse(n+1, &Fault{Wanted: fmt.Sprintf("lines of at most %d bytes (%v)", maxLine, err)})
	}
	return p
}

func (p *Parsed) refuse(line int, err error) {
	p.Refused++
	var f *Fault
	if !errors.As(err, &f) {
		f = &Fault{Wanted: err.Error()}
	}
	f.Line = line
	if len(p.Faults) < maxTold {
		p.Faults = append(p.Faults, *f)
	}
}

// form has the fields of a label and those of an EVE alert; which of them a line
// is, event_type tells.
type form struct {
	Time     json.RawMessage `json:"time"`
	Src      string          `json:"src"`
	SrcPort  *float64        `json:"src_port"`
	Dst      string          `json:"dst"`
	DstPort  *float64        `json:"dst_port"`
	Proto    string          `json:"proto"`
	Label    string          `json:"label"`
	Weight   *float64        `json:"weight"`
	Source   string          `json:"source"`
	Kind     string          `json:"event_type"`
	EveTime  string          `json:"timestamp"`
	SrcIP    string          `json:"src_ip"`
	DestIP   string          `json:"dest_ip"`
	DestPort *float64        `json:"dest_port"`
	Alert    *struct {
		Signature string `json:"signature"`
		Severity  int    `json:"severity"`
	} `json:"alert"`
}

func parseSaid(text []byte) (*Said, error) {
	var x form
	if err := json.Unmarshal(text, &x); err != nil {
		var t *json.UnmarshalTypeError
		if errors.As(err, &t) && t.Field != "" {
			return nil, &Fault{Field: t.Field, Found: t.Value, Wanted: "a " + t.Type.String()}
		}
		return nil, &Fault{Wanted: "one JSON object on each line"}
	}
	if x.Kind != "" {
		return x.eve()
	}
	at, err := when("time", x.Time)
	if err != nil {
		return nil, err
	}
	w := 0.0
	if x.Weight != nil {
		w = *x.Weight
	}
	if !(w > 0 && w <= MaxWeight) {
		return nil, &Fault{Field: "weight", Found: found(x.Weight), Wanted: fmt.Sprintf("how sure the label is, above 0 and at most %v", MaxWeight)}
	}
	if err := word("label", x.Label, maxAlert, "the kind of attack"); err != nil {
		return nil, err
	}
	if slices.Contains([]string{"benign", "normal", "background"}, strings.ToLower(x.Label)) {
		return nil, &Fault{Field: "label", Found: x.Label, Wanted: "a kind of attack: what is harmless is said with `hedgerow dismiss`"}
	}
	if err := word("source", x.Source, maxWord, "the name of the tool"); err != nil {
		return nil, err
	}
	k, err := x.key("src", x.Src, "src_port", x.SrcPort, "dst", x.Dst, "dst_port", x.DstPort)
	return &Said{At: at, Key: k, Family: x.Label, Weight: float32(w), Source: x.Source}, err
}

// eve reads a record of Suricata; one that is no alert says nothing.
func (x *form) eve() (*Said, error) {
	if x.Kind != "alert" {
		return nil, nil
	}
	if x.Alert == nil {
		return nil, &Fault{Field: "alert", Wanted: "an object with signature and severity"}
	}
	at, err := time.Parse("2006-01-02T15:04:05.999999999Z0700", x.EveTime)
	if err != nil || !sane(at) {
		return nil, &Fault{Field: "timestamp", Found: x.EveTime, Wanted: "a time such as 2026-01-02T15:04:05.000000+0000"}
	}
	if err := word("alert.signature", x.Alert.Signature, 1024, "the alert's text"); err != nil {
		return nil, err
	}
	weight := map[int]float32{1: 0.6, 2: 0.4}[x.Alert.Severity]
	if weight == 0 {
		weight = 0.2
	}
	k, err := x.key("src_ip", x.SrcIP, "src_port", x.SrcPort, "dest_ip", x.DestIP, "dest_port", x.DestPort)
	family := "ids: " + x.Alert.Signature
	return &Said{At: at, Key: k, Family: strings.ToValidUTF8(family[:min(len(family), maxAlert)], ""), Weight: weight, Source: fromSuri}, err
}

func (x *form) key(srcName, src, sportName string, sport *float64, dstName, dst, dportName string, dport *float64) (k flow.Key, err error) {
	proto, ok := map[string]uint8{"tcp": flow.TCP, "udp": flow.UDP, "icmp": flow.ICMP, "icmpv6": flow.ICMPv6, "ipv6-icmp": flow.ICMPv6}[strings.ToLower(x.Proto)]
	if !ok {
		return k, &Fault{Field: "proto", Found: x.Proto, Wanted: "tcp, udp, icmp or icmpv6"}
	}
	ports := proto == flow.TCP || proto == flow.UDP
	a, err := end(srcName, src, sportName, sport, ports)
	if err != nil {
		return k, err
	}
	b, err := end(dstName, dst, dportName, dport, ports)
	if err != nil {
		return k, err
	}
	if a.Addr().Is4() != b.Addr().Is4() {
		return k, &Fault{Field: dstName, Found: dst, Wanted: "an address of the same family as " + srcName}
	}
	k, _ = flow.NewKey(a, b, proto)
	return k, nil
}

func end(name, addr, portName string, port *float64, needed bool) (e netip.AddrPort, err error) {
	a, bad := netip.ParseAddr(addr)
	if bad != nil || a.Zone() != "" {
		return e, &Fault{Field: name, Found: addr, Wanted: "an IP address"}
	}
	if !needed {
		return netip.AddrPortFrom(a.Unmap(), 0), nil // what stands there of ICMP is no port
	}
	if port == nil || !(*port >= 0 && *port <= math.MaxUint16) || *port != math.Trunc(*port) {
		return e, &Fault{Field: portName, Found: found(port), Wanted: "a port from 0 to 65535"}
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(*port)), nil
}

func found(x *float64) string {
	if x == nil {
		return ""
	}
	return fmt.Sprint(*x)
}

// when reads a time as text with a zone, or as seconds since 1970.
func when(field string, raw json.RawMessage) (time.Time, error) {
	var s string
	var sec float64
	var at time.Time
	switch {
	case json.Unmarshal(raw, &s) == nil:
		at, _ = time.Parse(time.RFC3339Nano, s)
	case json.Unmarshal(raw, &sec) == nil && sec > 0 && sec < latestSaid:
		whole, part := math.Modf(sec)
		at = time.Unix(int64(whole), int64(part*1e9))
	}
	if !sane(at) {
		return at, &Fault{Field: field, Found: string(raw[:min(len(raw), 60)]), Wanted: "a time with its zone such as 2026-01-02T15:04:05Z, or seconds since 1970"}
	}
	return at, nil
}

func sane(t time.Time) bool { return t.Unix() > 0 && t.Unix() < latestSaid }

func word(field, s string, most int, what string) error {
	if s == "" || len(s) > most || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return &Fault{Field: field, Found: s, Wanted: fmt.Sprintf("%s, 1 to %d bytes of printable text", what, most)}
	}
	return nil
}
