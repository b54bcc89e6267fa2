//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
	"github.com/hedgerow-mesh/hedgerow/node/internal/intake"
)

// ModelCost is the time of a milestone's packet with a scorer and without, by
// test runs of the whole program. Some hundred flows with it and as many without,
// a moment apart, make a pair; which of them are scored changes with each round.
type ModelCost struct {
	Trees   int     `json:"trees"` // of one forest; 0: all but the trees themselves
	Depth   int     `json:"depth"`
	Packets uint32  `json:"packets"`
	With    float64 `json:"with_ns"` // medians
	Without float64 `json:"without_ns"`
	Pairs   int     `json:"pairs"`
	Net     float64 `json:"net_ns"` // median of the differences within the pairs
	// From and To bound that median at 95 %, whatever the differences are spread like.
	From  float64 `json:"net_from_ns"`
	To    float64 `json:"net_to_ns"`
	Least float64 `json:"least_ns"` // difference of the fastest, which the machine disturbed least
}

// ModelShare is what the packets of a capture cost on average.
type ModelShare struct {
	Capture string  `json:"name"` // its name, without its folder
	Trees   int     `json:"trees"`
	Depth   int     `json:"depth"`
	Packets uint64  `json:"packets"`
	Scored  uint64  `json:"scored"`
	Each    float64 `json:"ns_a_packet"`

	by [score.Milestones]uint64
}

// modelSize is a forest of so many trees.
type modelSize struct{ trees, depth int }

// distilled is the largest that distillation makes by itself. What it makes is
// smaller, as trees stop where no question tells more.
var distilled = modelSize{32, 5}

// modelSizes are measured: what all but the trees costs, what sites have, and more.
var modelSizes = []modelSize{{0, 1}, distilled, {64, score.MaxDepth}, {100, score.MaxDepth}}

// modelFlows is the program with its stream, whose clients are new each time.
type modelFlows struct {
	*xdpbench.Flows
	stream *xdpbench.Stream
	used   int
}

func newModelFlows(room, clients int) (*modelFlows, error) {
	e := xdpbench.Ends{From: sendMAC, To: recvMAC, Dst: recvAddr}
	s, err := xdpbench.NewStream(e, clients)
	if err != nil {
		return nil, err
	}
	f, err := xdpbench.LoadScored(ours, uint32(room), e)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &modelFlows{Flows: f, stream: s}, nil
}

func (f *modelFlows) close() error { return errors.Join(f.Close(), f.stream.Close()) }

// fresh makes n clients that were not there before the stream's.
func (f *modelFlows) fresh(n int) error {
	list := make([]xdpbench.Source, n)
	for i := range list {
		list[i] = client(f.used + i)
	}
	f.used += n
	return f.stream.SetSources(list)
}

// pairsOfLife is how many pairs a life gives at each milestone. Each half of one is a
// run by itself: the fewer, the less of it is what the kernel does around a run.
const pairsOfLife = 2

// costPairs are the times of packets at each milestone: with a scorer, and without.
type costPairs [score.Milestones]struct{ with, without []float64 }

// life runs all clients up to their 64th packet. At a milestone they come in parts,
// with the scorer and without by turns; turn says which is first, so that over two
// lives each flow is in either half of a pair. The table is emptied before, so
// that each life is in the same memory, and the ring of events before each part, so
// that in both a milestone is told.
func (f *modelFlows) life(clients, turn int, to *costPairs) error {
	if err := f.Forget(); err != nil {
		return err
	}
	sent, part := 0, clients/(2*pairsOfLife)
	for m := range to {
		due := int(score.Milestone(m).Packets())
		if _, err := f.Run(f.stream, (due-1-sent)*clients); err != nil {
			return err
		}
		for i := range 2 * pairsOfLife {
			with := (i+i/2+turn)%2 == 0 // with, without, without, with
			_, err := f.Read()
			if err = errors.Join(err, f.Heed(with)); err != nil {
				return err
			}
			took, err := f.Run(f.stream, part)
			if err != nil {
				return err
			}
			if half := &to[m]; with {
				half.with = append(half.with, float64(took.Nanoseconds()))
			} else {
				half.without = append(half.without, float64(took.Nanoseconds()))
			}
		}
		sent = due
	}
	return f.Heed(true)
}

