package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// DefaultMaxRules bounds a table that names no bound.
const DefaultMaxRules = 1 << 20

// Packet is what the table needs to know of a packet.
type Packet struct {
	Key              flow.Key // of the flow it belongs to; ignored with NoPorts
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Proto            uint8
	Type, Code       uint8 // ICMP and ICMPv6
	// NoPorts says that the transport header is missing or broken (later
	// fragments, malformed packets): only address rules apply.
	NoPorts bool
	// New says that the packet would make a flow; it is charged to the budget of
	// its source.
	New bool
	// Free says that another hook charges the budgets of rate limits.
	Free bool
	Size int // bytes of the IP packet
}

// Verdict is what the rules say of a packet.
type Verdict struct {
	Drop   bool
	Saved  bool // a rule would drop, the never-block list forbids it
	Action dataplane.Action
	Reason uint32 // of the deciding rule, with Drop
	First  bool   // with Drop: the deciding rule's first drop in this mode
	Listed bool   // with Drop: the bulk set decided
}

type service struct {
	addr  netip.Addr
	port  uint16
	proto uint8
}

// pair is two addresses in their order.
type pair struct{ low, high netip.Addr }

func pairOf(a, b netip.Addr) pair {
	if b.Less(a) {
		a, b = b, a
	}
	return pair{a, b}
}

type entry struct {
	rule           dataplane.Rule
	expires        int64
	packets, bytes uint64
	told           [2]bool // by mode: the first drop was told
	budget         bucket
}

// Table is a bounded set of rules and a never-block list.
type Table struct {
	max      int
	all      map[dataplane.Target]*entry
	flows    map[flow.Key]*entry
	services map[service]*entry
	pairs    map[pair]*entry
	addrs    map[netip.Addr]*entry
	toward   map[netip.Addr]*entry
	prefixes prefixMap[*entry]
	never    prefixMap[[]dataplane.Never]
	remedies prefixMap[[]dataplane.Never]
	builtin  bucket
	bulk     *bulk // nil until ReplaceBulk
}

// NewTable returns an empty table with room for maxRules rules; 0 is DefaultMaxRules.
func NewTable(maxRules int) *Table {
	if maxRules <= 0 {
		maxRules = DefaultMaxRules
	}
	return &Table{
		max:      maxRules,
		all:      map[dataplane.Target]*entry{},
		flows:    map[flow.Key]*entry{},
		services: map[service]*entry{},
		pairs:    map[pair]*entry{},
		addrs:    map[netip.Addr]*entry{},
		toward:   map[netip.Addr]*entry{},
		builtin:  bucket{rate: builtinPerSecond, burst: builtinPerSecond},
	}
}

// canonical makes equal targets compare equal.
func canonical(t dataplane.Target) dataplane.Target {
	if !t.IsFlow() {
		t.Flow = flow.Key{}
		return t
	}
	k := t.Flow
	if k.A.IsValid() && k.B.IsValid() {
		t.Flow, _ = flow.NewKey(netip.AddrPortFrom(k.A.WithZone(""), k.APort), netip.AddrPortFrom(k.B.WithZone(""), k.BPort), k.Proto)
	}
	return t
}

// held is the form of a target under which a rule is held: of a pair, that may
// be the one with the ends changed about.
func (t *Table) held(target dataplane.Target) dataplane.Target {
	target = canonical(target)
	if target.Host.IsValid() && t.all[target] == nil {
		if other := dataplane.Pair(target.Prefix.Addr(), target.Host); t.all[other] != nil {
			return other
		}
	}
	return target
}

// Apply puts rules in force, each in place of an older one of its target, whose
// hits it keeps when the action is the same. A rule that has expired by now only removes. If one rule is
// invalid, or there is no room for all (dataplane.ErrFull), none is applied.
func (t *Table) Apply(now time.Time, rules ...dataplane.Rule) error {
	fresh := map[dataplane.Target]bool{}
	for _, r := range rules {
		if err := r.Validate(); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		if target := t.held(r.Target); t.all[target] == nil && r.Expires.After(now) {
			fresh[target] = true
		}
	}
	if len(t.all)+len(fresh) > t.max {
		t.Expire(now)
	}
	if len(t.all)+len(fresh) > t.max {
		return fmt.Errorf("apply: %d new rules beside %d of at most %d: %w", len(fresh), len(t.all), t.max, dataplane.ErrFull)
	}
	for _, r := range rules {
		t.put(now, r)
	}
	return nil
}

