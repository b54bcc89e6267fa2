package enforce

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// ownDetector is who found what the plane's own scorer did.
const ownDetector = "kernel"

// errSpared is why nothing followed where the plane's own list says so.
var errSpared = errors.New("the never-block list names it")

// Decided takes what the plane's own scorer found of a flow, after the plane did what
// follows from it. It makes it an incident with its explanation, and lets the flow go
// where the policy or a person says otherwise. It never leads to a block: that takes
// what the site's model and rules find themselves, and flows that only the scorer is
// against count for nothing in that. The second result is the incident, "" for none.
func (m *Machine) Decided(now time.Time, ev *dataplane.Event, j Judgement, explain func() []event.Reason) ([]Effect, string) {
	v, rec := ev.Verdict, &ev.Record
	if v == nil || v.Outcome == dataplane.Shadowed {
		return nil, ""
	}
	cause, t := CauseOf(rec), dataplane.Target{Flow: rec.Key}
	r := dataplane.Rule{Target: t, Action: dataplane.Action(v.Action), Expires: now}
	if v.Until != 0 {
		r.Expires = time.Unix(0, v.Until).UTC()
	}
	if until, ok := m.dismissed[cause]; ok && now.Before(until) || m.panicked || control(rec) {
		return []Effect{{Remove: &t}}, ""
	}
	in := m.incidents[cause]
	fresh := in == nil
	if fresh && !m.mayTell(now, m.habits.established(now, relationOf(rec))) {
		if in = m.many(now, rec); in == nil {
			return nil, ""
		}
	} else if fresh {
		in = m.open(now, cause, rec)
	}
	in.last = now
	if in.detectedNS == 0 {
		in.detectedNS = ev.At
	}
	alone := !in.backed() && m.habits.established(now, relationOf(rec))
	if err := m.ownAlone(now, in, rec, v); err != nil {
		fx := m.held(now, in, t, r.Action, err)
		if v.Outcome == dataplane.Acted {
			fx = append(fx, Effect{Remove: &t})
		}
		return append(fx, Effect{Emit: in.record(m.o.Site, now)}), in.id
	}
	if err := m.ownMay(now, r, v); err != nil {
		if !fresh && v.Outcome != dataplane.Acted {
			return nil, in.id // told once
		}
		fx := []Effect{m.refused(now, in, t, r.Action, err)}
		if v.Outcome == dataplane.Acted {
			fx = append(fx, Effect{Remove: &t})
		}
		return append(fx, Effect{Emit: in.record(m.o.Site, now)}), in.id
	}
	fx := m.ownVerdict(now, in, ev, r, j, explain)
	if s := m.suspended[t.String()]; s != nil {
		s.alone = alone
	}
	return fx, in.id
}

// ownAlone is why the scorer's word alone is not enough. Where it would cut off more
// of what is ordinary than the learner may, it has to stop acting.
func (m *Machine) ownAlone(now time.Time, in *incident, rec *flow.Record, v *dataplane.Verdict) error {
	if in.backed() || v.Outcome == dataplane.Spared {
		return nil
	}
	err := m.aloneFlow(now, rec)
	if err != nil && m.ripe(now) == nil {
		m.retreat = err.Error()
	}
	return err
}

// ownMay is why the plane should not have done what it did.
func (m *Machine) ownMay(now time.Time, r dataplane.Rule, v *dataplane.Verdict) error {
	if v.Outcome == dataplane.Spared {
		return errSpared
	}
	if m.o.May == nil {
		return nil
	}
	r.Action = dataplane.Suspend // a limit is the weaker of the two
	return m.o.May(now, r)
}

// ownVerdict tells of a flow that the plane holds, or in monitor mode would: once for
// each time that it does.
func (m *Machine) ownVerdict(now time.Time, in *incident, ev *dataplane.Event, r dataplane.Rule, j Judgement, explain func() []event.Reason) []Effect {
	v, rec := ev.Verdict, &ev.Record
	var reasons []event.Reason
	if explain != nil {
		reasons = explain()
	}
	words := fmt.Sprintf("%s in the kernel at packet %d by scorer %.8s, version %d: %s",
		pastOf(v.Action), v.Milestone.Packets(), hex.EncodeToString(v.Model[:]), v.Version, sentence(rec, reasons))
	if in.sentence == "" {
		in.sentence = words
	}
	var fx []Effect
	if first := m.suspended[r.Target.String()] == nil && !in.flows[rec.ID]; first {
		fx = append(fx, m.ownAlert(now, in, rec, j, words, reasons))
	}
	in.raise(r.Action)
	e := m.verdict(now, in, r, evidenceOf(in), words)
	e.Verdict.Mode = ev.Mode.String()
	e.Verdict.DetectedNS, e.Verdict.EnforcedNS = ev.At, ev.At
	e.Verdict.Scorer, e.Verdict.ScorerVersion = hex.EncodeToString(v.Model[:]), v.Version
	if v.Outcome == dataplane.Acted {
		in.suspended++
	}
	if s := m.suspended[r.Target.String()]; s == nil || now.After(s.until) {
		m.suspended[r.Target.String()] = &suspended{incident: in.id, until: r.Expires, target: r.Target, rule: r}
	}
	fx = append(fx, Effect{Emit: e})
	if v.Action == score.Suspend { // the packet that decided; in monitor mode it would have been dropped
		fx = append(fx, m.dropped(now, e, ev)...)
	}
	return append(fx, Effect{Emit: in.record(m.o.Site, now)})
}

// ownAlert is the alert of one flow.
func (m *Machine) ownAlert(now time.Time, in *incident, rec *flow.Record, j Judgement, words string, reasons []event.Reason) Effect {
	if len(in.hosts) < maxHostsPerIncident {
		in.hosts[insideHost(rec)] = true
	}
	in.alerts++
	a := m.event(now, event.KindAlert)
	if len(in.alertIDs) < maxAlertsPerIncident {
		in.alertIDs = append(in.alertIDs, a.ID)
	}
	p := 1.0
	if j.Judged {
		p = j.P
	}
	a.Alert = &event.Alert{
		Incident: in.id, Host: endpointName(insideHost(rec)), Peer: endpointName(in.peer), Service: serviceName(rec),
		Detector: ownDetector, P: p, Model: j.Model, Milest: rec.Packets(), Sentence: words, Reasons: reasons, Flow: FlowBody(rec, p),
	}
	return Effect{Emit: a}
}

func pastOf(a score.Action) string {
	if a == score.RateLimit {
		return "rate-limited"
	}
	return "suspended"
}
