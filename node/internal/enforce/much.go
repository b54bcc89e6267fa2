package enforce

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// muchDismissal is how long a host may do what a person called harmless: a backup or a
// scanner of one's own comes again tomorrow.
const muchDismissal = 30 * 24 * time.Hour

// much tells that a host does more of something over a minute, an hour or a day than all
// others here. That is one incident for each host and kind of deed. It accuses the host, which
// may be the victim of whoever is in it, so it acts on nothing. When many hosts do too
// much at once, as when the line is down, it is folded.
func (m *Machine) much(now time.Time, ev *dataplane.Event, j Judgement) ([]Effect, string) {
	x, rec := &j.Much, &ev.Record
	deed := x.Deed
	if deed == feature.Knocked {
		deed = feature.Missed // every new address is a new service, too
	}
	cause := fmt.Sprintf("host %s: %s", rec.Initiator().Addr(), deed)
	if until, ok := m.dismissed[cause]; ok {
		if now.Before(until) {
			return nil, ""
		}
		delete(m.dismissed, cause)
	}
	in := m.incidents[cause]
	if !x.Tell {
		if in == nil {
			return nil, ""
		}
		in.last = now
		return nil, in.id
	}
	hit := &finding{name: x.Deed.String(), mild: true, reason: event.Reason{
		Feature: "limit:" + x.Deed.String(), Value: x.Count, Normal: x.Others, Weight: 1, Words: muchWords(x, rec),
	}}
	if in == nil && !m.often.Alone(now) {
		return m.fold(now, ev, Judgement{Detector: "limit:" + hit.name}, 1, func() []event.Reason { return []event.Reason{hit.reason} })
	}
	if in == nil {
		in = m.open(now, cause, rec)
		in.much, in.target, in.peer, in.svc = true, dataplane.Target{}, netip.Addr{}, false
	}
	return m.alert(now, in, ev, Judgement{}, hit, 0, nil), in.id
}

// muchWords says in one sentence what was too much.
func muchWords(x *feature.Excess, rec *flow.Record) string {
	who, whom := rec.Initiator().Addr(), rec.Responder()
	var did string
	switch x.Deed {
	case feature.Unanswered:
		did = fmt.Sprintf("called %s %.0f times, which never let it in,", whom.Addr(), x.Count)
	case feature.Missed:
		did = fmt.Sprintf("got nothing at about %.0f different addresses", x.Count)
	case feature.Knocked:
		did = fmt.Sprintf("got nothing at about %.0f different services", x.Count)
	case feature.Pinged:
		did = fmt.Sprintf("spoke ICMP with about %.0f different addresses", x.Count)
	case feature.Guessed:
		did = fmt.Sprintf("opened %.0f short sessions with %s, where people log in,", x.Count, whom)
	default:
		did = fmt.Sprintf("sent %.1f GB to %s", x.Count/1e9, whom.Addr())
	}
	span := map[time.Duration]string{time.Minute: "a minute", time.Hour: "an hour"}[x.Span]
	if span == "" {
		span = "a day"
	}
	words := fmt.Sprintf("%s %s within %s", who, did, span)
	if x.Others > 0 {
		return words + fmt.Sprintf("; of the others here nobody came beyond %.3g, and the limit is %.3g", x.Others, x.Limit)
	}
	return words + fmt.Sprintf("; the limit is %.3g", x.Limit)
}
