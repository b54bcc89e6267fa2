package background

import (
	"context"
	"math"
	"runtime/debug"
	"testing"
)

func TestHowFarTheHeapMayGrow(t *testing.T) {
	for _, c := range []struct {
		usual int
		live  uint64
		want  int
	}{
		{100, 0, seldom}, {100, 4 << 20, seldom}, {100, 32 << 20, 400}, {100, 128 << 20, 100}, {100, 4 << 30, 100},
		{300, 128 << 20, 300}, {-1, 4 << 20, without}, {100, math.MaxUint64, 100},
	} {
		if got := percent(c.usual, c.live); got != c.want {
			t.Errorf("usually %d %%, %d bytes live: %d %%, expected %d %%", c.usual, c.live, got, c.want)
		}
	}
}

// However many works there are, and however they end: afterwards the collector runs as
// often as before.
func TestTheCollectorIsAsBefore(t *testing.T) {
	usual := debug.SetGCPercent(70)
	defer debug.SetGCPercent(usual)
	now := func() int {
		p := debug.SetGCPercent(70)
		debug.SetGCPercent(p)
		return p
	}
	r := New(nil)
	during := 0
	for _, work := range []func(context.Context) error{
		func(ctx context.Context) error {
			err := r.Aside(ctx, func(context.Context) error { return nil })
			during = now() // one of two is still there
			return err
		},
		func(context.Context) error { panic("torn") },
	} {
		_ = r.Run(t.Context(), work)
		if p := now(); p != 70 {
			t.Errorf("afterwards %d %%, expected 70 %%", p)
		}
	}
	if during <= 70 {
		t.Errorf("during the work %d %%, expected more than 70 %%", during)
	}
}
