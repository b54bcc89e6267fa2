package demo

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// Paces of people's sessions at one site, per second: while sites learn, and
// after.
const (
	busy  = 32
	usual = 14
)

// abreast bounds how many ordinary sessions of one site run at once.
const abreast = 96

// work is the ordinary work of all sites, and the account of it.
type work struct {
	net    Network
	rate   atomic.Int64
	stop   chan struct{} // closed: begin nothing new
	once   sync.Once
	wg     sync.WaitGroup
	mu     sync.Mutex
	run    int
	kinds  map[scenario.Kind]int
	lost   []scenario.Result // the first of them
	nLost  int
	broken int // cut off by the end of the demo itself
}

const keepLost = 20

// startWork begins everyday life at every site.
func startWork(ctx context.Context, sc *scenario.Scenario, net Network) *work {
	w := &work{net: net, stop: make(chan struct{}), kinds: make(map[scenario.Kind]int)}
	w.rate.Store(busy)
	for _, site := range sc.Sites {
		src := sc.Ordinary(site, busy)
		w.wg.Go(func() { w.live(ctx, src) })
	}
	return w
}

// setRate changes the pace of all sites.
func (w *work) setRate(perSecond int64) { w.rate.Store(perSecond) }

// live begins the sessions of one source at their times.
func (w *work) live(ctx context.Context, src *scenario.Source) {
	places := make(chan struct{}, abreast)
	due := time.Now()
	for {
		src.SetRate(float64(w.rate.Load()))
		next := src.Next()
		due = due.Add(next.After)
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
		case <-w.stop:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		}
		select {
		case places <- struct{}{}:
		case <-w.stop:
			return
		case <-ctx.Done():
			return
		}
		w.wg.Go(func() {
			r := w.net.Run(ctx, &next.Session)
			<-places
			w.note(ctx, r)
		})
	}
}

func (w *work) note(ctx context.Context, r scenario.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !r.OK && ctx.Err() != nil {
		w.broken++
		return
	}
	w.run++
	w.kinds[r.Session.Kind]++
	if r.OK {
		return
	}
	w.nLost++
	if len(w.lost) < keepLost {
		w.lost = append(w.lost, r)
	}
}

// finish begins nothing new and waits for what runs.
func (w *work) finish() {
	w.once.Do(func() { close(w.stop) })
	w.wg.Wait()
}

// account is how ordinary work fared.
func (w *work) account() (run, lost int, first []scenario.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.run, w.nLost, append([]scenario.Result(nil), w.lost...)
}

// play runs sessions at their times, each beginning whatever became of those
// before, and returns the results of all that began.
func play(ctx context.Context, net Network, sessions []scenario.Timed) []scenario.Result {
	out := make([]scenario.Result, len(sessions))
	begun := 0
	var wg sync.WaitGroup
	for i := range sessions {
		if pause(ctx, sessions[i].After) != nil {
			break
		}
		begun++
		wg.Go(func() { out[i] = net.Run(ctx, &sessions[i].Session) })
	}
	wg.Wait()
	return out[:begun]
}

// hasty copies sessions with a shorter patience and at most n of them.
func hasty(sessions []scenario.Timed, n int, after, timeout time.Duration) []scenario.Timed {
	out := append([]scenario.Timed(nil), sessions[:min(n, len(sessions))]...)
	for i := range out {
		out[i].After, out[i].Timeout = after, timeout
	}
	return out
}

// describe names a session that was lost.
func describe(r scenario.Result) string {
	s := r.Session
	return fmt.Sprintf("%s at %s from %s to %s:%d after %v: %v",
		s.Kind, s.Site, s.From, s.To, s.Port, r.Duration.Round(time.Millisecond), r.Err)
}
