package flowlog

import (
	"fmt"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// signs are columns that only one tool's header has.
var signs = []struct {
	format Format
	names  []string
}{
	{Argus, []string{"StartTime", "Dur", "Proto", "SrcAddr", "DstAddr"}},
	{NetFlow, []string{"ts", "td", "sa", "da", "pr", "ipkt", "ibyt"}},
	{Westermo, []string{"sAddress", "rAddress", "protocol", "sPackets", "rPackets", "start"}},
	{CIC, []string{"Flow Duration", "Total Fwd Packets"}},
	{CIC, []string{"Flow Duration", "Total Length of Fwd Packets"}}, // thinned to some columns
	{CIC, []string{"Flow Duration", "Tot Fwd Pkts"}},
	{CIC, []string{"Flow_Duration", "TotLen_Fwd_Pkts"}},
}

// separators that a table's header may use.
const separators = ",\t;"

func detectTable(header string) (Format, string) {
	for _, sep := range []byte(separators) {
		at := columns(strings.Split(header, string(sep)))
		for _, s := range signs {
			if hasAll(at, s.names) {
				return s.format, ""
			}
		}
	}
	return "", fmt.Sprintf("a header %.80q that no known tool writes", header)
}

func hasAll(at map[string]int, names []string) bool {
	for _, n := range names {
		if _, ok := at[n]; !ok {
			return false
		}
	}
	return true
}

// table reads separated values under a header line.
type table struct {
	r      *Reader
	format Format
	sep    byte
	at     map[string]int
	width  int
	vals   []string
	over   bool // a summary has begun
	halves *halves
}

func newTable(r *Reader, f Format) *table {
	t := &table{r: r, format: f}
	if f == NetFlow {
		t.halves = newHalves(r.o.MaxJoin)
	}
	return t
}

func (t *table) flush(emit func(*Flow)) {
	if t.halves != nil {
		t.halves.flush(emit)
	}
}

func (t *table) line(b []byte, emit func(*Flow)) *LineError {
	text := string(b)
	if t.header(text) {
		return nil
	}
	if t.format == NetFlow && (strings.HasPrefix(text, "Summary") || strings.HasPrefix(text, "No matched")) {
		t.over = true
	}
	if t.over {
		return &LineError{Kind: NoFlow}
	}
	var err error
	if t.vals, err = split(t.vals, text, t.sep); err != nil || len(t.vals) != t.width {
		return &LineError{Kind: Broken, Found: fmt.Sprintf("%d values", len(t.vals)), Want: fmt.Sprintf("%d, one for each name of the header", t.width)}
	}
	w := lookup(t.at, t.vals)
	var f *Flow
	var bad *LineError
	switch t.format {
	case Argus:
		f, bad = t.argus(w)
	case Westermo:
		f, bad = t.westermo(w)
	case CIC:
		f, bad = t.cic(w)
	default:
		return t.netflow(w, emit)
	}
	if bad == nil && f.Record.Packets() == 0 && f.Record.Lacks&flow.LackPackets == 0 {
		bad = &LineError{Kind: Nothing}
	}
	if bad != nil {
		return bad
	}
	t.r.fits(&f.Record)
	emit(f)
	return nil
}

// header takes a header line, the first one or, in files that were put together,
// a later one.
func (t *table) header(text string) bool {
	if t.at != nil && (text == "" || text[0] >= '0' && text[0] <= '9') {
		return false
	}
	for _, sep := range []byte(separators) {
		names := strings.Split(text, string(sep))
		at := columns(names)
		for _, s := range signs {
			if s.format == t.format && hasAll(at, s.names) {
				t.at, t.width, t.sep, t.over = at, len(names), sep, false
				return true
			}
		}
	}
	return false
}

// zoned notes times that name no zone.
func (t *table) zoned(w *row, name string) {
	if s, ok := w.get(name); ok && !namedZone(s) {
		t.r.note(fmt.Sprintf("times without a zone: taken as %s", t.r.o.Zone))
	}
}

// packets fills the packets of a direction, which must be known.
func packets(w *row, rec *flow.Record, dir int, name string) {
	n, ok := w.count(name, maxPackets)
	if !ok {
		w.fault(name, Missing, "", "a number of packets")
	}
	rec.Dir[dir].Packets = uint32(n)
}
