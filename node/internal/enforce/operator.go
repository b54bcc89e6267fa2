package enforce

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Errors that callers test.
var (
	ErrUnknown  = errors.New("not known")
	ErrPanicked = errors.New("panic is on: learned and shared verdicts stay lifted until `hedgerow panic --off`")
)

const targetForms = "expected an address, a prefix such as 203.0.113.0/24, a service such as \"203.0.113.9 tcp/443\", " +
	"\"to 203.0.113.9\" for what goes there, or 10.0.0.5~203.0.113.9 for two hosts"

// ParseTarget reads an address, a prefix, a service as "203.0.113.9 tcp/443" or
// "203.0.113.9:443/tcp", what goes to an address as "to 203.0.113.9", or a pair
// of hosts, the inside one first, as "10.0.0.5~203.0.113.9".
func ParseTarget(s string) (dataplane.Target, error) {
	s = strings.TrimSpace(s)
	if to, ok := strings.CutPrefix(s, "to "); ok {
		a, err := netip.ParseAddr(strings.TrimSpace(to))
		if err != nil || a.Zone() != "" {
			return dataplane.Target{}, fmt.Errorf("target %q: %s", s, targetForms)
		}
		return dataplane.Toward(a), nil
	}
	if host, peer, ok := strings.Cut(s, "~"); ok {
		return pairTarget(s, host, peer)
	}
	if addr, svc, ok := strings.Cut(s, " "); ok {
		proto, port, _ := strings.Cut(strings.TrimSpace(svc), "/")
		return serviceTarget(s, addr, port, proto)
	}
	if i := strings.LastIndexByte(s, '/'); i > 0 {
		if _, err := protoOf(s[i+1:]); err == nil {
			if j := strings.LastIndexByte(s[:i], ':'); j > 0 {
				return serviceTarget(s, strings.Trim(s[:j], "[]"), s[j+1:i], s[i+1:])
			}
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return dataplane.Target{}, fmt.Errorf("target %q: %s", s, targetForms)
		}
		return dataplane.Target{Prefix: p.Masked()}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return dataplane.Target{}, fmt.Errorf("target %q: %s", s, targetForms)
	}
	return dataplane.Peer(a), nil
}

func serviceTarget(s, addr, port, proto string) (dataplane.Target, error) {
	a, err := netip.ParseAddr(addr)
	n, errPort := strconv.ParseUint(port, 10, 16)
	p, errProto := protoOf(proto)
	if err != nil || errPort != nil || errProto != nil || n == 0 || a.Zone() != "" {
		return dataplane.Target{}, fmt.Errorf("target %q: %s", s, targetForms)
	}
	t := dataplane.Peer(a)
	t.Port, t.Proto = uint16(n), p
	return t, nil
}

func protoOf(s string) (uint8, error) {
	switch strings.ToLower(s) {
	case "tcp":
		return flow.TCP, nil
	case "udp":
		return flow.UDP, nil
	}
	return 0, fmt.Errorf("protocol %q: expected tcp or udp", s)
}

func (m *Machine) lift(now time.Time, s *standing, state, why string) []Effect {
	delete(m.standing, s.rule.Target.String())
	m.released(s)
	t := s.rule.Target
	if s.block.Domain != "" && state == "expired" {
		return []Effect{{Remove: &t}} // it comes and goes with what the host asks
	}
	b := s.block
	b.State = state
	if why != "" {
		b.Reason = b.Reason + " (" + state + ": " + why + ")"
	}
	e := m.event(now, event.KindBlock)
	e.Block = &b
	fx := []Effect{{Remove: &t}, {Emit: e}}
	if s.key != "" && state == "lifted" {
		fx = append(fx, Effect{Withdraw: s.key})
	}
	return fx
}

// Confirm says that an incident (or the incident of an alert) was an attack.
func (m *Machine) Confirm(now time.Time, id string) ([]Effect, error) {
	in := m.find(id)
	if in == nil {
		return nil, fmt.Errorf("alert or incident %q: %w (`hedgerow alerts` lists them)", id, ErrUnknown)
	}
	in.label = "confirmed"
	fam := in.family
	if fam == "" {
		fam = "confirmed"
	}
	fx := []Effect{
		{Label: &Label{Incident: in.id, Attack: true, Family: fam, Weight: 1, Peer: in.peer}},
		{Emit: in.record(m.o.Site, now)},
	}
	if s := m.standing[in.target.String()]; in.blocked && s != nil && s.block.Incident == in.id && s.key == "" {
		s.block.Conf = backedConf
		fx = append(fx, m.share(in, s))
	}
	if !in.blocked && in.target.Prefix.IsValid() && in.validated && !m.panicked {
		fx = append(fx, m.block(now, in, Validated, SourceLocal)...)
	}
	return fx, nil
}

