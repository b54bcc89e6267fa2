package council

import "math"

// Anew tells a new machine that nothing is stored, which may mean that the disk was
// lost: our key may have signed what we do not remember. So it signs nothing before
// it has heard where two thirds are, itself included; and when there are seals
// already, not before that is two rounds ago. Then it is past every round that it can
// have signed in, and locks itself on the highest seal that an honest member tells of.
func (m *Machine) Anew() { m.safe.mute = math.MaxUint64 }

// muted says whether we may not sign yet.
func (m *Machine) muted() bool {
	if m.safe.mute == math.MaxUint64 {
		orgs := m.tree.Tip().Next.Orgs
		var rounds []uint64
		for _, o := range orgs {
			if w := m.wishes[o.Voter]; w != nil && o.Voter != m.cfg.Self {
				rounds = append(rounds, w.Round)
			}
		}
		c := m.tree.Tip().Next
		if len(rounds) < c.Quorum()-1 {
			return true
		}
		m.safe.mute, m.ready.Persist = 0, true
		if max(m.claimed(), c.Round) > 0 {
			m.safe.mute = reached(rounds, honestAmong(len(orgs))) + 2
		}
	}
	if m.safe.mute != 0 && m.round > m.safe.mute {
		m.safe.mute, m.safe.locked, m.ready.Persist = 0, max(m.safe.locked, m.claimed()), true
	}
	return m.safe.mute != 0
}
