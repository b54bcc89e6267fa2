package feed

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"
)

// Format is the form of a list.
type Format string

// Formats. Plain lists hold an address, a CIDR or a range a-b on each line, with
// comments and further columns; FireHOL's netset and ipset files are such.
const (
	Auto  Format = "auto"
	Plain Format = "plain"
	CSV   Format = "csv"
	Ipset Format = "ipset" // what `ipset save` prints
	STIX  Format = "stix"  // STIX 2.1 (and 2.0) bundles and TAXII envelopes
	MISP  Format = "misp"  // MISP warning lists
)

// Formats lists all formats.
func Formats() []Format { return []Format{Auto, Plain, CSV, Ipset, STIX, MISP} }

// Options say how a list is read. The zero value detects the format and has the
// default limits.
type Options struct {
	Format Format
	// Column of the address in a CSV file, by its name or its number from 1. ""
	// finds it by the first line that holds an address.
	Column string
	// MinScore skips lines whose score is lower; 0 takes all.
	MinScore float64
	// ScoreColumn is the column of the score, by name (CSV) or number from 1; ""
	// is the second.
	ScoreColumn string
	Now         time.Time // for the validity of STIX indicators; zero: not looked at

	// Warning says that the list is a warning list: networks up to /4 and, for
	// IPv6, /7 are taken.
	Warning bool

	MaxBytes   int64 // of the unpacked file; 0 is DefaultMaxBytes
	MaxEntries int   // 0 is DefaultMaxEntries
}

// Defaults of the limits.
const (
	DefaultMaxBytes   = 256 << 20
	DefaultMaxEntries = 2_000_000
	// MaxLine bounds a line of a text format.
	MaxLine = 16 << 10
	// MaxJSON bounds a JSON document, which is held in memory while it is read.
	MaxJSON = 64 << 20
)

func (o Options) filled() Options {
	if o.Format == "" {
		o.Format = Auto
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	return o
}

// Read reads a list. Everything that is not simply taken is told to note (nil
// tells nobody), duplicates last. gzip is recognised. On an error nothing of the
// list may be used: part of a list is not the list.
func Read(r io.Reader, o Options, note func(Note)) (*List, error) {
	o = o.filled()
	if note == nil {
		note = func(Note) {}
	}
	br, err := unpacked(r, o.MaxBytes)
	if err != nil {
		return nil, err
	}
	head, err := br.Peek(peek)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	format, err := detect(head, o)
	if err != nil {
		return nil, err
	}
	c := &collector{list: &List{Format: format, Counts: Counts{}}, o: o, note: note}
	switch format {
	case STIX, MISP:
		err = c.json(br)
	case CSV:
		err = c.lines(br, (&table{collector: c}).row)
	case Ipset:
		err = c.lines(br, (&saved{collector: c}).row)
	default:
		err = c.lines(br, c.plain)
	}
	if err != nil {
		return nil, err
	}
	return c.finish(), nil
}

const peek = 64 << 10 // also the buffer of lines

// unpacked takes off gzip and a byte order mark, and bounds what follows.
func unpacked(r io.Reader, limit int64) (*bufio.Reader, error) {
	br := bufio.NewReaderSize(r, peek)
	if b, _ := br.Peek(2); bytes.Equal(b, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("unpack gzip: %v", err)
		}
		br = bufio.NewReaderSize(&bounding{r: z, left: limit, limit: limit}, peek)
	} else {
		br = bufio.NewReaderSize(&bounding{r: br, left: limit, limit: limit}, peek)
	}
	b, _ := br.Peek(3)
	switch {
	case bytes.Equal(b, []byte{0xef, 0xbb, 0xbf}):
		_, _ = br.Discard(3) // they are in the buffer
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}), bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		return nil, errors.New("is UTF-16: expected UTF-8 or plain ASCII")
	}
	return br, nil
}

// bounding reads up to a limit, and is an error beyond it instead of an end.
type bounding struct {
	r           io.Reader
	left, limit int64
}

func (b *bounding) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if int64(n) > b.left {
		return int(b.left), fmt.Errorf("is larger than %d MiB unpacked: raise max_size if that is meant", b.limit>>20)
	}
	b.left -= int64(n)
	return n, err
}

// detect finds the format by the first lines, unless it is given.
func detect(head []byte, o Options) (Format, error) {
	if bytes.IndexByte(head, 0) >= 0 {
		return "", errors.New("is a binary file: expected a list as text, JSON, or either packed with gzip")
	}
	first := firstData(head)
	if len(first) > 0 && first[0] == '<' {
		return "", errors.New("is HTML or XML, perhaps the error page of a server: expected a list")
	}
	if o.Format != Auto {
		return o.Format, nil
	}
	switch {
	case len(first) > 0 && first[0] == '{', len(first) > 0 && first[0] == '[' && !bytes.Contains(first, []byte("]:")):
		if bytes.Contains(head, []byte(`"matching_attributes"`)) || bytes.Contains(head, []byte(`"list"`)) && !bytes.Contains(head, []byte(`"objects"`)) {
			return MISP, nil
		}
		return STIX, nil
	case o.Column != "":
		return CSV, nil
	case isIpset(first):
		return Ipset, nil
	case bytes.ContainsAny(first, `,"|`) && !isService(string(first)):
		return CSV, nil
	}
	return Plain, nil
}

// firstData is the first line that is neither empty nor a comment.
func firstData(head []byte) []byte {
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, []byte{'\n'})
		if line = uncommented(line); len(line) > 0 {
			return line
		}
		head = rest
	}
	return nil
}

// uncommented cuts a comment and the white space around what remains. "//"
// begins one at the start of a word only: it stands in URLs too.
func uncommented(line []byte) []byte {
	for i, c := range line { // IndexAny would build its set anew for each line
		if c == '#' || c == ';' {
			line = line[:i]
			break
		}
	}
	line = bytes.TrimSpace(line)
	if bytes.HasPrefix(line, []byte("//")) {
		return nil
	}
	for _, mark := range [...]string{" //", "\t//"} {
		if i := bytes.Index(line, []byte(mark)); i >= 0 {
			line = bytes.TrimSpace(line[:i])
		}
	}
	return line
}

// lines calls row for each line, without its end.
func (c *collector) lines(br *bufio.Reader, row func([]byte) error) error {
	for {
		line, err := br.ReadSlice('\n')
		if len(line) == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		c.line++
		c.list.Lines = c.line
		if errors.Is(err, bufio.ErrBufferFull) || len(line) > MaxLine {
			return fmt.Errorf("line %d is longer than %d KiB: this is no list of format %s", c.line, MaxLine>>10, c.list.Format)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("line %d: %w", c.line, err)
		}
		if bad := row(bytes.TrimRight(line, "\r\n")); bad != nil {
			return fmt.Errorf("line %d: %w", c.line, bad)
		}
		if err != nil {
			return nil
		}
	}
}
