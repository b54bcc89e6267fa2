package softplane

import (
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// locked runs f unless the plane is closed.
func (p *Plane) locked(f func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isShut {
		return dataplane.ErrClosed
	}
	return f()
}

// Apply puts rules in force; see dataplane.Plane and policy.Table.
func (p *Plane) Apply(rules ...dataplane.Rule) error {
	return p.locked(func() error { return p.rules.Apply(p.opts.Now(), rules...) })
}

// Remove takes the rules of targets out of force.
func (p *Plane) Remove(targets ...dataplane.Target) error {
	return p.locked(func() error {
		p.rules.Remove(targets...)
		for _, t := range targets {
			if t.IsFlow() {
				k, _ := flow.NewKey(netip.AddrPortFrom(t.Flow.A, t.Flow.APort), netip.AddrPortFrom(t.Flow.B, t.Flow.BPort), t.Flow.Proto)
				delete(p.scoring.holds, k)
			}
		}
		return nil
	})
}

// SetNever replaces the never-block list.
func (p *Plane) SetNever(entries []dataplane.Never) error {
	return p.locked(func() error { return p.rules.SetNever(entries) })
}

// SetRemediation replaces what quarantined hosts may still reach.
func (p *Plane) SetRemediation(entries []dataplane.Never) error {
	return p.locked(func() error { return p.rules.SetRemediation(entries) })
}

// SetMode says whether rules act from the next frame on.
func (p *Plane) SetMode(m dataplane.Mode) error {
	return p.locked(func() error {
		p.mode = m
		return nil
	})
}

// Rules reads back what is in force by the plane's clock.
func (p *Plane) Rules() (hits []dataplane.Hit, err error) {
	err = p.locked(func() error {
		hits = p.rules.Rules(p.opts.Now())
		return nil
	})
	return hits, err
}

// Stats are the totals since Open.
func (p *Plane) Stats() (s dataplane.Stats, err error) {
	err = p.locked(func() error {
		s = p.stats
		s.AttachMode = "software"
		s.Flood = p.flood.total(p.opts.Now().UnixNano())
		s.Flows = uint64(len(p.flows.byKey))
		s.RulesEnforced = uint64(p.rules.Live(p.opts.Now()))
		s.RulesIntended = s.RulesEnforced // one table: what is intended is what is enforced
		s.Malformed = map[string]uint64{}
		for kind, n := range p.broken {
			if n > 0 {
				s.Malformed[malformed(kind).String()] = n
			}
		}
		return nil
	})
	return s, err
}

// Close ends Run. Nothing is pinned: frames pass from now on. Events that wait
// can still be drained. Closing again does nothing.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isShut {
		p.isShut = true
		close(p.closed)
	}
	return nil
}
