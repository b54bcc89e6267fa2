package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
)

// checkFiles looks whether the database's list of files, the tables on it and
// their indexes are whole. Badger itself would begin a new list and delete the
// tables that are not on it; it would write a new log before it missed a
// table; and on a mangled index it would end the process, from a goroutine
// where nobody can recover.
func checkFiles(o badger.Options) error {
	list, err := os.Open(filepath.Join(o.Dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the list of its files is missing", ErrDamaged)
	}
	if err != nil {
		return fmt.Errorf("read the list of files: %w", err)
	}
	defer list.Close()
	m, _, err := badger.ReplayManifestFile(list, o.ExternalMagicVersion, o)
	if err != nil {
		return cause(err)
	}
	for id := range m.Tables {
		if err := checkTable(table.NewFilename(id, o.Dir)); err != nil {
			return fmt.Errorf("%w: %s of the database %w", ErrDamaged, table.IDToFilename(id), err)
		}
	}
	return nil
}

var (
	errGone    = errors.New("is missing")
	errMangled = errors.New("is mangled")
)

// checkTable checks a table's end, which is: index, length of the index (4),
// checksum as protobuf, length of the checksum (4).
func checkTable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return errGone
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return errGone
	}
	n, err := tail(f, info.Size(), 4)
	if err != nil {
		return errMangled
	}
	sumLen := int64(binary.BigEndian.Uint32(n))
	sum, err := tail(f, info.Size()-4, min(sumLen, 64))
	if err != nil || sumLen > 64 {
		return errMangled
	}
	n, err = tail(f, info.Size()-4-sumLen, 4)
	if err != nil {
		return errMangled
	}
	index, err := tail(f, info.Size()-8-sumLen, int64(binary.BigEndian.Uint32(n)))
	if err != nil || !fits(index, sum) {
		return errMangled
	}
	return nil
}

// tail reads the n bytes before end.
func tail(r io.ReaderAt, end, n int64) ([]byte, error) {
	if n < 0 || n > end {
		return nil, io.ErrUnexpectedEOF
	}
	b := make([]byte, n)
	if _, err := r.ReadAt(b, end-n); err != nil {
		return nil, err
	}
	return b, nil
}

// fits compares index with a checksum message: field 1 the algorithm, absent
// for CRC-32C, the only one that this database is told to use; field 2 the sum.
func fits(index, msg []byte) bool {
	if len(msg) == 0 {
		return crc32.Checksum(index, crc32.MakeTable(crc32.Castagnoli)) == 0
	}
	if msg[0] != 2<<3 {
		return false
	}
	sum, n := binary.Uvarint(msg[1:])
	return n == len(msg)-1 && sum == uint64(crc32.Checksum(index, crc32.MakeTable(crc32.Castagnoli)))
}

// verifyAtOpen bounds the folder whose tables Open reads in full; of a larger
// one Maintain does it, so that a start stays quick.
const verifyAtOpen = 256 << 20

// verify compares the checksum of every block. It is needed because the
// database's iterators end at a mangled block as if there were no more, without
// an error. The recover is for the database's own report of such a block, which
// can panic.
func (s *Store) verify() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: a checksum does not fit", ErrDamaged)
		}
	}()
	if s.db.VerifyChecksum() != nil {
		return fmt.Errorf("%w: a checksum does not fit", ErrDamaged)
	}
	s.verified.Store(true)
	return nil
}

// verifyOnce is verify for Maintain: damage is told and kept in Stats.
func (s *Store) verifyOnce() error {
	if s.verified.Swap(true) {
		return nil
	}
	err := s.verify()
	if err != nil {
		s.damaged.Store(true)
		return fmt.Errorf("verify %s: %w; restore the folder from a backup", s.dir, err)
	}
	return nil
}
