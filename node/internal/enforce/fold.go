package enforce

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// manyCauses is the cause of what is folded: a change of the site, such as a new
// service or a new office, makes many causes unusual at once, and an operator who
// gets an incident for each stops reading. So beyond a burst, what only the
// model of normal finds is told as one incident that acts on nothing. What a
// counting rule, the attack part or the memory of confirmed behaviours finds is
// never folded.
const manyCauses = "many causes at once"

// fold counts an alarm for the one incident of many causes.
func (m *Machine) fold(now time.Time, ev *dataplane.Event, j Judgement, run int, explain func() []event.Reason) ([]Effect, string) {
	in := m.many(now, &ev.Record)
	if in == nil {
		return nil, ""
	}
	fx := m.alert(now, in, ev, j, nil, run, explain)
	if fx == nil {
		return nil, in.id
	}
	in.sentence = fmt.Sprintf("more causes became unusual at once than are told one by one (%d flows of %d hosts so far): a change of this site, or many attackers", in.alerts, len(in.hosts))
	if in.alerts&(in.alerts-1) != 0 {
		return nil, in.id // told at 1, 2, 4, 8 and so on
	}
	fx[len(fx)-1] = Effect{Emit: in.record(m.o.Site, now)}
	return fx, in.id
}

// many is the one incident of many causes; nil where a person called it harmless.
func (m *Machine) many(now time.Time, rec *flow.Record) *incident {
	if until, ok := m.dismissed[manyCauses]; ok && now.Before(until) {
		return nil
	}
	in := m.incidents[manyCauses]
	if in == nil {
		in = m.open(now, manyCauses, rec)
		// It is about nobody in particular.
		in.target, in.peer, in.svc = dataplane.Target{}, netip.Addr{}, false
	}
	return in
}

// Folded says that an incident is the one of many causes at once, which acts on nothing.
func (m *Machine) Folded(incident string) bool {
	in := m.incidents[manyCauses]
	return in != nil && in.id == incident
}
