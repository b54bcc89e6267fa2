package enforce

import (
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// That an address is real says nothing of what was done in its name. What may
// block is therefore counted twice: all of it, which may raise an alert and a
// rate limit, and apart from it what the peer did in flows in which it proved
// its address. Only the second can carry a block; else anybody could misbehave
// in the name of somebody whose next, ordinary connection would then turn
// against him.
const (
	darkLimit  = 3 // unused services with which a handshake was completed
	touchLimit = 3 // services opened and left without a word, handshake complete

	unproved = " (unproved)"
)

// proved says whether the outside end of a flow answered what only a receiver
// at its address could know.
func proved(rec *flow.Record) bool {
	out, end, ok := rec.Outside()
	return ok && out.IsValid() && rec.Validated[end]
}

// climber names the sequence to which a flow adds. A flow that came from
// outside and proved nothing has one of its own.
func climber(cause string, rec *flow.Record) string {
	if _, end, ok := rec.Outside(); ok && end == 0 && !rec.Validated[0] {
		return cause + unproved
	}
	return cause
}

// weigh notes what of a new piece of evidence was proved. Of a counting rule it
// is only what the rule itself says: the flow that brought it to its limit may
// be the only honest one.
func (in *incident) weigh(rec *flow.Record, hit *finding, run int, odd bool) {
	if hit != nil && hit.proved {
		in.validated, in.ruleProved = true, true
	}
	if !proved(rec) || run == 0 && !odd {
		return
	}
	in.validated = true
	in.runProved = in.runProved || run > 1
	if len(in.proved) < maxFlowsPerIncident {
		in.proved[rec.ID] = true
	}
}

// carries says whether what was proved is enough for a block.
func (in *incident) carries() bool {
	return in.ruleProved || in.runProved || len(in.proved) >= repeat || len(in.proved) > 0 && len(in.seenBy) > 0
}

// dark takes a handshake that a peer completed with an address that nobody uses.
func (m *Machine) dark(now time.Time, ev *dataplane.Event) ([]Effect, string) {
	rec := &ev.Record
	cause := CauseOf(rec)
	if until, ok := m.dismissed[cause]; ok && now.Before(until) || !m.o.Rules || !proved(rec) {
		return nil, ""
	}
	hit := m.rules.dark(now, rec)
	if hit == nil {
		return nil, ""
	}
	in := m.incidents[cause]
	if in == nil {
		in = m.open(now, cause, rec)
	}
	fx := m.alert(now, in, ev, Judgement{}, hit, 0, nil)
	fx = append(fx, m.ask(now, in)...)
	return append(fx, m.decide(now, in)...), in.id
}

// dark counts distinct unused services to which a peer proved its address.
func (r *rules) dark(now time.Time, rec *flow.Record) *finding {
	from, to := rec.Initiator(), rec.Responder()
	t := r.peer(now, from.Addr())
	if len(t.dark) < 4*darkLimit {
		t.dark[service{to.Addr(), to.Port()}] = struct{}{}
	}
	n := len(t.dark)
	if n < darkLimit {
		return nil
	}
	return &finding{name: "scan", proved: true, reason: event.Reason{
		Feature: "rule:dark", Value: float64(n), Normal: 0, Weight: 1,
		Words: fmt.Sprintf("%s completed handshakes with %d services of unused addresses within a minute (limit %d)", from.Addr(), n, darkLimit),
	}}
}

// touched says that the initiator completed the handshake and said nothing.
func touched(rec *flow.Record) bool {
	return rec.Validated[0] && rec.Dir[0].Payload == 0
}
