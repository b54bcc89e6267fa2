package intake

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// MaxPacket is the longest packet that a capture may hold, in bytes; longer
// ones are taken for a broken length. It is the bound that capture tools use.
const MaxPacket = 262144

// Packet is one captured packet.
type Packet struct {
	At      time.Time // UTC; where the file gives none, the time of the packet before
	Link    softplane.LinkType
	Data    []byte // valid until the next call of Next
	OrigLen int    // length on the wire, at least len(Data)
}

// FaultError is where and how a capture is broken.
type FaultError struct {
	Path   string
	Offset int64 // of the record at fault; in a gzipped file, in the data that it unpacks to
	Zipped bool
	Why    string // what is there and what was expected
}

// Error names file, byte and cause.
func (e *FaultError) Error() string {
	if e.Zipped {
		return fmt.Sprintf("capture %s: byte %d of the unpacked data: %s", e.Path, e.Offset, e.Why)
	}
	return fmt.Sprintf("capture %s: byte %d: %s", e.Path, e.Offset, e.Why)
}

// Capture reads one capture file from front to back. It is for one goroutine;
// Offset may be asked from others.
type Capture struct {
	src    *source
	file   io.Closer
	raw    *counter
	size   int64
	format format
	name   string
	err    error
	buf    []byte
	last   time.Time
}

// format reads records. It returns io.EOF at an orderly end.
type format interface {
	next(c *Capture) (Packet, error)
}

// OpenCapture opens a capture and reads its header. A file that is no capture
// gives an error that names what it seems to be.
func OpenCapture(path string) (*Capture, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open capture: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s: is a folder, expected a capture file", path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open capture: %w", err), f.Close())
	}
	c, err := newCapture(path, f, info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	c.file = f
	return c, nil
}

// newCapture reads a capture from r; size is 0 when unknown.
func newCapture(name string, r io.Reader, size int64) (*Capture, error) {
	c := &Capture{raw: &counter{r: r}, size: size}
	b := bufio.NewReaderSize(c.raw, 64<<10)
	c.src = &source{path: name, r: b}
	if magic, _ := b.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		c.src.zipped = true
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, c.src.fault(0, "gzip header: %v", err)
		}
		c.src.r = bufio.NewReaderSize(z, 64<<10)
	}
	magic, err := c.src.peek(4)
	if len(magic) < 4 {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, c.src.fault(0, "the file has %d bytes, expected a pcap or pcapng header", len(magic))
		}
		return nil, c.src.broken(0, err)
	}
	if binary.BigEndian.Uint32(magic) == blockSection {
		c.format, c.name = &pcapng{}, "pcapng"
		return c, nil
	}
	c.name = "pcap"
	c.format, err = openPcap(c.src)
	return c, err
}

// Next returns the next packet; io.EOF after the last. A broken capture gives
// one *FaultError after all packets ahead of the fault, and then again and again.
func (c *Capture) Next() (Packet, error) {
	if c.err != nil {
		return Packet{}, c.err
	}
	p, err := c.format.next(c)
	if err != nil {
		c.err = err
		return Packet{}, err
	}
	c.last = p.At
	return p, nil
}

// Format is "pcap" or "pcapng".
func (c *Capture) Format() string { return c.name }

// Offset is how many bytes of the file were read so far, of Size.
func (c *Capture) Offset() int64 { return c.raw.n.Load() }

// Size is the file's length in bytes.
func (c *Capture) Size() int64 { return c.size }

// Close closes the file.
func (c *Capture) Close() error { return c.file.Close() }

// data reads n bytes of packet data into the buffer that all packets share.
// The caller has checked n against MaxPacket.
func (c *Capture) data(at int64, n int) ([]byte, error) {
	if cap(c.buf) < n {
		c.buf = make([]byte, max(n, 2048))
	}
	return c.buf[:n], c.src.full(at, c.buf[:n], "packet data")
}

// foreign says what a file that is no capture looks like.
func foreign(head []byte) string {
	for _, k := range []struct{ magic, name string }{
		{"\x7fELF", "an ELF program"}, {"PK\x03\x04", "a zip archive"}, {"\x28\xb5\x2f\xfd", "zstd data: unpack it first"},
		{"\xfd7zXZ", "xz data: unpack it first"}, {"BZh", "bzip2 data: unpack it first"}, {"\x1f\x8b", "gzip within gzip"},
		{"snoop\x00", "a snoop capture: convert it with editcap -F pcap"}, {"\x89PNG", "a PNG image"}, {"%PDF", "a PDF document"},
		{"#!", "a script"}, {"#separator", "a Zeek log"}, {"{", "JSON text"}, {"[", "JSON text"}, {"<", "XML or HTML text"},
		{"RTSS", "a NetXRay capture: convert it with editcap -F pcap"}, {"GMBU", "a Network Monitor capture: convert it with editcap -F pcap"},
		{"version https://git-lfs", "a Git LFS pointer: fetch the file itself"},
	} {
		if bytes.HasPrefix(head, []byte(k.magic)) {
			return k.name
		}
	}
	if len(head) > 0 && bytes.IndexFunc(head, func(r rune) bool { return r < 9 || r == 0xfffd }) < 0 {
		return "text"
	}
	return fmt.Sprintf("unknown data beginning with % x", head[:min(4, len(head))])
}
