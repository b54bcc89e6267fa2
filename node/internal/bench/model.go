//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score/scoretest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
	"github.com/hedgerow-mesh/hedgerow/node/internal/intake"
)

// ModelOptions say what to measure of the scorer in the kernel.
type ModelOptions struct {
	Rounds   int    // 0: 7, or 3 when quick
	Quick    bool   // few flows and swaps: shows that it works
	Capture  string // a real capture that the cost of a packet is weighted by; "": none
	Progress func(string)
}

// ModelReport is what the scorer in the kernel costs, and what it lets through.
// What a forest costs does not depend on what it learnt: all here are random.
type ModelReport struct {
	Kernel  string      `json:"kernel"`
	CPUs    int         `json:"cpus"`
	Object  string      `json:"object"`
	Costs   []ModelCost `json:"costs"`
	Swaps   []ModelSwap `json:"swaps"`
	Under   ModelUnder  `json:"swaps_under_traffic"`
	Leaks   []ModelLeak `json:"leaks"`
	Weighed *ModelShare `json:"capture,omitempty"`
}

// ModelCost is the time of a milestone's packet with a scorer and without, by
// test runs of the whole program; each round has flows of its own.
type ModelCost struct {
	Trees   int     `json:"trees"` // of depth 6, in one forest
	Packets uint32  `json:"packets"`
	With    float64 `json:"with_ns"` // medians
	Without float64 `json:"without_ns"`
	Net     float64 `json:"net_ns"` // median of the rounds' differences
	Highest float64 `json:"highest_net_ns"`
}

// ModelSwap is how long one scorer takes into the kernel, in milliseconds.
type ModelSwap struct {
	Forests, Trees int
	Instructions   int
	Compile        float64 `json:"compile_ms"`
	Load           float64 `json:"load_ms"`
	Swap           float64 `json:"swap_ms"`
	Slowest        float64 `json:"slowest_ms"` // of all three together
}

// ModelUnder counts milestones while scorers are swapped.
type ModelUnder struct {
	Swaps    int    `json:"swaps"`
	Reached  uint64 `json:"reached"`
	Scored   uint64 `json:"scored"`
	Expected uint64 `json:"expected"` // by the packets that were sent
}

// ModelShare is what the packets of a capture cost on average.
type ModelShare struct {
	Capture string  `json:"capture"`
	Packets uint64  `json:"packets"`
	Scored  uint64  `json:"scored"`
	Each    float64 `json:"ns_a_packet"`
}

