package stage

import (
	"os"
	"testing"
	"testing/synctest"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/membus"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

func TestSoftStory(t *testing.T) { synctest.Test(t, softStory) }

func softStory(t *testing.T) {
	bus := membus.New(membus.Config{Seed: 1})
	sc := scenario.New(1)
	st, err := Soft(t.Context(), Options{Scenario: sc, Learner: true}, nil,
		func(k *identity.Key, _ string, _ []federation.Site) (federation.Transport, error) {
			return bus.Join(k.ID()), nil
		})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	_, err = demo.Tell(t.Context(), demo.Options{
		Scenario: sc, Network: st.Network, Sites: st.Sites, Where: st.Where, Attacks: scenario.Attacks(), Learner: true, Out: os.Stdout, Verbose: true,
	})
	if err != nil {
		t.Error(err)
	}
}
