//go:build linux

package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/forwarding"
)

// forward compares a gateway that trains, distils and swaps scorers all the time with
// one that does not.
func (r *ModelReport) forward(ctx context.Context, o *ModelOptions) error {
	row := &Row{ID: "forward", Title: "forwarding through the gateway, busy (training, distilling, swapping scorers) against idle", Unit: "busy over idle"}
	r.Forward = row
	if len(o.Gateway) == 0 {
		row.Absent = "no command for the gateway was given"
		return nil
	}
	window := 2 * time.Second
	if o.Quick {
		window = 200 * time.Millisecond
	}
	rep, err := forwarding.Measure(ctx, forwarding.Options{
		Command: o.Gateway, Rounds: o.Rounds, Window: window, Learning: true,
		Progress: func(done, of int, what string) { o.Progress(fmt.Sprintf("%d of %d: %s", done+1, of, what)) },
	})
	if err != nil {
		return err
	}
	row.busyAgainstIdle(rep)
	row.Notes = append(row.Notes, fmt.Sprintf("meanwhile %d trainings, %d distillations, %d swaps", rep.Work.Trainings, rep.Work.Distilled, rep.Work.Swaps))
	return nil
}
