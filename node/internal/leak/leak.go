package leak

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/privacy"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
)

// Options say what to attack. Zero values take the defaults.
type Options struct {
	Captures string    // folder whose captures are normal traffic
	Attack   string    // capture all of whose flows are attacks
	Flows    int       // that teach; default 1000
	Steps    int       // of a training; default 1000
	Trials   int       // trainings with and as many without the planted flow; default 20
	Noise    []float64 // in clips; default 0 (the control: cut, no noise), 2, 8
	Clip     float64   // default 0.1
	Delta    float64   // default 1e-6
	Seed     uint64
	Progress func(string)
}

func (o *Options) fill() {
	o.Flows, o.Steps, o.Trials = cmp.Or(o.Flows, 1000), cmp.Or(o.Steps, 1000), cmp.Or(o.Trials, 20)
	o.Clip, o.Delta = cmp.Or(o.Clip, 0.1), cmp.Or(o.Delta, 1e-6)
	if o.Noise == nil {
		o.Noise = []float64{0, 2, 8}
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
}

// batch is how many flows a step draws, as on a gateway.
const batch = 64

// Report is what the attacks got.
type Report struct {
	Normal  int   `json:"normal_flows"`
	Attacks int   `json:"attack_flows"`
	Flows   int   `json:"teaching"`
	Steps   int   `json:"steps"`
	Rows    []Row `json:"rows"`
}

// Row is one way of making updates.
type Row struct {
	Way     string  `json:"way"`
	Epsilon float64 `json:"epsilon"` // of one update; 0 is none
	// Member is the area under the curve of telling who taught, and Caught the share
	// of those found at 1 % false accusations.
	Member float64 `json:"member_auc"`
	Caught float64 `json:"member_tpr_at_1"`
	// Planted is the same area for the planted flow, and Bound what epsilon allows.
	Planted float64 `json:"planted_auc"`
	Bound   float64 `json:"planted_bound,omitempty"`
	// One is the error of rebuilding one flow from one step, root mean square in
	// units of the input; Near and Control are how many flows that taught, and that
	// did not, a whole update's guesses come near to.
	One     float64 `json:"one_flow_error"`
	Near    int     `json:"near"`
	Control int     `json:"near_control"`
	// Utility is the area under the curve of attacks that were not taught against
	// normal flows that were not, by the updated classifier.
	Utility float64 `json:"utility_auc"`
}

// way is one of making an update; noise below 0 is plain training.
type way struct{ noise float64 }

// bench is what all ways share.
type bench struct {
	Options
	base          []float32
	in, out, rest []feature.Vector
	evil, unseen  []learner.Example
	planted       feature.Vector
}

// Run attacks plain updates and noisy ones.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.fill()
	normal, evil, err := o.load(ctx)
	if err != nil {
		return nil, err
	}
	b, err := o.prepare(ctx, normal, evil)
	if err != nil {
		return nil, err
	}
	r := &Report{Normal: len(normal), Attacks: len(evil), Flows: o.Flows, Steps: o.Steps}
	for _, w := range append([]way{{-1}}, ways(o.Noise)...) {
		row, err := b.row(ctx, w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", row.Way, err)
		}
		r.Rows = append(r.Rows, row)
	}
	return r, nil
}

func ways(noise []float64) []way {
	out := make([]way, len(noise))
	for i, n := range noise {
		out[i] = way{n}
	}
	return out
}

// load reads the flows that ended, in an order of its own.
func (o *Options) load(ctx context.Context) (normal []feature.Vector, evil []learner.Example, err error) {
	files, err := filepath.Glob(filepath.Join(o.Captures, "*.pcap*"))
	if err != nil || len(files) == 0 {
		return nil, nil, fmt.Errorf("captures: no *.pcap* in %s: name a folder with captures of normal traffic", o.Captures)
	}
	need := 3*o.Flows + batch
	rng := rand.New(rand.NewPCG(o.Seed, 0x6c65616b))
	rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	for _, f := range files {
		if fi, err := os.Stat(f); err != nil || fi.Size() > 8<<20 {
			continue // a few large ones would be most of it
		}
		vs, err := flows(ctx, f, need/20)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if err != nil {
			continue // not of IP
		}
		if normal = append(normal, vs...); len(normal) >= need {
			break
		}
	}
	if len(normal) < need {
		return nil, nil, fmt.Errorf("captures: %d flows in %s: %d are needed for %d that teach, as many that do not, and a model before", len(normal), o.Captures, need, o.Flows)
	}
	rng.Shuffle(len(normal), func(i, j int) { normal[i], normal[j] = normal[j], normal[i] })
	vs, err := flows(ctx, o.Attack, 400)
	if err == nil && len(vs) < 20 {
		err = fmt.Errorf("%d flows: 20 are needed", len(vs))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("attack: %s: %w", o.Attack, err)
	}
	for i := range vs {
		evil = append(evil, learner.Example{V: vs[i], Weight: 1})
	}
	return normal, evil, nil
}

// flows reads at most so many finished flows of a capture.
func flows(ctx context.Context, path string, most int) (out []feature.Vector, err error) {
	_, err = history.Read(ctx, path, history.Options{Settle: time.Second}, func(r *history.Report) {
		if r.Final && len(out) < most {
			out = append(out, *r.V)
		}
	})
	return out, err
}

