package store

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	jump    = time.Hour
	holdFor = day
)

// clock keeps a jump of the wall clock from deleting everything by age. A jump
// shows as a difference between the wall's and the monotonic passage of time
// (time.Time carries both), or, over a restart, as an absence longer than what
// is kept. Then deletion by age waits for a day, long enough to be noticed and
// set right; an honest long absence only waits that day.
type clock struct {
	mu   sync.Mutex
	last time.Time
	hold time.Time
	told bool
}

func (c *clock) start(now time.Time) { c.last = now }

// check notes the time and says whether deletion by age must wait.
func (c *clock) check(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.step(now, now.Round(0).Sub(c.last.Round(0)), now.Sub(c.last))
	c.last = now
	return held
}

// step judges the passage of time since the last look by the wall's clock and
// by the monotonic one.
func (c *clock) step(now time.Time, wall, mono time.Duration) (held bool) {
	if d := wall - mono; d > jump || d < -jump {
		c.hold, c.told = now.Add(holdFor), false
	}
	return now.Before(c.hold)
}

// changed says once for each jump that it should be told.
func (c *clock) changed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.told
	c.told = true
	return first
}

// resume compares the time with the last one that an earlier run noted.
func (c *clock) resume(noted, now time.Time, retain time.Duration) {
	if noted.IsZero() {
		return
	}
	if away := now.Sub(noted); away > retain || away < -jump {
		c.hold = now.Add(holdFor)
	}
}

// noteClock keeps the time for the next run, unless it is in doubt.
func (s *Store) noteClock(now time.Time, held bool) error {
	if held || s.room() != nil {
		return nil
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano()))
	err := s.db.Update(func(txn *badger.Txn) error { return txn.Set(metaKey("clock"), b) })
	return cause(err)
}

func (s *Store) startClock() error {
	now := s.opt.Now()
	s.clock.start(now)
	b, err := s.get(metaKey("clock"))
	if err != nil || len(b) != 8 {
		return err
	}
	noted := time.Unix(0, int64(binary.BigEndian.Uint64(b)))
	s.clock.resume(noted, now, min(s.opt.RetainEvents, s.opt.RetainFlows))
	return nil
}
