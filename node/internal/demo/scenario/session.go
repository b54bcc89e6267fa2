package scenario

import (
	"net/netip"
	"time"
)

// Kind is what a session speaks.
type Kind string

// Kinds of sessions. Bulk is HTTP with large bodies; Probe is a bare TCP
// connect that is closed as soon as it is answered.
const (
	DNS   Kind = "dns"
	HTTP  Kind = "http"
	TLS   Kind = "tls"
	SSH   Kind = "ssh"
	Bulk  Kind = "bulk"
	Probe Kind = "probe"
)

// Attack names a hostile behaviour; the empty one is ordinary work.
type Attack string

// Attacks.
const (
	Scan   Attack = "scan"
	Brute  Attack = "brute"
	Beacon Attack = "beacon"
	Spurt  Attack = "spurt"
)

// Attacks lists every attack in the order of the story.
func Attacks() []Attack { return []Attack{Scan, Brute, Beacon, Spurt} }

// Exchange is one question and its answer: after Think the client sends Up
// bytes, and the server answers with Down bytes. Sizes are payload of the
// session's own protocol, without TLS or TCP.
type Exchange struct {
	Think    time.Duration
	Up, Down int
}

// Session is one connection (or one UDP question) from its first packet to its
// last, as data: whoever executes it, over sockets or as frames, does the same.
type Session struct {
	ID      uint64
	Kind    Kind
	Attack  Attack
	Site    string // the site whose gateway it passes
	Inbound bool   // From is outside, To is an inside address
	From    netip.Addr
	To      netip.Addr
	Port    uint16
	Script  []Exchange
	// Passwords are what an SSH session tries, in order; a wrong one is
	// refused by the server, the right one opens the session for Script.
	Passwords []string
	// Closed says that nothing listens at Port, so that a refusal is the
	// answer which the client expects.
	Closed bool
	// Forged says that From never sent this: somebody else began a handshake in its
	// name, and the answer goes to an address that knows nothing of it.
	Forged  bool
	Timeout time.Duration // for the whole session
}

// UDP says whether the session is datagrams.
func (s *Session) UDP() bool { return s.Kind == DNS }

// Bytes returns the sums of the script.
func (s *Session) Bytes() (up, down int) {
	for _, e := range s.Script {
		up += e.Up
		down += e.Down
	}
	return up, down
}

// Timed is a session and how long after the one before it begins.
type Timed struct {
	After time.Duration
	Session
}

// Result is how a session went.
type Result struct {
	Session  *Session
	Start    time.Time
	Duration time.Duration
	Up, Down int64 // script bytes that arrived
	// Answered says that the other end's first packet came back (for a probe
	// of a closed port: the refusal).
	Answered bool
	// OK says that the whole script ran, or that a probe was answered.
	OK  bool
	Err error // why not
}
