package hello

import (
	"errors"
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Of TLS over TCP.
const (
	recordHead      = 5
	recordHandshake = 22
	maxRecord       = 1 << 14
)

// An Assembly puts one ClientHello together. Pieces may come in any order and
// more than once; pieces that contradict each other make it hopeless, as nobody
// here can tell which of them the server believed. The zero value is empty; what
// it holds is bounded by MaxMessage.
type Assembly struct {
	buf   []byte
	got   []bool
	whole int // bytes without a gap from the beginning
	bad   bool

	began bool
	first uint32 // sequence number of the first byte

	quic bool
	keys *keys
}

// Segment takes payload of a TCP segment. The one that is given first is the
// beginning of the stream.
func (a *Assembly) Segment(seq uint32, b []byte) {
	if !a.began {
		a.began, a.first = true, seq
	}
	a.put(int(int32(seq-a.first)), b)
}

// put notes bytes at a place of the stream. What lies beyond the bounds is left out.
func (a *Assembly) put(at int, b []byte) {
	if at < 0 || at >= MaxMessage {
		return
	}
	b = b[:min(len(b), MaxMessage-at)]
	if end := at + len(b); end > len(a.buf) {
		a.buf = append(a.buf, make([]byte, end-len(a.buf))...)
		a.got = append(a.got, make([]bool, end-len(a.got))...)
	}
	for i, c := range b {
		if a.got[at+i] && a.buf[at+i] != c {
			a.bad = true
		}
		a.buf[at+i], a.got[at+i] = c, true
	}
	for a.whole < len(a.got) && a.got[a.whole] {
		a.whole++
	}
}

// Hello is what was said, nil while more is to come. An error says that nothing
// will come of it.
func (a *Assembly) Hello() (*flow.Hello, error) {
	if a.bad {
		return nil, fmt.Errorf("client hello: pieces contradict each other: %w", ErrMalformed)
	}
	msg, err := a.buf[:a.whole], error(nil)
	if !a.quic {
		msg, err = unwrap(msg)
	}
	if err != nil {
		return nil, fmt.Errorf("client hello: %s: %w", err, ErrMalformed)
	}
	if len(msg) < 4 {
		return nil, nil
	}
	n := 4 + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3])
	switch {
	case msg[0] != clientHello || n > MaxMessage:
		return nil, fmt.Errorf("client hello: message of type %d with %d bytes: %w", msg[0], n, ErrMalformed)
	case len(msg) < n && a.whole == MaxMessage:
		return nil, fmt.Errorf("client hello: longer than %d bytes: %w", MaxMessage, ErrMalformed)
	case len(msg) < n:
		return nil, nil
	}
	return Parse(msg[:n], a.quic)
}

// unwrap joins the handshake bytes of the records that a stream begins with.
func unwrap(b []byte) ([]byte, error) {
	var msg []byte
	for len(b) >= recordHead {
		n := int(b[3])<<8 | int(b[4])
		if b[0] != recordHandshake || b[1] != 3 || n == 0 || n > maxRecord {
			if len(msg) >= 4 {
				return msg, nil // of what follows the hello; if it is not whole, it never will be
			}
			return nil, errors.New("no handshake record")
		}
		b = b[recordHead:]
		msg = append(msg, b[:min(n, len(b))]...)
		b = b[min(n, len(b)):]
	}
	return msg, nil
}
