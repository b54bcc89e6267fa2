//go:build linux

package forwarding

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
	"github.com/hedgerow-mesh/hedgerow/node/internal/background"
)

// TestMain lets the test binary be the gateway too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "be-the-gateway" {
		if err := Gateway(context.Background(), open, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func open(iface string) (dataplane.Plane, error) {
	return xdp.Open(xdp.Options{Interface: iface, Mode: dataplane.Enforce})
}

// Both states give figures, the packet path saw the traffic of them, and the
// gateway was really busy. How fast all that was is for the bench to say.
func TestBothStatesAreMeasured(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("HEDGEROW_KERNEL_TESTS") == "1" {
			t.Fatal("HEDGEROW_KERNEL_TESTS=1 but not root")
		}
		t.Skip("needs root: it loads programs and makes network namespaces")
	}
	var steps int
	measure := func(window time.Duration) *Report {
		steps = 0
		r, err := Measure(t.Context(), Options{
			Command: []string{os.Args[0], "be-the-gateway"}, Rounds: 2, Window: window,
			Progress: func(int, int, string) { steps++ },
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	worked := func(r *Report) bool { return r.Work.Trainings+r.Work.Rounds+r.Work.Reloads > 0 } // which of them ends first is the machine's affair
	r := measure(300 * time.Millisecond)
	if !worked(r) {
		r = measure(10 * time.Second) // on a machine that has other things to do
	}
	if len(r.Idle) != 2 || len(r.Busy) != 2 || len(r.Again) != 2 || len(r.Loop) != 2 || steps != 8 {
		t.Fatalf("%d idle, %d busy, %d idle and %d bare rounds in %d steps: expected 2 of each, 8", len(r.Idle), len(r.Busy), len(r.Again), len(r.Loop), steps)
	}
	trips := 0
	for _, f := range slices.Concat(r.Idle, r.Busy, r.Again, r.Loop) {
		trips += f.Trips
		if f.P50 <= 0 || f.P99 < f.P50 || f.Bytes <= 0 {
			t.Errorf("figures %+v", f)
		}
	}
	if r.Seen < uint64(2*trips) {
		t.Errorf("the packet path saw %d packets of %d round trips: they went past it", r.Seen, trips)
	}
	if !worked(r) {
		t.Errorf("work %+v: the gateway was never busy", r.Work)
	}
}

// What a gateway that learns puts in the packet path counts, and does nothing.
func TestALearningGatewaySwapsScorers(t *testing.T) {
	p, err := softplane.Open(softplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	g := newThinker(p)
	g.flows = madeFlows(300, 20)
	g.back = new(background.Runner) // without turns, as nothing has one here
	made, err := g.distil(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := swap(p, made); err != nil {
		t.Fatal(err)
	}
	hash, err := made.Hash()
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.ScoringState()
	if err != nil || s.Active == nil || s.Active.Hash != hash || !s.Shadow {
		t.Errorf("%v: the packet path scores by %+v: expected the scorer, which only counts", err, s)
	}
	for _, state := range []string{learning, idle} {
		if a := g.obey(t.Context(), state); a.Error != "" {
			t.Errorf("%s: %s", state, a.Error)
		}
	}
	if a := g.obey(t.Context(), "asleep"); !strings.Contains(a.Error, "learning") {
		t.Errorf("error %q of a state that is none", a.Error)
	}
}

func TestOptionsNameTheField(t *testing.T) {
	for want, o := range map[string]Options{
		"command": {},
		"rounds":  {Command: []string{"x"}, Rounds: -1},
		"window":  {Command: []string{"x"}, Window: time.Hour},
	} {
		if _, err := Measure(t.Context(), o); err == nil || !strings.Contains(err.Error(), want+":") {
			t.Errorf("%+v: error %v: expected it to name %s", o, err, want)
		}
	}
}