// Dismiss says that an incident was harmless: everything that it caused is
// undone, it is relabelled, withdrawn from the mesh, and not raised again for
// a day.
func (m *Machine) Dismiss(now time.Time, id string) ([]Effect, error) {
	in := m.find(id)
	if in == nil {
		return nil, fmt.Errorf("alert or incident %q: %w (`hedgerow alerts` lists them)", id, ErrUnknown)
	}
	return m.undo(now, in, "dismissed"), nil
}

func (m *Machine) undo(now time.Time, in *incident, why string) []Effect {
	in.label = "dismissed"
	m.dismissed[in.cause] = now.Add(dismissal)
	if in.much {
		m.dismissed[in.cause] = now.Add(muchDismissal)
	}
	m.sequences.forget(in.cause)
	m.sequences.forget(in.cause + unproved)
	var fx []Effect
	for k, s := range m.suspended {
		if s.incident == in.id {
			t := s.target
			fx = append(fx, Effect{Remove: &t})
			delete(m.suspended, k)
		}
	}
	for _, k := range sortedKeys(m.standing) {
		if s := m.standing[k]; s.block.Incident == in.id {
			fx = append(fx, m.lift(now, s, "lifted", why)...)
		}
	}
	in.blocked, in.limited = false, false
	fx = append(fx, m.innocent(now, in.target)...)
	return append(fx,
		Effect{Label: &Label{Incident: in.id, Attack: false, Weight: 1, Peer: in.peer}},
		Effect{Emit: in.record(m.o.Site, now)})
}

// find resolves the id of an incident or of one of its alerts.
func (m *Machine) find(id string) *incident {
	if in := m.byID[id]; in != nil {
		return in
	}
	for _, in := range m.incidents {
		for _, a := range in.alertIDs {
			if a == id {
				return in
			}
		}
	}
	return nil
}

// Block is the operator's own block.
func (m *Machine) Block(now time.Time, t dataplane.Target, d time.Duration, reason string) ([]Effect, error) {
	return m.Order(now, Order{Target: t, Action: dataplane.Block, For: d, Reason: reason})
}

// Unblock is the complete undo of whatever blocks a target: lifted, withdrawn
// from the mesh, and where an incident led to it, dismissed.
func (m *Machine) Unblock(now time.Time, t dataplane.Target) ([]Effect, error) {
	s := m.standing[t.String()]
	if s == nil {
		return nil, fmt.Errorf("block on %s: %w (`hedgerow blocks` lists them)", t, ErrUnknown)
	}
	if in := m.byID[s.block.Incident]; in != nil {
		return m.undo(now, in, "unblocked by the operator"), nil
	}
	m.dismissed["peer "+t.String()] = now.Add(dismissal)
	return append(m.lift(now, s, "lifted", "unblocked by the operator"), m.innocent(now, t)...), nil
}

// innocent tells the mesh's judgement what a person called harmless. Other sites hear
// of it only where this one can show evidence of its own, earlier than the word that it
// disputes: it has dealt well with the party. An operator's word alone stays here.
func (m *Machine) innocent(now time.Time, t dataplane.Target) []Effect {
	typ, value := ShareValue(t)
	if !t.Prefix.IsValid() || typ == "" {
		return nil
	}
	until := now.Add(dismissal)
	fx := []Effect{{Innocent: &Innocent{typ, value, until}}}
	d, ok := m.known.well(now, partyOf(t))
	if !t.Prefix.IsSingleIP() || !ok {
		return fx
	}
	return append(fx, Effect{Share: &Share{
		Key: "dispute " + t.String(), Type: typ, Value: value, Conf: backedConf, Evidence: Validated, Expires: until, Dispute: true,
		Incident: d.first.UTC().Format(time.RFC3339Nano), Sentence: disputeSentence,
	}})
}

// disputeSentence is all that is said of how a site knows a party.
const disputeSentence = "an operator calls it harmless, and this site's own dealings with it were ordinary"

// SetMode switches between monitor and enforce.
func (m *Machine) SetMode(_ time.Time, mode dataplane.Mode) []Effect {
	m.o.Mode = mode
	return []Effect{{SetMode: &mode}}
}

// Panic lifts every learned and shared verdict at once, and keeps new ones from
// being made until it is switched off. What the operator blocked stays.
func (m *Machine) Panic(now time.Time, on bool) []Effect {
	m.panicked = on
	if !on {
		return nil
	}
	var fx []Effect
	for _, k := range sortedKeys(m.suspended) {
		t := m.suspended[k].target
		fx = append(fx, Effect{Remove: &t})
		delete(m.suspended, k)
	}
	for _, k := range sortedKeys(m.standing) {
		s := m.standing[k]
		if s.block.Source == SourceOperator {
			continue
		}
		if in := m.byID[s.block.Incident]; in != nil {
			in.blocked, in.limited = false, false
		}
		fx = append(fx, m.lift(now, s, "lifted", "panic")...)
	}
	return fx
}

