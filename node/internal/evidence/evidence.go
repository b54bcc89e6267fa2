// Package evidence reads what the machines behind a firewall said of those who
// came: logins that sshd refused, in auth.log or as journald exports it in JSON,
// and addresses that fail2ban banned. It is what turns flows that look like
// anything else into labelled ones.
//
// A log line is hostile: its middle is a user name that the attacker chose, and may
// read like another line. Addresses are taken from the end of a line only, where
// sshd itself wrote them.
package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/lines"
)

// Kind of evidence.
type Kind uint8

// Kinds.
const (
	Failed   Kind = iota + 1 // a login was refused
	Accepted                 // a login was let in
	Banned                   // fail2ban had enough
)

// Entry is one thing that was said of an address.
type Entry struct {
	At   time.Time
	Addr netip.Addr
	Port uint16 // the client's, 0 when the log does not tell it
	Kind Kind
}

const (
	maxLine    = 64 << 10
	maxEntries = 1 << 20

	// tries is how many refused logins of one address within spell are guessing,
	// and not a person who mistypes.
	tries = 5
	spell = 10 * time.Minute
	// slack is how far the clocks of the log and of the flows may be apart.
	slack = 10 * time.Second
)

// Weights of the labels that follow.
const (
	weightGuess = 0.6
	weightBan   = 0.7
)

// Report says what became of a log's lines.
type Report struct {
	Path    string  `json:"file"`
	Lines   int     `json:"lines"`
	Entries int     `json:"entries"`
	Other   int     `json:"other"` // lines that say nothing of logins
	Refused int     `json:"refused"`
	Faults  []Fault `json:"faults,omitempty"` // the first refused lines
	Cut     string  `json:"cut,omitempty"`    // why the log could not be read to its end
}

func (r *Report) refuse(f *Fault) {
	r.Refused++
	f.Line = r.Lines
	if len(r.Faults) < maxTold {
		r.Faults = append(r.Faults, *f)
	}
}

// Index answers what is known of a flow.
type Index struct {
	by map[netip.Addr][]Entry // in the order of time, once sorted
	n  int
}

// Options of reading. Now and Zone are for times without a year or a zone.
type Options struct {
	Now  time.Time
	Zone *time.Location
}

// Read adds the entries of one log, which may be packed with gzip. Broken lines are
// counted, and the first are named; the others are used.
func (x *Index) Read(path string, r io.Reader, o Options) (*Report, error) {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	if x.by == nil {
		x.by = map[netip.Addr][]Entry{}
	}
	log, err := lines.New(path, r, maxLine)
	if err != nil {
		return nil, err
	}
	rep := &Report{Path: path}
	for {
		b, whole, long, err := log.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				rep.Cut = err.Error()
			}
			break
		}
		rep.Lines++
		x.line(rep, string(b), lines.Half(b, whole), long, o)
	}
	for _, es := range x.by {
		slices.SortStableFunc(es, func(a, b Entry) int { return a.At.Compare(b.At) })
	}
	return rep, nil
}

// line adds the entry of a line. Half a line that tells of a login is refused, for
// half an address is another's.
func (x *Index) line(rep *Report, text string, half, long bool, o Options) {
	if long {
		rep.refuse(&Fault{Wanted: fmt.Sprintf("at most %d bytes", maxLine)})
		return
	}
	e, bad := parse(text, o)
	switch {
	case bad != nil:
		rep.refuse(bad)
	case e.Kind == 0:
		rep.Other++
	case half:
		rep.refuse(&Fault{Wanted: lines.WantEnd})
	case x.n >= maxEntries:
		rep.refuse(&Fault{Wanted: fmt.Sprintf("at most %d logins of all logs together: give shorter ones", maxEntries)})
	default:
		x.by[e.Addr] = append(x.by[e.Addr], e)
		x.n++
		rep.Entries++
	}
}

var (
	// What sshd writes; user names stand in the middle, addresses at the end.
	failed   = regexp.MustCompile(`^(?:Failed (?:password|none|publickey|keyboard-interactive/pam) for |Invalid user |error: maximum authentication attempts exceeded for |Connection (?:closed|reset) by (?:invalid|authenticating) user )`)
	accepted = regexp.MustCompile(`^Accepted \S+ for `)
	atEnd    = regexp.MustCompile(`(?: from | )(\S+) port (\d{1,5})(?: ssh2)?(?:: .*| \[preauth\])?$`)
	daemon   = regexp.MustCompile(`^(?:\S+ )?sshd(?:-session)?(?:\[\d+\])?: (.*)$`)
	ban      = regexp.MustCompile(`^fail2ban\.actions\s*\[\d+\]:\s*(?:NOTICE|WARNING)\s*\[[^\]]*\]\s*(?:Restore )?Ban (\S+)$`)
	program  = regexp.MustCompile(`(?:^|\s)(sshd(?:-session)?(?:\[\d+\])?: |fail2ban\.actions\s*\[)`)
	stamps   = []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02T15:04:05"}
)

func badTime(found string) *Fault {
	return &Fault{Field: "time", Found: found, Wanted: "one such as 2026-01-02T15:04:05Z or Jan 2 15:04:05"}
}

