package store

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
)

// Sentinels that callers test.
var (
	ErrNotFound = errors.New("not found")
	ErrClosed   = errors.New("store is closed")
	// ErrNoSpace: the disk is nearly full. Reads go on; writes are refused
	// until there is room, so that the database is not damaged by half a page.
	ErrNoSpace = errors.New("the disk of the state folder is nearly full: free some space, or lower store.max_bytes")
	// ErrTooLarge: one record is over its limit.
	ErrTooLarge = errors.New("is too large to keep")
	// Refusals of Open.
	ErrInUse   = errors.New("state folder is in use")
	ErrVersion = errors.New("state of another version")
	ErrForeign = errors.New("not a state folder of hedgerow")
	ErrDamaged = errors.New("state is damaged")
)

// cause turns an error of the database into words that are safe to print: its
// own texts may quote keys and values, some of them in full.
func cause(err error) error {
	if err == nil {
		return nil
	}
	var errno syscall.Errno
	switch {
	case errors.Is(err, badger.ErrKeyNotFound):
		return ErrNotFound
	case errors.Is(err, badger.ErrDBClosed), errors.Is(err, badger.ErrBlockedWrites):
		return ErrClosed
	case errors.Is(err, badger.ErrTxnTooBig):
		return ErrTooLarge
	case errors.Is(err, syscall.ENOSPC):
		return ErrNoSpace
	case errors.As(err, &errno):
		return fmt.Errorf("database: %w", errno)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: a file of the database is missing", ErrDamaged)
	}
	for _, m := range []struct{ mark, words string }{
		{"checksum mismatch", "a checksum does not fit"},
		{"file does not exist", "a file of the database is missing"},
		{"manifest", "the list of its files is unreadable"},
		{"MANIFEST", "the list of its files is unreadable"},
		{"bad magic", "the list of its files is unreadable"},
		{"unsupported version", "the database is of another version"},
	} {
		if strings.Contains(err.Error(), m.mark) {
			return fmt.Errorf("%w: %s", ErrDamaged, m.words)
		}
	}
	return fmt.Errorf("database refused (%T)", err)
}
