package dataset

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
	"github.com/hedgerow-mesh/hedgerow/node/internal/lines"
)

// Limits of what is read.
const (
	MaxBytes = 8 << 30 // unpacked, of one file
	maxLine  = 1 << 20
	maxWord  = 256
	// A file in which a greater share of rows is malformed is refused, once
	// there are more than a few.
	maxBad    = 0.01
	fewBad    = 20
	keptFault = 20
)

// Fault is a cell, or a line, that could not be used.
type Fault struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column string `json:"column,omitempty"`
	Reason string `json:"reason"`
}

func (f Fault) String() string {
	if f.Column == "" {
		return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Reason)
	}
	return fmt.Sprintf("%s:%d: column %s: %s", f.File, f.Line, f.Column, f.Reason)
}

// Part is one file of a table.
type Part struct {
	File  string
	Place string // where its rows were seen; "" when the mapping has a column for that
}

// Read reads files of one mapping into a table. Faults are rows that were left
// out, the first of them in words.
func Read(m *Mapping, parts ...Part) (*tabular.Table, *Report, error) {
	if err := m.check(); err != nil {
		return nil, nil, err
	}
	b := newBuilder(m)
	for _, p := range parts {
		if err := b.file(p); err != nil {
			return nil, nil, err
		}
	}
	t := b.table()
	if err := t.Validate(); err != nil {
		return nil, nil, fmt.Errorf("read %d files: %w", len(parts), err)
	}
	return t, &b.report, nil
}

// Report says what was read and what was not.
type Report struct {
	Files  []string `json:"files"`
	Rows   int      `json:"rows"`
	Bad    int      `json:"bad"` // rows left out
	Faults []Fault  `json:"faults,omitempty"`
}

// role is what a column of a file is to the table.
type role uint8

const (
	number role = iota
	word
	ignored
	label
	seconds
	place
)

type builder struct {
	m      *Mapping
	report Report
	names  []string // of the file's columns
	roles  []role
	signed []bool           // numbers that may be below 0
	cols   []tabular.Column // of the features
	words  []map[string]int32
	class  names
	family names
	place  names
	time   []float64
	group  []int
	copies map[uint64]int
	seed   maphash.Seed
	// of the row being read
	cells []cell
}

type cell struct {
	num  float32
	word string
}

// names numbers words in the order of their first appearance.
type names struct {
	of    []int
	names []string
	index map[string]int
}

func (n *names) number(s string) int {
	k, ok := n.index[s]
	if !ok {
		if n.index == nil {
			n.index = map[string]int{}
		}
		k = len(n.names)
		n.index[s], n.names = k, append(n.names, s)
	}
	return k
}

func newBuilder(m *Mapping) *builder {
	b := &builder{m: m, copies: map[uint64]int{}, seed: maphash.MakeSeed()}
	b.class.number(Normal)
	b.family.number(Normal)
	return b
}

