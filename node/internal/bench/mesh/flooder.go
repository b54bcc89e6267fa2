package mesh

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/gossip"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// order is what a flooder is told first: who it is, whom it knows, and for how long
// it will have to flood at most.
type order struct {
	Key          string // file
	Organisation string
	Roster       []federation.Site
	Seconds      float64
}

// cue begins and ends a flood, or, with Burn, work that has nothing to do with the mesh.
type cue struct {
	Flood bool
	Burn  float64 // seconds of processor time in a second
}

// flooded is what a flooder answers: an order when it is connected, a cue to end with
// what it did.
type flooded struct {
	Sent    int
	Seconds float64
	CPU     float64 // seconds of processor time
}

// share is the part of one processor that it used.
func (f *flooded) share() float64 { return min(1, f.CPU/f.Seconds) }

func (f *flooded) figures() []Figure {
	return []Figure{
		{Name: "flood, times its budget", Value: float64(f.Sent) / f.Seconds / gossip.Budget{}.WithDefaults().Messages},
		{Name: "flood, share of a processor that its author used", Value: 100 * f.share(), Unit: "%"},
	}
}

// flooder is the other end of Flood.
type flooder struct {
	in   io.WriteCloser
	enc  *json.Encoder
	dec  *json.Decoder
	wait func() error
}

// hire starts a flooder under a host's key: as a process of its own where there is a
// command for it, and in this process otherwise.
func (r *runner) hire(ctx context.Context, h *host) (f *flooder, err error) {
	file := filepath.Join(r.dir, "flooder.key")
	if err := h.key.SaveNew(file, identity.Secret{}); err != nil {
		return nil, err
	}
	if f, err = r.flooder(ctx); err != nil {
		return nil, fmt.Errorf("flooder: %w", err)
	}
	err = f.tell(order{Key: file, Organisation: h.org, Roster: h.roster, Seconds: r.Flood.Seconds()})
	if err == nil {
		_, err = f.hear()
	}
	if err != nil {
		return nil, errors.Join(err, f.dismiss())
	}
	return f, nil
}

func (r *runner) flooder(ctx context.Context) (*flooder, error) {
	if r.Flooder == nil {
		in, toIt := io.Pipe()
		out, fromIt := io.Pipe()
		done := make(chan error, 1)
		go func() {
			err := Flood(ctx, in, fromIt)
			done <- errors.Join(err, in.CloseWithError(io.ErrClosedPipe), fromIt.CloseWithError(err))
		}()
		return &flooder{toIt, json.NewEncoder(toIt), json.NewDecoder(out), func() error { return <-done }}, nil
	}
	c := r.Flooder(ctx)
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	return &flooder{in, json.NewEncoder(in), json.NewDecoder(out), c.Wait}, nil
}

func (f *flooder) tell(x any) error {
	if err := f.enc.Encode(x); err != nil {
		return fmt.Errorf("flooder: %w", err)
	}
	return nil
}

func (f *flooder) hear() (did flooded, err error) {
	if err := f.dec.Decode(&did); err != nil {
		return did, fmt.Errorf("flooder: %w", err)
	}
	return did, nil
}

// stop ends the flood and tells what it came to.
func (f *flooder) stop() (flooded, error) {
	if err := f.tell(cue{}); err != nil {
		return flooded{}, err
	}
	return f.hear()
}

// dismiss ends the flooder.
func (f *flooder) dismiss() error { return errors.Join(f.in.Close(), f.wait()) }

// FloodCommand is a process that is to run Flood, and gives way to all others.
type FloodCommand func(context.Context) *exec.Cmd

