package store

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

const maxName = 512 // bytes of a target, label id, slot or value name

func checkName(what, s string) error {
	if s == "" || len(s) > maxName {
		return fmt.Errorf("store: %s of %d bytes: expected 1 to %d", what, len(s), maxName)
	}
	return nil
}

// Block adds a standing rule, or replaces the one for the same target.
func (b *Batch) Block(r event.Block) {
	if err := checkName("target", r.Target); err != nil {
		b.fail(err)
		return
	}
	text, err := json.Marshal(r)
	if err != nil {
		b.fail(fmt.Errorf("block %s: not JSON: %v", r.Target, err))
		return
	}
	b.req.ops = append(b.req.ops, op{named(pBlock, r.Target), text})
}

// Unblock removes the standing rule for target, if there is one.
func (b *Batch) Unblock(target string) {
	if err := checkName("target", target); err != nil {
		b.fail(err)
		return
	}
	b.req.ops = append(b.req.ops, op{named(pBlock, target), nil})
}

// PutBlock makes a standing rule durable, one for each target.
func (s *Store) PutBlock(r event.Block) error {
	b := s.Batch()
	b.Block(r)
	return b.Commit()
}

// DeleteBlock removes the standing rule for target; none there is no error.
func (s *Store) DeleteBlock(target string) error {
	b := s.Batch()
	b.Unblock(target)
	return b.Commit()
}

// Blocks returns every standing rule in the order of targets, expired ones
// too: whoever asked for the rule decides when it goes.
func (s *Store) Blocks() ([]event.Block, error) {
	var list []event.Block
	err := s.each(pBlock, func(_ string, v []byte) error {
		var b event.Block
		if err := json.Unmarshal(v, &b); err != nil {
			return fmt.Errorf("%w: a block is unreadable", ErrDamaged)
		}
		list = append(list, b)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("blocks: %w", err)
	}
	return list, nil
}

// each walks the values under a one-byte prefix. v is valid during the call.
func (s *Store) each(prefix byte, f func(name string, v []byte) error) error {
	err := s.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{prefix}, PrefetchValues: true, PrefetchSize: 64})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			name := string(it.Item().Key()[1:])
			if err := it.Item().Value(func(v []byte) error { return f(name, v) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return own(err)
	}
	return nil
}

// Label is what an operator said of an alert.
type Label struct {
	State string    `json:"state"` // confirmed or dismissed
	By    string    `json:"by,omitempty"`
	At    time.Time `json:"at"`
	Note  string    `json:"note,omitempty"`
}

// labels are all labels, kept in memory: they are few, and each alert that is
// read asks for its own.
type labels struct {
	mu sync.RWMutex
	m  map[string]Label
}

func (l *labels) get(id string) (Label, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	v, ok := l.m[id]
	return v, ok
}

func (s *Store) loadLabels() error {
	s.labels.m = map[string]Label{}
	err := s.each(pLabel, func(id string, v []byte) error {
		var l Label
		if err := json.Unmarshal(v, &l); err != nil {
			return fmt.Errorf("%w: a label is unreadable", ErrDamaged)
		}
		s.labels.m[id] = l
		return nil
	})
	if err != nil {
		return fmt.Errorf("labels: %w", err)
	}
	return nil
}

// SetLabel records what an operator said of the alert with that id; an empty
// state takes it back.
func (s *Store) SetLabel(alertID string, l Label) error {
	if err := checkName("alert id", alertID); err != nil {
		return err
	}
	if l.State != "" && l.State != "confirmed" && l.State != "dismissed" {
		return fmt.Errorf("store: label %q: expected confirmed, dismissed or nothing", l.State)
	}
	change := op{key: named(pLabel, alertID)}
	if l.State != "" {
		text, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("store: label: not JSON: %v", err)
		}
		change.value = text
	}
	s.labels.mu.Lock()
	defer s.labels.mu.Unlock()
	if err := s.submit(&request{class: classRecord, ops: []op{change}}); err != nil {
		return err
	}
	if l.State == "" {
		delete(s.labels.m, alertID)
	} else {
		s.labels.m[alertID] = l
	}
	return nil
}

// Labels returns every label by alert id.
func (s *Store) Labels() map[string]Label {
	s.labels.mu.RLock()
	defer s.labels.mu.RUnlock()
	out := make(map[string]Label, len(s.labels.m))
	for id, l := range s.labels.m {
		out[id] = l
	}
	return out
}
