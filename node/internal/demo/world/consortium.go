package world

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/soft"
)

// Consortium is seven organisations in this process: six gateways over software
// planes, a liar that only talks, and their voting sites (see Teach). It needs no
// privilege.
type Consortium struct {
	*Soft
	dial dialer // for gateways and the liar
	vote dialer // for voting sites
	liar *federation.Member
}

// company is one mesh of organisations with a site each.
type company struct {
	names  []string
	keys   []*identity.Key
	addrs  [][]string
	roster []chain.Member
}

func newCompany(names []string) (*company, error) {
	c := &company{names: names, addrs: make([][]string, len(names))}
	for _, name := range names {
		k, err := identity.Generate(rand.Reader)
		if err != nil {
			return nil, err
		}
		c.keys = append(c.keys, k)
		c.roster = append(c.roster, chain.Member{Org: name, Voter: k.ID()})
	}
	return c, nil
}

// roll is the consortium as the ith organisation sees it; who began earlier is known
// by its address.
func (c *company) roll(i int) federation.Roll {
	r := federation.Roll{Counted: c.roster}
	for j, name := range c.names {
		if j != i {
			r.Others = append(r.Others, federation.Site{
				Name: "gate", Organisation: name, Standing: federation.StandingCounted, ID: c.keys[j].ID(), Addrs: c.addrs[j],
			})
		}
	}
	return r
}

// join makes the ith organisation's end of the mesh.
func (c *company) join(i int, dial dialer, log *slog.Logger) (federation.Transport, func() []string, error) {
	t, addrs, err := dial(c.keys[i], c.roll(i).Others, log)
	if err == nil {
		c.addrs[i] = addrs()
	}
	return t, addrs, err
}

// UpConsortium starts the organisations. sc is a scenario.Consortium.
func UpConsortium(ctx context.Context, sc *scenario.Scenario, log *slog.Logger) (*Consortium, error) {
	return upConsortium(ctx, sc, log, overLoopback, overLoopback)
}

func upConsortium(ctx context.Context, sc *scenario.Scenario, log *slog.Logger, dial, vote dialer) (_ *Consortium, err error) {
	ctx, stop := context.WithCancel(ctx)
	w := &Consortium{Soft: &Soft{stop: stop}, dial: dial, vote: vote}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("demo: %w", err), w.Close())
		}
	}()
	c, err := newCompany(append(slices.Clone(scenario.Organisations), scenario.Liar))
	if err != nil {
		return nil, err
	}
	sinks := map[string]soft.FrameSink{}
	for i, s := range sc.Sites {
		t, addrs, err := c.join(i, dial, log)
		if err != nil {
			return nil, fmt.Errorf("%s: mesh: %w", s.Name, err)
		}
		mesh := node.MeshOptions{
			Organisation: s.Name, Transport: t, RoundEvery: roundEvery, Gather: gather, Addrs: addrs,
			Consortium: &node.ConsortiumOptions{ID: "grove", Organisation: s.Name, Roll: c.roll(i)},
		}
		p, err := w.start(ctx, i, s, c.keys[i], mesh, Options{}, log)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		sinks[s.Name] = sink{p}
	}
	if err := w.startLiar(ctx, c, log); err != nil {
		return nil, fmt.Errorf("%s: %w", scenario.Liar, err)
	}
	w.World, err = soft.New(sc, sinks)
	return w, err
}

// startLiar begins the one that has no gateway.
func (w *Consortium) startLiar(ctx context.Context, c *company, log *slog.Logger) error {
	last := len(c.names) - 1
	t, _, err := c.join(last, w.dial, log)
	if err != nil {
		return err
	}
	w.liar, err = federation.New(federation.Options{
		Site: "gate", Key: c.keys[last], Transport: t,
		Consortium: &federation.Consortium{Organisation: scenario.Liar, Roll: c.roll(last)},
	})
	if err != nil {
		return err
	}
	w.wait.Go(func() { w.ended(w.liar.Run(ctx)) })
	return nil
}

// Lie publishes a claim on evidence that nobody has.
func (w *Consortium) Lie(ctx context.Context, value string) error {
	_, err := w.liar.Publish(ctx, wire.Indicator{
		Type: wire.TypeAddress, Value: value, Score: 1, Confidence: 1, Evidence: wire.Validated, TLP: wire.TLPGreen,
		Sentence: "guessed passwords all night", EvidenceHash: wire.Hash{1, 2, 3},
	})
	return err
}

// Weights implements demo.Gateway.
func (s *site) Weights(ctx context.Context) (map[string]float64, error) {
	peers, err := s.b.Peers(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string]float64)
	for _, p := range peers {
		if p.Connected && p.Organisation != "" {
			out[p.Organisation] = p.Weight
		}
	}
	return out, nil
}
