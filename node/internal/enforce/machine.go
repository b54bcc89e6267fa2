package enforce

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/names"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/drift"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// standing is a rule that the site wants enforced, and why.
type standing struct {
	rule  dataplane.Rule
	block event.Block
	id    string    // event id of the block
	key   string    // what Share published it as, "" when it was not shared
	from  *Received // the mesh's word that it rests on; nil for our own, and after a restart
	next  *Received // the mesh's word that waits behind it
}

// Machine is the site's judgement. Its zero value is not usable; see New. It is
// not safe for concurrent use. No method fails half-way: an error means that
// nothing changed.
type Machine struct {
	o         Options
	rules     *rules
	sequences *sequences
	strange   damper // of what only the learner finds, about strangers
	familiar  damper // and about ordinary relations
	often     damper // of hosts that did too much
	habits    *habits
	asBefore  bool                 // see AsBefore
	retreat   string               // see Retreat
	incidents map[string]*incident // by cause
	byID      map[string]*incident
	order     []string              // causes by first sight
	dismissed map[string]time.Time  // cause -> until: not raised again
	standing  map[string]*standing  // by target
	suspended map[string]*suspended // by flow key
	names     names.Set             // what domains holds
	domains   map[string]*domain    // by name
	known     *acquaintances
	pairs     map[netip.Addr]int   // rules that stand for domains, by inside host
	told      map[string]time.Time // pairs that were told of
	single    bool                 // Alpha is a rank
	panicked  bool
	nextID    uint32
	newID     func(time.Time) string
}

type suspended struct {
	incident string
	until    time.Time
	verdict  *event.Event
	target   dataplane.Target
	rule     dataplane.Rule
	alone    bool // an ordinary relation's, on the learner's word alone
}

// damper is one of many causes at once.
type damper = drift.Damper

// dismissal is how long a cause that a person called harmless is not raised.
const dismissal = 24 * time.Hour

// New returns a machine without memory; Restore gives it its blocks back.
func New(o Options) *Machine {
	o.defaults()
	return &Machine{
		o: o, rules: newRules(), sequences: newSequences(), known: newAcquaintances(),
		incidents: map[string]*incident{}, byID: map[string]*incident{},
		dismissed: map[string]time.Time{}, standing: map[string]*standing{},
		suspended: map[string]*suspended{}, newID: o.NewID,
		strange: damper{Burst: o.Burst, Every: o.Every}, familiar: damper{Burst: o.Burst, Every: o.Every},
		often:   damper{Burst: o.Burst, Every: o.Every},
		habits:  newHabits(o.Share, o.Settle),
		domains: map[string]*domain{}, pairs: map[netip.Addr]int{}, told: map[string]time.Time{},
	}
}

// Tune changes how long suspensions and blocks last from now on, and whether the
// counting rules decide. What stands keeps its length.
func (m *Machine) Tune(suspend, block time.Duration, rules bool) {
	m.o.SuspendFor, m.o.BlockFor, m.o.Rules = suspend, block, rules
	m.o.defaults()
}

// SetBudget sets what share of judged reports may be false alarms, and the least
// p that the model can say. Where the share is below that, no single flow can
// carry an alarm by itself, and only a cause that goes on being unusual does.
func (m *Machine) SetBudget(share, floor float64) {
	m.o.Alpha, m.single = share, false
	if share < floor {
		m.o.Alpha = 0
	}
	if share > 0 {
		m.sequences.budget(share)
	}
}

// SetSingle sets the rank at which one flow is an alert, by what flows of this
// site really get. It holds until SetBudget.
func (m *Machine) SetSingle(level float64) { m.o.Alpha, m.single = level, true }

// Attack says that an incident is one by a counting rule or by the operator's word.
func (m *Machine) Attack(incident string) bool {
	in := m.byID[incident]
	return in != nil && (in.rule || in.label == "confirmed")
}

// ByRule says that a detector is a counting rule.
func ByRule(detector string) bool { return strings.HasPrefix(detector, "rule:") || ByLimit(detector) }

// ByLimit says that a detector is a limit of what a host may do over a minute, an hour or
// a day, which accuses nobody outside.
func ByLimit(detector string) bool { return strings.HasPrefix(detector, "limit:") }

// Alpha is the p-value, or the rank, at which one flow is an alert; 0 when none can be.
func (m *Machine) Alpha() float64 { return m.o.Alpha }

// Mode is the mode that the machine asked for.
func (m *Machine) Mode() dataplane.Mode { return m.o.Mode }

