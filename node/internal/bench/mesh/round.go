package mesh

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/council"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// ready is a trainer whose work is done: it adds what it has to the model at once.
type ready struct{ update []float32 }

func (t ready) Train(_ context.Context, _ uint64, base []float32) ([]float32, int, error) {
	for i := range base {
		base[i] += t.update[i]
	}
	return base, 100, nil
}

func (ready) Adopt(context.Context, uint64, string, []float32) (bool, string, error) {
	return true, "", nil
}

// disk is a site's store as the federation wants it.
type disk struct{ *store.Store }

func (d disk) Load(key string) ([]byte, error) {
	b, err := d.Store.Load(key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, federation.ErrNotFound
	}
	return b, err
}

// chart is when each site came to each step of each round, and what it had sent.
type chart struct {
	mu   sync.Mutex
	step map[string]map[uint64]map[int]time.Time
	sent map[uint64]map[int]int64
	cost map[uint64]cost // of all, when the first site entered
	load load
}

func (c *chart) note(site int, e federation.RoundEvent, sent int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.step[e.Step] == nil {
		c.step[e.Step] = make(map[uint64]map[int]time.Time)
	}
	at := c.step[e.Step]
	if at[e.Round] == nil {
		if e.Step == council.Entered {
			c.cost[e.Round] = c.load.now()
		}
		at[e.Round] = make(map[int]time.Time)
	}
	if _, again := at[e.Round][site]; again {
		return
	}
	at[e.Round][site] = e.At
	if e.Step == council.Entered {
		if c.sent[e.Round] == nil {
			c.sent[e.Round] = make(map[int]int64)
		}
		c.sent[e.Round][site] = sent
	}
}

// first is when the first site came to a step of a round.
func (c *chart) first(step string, round uint64) (t time.Time) {
	for _, at := range c.step[step][round] {
		if t.IsZero() || at.Before(t) {
			t = at
		}
	}
	return t
}

// last is when the last of n sites did; zero while one has not.
func (c *chart) last(step string, round uint64, n int) (t time.Time) {
	if len(c.step[step][round]) < n {
		return t
	}
	for _, at := range c.step[step][round] {
		if at.After(t) {
			t = at
		}
	}
	return t
}

// whole lists the rounds that every site saw from the beginning to their end, and
// that followed each other without one that failed.
func (c *chart) whole(n int) (out []uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := uint64(2); len(c.step[council.Entered][r]) > 0; r++ { // the first waits for sites to come
		if !c.last(council.Final, r, n).IsZero() && len(c.sent[r]) == n && len(c.sent[r+1]) == n {
			out = append(out, r)
		}
	}
	return out
}

// roundRow lets rounds of models follow each other without a pause.
func roundRow(ctx context.Context, r *runner) (_ *Row, err error) {
	c := &chart{step: make(map[string]map[uint64]map[int]time.Time), sent: make(map[uint64]map[int]int64), cost: make(map[uint64]cost)}
	updates := noise(r.Sites, r.Params, 2)
	var stores []*store.Store
	defer func() {
		for _, s := range stores {
			err = errors.Join(err, s.Close())
		}
	}()
	m, err := startMembers(ctx, r.Sites, func(i int, h *host, o *federation.Options) error {
		st, err := store.Open(filepath.Join(r.dir, "round", h.org), store.Options{})
		if err != nil {
			return err
		}
		stores = append(stores, st)
		o.Transport = counted{h, &c.load}
		o.Storage, o.Trainer, o.Schema, o.ParamDim = disk{st}, ready{updates[i]}, "bench/1", r.Params
		o.RoundEvery, o.DeltaDeadline = time.Nanosecond, 20*time.Second
		o.Consortium.Genesis, err = federation.NewGenesis("bench", o.Schema, make([]float32, r.Params), o.Consortium.Roll.Counted)
		o.OnRound = func(e federation.RoundEvent) {
			sent, _ := h.Traffic()
			c.note(i, e, sent)
		}
		return err
	})
	if m != nil {
		defer func() { err = errors.Join(err, m.end()) }()
	}
	if err != nil {
		return nil, err
	}
	if err := poll(m.ctx, "rounds are final at every site", func() bool { return len(c.whole(r.Sites)) >= r.Rounds }); err != nil {
		return nil, err
	}
	return c.row(r), nil
}

// phases tells when the first, the median and the last site came to each step of a round,
// as medians of the rounds. c.mu is held.
func (c *chart) phases(rounds []uint64) string {
	var out []string
	for _, step := range []string{council.Entered, council.Committed, council.Closed, council.Listed, council.Sealed} {
		at := make([][]time.Duration, 3)
		for _, r := range rounds {
			var came []time.Duration
			for _, t := range c.step[step][r] {
				came = append(came, t.Sub(c.first(council.Entered, r)))
			}
			if len(came) == 0 {
				continue // a seal can come before what led to it
			}
			slices.Sort(came)
			for i, d := range []time.Duration{came[0], came[len(came)/2], came[len(came)-1]} {
				at[i] = append(at[i], d)
			}
		}
		if len(at[0]) == 0 {
			continue
		}
		var s [3]float64
		for i := range at {
			slices.Sort(at[i])
			s[i] = at[i][len(at[i])/2].Seconds()
		}
		out = append(out, fmt.Sprintf("%s %.1f, %.1f, %.1f", step, s[0], s[1], s[2]))
	}
	return "seconds into a round at the first, median and last site: " + strings.Join(out, "; ")
}

func (c *chart) row(r *runner) *Row {
	rounds := c.whole(r.Sites)[:r.Rounds]
	c.mu.Lock()
	defer c.mu.Unlock()
	var sealed, final []time.Duration
	var most int64
	for _, n := range rounds {
		began := c.first(council.Entered, n)
		sealed = append(sealed, c.last(council.Sealed, n, r.Sites).Sub(began))
		final = append(final, c.last(council.Final, n, r.Sites).Sub(began))
		for i := range r.Sites {
			most = max(most, c.sent[n+1][i]-c.sent[n][i])
		}
	}
	row := &Row{Sites: r.Sites, Series: []Series{series("round until all have its seal", sealed), series("round until it is final for all", final)}}
	row.Figures = []Figure{
		{Name: "sealed at the last site, worst round", Value: row.Series[0].at(1) / 1000, Unit: "s"},
		{Name: "final at the last site, worst round", Value: row.Series[1].at(1) / 1000, Unit: "s", Target: 10},
		{Name: "sent by the site that sent most", Value: float64(most) / 1e6, Unit: "MB", Target: 8},
	}
	// A round's last messages belong to its seal; what is final by the next one's is
	// not counted twice.
	spent, per := c.cost[rounds[0]], len(rounds)
	then := c.cost[rounds[len(rounds)-1]+1]
	busy := (then.cpu - spent.cpu).Seconds() / float64(per)
	row.Figures = append(row.Figures, Figure{Name: "processor time of a round, of all sites", Value: busy, Unit: "s"},
		Figure{Name: "processor time of a round, of one site", Value: busy / float64(r.Sites), Unit: "s"})
	row.Notes = append(row.Notes, c.phases(rounds))
	row.Notes = append(row.Notes, "by one site in a round: "+spent.between(then, per, r.Sites))
	row.Notes = append(row.Notes, fmt.Sprintf("%d rounds of %d organisations with %d parameters, back to back, stores on the disk; final means that the next round is sealed too",
		len(rounds), r.Sites, r.Params))
	return row
}
