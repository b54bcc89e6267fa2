package policy

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// twin is the table as one would say it in a sentence: it walks all rules.
type twin struct {
	rules []dataplane.Rule
	hits  map[dataplane.Target]uint64
	never []dataplane.Never
	cure  []dataplane.Never // the remediation list
}

// plain is one form of a pair, which is the same whoever of it is the host.
func plain(t dataplane.Target) dataplane.Target {
	if t.Host.IsValid() && t.Prefix.Addr().Less(t.Host) {
		return dataplane.Pair(t.Prefix.Addr(), t.Host)
	}
	return t
}

func (w *twin) apply(now time.Time, rules ...dataplane.Rule) {
	for _, r := range rules {
		r.Target = plain(r.Target)
		for _, old := range w.rules {
			if old.Target == r.Target && old.Action != r.Action {
				delete(w.hits, r.Target)
			}
		}
		w.remove(r.Target)
		if r.Expires.After(now) {
			w.rules = append(w.rules, r)
		} else {
			delete(w.hits, r.Target)
		}
	}
}

func (w *twin) remove(target dataplane.Target) {
	for i, r := range w.rules {
		if r.Target == target {
			w.rules = append(w.rules[:i:i], w.rules[i+1:]...)
			return
		}
	}
}

func (w *twin) forget(target dataplane.Target) {
	target = plain(target)
	w.remove(target)
	delete(w.hits, target)
}

func matches(t dataplane.Target, p *Packet) bool {
	switch {
	case t.IsFlow():
		return !p.NoPorts && t.Flow == p.Key
	case t.Host.IsValid():
		peer := t.Prefix.Addr()
		return p.Src == t.Host && p.Dst == peer || p.Src == peer && p.Dst == t.Host
	case t.Port != 0:
		return !p.NoPorts && t.Proto == p.Proto &&
			(t.Prefix.Contains(p.Src) && t.Port == p.SrcPort || t.Prefix.Contains(p.Dst) && t.Port == p.DstPort)
	}
	return t.Prefix.Contains(p.Src) || t.Prefix.Contains(p.Dst)
}

func (w *twin) decide(p *Packet, now time.Time) (drop, saved bool) {
	for _, r := range w.rules {
		if !r.Expires.After(now) || !matches(r.Target, p) || r.Action == dataplane.Quarantine && w.cured(r.Target.Prefix.Addr(), p) {
			continue
		}
		w.hits[r.Target]++
		if r.Action >= dataplane.Suspend {
			drop = true
		}
	}
	if !drop {
		return false, false
	}
	for _, n := range w.never {
		if fits(n, p.Src, p.SrcPort, p.DstPort, p) || fits(n, p.Dst, p.DstPort, p.SrcPort, p) {
			return false, true
		}
	}
	return drop, false
}

// cured says whether what a quarantined host says or hears here is of a remedy.
func (w *twin) cured(host netip.Addr, p *Packet) bool {
	for _, n := range w.cure {
		if p.Src == host && fits(n, p.Dst, p.DstPort, p.SrcPort, p) || p.Src != host && fits(n, p.Src, p.SrcPort, p.DstPort, p) {
			return true
		}
	}
	return false
}

func fits(n dataplane.Never, a netip.Addr, own, other uint16, p *Packet) bool {
	return n.Prefix.Contains(a) && (n.Proto == 0 || n.Proto == p.Proto) &&
		(n.Port == 0 || !p.NoPorts && (n.Port == own || n.AnySide && n.Port == other))
}

// world draws from few addresses and ports, so that rules and packets meet.
type world struct{ rng *rand.Rand }

func (w world) addr() netip.Addr {
	if w.rng.IntN(3) == 0 {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(w.rng.IntN(2)), 0, 0, 15: byte(w.rng.IntN(3))})
	}
	return netip.AddrFrom4([4]byte{192, byte(w.rng.IntN(2)), 2, byte(w.rng.IntN(4))})
}

func (w world) port() uint16 { return uint16(1 + w.rng.IntN(3)) }

func (w world) proto() uint8 { return []uint8{flow.TCP, flow.UDP, 47}[w.rng.IntN(3)] }

func (w world) prefix(a netip.Addr) netip.Prefix {
	bits := 8 + w.rng.IntN(25)
	if a.Is6() {
		bits = 16 + w.rng.IntN(113)
	}
	p, _ := a.Prefix(bits)
	return p
}

