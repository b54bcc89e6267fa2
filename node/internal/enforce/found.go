package enforce

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Finding is a flow of the archive that a new indicator or a new model is
// against.
type Finding struct {
	Flow     event.Flow
	Detector string // indicator, self, attack
	P        float64
	Model    string
	Sentence string // why, in words
	Reasons  []event.Reason
	// Label gives the flows of this finding, where the peer proved its address,
	// the weight of examples of an attack; 0 labels nothing.
	Label float64
}

// pastLabelled is the family of what an indicator said of the past.
const pastLabelled = "indicator"

// Found makes an incident of a flow that passed long ago. It never acts by
// itself: what is done about the past is for a person to say, and what happens
// from now on is judged like anything else, without the past's weight. A cause
// that has a live incident is known, and nothing is told. The result is the
// incident's id, "" when there is none.
func (m *Machine) Found(now time.Time, f Finding) ([]Effect, string) {
	cause, t, peer, svc := CauseOfFlow(&f.Flow)
	if until, ok := m.dismissed[cause]; ok && now.Before(until) || cause == "" {
		return nil, ""
	}
	in := m.incidents[cause]
	if in != nil && !in.past {
		return nil, ""
	}
	fresh := in == nil
	if fresh {
		in = m.open(now, cause, &flow.Record{})
		in.target, in.peer, in.svc, in.past, in.family = t, peer, svc, true, f.Detector
		in.first, in.sentence = time.Unix(0, f.Flow.Start).UTC(), "found in the past: "+f.Sentence
	}
	in.last, in.bestP = now, min(in.bestP, f.P)
	in.validated = in.validated || f.Flow.Validated
	if a, err := netip.ParseAddr(insideOfFlow(&f.Flow)); err == nil && len(in.hosts) < maxHostsPerIncident {
		in.hosts[a] = true
	}
	in.alerts++
	if in.alerts&(in.alerts-1) != 0 {
		return nil, in.id
	}
	id := m.newID(now)
	if len(in.alertIDs) < maxAlertsPerIncident {
		in.alertIDs = append(in.alertIDs, id)
	}
	a := m.event(now, event.KindAlert)
	a.ID = id
	a.Alert = &event.Alert{
		Incident: in.id, Host: insideOfFlow(&f.Flow), Peer: endpointName(peer), Service: fmt.Sprintf("%s/%d", f.Flow.Proto, f.Flow.DstPort),
		Detector: f.Detector, P: f.P, Model: f.Model, Milest: f.Flow.PktsOut + f.Flow.PktsIn,
		Sentence: "found in the past: " + f.Sentence, Reasons: f.Reasons, Flow: f.Flow, Past: true,
	}
	fx := []Effect{{Emit: a}, {Emit: in.record(m.o.Site, now)}}
	if f.Label > 0 && f.Flow.Validated {
		fx = append(fx, Effect{Label: &Label{Incident: in.id, Attack: true, Family: pastLabelled, Weight: f.Label, Peer: peer}})
	}
	return fx, in.id
}

// CauseOfFlow is CauseOf for a flow of the archive, with its outside end; "" when
// it has none that can be named.
func CauseOfFlow(f *event.Flow) (cause string, t dataplane.Target, peer netip.Addr, service bool) {
	far, port := f.Dst, f.DstPort
	switch f.Direction {
	case "inbound":
		far, port = f.Src, 0
	case "internal":
		return "host " + f.Src, t, peer, false
	}
	peer, err := netip.ParseAddr(far)
	if err != nil {
		return "", t, peer, false
	}
	t = dataplane.Peer(peer)
	proto, err := protoOf(f.Proto)
	if port == 0 || err != nil {
		return "peer " + peer.String(), t, peer, false
	}
	t.Port, t.Proto = port, proto
	return "peer " + t.String(), t, peer, true
}

func insideOfFlow(f *event.Flow) string {
	if f.Direction == "inbound" {
		return f.Dst
	}
	return f.Src
}

// Seeker runs a model over the archive as the site judges live traffic: what
// counts is that flows of one cause go on being unusual. It is for one goroutine.
type Seeker struct{ q *sequences }

// NewSeeker seeks with the share of flows that may start a false climb.
func NewSeeker(share float64) *Seeker {
	s := &Seeker{newSequences()}
	if share > 0 {
		s.q.budget(share)
	}
	return s
}

// Stands says that a cause is still unusual after all that was judged.
func (s *Seeker) Stands(cause string) bool {
	return max(s.q.height(cause), s.q.height(cause+unproved)) >= s.q.limit/2
}

// Judge counts a flow that has ended, and says whether its cause has climbed to
// the limit, with how many flows, by which part of the model.
func (s *Seeker) Judge(f *event.Flow, j Judgement) (flows int, part string, reached bool) {
	cause, _, _, _ := CauseOfFlow(f)
	if cause == "" {
		return 0, "", false
	}
	if f.Direction == "inbound" && !f.Validated {
		cause += unproved
	}
	r, reached := s.q.judge(cause, 0, j, true)
	return r.flows, r.part, reached
}
