package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

const (
	maxEvent     = 256 << 10 // bytes of one event as JSON
	defaultLimit = 1000
	maxLimit     = 100_000
)

// Query selects events. The zero value is the first thousand, oldest first.
type Query struct {
	Kinds   []event.Kind // empty: every kind
	Since   time.Time    // from this time on; zero: from the beginning
	Until   time.Time    // before this time; zero: to the end
	Limit   int          // default 1000, at most 100,000
	Reverse bool         // newest first
}

func (q Query) limit() int {
	if q.Limit <= 0 {
		return defaultLimit
	}
	return min(q.Limit, maxLimit)
}

func (q Query) wants(k event.Kind) bool {
	return len(q.Kinds) == 0 || slices.Contains(q.Kinds, k)
}

// PutEvent adds an event to the log. It is durable when nil is returned; then
// followers have it too. An event with a known id replaces the older one.
func (s *Store) PutEvent(e *event.Event) error {
	b := s.Batch()
	b.Event(e)
	return b.Commit()
}

// Batch gathers records that must stand or fall together: an alert, its
// incident and the block that follows.
type Batch struct {
	s   *Store
	req request
	err error
}

// Batch begins an empty batch.
func (s *Store) Batch() *Batch { return &Batch{s: s, req: request{class: classRecord}} }

// Event adds an event. The store keeps the pointer: do not change it later.
func (b *Batch) Event(e *event.Event) {
	if err := e.Validate(); err != nil {
		b.fail(err)
		return
	}
	if len(e.ID) > 64 {
		b.fail(fmt.Errorf("event: id of %d bytes: expected at most 64", len(e.ID)))
		return
	}
	text, err := json.Marshal(e)
	if err != nil {
		b.fail(fmt.Errorf("event %s: not JSON: %v", e.ID, err))
		return
	}
	if len(text) > maxEvent {
		b.fail(fmt.Errorf("event %s: %d bytes: %w: expected at most %d", e.ID, len(text), ErrTooLarge, maxEvent))
		return
	}
	b.req.ops = append(b.req.ops, op{eventKey(e.ID), text}, op{kindKey(e.Kind, e.ID), []byte{}})
	b.req.events = append(b.req.events, e)
}

func (b *Batch) fail(err error) { b.err = errors.Join(b.err, err) }

// Commit makes the batch durable. An empty one does nothing.
func (b *Batch) Commit() error {
	if b.err != nil || len(b.req.ops) == 0 {
		return b.err
	}
	events, bytes := 0, int64(0)
	for _, o := range b.req.ops {
		if o.key[0] != pEvent {
			continue
		}
		old, err := b.s.get(o.key)
		if err != nil {
			return err
		}
		if old == nil {
			events++
		}
		bytes += int64(len(o.value) - len(old))
	}
	b.req.counts = func(c *counts) { c.events += events; c.eventBytes += bytes }
	return b.s.submit(&b.req)
}

// Event returns the event with that id, or ErrNotFound. A short id is enough
// when only one event begins with it.
func (s *Store) Event(id string) (*event.Event, error) {
	if id == "" || len(id) > 64 {
		return nil, fmt.Errorf("event %q: %w", id, ErrNotFound)
	}
	var found *event.Event
	err := s.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: eventKey(id), PrefetchValues: true, PrefetchSize: 2})
		defer it.Close()
		n := 0
		for it.Rewind(); it.Valid() && n < 2; it.Next() {
			n++
			e, err := s.decode(it.Item())
			if err != nil {
				return err
			}
			if found = e; e.ID == id {
				return nil
			}
		}
		if n == 0 {
			return ErrNotFound
		}
		if n > 1 {
			return errAmbiguous
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("event %q: %w", id, own(err))
	}
	return found, nil
}

var errAmbiguous = errors.New("more than one event begins so: give more of the id")

// own keeps this package's errors and translates the database's.
func own(err error) error {
	for _, e := range []error{errAmbiguous, ErrNotFound, ErrDamaged, errStop} {
		if errors.Is(err, e) {
			return err
		}
	}
	return cause(err)
}

var errStop = errors.New("stop")

func (s *Store) decode(item *badger.Item) (*event.Event, error) {
	var e *event.Event
	err := item.Value(func(v []byte) error {
		var err error
		if e, err = event.Decode(v); err != nil {
			return fmt.Errorf("%w: event %s is unreadable", ErrDamaged, item.Key()[1:])
		}
		return nil
	})
	if err == nil && e.Alert != nil {
		if l, ok := s.labels.get(e.ID); ok {
			e.Alert.Label = l.State
		}
	}
	return e, err
}

// Events returns the events that q selects, in order of time. Alerts carry
// their labels.
func (s *Store) Events(q Query) ([]*event.Event, error) {
	var list []*event.Event
	err := s.db.View(func(txn *badger.Txn) error {
		if len(q.Kinds) == 1 {
			return s.scanKind(txn, q, &list)
		}
		return s.scanAll(txn, q, &list)
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, fmt.Errorf("events: %w", own(err))
	}
	return list, nil
}

func (s *Store) scanAll(txn *badger.Txn, q Query, list *[]*event.Event) error {
	return scan(txn, []byte{pEvent}, q, true, func(item *badger.Item, _ []byte) error {
		e, err := s.decode(item)
		if err != nil {
			return err
		}
		if q.wants(e.Kind) {
			*list = append(*list, e)
		}
		return stopAt(q, *list)
	})
}

func (s *Store) scanKind(txn *badger.Txn, q Query, list *[]*event.Event) error {
	return scan(txn, kindPrefix(q.Kinds[0]), q, false, func(_ *badger.Item, id []byte) error {
		item, err := txn.Get(eventKey(string(id)))
		if err != nil {
			return err
		}
		e, err := s.decode(item)
		if err != nil {
			return err
		}
		if e.Kind == q.Kinds[0] {
			*list = append(*list, e)
		}
		return stopAt(q, *list)
	})
}

func stopAt(q Query, list []*event.Event) error {
	if len(list) >= q.limit() {
		return errStop
	}
	return nil
}

// scan walks the ids under prefix that lie between q.Since and q.Until.
func scan(txn *badger.Txn, prefix []byte, q Query, values bool, each func(item *badger.Item, id []byte) error) error {
	it := txn.NewIterator(badger.IteratorOptions{
		Prefix: prefix, Reverse: q.Reverse, PrefetchValues: values, PrefetchSize: min(q.limit(), 256),
	})
	defer it.Close()
	from, to := prefix, append(slices.Clone(prefix), 0xff)
	if !q.Since.IsZero() {
		from = append(slices.Clone(prefix), idFloor(q.Since)...)
	}
	if !q.Until.IsZero() {
		to = append(slices.Clone(prefix), idFloor(q.Until)...)
	}
	start := from
	if q.Reverse {
		start = to
	}
	for it.Seek(start); it.Valid(); it.Next() {
		key := it.Item().Key()
		if q.Reverse && string(key) >= string(to) {
			continue // the bound itself is outside
		}
		if q.Reverse && string(key) < string(from) || !q.Reverse && string(key) >= string(to) {
			return nil
		}
		if err := each(it.Item(), key[len(prefix):]); err != nil {
			return err
		}
	}
	return nil
}
