package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// How the flood is made. The flooder and all whom it floods share this machine, so
// there are few of them, and it gives way to them: what the flooder itself costs here,
// it does not cost on machines of their own.
const (
	floodSites = 10
	times      = 100                   // its organisation's budget
	saidEvery  = 50 * time.Millisecond // an honest word, by one site after the other
	drainFor   = 30 * time.Second      // for what is still under way
	beatEvery  = 10 * time.Millisecond
)

// spell is one part of the measurement: honest sites talk, and perhaps one floods.
type spell struct {
	name  string
	does  doing
	heard *tally
}

// doing is what the flooder does meanwhile.
type doing int

const (
	rests doing = iota
	floods
	works // as much as its flood took, and says nothing
)

// floodRow lets honest sites talk before, during and after a flood.
func floodRow(ctx context.Context, r *runner) (_ *Row, err error) {
	n := min(r.Sites, floodSites)
	evil := n - 1
	hosts, err := open(n, true)
	if err != nil {
		return nil, err
	}
	words := newTally()
	spells := []spell{
		{"without", rests, newTally()}, {"with the flood", floods, newTally()},
		{"with as much work beside the mesh", works, newTally()}, {"without, after it", rests, newTally()},
	}
	m, err := serve(ctx, hosts, evil, func(i int, _ *host, o *federation.Options) error {
		o.OnIndicator = func(e federation.IndicatorEvent) {
			words.hearWord(i, &e)
			for _, s := range spells {
				s.heard.hear(i, e.Indicator.Value)
			}
		}
		return nil
	})
	defer func() { err = errors.Join(err, m.end()) }()
	if err != nil {
		return nil, err
	}
	if err := hosts[evil].Close(); err != nil { // the flooder runs under its key, apart
		return nil, err
	}
	f, err := r.hire(m.ctx, hosts[evil])
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.dismiss()) }()
	if err := m.greet(words); err != nil {
		return nil, err
	}
	row := &Row{Sites: n}
	var share float64
	for k, s := range spells {
		if err := m.spell(r, row, k, s, f, &share); err != nil {
			return nil, err
		}
	}
	late := series("later", spells[1].heard.later(r.Flood/10))
	row.Figures = append(row.Figures, Figure{Name: "with the flood, p99 after its first tenth", Value: late.at(0.99), Unit: "ms"})
	row.compare(r.Flooder != nil)
	return row, nil
}

// greet has each site say something that all others hear: then they know of each
// other's topics.
func (m *members) greet(words *tally) error {
	for i := range m.sites {
		if err := m.tell(words, i, address(i).String()); err != nil {
			return err
		}
	}
	return nil
}

// spell has every honest site talk for a time, and counts what arrived. share is what
// the flood takes of a processor.
func (m *members) spell(r *runner, row *Row, k int, s spell, f *flooder, share *float64) error {
	evil := len(m.sites)
	if s.does != rests {
		c := cue{Flood: true}
		if s.does == works {
			c = cue{Burn: *share}
		}
		if err := f.tell(c); err != nil {
			return err
		}
	}
	words := max(1, int(r.Flood/saidEvery))
	for i := range words {
		who := i % evil
		v := fmt.Sprintf("%s tcp/%d", address(i), 1000+k)
		ind := word(who, v)
		ind.Type = wire.TypeService
		s.heard.say(v)
		if _, err := m.sites[who].Publish(m.ctx, ind); err != nil {
			return err
		}
		if err := pause(m.ctx, saidEvery); err != nil {
			return err
		}
	}
	if s.does != rests {
		did, err := f.stop()
		if err != nil {
			return err
		}
		if s.does == floods {
			*share = did.share()
			row.Figures = append(row.Figures, did.figures()...)
		}
	}
	expected := words * (evil - 1)
	row.count(s, expected, m.drained(s.heard, evil, expected))
	return m.ctx.Err()
}

// drained waits a while for what is expected and says how many deliveries to honest
// sites there were.
func (m *members) drained(t *tally, evil, expected int) (n int) {
	ctx, cancel := context.WithTimeout(m.ctx, drainFor)
	defer cancel()
	_ = poll(ctx, "all of it", func() bool { // what does not come is the finding
		n = t.deliveries(evil)
		return n >= expected
	})
	return n
}

// deliveries counts what sites but one heard.
func (t *tally) deliveries(but int) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, sites := range t.heard {
		n += len(sites)
		if _, it := sites[but]; it {
			n--
		}
	}
	return n
}

func (row *Row) count(s spell, expected, got int) {
	delays := series(s.name, s.heard.delays())
	row.Series = append(row.Series, delays)
	share := Figure{Name: s.name + ", delivered", Value: 100 * float64(got) / float64(expected), Unit: "%"}
	if s.does == floods {
		share.Target, share.AtLeast = 99.9, true
	}
	row.Figures = append(append(row.Figures, share), delays.delays(0, 0)...)
}

// compare sets the flood beside the calm on its two sides.
func (row *Row) compare(apart bool) {
	flood, work := row.Series[1].at(0.99), row.Series[2].at(0.99)
	calm := (row.Series[0].at(0.99) + row.Series[3].at(0.99)) / 2
	row.Figures = append(row.Figures, Figure{Name: "p99 with the flood / without", Value: flood / calm, Target: 2},
		Figure{Name: "p99 with the flood / with as much work beside the mesh", Value: flood / work},
		Figure{Name: "slowest delivery with the flood", Value: row.Series[1].at(1), Unit: "ms"})
	where := "in this process"
	if apart {
		where = "from a process of its own, which gives way to the others'"
	}
	row.Notes = append(row.Notes, fmt.Sprintf("%d organisations, one of which sends %d times its budget %s; what gossip loses is not pulled here", row.Sites, times, where))
}
