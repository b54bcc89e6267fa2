package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// ledger is the head of the chain of writes. Entry n under L<n> is its class,
// the digest of its changes, and the chain value
//
//	chain(n) = SHA-256(chain(n-1), n, class, digest)
//
// so that an entry that goes, changes or is exchanged is seen at the next Open.
type ledger struct {
	last  uint64
	chain [sha256.Size]byte
}

const entrySize = 1 + 2*sha256.Size

// keepLedger bounds the ledger. Older writes have long been moved from the log,
// which can be cut short silently, to tables, whose blocks carry checksums.
const keepLedger = 100_000

func (l *ledger) add(r *request) (key, entry []byte) {
	l.last++
	digest := r.digest()
	l.chain = link(l.chain, l.last, r.class, digest[:])
	entry = append(append([]byte{r.class}, digest[:]...), l.chain[:]...)
	return ledgerKey(l.last), entry
}

func (r *request) digest() [sha256.Size]byte {
	h := sha256.New()
	var n [8]byte
	for _, o := range r.ops {
		binary.BigEndian.PutUint32(n[:4], uint32(len(o.key)))
		binary.BigEndian.PutUint32(n[4:], uint32(len(o.value)))
		h.Write(n[:])
		h.Write(o.key)
		h.Write(o.value)
	}
	var d [sha256.Size]byte
	h.Sum(d[:0])
	return d
}

func link(prev [sha256.Size]byte, seq uint64, class byte, digest []byte) [sha256.Size]byte {
	b := append([]byte{}, prev[:]...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = append(append(b, class), digest...)
	return sha256.Sum256(b)
}

// gap is a range of numbers that an earlier Open already reported.
type gap struct {
	From, To uint64 // both are missing
}

// audit walks the ledger, compares its end with the witness, and notes what is
// missing so that it is reported once.
func (s *Store) audit() error {
	known, err := s.gaps()
	if err != nil {
		return err
	}
	found, err := s.walk(known)
	if err != nil {
		return fmt.Errorf("audit the ledger: %w", cause(err))
	}
	if s.folder != nil && s.folder.last > s.ledger.last {
		found = append(found, gap{s.ledger.last + 1, s.folder.last})
		s.ledger.last = s.folder.last
	}
	s.ledgerLast.Store(s.ledger.last)
	if len(found) == 0 && !s.missed.Broken {
		return nil
	}
	for i, g := range found {
		if i == 0 {
			s.missed.After = g.From - 1
		}
		s.missed.Writes += g.To - g.From + 1
	}
	s.opt.Log.Error("acknowledged writes are missing", "dir", s.dir, "writes", s.missed.Writes, "broken", s.missed.Broken)
	if len(found) == 0 {
		return nil
	}
	return s.noteGaps(append(known, found...))
}

func (s *Store) walk(known []gap) (found []gap, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{pLedger}, PrefetchValues: true, PrefetchSize: 256})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := it.Item().Key()
			if len(key) != 9 {
				s.missed.Broken = true
				continue
			}
			seq := binary.BigEndian.Uint64(key[1:])
			anchored := s.ledger.last != 0 && seq == s.ledger.last+1
			if s.ledger.last != 0 && !anchored {
				found = append(found, unknown(known, gap{s.ledger.last + 1, seq - 1})...)
			}
			if err := it.Item().Value(func(v []byte) error { s.follow(seq, v, anchored); return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	return found, err
}

// follow checks one entry against its predecessor; the first entry, and one
// after a gap, is taken as it is.
func (s *Store) follow(seq uint64, v []byte, anchored bool) {
	if len(v) != entrySize {
		s.missed.Broken = true
		s.ledger.last = seq
		return
	}
	if anchored && link(s.ledger.chain, seq, v[0], v[1:1+sha256.Size]) != [sha256.Size]byte(v[1+sha256.Size:]) {
		s.missed.Broken = true
	}
	s.ledger.last, s.ledger.chain = seq, [sha256.Size]byte(v[1+sha256.Size:])
}

// unknown is g unless it was reported before. A reported gap can have grown at
// its end only by damage, which then is a gap of its own.
func unknown(known []gap, g gap) []gap {
	for _, k := range known {
		if k.From <= g.From && g.From <= k.To {
			g.From = k.To + 1
		}
	}
	if g.From > g.To {
		return nil
	}
	return []gap{g}
}

const maxGaps = 256

func (s *Store) gaps() ([]gap, error) {
	var list []gap
	b, err := s.get(metaKey("gaps"))
	if err != nil || b == nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%w: its list of gaps is unreadable", ErrDamaged)
	}
	return list, nil
}

func (s *Store) noteGaps(list []gap) error {
	if len(list) > maxGaps {
		list = list[len(list)-maxGaps:]
	}
	b, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("note the gaps: %v", err)
	}
	return s.setMeta("gaps", b)
}

// identify compares the database's identity with that of the folder, and gives
// it one when it is new.
func (s *Store) identify() error {
	if s.folder == nil {
		return nil
	}
	b, err := s.get(metaKey("id"))
	if err != nil {
		return err
	}
	if b != nil && string(b) != s.folder.id {
		return fmt.Errorf("%w: its database belongs to another state folder; restore both from the same backup", ErrDamaged)
	}
	if b == nil {
		if err := s.setMeta("id", []byte(s.folder.id)); err != nil {
			return err
		}
	}
	return s.folder.finish()
}

// setMeta is for Open, before the writer runs.
func (s *Store) setMeta(name string, b []byte) error {
	if err := s.room(); err != nil {
		return err
	}
	err := s.db.Update(func(txn *badger.Txn) error { return txn.Set(metaKey(name), b) })
	if err != nil {
		return fmt.Errorf("write the folder's own facts: %w", cause(err))
	}
	return nil
}

// get returns a value, or nil without error when there is none.
func (s *Store) get(key []byte) ([]byte, error) {
	var b []byte
	err := s.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		b, err = item.ValueCopy(nil)
		if b == nil {
			b = []byte{}
		}
		return err
	})
	if err = cause(err); errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store: read: %w", err)
	}
	return b, nil
}
