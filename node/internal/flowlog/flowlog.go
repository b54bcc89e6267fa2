package flowlog

import (
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/lines"
)

// Format is a kind of log.
type Format string

// Formats.
const (
	ZeekTSV  Format = "zeek conn.log"
	ZeekJSON Format = "zeek conn.log (json)"
	Suricata Format = "suricata eve"
	Argus    Format = "argus flows"
	NetFlow  Format = "nfdump csv"
	Westermo Format = "westermo flows"
	CIC      Format = "cicflowmeter table"
)

// Class is what a log itself says of a flow.
type Class uint8

// Classes.
const (
	Unlabelled Class = iota
	Normal
	Attack
	Unsure // labelled with a word that is neither: background, or unknown
)

// String is the class in a word.
func (c Class) String() string {
	return [...]string{"unlabelled", "normal", "attack", "unsure"}[c&3]
}

// Flow is a flow of a log.
type Flow struct {
	Record flow.Record
	UID    string // the log's own name for it, if it has one
	Line   int
	Class  Class
	Family string // of an attack, in the log's words
	Meta   Meta
}

// Meta is what a log tells beyond the record: of the encrypted session without
// decrypting it, which the record's Hello is made of, of logins, and of what a
// detector said, which is evidence for labels.
type Meta struct {
	TLS      string // version, as the log writes it; "" unknown
	SNI      bool   // the client named a server
	ALPN     string // protocol that was agreed on, or the first that the client offered
	JA3      string // fingerprint of the client's hello (JA3 or JA4 text)
	Login    Login  // of an SSH session
	Tries    int    // logins tried in it
	RCode    string // DNS answer code, e.g. NXDOMAIN
	Alerts   int    // of an IDS on this flow
	Severity int    // of the gravest, 1 is the gravest; 0 for none
	Alert    string // its words
}

// Login is how a login ended.
type Login uint8

// Logins.
const (
	LoginUnknown Login = iota
	LoginFailed
	LoginDone
)

// Options of a reader.
type Options struct {
	// Inside are the protected prefixes; empty takes what the log says of its
	// ends, and private addresses where it says nothing.
	Inside []netip.Prefix
	// Zone is of times that name none; default UTC.
	Zone *time.Location
	// LinkHeader is how many bytes of each packet Argus and Suricata counted
	// below IP, when padding of short frames was stripped; 0 means not known, and
	// then bytes lack.
	LinkHeader int
	// Alone leaves logs beside conn.log out.
	Alone bool
	// Window is how many flows wait to be put into the order of their ends;
	// default 8192. MaxJoin bounds what is remembered of logs beside, of
	// Suricata's records and of NetFlow's halves; default 200,000.
	Window, MaxJoin int
	// MaxFaults is how many refusals the report names; default 20.
	MaxFaults int
}

func (o Options) withDefaults() Options {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	if o.Window <= 0 {
		o.Window = 8192
	}
	if o.MaxJoin <= 0 {
		o.MaxJoin = 200_000
	}
	if o.MaxFaults <= 0 {
		o.MaxFaults = 20
	}
	return o
}

// decoder understands one format. It is given one line at a time and hands over
// the flows that it makes of it, at once or later.
type decoder interface {
	line(b []byte, emit func(*Flow)) *LineError
	// flush hands over what is still held back.
	flush(emit func(*Flow))
}

// Reader reads one log from front to back, flows in the order of their ends. It
// is for one goroutine.
type Reader struct {
	o    Options
	src  *lines.Reader
	dec  decoder
	rep  Report
	wait flowHeap
	last int64 // end of the flow given last
	done bool
}

// MaxLine is the longest line that is read, in bytes.
const MaxLine = 1 << 20

// ErrForeign says that a file is no log of a known format.
var ErrForeign = errors.New("no flow log of a known format")

// Open opens a log of any of the formats; which, its content tells.
func Open(path string, o Options) (*Reader, error) {
	src, err := lines.Open(path, MaxLine)
	if err != nil {
		return nil, err
	}
	r, err := newReader(src, o)
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return r, nil
}

func newReader(src *lines.Reader, o Options) (*Reader, error) {
	r := &Reader{o: o.withDefaults(), src: src}
	r.rep = Report{Path: src.Path(), Refused: map[Kind]int{}, Skipped: map[Kind]int{}, Notes: map[string]int{}, Lacks: map[string]int{}, Joined: map[string]Join{}}
	f, why := detect(src.Head())
	if f == "" {
		return nil, fmt.Errorf("log %s: %s: %w", src.Path(), why, ErrForeign)
	}
	r.rep.Format = f
	switch f {
	case ZeekTSV, ZeekJSON:
		z := newZeek(r, f == ZeekJSON)
		if !r.o.Alone {
			z.beside = joinBeside(src.Path(), r.o.MaxJoin, r.rep.Joined)
		}
		r.dec = z
	case Suricata:
		r.dec = newEVE(r)
	default:
		r.dec = newTable(r, f)
	}
	return r, nil
}

