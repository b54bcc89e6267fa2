package store

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func memory(t *testing.T) *Store { return open(t, "", Options{InMemory: true}) }

// peerEvent is a small event of a kind that nothing else depends on.
func peerEvent(at time.Time, name string) *event.Event {
	return &event.Event{
		V: event.Version, ID: event.NewID(at), Time: at, Site: "alder", Kind: event.KindPeer,
		Peer: &event.Peer{Name: name, State: "connected"},
	}
}

func alertEvent(at time.Time, sentence string) *event.Event {
	return &event.Event{
		V: event.Version, ID: event.NewID(at), Time: at, Site: "alder", Kind: event.KindAlert,
		Alert: &event.Alert{Incident: "i", Host: "10.0.0.3", Sentence: sentence, Reasons: []event.Reason{}},
	}
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestEventsSurviveAndSort(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := s.PutEvent(peerEvent(epoch.Add(time.Duration(9-i)*time.Second), fmt.Sprint(9-i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if s.Missing().Any() {
		t.Fatal(s.Missing())
	}
	list, err := s.Events(Query{})
	if err != nil || len(list) != 10 {
		t.Fatalf("%d events, %v", len(list), err)
	}
	for i, e := range list {
		if e.Peer.Name != fmt.Sprint(i) {
			t.Fatalf("event %d is %s", i, e.Peer.Name)
		}
	}
}
