package world

import (
	"log/slog"
	"os"
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

// Without the learner the story is cheap enough to tell at every test run: two
// attacks that rules count, and two that nobody may see.
func TestWithoutLearnerRulesAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds of processor time")
	}
	r, out, err := tell(t, 3, false, scenario.Attacks()...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(r.Caught) != 2 || len(r.Missed) != 2 || r.Ordinary.Lost != 0 || r.Ordinary.Verdicts != 0 {
		t.Errorf("report: %+v", r)
	}
}

// long skips what trains models of three sites.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("HEDGEROW_LONG") != "1" {
		t.Skip("trains three sites' models, half a minute of processor time: set HEDGEROW_LONG=1")
	}
}

func TestNoAttackNoVerdict(t *testing.T) {
	long(t)
	r, out, err := tell(t, 2, true)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r.Ordinary.Verdicts != 0 || r.Ordinary.Run < 3000 {
		t.Errorf("report: %+v", r)
	}
}

func TestTheWholeStoryInVirtualTime(t *testing.T) {
	long(t)
	r, out, err := tell(t, 2, true, scenario.Attacks()...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(r.Caught) != 5 || len(r.Missed) != 1 || r.Ordinary.Lost != 0 {
		t.Errorf("report: %+v", r)
	}
}
