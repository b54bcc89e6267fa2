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
// test runs of the whole program; each round has flows of its own.
type ModelCost struct {
	Trees   int     `json:"trees"` // of one forest; 0: all but the trees themselves
	Depth   int     `json:"depth"`
	Packets uint32  `json:"packets"`
	With    float64 `json:"with_ns"` // medians
	Without float64 `json:"without_ns"`
	Net     float64 `json:"net_ns"`   // difference of the medians
	Least   float64 `json:"least_ns"` // difference of the fastest rounds, which the machine disturbed least
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
	f, err := xdpbench.LoadFlows(ours, uint32(room), false, e)
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

// life runs all clients up to their 64th packet; the time of each milestone's
// packet. What lies between two milestones is one run, as the kernel makes much
// ado about each. The table is emptied first, so that each life is in the same memory.
func (f *modelFlows) life(clients int) (ns [score.Milestones]float64, err error) {
	if err := f.Forget(); err != nil {
		return ns, err
	}
	sent := 0
	for m := range ns {
		due := int(score.Milestone(m).Packets())
		if _, err := f.Run(f.stream, (due-1-sent)*clients); err != nil {
			return ns, err
		}
		took, err := f.Run(f.stream, clients)
		if err != nil {
			return ns, err
		}
		ns[m], sent = float64(took.Nanoseconds()), due
	}
	return ns, nil
}

// costs runs flows up to their 64th packet, without a scorer and with those of
// several sizes by turns, all in one table: where its memory lies makes more of a
// difference than a scorer does.
func (r *ModelReport) costs(ctx context.Context, o *ModelOptions) (err error) {
	clients := 2000
	if o.Quick {
		clients = 500
	}
	o.Progress("cost of a milestone's packet")
	subjects := make([]dataplane.Scoring, 1+len(modelSizes)) // the first scores nothing
	for i, size := range modelSizes {
		subjects[i+1].Active = passing(rand.New(rand.NewPCG(1, uint64(size.trees))), 1, size)
	}
	f, err := newModelFlows(16*clients, clients)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.fresh(clients); err != nil {
		return err
	}
	took := make([][score.Milestones][]float64, len(subjects))
	for range o.Rounds {
		for i := range subjects {
			if err := errors.Join(ctx.Err(), f.Scorer().SetScoring(subjects[i])); err != nil {
				return err
			}
			ns, err := f.life(clients)
			if err != nil {
				return err
			}
			for m := range ns {
				took[i][m] = append(took[i][m], ns[m])
			}
		}
	}
	for i, size := range modelSizes {
		r.conclude(size, &took[i+1], &took[0])
	}
	return f.wereScored(uint64(clients * o.Rounds * len(modelSizes)))
}

func (r *ModelReport) conclude(s modelSize, with, without *[score.Milestones][]float64) {
	for m := range with {
		c := ModelCost{Trees: s.trees, Depth: s.depth, Packets: score.Milestone(m).Packets(), With: median(with[m]), Without: median(without[m])}
		c.Net, c.Least = c.With-c.Without, slices.Min(with[m])-slices.Min(without[m])
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
