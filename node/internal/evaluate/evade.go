package evaluate

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Evasion is how soon a campaign is found when its author pays for not being.
type Evasion struct {
	Campaign string    `json:"campaign"`
	Way      string    `json:"way"`
	Cost     []float64 `json:"cost"` // in the way's unit, from nothing
	Unit     string    `json:"unit"`
	// Sure is the share of the campaign's flows that were over until enough was
	// told for a block: median over seeds; 1 is never.
	Sure []float64 `json:"sure"`
	Told []float64 `json:"told"`
}

// tactic changes a campaign's flows at a cost.
type tactic struct {
	name, unit string
	costs      []float64
	apply      func(t trace, cost float64, rng *rand.Rand) trace
}

// tactics are what an attacker may do. What is beside a campaign stays as it is.
var tactics = []tactic{
	{"padding", "kB at most added to each flow", []float64{0, 0.2, 1, 5, 20}, pad},
	{"jitter", "mean gaps by which a flow is moved at most", []float64{0, 0.5, 1, 2, 4}, jitter},
	{"low and slow", "times slower", []float64{1, 2, 4, 8, 16}, slow},
	{"many sources", "sources", []float64{1, 2, 4, 8, 16}, spread},
}

// pad lets the initiator say more, in segments of a usual size, where it is heard.
func pad(t trace, kB float64, rng *rand.Rand) trace {
	const segment, header = 1400, 40
	add := map[uint64]uint64{}
	for i := range t {
		x := &t[i]
		d := &x.rec.Dir[0]
		if !x.attack || x.rec.Dir[1].Packets == 0 || x.rec.Dir[1].Payload == 0 && d.Payload == 0 {
			continue // nobody listens
		}
		more, ok := add[x.rec.ID]
		if !ok {
			more = uint64(rng.Float64() * kB * 1000)
			add[x.rec.ID] = more
		}
		if more == 0 {
			continue
		}
		n := (more + segment - 1) / segment
		size := more/n + header
		d.Payload, d.Bytes, d.Packets = d.Payload+more, d.Bytes+more+n*header, d.Packets+uint32(n)
		d.SizeSq += n * size * size
		d.SizeMax = max(d.SizeMax, uint16(size))
	}
	return t
}

// moved moves flows, whole, to where the function says.
func moved(t trace, to func(start int64) int64) trace {
	by := map[uint64]int64{}
	for i := range t {
		x := &t[i]
		if !x.attack {
			continue
		}
		d, ok := by[x.rec.ID]
		if !ok {
			d = to(x.rec.Start) - x.rec.Start
			by[x.rec.ID] = d
		}
		move(&x.rec, d)
	}
	slices.SortStableFunc(t, byTime)
	return t
}

func (t trace) attacks() (flows int, from, to int64) {
	for i := range t {
		if x := &t[i]; x.attack {
			if from == 0 || x.rec.Start < from {
				from = x.rec.Start
			}
			to = max(to, x.rec.Start)
			if x.end {
				flows++
			}
		}
	}
	return flows, from, to
}

func jitter(t trace, gaps float64, rng *rand.Rand) trace {
	n, from, to := t.attacks()
	most := gaps * float64(to-from) / float64(max(1, n))
	return moved(t, func(start int64) int64 { return max(from, start+int64((2*rng.Float64()-1)*most)) })
}

func slow(t trace, times float64, _ *rand.Rand) trace {
	_, from, _ := t.attacks()
	return moved(t, func(start int64) int64 { return from + int64(times*float64(start-from)) })
}

// spread deals the flows out to initiators of neighbouring addresses.
func spread(t trace, sources float64, rng *rand.Rand) trace {
	of := map[uint64]uint64{}
	for i := range t {
		x := &t[i]
		if !x.attack {
			continue
		}
		k, ok := of[x.rec.ID]
		if !ok {
			k = rng.Uint64N(uint64(sources))
			of[x.rec.ID] = k
		}
		from, to := x.rec.Initiator(), x.rec.Responder()
		x.rec.Key, x.rec.InitB = flow.NewKey(netip.AddrPortFrom(neighbour(from.Addr(), k), from.Port()), to, x.rec.Key.Proto)
	}
	return t
}

// neighbour is the address k further on, k below 256.
func neighbour(a netip.Addr, k uint64) netip.Addr {
	if k == 0 {
		return a
	}
	b := a.As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+k<<8)
	out := netip.AddrFrom16(b)
	if a.Is4() || a.Is4In6() {
		return out.Unmap()
	}
	return out
}

// evasions are outcomes by campaign, tactic and step.
type evasions map[[3]int][]outcome

// evade tries every tactic on every campaign.
func (s *sightings) evade(seed uint64, g gateway) error {
	if s.evasion == nil {
		s.evasion = evasions{}
	}
	for i, c := range s.f.traces {
		for k := range tactics {
			s.f.o.Progress(fmt.Sprintf("seed %d: %s, %s", seed, s.f.campaigns[i].Name, tactics[k].name))
			for step, cost := range tactics[k].costs {
				rng := rand.New(rand.NewPCG(seed, uint64(k)))
				o, err := g.watch(s.f.teach, s.f.watched.at(0.3, tactics[k].apply(slices.Clone(c), cost, rng)))
				if err != nil {
					return err
				}
				key := [3]int{i, k, step}
				s.evasion[key] = append(s.evasion[key], *o)
			}
		}
	}
	return nil
}

func (e evasions) report(names []string) (out []Evasion) {
	if e == nil {
		return nil
	}
	for i, name := range names {
		for k := range tactics {
			x := Evasion{Campaign: name, Way: tactics[k].name, Cost: tactics[k].costs, Unit: tactics[k].unit}
			for step := range tactics[k].costs {
				t := timely(e[[3]int{i, k, step}])
				x.Sure, x.Told = append(x.Sure, t.Sure), append(x.Told, t.Told)
			}
			out = append(out, x)
		}
	}
	return out
}
