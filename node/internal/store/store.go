package store

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// Options of a store. The zero value of each field means its default.
type Options struct {
	MaxBytes     int64            // bound of the folder on disk; default 2 GiB, least 64 MiB
	RetainEvents time.Duration    // age at which events go; default 90 days
	RetainFlows  time.Duration    // age at which archived flows go; default 30 days
	MaxFlows     int              // bound of archived flows; default 5,000,000
	KeepModels   int              // models whose weights are kept besides those in use; default 32
	InMemory     bool             // nothing on disk: for simulations and tests
	Now          func() time.Time // default time.Now
	Log          *slog.Logger     // default: discard
}

const day = 24 * time.Hour

func (o *Options) fill() error {
	if o.MaxBytes == 0 {
		o.MaxBytes = 2 << 30
	}
	if o.MaxBytes < 64<<20 {
		return fmt.Errorf("store: MaxBytes: found %d: expected at least 64 MiB", o.MaxBytes)
	}
	if o.RetainEvents < 0 || o.RetainFlows < 0 || o.MaxFlows < 0 || o.KeepModels < 0 {
		return errors.New("store: retention: expected no negative value")
	}
	if o.RetainEvents == 0 {
		o.RetainEvents = 90 * day
	}
	if o.RetainFlows == 0 {
		o.RetainFlows = 30 * day
	}
	if o.MaxFlows == 0 {
		o.MaxFlows = 5_000_000
	}
	if o.KeepModels == 0 {
		o.KeepModels = 32
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Store is an open store. Its methods may be called from any goroutine.
type Store struct {
	dir    string
	opt    Options
	db     *badger.DB
	folder *folder // nil in memory
	reqs   chan *request
	stop   chan struct{} // closed by Close: no more requests
	done   chan struct{} // closed by the writer when it ended
	once   sync.Once
	closed error

	hub    hub
	ledger ledger // owned by the writer goroutine after Open
	missed Missing
	counts counts
	clock  clock
	labels labels

	ledgerLast atomic.Uint64 // ledger.last for readers
	valueMu    sync.Mutex    // one replacement of a value's head at a time
	verified   atomic.Bool   // the tables' checksums were compared once
	damaged    atomic.Bool   // and did not fit
}

// Missing is what Open found to be gone although it had been acknowledged.
type Missing struct {
	Writes uint64 // number of acknowledged writes that are gone
	After  uint64 // the last number before the first gap
	Broken bool   // the chain does not fit: entries were changed or exchanged
}

// Any says whether something is missing.
func (m Missing) Any() bool { return m.Writes > 0 || m.Broken }

// String is the report as a sentence.
func (m Missing) String() string {
	switch {
	case m.Broken && m.Writes == 0:
		return "the ledger of the state folder does not fit together: records were changed from outside"
	case m.Broken:
		return fmt.Sprintf("%d acknowledged writes are missing from the state folder (after number %d), and its ledger does not fit together", m.Writes, m.After)
	case m.Writes > 0:
		return fmt.Sprintf("%d acknowledged writes are missing from the state folder (after number %d): the disk or a copy of it was damaged", m.Writes, m.After)
	}
	return "nothing is missing"
}

// Open opens the store in dir, or makes a new one when dir is empty or absent.
// It refuses (ErrInUse, ErrVersion, ErrForeign, ErrDamaged) without changing
// anything in dir. Writes that are missing do not refuse: see Store.Missing.
func Open(dir string, o Options) (*Store, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	s := &Store{
		dir: dir, opt: o,
		reqs: make(chan *request), stop: make(chan struct{}), done: make(chan struct{}),
	}
	s.hub.init()
	if !o.InMemory {
		f, err := openFolder(dir)
		if err != nil {
			return nil, fmt.Errorf("open store %s: %w", dir, err)
		}
		s.folder = f
	}
	if err := s.start(); err != nil {
		if s.db != nil {
			_ = s.db.Close()
		}
		if s.folder != nil {
			s.folder.close()
		}
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	go s.write()
	return s, nil
}

func (s *Store) start() error {
	const advice = "restore the folder from a backup, or move it away to start anew"
	if s.folder != nil && !s.folder.fresh {
		if err := checkFiles(s.options()); err != nil {
			return fmt.Errorf("%w; %s", err, advice)
		}
	}
	db, err := openBadger(s.options())
	if err != nil {
		return fmt.Errorf("%w; %s", cause(err), advice)
	}
	s.db = db
	if s.diskBytes() <= verifyAtOpen {
		if err := s.verify(); err != nil {
			return fmt.Errorf("%w; %s", err, advice)
		}
	}
	if err := s.identify(); err != nil {
		return err
	}
	if err := s.audit(); err != nil {
		return err
	}
	if err := s.count(); err != nil {
		return err
	}
	if err := s.loadLabels(); err != nil {
		return err
	}
	if err := s.sweepParts(); err != nil {
		return err
	}
	return s.startClock()
}

// options are Badger's, tuned for a gateway: 11.5 MB of heap instead of 88.
func (s *Store) options() badger.Options {
	dir := ""
	if !s.opt.InMemory {
		dir = filepath.Join(s.dir, "db")
	}
	o := badger.DefaultOptions(dir).
		WithMemTableSize(8 << 20).WithNumMemtables(2).
		WithValueLogFileSize(16 << 20).WithValueThreshold(64<<10 - 32).
		WithBlockCacheSize(8 << 20).WithIndexCacheSize(4 << 20).
		WithNumCompactors(2).WithCompactL0OnClose(true).
		WithCompression(options.Snappy).WithMetricsEnabled(false).
		WithVerifyValueChecksum(true).WithChecksumVerificationMode(options.OnBlockRead).
		WithDetectConflicts(false). // there is one writer
		WithSyncWrites(true).WithLogger(nil)
	if s.opt.InMemory {
		o = o.WithInMemory(true).WithSyncWrites(false).WithValueThreshold(1 << 20)
	}
	return o
}

// openBadger keeps a panic of the database, as on a mangled table, from
// passing the package's border.
func openBadger(o badger.Options) (db *badger.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, ErrDamaged
		}
	}()
	return badger.Open(o)
}

// Missing is what Open found to be gone. It is told once: the next Open of the
// same folder counts from here.
func (s *Store) Missing() Missing { return s.missed }

// Dir is the folder, "" in memory.
func (s *Store) Dir() string { return s.dir }

// Close waits for the writes under way, ends followers and releases the
// folder. Calling it again does nothing.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.stop)
		<-s.done
		s.hub.close()
		if err := s.db.Close(); err != nil {
			s.closed = fmt.Errorf("close store %s: %w", s.dir, cause(err))
		}
		if s.folder != nil {
			s.folder.close()
		}
	})
	return s.closed
}