// Model measures. It needs root.
func Model(ctx context.Context, o ModelOptions) (*ModelReport, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("measuring needs root: it loads programs and makes network namespaces")
	}
	if o.Rounds == 0 {
		o.Rounds = 7
		if o.Quick {
			o.Rounds = 3
		}
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	r := &ModelReport{CPUs: runtime.NumCPU(), Object: xdpbench.ObjectHash()}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	for _, step := range []func(context.Context, *ModelOptions) error{r.costs, r.swaps, r.under, r.leaks, r.weigh} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := step(ctx, &o); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// passing is a scorer that is evaluated and finds nothing.
func passing(rng *rand.Rand, forests, trees int) *score.Scorer {
	s := scoretest.Random(rng, forests, trees, score.MaxDepth)
	for m := range s.Steps {
		s.Steps[m].Limit, s.Steps[m].Suspend = score.Never, score.Never
	}
	return s
}

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

// costs runs flows up to their 64th packet, with a scorer and without by turns.
func (r *ModelReport) costs(_ context.Context, o *ModelOptions) (err error) {
	clients := 20000
	if o.Quick {
		clients = 2000
	}
	for _, trees := range []int{64, 100} {
		o.Progress(fmt.Sprintf("cost of %d trees", trees))
		if err := r.cost(trees, clients, o.Rounds); err != nil {
			return fmt.Errorf("cost of %d trees: %w", trees, err)
		}
	}
	return nil
}

func (r *ModelReport) cost(trees, clients, rounds int) (err error) {
	var with, without, net [score.Milestones][]float64
	for range rounds {
		var took [2][score.Milestones]float64
		for on := range 2 {
			if took[on], err = costRound(trees, clients, on == 1); err != nil {
				return err
			}
		}
		for m := range took[0] {
			without[m], with[m] = append(without[m], took[0][m]), append(with[m], took[1][m])
			net[m] = append(net[m], took[1][m]-took[0][m])
		}
	}
	for m := range net {
		c := ModelCost{Trees: trees, Packets: score.Milestone(m).Packets(), With: median(with[m]), Without: median(without[m]), Net: median(net[m])}
		for _, x := range net[m] {
			c.Highest = max(c.Highest, x)
		}
		r.Costs = append(r.Costs, c)
	}
	return nil
}

// costRound is one life of all clients; the time of each milestone's packet.
func costRound(trees, clients int, scored bool) (ns [score.Milestones]float64, err error) {
	f, err := newModelFlows(1<<17, clients)
	if err != nil {
		return ns, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if scored {
		s := passing(rand.New(rand.NewPCG(1, uint64(trees))), 1, trees)
		if err := f.Scorer().SetScoring(dataplane.Scoring{Active: s}); err != nil {
			return ns, err
		}
	}
	if err := f.fresh(clients); err != nil {
		return ns, err
	}
	for n := uint32(1); n <= 64; n++ {
		took, err := f.Run(f.stream, clients)
		if err != nil {
			return ns, err
		}
		if at, due := score.Due(n-1, n); due {
			ns[at] = float64(took.Nanoseconds())
		}
	}
	s, err := f.Scorer().ScoringState()
	if err != nil {
		return ns, err
	}
	for m, n := range s.Scored {
		// A flow that found no place in the table is not scored.
		if want := uint64(clients); scored && (n > want || n < want*99/100) || !scored && n != 0 {
			return ns, fmt.Errorf("milestone %d: %d of %d flows were scored", m, n, want)
		}
	}
	return ns, nil
}

// swaps takes scorers of several sizes into the kernel.
func (r *ModelReport) swaps(_ context.Context, o *ModelOptions) (err error) {
	f, err := newModelFlows(1<<10, 16)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	for _, size := range [][2]int{{1, 64}, {1, 100}, {5, 64}, {5, score.MaxTrees}} {
		o.Progress(fmt.Sprintf("swap of %d forests of %d trees", size[0], size[1]))
		one := ModelSwap{Forests: size[0], Trees: size[1]}
		var parts [3][]float64
		for i := range 3 * o.Rounds {
			s := passing(rand.New(rand.NewPCG(2, uint64(i))), size[0], size[1])
			if err := f.Scorer().SetScoring(dataplane.Scoring{Active: s}); err != nil {
				return err
			}
			st, err := f.Scorer().ScoringState()
			if err != nil {
				return err
			}
			one.Instructions = st.Instructions
			all := 0.0
			for k, d := range []time.Duration{st.Compile, st.Load, st.Swap} {
				parts[k] = append(parts[k], d.Seconds()*1e3)
				all += d.Seconds() * 1e3
			}
			one.Slowest = max(one.Slowest, all)
		}
		one.Compile, one.Load, one.Swap = median(parts[0]), median(parts[1]), median(parts[2])
		r.Swaps = append(r.Swaps, one)
	}
	return nil
}

// under swaps while flows reach milestones on another thread.
func (r *ModelReport) under(ctx context.Context, o *ModelOptions) (err error) {
	const clients, packets = 1000, 16 // three milestones each
	r.Under.Swaps = 1000
	if o.Quick {
		r.Under.Swaps = 50
	}
	o.Progress(fmt.Sprintf("%d swaps under traffic", r.Under.Swaps))
	f, err := newModelFlows(1<<20, clients)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	scorers := []*score.Scorer{passing(rand.New(rand.NewPCG(3, 1)), 1, 64), passing(rand.New(rand.NewPCG(3, 2)), 1, 64)}
	if err := f.Scorer().SetScoring(dataplane.Scoring{Active: scorers[0]}); err != nil {
		return err
	}
	stop := make(chan struct{})
	var sent error
	var lives int
	var wg sync.WaitGroup
	wg.Go(func() {
		for ; sent == nil; lives++ {
			select {
			case <-stop:
				return
			default:
			}
			if sent = f.fresh(clients); sent == nil {
				_, sent = f.Run(f.stream, clients*packets)
			}
		}
	})
	for i := range r.Under.Swaps {
		if err = errors.Join(ctx.Err(), f.Scorer().SetScoring(dataplane.Scoring{Active: scorers[(i+1)%2]})); err != nil {
			break
		}
	}
	close(stop)
	wg.Wait()
	if err = errors.Join(err, sent); err != nil {
		return err
	}
	s, err := f.Scorer().ScoringState()
	if err != nil {
		return err
	}
	for m := range s.Due {
		r.Under.Reached += s.Due[m]
		r.Under.Scored += s.Scored[m]
	}
	r.Under.Expected = uint64(3 * clients * lives)
	if r.Under.Reached == 0 {
		return errors.New("swaps under traffic: no flow reached a milestone")
	}
	return nil
}

// weigh says how many packets of a real capture are scored.
func (r *ModelReport) weigh(_ context.Context, o *ModelOptions) (err error) {
	if o.Capture == "" {
		return nil
	}
	c, err := intake.OpenCapture(o.Capture)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	p, err := softplane.Open(softplane.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := p.SetScoring(dataplane.Scoring{Active: passing(rand.New(rand.NewPCG(4, 4)), 1, 1)}); err != nil {
		return err
	}
	for {
		k, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		p.Captured(k.Link, k.Data, k.OrigLen, k.At)
		p.Drain(func(*dataplane.Event) {})
	}
	st, err := p.Stats()
	if err != nil {
		return err
	}
	s, err := p.ScoringState()
	if err != nil {
		return err
	}
	w := &ModelShare{Capture: o.Capture, Packets: st.Packets}
	var spent float64
	for m, n := range s.Scored {
		w.Scored += n
		spent += float64(n) * r.Costs[m].Net // those of the first size
	}
	w.Each = spent / float64(max(w.Packets, 1))
	r.Weighed = w
	return nil
}