// Panicked says whether learned and shared verdicts are lifted.
func (m *Machine) Panicked() bool { return m.panicked }

// Suspicious says whether a judgement alone would raise an alert.
func (m *Machine) Suspicious(j Judgement) bool {
	return j.Judged && (m.Alone(j.P, j.Rank) || j.Recalled)
}

// Alone says whether a flow of this p-value and rank is an alert by itself.
func (m *Machine) Alone(p, rank float64) bool {
	if m.single {
		p = rank
	}
	return m.o.Alpha > 0 && p <= m.o.Alpha
}

// Flow takes what the plane reported of a flow and what the learner thinks of
// it. explain is called only when an alert is raised. The second result is the
// incident that the flow belongs to now, "" when none.
func (m *Machine) Flow(now time.Time, ev *dataplane.Event, j Judgement, explain func() []event.Reason) ([]Effect, string) {
	fx, id := m.flow(now, ev, j, explain)
	if j.Much.Span == 0 || !m.o.Rules {
		return fx, id
	}
	more, of := m.much(now, ev, j)
	if id == "" {
		id = of
	}
	return append(fx, more...), id
}

func (m *Machine) flow(now time.Time, ev *dataplane.Event, j Judgement, explain func() []event.Reason) ([]Effect, string) {
	rec := &ev.Record
	switch ev.Kind {
	case dataplane.EventFirstDrop:
		return m.firstDrop(now, ev), ""
	case dataplane.EventFlood:
		return nil, "" // anybody's packets, in anybody's name
	case dataplane.EventProof:
		return m.dark(now, ev)
	}
	m.asBefore = false
	if rec.OnlyResets() || control(rec) {
		return nil, "" // what is left of a connection, or an answer to somebody else's
	}
	cause := CauseOf(rec)
	in := m.incidents[cause]
	var hit *finding
	if m.o.Rules && ev.Kind == dataplane.EventEnd {
		hit = m.rules.observe(now, rec)
	}
	if until, ok := m.dismissed[cause]; ok {
		if now.Before(until) {
			return nil, ""
		}
		delete(m.dismissed, cause)
	}
	var climb run
	if j.Judged {
		if r, reached := m.sequences.judge(climber(cause, rec), rec.ID, j, ev.Kind == dataplane.EventEnd); reached {
			climb = r
			if !j.Recalled {
				j.Detector = r.part
			}
		}
	}
	quiet := hit == nil && climb.flows == 0 && !m.Suspicious(j)
	rel, ended := relationOf(rec), ev.Kind == dataplane.EventEnd
	known := m.habits.established(now, rel)
	m.habits.seen(now, rel, ended, quiet && ended && (in == nil || known) && ordinaryFlow(rec, j))
	if quiet {
		if in != nil {
			return nil, in.id
		}
		if ev.Kind == dataplane.EventEnd {
			return m.ordinary(now, rec), ""
		}
		return nil, ""
	}
	var fx []Effect
	alone := hit == nil && !j.Recalled && !in.backed()
	if alone && known {
		explain = once(explain)
		var id string
		var done bool
		if fx, id, done = m.changing(now, ev, j, climb.flows, explain); done {
			return fx, id
		}
	}
	m.suspect(rec)
	if in == nil && alone && j.Detector == learner.Self.String() && !m.mayTell(now, known) {
		return m.fold(now, ev, j, climb.flows, explain)
	}
	if in == nil {
		in = m.open(now, cause, rec)
	}
	fx = append(fx, m.alert(now, in, ev, j, hit, climb.flows, explain)...)
	in.recalled = in.recalled || j.Recalled
	if ev.Kind == dataplane.EventMilestone {
		fx = append(fx, m.suspend(now, in, rec)...)
	}
	fx = append(fx, m.ask(now, in)...)
	fx = append(fx, m.decide(now, in)...)
	return fx, in.id
}

func (m *Machine) open(now time.Time, cause string, rec *flow.Record) *incident {
	for len(m.incidents) >= m.o.MaxIncidents {
		m.forget(m.order[0])
	}
	in := &incident{
		id: m.newID(now), cause: cause, first: now, last: now, bestP: 1,
		flows: map[uint64]bool{}, proved: map[uint64]bool{}, hosts: map[netip.Addr]bool{},
	}
	if t, peer, svc, ok := targetOf(rec); ok {
		in.target, in.peer, in.svc = t, peer, svc
	}
	m.incidents[cause] = in
	m.byID[in.id] = in
	m.order = append(m.order, cause)
	return in
}

