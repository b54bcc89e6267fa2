package store

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// MaxValue is the largest value of Save and PutModel.
const MaxValue = 16 << 20

// partSize splits larger values so that each part fits one transaction.
const partSize = 384 << 10

// A value's head is one byte and then either the value itself (inline), or
// generation, size and digest of the parts that hold it (split).
const (
	headInline = 0
	headSplit  = 1
	splitSize  = 1 + 8 + 8 + sha256.Size
)

// Save makes b durable under key, replacing what was there: after a crash
// either the old value or the new one is there, whole.
func (s *Store) Save(key string, b []byte) error { return s.save("u/"+key, classValue, b) }

// Load returns what Save kept under key, or ErrNotFound.
func (s *Store) Load(key string) ([]byte, error) {
	b, err := s.load("u/" + key)
	if err != nil {
		return nil, fmt.Errorf("load %q: %w", key, err)
	}
	return b, nil
}

// Delete removes what Save kept under key; nothing there is no error.
func (s *Store) Delete(key string) error { return s.replace("u/"+key, classValue, nil) }

func (s *Store) save(name string, class byte, b []byte) error {
	if len(b) > MaxValue {
		return fmt.Errorf("store: value %q of %d bytes %w: expected at most %d", name[2:], len(b), ErrTooLarge, MaxValue)
	}
	if len(b) <= partSize {
		return s.replace(name, class, append([]byte{headInline}, b...))
	}
	gen := newGeneration()
	for i := 0; i*partSize < len(b); i++ {
		part := b[i*partSize : min((i+1)*partSize, len(b))]
		if err := s.submit(&request{class: class, ops: []op{{partKey(gen, i), part}}}); err != nil {
			return err
		}
	}
	sum := sha256.Sum256(b)
	head := binary.BigEndian.AppendUint64([]byte{headSplit}, gen)
	head = binary.BigEndian.AppendUint64(head, uint64(len(b)))
	return s.replace(name, class, append(head, sum[:]...))
}

// replace puts a new head (nil: none) and deletes the parts of the old one in
// the same transaction.
func (s *Store) replace(name string, class byte, head []byte) error {
	if err := checkName("name", name); err != nil {
		return err
	}
	s.valueMu.Lock() // two writers of one name must not both believe in one old head
	defer s.valueMu.Unlock()
	old, err := s.get(named(pValue, name))
	if err != nil {
		return err
	}
	ops := []op{{named(pValue, name), head}}
	if gen, size, _, ok := parseSplit(old); ok {
		for i := 0; uint64(i)*partSize < size; i++ {
			ops = append(ops, op{partKey(gen, i), nil})
		}
	}
	return s.submit(&request{class: class, ops: ops})
}

func parseSplit(head []byte) (gen, size uint64, sum []byte, ok bool) {
	if len(head) != splitSize || head[0] != headSplit {
		return 0, 0, nil, false
	}
	size = binary.BigEndian.Uint64(head[9:])
	return binary.BigEndian.Uint64(head[1:]), size, head[17:], size <= MaxValue
}

func (s *Store) load(name string) ([]byte, error) {
	var out []byte
	err := s.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(named(pValue, name))
		if err != nil {
			return err
		}
		head, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		out, err = assemble(txn, head)
		return err
	})
	if err != nil {
		return nil, own(err)
	}
	return out, nil
}

func assemble(txn *badger.Txn, head []byte) ([]byte, error) {
	if len(head) > 0 && head[0] == headInline {
		return head[1:], nil
	}
	gen, size, sum, ok := parseSplit(head)
	if !ok {
		return nil, fmt.Errorf("%w: a value's head is unreadable", ErrDamaged)
	}
	var b bytes.Buffer
	for i := 0; uint64(i)*partSize < size; i++ {
		item, err := txn.Get(partKey(gen, i))
		if err != nil {
			return nil, fmt.Errorf("%w: part of a value is missing", ErrDamaged)
		}
		if err := item.Value(func(v []byte) error { b.Write(v); return nil }); err != nil {
			return nil, err
		}
	}
	if got := sha256.Sum256(b.Bytes()); !bytes.Equal(got[:], sum) {
		return nil, fmt.Errorf("%w: a value does not fit its digest", ErrDamaged)
	}
	return b.Bytes(), nil
}

func newGeneration() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand never fails on the platforms that Go supports
	return binary.BigEndian.Uint64(b[:])
}

// sweepParts deletes parts that no head names: what a crash left between the
// parts and the head. It runs in Open, while nobody writes.
func (s *Store) sweepParts() error {
	live := map[uint64]bool{}
	err := s.each(pValue, func(_ string, v []byte) error {
		if gen, _, _, ok := parseSplit(v); ok {
			live[gen] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = s.prune([]byte{pPart}, func(key []byte, _ int64) verdict {
		if len(key) == 13 && live[binary.BigEndian.Uint64(key[1:])] {
			return keep
		}
		return drop
	})
	return err
}
