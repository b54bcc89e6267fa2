package enforce

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Order is a rule that the operator asks for.
type Order struct {
	Target dataplane.Target
	Action dataplane.Action
	For    time.Duration // 0 is the configured length of a block
	Rate   uint32        // of a rate limit; 0 is 1
	Reason string
	// Share hands a block to the organisation's other sites, which enforce it
	// under their own guards. The caller has checked that it may leave the site.
	Share bool
}

// Order carries out what the operator asks for. Nothing but the never-block
// list stands against it: the caps bound what the site does by itself.
func (m *Machine) Order(now time.Time, o Order) ([]Effect, error) {
	if o.For <= 0 {
		o.For = m.o.BlockFor
	}
	r := dataplane.Rule{Target: o.Target, Action: o.Action, Expires: now.Add(o.For), Reason: m.reason()}
	if o.Action == dataplane.RateLimit {
		r.Rate = max(o.Rate, 1)
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if a := o.Target.Prefix.Addr(); o.Action == dataplane.Quarantine && m.o.Inside != nil && !m.o.Inside(a) {
		return nil, fmt.Errorf("quarantine %s: not an inside host: expected an address of the protected side (`hedgerow block` is for others)", a)
	}
	if m.o.Void != nil {
		if err := m.o.Void(o.Target); err != nil {
			return nil, err
		}
	}
	if o.Reason == "" {
		o.Reason = done(o.Action) + " by the operator"
	}
	// What was shared of this target before stays to be withdrawn with it.
	name, key := r.Target.String(), ""
	if old := m.standing[name]; old != nil {
		key = old.key
	}
	fx := m.apply(now, nil, r, Operator, SourceOperator, o.Reason, 1)
	if o.Share {
		key = name
		typ, value := ShareValue(r.Target)
		fx = append(fx, Effect{Share: &Share{Key: key, Type: typ, Value: value, Conf: 1, Evidence: Operator, Sentence: o.Reason, Expires: r.Expires}})
	}
	m.standing[name].key = key
	return fx, nil
}

// ShareValue is the type and the value under which a target may be shared, "" when
// it is of a form that other sites do not take.
func ShareValue(t dataplane.Target) (typ, value string) {
	switch t.Form() {
	case dataplane.FormService:
		return "service", ServiceValue(t)
	case dataplane.FormAddress:
		return "address", t.Prefix.Addr().String()
	case dataplane.FormPrefix:
		return "address", t.Prefix.String()
	}
	return "", ""
}

// done is an action in the past tense.
func done(a dataplane.Action) string {
	switch a {
	case dataplane.RateLimit:
		return "rate-limited"
	case dataplane.Suspend:
		return "suspended"
	case dataplane.Block:
		return "blocked"
	case dataplane.Quarantine:
		return "quarantined"
	}
	return "observed"
}

// ParseAction reads an action's word.
func ParseAction(s string) (dataplane.Action, error) {
	for a := dataplane.Observe; a <= dataplane.Quarantine; a++ {
		if a.String() == s {
			return a, nil
		}
	}
	return 0, fmt.Errorf("action %q: expected observe, rate-limit, suspend, block or quarantine", s)
}

// pairTarget reads "10.0.0.5~203.0.113.9".
func pairTarget(s, host, peer string) (dataplane.Target, error) {
	h, err1 := netip.ParseAddr(host)
	p, err2 := netip.ParseAddr(peer)
	if err1 != nil || err2 != nil || h.Zone() != "" || p.Zone() != "" {
		return dataplane.Target{}, fmt.Errorf("target %q: %s", s, targetForms)
	}
	return dataplane.Pair(h, p), nil
}

// Intended lists every rule that should be enforced at now: what stands, and
// the flows that are suspended.
func (m *Machine) Intended(now time.Time) []dataplane.Rule {
	out := m.Rules()
	for _, k := range sortedKeys(m.suspended) {
		if s := m.suspended[k]; now.Before(s.until) {
			out = append(out, s.rule)
		}
	}
	return out
}

// LiftIf lifts what stands on targets for which refuse gives a reason.
func (m *Machine) LiftIf(now time.Time, refuse func(dataplane.Target) error) []Effect {
	var fx []Effect
	for _, k := range sortedKeys(m.standing) {
		s := m.standing[k]
		if err := refuse(s.rule.Target); err != nil {
			fx = append(fx, m.lift(now, s, "lifted", err.Error())...)
		}
	}
	return fx
}