// Tick expires what is due and closes quiet incidents. Call it about once a
// second.
func (m *Machine) Tick(now time.Time) []Effect {
	var fx []Effect
	for k, s := range m.suspended {
		// A minute longer than the rule, so that a late report of its first
		// drop still finds it.
		if now.After(s.until.Add(time.Minute)) {
			delete(m.suspended, k)
		}
	}
	for _, k := range sortedKeys(m.standing) {
		s := m.standing[k]
		if now.Before(s.rule.Expires) {
			continue
		}
		if in := m.byID[s.block.Incident]; in != nil {
			in.blocked, in.limited = false, false
		}
		fx = append(append(fx, m.lift(now, s, "expired", "")...), m.fallBack(now, s)...)
	}
	fx = append(fx, m.tickDomains(now)...)
	for _, c := range append([]string(nil), m.order...) {
		if in := m.incidents[c]; in != nil && now.Sub(in.last) > quiet && !in.blocked {
			m.forget(c)
		}
	}
	for c, until := range m.dismissed {
		if now.After(until) {
			delete(m.dismissed, c)
		}
	}
	return fx
}

// Restore takes back the standing blocks after a restart, and returns the
// effects that enforce them again.
func (m *Machine) Restore(now time.Time, blocks []event.Block) []Effect {
	var fx []Effect
	for _, b := range blocks {
		if m.restoreDomain(now, b) {
			continue
		}
		t, err := ParseTarget(b.Target)
		if err != nil || !now.Before(b.Expires) || b.State != "active" {
			continue
		}
		a, err := ParseAction(b.Action)
		r := dataplane.Rule{Target: t, Action: a, Expires: b.Expires, Reason: b.ReasonID}
		if a == dataplane.RateLimit {
			r.Rate = max(b.Rate, 1)
		}
		if err != nil || r.Validate() != nil {
			continue
		}
		if b.ReasonID > m.nextID {
			m.nextID = b.ReasonID
		}
		s := &standing{rule: r, block: b}
		// Whether it was really shared is known to who withdraws it.
		if (b.Source == SourceLocal || b.Source == SourceOperator) && r.Action == dataplane.Block {
			s.key = t.String()
		}
		m.standing[t.String()] = s
		fx = append(fx, Effect{Apply: &Apply{Rule: r}})
	}
	return append(fx, m.recount(now)...)
}

// recount counts what stands for domains after a restart, and lifts what stands
// for one that is no more.
func (m *Machine) recount(now time.Time) []Effect {
	for _, s := range m.standing {
		if s.block.Domain == "" {
			continue
		}
		m.pairs[s.rule.Target.Host]++
		if d := m.domains[s.block.Domain]; d != nil {
			d.pairs++
		}
	}
	return m.LiftIf(now, func(t dataplane.Target) error {
		if d := m.standing[t.String()].block.Domain; d != "" && m.domains[d] == nil {
			return fmt.Errorf("%s is no longer looked for", d)
		}
		return nil
	})
}

// Standing lists the domains that are looked for, and the rules that the
// machine wants enforced, each by target.
func (m *Machine) Standing() []event.Block {
	out := make([]event.Block, 0, len(m.standing)+len(m.domains))
	for _, k := range sortedKeys(m.domains) {
		out = append(out, m.domains[k].block)
	}
	for _, k := range sortedKeys(m.standing) {
		out = append(out, m.standing[k].block)
	}
	return out
}

// Rules lists the standing rules, by target.
func (m *Machine) Rules() []dataplane.Rule {
	out := make([]dataplane.Rule, 0, len(m.standing))
	for _, k := range sortedKeys(m.standing) {
		out = append(out, m.standing[k].rule)
	}
	return out
}

// Open counts the incidents that nobody has labelled and that are not quiet.
func (m *Machine) Open() int {
	n := 0
	for _, in := range m.incidents {
		if in.label == "" {
			n++
		}
	}
	return n
}

// Seen says whether this site has itself seen validated bad behaviour of an
// address: what another site's question is answered from.
func (m *Machine) Seen(value string) (bool, int, time.Time) {
	a, err := netip.ParseAddr(value)
	if err != nil {
		return false, 0, time.Time{}
	}
	for _, in := range m.incidents {
		if in.peer == a && in.validated && in.alerts > 0 && in.label != "dismissed" {
			return true, in.alerts, in.last
		}
	}
	return false, 0, time.Time{}
}

// AlertsOf lists the alerts of an incident, named by its id or that of one of
// its alerts.
func (m *Machine) AlertsOf(id string) []string {
	if in := m.find(id); in != nil {
		return append([]string(nil), in.alertIDs...)
	}
	return nil
}

// IncidentOf returns the incident's id for an alert or incident id, "" if unknown.
func (m *Machine) IncidentOf(id string) string {
	if in := m.find(id); in != nil {
		return in.id
	}
	return ""
}
