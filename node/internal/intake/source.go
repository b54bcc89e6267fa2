package intake

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

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

// source reads records and knows where it is.
type source struct {
	path   string
	zipped bool
	r      *bufio.Reader
	off    int64
}

func (s *source) fault(at int64, format string, args ...any) error {
	return &FaultError{Path: s.path, Offset: at, Zipped: s.zipped, Why: fmt.Sprintf(format, args...)}
}

// broken is a fault of what lies below: the disk, or the gzip stream.
func (s *source) broken(at int64, err error) error {
	if s.zipped && errors.Is(err, io.ErrUnexpectedEOF) {
		return s.fault(at, "the gzip stream is cut off, expected its end mark; the capture was not finished or not copied whole")
	}
	return s.fault(at, "read: %v", err)
}

func (s *source) peek(n int) ([]byte, error) { return s.r.Peek(n) }

// full fills b with what a record at byte `at` must have.
func (s *source) full(at int64, b []byte, what string) error {
	n, err := io.ReadFull(s.r, b)
	s.off += int64(n)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && !s.zipped:
		return s.fault(at, "%s cut off: %d bytes left, expected %d; the capture was not finished or not copied whole", what, n, len(b))
	}
	return s.broken(at, err)
}

// start reads the first bytes of a record, which may also be an orderly end.
func (s *source) start(b []byte, what string) error {
	if _, err := s.r.Peek(1); errors.Is(err, io.EOF) {
		return io.EOF
	}
	return s.full(s.off, b, what)
}

// skip passes over n bytes without keeping them.
func (s *source) skip(at, n int64, what string) error {
	m, err := io.CopyN(io.Discard, s.r, n)
	s.off += m
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return s.fault(at, "%s cut off: %d bytes left, expected %d; the capture was not finished or not copied whole", what, m, n)
	}
	return s.broken(at, err)
}
