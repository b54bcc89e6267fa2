//go:build linux

package forwarding

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/distill"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/background"
	"github.com/hedgerow-mesh/hedgerow/node/internal/netspace"
)

const (
	vectors = 2000   // that a training learns from
	members = 7      // of a round
	listed  = 100000 // entries of a reload
)

// States of the gateway.
const (
	idle     = "idle"
	busy     = "busy"
	learning = "learning"
	looping  = "looping"
)

// answer is the gateway's line for each command, and for its start.
type answer struct {
	Error string `json:"error,omitempty"`
	Work  Work   `json:"work"`
	Seen  uint64 `json:"seen"`
}

// gateway is the process in the middle, as the measuring process sees it.
type gateway struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startGateway(ctx context.Context, in *netspace.Space, o Options) (*gateway, error) {
	g := &gateway{cmd: exec.CommandContext(ctx, o.Command[0], o.Command[1:]...)}
	g.cmd.Stderr = os.Stderr
	stdin, err := g.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := g.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	g.in, g.out = stdin, bufio.NewScanner(stdout)
	if err := in.Do(g.cmd.Start); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if _, err := g.read(); err != nil {
		return nil, errors.Join(err, g.stop())
	}
	return g, nil
}

func (g *gateway) tell(state string) (answer, error) {
	if _, err := fmt.Fprintln(g.in, state); err != nil {
		return answer{}, fmt.Errorf("gateway: %w", err)
	}
	return g.read()
}

func (g *gateway) read() (a answer, err error) {
	if !g.out.Scan() {
		return a, errors.Join(errors.New("gateway: it ended early"), g.out.Err())
	}
	if err := json.Unmarshal(g.out.Bytes(), &a); err != nil {
		return a, fmt.Errorf("gateway: its answer: %w", err)
	}
	if a.Error != "" {
		return a, errors.New("gateway: " + a.Error)
	}
	return a, nil
}

func (g *gateway) stop() error {
	_ = g.in.Close() // its end of input is its word to stop
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}

// Gateway is the process in the middle. open gives the packet path on an
// interface of the network that the process was started in. It obeys lines of
// in, "idle", "busy", "learning" and "looping", and returns at the end of in.
func Gateway(ctx context.Context, open func(iface string) (dataplane.Plane, error), in io.Reader, out io.Writer) error {
	enc := json.NewEncoder(out)
	p, err := open(inside)
	if err != nil {
		return errors.Join(err, enc.Encode(answer{Error: err.Error()}))
	}
	defer p.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var events sync.WaitGroup
	events.Go(func() { _ = p.Run(ctx, func(*dataplane.Event) {}) })
	defer events.Wait()
	defer cancel()
	t := newThinker(p)
	if err := enc.Encode(answer{Work: t.work}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		a := t.obey(ctx, lines.Text())
		if s, err := p.Stats(); err != nil {
			a.Error = err.Error()
		} else {
			a.Seen = s.Packets
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	t.obey(ctx, idle)
	return nil
}

// thinker does all that a site does beside packets, each without a pause.
type thinker struct {
	plane   dataplane.Plane
	back    *background.Runner // as a site does it
	normal  []feature.Vector
	entries []dataplane.Listed
	flows   [2][]distill.Flow  // ordinary ones and attacks, to distil from; nil: not made yet
	stop    context.CancelFunc // nil: idle
	tasks   sync.WaitGroup

	mu   sync.Mutex
	work Work
	err  error
}

func newThinker(p dataplane.Plane) *thinker {
	t := &thinker{plane: p, back: background.New(nil), normal: make([]feature.Vector, vectors), work: Work{Listed: listed}}
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range t.normal {
		for j := range t.normal[i].X {
			t.normal[i].X[j] = rng.Float32()
		}
		t.normal[i].Has = feature.All()
	}
	expires := time.Now().Add(time.Hour)
	for i := range listed { // in 240.0.0.0/4, where nothing of this world is
		a := netip.AddrFrom4([4]byte{240, byte(i >> 16), byte(i >> 8), byte(i)})
		t.entries = append(t.entries, dataplane.Listed{Prefix: netip.PrefixFrom(a, 32), Expires: expires, Reason: 1})
	}
	return t
}

func (t *thinker) obey(ctx context.Context, state string) answer {
	if t.stop != nil {
		t.stop()
		t.tasks.Wait()
		t.stop = nil
	}
	known := true
	switch state {
	case idle:
	case busy, learning, looping:
		ctx, t.stop = context.WithCancel(ctx)
		map[string]func(context.Context){busy: t.start, learning: t.learn, looping: t.loop}[state](ctx)
	default:
		known = false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	a := answer{Work: t.work}
	if t.err != nil {
		a.Error = t.err.Error()
	} else if !known {
		a.Error = fmt.Sprintf("command %q: expected idle, busy, learning or looping", state)
	}
	return a
}

// task does something again and again in the background, and counts it.
func (t *thinker) task(ctx context.Context, count *int, do func() error) {
	t.tasks.Go(func() {
		for ctx.Err() == nil {
			err := t.back.Run(ctx, func(context.Context) error { return do() })
			if !t.did(ctx, count, err) {
				return
			}
		}
	})
}

// did counts what was done. What failed because it was to end did not fail.
func (t *thinker) did(ctx context.Context, count *int, err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		*count++
	case ctx.Err() == nil:
		t.err = errors.Join(t.err, err)
	}
	return err == nil
}

func (t *thinker) train(ctx context.Context) error {
	_, err := learner.Train(ctx, learner.Config{Seed: 1, Pause: t.back.Turns()}, nil, t.normal, nil)
	return err
}

func (t *thinker) start(ctx context.Context) {
	t.task(ctx, &t.work.Trainings, func() error { return t.train(ctx) })
	t.task(ctx, &t.work.Rounds, func() error { return t.round(ctx) })
	if b, ok := t.plane.(dataplane.Bulk); ok {
		t.task(ctx, &t.work.Reloads, func() error { return b.ReplaceBulk(t.entries) })
	}
}

// loop keeps a processor busy as all else here does, and touches no memory.
func (t *thinker) loop(ctx context.Context) {
	var turns int
	t.task(ctx, &turns, func() error {
		for ctx.Err() == nil {
		}
		return nil
	})
}

// round is a site's part in a round of its organisation: its own delta, and the
// aggregate of all.
func (t *thinker) round(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(1, 1))
	base := learner.InitShared(1)
	delta := make([][]float32, members)
	for i := range delta {
		delta[i] = make([]float32, len(base))
		for j := range base {
			delta[i][j] = rng.Float32() / 100
		}
	}
	if _, err := learner.TrainShared(ctx, learner.Config{Seed: 1, Pause: t.back.Turns()}, base, t.normal, nil, 100); err != nil {
		return err
	}
	sum, err := robust.Spec{Rule: robust.NameMean, Clip: 1}.Aggregate(delta)
	if err != nil {
		return err
	}
	_, err = robust.Apply(base, sum.Update)
	return err
}
