package world

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/membus"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// overBus is a mesh in memory.
func overBus() dialer {
	bus := membus.New(membus.Config{Seed: 1})
	return func(k *identity.Key, _ []federation.Site, _ *slog.Logger) (federation.Transport, func() []string, error) {
		return bus.Join(k.ID()), func() []string { return nil }, nil
	}
}

// tell runs the story over three whole nodes in virtual time.
func tell(t *testing.T, seed uint64, learner bool, attacks ...scenario.Attack) (*demo.Report, string, error) {
	t.Helper()
	var r *demo.Report
	var out strings.Builder
	var err error
	synctest.Test(t, func(t *testing.T) {
		sc := scenario.New(seed)
		w, up := upSoft(t.Context(), sc, Options{Learner: learner}, slog.New(slog.DiscardHandler), overBus())
		if up != nil {
			t.Fatal(up)
		}
		defer func() {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}()
		r, err = demo.Tell(t.Context(), demo.Options{
			Scenario: sc, Network: w, Sites: w.Sites, Where: "in virtual time", Attacks: attacks, Learner: learner, Out: &out,
		})
	})
	return r, out.String(), err
}

func TestTheStoryInVirtualTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute of processor time")
	}
	r, out, err := tell(t, 1, true, scenario.Attacks()...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(r.Caught) != 5 || len(r.Missed) != 1 || r.Ordinary.Lost != 0 {
		t.Errorf("report: %+v", r)
	}
}

func TestNoAttackNoVerdict(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute of processor time")
	}
	if _, out, err := tell(t, 2, true); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestWithoutLearnerRulesAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute of processor time")
	}
	r, out, err := tell(t, 3, false, scenario.Attacks()...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(r.Caught) != 2 || len(r.Missed) != 2 {
		t.Errorf("report: %+v", r)
	}
}
