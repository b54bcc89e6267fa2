package federation

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/council"
	"github.com/hedgerow-mesh/hedgerow/federation/intel"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// Consortium is what a member knows of the one that its organisation is in.
type Consortium struct {
	Organisation string // ours
	// Genesis begins the chain of rounds; nil as long as too few organisations
	// count (see NewGenesis): then each learns alone.
	Genesis *chain.Genesis
	Roll    Roll
	// Keep is how many of the newest blocks keep their deltas, so that an audit can
	// make the models again (1000).
	Keep uint64
	// Spared lists what no word of another organisation may touch at this site,
	// beside the addresses of members. It does not call the member.
	Spared func() []netip.Prefix
}

// Roll is who is in the consortium now.
type Roll struct {
	Others []Site // sites of other organisations that may speak; Organisation, Standing and Until are set
	// Counted and Observers are all organisations, ours included, with their
	// voting sites, by name.
	Counted, Observers []chain.Member
}

// StandingCounted is the Standing of a Site whose organisation counts.
const StandingCounted = "counted"

// rulesVersion goes up when a rule of package robust changes its results.
const rulesVersion = "/1"

// NewGenesis is the beginning of a chain among organisations. With fewer than
// robust.Quorum of them there is none, and the error wraps robust.ErrVoid.
func NewGenesis(name, schema string, init []float32, orgs []chain.Member) (*chain.Genesis, error) {
	spec, err := robust.Default(len(orgs))
	if err != nil {
		return nil, err
	}
	g := &chain.Genesis{Name: name, Schema: schema, Rule: spec.Rule + rulesVersion, Init: init, Orgs: orgs}
	return g, g.Check()
}

// Combine is the rule that a genesis names.
func Combine(g *chain.Genesis) (chain.Combine, error) {
	spec, err := robust.Default(len(g.Orgs))
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	if want := spec.Rule + rulesVersion; g.Rule != want {
		return nil, fmt.Errorf("genesis: rule %q: this version has %q; update the older site", g.Rule, want)
	}
	return func(deltas [][]float32, f int) ([]float32, error) {
		s := spec
		s.F = f
		r, err := s.Aggregate(deltas)
		return r.Update, err
	}, nil
}

// people is a Roll, made ready to be asked. It does not change.
type people struct {
	sites   map[identity.ID]Site
	orgs    map[string]bool
	counted int
	own     []netip.Prefix // addresses of our own sites
	// declared are the addresses that sites of counted organisations say they have.
	declared map[identity.ID][]netip.Prefix
}

func peopleOf(r Roll, own []Site) *people {
	p := &people{sites: make(map[identity.ID]Site), orgs: make(map[string]bool), counted: len(r.Counted), declared: make(map[identity.ID][]netip.Prefix)}
	for _, s := range r.Others {
		p.sites[s.ID], p.orgs[s.Organisation] = s, true
		if s.Standing == StandingCounted {
			p.declared[s.ID] = hosts(s.Addrs)
		}
	}
	for _, s := range own {
		p.own = append(p.own, hosts(s.Addrs)...)
	}
	return p
}

// met notes at which addresses a site was met, the latest ones. m.mu is held.
func (m *Member) met(i PeerInfo) {
	if !i.Connected || i.Relayed {
		return
	}
	for _, a := range hosts([]string{i.Addr}) {
		at := slices.DeleteFunc(m.metAt[i.ID], func(b netip.Prefix) bool { return a == b })
		m.metAt[i.ID] = append(at[max(0, len(at)-7):], a)
	}
}

