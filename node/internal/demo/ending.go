package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// undisturbed lets ordinary work come to its end and looks whether any of it
// was lost or ruled against.
func (t *teller) undisturbed(ctx context.Context) error {
	t.work.finish()
	if err := pause(ctx, 500*time.Millisecond); err != nil { // for the last events to arrive
		return err
	}
	t.account()
	o := t.report.Ordinary
	switch {
	case o.Run == 0:
		return fmt.Errorf("no ordinary session ran")
	case o.Lost > 0:
		return fmt.Errorf("%d of %d ordinary sessions were lost, the first: %s", o.Lost, o.Run, o.FirstLost[0])
	case o.Verdicts > 0:
		return fmt.Errorf("%d rules against ordinary traffic, the first: %s", o.Verdicts, o.FirstWrong[0])
	}
	return nil
}

// inTheKernel asks the sites for their scorers in the packet path. That a site has none,
// or does not answer any more, is no part of the story.
func (t *teller) inTheKernel(ctx context.Context) {
	for _, s := range t.o.Sites {
		st, err := s.Status(ctx)
		if err != nil || st.Kernel == nil {
			continue
		}
		if t.report.Kernel == nil {
			t.report.Kernel = make(map[string]*Kernel)
		}
		t.report.Kernel[s.Name()] = st.Kernel
	}
}

// account takes stock of ordinary work for the report.
func (t *teller) account() {
	if t.work == nil {
		return
	}
	var o Ordinary
	var lost []string
	run, n, first := t.work.account()
	for _, r := range first {
		lost = append(lost, describe(r))
	}
	o.Run, o.Lost, o.FirstLost = run, n, lost
	o.Verdicts = t.journal.count(0, func(e *event.Event) bool {
		if !t.voice.wrong(e) {
			return false
		}
		if len(o.FirstWrong) < keepLost {
			o.FirstWrong = append(o.FirstWrong, fmt.Sprintf("%s at %s: %s %s: %s",
				e.Time.Sub(t.began).Round(time.Millisecond), e.Site, e.Verdict.Action, e.Verdict.Target, e.Verdict.Sentence))
		}
		return true
	})
	o.FalseAlerts = t.journal.count(0, func(e *event.Event) bool {
		return e.Kind == event.KindAlert && !t.voice.hostilePeer(e.Alert.Peer)
	})
	t.report.Ordinary = o
}
