// Package background runs what a gateway thinks about so that it yields to the
// packets: each piece of work gets a thread of its own, which the system runs
// only while nothing else wants the processor.
//
// On Linux that is the policy SCHED_IDLE (sched(7)): whatever wakes up for a
// packet takes the processor from such a thread at once, and does not wait for
// the end of its slice. Where the system refuses that, the thread gets the
// lowest nice value instead; where it refuses both, the work is done all the
// same, and one line says so.
//
// Such work also takes turns: at most half of the processors, and at least one,
// compute it at once, so that another stays idle, where a packet is waited for
// and not first made room for. What takes long hands over between its steps ([Runner.Turns]), so that a reload never waits for the end of a training.
//
// The thread is the unit: goroutines that the work starts run on other threads,
// at the usual priority. Work that is to yield computes in the goroutine that it
// is given. The same holds for locks: who waits for one that such work holds
// waits for a thread that may not run; so hold none over a computation.
package background

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// Runner runs work in the background. The zero value does, without a word and
// without turns.
type Runner struct {
	turns *semaphore.Weighted // first come, first served; nil: no limit
	log   *slog.Logger        // nil: none
	once  sync.Once
	lower func() error // nil: the system's
	first func() bool  // nil: the system's
	here  bool         // no thread of its own
}

// Here runs work where it is asked for, at the caller's priority: for who has no
// packets to yield to, such as a simulation.
func Here() *Runner { return &Runner{here: true} }

// New tells log, once, when the system refuses low priority.
func New(log *slog.Logger) *Runner {
	return &Runner{log: log, turns: semaphore.NewWeighted(int64(max(1, runtime.GOMAXPROCS(0)/2)))}
}

// slice is how long a work keeps its turn while others wait: about as long as a
// reload takes, so that a training beside reloads without a pause gets on too.
const slice = 50 * time.Millisecond

// Turns returns what a long work calls between its steps, in its own goroutine:
// when the work has had its slice, those that wait for a turn go first. Only what
// was given to Run may call it.
func (r *Runner) Turns() func() {
	began := time.Now()
	return func() {
		if r.turns == nil || time.Since(began) < slice {
			return
		}
		r.turns.Release(1)
		_ = r.turns.Acquire(context.Background(), 1) // each turn ends: there is no end to wait for
		began = time.Now()
	}
}

// Run does work as Aside does, when its turn comes. Work must not call Run.
func (r *Runner) Run(ctx context.Context, work func(context.Context) error) error {
	if r.turns != nil {
		if err := r.turns.Acquire(ctx, 1); err != nil {
			return err
		}
		defer r.turns.Release(1)
	}
	return r.Aside(ctx, work)
}

// Aside is for work that waits for others more than it computes, and takes no
// turn. It calls work on a thread of low priority and waits for its end. Work has
// to look at its context: Aside returns when work does, never before. A panic in
// it comes back as an error. Work is not begun when ctx has ended.
func (r *Runner) Aside(ctx context.Context, work func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	if r.here {
		guarded(ctx, work, done)
		return <-done
	}
	defer rarer()()
	go r.onThread(func() { guarded(ctx, work, done) })
	return <-done
}

// onThread calls work on a thread that ends with it: a priority that was given
// up may not be taken back without privilege, so no other goroutine must come
// to such a thread.
func (r *Runner) onThread(work func()) {
	runtime.LockOSThread()
	if or(r.first, isMain)() { // it cannot end, and would stay slow
		defer runtime.UnlockOSThread()
		var wg sync.WaitGroup
		wg.Go(func() { r.onThread(work) }) // on another, as this one is held
		wg.Wait()
		return
	}
	if err := or(r.lower, lower)(); err != nil {
		r.once.Do(func() {
			if r.log != nil {
				r.log.Warn("low priority was refused: training and reloads compete with packets", telemetry.KeyErr, err)
			}
		})
	}
	work() // without unlock: the thread ends with the goroutine
}

func or[F func() error | func() bool](f, otherwise F) F {
	if f == nil {
		return otherwise
	}
	return f
}

// guarded tells done how work ended, also if that was by a panic or by an end of
// its goroutine.
func guarded(ctx context.Context, work func(context.Context) error, done chan<- error) {
	err := errors.New("background: the work ended its goroutine")
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("background: panic: %v", p)
		}
		done <- err
	}()
	err = work(ctx)
}
