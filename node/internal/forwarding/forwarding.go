//go:build linux

// Package forwarding measures what a gateway's thinking costs the packets that
// pass it. In network namespaces of its own it puts a gateway with the kernel's
// packet path between a client and a server, and compares round trips and
// throughput while the gateway is idle with those while it trains, counts a
// round of the mesh and reloads its bulk set: one of each at any time, begun anew
// as soon as it ends, in the background as a site does it. That is harder than
// any site, where hours lie between two of them. Before and after each busy
// figure an idle one is taken: what these two differ by is the machine's own doing.
// And once a round the gateway does nothing but count, on one thread of the same
// priority: what that costs, any work costs on a machine whose processors are busy.
//
// The gateway is a process of its own, as on a real site; client and server
// share the measuring process. All of them share the processors of one machine,
// which real clients do not: what is measured is an upper bound of the harm.
package forwarding

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Options say how to measure. Command is required.
type Options struct {
	// Command starts a process that calls Gateway with its own input and output.
	Command []string
	Rounds  int           // of idle, busy, idle again and a bare loop; default 7
	Window  time.Duration // of each figure; default 2 s
	// Learning measures another kind of work, see Gateway: trainings, distillations
	// and swaps of the packet path's scorer, in place of all else.
	Learning bool
	// Progress is told what is being done, and how far it is.
	Progress func(done, of int, what string)
}

// Figures are what one state of the gateway gave in one round.
type Figures struct {
	Trips int           `json:"trips"` // round trips of 64 bytes, one after the other
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Bytes float64       `json:"bytes_per_second"` // of one TCP stream
}

// Work is what the gateway did in its busy rounds.
type Work struct {
	Trainings int `json:"trainings"`
	Rounds    int `json:"rounds"`
	Reloads   int `json:"reloads"` // of Listed entries each; 0 when the plane has no bulk set
	Listed    int `json:"listed"`
	// Of a gateway that learns: scorers that were distilled, and how often one was
	// put in the packet path.
	Distilled int `json:"distilled,omitempty"`
	Swaps     int `json:"swaps,omitempty"`
}

// Report is a whole measurement. Idle, Busy, Again, which is idle too, and Loop, which
// only counts, belong together by index, so that ratios are taken within a round.
type Report struct {
	Idle  []Figures `json:"idle"`
	Busy  []Figures `json:"busy"`
	Again []Figures `json:"again"`
	Loop  []Figures `json:"loop"`
	Work  Work      `json:"work"`
	Seen  uint64    `json:"packets_seen"` // by the gateway's packet path
}

func (o Options) withDefaults() Options {
	if o.Rounds == 0 {
		o.Rounds = 7
	}
	if o.Window == 0 {
		o.Window = 2 * time.Second
	}
	if o.Progress == nil {
		o.Progress = func(int, int, string) {}
	}
	return o
}

func (o Options) validate() error {
	switch {
	case len(o.Command) == 0:
		return errors.New("command: is required")
	case o.Rounds < 1 || o.Rounds > 1000:
		return fmt.Errorf("rounds: found %d: expected 1 to 1000", o.Rounds)
	case o.Window < 10*time.Millisecond || o.Window > time.Minute:
		return fmt.Errorf("window: found %s: expected 10ms to 1m", o.Window)
	}
	return nil
}

// Measure needs root. It takes about 8 windows a round.
func Measure(ctx context.Context, o Options) (r *Report, err error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("forwarding: %w", err)
	}
	w, err := newWorld()
	if err != nil {
		return nil, fmt.Errorf("forwarding: %w", err)
	}
	defer w.close()
	g, err := startGateway(ctx, w.gateway, o)
	if err != nil {
		return nil, fmt.Errorf("forwarding: %w", err)
	}
	defer func() { err = errors.Join(err, g.stop()) }()
	return o.rounds(ctx, w, g)
}

func (o Options) rounds(ctx context.Context, w *world, g *gateway) (*Report, error) {
	r := &Report{}
	step := func(i int, state string) (Figures, error) {
		o.Progress(i, 4*o.Rounds, "forwarding while the gateway is "+state)
		if _, err := g.tell(state); err != nil {
			return Figures{}, err
		}
		f, err := w.measure(ctx, o.Window)
		if err != nil {
			err = fmt.Errorf("forwarding, %s: %w", state, err)
		}
		return f, err
	}
	work := busy
	if o.Learning {
		work = learning
	}
	if _, err := w.measure(ctx, o.Window/2); err != nil { // warms neighbours, routes and tables
		return nil, fmt.Errorf("forwarding: %w", err)
	}
	for i := range o.Rounds {
		for j, x := range []struct {
			state string
			to    *[]Figures
		}{{idle, &r.Idle}, {work, &r.Busy}, {idle, &r.Again}, {looping, &r.Loop}} {
			f, err := step(4*i+j, x.state)
			if err != nil {
				return nil, err
			}
			*x.to = append(*x.to, f)
		}
	}
	last, err := g.tell(idle)
	if err != nil {
		return nil, err
	}
	r.Work, r.Seen = last.Work, last.Seen
	return r, nil
}