func (t *Table) put(now time.Time, r dataplane.Rule) {
	held := t.held(r.Target)
	r.Target = canonical(r.Target)
	old := t.all[held]
	t.remove(held)
	if !r.Expires.After(now) {
		return
	}
	e := &entry{rule: r, expires: r.Expires.UnixNano()}
	if old != nil && old.rule.Action == r.Action {
		e.packets, e.bytes, e.budget = old.packets, old.bytes, old.budget
	}
	e.budget.rate, e.budget.burst = int64(r.Rate), int64(r.Rate)
	t.all[r.Target] = e
	switch target := r.Target; target.Form() {
	case dataplane.FormFlow:
		t.flows[target.Flow] = e
	case dataplane.FormService:
		t.services[service{target.Prefix.Addr(), target.Port, target.Proto}] = e
	case dataplane.FormPair:
		t.pairs[pairOf(target.Host, target.Prefix.Addr())] = e
	case dataplane.FormToward:
		t.toward[target.Prefix.Addr()] = e
	case dataplane.FormAddress:
		t.addrs[target.Prefix.Addr()] = e
	default:
		t.prefixes.put(target.Prefix, e)
	}
}

// Remove takes the rules of targets out of force. Unknown targets are ignored.
func (t *Table) Remove(targets ...dataplane.Target) {
	for _, target := range targets {
		t.remove(t.held(target))
	}
}

func (t *Table) remove(target dataplane.Target) {
	if t.all[target] == nil {
		return
	}
	delete(t.all, target)
	switch target.Form() {
	case dataplane.FormFlow:
		delete(t.flows, target.Flow)
	case dataplane.FormService:
		delete(t.services, service{target.Prefix.Addr(), target.Port, target.Proto})
	case dataplane.FormPair:
		delete(t.pairs, pairOf(target.Host, target.Prefix.Addr()))
	case dataplane.FormToward:
		delete(t.toward, target.Prefix.Addr())
	case dataplane.FormAddress:
		delete(t.addrs, target.Prefix.Addr())
	default:
		t.prefixes.remove(target.Prefix)
	}
}

// Expire removes the rules that have expired by now and returns them, oldest
// expiry first.
func (t *Table) Expire(now time.Time) []dataplane.Rule {
	var gone []dataplane.Rule
	ns := now.UnixNano()
	for target, e := range t.all {
		if e.expires <= ns {
			gone = append(gone, e.rule)
			t.remove(target)
		}
	}
	slices.SortFunc(gone, func(a, b dataplane.Rule) int { return a.Expires.Compare(b.Expires) })
	return gone
}

// Rules returns the rules that are in force at now with their hits, in order of
// their targets' names.
func (t *Table) Rules(now time.Time) []dataplane.Hit {
	hits := make([]dataplane.Hit, 0, len(t.all))
	ns := now.UnixNano()
	for _, e := range t.all {
		if e.expires > ns {
			hits = append(hits, dataplane.Hit{Rule: e.rule, Packets: e.packets, Bytes: e.bytes})
		}
	}
	slices.SortFunc(hits, func(a, b dataplane.Hit) int { return compareTargets(a.Rule.Target, b.Rule.Target) })
	return hits
}

func compareTargets(a, b dataplane.Target) int {
	as, bs := a.String(), b.String()
	switch {
	case as < bs:
		return -1
	case as > bs:
		return 1
	}
	return 0
}

// Len is the number of rules held, expired ones among them until Expire.
func (t *Table) Len() int { return len(t.all) }

// Live is the number of rules in force at now.
func (t *Table) Live(now time.Time) int {
	n, ns := 0, now.UnixNano()
	for _, e := range t.all {
		if e.expires > ns {
			n++
		}
	}
	return n
}
