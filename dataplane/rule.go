package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Action is what a rule does, weakest first.
type Action uint8

// Actions, in the words of the product.
const (
	Observe    Action = iota // count and tell
	RateLimit                // a budget: new flows a second, or of one flow bytes a second
	Suspend                  // drop this one flow, both directions, for seconds
	Block                    // drop a peer, a service of it, or what two hosts say to each other, until expiry
	Quarantine               // an inside host reaches only the remediation list, and only that reaches it
)

// String is the action's word: observe, rate-limit, suspend, block, quarantine.
func (a Action) String() string {
	switch a {
	case RateLimit:
		return "rate-limit"
	case Suspend:
		return "suspend"
	case Block:
		return "block"
	case Quarantine:
		return "quarantine"
	}
	return "observe"
}

// Target is what a rule applies to. Form says which of these it is:
//   - Flow alone: one flow, both directions.
//   - Prefix alone: every packet from or to an address in it. A rate limit, for
//     single addresses only, is on the new flows which that address begins.
//   - Prefix (one address) and Toward: a rate limit on new flows to the address.
//   - Prefix (one address), Port and Proto: packets from or to that service (the
//     address's own port). A rate limit is on new flows to it.
//   - Prefix (one address) and Host: packets between Host, which is inside, and
//     the address, either way. Nobody else is touched. The same two with the ends
//     changed about are the same target.
type Target struct {
	Flow   flow.Key
	Prefix netip.Prefix
	Port   uint16
	Proto  uint8
	Toward bool
	Host   netip.Addr
}

// Form is the kind of a target.
type Form uint8

// Forms of targets, narrowest first: among rules of equal strength that match
// one packet, the first of this order decides.
const (
	FormFlow Form = iota
	FormService
	FormPair
	FormAddress
	FormToward
	FormPrefix
)

// String names the form with its article, as errors do.
func (f Form) String() string {
	return [...]string{"a flow", "a service", "a pair of hosts", "an address", "what goes to an address", "a prefix"}[f]
}

// actions are what can be done to a target of each form. Suspension is for one
// flow, since it asks for no evidence; quarantine is for one host, since it is
// that host whose way is closed.
var actions = [...][]Action{
	FormFlow:    {Observe, RateLimit, Suspend},
	FormService: {Observe, RateLimit, Block},
	FormPair:    {Observe, Block},
	FormAddress: {Observe, RateLimit, Block, Quarantine},
	FormToward:  {RateLimit},
	FormPrefix:  {Observe, Block},
}

// Form says what kind of target t is.
func (t Target) Form() Form {
	switch {
	case t.IsFlow():
		return FormFlow
	case t.Port != 0 || t.Proto != 0:
		return FormService
	case t.Host.IsValid():
		return FormPair
	case t.Toward:
		return FormToward
	case t.Prefix.IsSingleIP():
		return FormAddress
	}
	return FormPrefix
}

// IsFlow says whether the target is a single flow.
func (t Target) IsFlow() bool { return !t.Prefix.IsValid() }

// Peer targets everything from and to one address.
func Peer(a netip.Addr) Target {
	a = a.Unmap()
	return Target{Prefix: netip.PrefixFrom(a, a.BitLen())}
}

// Toward targets the new flows to one address.
func Toward(a netip.Addr) Target {
	t := Peer(a)
	t.Toward = true
	return t
}

// Pair targets what an inside host and one other address say to each other.
func Pair(host, peer netip.Addr) Target {
	t := Peer(peer)
	t.Host = host.Unmap()
	return t
}

// String prints the target as a person would name it.
func (t Target) String() string {
	switch t.Form() {
	case FormFlow:
		return t.Flow.String()
	case FormService:
		return fmt.Sprintf("%s:%d/%s", t.Prefix.Addr(), t.Port, flow.ProtoName(t.Proto))
	case FormPair:
		return t.Host.String() + "~" + t.Prefix.Addr().String()
	case FormToward:
		return "to " + t.Prefix.Addr().String()
	case FormAddress:
		return t.Prefix.Addr().String()
	}
	return t.Prefix.String()
}

// Rule is one entry that the plane enforces. Expires is required: the plane
// itself stops applying a rule at that moment, with or without the daemon.
type Rule struct {
	Target  Target
	Action  Action
	Expires time.Time
	Reason  uint32 // id that the site resolves to words; travels through the kernel
	Rate    uint32 // RateLimit only: new flows a second; of a flow, IP bytes a second
}

// Validate checks a rule's form. It knows neither the never-block list nor who
// is inside.
func (r Rule) Validate() error {
	t := r.Target
	if r.Expires.IsZero() {
		return fmt.Errorf("rule for %s: expires: is required", t)
	}
	if err := t.validate(); err != nil {
		return err
	}
	f := t.Form()
	if !allowed(f, r.Action) {
		return fmt.Errorf("rule for %s: action %s: %s can be put under %s", t, r.Action, f, words(actions[f]))
	}
	if r.Action == RateLimit && r.Rate == 0 {
		return fmt.Errorf("rule for %s: rate-limit: needs a rate of at least 1", t)
	}
	return nil
}

func (t Target) validate() error {
	p := t.Prefix
	switch {
	case t.IsFlow() && (!t.Flow.A.IsValid() || !t.Flow.B.IsValid()):
		return errors.New("rule target: neither flow nor prefix is set")
	case t.IsFlow():
		return nil
	case p != p.Masked():
		return fmt.Errorf("rule for %s: prefix has host bits set", t)
	case p.Addr().Is4In6():
		return fmt.Errorf("rule for %s: IPv4-mapped IPv6 address: expected plain IPv4", t)
	case p.Addr().Is4() && p.Bits() < 8, p.Addr().Is6() && p.Bits() < 16:
		return fmt.Errorf("rule for %s: prefix too wide", t)
	case t.Form() == FormService && (!p.IsSingleIP() || t.Port == 0 || t.Proto == 0 || t.Toward || t.Host.IsValid()):
		return fmt.Errorf("rule for %s: a service is one address, a port and a protocol", t)
	case t.Form() == FormPair && (!p.IsSingleIP() || t.Toward || t.Host.Is4In6() || t.Host.Zone() != "" ||
		t.Host.Is4() != p.Addr().Is4() || t.Host == p.Addr()):
		return fmt.Errorf("rule for %s: a pair is two addresses of one family", t)
	case t.Toward && !p.IsSingleIP():
		return fmt.Errorf("rule for %s: what goes to more than one address cannot be a target", t)
	}
	return nil
}

func allowed(f Form, a Action) bool {
	for _, x := range actions[f] {
		if x == a {
			return true
		}
	}
	return false
}

func words(as []Action) string {
	s := make([]string, len(as))
	for i, a := range as {
		s[i] = a.String()
	}
	return strings.Join(s, ", ")
}
