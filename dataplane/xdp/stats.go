package xdp

import (
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Stats implements [dataplane.Plane]. Totals count since the tables were
// made, over takeovers. FlowsEvicted is what must have been evicted for the
// rest to add up.
func (p *Plane) Stats() (dataplane.Stats, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.Stats{}, dataplane.ErrClosed
	}
	sum, err := p.sumCounters()
	if err != nil {
		return dataplane.Stats{}, err
	}
	s := dataplane.Stats{
		Packets: sum.Packets, Bytes: sum.Bytes,
		Dropped: sum.Dropped, WouldDrop: sum.WouldDrop, NeverSaved: sum.NeverSaved,
		FlowsTotal: sum.FlowsTotal, EventsLost: sum.EventsLost, AnswersLost: sum.AnswersLost, NotAccountedFrag: sum.LaterFragments,
		Orphaned: sum.Orphaned, AttachMode: p.attachMode(), Attached: p.attachments(), Malformed: make(map[string]uint64),
	}
	for i, n := range sum.Bad {
		if i > 0 && n > 0 {
			s.Malformed[malformedKinds[i]] = n
		}
	}
	if err := p.countFlows(&s, sum); err != nil {
		return dataplane.Stats{}, err
	}
	if err := p.countFlood(&s.Flood); err != nil {
		return dataplane.Stats{}, err
	}
	return s, p.countRules(&s)
}

// attachments lists the interfaces and what is hooked to each.
func (p *Plane) attachments() []dataplane.Attached {
	var list []dataplane.Attached
	for _, a := range p.at {
		d := dataplane.Attached{Interface: a.Interface, Role: a.Role.String(), Mode: a.mode, Down: a.down}
		if a.egress != nil {
			d.Egress = a.egress.name()
		}
		list = append(list, d)
	}
	return list
}

// attachMode is the slowest mode among the interfaces.
func (p *Plane) attachMode() string {
	mode := ""
	for _, a := range p.at {
		if mode == "" || a.mode == modeGeneric {
			mode = a.mode
		}
	}
	return mode
}

func (p *Plane) sumCounters() (sum kernelCounters, err error) {
	var per []kernelCounters
	if err := p.objs.Totals.Lookup(uint32(0), &per); err != nil {
		return sum, fmt.Errorf("stats: %w", err)
	}
	for i := range per {
		c := &per[i]
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
		sum.Dropped += c.Dropped
		sum.WouldDrop += c.WouldDrop
		sum.NeverSaved += c.NeverSaved
		sum.FlowsTotal += c.FlowsTotal
		sum.FlowsEnded += c.FlowsEnded
		sum.EventsLost += c.EventsLost
		sum.AnswersLost += c.AnswersLost
		sum.LaterFragments += c.LaterFragments
		sum.Orphaned += c.Orphaned
		for k, n := range c.Bad {
			sum.Bad[k] += n
		}
	}
	return sum, nil
}

// countFlows reads the table only when flows may have been evicted: as long as
// few were ever in it, what came less what went is what is there.
func (p *Plane) countFlows(s *dataplane.Stats, sum kernelCounters) error {
	gone := sum.FlowsEnded + p.cfg.Swept
	if sum.FlowsTotal <= gone {
		return nil
	}
	s.Flows = sum.FlowsTotal - gone
	if sum.FlowsTotal <= uint64(p.o.MaxFlows)/2 {
		return nil
	}
	var n uint64
	for _, v := range dump[kernelFlowKey, kernelFlow](p.objs.Flows) {
		if v.err != nil {
			return fmt.Errorf("stats: count flows: %w", v.err)
		}
		n++
	}
	if n < s.Flows {
		s.FlowsEvicted = s.Flows - n
	}
	s.Flows = n
	return nil
}

// countRules compares what was asked for with what the kernel holds.
func (p *Plane) countRules(s *dataplane.Stats) error {
	now := uint64(bootNow()) / 1000
	for _, e := range p.rules {
		if e.expires > now {
			s.RulesIntended++
		}
	}
	for f, err := range p.inKernel() {
		if err != nil {
			return fmt.Errorf("stats: %w", err)
		}
		if f.value.Word>>8 > now {
			s.RulesEnforced++
		}
	}
	return nil
}
