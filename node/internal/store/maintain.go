package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	maintainEvery = time.Minute
	pruneBatch    = 1000
)

// Maintain keeps the store within its bounds until ctx ends: retention, bytes,
// count of flows, length of the ledger, weights of old models. It returns nil
// when ctx ends; what it cannot do it logs and tries again.
func (s *Store) Maintain(ctx context.Context) error {
	t := time.NewTicker(maintainEvery)
	defer t.Stop()
	for {
		if err := s.Tidy(); err != nil && !errors.Is(err, ErrClosed) {
			s.opt.Log.Warn("state folder could not be tidied", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.stop:
			return nil
		case <-t.C:
		}
	}
}

// Tidy is one round of Maintain.
func (s *Store) Tidy() error {
	now := s.opt.Now()
	held := s.clock.check(now)
	if held && s.clock.changed() {
		s.opt.Log.Warn("clock jumped: nothing is deleted by age for a day", "now", now)
	}
	var errs []error
	if !held {
		errs = append(errs, s.pruneEvents(now.Add(-s.opt.RetainEvents)), s.pruneFlowsBefore(now.Add(-s.opt.RetainFlows)))
	}
	errs = append(errs, s.verifyOnce(), s.bound(), s.trimLedger(), s.dropWeights(), s.reclaim(), s.noteClock(now, held))
	return errors.Join(errs...)
}

// bound keeps the shares: events three tenths of MaxBytes, flows half of it,
// and takes more of the flows when the folder is over its bound all the same.
func (s *Store) bound() error {
	c := s.counts.read()
	if limit := s.opt.MaxBytes * 3 / 10; c.eventBytes > limit {
		if err := s.pruneOldestEvents(c.eventBytes - limit); err != nil {
			return err
		}
	}
	excess := max(c.flowBytes-s.opt.MaxBytes/2, 0)
	if used := s.diskBytes(); used > s.opt.MaxBytes {
		excess = max(excess, c.flowBytes/10)
	}
	return s.pruneOldestFlows(excess, c.flows-s.opt.MaxFlows)
}

func (s *Store) pruneEvents(before time.Time) error {
	end := string(eventKey(idFloor(before)))
	return s.dropEvents(func(key []byte, _ int64) verdict {
		if string(key) >= end {
			return stop
		}
		return drop
	})
}

func (s *Store) pruneOldestEvents(bytes int64) error {
	return s.dropEvents(func(_ []byte, size int64) verdict {
		if bytes <= 0 {
			return stop
		}
		bytes -= size
		return drop
	})
}

// dropEvents deletes events from the oldest on, with their index entries.
func (s *Store) dropEvents(judge func(key []byte, size int64) verdict) error {
	gone, err := s.prune([]byte{pEvent}, judge)
	s.counts.update(func(c *counts) { c.events -= len(gone.keys); c.eventBytes -= gone.bytes })
	if err != nil || len(gone.keys) == 0 {
		return err
	}
	ids := map[string]bool{}
	for _, k := range gone.keys {
		ids[string(k[1:])] = true
	}
	_, err = s.prune([]byte{pKind}, func(key []byte, _ int64) verdict {
		if _, id, ok := cutZero(key[1:]); ok && ids[string(id)] {
			return drop
		}
		return keep
	})
	return err
}

func cutZero(b []byte) (before, after []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return b[:i], b[i+1:], true
		}
	}
	return b, nil, false
}

func (s *Store) pruneFlowsBefore(t time.Time) error {
	end := t.UnixNano()
	return s.dropFlows(func(key []byte, _ int64) verdict {
		if flowTime(key) >= end {
			return stop
		}
		return drop
	})
}

func (s *Store) pruneOldestFlows(bytes int64, n int) error {
	return s.dropFlows(func(key []byte, size int64) verdict {
		if bytes <= 0 && n <= 0 {
			return stop
		}
		bytes, n = bytes-size, n-flowCount(key)
		return drop
	})
}

func (s *Store) dropFlows(judge func(key []byte, size int64) verdict) error {
	gone, err := s.prune([]byte{pFlow}, judge)
	n := 0
	for _, k := range gone.keys {
		n += flowCount(k)
	}
	s.counts.update(func(c *counts) { c.flows -= n; c.flowBytes -= gone.bytes })
	return err
}