func (w world) packet() *Packet {
	p := &Packet{Src: w.addr(), Dst: w.addr(), SrcPort: w.port(), DstPort: w.port(), Proto: w.proto(), NoPorts: w.rng.IntN(8) == 0, Size: 10}
	for p.Src.Is4() != p.Dst.Is4() {
		p.Dst = w.addr()
	}
	p.Key, _ = flow.NewKey(netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort), p.Proto)
	return p
}

func (w world) rule(now time.Time) dataplane.Rule {
	r := dataplane.Rule{Action: dataplane.Block, Expires: now.Add(time.Duration(w.rng.IntN(40)-4) * time.Second), Reason: w.rng.Uint32()}
	if w.rng.IntN(4) == 0 {
		r.Action = dataplane.Observe
	}
	switch w.rng.IntN(6) {
	case 4:
		if p := w.packet(); p.Src != p.Dst {
			r.Target = dataplane.Pair(p.Src, p.Dst)
			return r
		}
		fallthrough
	case 5:
		r.Target, r.Action = dataplane.Peer(w.addr()), dataplane.Quarantine
	case 0:
		r.Target.Flow = w.packet().Key
		if r.Action == dataplane.Block {
			r.Action = dataplane.Suspend
		}
	case 1:
		r.Target = dataplane.Peer(w.addr())
	case 2:
		r.Target.Prefix = w.prefix(w.addr())
	default:
		r.Target = dataplane.Peer(w.addr())
		r.Target.Port, r.Target.Proto, r.Action = w.port(), w.proto(), dataplane.Block
	}
	return r
}

func (w world) nevers() []dataplane.Never {
	var out []dataplane.Never
	for range w.rng.IntN(3) {
		n := dataplane.Never{Prefix: w.prefix(w.addr()), AnySide: w.rng.IntN(2) == 0}
		if w.rng.IntN(3) > 0 {
			n.Proto = w.proto()
		}
		if w.rng.IntN(3) > 0 {
			n.Port = w.port()
		}
		out = append(out, n)
	}
	return out
}

func TestTableAgreesWithItsTwin(t *testing.T) {
	for seed := range uint64(40) {
		w := world{rand.New(rand.NewPCG(seed, 1))}
		table, slow := NewTable(0), &twin{hits: map[dataplane.Target]uint64{}}
		now := time.Unix(1_700_000_000, 0)
		drops := 0
		for step := range 1500 {
			now = now.Add(time.Duration(w.rng.IntN(200)) * time.Millisecond)
			switch w.rng.IntN(12) {
			case 0:
				r := w.rule(now)
				if err := table.Apply(now, r); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
				slow.apply(now, r)
			case 1:
				target := w.rule(now).Target
				table.Remove(target)
				slow.forget(target)
			case 2:
				if list := w.nevers(); table.SetNever(list) == nil {
					slow.never = list
				}
				if list := w.nevers(); table.SetRemediation(list) == nil {
					slow.cure = list
				}
			case 3:
				for _, gone := range table.Expire(now) {
					slow.forget(gone.Target)
				}
			default:
				p := w.packet()
				v := table.Decide(p, now.UnixNano(), dataplane.Enforce)
				drop, saved := slow.decide(p, now)
				if v.Drop != drop || v.Saved != saved {
					t.Fatalf("seed %d step %d: packet %+v: got %+v, expected drop %v saved %v", seed, step, p, v, drop, saved)
				}
				if drop {
					drops++
				}
			}
			if step%20 == 0 {
				checkHits(t, table, slow, now)
			}
		}
		if drops == 0 {
			t.Errorf("seed %d: nothing was ever dropped", seed)
		}
	}
}

func checkHits(t *testing.T, table *Table, slow *twin, now time.Time) {
	t.Helper()
	live := 0
	for _, r := range slow.rules {
		if r.Expires.After(now) {
			live++
		}
	}
	hits := table.Rules(now)
	if len(hits) != live || table.Live(now) != live {
		t.Fatalf("live rules: got %d, expected %d", len(hits), live)
	}
	for _, h := range hits {
		if h.Packets != slow.hits[plain(h.Rule.Target)] {
			t.Fatalf("hits of %s: got %d, expected %d", h.Rule.Target, h.Packets, slow.hits[plain(h.Rule.Target)])
		}
	}
}