func (m *Machine) forget(cause string) {
	if in := m.incidents[cause]; in != nil {
		delete(m.byID, in.id)
		delete(m.incidents, cause)
	}
	for i, c := range m.order {
		if c == cause {
			m.order = append(m.order[:i], m.order[i+1:]...)
			return
		}
	}
}

// alert records one flow under its incident: once for a flow, and again only
// when a rule, or the run of unusual flows that it belongs to, adds a new reason.
func (m *Machine) alert(now time.Time, in *incident, ev *dataplane.Event, j Judgement, hit *finding, run int, explain func() []event.Reason) []Effect {
	rec := &ev.Record
	in.last = now
	in.weigh(rec, hit, run, m.Suspicious(j))
	if len(in.hosts) < maxHostsPerIncident {
		in.hosts[insideHost(rec)] = true
	}
	newRule := hit != nil && !in.rule
	newRun := run > 1 && !in.persists
	in.persists = in.persists || run > 1
	if in.flows[rec.ID] && !newRule && !newRun || hit != nil && !newRule && run == 0 && !m.Suspicious(j) {
		return nil
	}
	if len(in.flows) < maxFlowsPerIncident {
		in.flows[rec.ID] = true
	}
	var reasons []event.Reason
	detector, p := j.Detector, j.P
	if (run > 0 || m.Suspicious(j)) && explain != nil {
		reasons = explain()
	}
	if run > 1 {
		reasons = append([]event.Reason{{
			Feature: "sequence", Value: float64(run), Normal: 1, Weight: 1,
			Words: fmt.Sprintf("%d flows of this kind in a row are unusual here", run),
		}}, reasons...)
	}
	if hit != nil {
		reasons = append([]event.Reason{hit.reason}, reasons...)
		if hit.mild {
			detector, p = "limit:"+hit.name, 0
		} else {
			in.rule, in.family = true, hit.name
			if run == 0 && !m.Suspicious(j) {
				detector, p = "rule:"+hit.name, 0
			}
		}
	}
	in.alerts++
	if p < in.bestP || in.sentence == "" || newRule {
		in.bestP = p
		in.sentence = sentence(rec, reasons)
		if hit != nil {
			in.sentence = hit.reason.Words
		}
	}
	if in.detectedNS == 0 {
		in.detectedNS = rec.Last
	}
	id := m.newID(now)
	if len(in.alertIDs) < maxAlertsPerIncident {
		in.alertIDs = append(in.alertIDs, id)
	}
	e := &event.Event{
		V: event.Version, ID: id, Time: now, Site: m.o.Site, Kind: event.KindAlert,
		Alert: &event.Alert{
			Incident: in.id, Host: endpointName(insideHost(rec)), Peer: endpointName(in.peer),
			Service: serviceName(rec), Detector: detector, P: p, Model: j.Model,
			Milest: rec.Packets(), Sentence: sentence(rec, reasons), Reasons: reasons, Flow: FlowBody(rec, p),
		},
	}
	fx := []Effect{{Emit: e}}
	if in.alerts == 1 || in.alerts&(in.alerts-1) == 0 {
		fx = append(fx, Effect{Emit: in.record(m.o.Site, now)})
	}
	return fx
}

// suspend drops the one flow for a while. It needs no proof: it costs the two
// hosts this flow and nothing else.
func (m *Machine) suspend(now time.Time, in *incident, rec *flow.Record) []Effect {
	if m.panicked || in.blocked {
		return nil
	}
	t := dataplane.Target{Flow: rec.Key}
	if s := m.suspended[t.String()]; s != nil && now.Before(s.until) {
		return nil
	}
	until := now.Add(m.o.SuspendFor)
	r := dataplane.Rule{Target: t, Action: dataplane.Suspend, Expires: until, Reason: m.reason()}
	if m.o.May != nil {
		if err := m.o.May(now, r); err != nil {
			return []Effect{m.refused(now, in, t, dataplane.Suspend, err)}
		}
	}
	alone := !in.backed()
	if alone {
		if err := m.aloneFlow(now, rec); err != nil {
			return m.held(now, in, t, dataplane.Suspend, err)
		}
	}
	v := m.verdict(now, in, r, evidenceOf(in), "suspended while the mesh is asked: "+in.sentence)
	v.Verdict.DetectedNS = rec.Last
	m.suspended[t.String()] = &suspended{incident: in.id, until: until, verdict: v, target: t, rule: r, alone: alone && m.habits.established(now, relationOf(rec))}
	in.suspended++
	in.raise(dataplane.Suspend)
	return []Effect{{Apply: &Apply{Rule: r, Verdict: v}}}
}