// costs runs flows up to their 64th packet, with scorers of several sizes by turns, all
// in one table: where its memory lies makes more of a difference than a scorer does.
func (r *ModelReport) costs(ctx context.Context, o *ModelOptions) (err error) {
	clients, lives := 2000, 4*o.Rounds
	if o.Quick {
		clients, lives = 400, 2*o.Rounds
	}
	o.Progress("cost of a milestone's packet")
	f, err := newModelFlows(16*clients, clients)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.fresh(clients); err != nil {
		return err
	}
	took := make([]costPairs, len(modelSizes))
	for turn := range lives {
		for i, size := range modelSizes {
			s := dataplane.Scoring{Active: passing(rand.New(rand.NewPCG(1, uint64(size.trees))), 1, size)}
			if err := errors.Join(ctx.Err(), f.Scorer().SetScoring(s)); err != nil {
				return err
			}
			if err := f.life(clients, turn, &took[i]); err != nil {
				return err
			}
		}
	}
	for i, size := range modelSizes {
		r.conclude(size, &took[i])
	}
	return f.wereScored(uint64(clients / 2 * lives * len(modelSizes)))
}

func (r *ModelReport) conclude(s modelSize, took *costPairs) {
	for m := range took {
		with, without := took[m].with, took[m].without
		c := ModelCost{Trees: s.trees, Depth: s.depth, Packets: score.Milestone(m).Packets(), With: median(with), Without: median(without), Pairs: len(with)}
		diffs := make([]float64, len(with))
		for i := range diffs {
			diffs[i] = with[i] - without[i]
		}
		c.Net, c.Least = median(diffs), slices.Min(with)-slices.Min(without)
		c.From, c.To = aroundMedian(diffs)
		r.Costs = append(r.Costs, c)
	}
}

// wereScored checks that these flows were. One that found no place in the table is
// not; and none may grow so old meanwhile that it ends.
func (f *modelFlows) wereScored(flows uint64) error {
	s, err := f.Scorer().ScoringState()
	if err != nil {
		return err
	}
	for m, n := range s.Scored {
		if n > flows || n < flows*97/100 {
			return fmt.Errorf("milestone %d: %d of %d flows were scored: the machine is too busy to measure", m, n, flows)
		}
	}
	return nil
}

// weigh says what a packet of the capture costs on average with the largest scorer
// that distillation makes.
func (r *ModelReport) weigh(context.Context, *ModelOptions) error {
	if r.Weighed == nil {
		return nil
	}
	at := slices.IndexFunc(r.Costs, func(c ModelCost) bool { return c.Trees == distilled.trees })
	if at < 0 {
		return errors.New("capture: the cost of a scored packet was not measured")
	}
	w := r.Weighed
	var spent float64
	for m, n := range w.by {
		w.Scored += n
		spent += float64(n) * r.Costs[at+m].Net
	}
	w.Each = spent / float64(max(w.Packets, 1))
	return nil
}

// count has the plane of userspace, which scores at the same packets, read a real capture.
func (r *ModelReport) count(ctx context.Context, o *ModelOptions) (err error) {
	if o.Capture == "" {
		return nil
	}
	o.Progress("packets of " + o.Capture)
	w := &ModelShare{Capture: filepath.Base(o.Capture), Trees: distilled.trees, Depth: distilled.depth}
	c, err := intake.OpenCapture(o.Capture)
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	p, err := softplane.Open(softplane.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := p.SetScoring(dataplane.Scoring{Active: passing(rand.New(rand.NewPCG(4, 4)), 1, modelSize{1, 1})}); err != nil {
		return err
	}
	for ctx.Err() == nil {
		k, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		p.Captured(k.Link, k.Data, k.OrigLen, k.At)
		p.Drain(func(*dataplane.Event) {})
	}
	st, err := p.Stats()
	if err != nil {
		return err
	}
	s, err := p.ScoringState()
	w.Packets, w.by, r.Weighed = st.Packets, s.Scored, w
	return errors.Join(err, ctx.Err())
}
