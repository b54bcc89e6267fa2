package flowlog

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

// MaxLine is the longest line that is read, in bytes.
const MaxLine = 1 << 20

// lines reads a text file line by line, unpacking gzip, in bounded memory.
type lines struct {
	path string
	file io.Closer
	raw  *counter
	size int64
	r    *bufio.Reader
	n    int // lines read
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

func openLines(path string) (*lines, error) {
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
	l, err := newLines(path, f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	return l, nil
}

func newLines(path string, r io.Reader) (*lines, error) {
	l := &lines{path: path, raw: &counter{r: r}}
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

// head looks at the first bytes without taking them.
func (l *lines) head() []byte {
	b, _ := l.r.Peek(32 << 10)
	return b
}

// next gives the next line without its end. whole is false for a last line that
// no line end follows; long says that the line was over MaxLine and its text is
// cut. The bytes are valid until the next call.
func (l *lines) next() (b []byte, whole, long bool, err error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if len(l.buf)+len(part) <= MaxLine {
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
		case errors.Is(err, io.EOF) && len(l.buf) > 0:
			l.n++
			return bytes.TrimRight(l.buf, "\r"), false, long, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, false, false, fmt.Errorf("the gzip stream is cut off after line %d, expected its end mark; the file was not copied whole", l.n)
		}
		return nil, false, false, err
	}
}

func (l *lines) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
