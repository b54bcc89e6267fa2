package xdp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Apply implements [dataplane.Plane]. When a table is full it returns an error
// that wraps [dataplane.ErrFull]; rules before the one that did not fit are
// enforced, those after it are not.
func (p *Plane) Apply(rules ...dataplane.Rule) error {
	for _, r := range rules {
		if err := r.Validate(); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	now := time.Now()
	p.clock.follow(now)
	var changed []netip.Prefix
	var failed error
	for i := range rules {
		t := canonical(rules[i].Target)
		if isWide(t) {
			changed = append(changed, t.Prefix)
		}
		if failed = p.apply(t, &rules[i], now); failed != nil {
			break
		}
	}
	if err := p.refreshCovers(changed); err != nil && failed == nil {
		failed = err
	}
	if failed != nil {
		return fmt.Errorf("apply: %w", failed)
	}
	return nil
}

// apply is one rule; t is its target as it is kept.
func (p *Plane) apply(t dataplane.Target, r *dataplane.Rule, now time.Time) error {
	old, had := p.known(t)
	if r.Expires.After(now) {
		return p.put(t, r, old, had)
	}
	if had {
		return p.drop(t, old)
	}
	return nil
}

func isWide(t dataplane.Target) bool { return !t.IsFlow() && !t.Prefix.IsSingleIP() }

// Remove implements [dataplane.Plane]. Unknown targets are no error. What is in
// the tables without this process having put it there goes too.
func (p *Plane) Remove(targets ...dataplane.Target) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	var changed []netip.Prefix
	for _, t := range targets {
		t = canonical(t)
		if t.IsFlow() {
			if err := p.free(t.Flow); err != nil {
				return err
			}
		}
		e, ok := p.known(t)
		if !ok {
			if err := p.purge(t); err != nil {
				return err
			}
			continue
		}
		if err := p.drop(t, e); err != nil {
			return err
		}
		if isWide(t) {
			changed = append(changed, t.Prefix)
		}
	}
	return p.refreshCovers(changed)
}

// purge deletes the rules of a target that this process does not know of.
func (p *Plane) purge(t dataplane.Target) error {
	for _, a := range []dataplane.Action{dataplane.Observe, dataplane.Block} {
		in := place(t, a)
		if err := p.mapOf(in).Delete(p.buf.key(in, t)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove rule for %s: %w", t, err)
		}
	}
	return nil
}

// Rules implements [dataplane.Plane]: it reads the kernel's tables, not what
// was asked for, and leaves out what stands in a table that the programs are
// told to skip. Expiry is exact to the microsecond.
func (p *Plane) Rules() ([]dataplane.Hit, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, dataplane.ErrClosed
	}
	p.clock.adjust()
	now := uint64(bootNow()) / 1000
	var live kernelConfig
	if err := p.objs.Settings.Lookup(uint32(0), &live); err != nil {
		return nil, fmt.Errorf("rules: read settings: %w", err)
	}
	var hits []dataplane.Hit
	for f, err := range p.inKernel() {
		if err != nil {
			return nil, fmt.Errorf("rules: %w", err)
		}
		in := place(f.target, dataplane.Action(f.value.Word&0xff))
		if f.value.Word>>8 <= now || *switchOf(&live, in) == 0 || !p.marks.shows(in, f.target) {
			continue
		}
		hits = append(hits, dataplane.Hit{
			Rule: dataplane.Rule{
				Target: f.target, Action: dataplane.Action(f.value.Word & 0xff),
				Expires: p.clock.fromMicros(f.value.Word >> 8), Reason: f.value.Reason, Rate: f.value.Rate,
			},
			Packets: f.value.Packets,
			Bytes:   f.value.Bytes,
		})
	}
	return hits, nil
}

// SetMode implements [dataplane.Plane]. A plane with a sensor refuses Enforce.
// Before Attach the mode is kept until then: packets may be filtered by an
// earlier process's programs still.
func (p *Plane) SetMode(m dataplane.Mode) error {
	if m > dataplane.Enforce {
		return fmt.Errorf("mode %d: expected monitor or enforce", m)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return dataplane.ErrClosed
	case m == dataplane.Enforce && p.o.has(Sensor):
		return errSensor
	}
	p.o.Mode = m
	if len(p.reused) > 0 && !p.hooked {
		return nil
	}
	p.cfg.Mode = uint32(m)
	return p.writeConfig()
}
