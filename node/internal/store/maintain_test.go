package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

func tidy(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Tidy(); err != nil {
		t.Fatal(err)
	}
}

func TestRetention(t *testing.T) {
	now := epoch
	s := open(t, "", Options{InMemory: true, RetainEvents: 10 * time.Hour, RetainFlows: 2 * time.Hour, Now: func() time.Time { return now }})
	for range 24 {
		if err := errors.Join(s.PutEvent(peerEvent(now, "x")), s.AppendFlows([]Flow{{}, {}})); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
		tidy(t, s)
	}
	st := s.Stats()
	if st.Events != 10 || st.Flows != 4 {
		t.Fatalf("%d events and %d flows are left", st.Events, st.Flows)
	}
	if n := countKeys(t, s, pKind); n != 10 {
		t.Errorf("%d index entries for 10 events", n)
	}
	list, err := s.Events(Query{Kinds: []event.Kind{event.KindPeer}})
	if err != nil || len(list) != 10 || list[0].Time.Before(now.Add(-10*time.Hour)) {
		t.Errorf("%d events, %v", len(list), err)
	}
}

func TestCountOfFlowsIsBounded(t *testing.T) {
	s := open(t, "", Options{InMemory: true, MaxFlows: 1000})
	for range 20 {
		if err := s.AppendFlows(make([]Flow, 100)); err != nil {
			t.Fatal(err)
		}
	}
	tidy(t, s)
	if st := s.Stats(); st.Flows != 1000 {
		t.Fatalf("%d flows are left", st.Flows)
	}
}

// The folder stays near its bound on the real disk though more
// was written; the newest is what is left.
func TestBytesAreBounded(t *testing.T) {
	const limit = 64 << 20
	s := open(t, t.TempDir(), Options{MaxBytes: limit})
	rng := rand.NewChaCha8([32]byte{1})
	const batches = 25
	for i := range batches {
		batch := make([]Flow, 400)
		for j := range batch {
			vector := make([]byte, 8<<10) // noise, which does not compress
			_, _ = rng.Read(vector)       // never fails
			batch[j] = Flow{Flow: event.Flow{DstPort: uint16(i)}, Vector: vector}
		}
		if err := s.AppendFlows(batch); err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 {
			tidy(t, s)
		}
	}
	st := s.Stats()
	t.Logf("written 78 MiB, kept %d flows of %d MiB, on disk %d MiB", st.Flows, st.FlowBytes>>20, st.DiskBytes>>20)
	if st.FlowBytes > limit/2 || st.FlowBytes < limit/8 {
		t.Errorf("%d MiB of flows are kept", st.FlowBytes>>20)
	}
	if st.DiskBytes > limit*3/2 {
		t.Errorf("the folder takes %d MiB on disk", st.DiskBytes>>20)
	}
	var newest uint16
	for f, err := range s.Flows(time.Time{}, time.Time{}) {
		if err != nil {
			t.Fatal(err)
		}
		newest = f.Flow.DstPort
	}
	if newest != batches-1 {
		t.Errorf("the newest flow went; %d is left", newest)
	}
}

func TestEventsAreBoundedInBytes(t *testing.T) {
	s := memory(t)
	put(t, s, 0, 100)
	before := s.Stats()
	if err := s.pruneOldestEvents(before.EventBytes / 2); err != nil {
		t.Fatal(err)
	}
	st := s.Stats()
	list, err := s.Events(Query{})
	if err != nil || st.Events != len(list) || st.EventBytes > before.EventBytes/2 || list[len(list)-1].Peer.Name != "99" {
		t.Fatalf("%+v, %d events, %v", st, len(list), err)
	}
}

// A trimmed ledger is not a loss.
func TestTrimmedLedger(t *testing.T) {
	dir := made(t)
	s := open(t, dir, Options{})
	if err := s.deleteKeys([][]byte{ledgerKey(1), ledgerKey(2), ledgerKey(3)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = open(t, dir, Options{}); s.Missing().Any() {
		t.Fatal(s.Missing())
	}
}

// A wall clock that jumps ahead, while the monotonic one does not, deletes
// nothing for a day.
func TestClockJumpDeletesNothing(t *testing.T) {
	var steady, ahead clock
	if steady.step(epoch, time.Minute, time.Minute) || !steady.changed() || steady.changed() {
		t.Error("a steady clock is held, or told more than once")
	}
	if !ahead.step(epoch.AddDate(1, 0, 0), 365*day, time.Minute) || ahead.step(epoch.AddDate(1, 0, 2), day, day) {
		t.Error("a jump ahead is not held, or for longer than a day")
	}
	if back := new(clock); !back.step(epoch, -2*time.Hour, time.Minute) {
		t.Error("a jump back is not held")
	}
	noted := epoch
	for name, tt := range map[string]struct {
		now  time.Time
		held bool
	}{
		"soon after":       {noted.Add(time.Hour), false},
		"back by an hour":  {noted.Add(-2 * time.Hour), true},
		"a long way ahead": {noted.AddDate(1, 0, 0), true},
	} {
		var c clock
		c.start(tt.now)
		c.resume(noted, tt.now, 30*day)
		if got := c.check(tt.now.Add(time.Minute)); got != tt.held {
			t.Errorf("%s: held is %v", name, got)
		}
		if c.check(tt.now.Add(25 * time.Hour)) {
			t.Errorf("%s: still held after a day", name)
		}
	}
}

func TestClockJumpOverRestart(t *testing.T) {
	dir := t.TempDir()
	now := epoch
	o := Options{RetainEvents: 10 * day, RetainFlows: 10 * day, Now: func() time.Time { return now }}
	s := open(t, dir, o)
	if err := s.PutEvent(peerEvent(now, "x")); err != nil {
		t.Fatal(err)
	}
	tidy(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now = now.AddDate(5, 0, 0)
	s = open(t, dir, o)
	tidy(t, s)
	if st := s.Stats(); st.Events != 1 {
		t.Fatalf("%d events are left right after the jump", st.Events)
	}
	now = now.Add(25 * time.Hour)
	tidy(t, s)
	if st := s.Stats(); st.Events != 0 {
		t.Fatalf("%d events are left a day later", st.Events)
	}
}

func TestMaintainEndsAndLeaksNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Maintain(ctx) }()
	ch := s.Follow(t.Context(), nil, time.Time{})
	put(t, s, 0, 3)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range ch { // ends because the store closed
		continue
	}
}

// What is stored is read by another start, or by another hand: no bytes may
// hang or panic the readers.
func FuzzRows(f *testing.F) {
	group := &flowGroup{}
	f.Add(group.buf)
	f.Add([]byte{0x84, 1, 2, 3, 4})
	f.Add([]byte{0x9f, 0xff, 0xff})
	f.Add(oldRow(f, flowRow{Proto: "tcp", Vector: []byte{1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		err := eachRow(b, epoch, func(Flow, error) bool { n++; return true })
		if err == nil && n > len(b) {
			t.Errorf("%d flows out of %d bytes", n, len(b))
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("found %v", err)
		}
		if gen, size, sum, ok := parseSplit(b); ok && (size > MaxValue || len(sum) != 32) {
			t.Errorf("head of generation %d: %d bytes", gen, size)
		}
	})
}
