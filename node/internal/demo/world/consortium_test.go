//go:build !race

package world

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/membus"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// enrolled is a mesh in memory that knows whose sites are whose.
type enrolled struct {
	federation.Transport
	roster []federation.Site
}

func (e enrolled) Peers() []federation.PeerInfo {
	out := e.Transport.Peers()
	for i := range out {
		at := slices.IndexFunc(e.roster, func(s federation.Site) bool { return s.ID == out[i].ID })
		if at >= 0 {
			out[i].Name, out[i].Organisation = e.roster[at].Name, e.roster[at].Organisation
		}
	}
	return out
}

func enrolledBus() dialer {
	bus := membus.New(membus.Config{Seed: 1})
	return func(k *identity.Key, roster []federation.Site, _ *slog.Logger) (federation.Transport, func() []string, error) {
		return enrolled{bus.Join(k.ID()), roster}, func() []string { return nil }, nil
	}
}

// The consortium's story over whole nodes and real rounds in virtual time: each line
// of its verdict holds, and each organisation that was not attacked gained.
func TestConsortiumInVirtualTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds of processor time")
	}
	var r *demo.Report
	var out strings.Builder
	synctest.Test(t, func(t *testing.T) {
		sc := scenario.Consortium(3)
		w, err := upConsortium(t.Context(), sc, slog.New(slog.DiscardHandler), enrolledBus(), enrolledBus())
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}()
		r, err = demo.TellConsortium(t.Context(), demo.ConsortiumOptions{
			Options: demo.Options{Scenario: sc, Network: w, Sites: w.Sites, Where: "in virtual time", Out: &out}, Lie: w.Lie, Teach: w.Teach,
		})
		if err != nil {
			t.Errorf("%v\n%s", err, out.String())
		}
	})
	if t.Failed() {
		return
	}
	c := r.Consortium
	if len(c.Gains) != 3 || len(c.Weight) != 6 || len(c.Lesson.Together) != 6 || !strings.Contains(out.String(), "✓") || strings.Contains(out.String(), "✗") {
		t.Errorf("%+v\n%s", c, out.String())
	}
	for _, g := range c.Gains {
		if g.Blocked != 2 || g.Alone != 3 || g.Through != 0 || g.Tried != 6 {
			t.Errorf("%+v: expected two attackers blocked before they came", g)
		}
	}
	for org, w := range c.Weight {
		if w >= 0.5 {
			t.Errorf("at %s the liar's word weighs %.2f", org, w)
		}
	}
}
