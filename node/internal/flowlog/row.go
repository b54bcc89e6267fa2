package flowlog

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Bounds of what is believed of a log.
const (
	maxSpan    = 366 * 24 * time.Hour
	maxBytes   = 1 << 50
	maxPackets = math.MaxUint32
	lastYear   = 4102444800 // 2100-01-01, in seconds since the epoch
)

// row is one line's fields by name. The first thing that is wrong is kept, and
// all that is asked after it is zero.
type row struct {
	get func(name string) (string, bool) // ok: the column is there and set
	bad *LineError
}

func (w *row) fault(field string, k Kind, found, want string, args ...any) {
	if w.bad == nil {
		w.bad = &LineError{Field: field, Kind: k, Found: found, Want: fmt.Sprintf(want, args...)}
	}
}

// text is a short copy of a field, "" when it is not set.
func (w *row) text(name string) string {
	s, _ := w.get(name)
	return short(s)
}

// need is the text of a field that must be set.
func (w *row) need(name, want string) (string, bool) {
	s, ok := w.get(name)
	if !ok {
		w.fault(name, Missing, "", "%s, it is not set", want)
	}
	return s, ok
}

// addr is an address; zones of link-local ones are dropped.
func (w *row) addr(name string) netip.Addr {
	s, ok := w.need(name, "an IP address")
	if !ok {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		w.fault(name, NoAddr, s, "an IP address")
	}
	return a.WithZone("").Unmap()
}

// port is a port; an unset one is 0.
func (w *row) port(name string) uint16 {
	n, _ := w.count(name, math.MaxUint16)
	return uint16(n)
}

// count is a whole number from 0 to limit. Numbers written as 12.0 are taken.
func (w *row) count(name string, limit uint64) (uint64, bool) {
	s, ok := w.get(name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		f, ok := w.float(name, s, float64(limit))
		if !ok {
			return 0, false
		}
		if f != math.Trunc(f) {
			w.fault(name, NoNumber, s, "a whole number")
			return 0, false
		}
		n = uint64(f)
	}
	if n > limit {
		w.fault(name, Range, s, "at most %d", limit)
		return 0, false
	}
	return n, true
}

// number is a finite number from 0 to limit.
func (w *row) number(name string, limit float64) (float64, bool) {
	s, ok := w.get(name)
	if !ok {
		return 0, false
	}
	return w.float(name, s, limit)
}

func (w *row) float(name, s string, limit float64) (float64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil && !math.IsInf(f, 0), math.IsNaN(f), err == nil && math.IsInf(f, 0):
		w.fault(name, NoNumber, s, "a number from 0 to %.0f", limit)
	case f < 0:
		w.fault(name, Negative, s, "a number from 0 to %.0f", limit)
	case f > limit:
		w.fault(name, Range, s, "a number from 0 to %.0f", limit)
	default:
		return f, true
	}
	return 0, false
}

// span is a length of time written in seconds.
func (w *row) span(name string) (time.Duration, bool) {
	s, ok := w.get(name)
	if !ok {
		return 0, false
	}
	if ns, ok := decimal(s); ok && ns >= 0 && ns <= int64(maxSpan) {
		return time.Duration(ns), true
	}
	f, ok := w.float(name, s, maxSpan.Seconds())
	return time.Duration(math.Round(f * 1e9)), ok
}

// stamp is a time: seconds (or, from 1e11 on, milliseconds) since the epoch, or
// written out, in zone where it names none.
func (w *row) stamp(name string, zone *time.Location) int64 {
	s, ok := w.need(name, "a time")
	if !ok {
		return 0
	}
	ns, named := decimal(s)
	if f, err := strconv.ParseFloat(s, 64); err == nil && !named {
		if math.IsNaN(f) || math.Abs(f) > 1e13 || f > 1e10 && f < 1e11 {
			w.fault(name, NoTime, s, "a time from 1970 to 2099")
			return 0
		}
		ns, named = 1000*int64(math.Round(f*1e6)), true
		if f > 1e11 {
			ns = 1000 * int64(math.Round(f*1e3))
		}
	}
	if !named {
		ns, named = written(s, zone)
	}
	if !named {
		w.fault(name, NoTime, s, "seconds since 1970, or a time such as 2026-01-02T15:04:05Z")
	} else if ns < 0 || ns >= lastYear*int64(time.Second) {
		w.fault(name, NoTime, s, "a time from 1970 to 2099")
		return 0
	}
	return ns
}

