package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// next waits for one delivery, but not for ever.
func next(t *testing.T, ch <-chan Told) Told {
	t.Helper()
	select {
	case told, ok := <-ch:
		if !ok {
			t.Fatal("the channel closed")
		}
		return told
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was told for 10 s")
	}
	return Told{}
}

func put(t *testing.T, s *Store, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := s.PutEvent(peerEvent(epoch.Add(time.Duration(i)*time.Millisecond), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFollowTellsStoredThenNew(t *testing.T) {
	s := memory(t)
	put(t, s, 0, 10)
	ch := s.Follow(t.Context(), nil, epoch.Add(4*time.Millisecond))
	first := next(t, ch)
	put(t, s, 10, 20)
	if err := s.PutEvent(alertEvent(epoch, "not of the kinds below")); err != nil {
		t.Fatal(err)
	}
	if first.Event.Peer.Name != "4" {
		t.Fatalf("began with %s", first.Event.Peer.Name)
	}
	for i := 5; i < 20; i++ {
		if told := next(t, ch); told.Event.Peer.Name != fmt.Sprint(i) || told.Lost != 0 {
			t.Fatalf("told %s (lost %d), want %d", told.Event.Peer.Name, told.Lost, i)
		}
	}
}

func TestFollowKeepsToItsKinds(t *testing.T) {
	s := memory(t)
	ch := s.Follow(t.Context(), []event.Kind{event.KindAlert}, time.Time{})
	put(t, s, 0, 5)
	if err := s.PutEvent(alertEvent(epoch, "this one")); err != nil {
		t.Fatal(err)
	}
	if told := next(t, ch); told.Event.Alert == nil || told.Lost != 0 {
		t.Fatalf("told %+v", told)
	}
}

// Who reads too slowly is told how much was lost, exactly.
func TestSlowFollowerIsToldItsLoss(t *testing.T) {
	var h hub
	h.init()
	const extra = 10
	for i := range ringSize + extra {
		h.publish([]*event.Event{peerEvent(epoch, fmt.Sprint(i))})
	}
	e, lost, cursor, _, _ := h.read(0)
	if e.Peer.Name != fmt.Sprint(extra) || lost != extra || cursor != extra+1 {
		t.Fatalf("told %s, lost %d, then %d", e.Peer.Name, lost, cursor)
	}
	e, lost, _, _, _ = h.read(cursor)
	if e.Peer.Name != fmt.Sprint(extra+1) || lost != 0 {
		t.Fatalf("then %s, lost %d", e.Peer.Name, lost)
	}
}

func TestFollowEnds(t *testing.T) {
	s := memory(t)
	ctx, cancel := context.WithCancel(t.Context())
	byContext, byClose := s.Follow(ctx, nil, time.Time{}), s.Follow(t.Context(), nil, time.Time{})
	cancel()
	for told := range byContext {
		t.Errorf("told %+v", told)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for told := range byClose {
		t.Errorf("told %+v", told)
	}
}

// Followers that begin in the midst of writing get each event once.
func TestFollowWhileWriting(t *testing.T) {
	s := memory(t)
	const n = 300
	written := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < n && err == nil; i++ {
			err = s.PutEvent(peerEvent(epoch.Add(time.Duration(i)*time.Millisecond), fmt.Sprint(i)))
		}
		written <- err
	}()
	for range 5 {
		ch := s.Follow(t.Context(), nil, epoch)
		for i := range n {
			if told := next(t, ch); told.Event.Peer.Name != fmt.Sprint(i) {
				t.Fatalf("told %s, want %d", told.Event.Peer.Name, i)
			}
		}
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}
