package sim

import (
	"slices"

	"github.com/hedgerow-mesh/hedgerow/federation"
)

// links says which sites reach each other as time goes on.
type links struct {
	n     *Network
	seed  uint64
	away  []bool
	turns []float64 // when each site goes or comes back next
	draws []int
	sides [][]bool // of each cut, who is on its smaller side
	cut   []bool   // which cuts are on
}

func newLinks(n *Network, seed uint64, sites int) *links {
	l := &links{n: n, seed: seed, away: make([]bool, sites), turns: make([]float64, sites), draws: make([]int, sites), cut: make([]bool, len(n.Cuts))}
	for k, c := range n.Cuts {
		side := make([]bool, sites)
		for _, i := range source(seed, forCuts, k, 0).Perm(sites)[:int(c.Share*float64(sites)+0.5)] {
			side[i] = true
		}
		l.sides = append(l.sides, side)
	}
	for i := range l.turns {
		l.turns[i] = l.spell(i)
	}
	return l
}

// spell is how long a site stays as it is.
func (l *links) spell(i int) float64 {
	if l.n.Away == 0 {
		return maxSeconds * 10
	}
	mean := l.n.Spell
	if !l.away[i] {
		mean *= (1 - l.n.Away) / l.n.Away
	}
	l.draws[i]++
	return mean * source(l.seed, forChurn, i, l.draws[i]).ExpFloat64()
}

// due says whether anything changes until a time.
func (l *links) due(now float64) bool {
	for k, c := range l.n.Cuts {
		if (c.From <= now && now < c.Until) != l.cut[k] {
			return true
		}
	}
	return slices.ContainsFunc(l.turns, func(at float64) bool { return at <= now })
}

// until brings the links to a time.
func (l *links) until(now float64) {
	for i := range l.turns {
		for l.turns[i] <= now {
			l.away[i] = !l.away[i]
			l.turns[i] += l.spell(i)
		}
	}
	for k, c := range l.n.Cuts {
		l.cut[k] = c.From <= now && now < c.Until
	}
}

// reach says whether two sites reach each other.
func (l *links) reach(i, j int) bool {
	if i == j || l.away[i] || l.away[j] {
		return false
	}
	for k, on := range l.cut {
		if on && l.sides[k][i] != l.sides[k][j] {
			return false
		}
	}
	return true
}

// largest lists the largest part of the sites whose members reach each other.
func (l *links) largest() []bool {
	var parts [][]int
	for i := range l.away {
		if l.away[i] {
			continue
		}
		at := slices.IndexFunc(parts, func(p []int) bool { return l.reach(p[0], i) })
		if at < 0 {
			at, parts = len(parts), append(parts, nil)
		}
		parts[at] = append(parts[at], i)
	}
	in := make([]bool, len(l.away))
	if len(parts) > 0 {
		best := slices.MaxFunc(parts, func(a, b []int) int { return len(a) - len(b) })
		for _, i := range best {
			in[i] = true
		}
	}
	return in
}

// relink tells the nodes whom they reach from now on, where that changed.
func (b *bus) relink(now float64) {
	if b.met && !b.links.due(now) {
		return
	}
	before := make([][]bool, len(b.sites))
	for i := range before {
		before[i] = make([]bool, len(b.sites))
		for j := range before[i] {
			before[i][j] = b.met && b.links.reach(i, j)
		}
	}
	b.links.until(now)
	b.met = true
	for i, w := range b.sites {
		for j, to := range b.sites {
			up := b.links.reach(i, j)
			if w.handler == nil || up == before[i][j] {
				continue
			}
			p := federation.PeerInfo{ID: to.key.ID(), Connected: up, Since: w.clock, Addr: addrOf(to)}
			if !up {
				p.Addr, p.Why = "", "the network is split or the site is away"
			}
			w.handler.PeerChanged(p)
		}
	}
}