// file reads one file, unpacking gzip.
func (b *builder) file(p Part) (err error) {
	l, err := lines.Open(p.File, maxLine)
	if err != nil {
		return fmt.Errorf("read data set: %w", err)
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	b.report.Files = append(b.report.Files, p.File)
	return b.read(l, p)
}

// read reads the lines of one file.
func (b *builder) read(l *lines.Reader, p Part) error {
	before, bad, size := b.report.Rows, 0, 0
	named := len(b.m.Columns) > 0
	if named {
		if err := b.head(b.m.Columns); err != nil {
			return fmt.Errorf("read %s: %w", p.File, err)
		}
	}
	for {
		text, whole, long, err := l.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		switch size += len(text); {
		case err != nil:
			return fmt.Errorf("read %s: after line %d: %w", p.File, l.N(), err)
		case long && !named:
			return fmt.Errorf("read %s: line %d is longer than %d bytes", p.File, l.N(), maxLine)
		case size > MaxBytes:
			return fmt.Errorf("read %s: longer than %d bytes unpacked", p.File, int64(MaxBytes))
		case len(text) == 0:
			continue
		case !named:
			named = true
			cells, err := split(string(text))
			if err == nil {
				err = b.head(cells)
			}
			if err != nil {
				return fmt.Errorf("read %s: line %d: %w", p.File, l.N(), err)
			}
			continue
		}
		if col, err := b.line(string(text), whole, long, p.Place); err != nil {
			b.fault(Fault{p.File, l.N(), col, err.Error()}, &bad)
			continue
		}
		if b.report.Rows++; b.report.Rows > tabular.MaxRows {
			return fmt.Errorf("read %s: line %d: more than %d rows", p.File, l.N(), tabular.MaxRows)
		}
	}
	if rows := b.report.Rows - before; bad > fewBad && float64(bad) > maxBad*float64(rows+bad) {
		return fmt.Errorf("read %s: %d of %d rows are malformed, first %s: check the mapping", p.File, bad, rows+bad, b.report.Faults[0])
	}
	return nil
}

// line takes the row of a line. Half a line may end within a number or a word, and is
// left out even where it has all its cells.
func (b *builder) line(text string, whole, long bool, where string) (column string, err error) {
	switch {
	case long:
		return "", fmt.Errorf("longer than %d bytes", maxLine)
	case !whole:
		return "", errors.New("expected " + lines.WantEnd)
	}
	cells, err := split(text)
	if err != nil {
		return "", err
	}
	return b.row(cells, where)
}

func (b *builder) fault(f Fault, bad *int) {
	*bad++
	b.report.Bad++
	if len(b.report.Faults) < keptFault {
		b.report.Faults = append(b.report.Faults, f)
	}
}

// split cuts a line at commas outside double quotes.
func split(line string) ([]string, error) {
	if !strings.Contains(line, `"`) {
		return strings.Split(line, ","), nil
	}
	var out []string
	for {
		if !strings.HasPrefix(line, `"`) {
			cell, rest, more := strings.Cut(line, ",")
			out = append(out, cell)
			if !more {
				return out, nil
			}
			line = rest
			continue
		}
		cell, rest, err := quoted(line[1:])
		if err != nil {
			return nil, err
		}
		out = append(out, cell)
		if rest == "" {
			return out, nil
		}
		if rest[0] != ',' {
			return nil, errors.New("text after a closing quote: expected a comma")
		}
		line = rest[1:]
	}
}

// quoted reads to the closing quote; two quotes are one.
func quoted(s string) (cell, rest string, err error) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '"')
		if i < 0 {
			return "", "", errors.New("a quote is not closed on its line")
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		if !strings.HasPrefix(s, `"`) {
			return b.String(), s, nil
		}
		b.WriteByte('"')
		s = s[1:]
	}
}

// head gives the columns their roles. Files of one table must have the same.
func (b *builder) head(names []string) error {
	clean := make([]string, len(names))
	for i, n := range names {
		clean[i] = strings.TrimSpace(n)
	}
	if b.names != nil {
		if !slices.Equal(b.names, clean) {
			return fmt.Errorf("columns %q: expected those of the first file, %q", clean, b.names)
		}
		return nil
	}
	if len(clean) > tabular.MaxColumns {
		return fmt.Errorf("%d columns: expected at most %d", len(clean), tabular.MaxColumns)
	}
	for i, n := range clean {
		if slices.Index(clean, n) != i {
			return fmt.Errorf("column %q occurs twice", n)
		}
	}
	for _, n := range slices.Concat([]string{b.m.Label}, b.m.Words, b.m.Ignore, b.m.unsigned(), nonEmpty(b.m.Time, b.m.Place)) {
		if !slices.Contains(clean, n) {
			return fmt.Errorf("column %q of the mapping is missing; the file has %q", n, clean)
		}
	}
	b.names = clean
	for _, n := range clean {
		r := b.role(n)
		b.roles = append(b.roles, r)
		b.signed = append(b.signed, !slices.Contains(b.m.Unsigned, n) && !slices.Contains(b.m.Unsigned, every))
		switch r {
		case number:
			b.cols, b.words = append(b.cols, tabular.Column{Name: n}), append(b.words, nil)
		case word:
			b.cols, b.words = append(b.cols, tabular.Column{Name: n, Words: []string{}}), append(b.words, map[string]int32{})
		}
	}
	if len(b.cols) == 0 {
		return errors.New("no column is left as a feature")
	}
	b.cells = make([]cell, len(b.cols))
	return nil
}

func nonEmpty(s ...string) []string {
	return slices.DeleteFunc(s, func(x string) bool { return x == "" })
}

func (b *builder) role(name string) role {
	switch {
	case name == b.m.Label:
		return label
	case name == b.m.Time:
		return seconds
	case name == b.m.Place:
		return place
	case slices.Contains(b.m.Ignore, name):
		return ignored
	case slices.Contains(b.m.Words, name):
		return word
	}
	return number
}

func (b *builder) absent(s string) bool {
	if len(b.m.Absent) == 0 {
		return s == ""
	}
	return slices.Contains(b.m.Absent, s)
}