func (m *Machine) ask(_ time.Time, in *incident) []Effect {
	if in.asked || !in.peer.IsValid() {
		return nil
	}
	in.asked, in.asking = true, true
	return []Effect{{Ask: &Ask{Incident: in.id, Value: in.peer.String()}}}
}

// Answer takes what the mesh said of an incident's peer: the names of the
// sites that have seen it. An empty answer never lowers local suspicion.
func (m *Machine) Answer(now time.Time, incidentID string, seenBy []string) []Effect {
	in := m.byID[incidentID]
	if in == nil {
		return nil
	}
	in.asking = false
	in.seenBy = append([]string(nil), seenBy...)
	return m.decide(now, in)
}

// decide raises the incident to what its evidence carries.
func (m *Machine) decide(now time.Time, in *incident) []Effect {
	if m.panicked || in.blocked || in.asking || !in.target.Prefix.IsValid() || in.label == "dismissed" {
		return nil
	}
	enough := in.rule || in.persists || len(in.flows) >= repeat || len(in.seenBy) > 0
	if !enough || in.alerts == 0 {
		return nil
	}
	if !in.carries() {
		return m.limit(now, in)
	}
	if wait := now.Sub(in.waits); !in.backed() && wait >= 0 && wait < waitAgain {
		return nil
	}
	if m.o.Hold != nil && !in.rule && len(in.seenBy) == 0 {
		if err := m.o.Hold(now); err != nil {
			if in.held {
				return nil
			}
			in.held = true
			return []Effect{m.refused(now, in, in.target, dataplane.Block, err)}
		}
	}
	return m.block(now, in, Validated, SourceLocal)
}

// limit budgets the new flows of a peer that could be forged. Nothing of it
// leaves the site.
func (m *Machine) limit(now time.Time, in *incident) []Effect {
	if in.limited || in.svc {
		return nil
	}
	r := dataplane.Rule{
		Target: dataplane.Peer(in.peer), Action: dataplane.RateLimit, Rate: 1,
		Expires: now.Add(10 * time.Minute), Reason: m.reason(),
	}
	if s := m.standing[r.Target.String()]; s != nil && now.Before(s.rule.Expires) && s.rule.Action == dataplane.Block {
		return nil // more is done already
	}
	if m.o.May != nil {
		if err := m.o.May(now, r); err != nil {
			return []Effect{m.refused(now, in, r.Target, r.Action, err)}
		}
	}
	if fx, no := m.waits(now, in, r); no {
		return fx
	}
	in.limited = true
	in.raise(dataplane.RateLimit)
	why := "rate-limited, for the source could be forged until it completes a handshake: " + in.sentence
	return m.apply(now, in, r, Spoofable, SourceLocal, why, 0.5)
}

func (m *Machine) block(now time.Time, in *incident, evidence, source string) []Effect {
	r := dataplane.Rule{Target: in.target, Action: dataplane.Block, Expires: now.Add(m.o.BlockFor), Reason: m.reason()}
	if m.o.May != nil {
		if err := m.o.May(now, r); err != nil {
			return []Effect{m.refused(now, in, r.Target, r.Action, err)}
		}
	}
	if fx, no := m.waits(now, in, r); no {
		return fx
	}
	in.blocked = true
	in.raise(dataplane.Block)
	why := in.sentence
	if n := len(in.flows); n > 1 && !in.rule {
		why = fmt.Sprintf("%s (%d flows alike)", why, n)
	}
	conf := aloneConf
	if len(in.seenBy) > 0 {
		why += "; also seen by " + strings.Join(in.seenBy, ", ")
	}
	if in.backed() {
		conf = backedConf
	}
	fx := m.apply(now, in, r, evidence, source, why, conf)
	if in.backed() || len(m.habits.under(now, r.Target)) == 0 {
		fx = append(fx, m.share(in, m.standing[r.Target.String()]))
	}
	fx = append(fx, Effect{Emit: in.record(m.o.Site, now)})
	if in.rule {
		fx = append(fx, Effect{Label: &Label{Incident: in.id, Attack: true, Family: in.family, Weight: 0.5, Peer: in.peer}})
	}
	return fx
}

