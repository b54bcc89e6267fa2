package enforce

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/names"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// A domain is not enforced by itself. Where an inside host is told that the
// domain, a name below it or an alias of such a name stands for an address, what
// that host and that address say to each other is blocked for as long as the
// answer holds. Whoever owns the domain can so make one host lose one address
// for an hour at most, and only by what that host asked itself: an answer never
// touches anybody else, nor an address that is inside, the site's own, or on the
// never-block list.
const (
	minHold      = 30 * time.Second
	maxHold      = time.Hour
	maxDomains   = 4096
	maxPairs     = 4096 // of all hosts together
	maxHostPairs = 128
	renewAfter   = 5 * time.Second // an answer that gains less changes nothing
	toldFor      = time.Hour       // a pair is not told anew for that long
	maxTold      = 8192
	maxShared    = 1024 // domains by the mesh's word: the operator's own always find room
)

const typeDomain = "domain"

// domain is what is looked for: the operator's wish, or the mesh's word.
type domain struct {
	block event.Block
	pairs int // that stand for it
}

// shared says that the mesh's word is all that it rests on.
func (d *domain) shared() bool { return strings.HasPrefix(d.block.Source, sourceMesh) }

// Domains is how many domains are looked for.
func (m *Machine) Domains() int { return m.names.Len() }

// BlockDomain blocks, for each inside host, the addresses that it is told for a
// domain, until d has passed (0 is the configured length of a block).
func (m *Machine) BlockDomain(now time.Time, name string, d time.Duration, reason string) ([]Effect, error) {
	name, err := names.Normalise(name)
	if err != nil {
		return nil, err
	}
	if _, known := m.domains[name]; !known && len(m.domains) >= maxDomains {
		return nil, fmt.Errorf("domain %s: %d domains are blocked already: %w", name, maxDomains, dataplane.ErrFull)
	}
	if d <= 0 {
		d = m.o.BlockFor
	}
	if reason == "" {
		reason = "blocked by the operator"
	}
	e := m.event(now, event.KindBlock)
	e.Block = &event.Block{
		Target: name, Action: dataplane.Block.String(), State: "active", Source: SourceOperator, Evidence: Operator,
		Reason: reason, ReasonID: m.reason(), Conf: 1, Created: now, Expires: now.Add(d),
	}
	m.watch(*e.Block)
	return []Effect{{Keep: e}}, nil
}

func (m *Machine) watch(b event.Block) {
	old := m.domains[b.Target]
	m.domains[b.Target] = &domain{block: b}
	if old != nil {
		m.domains[b.Target].pairs = old.pairs
	}
	m.names.Add(b.Target)
}

// Resolved takes what an inside host was told.
func (m *Machine) Resolved(now time.Time, host netip.Addr, a names.Answer) []Effect {
	var by *domain
	for _, n := range a.Names {
		if d, ok := m.names.Covers(n); ok {
			by = m.domains[d]
			break
		}
	}
	if by == nil || !now.Before(by.block.Expires) || m.panicked && by.shared() {
		return nil
	}
	hold := min(max(a.TTL, minHold), maxHold, by.block.Expires.Sub(now))
	var fx []Effect
	for _, peer := range a.Addrs {
		fx = append(fx, m.hold(now, by, host, peer, a.Names[0], hold)...)
	}
	return fx
}

// hold blocks one pair for d, or says why not.
func (m *Machine) hold(now time.Time, by *domain, host, peer netip.Addr, asked string, d time.Duration) []Effect {
	t := dataplane.Pair(host, peer)
	if until, ok := m.dismissed["peer "+t.String()]; ok && now.Before(until) {
		return nil
	}
	r := dataplane.Rule{Target: t, Action: dataplane.Block, Expires: now.Add(d), Reason: m.reason()}
	s := m.standing[t.String()]
	why := fmt.Sprintf("%s was told that %s is %s: %s", host, asked, peer, by.block.Reason)
	switch {
	case s != nil && s.block.Domain == "", s != nil && r.Expires.Sub(s.rule.Expires) < renewAfter:
		return nil // it stands for a reason of its own, or hardly shorter
	case s != nil:
		r.Reason = s.rule.Reason
		s.rule.Expires, s.block.Expires = r.Expires, r.Expires
		e, b := m.event(now, event.KindBlock), s.block
		e.Block = &b
		return []Effect{{Apply: &Apply{Rule: r, Block: e, Quiet: true}}}
	}
	err := m.holdable(host, r)
	if err == nil && by.shared() && m.o.May != nil {
		err = m.o.May(now, r) // the caps bound what is not the operator's own wish
	}
	if err != nil {
		return m.tellOnce(now, t, Effect{Emit: m.spared(now, r, fmt.Sprintf("%s, but not blocked: %v", why, err))})
	}
	by.pairs++
	m.pairs[host]++
	fx := m.apply(now, nil, r, by.block.Evidence, by.block.Source, why, by.block.Conf)
	a := fx[0].Apply
	a.Block.Block.Domain = by.block.Target
	m.standing[t.String()].block.Domain = by.block.Target
	if len(m.tellOnce(now, t, fx[0])) == 0 {
		a.Quiet = true
	}
	return fx
}

