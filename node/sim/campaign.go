package sim

import (
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// attacker goes from site to site.
type attacker struct {
	n    int
	kind scenario.Attack
	addr netip.Addr
}

// visit is what an attacker does at one site.
type visit struct {
	attacker  *attacker
	site      int
	turn      int // how many sites it was at before
	begin     time.Time
	met       bool // its first session is over, and
	prevented bool // was refused
	tried     int
	answered  int
}

// campaigns draws the attackers and their tours.
func (m *mesh) campaigns() {
	c, rng := &m.s.Campaigns, source(m.s.Seed, forCampaigns, 0, 0)
	taken := map[netip.Addr]bool{}
	for k := range c.Attackers {
		a := &attacker{n: k, kind: scenario.Attack(c.Kinds[k%len(c.Kinds)])}
		for !a.addr.IsValid() || taken[a.addr] {
			a.addr = netip.AddrFrom4([4]byte{198, 18 + byte(rng.IntN(2)), byte(rng.IntN(256)), 1 + byte(rng.IntN(254))})
		}
		taken[a.addr] = true
		m.hostile[a.addr] = a
		tour := rng.Perm(len(m.sites))
		if c.Sites > 0 {
			tour = tour[:c.Sites]
		}
		at := m.start.Add(seconds(c.Begin + float64(k)*c.Every))
		for turn, i := range tour {
			m.visit(&visit{attacker: a, site: i, turn: turn, begin: at})
			at = at.Add(seconds(c.Move))
		}
	}
}

// visit puts the sessions of a visit into what is coming to its site.
func (m *mesh) visit(v *visit) {
	if !v.begin.Before(m.start.Add(seconds(m.s.Nodes.Seconds))) {
		return
	}
	m.visits = append(m.visits, v)
	w, at := m.sites[v.site], v.begin
	for i, x := range m.sessions(v, w.site) {
		at = at.Add(x.After)
		if x.Timeout > patience {
			x.Timeout = patience
		}
		w.coming.put(session{at: at, n: uint64(v.attacker.n + 1), s: &x.Session, visit: v, opens: i == 0})
	}
}

// patience is how long an attacker waits for an answer.
const patience = 3 * time.Second

// sessions are those of the demo's attacks, by this attacker.
func (m *mesh) sessions(v *visit, site *scenario.Site) []scenario.Timed {
	sc, a := *m.sc, v.attacker
	sc.Scanner, sc.Guesser, sc.Sink = a.addr, a.addr, a.addr
	switch a.kind {
	case scenario.Scan:
		return sc.ScanOf(site)
	case scenario.Brute:
		return sc.BruteOf(site)
	case scenario.Beacon:
		return sc.BeaconOf(site, site.Hosts[3].Addr, a.addr)
	}
	return sc.SpurtOf(site, site.Hosts[1].Addr)
}
