package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/intel"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// members are sites of as many organisations, without planes.
type members struct {
	*crowd
	hosts []*host
	sites []*federation.Member
}

// startMembers brings n organisations' sites up, tuned, one after the other.
func startMembers(ctx context.Context, n int, tune func(i int, h *host, o *federation.Options) error) (m *members, err error) {
	hosts, err := open(n, true)
	if err != nil {
		return nil, err
	}
	return serve(ctx, hosts, n, tune)
}

// serve brings up the first n of hosts that know each other.
func serve(ctx context.Context, hosts []*host, n int, tune func(i int, h *host, o *federation.Options) error) (m *members, err error) {
	m = &members{crowd: gather(ctx), hosts: hosts}
	for i, h := range hosts[:n] {
		o := federation.Options{
			Site: h.name, Key: h.key, Transport: h.Transport, Seed: uint64(i),
			SyncEvery:  time.Hour, // what gossip loses is lost, so that it shows
			Consortium: &federation.Consortium{Organisation: h.org, Roll: h.roll(hosts)},
		}
		if err := tune(i, h, &o); err != nil {
			return m, fmt.Errorf("%s: %w", h.org, err)
		}
		site, err := federation.New(o)
		if err != nil {
			return m, fmt.Errorf("%s: %w", h.org, err)
		}
		m.sites = append(m.sites, site)
		m.run(h.org, site.Run)
		if err := h.connected(m.ctx, i); err != nil {
			return m, err
		}
	}
	return m, nil
}

// end stops the members.
func (m *members) end() error {
	err := m.crowd.end()
	for _, h := range m.hosts[len(m.sites):] { // those that no member ever ran
		err = errors.Join(err, h.Close())
	}
	return err
}

// tally notes when the sites heard of, or were led to something by, a value.
type tally struct {
	mu    sync.Mutex
	said  map[string]time.Time
	heard map[string]map[int]time.Time
}

func newTally() *tally {
	return &tally{said: make(map[string]time.Time), heard: make(map[string]map[int]time.Time)}
}

// say is to be called just before a value is published.
func (t *tally) say(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.said[value], t.heard[value] = time.Now(), make(map[int]time.Time)
}

// hear notes the first time, of values that were said.
func (t *tally) hear(site int, value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, again := t.heard[value][site]; !again && t.heard[value] != nil {
		t.heard[value][site] = time.Now()
	}
}

func (t *tally) count(value string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.heard[value])
}

// delays are those of all values and sites.
func (t *tally) delays() []time.Duration { return t.later(0) }

// later are the delays of what was said so long after the first word, or later still.
func (t *tally) later(d time.Duration) (out []time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var first time.Time
	for _, at := range t.said {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	for value, sites := range t.heard {
		if t.said[value].Before(first.Add(d)) {
			continue
		}
		for _, at := range sites {
			out = append(out, at.Sub(t.said[value]))
		}
	}
	return out
}

// word is a claim on evidence of one's own.
func word(who int, value string) wire.Indicator {
	return wire.Indicator{
		Type: wire.TypeAddress, Value: value, Score: 0.9, Confidence: 0.9, Evidence: wire.Validated, TLP: wire.TLPGreen,
		Sentence: "guessed passwords", EvidenceHash: wire.Hash{1, byte(who), byte(who >> 8)},
	}
}

// queryRow asks questions, and has one organisation after the other say the same
// until there are enough for a block.
func queryRow(ctx context.Context, r *runner) (_ *Row, err error) {
	words, led := newTally(), newTally()
	m, err := startMembers(ctx, r.Sites, func(i int, _ *host, o *federation.Options) error {
		o.OnAsk = func(_ wire.Type, _ string) (bool, uint64, time.Time) { return i%2 == 0, 1, time.Now() }
		o.OnIndicator = func(e federation.IndicatorEvent) {
			words.hearWord(i, &e)
			if e.Effect == federation.Enforce {
				led.hear(i, e.Indicator.Value)
			}
		}
		return nil
	})
	if m != nil {
		defer func() { err = errors.Join(err, m.end()) }()
	}
	if err != nil {
		return nil, err
	}
	row := &Row{Sites: r.Sites}
	if err := m.asks(r, row); err != nil {
		return nil, err
	}
	if err := m.agree(words, led, max(1, r.Messages/20)); err != nil {
		return nil, err
	}
	row.Series = append(row.Series, series("deciding word until a site is to block", led.delays()))
	row.Figures = append(row.Figures, row.Series[1].delays(0, 0)...)
	row.Notes = append(row.Notes, fmt.Sprintf("%d questions, one at a time, each to 5 of %d organisations", r.Messages, r.Sites))
	return row, nil
}

// asks puts the questions and counts the answers.
func (m *members) asks(r *runner, row *Row) error {
	var took []time.Duration
	const asked = 5 // as the federation does
	answers := 0
	for i := range r.Messages {
		if err := pause(m.ctx, 110*time.Millisecond/time.Duration(len(m.sites))); err != nil { // a site may ask ten times a second
			return err
		}
		began := time.Now()
		got, err := m.sites[i%len(m.sites)].Ask(m.ctx, address(i).String())
		if err != nil {
			return err
		}
		took = append(took, time.Since(began))
		answers += len(got)
	}
	row.Series = append(row.Series, series("question until it is answered", took))
	row.Figures = append(row.Series[0].delays(0, 500), Figure{Name: "answers that came in time", Value: 100 * float64(answers) / float64(asked*r.Messages), Unit: "%"})
	return nil
}

// agree has as many organisations say each of n values as it takes to block; the
// last one's word is timed.
func (m *members) agree(words, led *tally, n int) error {
	enough := intel.Drops(len(m.sites))
	for i := range n {
		value := address(i).String()
		for k := range enough {
			if k == enough-1 {
				led.say(value)
			}
			if err := m.tell(words, (i*enough+k)%len(m.sites), value); err != nil {
				return err
			}
		}
		// Those who said it themselves had enough words before the last one.
		err := poll(m.ctx, "enough organisations' words lead to a block", func() bool { return led.count(value) >= len(m.sites)-enough })
		if err != nil {
			return err
		}
	}
	return nil
}

// tell publishes a word and waits until it is heard everywhere.
func (m *members) tell(words *tally, who int, value string) error {
	name := value + " by " + m.hosts[who].org
	words.say(name)
	if _, err := m.sites[who].Publish(m.ctx, word(who, value)); err != nil {
		return err
	}
	return poll(m.ctx, "a word reaches every site", func() bool { return words.count(name) == len(m.sites)-1 })
}

// hearWord notes an event under the name that tell gives it.
func (t *tally) hearWord(site int, e *federation.IndicatorEvent) {
	t.hear(site, e.Indicator.Value+" by "+e.From)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
