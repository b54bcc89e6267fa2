package enforce

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// The counting rules see what needs no learning: a peer from outside that
// fails at many services within a minute, and one that logs in again and again
// with short sessions. They protect a site while its model is still learning,
// and are the control that shows what only the model can see.
const (
	ruleWindow  = time.Minute
	scanLimit   = 15 // distinct (host, port) that did not answer or refused
	guessLimit  = 12 // short sessions with one login service
	guessLength = 15 * time.Second
	maxTracked  = 8192 // peers; the oldest are forgotten beyond it
)

// loginPorts are the services at which passwords are guessed.
var loginPorts = map[uint16]string{
	21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 110: "pop3", 143: "imap",
	445: "smb", 587: "submission", 993: "imaps", 995: "pop3s", 1433: "mssql",
	3306: "mysql", 3389: "rdp", 5432: "postgresql", 5900: "vnc", 2222: "ssh",
}

// terminals are the services at which people log in by hand. Mail is fetched and
// databases are asked by programs, with many short sessions all day.
var terminals = map[uint16]bool{22: true, 23: true, 2222: true, 3389: true}

// guessPayload is what a refused login takes at most, in bytes both ways; who gets in
// does something.
const guessPayload = 8 << 10

// guess says that a flow may be a tried password: from outside, to a service at which
// people log in by hand, by its port or by what it spoke, and small. Programs inside that log in
// all day, as backups do, look no other than who guesses.
func guess(rec *flow.Record) bool {
	return !rec.InitInside && rec.RespInside && rec.Key.Proto == flow.TCP &&
		(terminals[rec.Responder().Port()] || rec.Hint == flow.HintSSH) &&
		rec.Dir[0].Payload+rec.Dir[1].Payload <= guessPayload
}

// finding is what a rule saw.
type finding struct {
	name   string // scan, guessing
	reason event.Reason
	proved bool // the peer proved its address in enough of what was counted
	mild   bool // it is told of, and no evidence for acting
}

type service struct {
	host netip.Addr
	port uint16
}

// tracked is one outside initiator in the current window.
type tracked struct {
	since    time.Time
	failed   map[service]struct{}
	touched  map[service]struct{} // handshake complete, and nothing said
	dark     map[service]struct{} // of addresses that nobody uses, handshake complete
	sessions map[service]int
	proved   int // of sessions, those in which the peer proved its address
}

type rules struct {
	peers map[netip.Addr]*tracked
	order []netip.Addr // by first sight, for forgetting
}

func newRules() *rules { return &rules{peers: map[netip.Addr]*tracked{}} }

// observe counts a flow that ended and returns what a rule says of its
// initiator, if anything. Only flows opened from outside count: what an inside
// host does to others is for its own site's model to judge.
func (r *rules) observe(now time.Time, rec *flow.Record) *finding {
	if rec.InitInside || !rec.RespInside || rec.Key.Proto != flow.TCP {
		return nil
	}
	from, to := rec.Initiator(), rec.Responder()
	t := r.peer(now, from.Addr())
	s := service{to.Addr(), to.Port()}
	failed, silent := refused(rec), touched(rec)
	if failed && len(t.failed) < 4*scanLimit {
		t.failed[s] = struct{}{}
	}
	if silent && len(t.touched) < 4*scanLimit {
		t.touched[s] = struct{}{}
	}
	if n := len(t.failed); n >= scanLimit && (failed || silent) {
		return &finding{name: "scan", proved: len(t.touched) >= touchLimit, reason: event.Reason{
			Feature: "rule:scan", Value: float64(n), Normal: 0, Weight: 1,
			Words: fmt.Sprintf("%s failed at %d different services within a minute (limit %d)", from.Addr(), n, scanLimit),
		}}
	}
	if failed {
		return nil
	}
	name, login := loginPorts[to.Port()]
	if !login || rec.Duration() > guessLength || rec.Dir[0].Payload == 0 || rec.Dir[1].Payload == 0 {
		return nil
	}
	if len(t.sessions) < scanLimit || t.sessions[s] > 0 {
		t.sessions[s]++
		if rec.Validated[0] {
			t.proved++
		}
	}
	if n := t.sessions[s]; n >= guessLimit {
		return &finding{name: "guessing", proved: t.proved >= guessLimit, reason: event.Reason{
			Feature: "rule:guessing", Value: float64(n), Normal: 0, Weight: 1,
			Words: fmt.Sprintf("%s opened %d short %s sessions with %s within a minute (limit %d)", from.Addr(), n, name, to.Addr(), guessLimit),
		}}
	}
	return nil
}

// refused says that the responder never let the initiator in: no answer, or a
// reset before any payload.
func refused(rec *flow.Record) bool {
	if rec.Dir[0].Payload+rec.Dir[1].Payload > 0 {
		return false
	}
	return rec.Dir[1].Packets == 0 || rec.Dir[1].RST > 0
}

func (r *rules) peer(now time.Time, a netip.Addr) *tracked {
	t := r.peers[a]
	if t == nil {
		for len(r.peers) >= maxTracked {
			delete(r.peers, r.order[0])
			r.order = r.order[1:]
		}
		t = &tracked{}
		r.peers[a] = t
		r.order = append(r.order, a)
	}
	if t.failed == nil || now.Sub(t.since) > ruleWindow || now.Before(t.since) {
		*t = tracked{since: now, failed: map[service]struct{}{}, touched: map[service]struct{}{},
			dark: map[service]struct{}{}, sessions: map[service]int{}}
	}
	return t
}
