package xdp

import (
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// softTwin is the plane in Go, on the wall clock as the kernel is.
type softTwin struct {
	*softplane.Plane
	link softplane.LinkType
}

func newSoftTwin(tb testing.TB, mode dataplane.Mode, link softplane.LinkType) softTwin {
	tb.Helper()
	day := 24 * time.Hour
	p, err := softplane.Open(softplane.Options{Mode: mode, MaxFlows: 1 << 17, MaxEvents: 1 << 20,
		Idle: softplane.Idle{TCPUnanswered: day, TCP: day, Other: day}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return softTwin{p, link}
}

func (s softTwin) Inject(hook dataplane.Hook, frame []byte) (bool, error) {
	return s.Frame(hook, s.link, frame, 0, time.Now()), nil
}

func (s softTwin) Poll(handle func(*dataplane.Event)) error {
	s.Drain(handle)
	return nil
}

func (s softTwin) Flush(handle func(*dataplane.Event)) error {
	s.Plane.Flush()
	s.Drain(handle)
	return nil
}

var _ planetest.Twin = softTwin{}

// newTwins is the kernel beside the plane in Go. The flow table is far larger than
// what a comparison puts into it, so that no bucket of it overflows.
func newTwins(tb testing.TB, mode dataplane.Mode, raw bool) *planetest.Twins {
	tb.Helper()
	link := softplane.Ethernet
	if raw {
		link = softplane.Raw
	}
	kernel := fixtureOn(tb, Options{Mode: mode, MaxFlows: 1 << 16, EventRate: 1e9}, raw)
	return &planetest.Twins{A: kernel, B: newSoftTwin(tb, mode, link)}
}

func both(tb testing.TB, w *planetest.Twins, do func(dataplane.Plane) error) {
	tb.Helper()
	for _, side := range []dataplane.Plane{w.A, w.B} {
		if err := do(side); err != nil {
			tb.Fatal(err)
		}
	}
}
