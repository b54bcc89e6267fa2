package federation

import (
	"maps"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/round"
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
		Site: m.opt.Site, ID: m.self(), Sites: len(m.sites), Connected: up, Preset: round.Preset,
		Live: m.intel.Len(), Refused: maps.Clone(m.refused), Phase: "no trainer",
	}
	if m.rounds == nil {
		return s
	}
	h, r := m.rounds.Head(), m.rounds.Status(m.opt.Now())
	s.Round, s.Hash = h.Round, h.Hash.String()
	s.Phase, s.Open, s.Deltas, s.NextRound = r.Phase, r.Open, r.Deltas, r.NextBegin
	return s
}

// Model is the current global model: its round, hash and parameters.
func (m *Member) Model() (round uint64, hash string, params []float32) {
	m.mu.Lock()
	defer m.mu.Unlock()
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
			Indicator: *c.Indicator, Author: m.names[c.Author], AuthorID: c.Author,
			Own: c.Author == m.self(), Enforced: c.Enforced, SentAt: c.Sent,
		}
	}
	return out
}