func (s *Store) trimLedger() error {
	last := s.ledgerLast.Load()
	if last < keepLedger {
		return nil
	}
	end := string(ledgerKey(last - keepLedger))
	_, err := s.prune([]byte{pLedger}, func(key []byte, _ int64) verdict {
		if string(key) >= end {
			return stop
		}
		return drop
	})
	return err
}

type verdict uint8

const (
	keep verdict = iota
	drop
	stop
)

type pruned struct {
	keys  [][]byte
	bytes int64
}

// prune deletes what judge drops, walking the keys of prefix upwards.
func (s *Store) prune(prefix []byte, judge func(key []byte, size int64) verdict) (pruned, error) {
	var p pruned
	err := s.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			v := judge(item.Key(), item.ValueSize())
			if v == stop {
				return nil
			}
			if v == drop {
				p.keys, p.bytes = append(p.keys, item.KeyCopy(nil)), p.bytes+item.ValueSize()
			}
		}
		return nil
	})
	if err != nil {
		return pruned{}, fmt.Errorf("prune: %w", cause(err))
	}
	for i := 0; i < len(p.keys); i += pruneBatch {
		if err := s.deleteKeys(p.keys[i:min(i+pruneBatch, len(p.keys))]); err != nil {
			return pruned{}, err
		}
	}
	return p, nil
}

func (s *Store) deleteKeys(keys [][]byte) error {
	if err := s.room(); err != nil && !errors.Is(err, ErrNoSpace) {
		return err
	}
	err := s.db.Update(func(txn *badger.Txn) error {
		for _, k := range keys {
			if err := txn.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("prune: %w", cause(err))
	}
	return nil
}

// reclaim gives space of deleted records back to the disk. The database does
// so by itself as it merges tables; over the bound it is asked to.
func (s *Store) reclaim() error {
	if s.folder == nil {
		return nil
	}
	for range 4 {
		err := s.db.RunValueLogGC(0.5)
		if errors.Is(err, badger.ErrNoRewrite) || errors.Is(err, badger.ErrRejected) {
			break
		}
		if err != nil {
			return fmt.Errorf("reclaim: %w", cause(err))
		}
	}
	if s.diskBytes() > s.opt.MaxBytes {
		if err := s.db.Flatten(1); err != nil {
			return fmt.Errorf("reclaim: %w", cause(err))
		}
	}
	return nil
}

// diskBytes is what the folder really takes; the database's logs are sparse.
func (s *Store) diskBytes() int64 {
	if s.folder == nil {
		return 0
	}
	var n int64
	_ = filepath.WalkDir(s.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // a file that went while we walked takes no space
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok && d.Type().IsRegular() {
				n += st.Blocks * 512
			}
		}
		return nil
	})
	return n
}

// counts are running totals of what is bounded.
type counts struct {
	mu         sync.Mutex
	events     int
	eventBytes int64
	flows      int
	flowBytes  int64
}

func (c *counts) update(f func(*counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

type totals struct {
	events, flows         int
	eventBytes, flowBytes int64
}

func (c *counts) read() totals {
	c.mu.Lock()
	defer c.mu.Unlock()
	return totals{c.events, c.flows, c.eventBytes, c.flowBytes}
}

// count fills the totals in Open, from the keys alone.
func (s *Store) count() error {
	_, err := s.prune([]byte{pEvent}, func(_ []byte, size int64) verdict {
		s.counts.events++
		s.counts.eventBytes += size
		return keep
	})
	if err != nil {
		return err
	}
	_, err = s.prune([]byte{pFlow}, func(key []byte, size int64) verdict {
		s.counts.flows += flowCount(key)
		s.counts.flowBytes += size
		return keep
	})
	return err
}

func flowTime(key []byte) int64 {
	if len(key) != 19 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(key[1:9]))
}

func flowCount(key []byte) int {
	if len(key) != 19 {
		return 0
	}
	return int(binary.BigEndian.Uint16(key[17:]))
}
