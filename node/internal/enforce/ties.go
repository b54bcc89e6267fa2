package enforce

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Tie is what a site had to do with somebody, as it outlasts a restart: an ordinary
// relation of one of its hosts, or, where Host is the zero value, the whole site's
// dealings with a party. Port and Proto are 0 where the party is no service.
type Tie struct {
	Host, Peer netip.Addr
	Port       uint16
	Proto      uint8
	N          int       // conversations that were counted, at least 1
	First      time.Time // of them, not after Last
	Last       time.Time
	Cut        time.Time // when the learner alone cut it off, within the hour; zero if it did not
}

// Ties are all of a site's.
type Ties struct {
	Born time.Time // when it began to watch; zero before
	List []Tie
}

// maxTies bounds them.
const maxTies = maxBonds + 2*maxWellMet

// Ties are the machine's, the one seen longest ago first.
func (m *Machine) Ties() Ties {
	h := m.habits
	t := Ties{Born: h.born, List: make([]Tie, 0, len(h.bonds)+len(m.known.old)+len(m.known.young))}
	for r, b := range h.bonds {
		t.List = append(t.List, Tie{Host: r.host, Peer: r.with.addr, Port: r.with.port, Proto: r.with.proto, N: b.n, First: b.first, Last: b.last, Cut: h.cut[r]})
	}
	for _, a := range []map[party]dealings{m.known.old, m.known.young} {
		for p, d := range a {
			t.List = append(t.List, Tie{Peer: p.addr, Port: p.port, Proto: p.proto, N: d.n, First: d.first, Last: d.last})
		}
	}
	slices.SortFunc(t.List, func(a, b Tie) int {
		return cmp.Or(a.Last.Compare(b.Last), a.Host.Compare(b.Host), a.Peer.Compare(b.Peer), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto))
	})
	return t
}

// Resume goes on from what was so before a restart. What cannot be true, or lies in
// the future, is left out. The result is how many ties are in use again.
func (m *Machine) Resume(now time.Time, t Ties) int {
	if t.Born.IsZero() || t.Born.After(now) || len(t.List) > maxTies {
		return 0
	}
	m.habits.born = t.Born
	n := 0
	for _, x := range t.List {
		if !x.Peer.IsValid() || x.N < 1 || x.First.After(x.Last) || x.Last.After(now) || now.Sub(x.Last) >= remembered {
			continue
		}
		p := party{x.Peer, x.Port, x.Proto}
		if !x.Host.IsValid() {
			m.known.resume(p, dealings{min(x.N, wellMet), x.First, x.Last})
			n++
			continue
		}
		if len(m.habits.bonds) >= maxBonds {
			continue
		}
		r := relation{x.Host, p}
		m.habits.bonds[r] = &bond{min(x.N, bonded), x.First, x.Last}
		if !x.Cut.IsZero() && !x.Cut.After(now) {
			m.habits.cut[r] = x.Cut
		}
		n++
	}
	return n
}

// resume takes a party's dealings, those of whom was met last coming last.
func (a *acquaintances) resume(p party, d dealings) {
	if len(a.young) >= maxWellMet {
		a.old, a.young = a.young, map[party]dealings{}
	}
	a.young[p] = d
}
