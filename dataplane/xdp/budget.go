package xdp

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Values of bpf/budget.h that the code generator does not carry over.
const (
	second        = 1_000_000_000
	breakerWindow = 1 << 28 // ns
)

var _ dataplane.FloodGuard = (*Plane)(nil)

// SetFlood implements [dataplane.FloodGuard]. Budgets take effect one by one,
// within microseconds.
func (p *Plane) SetFlood(f dataplane.Flood) error {
	if err := f.Validate(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	next, want := p.floodConfig(&f), guardsOf(&f)
	if err := p.putGuards(want); err != nil {
		return fmt.Errorf("protected and dark prefixes: %w", err)
	}
	if err := p.writeFlood(next); err != nil {
		return err
	}
	if err := p.pruneGuards(want); err != nil {
		return fmt.Errorf("protected and dark prefixes: %w", err)
	}
	return nil
}

func (p *Plane) writeFlood(c kernelFloodConfig) error {
	if err := p.objs.Floods.Put(uint32(0), &c); err != nil {
		return fmt.Errorf("write flood settings: %w", err)
	}
	p.flood = c
	return nil
}

// floodConfig is f in the kernel's terms. Secrets are drawn once for the life
// of the tables, so that what is counted under them stays meaningful.
func (p *Plane) floodConfig(f *dataplane.Flood) kernelFloodConfig {
	c := p.flood
	if c.Row[0] == 0 {
		drawSecrets(&c)
	}
	for i, rate := range f.Rates() {
		c.Step[i] = 0
		if rate != 0 {
			c.Step[i] = second / uint64(rate)
		}
	}
	c.Breaker, c.BreakerDrops, c.Active = 0, truth(f.BreakerDrops), truth(f.Active())
	if f.Breaker != 0 {
		c.Breaker = uint32(max(1, uint64(f.Breaker)*breakerWindow/second))
	}
	c.Protects, c.Darks = truth(len(f.Protected) > 0), truth(len(f.Dark) > 0)
	return c
}

func truth(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func drawSecrets(c *kernelFloodConfig) {
	for i := range c.Row {
		c.Row[i] = secret() | 1
	}
	for i := range c.Hash {
		c.Hash[i] = uint32(secret()) | 1
	}
	for i := range c.Cookie {
		c.Cookie[i] = [2]uint64{secret(), secret()}
	}
}

// secret is 64 bits that nobody can guess.
func secret() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, by its own contract
	return binary.NativeEndian.Uint64(b[:])
}

// FloodTotals implements [dataplane.FloodGuard].
func (p *Plane) FloodTotals() (s dataplane.FloodStats, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return s, dataplane.ErrClosed
	}
	return s, p.countFlood(&s)
}

// countFlood sums up what floods did.
func (p *Plane) countFlood(s *dataplane.FloodStats) error {
	var per []kernelFloodCounts
	if err := p.objs.FloodTotals.Lookup(uint32(0), &per); err != nil {
		return fmt.Errorf("stats: floods: %w", err)
	}
	s.BudgetDropped = make(map[string]uint64)
	for i := range per {
		c := &per[i]
		for k, kind := range dataplane.Budgets() {
			if c.Over[k] > 0 {
				s.BudgetDropped[kind.String()] += c.Over[k]
			}
		}
		s.BreakerDropped += c.BreakerDropped
		s.Untracked += c.Untracked
		s.Challenges += c.Challenges
		s.DarkAnswers += c.DarkAnswers
		s.Proofs += c.Proofs
		s.BadProofs += c.BadProofs
	}
	var now kernelFloodState
	if err := p.objs.FloodNow.Lookup(uint32(0), &now); err != nil {
		return fmt.Errorf("stats: breaker: %w", err)
	}
	s.BreakerTrips = now.Trips
	for hook := range now.Breaker {
		s.BreakerOpen[hook] = now.Breaker[hook].Open != 0 && uint64(bootNow())/breakerWindow-now.Breaker[hook].Window <= 1
	}
	return nil
}
