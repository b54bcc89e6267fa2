package federation

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
)

// Peers lists the roster's other sites, by name.
func (m *Member) Peers() []PeerStatus {
	info := make(map[identity.ID]PeerInfo)
	if m.opt.Transport != nil {
		for _, p := range m.opt.Transport.Peers() {
			info[p.ID] = p
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []PeerStatus
	for _, s := range m.opt.Roster {
		if s.ID == m.self() {
			continue
		}
		p := m.peers[s.ID]
		ps := PeerStatus{Site: s.Name, ID: s.ID, Info: info[s.ID], LastSeen: p.lastSeen, Refused: p.refused}
		if st, ok := m.announced(s.ID); ok {
			ps.Round, ps.Hash = st.Round, st.Hash.String()
		}
		out = append(out, ps)
	}
	return out
}

// Status tells where the member stands.
func (m *Member) Status() Status {
	up := len(m.connected())
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{
		Site: m.opt.Site, ID: m.self(), Sites: len(m.sites), Connected: up, Preset: "alone",
		Live: m.intel.Len(), Refused: maps.Clone(m.refused), Phase: "no trainer",
	}
	if p := m.people.Load(); p != nil {
		s.Counted = p.counted
	}
	if m.council != nil {
		m.councilStatus(&s)
		return s
	}
	if m.rounds == nil {
		if s.Counted > 0 {
			s.Preset = fmt.Sprintf("no rounds of models: %d of %d organisations count that these take", s.Counted, robust.Quorum)
		}
		return s
	}
	s.Preset = m.rounds.Preset()
	h, r := m.rounds.Head(), m.rounds.Status(m.opt.Now())
	s.Round, s.Hash = h.Round, h.Hash.String()
	s.Phase, s.Open, s.Deltas, s.NextRound = r.Phase, r.Open, r.Deltas, r.NextBegin
	return s
}

// councilStatus fills in where the rounds between organisations stand. m.mu is held.
func (m *Member) councilStatus(s *Status) {
	g, f := m.opt.Consortium.Genesis, m.council.Tree().Final()
	orgs := len(m.council.Tree().Tip().Next.Orgs)
	s.Preset = fmt.Sprintf("consortium: %s over %d organisations; withstands %d that lie", g.Rule, orgs, orgs/5)
	s.Round, s.Hash, s.Height = f.Round(), f.Next.Model.String(), f.Next.Height
	s.Open, s.Phase, s.Fork = m.council.Round(), m.council.Phase(), m.parley.fork
}

// Model is the current global model: its round, hash and parameters. Parameters
// that are still being fetched are nil.
func (m *Member) Model() (round uint64, hash string, params []float32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.council != nil {
		f := m.council.Tree().Final()
		return f.Round(), f.Next.Model.String(), slices.Clone(m.council.Serve(f.Next.Model))
	}
	if m.rounds == nil {
		return 0, "", nil
	}
	h := m.rounds.Head()
	return h.Round, h.Hash.String(), append([]float32(nil), h.Params...)
}

// Indicators lists what is in force, of all authors, latest first.
func (m *Member) Indicators() []Live {
	m.mu.Lock()
	defer m.mu.Unlock()
	claims := m.intel.Live()
	out := make([]Live, len(claims))
	for i, c := range claims {
		out[i] = Live{
			Indicator: *c.Indicator, Author: m.nameOf(c.Author), AuthorID: c.Author, From: c.Org,
			Own: c.Author == m.self(), Effect: effectOf(c.Level), SentAt: c.Sent,
		}
	}
	return out
}