func (m *Machine) holdable(host netip.Addr, r dataplane.Rule) error {
	peer := r.Target.Prefix.Addr()
	switch {
	case !peer.IsGlobalUnicast() || peer.IsPrivate() || m.o.Inside != nil && m.o.Inside(peer):
		return fmt.Errorf("%s is no address out there", peer)
	case m.pairs[host] >= maxHostPairs:
		return fmt.Errorf("%d addresses are blocked for this host by name already: %w", maxHostPairs, dataplane.ErrFull)
	case m.allPairs() >= maxPairs:
		return fmt.Errorf("%d pairs are blocked by name already: %w", maxPairs, dataplane.ErrFull)
	}
	if err := r.Validate(); err != nil {
		return err
	}
	if m.o.Void != nil {
		return m.o.Void(r.Target)
	}
	return nil
}

func (m *Machine) allPairs() int {
	n := 0
	for _, d := range m.domains {
		n += d.pairs
	}
	return n
}

func (m *Machine) spared(now time.Time, r dataplane.Rule, why string) *event.Event {
	v := m.verdict(now, nil, r, Operator, why)
	v.Verdict.Action = dataplane.Observe.String()
	return v
}

// tellOnce passes an effect on unless one of that target was not long ago: a
// host that asks again and again must not fill the log.
func (m *Machine) tellOnce(now time.Time, t dataplane.Target, e Effect) []Effect {
	key := t.String()
	if at, ok := m.told[key]; ok && now.Sub(at) < toldFor {
		return nil
	}
	if len(m.told) >= maxTold {
		for k, at := range m.told {
			if now.Sub(at) >= toldFor {
				delete(m.told, k)
			}
		}
	}
	if len(m.told) < maxTold {
		m.told[key] = now
	}
	return []Effect{e}
}

// released keeps count when a pair no longer stands.
func (m *Machine) released(s *standing) {
	if s.block.Domain == "" {
		return
	}
	if d := m.domains[s.block.Domain]; d != nil {
		d.pairs--
	}
	host := s.rule.Target.Host
	if m.pairs[host]--; m.pairs[host] <= 0 {
		delete(m.pairs, host)
	}
}

// UnblockDomain is the complete undo of a domain: it is looked for no more, and
// all that was blocked for it is lifted.
func (m *Machine) UnblockDomain(now time.Time, name string) ([]Effect, error) {
	name, err := names.Normalise(name)
	if err != nil {
		return nil, err
	}
	d := m.domains[name]
	if d == nil {
		return nil, fmt.Errorf("block on %s: %w (`hedgerow blocks` lists them)", name, ErrUnknown)
	}
	var fx []Effect
	if d.shared() {
		until := now.Add(dismissal)
		m.dismissed["domain "+name] = until
		fx = append(fx, Effect{Innocent: &Innocent{typeDomain, name, until}})
	}
	if !d.shared() {
		fx = append(fx, Effect{Withdraw: name}) // what was never shared is not withdrawn
	}
	return append(fx, m.forgetDomain(now, d, "lifted", "unblocked by the operator")...), nil
}

func (m *Machine) forgetDomain(now time.Time, d *domain, state, why string) []Effect {
	name := d.block.Target
	fx := m.LiftIf(now, func(t dataplane.Target) error {
		if m.standing[t.String()].block.Domain == name {
			return fmt.Errorf("%s: %s", name, why)
		}
		return nil
	})
	delete(m.domains, name)
	m.names.Remove(name)
	b := d.block
	b.State = state
	e := m.event(now, event.KindBlock)
	e.Block = &b
	return append(fx, Effect{Forget: name}, Effect{Emit: e})
}

// tickDomains ends the domains whose time has come.
func (m *Machine) tickDomains(now time.Time) []Effect {
	var fx []Effect
	for _, k := range sortedKeys(m.domains) {
		if d := m.domains[k]; !now.Before(d.block.Expires) {
			fx = append(fx, m.forgetDomain(now, d, "expired", "its time has come")...)
		}
	}
	return fx
}

// restoreDomain takes a domain back after a restart, if b is one.
func (m *Machine) restoreDomain(now time.Time, b event.Block) bool {
	name, err := names.Normalise(b.Target)
	if err != nil || name != b.Target || !now.Before(b.Expires) || b.State != "active" {
		return false
	}
	m.nextID = max(m.nextID, b.ReasonID)
	m.watch(b)
	return true
}
