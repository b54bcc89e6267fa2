package soft

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// recorder keeps what it is shown, and loses every so manieth frame.
type recorder struct {
	out  bytes.Buffer
	n    int
	lose int
}

func (r *recorder) Frame(hook dataplane.Hook, b []byte, at time.Time) bool {
	r.n++
	fmt.Fprintf(&r.out, "%d %d %x\n", hook, at.UnixNano(), b)
	return r.lose == 0 || r.n%r.lose != 0
}

// A session is the same in a time that waits as in one that somebody else keeps.
func TestPlayIsRun(t *testing.T) {
	sc := scenario.New(4)
	site := sc.Site(scenario.Alder)
	sc.Sites = []*scenario.Site{site}
	src := sc.Ordinary(site, 10)
	sessions := []scenario.Session{sc.ScanOf(site)[0].Session, sc.BruteOf(site)[0].Session}
	for range 20 {
		sessions = append(sessions, src.Next().Session)
	}
	for _, lose := range []int{0, 5, 1} {
		for i := range sessions {
			s := &sessions[i]
			var waited, kept recorder
			waited.lose, kept.lose = lose, lose
			var want scenario.Result
			synctest.Test(t, func(t *testing.T) {
				w, err := New(sc, map[string]FrameSink{site.Name: &waited})
				if err != nil {
					t.Fatal(err)
				}
				want = w.Run(t.Context(), s)
			})
			w, err := New(sc, map[string]FrameSink{site.Name: &kept})
			if err != nil {
				t.Fatal(err)
			}
			p, err := w.Play(s, want.Start)
			if err != nil {
				t.Fatal(err)
			}
			var times []time.Time
			for at, more := p.Next(); more; at, more = p.Next() {
				times = append(times, at)
			}
			if !slices.IsSortedFunc(times, time.Time.Compare) {
				t.Errorf("times go back: %v", times)
			}
			if !bytes.Equal(waited.out.Bytes(), kept.out.Bytes()) {
				t.Errorf("%s, 1 of %d lost: other frames", s.Kind, lose)
			}
			got := p.Result
			if got.OK != want.OK || got.Answered != want.Answered || got.Up != want.Up || got.Down != want.Down || got.Duration != want.Duration || (got.Err == nil) != (want.Err == nil) {
				t.Errorf("%s, 1 of %d lost: %+v: expected %+v", s.Kind, lose, got, want)
			}
		}
	}
}
