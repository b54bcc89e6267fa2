// Package lines reads text files that others wrote, line by line and in bounded
// memory: logs, tables and lists of labels. What is packed with gzip is unpacked,
// whatever its name. Whoever reads is told of a line that is too long, which is cut
// and not kept, and of a last line that no line end follows: a file that is still
// being written, or was not copied whole, ends so, and half a number, an address or a
// word may look like a whole one.
package lines

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// Reader reads a text file line by line.
type Reader struct {
	path string
	file io.Closer
	raw  *counter
	size int64
	r    *bufio.Reader
	most int
	n    int
	buf  []byte
}

// counter counts the bytes that were taken from the file itself.
type counter struct {
	r io.Reader
	n atomic.Int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// Open opens a file; most is the longest line that is kept, in bytes.
func Open(path string, most int) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s: is a folder, expected a log file", path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	l, err := New(path, f, most)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	return l, nil
}

// New reads what r gives; path is its name in errors.
func New(path string, r io.Reader, most int) (*Reader, error) {
	l := &Reader{path: path, raw: &counter{r: r}, most: most}
	l.r = bufio.NewReaderSize(l.raw, 64<<10)
	if magic, _ := l.r.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(l.r)
		if err != nil {
			return nil, fmt.Errorf("log %s: gzip header: %v", path, err)
		}
		l.r = bufio.NewReaderSize(z, 64<<10)
	}
	if bom, _ := l.r.Peek(3); bytes.Equal(bom, []byte("\xef\xbb\xbf")) {
		_, _ = l.r.Discard(3)
	}
	return l, nil
}

// Path is the name of what is read.
func (l *Reader) Path() string { return l.path }

// N is how many lines were read.
func (l *Reader) N() int { return l.n }

// Offset is how many bytes of the file itself were taken, and Size how many it had
// when it was opened.
func (l *Reader) Offset() int64 { return l.raw.n.Load() }

// Size is 0 of what is no file.
func (l *Reader) Size() int64 { return l.size }

// Head looks at the first bytes, up to 32 KiB, without taking them.
func (l *Reader) Head() []byte {
	b, _ := l.r.Peek(32 << 10)
	return b
}

// Next gives the next line without its end; io.EOF says that there is none. whole is
// false for a last line that no line end follows; long says that the line was over the
// limit and its text is cut. The bytes are valid until the next call.
func (l *Reader) Next() (b []byte, whole, long bool, err error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if len(l.buf)+len(part) <= l.most {
			l.buf = append(l.buf, part...)
		} else {
			long = true
		}
		switch {
		case err == nil:
			l.n++
			return bytes.TrimRight(l.buf, "\r\n"), true, long, nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && (len(l.buf) > 0 || long):
			l.n++
			return bytes.TrimRight(l.buf, "\r"), false, long, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, false, false, fmt.Errorf("the gzip stream is cut off after line %d, expected its end mark; the file was not copied whole", l.n)
		}
		return nil, false, false, err
	}
}

// Half says that a line which is not whole may be a part of one: an object of JSON
// that is closed is all of it.
func Half(b []byte, whole bool) bool {
	b = bytes.TrimSpace(b)
	return !whole && !(bytes.HasPrefix(b, []byte("{")) && bytes.HasSuffix(b, []byte("}")))
}

// WantEnd is what is expected of half a line, in words.
const WantEnd = "a line end: the file was not finished, or not copied whole"

// Close closes the file.
func (l *Reader) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
