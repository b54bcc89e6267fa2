package xdp

import (
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Stats implements [dataplane.Plane]. Totals count since the tables were
// made, over takeovers. Flows are those made less those gone: they are
// counted one by one while packets come, so the sums may be off by these.
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
		FlowsTotal: sum.FlowsTotal, FlowsUntracked: sum.FlowsUntracked, EventsLost: sum.EventsLost, AnswersLost: sum.AnswersLost, HellosLost: sum.HellosLost, NotAccountedFrag: sum.LaterFragments,
		Orphaned: sum.Orphaned, AttachMode: p.attachMode(), Attached: p.attachments(), Malformed: make(map[string]uint64),
	}
	for i, n := range sum.Bad {
		if i > 0 && n > 0 {
			s.Malformed[malformedKinds[i]] = n
		}
	}
	s.Flows, s.FlowsEvicted, err = p.store.evicted(sum.FlowsTotal, sum.FlowsEnded+p.cfg.Swept, sum.FlowsEvicted)
	if err != nil {
		return dataplane.Stats{}, fmt.Errorf("stats: %w", err)
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
		d := dataplane.Attached{Interface: a.Interface, Role: a.Role.String(), Mode: a.mode, GROOff: a.groOff, Down: a.down}
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
		sum.FlowsEvicted += c.FlowsEvicted
		sum.FlowsUntracked += c.FlowsUntracked
		sum.EventsLost += c.EventsLost
		sum.AnswersLost += c.AnswersLost
		sum.HellosLost += c.HellosLost
		sum.LaterFragments += c.LaterFragments
		sum.Orphaned += c.Orphaned
		for k, n := range c.Bad {
			sum.Bad[k] += n
		}
	}
	return sum, nil
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
		if f.value.Word>>8 > now && p.acts(&f) {
			s.RulesEnforced++
		}
	}
	return nil
}