// prepare parts the flows and makes the model that an update starts from: one that
// already knows the attack a little, as in any round but the first.
func (o *Options) prepare(ctx context.Context, normal []feature.Vector, evil []learner.Example) (*bench, error) {
	n := o.Flows
	b := &bench{Options: *o, in: normal[:n], out: normal[n : 2*n], rest: normal[2*n:], evil: evil[:len(evil)/2], unseen: evil[len(evil)/2:]}
	b.planted = normal[2*n]
	for i := range b.planted.X { // as no flow is: everything at the other end
		if b.planted.Known(i) && !feature.IsFlag(i) {
			b.planted.X[i] = min(max(1-b.planted.X[i], 0), 1)
		}
	}
	o.Progress("the model before")
	var err error
	b.base, err = learner.TrainShared(ctx, learner.Config{Seed: o.Seed}, learner.InitShared(1), b.rest, b.evil, min(200, o.Steps))
	return b, err
}

func (b *bench) row(ctx context.Context, w way) (r Row, err error) {
	r.Way = fmt.Sprintf("cut to %g, noise %g", b.Clip, w.noise)
	if w.noise < 0 {
		r.Way = "as it is by default"
	}
	b.Progress(r.Way)
	if w.noise > 0 {
		var a privacy.Account
		if err := a.Spend(batch/float64(b.Flows), w.noise, b.Steps); err != nil {
			return r, err
		}
		if r.Epsilon, err = a.Epsilon(b.Delta); err != nil {
			return r, err
		}
		r.Bound = bound(r.Epsilon, b.Delta)
	}
	update, err := b.train(ctx, w, b.in, 0)
	if err != nil {
		return r, err
	}
	if err := b.members(&r, update); err != nil {
		return r, err
	}
	b.invert(&r, update)
	if err := b.useful(&r, update); err != nil {
		return r, err
	}
	if r.One, err = b.one(w); err != nil {
		return r, err
	}
	r.Planted, err = b.plant(ctx, w)
	return r, err
}

// bound is the largest area under the curve that an attacker can have who is held
// to epsilon and delta: his rate of hits is at most e^epsilon times that of false
// accusations, plus delta, and the same for what he misses (Kairouz et al. 2015).
func bound(eps, delta float64) float64 {
	// The curve has corners at (0, delta), at x where both lines meet, and (1-delta, 1).
	e := math.Exp(eps)
	x := (1 - delta) / (1 + e)
	y := 1 - x
	return (delta+y)/2*x + (y+1)/2*(1-delta-x) + delta
}

// train makes an update: the weights after, less those before.
func (b *bench) train(ctx context.Context, w way, normal []feature.Vector, trial uint64) ([]float32, error) {
	cfg := learner.Config{Seed: b.Seed + trial}
	after, err := []float32(nil), error(nil)
	if w.noise < 0 {
		after, err = learner.TrainShared(ctx, cfg, b.base, normal, b.evil, b.Steps)
	} else {
		after, err = b.trainPrivately(ctx, cfg, w, normal)
	}
	if err != nil {
		return nil, err
	}
	for i := range after {
		after[i] -= b.base[i]
	}
	return after, nil
}

// noisy is a sum whose noise has a source.
type noisy struct {
	*privacy.Sum
	from *rand.Rand
}

// Release implements learner.Sum.
func (s noisy) Release(expected float64) ([]float32, error) { return s.Sum.Release(expected, s.from) }

func (b *bench) sum(w way) (noisy, error) {
	var seed [32]byte
	if _, err := crand.Read(seed[:]); err != nil {
		return noisy{}, err
	}
	s, err := privacy.NewSum(learner.SharedDim(), b.Clip, w.noise)
	return noisy{s, rand.New(rand.NewChaCha8(seed))}, err
}

func (b *bench) trainPrivately(ctx context.Context, cfg learner.Config, w way, normal []feature.Vector) ([]float32, error) {
	s, err := b.sum(w)
	if err != nil {
		return nil, err
	}
	units := make([][]feature.Vector, len(normal))
	for i := range normal {
		units[i] = normal[i : i+1]
	}
	return learner.TrainSharedPrivately(ctx, cfg, b.base, units, b.evil, b.Steps,
		learner.Private{Rate: batch / float64(b.Flows), Clip: b.Clip, Sum: s, Random: s.from})
}

// Print writes a table.
func (r *Report) Print(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%d flows teach %d steps, as many do not; %d of %d confirmed attacks teach\n\n", r.Flows, r.Steps, r.Attacks/2, r.Attacks); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "update\tepsilon\twho taught: AUC\tat 1 % false\tplanted flow: AUC\tat most\tone flow rebuilt: error\tof an update: near\tcontrol\tattacks found: AUC")
	for _, x := range r.Rows {
		eps, most := "none", "1"
		if x.Epsilon > 0 {
			eps, most = fmt.Sprintf("%.2f", x.Epsilon), fmt.Sprintf("%.3f", x.Bound)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%.3f\t%.1f %%\t%.3f\t%s\t%.3g\t%d\t%d\t%.3f\n", x.Way, eps, x.Member, 100*x.Caught, x.Planted, most, x.One, x.Near, x.Control, x.Utility)
	}
	return t.Flush()
}