// share hands what was blocked for an incident to others. What is ordinary here, and
// only the learner is against, is not their business until more is.
func (m *Machine) share(in *incident, s *standing) Effect {
	s.key = s.rule.Target.String()
	sh := &Share{
		Key: s.key, Type: "address", Value: in.peer.String(), Conf: s.block.Conf, Evidence: s.block.Evidence,
		Sentence: s.block.Reason, Incident: in.id, Expires: s.rule.Expires,
	}
	if in.svc {
		sh.Type, sh.Value = "service", ServiceValue(s.rule.Target)
	}
	return Effect{Share: sh}
}

// apply makes a standing rule with its records.
func (m *Machine) apply(now time.Time, in *incident, r dataplane.Rule, evidence, source, why string, conf float64) []Effect {
	b := event.Block{
		Target: r.Target.String(), Action: r.Action.String(), State: "active", Source: source, Evidence: evidence,
		Reason: why, ReasonID: r.Reason, Rate: r.Rate, Conf: conf, Created: now, Expires: r.Expires,
	}
	v := m.verdict(now, in, r, evidence, why)
	if in != nil {
		b.Incident = in.id
		v.Verdict.DetectedNS = in.detectedNS
	}
	be := m.event(now, event.KindBlock)
	be.Block = &b
	s := &standing{rule: r, block: b, id: be.ID}
	if old := m.standing[r.Target.String()]; old != nil {
		s.next = stronger(old.next, old.from)
	}
	m.standing[r.Target.String()] = s
	return []Effect{{Apply: &Apply{Rule: r, Block: be, Verdict: v}}}
}

func (m *Machine) verdict(now time.Time, in *incident, r dataplane.Rule, evidence, why string) *event.Event {
	v := m.event(now, event.KindVerdict)
	v.Verdict = &event.Verdict{
		Target: r.Target.String(), Action: r.Action.String(), Mode: m.o.Mode.String(),
		Expires: r.Expires, Evidence: evidence, Sentence: why,
	}
	if in != nil {
		v.Verdict.Incident = in.id
	}
	return v
}

func (m *Machine) refused(now time.Time, in *incident, t dataplane.Target, a dataplane.Action, err error) Effect {
	v := m.event(now, event.KindVerdict)
	v.Verdict = &event.Verdict{
		Incident: in.id, Target: t.String(), Action: dataplane.Observe.String(), Mode: m.o.Mode.String(),
		Evidence: evidenceOf(in), Sentence: fmt.Sprintf("would %s, but: %v", a, err),
	}
	return Effect{Emit: v}
}

func (m *Machine) event(now time.Time, k event.Kind) *event.Event {
	return &event.Event{V: event.Version, ID: m.newID(now), Time: now, Site: m.o.Site, Kind: k}
}

// FirstFeedReason begins the reason ids of the site's blocklists; below it are
// those of decisions. All fit 24 bits.
const FirstFeedReason = 0xff0000

// reason hands out the ids that travel through the kernel; 0 means none.
func (m *Machine) reason() uint32 {
	m.nextID = (m.nextID + 1) % FirstFeedReason
	if m.nextID == 0 {
		m.nextID = 1
	}
	return m.nextID
}

func (in *incident) raise(a dataplane.Action) {
	if a > in.strongest {
		in.strongest = a
	}
}

func evidenceOf(in *incident) string {
	if in.validated {
		return Validated
	}
	return Spoofable
}

// ServiceValue is a service as sites write it: "198.51.100.7 tcp/443".
func ServiceValue(t dataplane.Target) string {
	return fmt.Sprintf("%s %s/%d", t.Prefix.Addr(), flow.ProtoName(t.Proto), t.Port)
}

// firstDrop tells when the plane first dropped for a rule.
func (m *Machine) firstDrop(now time.Time, ev *dataplane.Event) []Effect {
	for _, s := range m.suspended {
		if s.verdict != nil && ev.Reason != 0 && s.target.Flow == ev.Record.Key && now.Before(s.until.Add(time.Minute)) {
			return m.dropped(now, s.verdict, ev)
		}
	}
	for _, s := range m.standing {
		if s.rule.Reason == ev.Reason && ev.Reason != 0 {
			v := m.verdict(now, nil, s.rule, s.block.Evidence, s.block.Reason)
			v.Verdict.Incident = s.block.Incident
			return m.dropped(now, v, ev)
		}
	}
	return nil
}

func (m *Machine) dropped(now time.Time, of *event.Event, ev *dataplane.Event) []Effect {
	v := m.event(now, event.KindVerdict)
	body := *of.Verdict
	body.FirstDropNS = ev.At
	body.Mode = ev.Mode.String()
	v.Verdict = &body
	return []Effect{{Emit: v}}
}
