package background

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func policy(t *testing.T) uint32 {
	t.Helper()
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Error(err)
		return 0
	}
	return a.Policy
}

// The work's thread is as low as it gets, another that it starts work on is
// not, and none that anybody uses later.
func TestOnlyTheWorksThreadIsLow(t *testing.T) {
	var r Runner
	var inside, beside uint32
	var thread int
	err := r.Run(t.Context(), func(context.Context) error {
		inside, thread = policy(t), unix.Gettid()
		var wg sync.WaitGroup
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			beside = policy(t)
		})
		wg.Wait()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if inside != unix.SCHED_IDLE || beside == unix.SCHED_IDLE {
		t.Errorf("policy %d inside and %d beside: expected %d inside only", inside, beside, unix.SCHED_IDLE)
	}
	if thread == unix.Getpid() {
		t.Error("the work ran on the process's first thread, which cannot end")
	}
	var after sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		after.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if policy(t) == unix.SCHED_IDLE {
				t.Error("a thread stayed low after the work")
			}
		})
	}
	after.Wait()
}

// The first thread passes the work on.
func TestTheFirstThreadPassesWorkOn(t *testing.T) {
	r := Runner{first: func() func() bool {
		asked := false
		return func() bool { was := asked; asked = true; return !was }
	}()}
	var got uint32
	if err := r.Run(t.Context(), func(context.Context) error { got = policy(t); return errors.New("end") }); err == nil {
		t.Error("the work's error was lost")
	}
	if got != unix.SCHED_IDLE {
		t.Errorf("policy %d: expected %d", got, unix.SCHED_IDLE)
	}
}