// layouts of times that people write. Fractions of seconds may follow in all.
var layouts = [...]string{
	time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05", "2006/01/02 15:04:05", "2006-01-02T15:04:05",
	"02/01/2006 15:04:05", "02/01/2006 03:04:05 PM", "2006-01-02 15:04:05Z07:00",
}

func written(s string, zone *time.Location) (int64, bool) {
	for _, l := range layouts {
		if t, err := time.ParseInLocation(l, s, zone); err == nil {
			if t.Year() < 1970 || t.Year() > 2099 {
				return -1, true
			}
			return t.UnixNano(), true
		}
	}
	return 0, false
}

// named says whether a written time carries its zone.
func namedZone(s string) bool {
	if _, ok := decimal(s); ok {
		return true
	}
	return strings.HasSuffix(s, "Z") || len(s) > 19 && strings.ContainsAny(s[19:], "+-")
}

// decimal reads plain decimal seconds exactly, as nanoseconds; seconds that
// would be after the year 2100 are left to the caller.
func decimal(s string) (ns int64, ok bool) {
	whole, frac, _ := strings.Cut(s, ".")
	if len(whole) == 0 || len(whole) > 10 {
		return 0, false
	}
	for _, c := range []byte(whole) {
		if c < '0' || c > '9' {
			return 0, false
		}
		ns = ns*10 + int64(c-'0')
	}
	for i := range 9 {
		d := int64(0)
		if i < len(frac) {
			if frac[i] < '0' || frac[i] > '9' {
				return 0, false
			}
			d = int64(frac[i] - '0')
		}
		ns = ns*10 + d
	}
	for _, c := range []byte(frac[min(9, len(frac)):]) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	if len(frac) > 9 && frac[9] >= '5' {
		ns++
	}
	return ns, true
}

// proto is an IP protocol by name or number; ok is false for what is no IP.
func proto(s string) (p uint8, ok bool) {
	s = strings.ToLower(s)
	s = strings.TrimPrefix(strings.TrimPrefix(s, "ipv4-"), "ipv6-")
	switch s {
	case "tcp":
		return flow.TCP, true
	case "udp", "quic":
		return flow.UDP, true
	case "icmp":
		return flow.ICMP, true
	case "icmp6", "icmpv6":
		return flow.ICMPv6, true
	case "igmp":
		return 2, true
	case "gre":
		return 47, true
	case "esp":
		return 50, true
	case "sctp":
		return 132, true
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return uint8(n), err == nil
}

// columns maps the names of a header to places. Of equal names the first counts.
func columns(names []string) map[string]int {
	m := make(map[string]int, len(names))
	for i, n := range names {
		n = strings.TrimSpace(n)
		if _, twice := m[n]; !twice {
			m[n] = i
		}
	}
	return m
}

// lookup gives a row over split values; unset are texts that mean "not set".
func lookup(at map[string]int, vals []string, unset ...string) *row {
	return &row{get: func(name string) (string, bool) {
		i, ok := at[name]
		if !ok || i >= len(vals) {
			return "", false
		}
		s := strings.TrimSpace(vals[i])
		for _, u := range unset {
			if s == u {
				return "", false
			}
		}
		return s, s != ""
	}}
}

// object gives a row over one flat JSON object.
func object(b []byte) (*row, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	return fields(m), nil
}

func fields(m map[string]json.RawMessage) *row {
	return &row{get: func(name string) (string, bool) {
		raw, ok := m[name]
		if !ok || len(raw) == 0 || string(raw) == "null" {
			return "", false
		}
		if raw[0] != '"' {
			return string(raw), true
		}
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return "", false
		}
		s = strings.TrimSpace(s)
		return s, s != "" && s != "-"
	}}
}

// inner is an object within an object; nil when there is none.
func inner(m map[string]json.RawMessage, name string) map[string]json.RawMessage {
	var in map[string]json.RawMessage
	if json.Unmarshal(m[name], &in) != nil {
		return nil
	}
	return in
}

// split cuts a line of separated values; quotes are respected where there are some.
func split(dst []string, line string, sep byte) ([]string, error) {
	if strings.IndexByte(line, '"') >= 0 && sep == ',' {
		r := csv.NewReader(strings.NewReader(line))
		r.LazyQuotes = true
		return r.Read()
	}
	dst = dst[:0]
	for {
		i := strings.IndexByte(line, sep)
		if i < 0 {
			return append(dst, line), nil
		}
		dst = append(dst, line[:i])
		line = line[i+1:]
	}
}