// row checks all cells before it keeps any.
func (b *builder) row(cells []string, where string) (column string, err error) {
	if len(cells) != len(b.names) {
		return "", fmt.Errorf("%d cells: expected %d", len(cells), len(b.names))
	}
	at, family, when := 0, "", 0.0
	for i, s := range cells {
		s = strings.TrimSpace(s)
		switch b.roles[i] {
		case number:
			if b.cells[at].num, err = b.number(s); b.cells[at].num < 0 && !b.signed[i] {
				err = fmt.Errorf("%s: expected a number that is not below 0", short(s))
			}
			at++
		case word:
			b.cells[at].word, err = b.word(at, s)
			at++
		case label:
			family, err = s, checkWord(s)
		case seconds:
			when, err = strconv.ParseFloat(s, 64)
			if err == nil && (math.IsNaN(when) || math.Abs(when) > 1e15) {
				err = fmt.Errorf("%q: expected seconds", s)
			}
		case place:
			where, err = s, checkWord(s)
		}
		if err != nil {
			return b.names[i], err
		}
	}
	class := b.m.class(family)
	if class == Normal {
		family = Normal
	}
	for _, n := range []struct {
		n *names
		s string
	}{{&b.class, class}, {&b.family, family}, {&b.place, where}} {
		k := n.n.number(n.s)
		n.n.of = append(n.n.of, k)
	}
	if b.m.Time != "" {
		b.time = append(b.time, when)
	}
	b.keep()
	return "", nil
}

func (b *builder) number(s string) (float32, error) {
	if b.absent(s) {
		return float32(math.NaN()), nil
	}
	if x, ok := plain(s); ok {
		return float32(x), nil
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || strings.ContainsAny(s, "xX_") {
		return 0, fmt.Errorf("%s: expected a number", short(s))
	}
	if math.IsNaN(x) || math.Abs(x) > math.MaxFloat32 {
		return 0, fmt.Errorf("%s: expected a finite number", short(s))
	}
	return float32(x), nil
}

// plain reads what most cells are, some digits with or without a point, in a tenth of
// the time that any number takes. The quotient of two whole numbers that are exact is
// what ParseFloat makes of it.
func plain(s string) (x float64, ok bool) {
	if len(s) == 0 || len(s) > 15 {
		return 0, false
	}
	var n, under uint64 = 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			n, under = 10*n+uint64(c-'0'), 10*under
		case c == '.' && under == 0 && len(s) > 1:
			under = 1
		default:
			return 0, false
		}
	}
	return float64(n) / float64(max(under, 1)), true
}

func checkWord(s string) error {
	if s == "" || len(s) > maxWord {
		return fmt.Errorf("%s: expected a word of 1 to %d bytes", short(s), maxWord)
	}
	return nil
}

func (b *builder) word(at int, s string) (string, error) {
	if b.absent(s) {
		return "", nil
	}
	if err := checkWord(s); err != nil {
		return "", err
	}
	if _, known := b.words[at][s]; !known && len(b.words[at]) >= tabular.MaxWords {
		return "", fmt.Errorf("%s: more than %d distinct words", short(s), tabular.MaxWords)
	}
	return s, nil
}

func short(s string) string {
	if len(s) > 40 {
		return strconv.Quote(s[:40]) + "..."
	}
	return strconv.Quote(s)
}

// keep adds the row's cells, and numbers it among its copies.
func (b *builder) keep() {
	var h maphash.Hash
	h.SetSeed(b.seed)
	for i := range b.cells {
		c, x := &b.cols[i], b.cells[i]
		if b.words[i] == nil {
			c.Num = append(c.Num, x.num)
			bits := math.Float32bits(x.num)
			_, _ = h.Write([]byte{byte(bits), byte(bits >> 8), byte(bits >> 16), byte(bits >> 24)})
			continue
		}
		_, _ = h.WriteString(x.word)
		_ = h.WriteByte(0)
		if x.word == "" {
			c.Word = append(c.Word, -1)
			continue
		}
		k, ok := b.words[i][x.word]
		if !ok {
			k = int32(len(c.Words))
			b.words[i][strings.Clone(x.word)] = k
			c.Words = append(c.Words, strings.Clone(x.word))
		}
		c.Word = append(c.Word, k)
	}
	key := h.Sum64()
	g, ok := b.copies[key]
	if !ok {
		g = len(b.copies)
		b.copies[key] = g
	}
	b.group = append(b.group, g)
}

func (b *builder) table() *tabular.Table {
	return &tabular.Table{
		Columns: b.cols,
		Class:   tabular.Labels{Of: b.class.of, Names: b.class.names},
		Family:  tabular.Labels{Of: b.family.of, Names: b.family.names},
		Place:   tabular.Labels{Of: b.place.of, Names: b.place.names},
		Time:    b.time, Group: b.group,
	}
}
