//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score/scoretest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
)

// ModelOptions say what to measure of the scorer in the kernel.
type ModelOptions struct {
	Rounds  int    // 0: 7, or 3 when quick
	Quick   bool   // few flows and swaps: shows that it works
	Capture string // a real capture that the cost of a packet is weighted by; "": none
	Only    string // one of ModelParts; "": all
	// Gateway starts a process that is the gateway of package forwarding; nil leaves
	// that part out.
	Gateway  []string
	Progress func(string)
}

// ModelReport is what the scorer in the kernel costs, and what it lets through.
// What a forest costs does not depend on what it learnt: all here are random.
type ModelReport struct {
	Kernel  string      `json:"kernel"`
	CPUs    int         `json:"cpus"`
	Object  string      `json:"object"`
	Costs   []ModelCost `json:"costs,omitempty"`
	Weighed *ModelShare `json:"capture,omitempty"`
	Swaps   []ModelSwap `json:"swaps,omitempty"`
	Under   *ModelUnder `json:"swaps_under_traffic,omitempty"`
	Leaks   []ModelLeak `json:"leaks,omitempty"`
	Forward *Row        `json:"forwarding,omitempty"`
}

// ModelSwap is how long one scorer takes into the kernel, in milliseconds.
type ModelSwap struct {
	Forests      int     `json:"forests"`
	Trees        int     `json:"trees"` // of each
	Depth        int     `json:"depth"`
	Instructions int     `json:"instructions"` // of each of two programs
	Compile      float64 `json:"compile_ms"`
	Load         float64 `json:"load_ms"`
	Swap         float64 `json:"swap_ms"`
	Slowest      float64 `json:"slowest_ms"` // of all three together
}

// ModelUnder counts milestones while scorers are swapped.
type ModelUnder struct {
	Swaps    int    `json:"swaps"`
	Reached  uint64 `json:"reached"`
	Scored   uint64 `json:"scored"`
	Expected uint64 `json:"expected"` // by the packets that were sent
}

// Model measures. It needs root.
func Model(ctx context.Context, o ModelOptions) (*ModelReport, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("measuring needs root: it loads programs and makes network namespaces")
	}
	if o.Only != "" && !slices.Contains(ModelParts, o.Only) {
		return nil, fmt.Errorf("part %q: expected one of %s", o.Only, strings.Join(ModelParts, ", "))
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
	for _, part := range ModelParts {
		if o.Only != "" && o.Only != part {
			continue
		}
		for _, step := range r.part(part) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := step(ctx, &o); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// ModelParts are what is measured, in this order.
var ModelParts = []string{"cost", "swap", "leak", "forward"}

func (r *ModelReport) part(name string) []func(context.Context, *ModelOptions) error {
	type steps = []func(context.Context, *ModelOptions) error
	switch name {
	case "cost":
		return steps{r.count, r.costs, r.weigh}
	case "swap":
		return steps{r.swaps, r.under}
	case "leak":
		return steps{r.leaks}
	}
	return steps{r.forward}
}

// passing is a scorer that is evaluated and finds nothing.
func passing(rng *rand.Rand, forests int, size modelSize) *score.Scorer {
	s := scoretest.Random(rng, forests, size.trees, size.depth)
	for m := range s.Steps {
		s.Steps[m].Limit, s.Steps[m].Suspend = score.Never, score.Never
	}
	return s
}

// swaps takes scorers of several sizes into the kernel.
func (r *ModelReport) swaps(_ context.Context, o *ModelOptions) (err error) {
	f, err := newModelFlows(1<<10, 16)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	for _, one := range []ModelSwap{
		{Forests: 1, Trees: distilled.trees, Depth: distilled.depth}, {Forests: 1, Trees: 100, Depth: score.MaxDepth},
		{Forests: score.Milestones, Trees: score.MaxTrees, Depth: score.MaxDepth},
	} {
		o.Progress(fmt.Sprintf("swap of %d forests of %d trees", one.Forests, one.Trees))
		var parts [3][]float64
		for i := range 3 * o.Rounds {
			s := passing(rand.New(rand.NewPCG(2, uint64(i))), one.Forests, modelSize{one.Trees, one.Depth})
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
	r.Under = &ModelUnder{Swaps: 1000}
	if o.Quick {
		r.Under.Swaps = 50
	}
	o.Progress(fmt.Sprintf("%d swaps under traffic", r.Under.Swaps))
	f, err := newModelFlows(1<<20, clients)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	scorers := []*score.Scorer{passing(rand.New(rand.NewPCG(3, 1)), 1, distilled), passing(rand.New(rand.NewPCG(3, 2)), 1, distilled)}
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