// parse reads a line; an entry without a kind says nothing of logins.
func parse(line string, o Options) (Entry, *Fault) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "{") {
		return journal(line)
	}
	at, rest, ok := stamped(line, o)
	if i := program.FindStringSubmatchIndex(line); !ok && i != nil {
		rest = line[i[2]:]
	}
	if m := ban.FindStringSubmatch(rest); m != nil {
		a, err := netip.ParseAddr(m[1])
		switch {
		case !ok:
			return Entry{}, badTime(strings.TrimSuffix(line, rest))
		case err != nil:
			return Entry{}, &Fault{Field: "address", Found: m[1], Wanted: "an IP address"}
		}
		return Entry{At: at, Addr: a.Unmap(), Kind: Banned}, nil
	}
	m := daemon.FindStringSubmatch(rest)
	if m == nil {
		return Entry{}, nil
	}
	e, err := login(m[1])
	if err == nil && e.Kind != 0 && !ok {
		return Entry{}, badTime(strings.TrimSuffix(line, rest))
	}
	e.At = at
	return e, err
}

// stamped takes the time off a line.
func stamped(line string, o Options) (at time.Time, rest string, ok bool) {
	if len(line) > 16 && line[3] == ' ' { // Jan _2 15:04:05, of the last twelve months
		t, err := time.ParseInLocation(time.Stamp, line[:15], o.Zone)
		if err == nil {
			at = t.AddDate(o.Now.In(o.Zone).Year(), 0, 0)
			if at.After(o.Now.Add(24 * time.Hour)) {
				at = at.AddDate(-1, 0, 0)
			}
			return at, strings.TrimSpace(line[15:]), true
		}
	}
	first, rest, _ := strings.Cut(line, " ")
	if day, more, found := strings.Cut(rest, " "); found && len(first) == 10 { // fail2ban: a blank, and a comma for the fraction
		first, rest = first+" "+strings.Replace(day, ",", ".", 1), more
	}
	for _, l := range stamps {
		if t, err := time.ParseInLocation(l, first, o.Zone); err == nil && t.Year() >= 1970 && t.Year() < 2100 {
			return t, strings.TrimSpace(rest), true
		}
	}
	return at, strings.TrimSpace(rest), false
}

// journal reads a line of `journalctl -o json`.
func journal(line string) (Entry, *Fault) {
	var j struct {
		At   string          `json:"__REALTIME_TIMESTAMP"`
		Name string          `json:"SYSLOG_IDENTIFIER"`
		Text json.RawMessage `json:"MESSAGE"`
	}
	if err := json.Unmarshal([]byte(line), &j); err != nil {
		f := &Fault{Wanted: "one JSON object on each line"}
		if t := (*json.UnmarshalTypeError)(nil); errors.As(err, &t) && t.Field != "" {
			f = &Fault{Field: t.Field, Found: t.Value, Wanted: "a " + t.Type.String()}
		}
		return Entry{}, f
	}
	var text string
	if j.Name != "sshd" && j.Name != "sshd-session" || json.Unmarshal(j.Text, &text) != nil {
		return Entry{}, nil // of somebody else, or bytes that are no text
	}
	e, err := login(strings.TrimSpace(text))
	if err != nil || e.Kind == 0 {
		return e, err
	}
	us, bad := strconv.ParseInt(j.At, 10, 64)
	if bad != nil || us < 0 || us > 4102444800e6 {
		return Entry{}, &Fault{Field: "__REALTIME_TIMESTAMP", Found: j.At, Wanted: "microseconds since 1970, in quotes"}
	}
	e.At = time.UnixMicro(us)
	return e, nil
}

// login reads a message of sshd.
func login(text string) (e Entry, bad *Fault) {
	switch {
	case failed.MatchString(text):
		e.Kind = Failed
	case accepted.MatchString(text):
		e.Kind = Accepted
		text, _, _ = strings.Cut(text, " ssh2") // the key's print follows
	default:
		return Entry{}, nil
	}
	m := atEnd.FindStringSubmatch(text)
	if m == nil {
		return Entry{}, &Fault{Field: "address", Wanted: "an IP address and a port at the line's end"}
	}
	a, err := netip.ParseAddr(m[1])
	if err != nil {
		return Entry{}, &Fault{Field: "address", Found: m[1], Wanted: "an IP address"}
	}
	p, err := strconv.ParseUint(m[2], 10, 16)
	if err != nil {
		return Entry{}, &Fault{Field: "port", Found: m[2], Wanted: "a port from 0 to 65535"}
	}
	e.Addr, e.Port = a.WithZone("").Unmap(), uint16(p)
	return e, nil
}

// Len is how many entries it holds.
func (x *Index) Len() int { return x.n }

// Of says what the evidence makes of a flow: a family and how sure that is, or
// nothing. It looks at who opened the flow.
func (x *Index) Of(r *flow.Record) (family string, weight float32) {
	if x == nil || x.n == 0 {
		return "", 0
	}
	from := r.Initiator()
	es := x.by[from.Addr()]
	if len(es) == 0 {
		return "", 0
	}
	start, last := time.Unix(0, r.Start).Add(-slack), time.Unix(0, r.Last).Add(slack)
	refused, let, mine := 0, 0, false
	for i := range es {
		e := &es[i]
		if e.At.Before(start.Add(-spell)) || e.At.After(last.Add(spell)) {
			continue
		}
		switch e.Kind {
		case Banned:
			if !e.At.Before(start) && !start.Add(spell).Before(e.At) {
				return "banned address", weightBan
			}
		case Accepted:
			let++
		case Failed:
			refused++
			mine = mine || e.Port == from.Port() && !e.At.Before(start) && !e.At.After(last)
		}
	}
	if mine && refused >= tries && refused >= tries*let {
		return "login guessing", weightGuess
	}
	return "", 0
}
