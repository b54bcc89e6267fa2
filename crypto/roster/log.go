package roster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxLog bounds a stored log.
const maxLog = 256 << 20

// A Log is a consortium's whole history: the genesis and every entry that stood. It
// only grows. It is the order of entries for as long as no sealed chain gives one,
// and what an audit starts from.
type Log struct {
	genesis  *Genesis
	conflict Conflict
	entries  [][]byte // as they travel
	heads    []Hash   // of every epoch, the genesis first
	epochs   map[Hash]uint64
	roster   *Roster
}

// NewLog begins a log; conflict judges proofs of equivocation.
func NewLog(g *Genesis, conflict Conflict) (*Log, error) {
	r, err := Found(g)
	if err != nil {
		return nil, err
	}
	return &Log{genesis: g, conflict: conflict, heads: []Hash{r.head}, epochs: map[Hash]uint64{r.head: 0}, roster: r}, nil
}

// Roster is the present one.
func (l *Log) Roster() *Roster { return l.roster }

// Genesis is what founded the consortium.
func (l *Log) Genesis() *Genesis { return l.genesis }

// Append applies an entry, or leaves all as it was.
func (l *Log) Append(e *Entry) error {
	next, err := l.roster.Apply(e, l.conflict)
	if err != nil {
		return err
	}
	b, err := e.Encode()
	if err != nil {
		return err
	}
	l.entries, l.heads, l.roster = append(l.entries, b), append(l.heads, next.head), next
	l.epochs[next.head] = next.epoch
	return nil
}

// FirstWith is the first roster of the history in which so many organisations
// count, which is the same at every site; nil as long as there was none.
func (l *Log) FirstWith(counted int) *Roster {
	r, err := Found(l.genesis)
	for i := 0; err == nil; i++ {
		if len(r.Counted()) >= counted {
			return r
		}
		if i == len(l.entries) {
			return nil
		}
		var e *Entry
		if e, err = ParseEntry(l.entries[i]); err == nil {
			r, err = r.Apply(e, l.conflict)
		}
	}
	return nil // never: all of it stood before
}

// Has says whether an entry is in the log, with whatever votes; ErrFork says that
// another one stands in its place.
func (l *Log) Has(e *Entry) (bool, error) {
	epoch, known := l.epochs[e.Parent]
	if !known || epoch == l.roster.epoch {
		return false, nil
	}
	b, err := e.unsigned()
	if err != nil {
		return false, err
	}
	if l.heads[epoch+1] != headAfter(e.Parent, b) {
		return false, fmt.Errorf("%w: from epoch %d on", ErrFork, epoch+1)
	}
	return true, nil
}

// Head is the head at an epoch; false for one that has not been.
func (l *Log) Head(epoch uint64) (Hash, bool) {
	if epoch >= uint64(len(l.heads)) {
		return Hash{}, false
	}
	return l.heads[epoch], true
}

// Since returns encoded entries from an epoch on, as many as fit into size bytes.
func (l *Log) Since(epoch uint64, size int) [][]byte {
	var out [][]byte
	for i := epoch; i < uint64(len(l.entries)); i++ {
		if size -= len(l.entries[i]); size < 0 {
			break
		}
		out = append(out, l.entries[i])
	}
	return out
}

// WriteTo writes the log in the form that ReadLog takes: the genesis and the
// entries, each behind its length.
func (l *Log) WriteTo(w io.Writer) (n int64, err error) { return l.WritePart(w, maxLog) }

// WritePart writes the beginning of the log, at most about size bytes of entries:
// who reads it has a true roster, though perhaps not the present one.
func (l *Log) WritePart(w io.Writer, size int) (n int64, err error) {
	g, err := l.genesis.encode()
	if err != nil {
		return 0, err
	}
	for _, b := range append([][]byte{g}, l.Since(0, size)...) {
		m, err := w.Write(append(binary.AppendUvarint(nil, uint64(len(b))), b...))
		n += int64(m)
		if err != nil {
			return n, fmt.Errorf("roster: write log: %v", err)
		}
	}
	return n, nil
}

// ReadLog reads a log and applies every entry anew: a log that is read is one
// that was audited. The error names the first entry that does not stand, counted
// from 1.
func ReadLog(r io.Reader, conflict Conflict) (*Log, error) {
	in := &lengths{r: io.LimitReader(r, maxLog)}
	b, err := in.next()
	if err != nil {
		return nil, fmt.Errorf("roster: read log: genesis: %w", err)
	}
	g, err := parseGenesis(b)
	if err != nil {
		return nil, fmt.Errorf("roster: read log: %w", err)
	}
	l, err := NewLog(g, conflict)
	if err != nil {
		return nil, fmt.Errorf("roster: read log: %w", err)
	}
	for n := 1; ; n++ {
		b, err := in.next()
		if errors.Is(err, io.EOF) {
			return l, nil
		}
		var e *Entry
		if err == nil {
			e, err = ParseEntry(b)
		}
		if err == nil {
			err = l.Append(e)
		}
		if err != nil {
			return nil, fmt.Errorf("roster: read log: entry %d: %w", n, err)
		}
	}
}

// lengths reads what stands behind a length each.
type lengths struct {
	r   io.Reader
	one [1]byte
}

// ReadByte reads one byte.
func (l *lengths) ReadByte() (byte, error) {
	_, err := io.ReadFull(l.r, l.one[:])
	return l.one[0], err
}

// next returns io.EOF only at a clean end.
func (l *lengths) next() ([]byte, error) {
	n, err := binary.ReadUvarint(l)
	if err != nil {
		return nil, err
	}
	if n > MaxEntry {
		return nil, fmt.Errorf("%w: %d bytes: expected at most %d", ErrEntry, n, MaxEntry)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(l.r, b); err != nil {
		return nil, fmt.Errorf("%w: it is cut off", ErrEntry)
	}
	return b, nil
}