// homes are the addresses of members that no word of others may touch: those of our
// own sites, and of other organisations those at which a site was met. What it merely
// says of itself would shelter whatever it names. m.mu is held.
func (m *Member) homes() []netip.Prefix {
	p := m.people.Load()
	out := slices.Clone(p.own)
	for id, at := range m.metAt {
		for _, a := range at {
			if slices.Contains(p.declared[id], a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// hosts are the IP addresses in multiaddresses. One that leads through a relay has
// only the relay's.
func hosts(addrs []string) (out []netip.Prefix) {
	for _, a := range addrs {
		parts := strings.SplitN(a, "/", 4)
		if len(parts) < 3 || (parts[1] != "ip4" && parts[1] != "ip6") || strings.Contains(a, "/p2p-circuit") {
			continue
		}
		if ip, err := netip.ParseAddr(parts[2]); err == nil {
			out = append(out, netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()))
		}
	}
	return out
}

// other is a site of another organisation that may speak now.
func (m *Member) other(id identity.ID) (Site, bool) {
	p := m.people.Load()
	if p == nil {
		return Site{}, false
	}
	s, ok := p.sites[id]
	return s, ok && (s.Until.IsZero() || !m.opt.Now().After(s.Until))
}

// ours says whether a site is of our organisation, and trusted directly.
func (m *Member) ours(id identity.ID) bool { return m.names[id] != "" }

// member says whether a site may speak to us.
func (m *Member) member(id identity.ID) bool {
	if m.ours(id) {
		return true
	}
	_, ok := m.other(id)
	return ok
}

// from is the organisation of a site; "" is ours.
func (m *Member) from(id identity.ID) string {
	if m.ours(id) {
		return ""
	}
	s, _ := m.other(id)
	return s.Organisation
}

// Organisations lists the other organisations of the consortium by name.
func (m *Member) Organisations() []string {
	p := m.people.Load()
	if p == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(p.orgs))
}

// enrol takes a roll over. m.mu is held, or nobody else knows m.
func (m *Member) enrol(r Roll) {
	p := peopleOf(r, m.opt.Roster)
	m.people.Store(p)
	maps.DeleteFunc(m.metAt, func(id identity.ID, _ []netip.Prefix) bool {
		_, stays := p.sites[id]
		return !stays
	})
	maps.DeleteFunc(m.peers, func(id identity.ID, _ *peer) bool {
		_, stays := p.sites[id]
		return !stays && !m.ours(id)
	})
	for id := range p.sites {
		if m.peers[id] == nil {
			m.peers[id] = newPeer()
		}
	}
}

// SetRoll tells who is in the consortium from now on. What organisations said that
// are gone is forgotten. Without Options.Consortium it does nothing.
func (m *Member) SetRoll(r Roll) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opt.Consortium == nil {
		return
	}
	defer m.wake()
	now := m.opt.Now()
	m.enrol(r)
	orgs := m.people.Load().orgs
	_ = m.apply(now, m.intel.Forget(now, func(org string) bool { return !orgs[org] }), "withdrawal", nil) // it refuses nothing
	if m.council != nil {
		m.council.Follow(now, r.Counted, r.Observers)
		m.drain(now)
	}
}

// trust is how words of other organisations are weighed; nil outside of a consortium.
func (m *Member) trust() *intel.Trust {
	c := m.opt.Consortium
	if c == nil {
		return nil
	}
	return intel.NewTrust(intel.TrustConfig{
		Org: func(id identity.ID) (string, bool) {
			if m.ours(id) {
				return "", true
			}
			s, ok := m.people.Load().sites[id]
			if !ok {
				return "left", false // its words go with the next roll
			}
			return s.Organisation, s.Standing == StandingCounted
		},
		Orgs:    func() int { return m.people.Load().counted },
		Members: m.homes,
		Spared:  c.Spared,
	})
}

// Influence is what organisations cause at this site about one value, or, without a
// Value, about one that nobody else has spoken of.
type Influence struct {
	Value   string
	Now     Effect // Observe, Limit or Enforce
	Without Effect // had they said nothing
	Lies    Effect // the most that they reach by lying about it together from now on
}

// WhatIf tells what some organisations cause here, and what they could. The first
// one is of a value that nobody else has spoken of. nil outside of a consortium.
func (m *Member) WhatIf(organisations ...string) (out []Influence) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.intel.WhatIf(m.opt.Now(), organisations...) {
		out = append(out, Influence{x.Value, effectOf(x.Level), effectOf(x.Without), effectOf(x.Lies)})
	}
	return out
}

// Innocent tells that a person of this site called a value harmless: until then no word
// of other organisations about it leads to anything, and who says it loses standing.
// What is of no form that sites share, and outside of a consortium, it does nothing.
func (m *Member) Innocent(typ wire.Type, value string, until time.Time) {
	target, err := wire.ParseValue(typ, value)
	if err != nil || m.opt.Consortium == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.wake()
	now := m.opt.Now()
	_ = m.apply(now, m.intel.Knows(now, target, until), "withdrawal", nil) // it refuses nothing
	m.dirty = true
}

// restoreTrust brings back how other organisations stand. State that cannot be used is
// said, and all begin in the middle again.
func (m *Member) restoreTrust() error {
	if m.opt.Consortium == nil {
		return nil
	}
	b, err := m.opt.Storage.Load(keyTrust)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load %s: %w", keyTrust, err)
	}
	if err := m.intel.RestoreTrust(b); err != nil {
		m.opt.Log.Warn("stored standing of other organisations is not usable; all begin anew", "error", err)
	}
	return nil
}

// Standings tells what the word of each other organisation weighs here, 0 to 1; 0.5 is
// who has done nothing yet, and below 0.25 it is not counted.
func (m *Member) Standings() map[string]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]float64)
	for _, org := range m.Organisations() {
		out[org] = m.intel.Standing(m.opt.Now(), org)
	}
	return out
}

// newCouncil makes the machine of rounds between organisations.
func (m *Member) newCouncil() error {
	c := m.opt.Consortium
	combine, err := Combine(c.Genesis)
	if err != nil {
		return err
	}
	deadline := m.opt.DeltaDeadline
	if deadline <= 0 {
		deadline = 30 * time.Second
	}
	every := m.opt.RoundEvery
	if every <= 0 {
		every = 10 * time.Minute
	}
	random := rand.Reader
	if m.opt.Rand != nil {
		random = m.opt.Rand
	}
	m.parley.fetchAfter = deadline / 4
	m.council, err = council.New(council.Config{
		Self: m.self(), Genesis: *c.Genesis, Combine: combine, Sign: m.opt.Key.Sign,
		Salt: func() (salt [16]byte) {
			_, _ = io.ReadFull(random, salt[:]) // what New was given never fails
			return salt
		},
		Every: every, Gather: deadline, Reveal: deadline, Vote: deadline, Grace: min(deadline/4, 5*time.Second), Trains: true,
	})
	return err
}

// publicly says whether an indicator goes to all organisations.
func publicly(tlp wire.TLP) bool { return tlp == wire.TLPGreen || tlp == wire.TLPClear }

// topicFor is where a message of ours about indicators goes.
func (m *Member) topicFor(p wire.Payload) Topic {
	if m.opt.Consortium == nil {
		return TopicIntel
	}
	switch p := p.(type) {
	case *wire.Indicator:
		if publicly(p.TLP) {
			return TopicCommons
		}
	case *wire.Withdrawal:
		if c, ok := m.intel.Find(m.self(), p.ID); ok && publicly(c.Indicator.TLP) {
			return TopicCommons
		}
	}
	return TopicIntel
}
