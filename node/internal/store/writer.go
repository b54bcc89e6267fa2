package store

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

const (
	groupBytes = 384 << 10 // requests gather into one commit until they reach this
	reqBytes   = 512 << 10 // largest single request; both together fit one transaction
	reserve    = 48 << 20  // free disk below which nothing is written: two logs and a table
)

// op is one change; a nil value deletes.
type op struct {
	key, value []byte
}

// request is an atomic group of changes, one entry of the ledger.
type request struct {
	class  byte
	ops    []op
	events []*event.Event // told to followers once committed
	counts func(*counts)  // applied once committed
	reply  chan error
}

// Classes of ledger entries.
const (
	classRecord = 'r' // events, blocks, labels
	classModel  = 'm'
	classValue  = 'v'
	classFlows  = 'f'
)

func (r *request) size() int {
	n := 0
	for _, o := range r.ops {
		n += len(o.key) + len(o.value) + 32
	}
	return n
}

// submit hands a request to the writer and waits until it is durable.
func (s *Store) submit(r *request) error {
	if r.size() > reqBytes {
		return fmt.Errorf("store: record of %d bytes %w: expected at most %d", r.size(), ErrTooLarge, reqBytes)
	}
	r.reply = make(chan error, 1)
	select {
	case <-s.stop:
		return ErrClosed
	case s.reqs <- r:
		return <-r.reply
	}
}

// write is the only goroutine that changes the database, except for Maintain's
// deletions. Requests that wait at the same time share one commit and one sync.
func (s *Store) write() {
	defer close(s.done)
	for {
		select {
		case <-s.stop:
			return
		case r := <-s.reqs:
			s.commit(s.gather(r))
		}
	}
}

func (s *Store) gather(first *request) []*request {
	batch, size := []*request{first}, first.size()
	for size < groupBytes {
		select {
		case r := <-s.reqs:
			batch, size = append(batch, r), size+r.size()
			if size > groupBytes+reqBytes/2 {
				return batch
			}
		default:
			return batch
		}
	}
	return batch
}

func (s *Store) commit(batch []*request) {
	err := s.commitGroup(batch)
	if err != nil && len(batch) > 1 && errors.Is(err, ErrTooLarge) {
		for _, r := range batch {
			s.commit([]*request{r})
		}
		return
	}
	for _, r := range batch {
		r.reply <- err
	}
}

func (s *Store) commitGroup(batch []*request) error {
	if err := s.room(); err != nil {
		return err
	}
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	next := s.ledger
	for _, r := range batch {
		for _, o := range r.ops {
			if err := apply(txn, o); err != nil {
				return fmt.Errorf("store: write: %w", cause(err))
			}
		}
		key, entry := next.add(r)
		if err := txn.Set(key, entry); err != nil {
			return fmt.Errorf("store: write: %w", cause(err))
		}
	}
	if err := txn.Commit(); err != nil {
		return fmt.Errorf("store: write: %w", cause(err))
	}
	s.acknowledge(batch, next)
	return nil
}

func apply(txn *badger.Txn, o op) error {
	if o.value == nil {
		return txn.Delete(o.key)
	}
	return txn.Set(o.key, o.value)
}

// acknowledge makes a commit visible, before its callers hear of it.
func (s *Store) acknowledge(batch []*request, next ledger) {
	s.ledger = next
	s.ledgerLast.Store(next.last)
	if s.folder != nil {
		if err := s.folder.attest(next.last); err != nil {
			s.opt.Log.Warn("witness of the state folder cannot be written", "err", err)
		}
	}
	for _, r := range batch {
		if r.counts != nil {
			s.counts.update(r.counts)
		}
		s.hub.publish(r.events)
	}
}

// room refuses a write while the disk is nearly full: the database maps its
// log into memory, where a full disk is a fault and not an error.
func (s *Store) room() error {
	if s.folder == nil {
		return nil
	}
	free, err := freeBytes(s.dir)
	if err != nil {
		return fmt.Errorf("store: look at the disk: %w", err)
	}
	if free < reserve {
		return ErrNoSpace
	}
	return nil
}

func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}
