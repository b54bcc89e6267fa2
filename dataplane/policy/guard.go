package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Refusals that callers test with errors.Is, beside dataplane.ErrNeverBlock.
var (
	ErrTooWide  = errors.New("prefix is too wide")
	ErrTooMany  = errors.New("too many blocks this hour")
	ErrTooBroad = errors.New("blocks would touch too much of normal traffic")
)

// Caps bound what automatic rules may do. Zero fields take the defaults.
type Caps struct {
	V4Bits  int     // shortest IPv4 prefix that may be blocked; 24
	V6Bits  int     // shortest IPv6 prefix; 48
	PerHour int     // blocks in any hour; 60, below 0 none
	Share   float64 // of distinct hosts, and of distinct services, of normal traffic that all blocks together may touch; 0.05
	// Floor is how many hosts, and how many services, blocks may touch whatever
	// share that is: a small site has few peers, and one of 20 is already 0.05; 3.
	Floor  int
	Recent time.Duration // how long a host or service of normal traffic is remembered; 24 h
	Seen   int           // hosts and services remembered, each; 65536
}

func (c *Caps) fill() error {
	for _, d := range []struct {
		field *int
		value int
	}{{&c.V4Bits, 24}, {&c.V6Bits, 48}, {&c.PerHour, 60}, {&c.Floor, 3}, {&c.Seen, 65536}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Share == 0 {
		c.Share = 0.05
	}
	if c.Recent == 0 {
		c.Recent = 24 * time.Hour
	}
	switch {
	case c.V4Bits < 8 || c.V4Bits > 32:
		return fmt.Errorf("caps: V4Bits: %d: expected 8 to 32", c.V4Bits)
	case c.V6Bits < 16 || c.V6Bits > 128:
		return fmt.Errorf("caps: V6Bits: %d: expected 16 to 128", c.V6Bits)
	case c.Floor < 0 || c.Seen < 0 || c.Recent < 0:
		return errors.New("caps: Floor, Seen and Recent: expected 0 or more")
	case !(c.Share > 0 && c.Share <= 1):
		return fmt.Errorf("caps: Share: %v: expected above 0 and at most 1", c.Share)
	}
	return nil
}

// Guard says whether a rule may be applied. It remembers which hosts and
// services normal traffic used lately and how many blocks were made this hour.
type Guard struct {
	caps     Caps
	never    prefixMap[[]dataplane.Never]
	hosts    recent[netip.Addr]
	services recent[service]
	made     []time.Time // of the blocks of the last hour, in order
}

// NewGuard returns a guard that has seen nothing yet.
func NewGuard(caps Caps) (*Guard, error) {
	if err := caps.fill(); err != nil {
		return nil, err
	}
	return &Guard{caps: caps,
		hosts:    recent[netip.Addr]{max: caps.Seen},
		services: recent[service]{max: caps.Seen},
	}, nil
}

// SetCaps replaces the caps; what was seen and made stays known, though what
// Recent and Seen bound takes its time to follow. On an error the old ones stay.
func (g *Guard) SetCaps(caps Caps) error {
	if err := caps.fill(); err != nil {
		return err
	}
	g.caps = caps
	g.hosts.max, g.services.max = caps.Seen, caps.Seen
	return nil
}

// SetNever replaces the never-block list. On an error the old list stays.
func (g *Guard) SetNever(entries []dataplane.Never) error {
	m, err := neverMap(entries)
	if err != nil {
		return fmt.Errorf("set never-block list: %w", err)
	}
	g.never = m
	return nil
}

// Saw remembers both hosts and the service (server, its port, the protocol) of
// a flow that was found normal and ended or grew at t.
func (g *Guard) Saw(client netip.Addr, server netip.AddrPort, proto uint8, t time.Time) {
	since := t.Add(-g.caps.Recent).UnixNano()
	server = netip.AddrPortFrom(server.Addr().Unmap(), server.Port())
	g.hosts.add(client.Unmap(), t.UnixNano(), since)
	g.hosts.add(server.Addr(), t.UnixNano(), since)
	g.services.add(service{server.Addr(), server.Port(), proto}, t.UnixNano(), since)
}

// Use is one host of normal traffic that a guard remembers, or one service, and when it
// was seen last. A host has neither a port nor a protocol.
type Use struct {
	Addr  netip.Addr
	Port  uint16
	Proto uint8
	At    time.Time
}

// Uses are the hosts and services of normal traffic that are remembered, in no order.
func (g *Guard) Uses(now time.Time) []Use {
	since := now.Add(-g.caps.Recent).UnixNano()
	out := make([]Use, 0, len(g.hosts.last)+len(g.services.last))
	g.hosts.each(since, func(a netip.Addr) {
		out = append(out, Use{Addr: a, At: time.Unix(0, g.hosts.last[a])})
	})
	g.services.each(since, func(s service) {
		out = append(out, Use{s.addr, s.port, s.proto, time.Unix(0, g.services.last[s])})
	})
	return out
}

// Resume remembers what another guard did, as after a restart; what is too old or of
// the future is left out. The result is how many are in use again.
func (g *Guard) Resume(now time.Time, uses []Use) (n int) {
	since := now.Add(-g.caps.Recent).UnixNano()
	for _, u := range uses {
		at := u.At.UnixNano()
		switch {
		case !u.Addr.IsValid() || at < since || u.At.After(now):
			continue
		case u.Port == 0 && u.Proto == 0:
			g.hosts.add(u.Addr.Unmap(), at, since)
		default:
			g.services.add(service{u.Addr.Unmap(), u.Port, u.Proto}, at, since)
		}
		n++
	}
	return n
}

// Blocked counts a block that was applied at now towards the hour's cap.
func (g *Guard) Blocked(now time.Time) {
	g.forget(now)
	g.made = append(g.made, now)
}

func (g *Guard) forget(now time.Time) {
	keep := g.made[:0]
	for _, t := range g.made {
		if now.Sub(t) < time.Hour {
			keep = append(keep, t)
		}
	}
	g.made = keep
}

// Check says whether rule may be applied beside the active ones. nil is yes.
// An error wraps dataplane.ErrNeverBlock, ErrTooWide, ErrTooMany or
// ErrTooBroad and says by how much; a malformed rule gives a plain error. Only
// blocks are counted against the caps of the hour and of the share.
func (g *Guard) Check(rule dataplane.Rule, active []dataplane.Rule, now time.Time) error {
	if err := rule.Validate(); err != nil {
		return err
	}
	if rule.Action == dataplane.Observe {
		return nil
	}
	if err := g.Void(rule.Target); err != nil {
		return err
	}
	if rule.Action != dataplane.Block {
		return nil
	}
	p := rule.Target.Prefix
	if narrowest := g.narrowest(p.Addr()); p.Bits() < narrowest {
		return fmt.Errorf("block %s: %w: /%d, expected /%d or longer", rule.Target, ErrTooWide, p.Bits(), narrowest)
	}
	if g.caps.PerHour < 0 {
		return fmt.Errorf("block %s: %w: none may be made", rule.Target, ErrTooMany)
	}
	g.forget(now)
	if len(g.made) >= g.caps.PerHour {
		return fmt.Errorf("block %s: %w: %d made, at most %d; the next is possible at %s", rule.Target, ErrTooMany,
			len(g.made), g.caps.PerHour, g.made[0].Add(time.Hour).UTC().Format(time.RFC3339))
	}
	return g.radius(rule, active, now)
}

func (g *Guard) narrowest(a netip.Addr) int {
	if a.Is4() {
		return g.caps.V4Bits
	}
	return g.caps.V6Bits
}

// Void says, by an error that wraps dataplane.ErrNeverBlock, that the
// never-block list would save every packet that a rule for target could drop.
// A target that the list covers in part is no such case: the plane spares that
// part packet by packet.
func (g *Guard) Void(target dataplane.Target) error {
	covered := false
	cover := func(a netip.Addr, bits int, own, other uint16, proto uint8) {
		if !a.IsValid() {
			return
		}
		g.never.each(a, func(tuples []dataplane.Never) {
			for _, n := range tuples {
				port := n.Port == 0 || n.Port == own && own != 0 || n.AnySide && n.Port == other && other != 0
				if n.Prefix.Bits() <= bits && (n.Proto == 0 || n.Proto == proto) && port {
					covered = true
				}
			}
		})
	}
	if k := target.Flow; target.IsFlow() {
		cover(k.A, k.A.BitLen(), k.APort, k.BPort, k.Proto)
		cover(k.B, k.B.BitLen(), k.BPort, k.APort, k.Proto)
	} else {
		cover(target.Prefix.Addr(), target.Prefix.Bits(), target.Port, 0, target.Proto)
	}
	if covered {
		return fmt.Errorf("%s: %w", target, dataplane.ErrNeverBlock)
	}
	return nil
}

// Radius is how much of recent normal traffic a set of blocks touches.
type Radius struct {
	Hosts, AllHosts       int
	Services, AllServices int
}

// Radius measures the live blocks among rules against the hosts and services
// that normal traffic used lately.
func (g *Guard) Radius(rules []dataplane.Rule, now time.Time) Radius {
	m := NewTable(0)
	for _, r := range rules {
		if r.Action == dataplane.Block && r.Validate() == nil {
			m.put(now, r)
		}
	}
	var out Radius
	since := now.Add(-g.caps.Recent).UnixNano()
	hit := map[netip.Addr]bool{} // hosts touched by way of one of their services
	g.services.each(since, func(s service) {
		out.AllServices++
		if m.services[s] != nil {
			hit[s.addr] = true
			out.Services++
		} else if m.blocks(s.addr) {
			out.Services++
		}
	})
	g.hosts.each(since, func(a netip.Addr) {
		out.AllHosts++
		if hit[a] || m.blocks(a) {
			out.Hosts++
		}
	})
	return out
}

func (t *Table) blocks(a netip.Addr) bool {
	found := t.addrs[a] != nil
	t.prefixes.each(a, func(*entry) { found = true })
	return found
}

func (g *Guard) radius(rule dataplane.Rule, active []dataplane.Rule, now time.Time) error {
	with := g.Radius(append(active[:len(active):len(active)], rule), now)
	var before *Radius // measured only when needed: it costs a walk over all that was seen
	for i, all := range []int{with.AllHosts, with.AllServices} {
		most := max(g.caps.Floor, int(g.caps.Share*float64(all)))
		if with.touched(i) <= most {
			continue
		}
		if before == nil {
			r := g.Radius(active, now)
			before = &r
		}
		if with.touched(i) > before.touched(i) {
			return fmt.Errorf("block %s: %w: %d of %d %s, at most %d", rule.Target, ErrTooBroad,
				with.touched(i), all, [2]string{"hosts", "services"}[i], most)
		}
	}
	return nil
}

func (r Radius) touched(i int) int { return [2]int{r.Hosts, r.Services}[i] }

// recent is a bounded set whose members are forgotten with time. When it is
// full of recent members, new ones are left out: the share is then measured
// against fewer, which refuses sooner.
type recent[K comparable] struct {
	max   int
	last  map[K]int64
	swept int64
}

func (r *recent[K]) add(k K, now, since int64) {
	if r.last == nil {
		r.last = map[K]int64{}
	}
	_, known := r.last[k]
	if !known && len(r.last) >= r.max {
		if since <= r.swept {
			return // swept for this moment already
		}
		// A sweep costs the whole set: one for each sixteenth of the window is enough.
		r.swept = since + (now-since)/16
		for old, at := range r.last {
			if at < since {
				delete(r.last, old)
			}
		}
		if len(r.last) >= r.max {
			return
		}
	}
	r.last[k] = max(r.last[k], now)
}

func (r *recent[K]) each(since int64, f func(K)) {
	for k, at := range r.last {
		if at >= since {
			f(k)
		}
	}
}