// Flood is a member that floods when it is told to, until in ends. Both directions
// carry JSON.
func Flood(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	dec, enc := json.NewDecoder(io.LimitReader(in, 1<<20)), json.NewEncoder(out)
	var o order
	if err := dec.Decode(&o); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	h := &host{name: "flooder", org: o.Organisation, roster: o.Roster}
	if h.key, err = identity.LoadFile(o.Key, identity.Secret{}); err != nil {
		return err
	}
	if h.Transport, err = gossip.New(gossip.Options{Key: h.key, Organisation: o.Organisation, Roster: o.Roster}); err != nil {
		return err
	}
	c := gather(ctx)
	c.run(h.name, func(ctx context.Context) error { return h.Run(ctx, relay{}) })
	defer func() { err = errors.Join(err, c.end()) }()
	raw, err := ammunition(h, time.Duration(o.Seconds*float64(time.Second)))
	if err != nil {
		return err
	}
	if err := h.connected(c.ctx, len(o.Roster)); err != nil {
		return err
	}
	if err := enc.Encode(flooded{}); err != nil {
		return err
	}
	return h.obey(c.ctx, raw, dec, enc)
}

// obey floods between one cue and the next.
func (h *host) obey(ctx context.Context, raw [][]byte, dec *json.Decoder, enc *json.Encoder) error {
	for {
		var begin, end cue
		if err := dec.Decode(&begin); errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
			return nil
		} else if err != nil {
			return err
		}
		during, calm := context.WithCancel(ctx)
		did := make(chan result, 1)
		go func() {
			if begin.Burn > 0 {
				did <- burn(during, begin.Burn)
				return
			}
			did <- h.flood(during, raw)
		}()
		err := dec.Decode(&end)
		calm()
		f := <-did
		if err := errors.Join(err, f.err); err != nil {
			return err
		}
		if err := enc.Encode(f.flooded); err != nil {
			return err
		}
	}
}

type result struct {
	flooded
	err error
}

// relay is what the flooder does with others' words: it passes them on.
type relay struct{}

func (relay) Receive(context.Context, federation.Topic, identity.ID, []byte) federation.Verdict {
	return federation.Accept
}

func (relay) Serve(context.Context, identity.ID, []byte) ([]byte, error) {
	return nil, errors.New("nothing is served here")
}

func (relay) PeerChanged(federation.PeerInfo) {}

// ammunition is as many different, well-formed and signed words as the others'
// budget for the flooder lets through; those beyond need not differ.
func ammunition(h *host, d time.Duration) ([][]byte, error) {
	b := gossip.Budget{}.WithDefaults()
	out := make([][]byte, int(b.Burst+2*d.Seconds()*b.Messages))
	now := time.Now()
	for i := range out {
		ind := word(i, fmt.Sprintf("%s tcp/%d", address(i), 2000+i/750))
		ind.Type, ind.First, ind.Last, ind.Expires = wire.TypeService, now, now, now.Add(time.Hour)
		ind.ID = wire.IndicatorID(h.key.ID(), ind.Type, ind.Value)
		msg, err := wire.Seal(h.key, uint64(1000+i), now, &ind)
		if err != nil {
			return nil, err
		}
		out[i] = msg.Raw
	}
	return out, nil
}

// flood sends past what a member would refuse, until ctx ends.
func (h *host) flood(ctx context.Context, raw [][]byte) (f result) {
	began, busy := time.Now(), processor()
	rate := times * gossip.Budget{}.WithDefaults().Messages
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			f.Seconds, f.CPU = time.Since(began).Seconds(), (processor() - busy).Seconds()
			return f
		case <-tick.C:
		}
		for due := max(1, int(rate*time.Since(began).Seconds())); f.Sent < due && ctx.Err() == nil; f.Sent++ {
			if err := h.Broadcast(ctx, federation.TopicCommons, raw[f.Sent%len(raw)]); err != nil && ctx.Err() == nil {
				f.err = err
				return f
			}
		}
	}
}

// burn keeps a processor busy for a share of the time, until ctx ends: what the flooder's
// being on this machine costs, without a flood.
func burn(ctx context.Context, share float64) (f result) {
	began, busy := time.Now(), processor()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	var sum [sha256.Size]byte
	for {
		select {
		case <-ctx.Done():
			f.Seconds, f.CPU = time.Since(began).Seconds(), (processor() - busy).Seconds()
			return f
		case <-tick.C:
		}
		for ctx.Err() == nil && (processor()-busy).Seconds() < share*time.Since(began).Seconds() {
			for range 1000 {
				sum = sha256.Sum256(sum[:])
			}
		}
	}
}