// detect tells the format by the first bytes; "" and what it looks like when it
// is none.
func detect(head []byte) (Format, string) {
	switch {
	case len(head) == 0:
		return "", "the file is empty"
	case head[0] == 0xa5 && len(head) > 4 || bytes.HasPrefix(head, []byte("\x0c\xa5")):
		return "", "nfdump's own binary form: export it with `nfdump -r FILE -o csv`"
	case bytes.IndexByte(head, 0) >= 0:
		return "", "binary data"
	}
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, []byte("\n"))
		head = rest
		text := strings.TrimSpace(string(line))
		switch {
		case text == "":
		case strings.HasPrefix(text, "#"):
			if strings.HasPrefix(text, "#fields") || strings.HasPrefix(text, "#separator") {
				return ZeekTSV, ""
			}
		case strings.HasPrefix(text, "{"):
			return detectJSON(text)
		default:
			return detectTable(text)
		}
	}
	return "", "only comments"
}

func detectJSON(text string) (Format, string) {
	has := func(names ...string) bool {
		for _, n := range names {
			if !strings.Contains(text, `"`+n+`"`) {
				return false
			}
		}
		return true
	}
	switch {
	case has("event_type", "timestamp"):
		return Suricata, ""
	case has("id.orig_h", "ts"):
		return ZeekJSON, ""
	}
	return "", "JSON of another kind"
}

// Next gives the next flow, valid until the call after; io.EOF after the last.
// What the file is broken by is in the report, never an error: all that stands
// ahead of it was given.
func (r *Reader) Next() (*Flow, error) {
	for !r.done && len(r.wait) < r.o.Window {
		r.step()
	}
	if len(r.wait) == 0 {
		return nil, io.EOF
	}
	f := heap.Pop(&r.wait).(*Flow)
	if f.Record.Last < r.last && f.Record.Lacks&flow.LackClock == 0 {
		r.rep.Late++
	}
	r.last = max(r.last, f.Record.Last)
	return f, nil
}

// step reads one line.
func (r *Reader) step() {
	b, whole, long, err := r.src.Next()
	if err != nil {
		r.done = true
		r.dec.flush(r.take)
		if !errors.Is(err, io.EOF) {
			r.rep.Cut = err.Error()
		}
		return
	}
	r.rep.Lines = r.src.N()
	switch {
	case long:
		r.refuse(&LineError{Kind: Long, Want: fmt.Sprintf("at most %d bytes", MaxLine)})
	case len(bytes.TrimSpace(b)) == 0:
	case lines.Half(b, whole):
		r.refuse(&LineError{Kind: Half, Want: lines.WantEnd})
	default:
		if bad := r.dec.line(b, r.take); bad != nil {
			r.refuse(bad)
		}
	}
}

func (r *Reader) refuse(e *LineError) {
	switch e.Kind {
	case NotIP, NoFlow, Nothing:
		r.rep.Skipped[e.Kind]++
		return
	}
	r.rep.Refused[e.Kind]++
	if len(r.rep.Faults) < r.o.MaxFaults {
		e.Path, e.Line = r.src.Path(), r.src.N()
		r.rep.Faults = append(r.rep.Faults, e)
	}
}

func (r *Reader) note(s string) { r.rep.Notes[s]++ }

// take puts a flow into the window.
func (r *Reader) take(f *Flow) {
	r.rep.Flows++
	if f.Line == 0 {
		f.Line = r.src.N()
	}
	f.Record.ID = uint64(r.rep.Flows)
	for bit := flow.Lack(1); bit <= flow.LackAll; bit <<= 1 {
		if f.Record.Lacks&bit != 0 {
			r.rep.Lacks[bit.String()]++
		}
	}
	heap.Push(&r.wait, f)
}

// Report is what became of the lines read so far.
func (r *Reader) Report() *Report { return &r.rep }

// Format is what the file is.
func (r *Reader) Format() Format { return r.rep.Format }

// Offset is how many bytes of the file were read so far, of Size.
func (r *Reader) Offset() int64 { return r.src.Offset() }

// Size is the file's length in bytes.
func (r *Reader) Size() int64 { return r.src.Size() }

// Close closes the file.
func (r *Reader) Close() error { return r.src.Close() }

// flowHeap has the flow that ended first on top; of equal ends the one that was
// read first.
type flowHeap []*Flow

func (h flowHeap) Len() int { return len(h) }
func (h flowHeap) Less(i, j int) bool {
	a, b := &h[i].Record, &h[j].Record
	if a.Last != b.Last {
		return a.Last < b.Last
	}
	return a.ID < b.ID
}
func (h flowHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *flowHeap) Push(x any)   { *h = append(*h, x.(*Flow)) }
func (h *flowHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return x
}
