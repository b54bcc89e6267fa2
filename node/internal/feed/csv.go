package feed

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// table reads comma-separated values, one row a line. A quoted value does not
// go over the end of a line: that would let one quotation mark swallow a file.
type table struct {
	*collector
	sep     byte
	ready   bool
	comment []byte // the last comment before the first row: some lists have their names there
	address int    // columns from 0
	score   int
}

func (t *table) row(line []byte) error {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return nil
	}
	if line[0] == '#' || bytes.HasPrefix(line, []byte("//")) || line[0] == ';' {
		if !t.ready {
			t.comment = append(t.comment[:0], bytes.TrimLeft(line, "#/; ")...)
		}
		return nil
	}
	if !t.ready {
		header, err := t.begin(line)
		if err != nil || header {
			return err
		}
	}
	cells, ok := split(line, t.sep)
	if !ok {
		t.tell(Malformed, string(line), "a quotation mark is not closed on this line")
		return t.garbage()
	}
	if len(cells) <= t.address {
		t.tell(Malformed, string(line), fmt.Sprintf("has %d columns: the address is in column %d", len(cells), t.address+1))
		return t.garbage()
	}
	if t.o.MinScore > 0 {
		var score string
		if t.score < len(cells) {
			score = cells[t.score]
		}
		if !t.scored(cells[t.address], []byte(score)) {
			return nil
		}
	}
	return t.token([]byte(cells[t.address]), never)
}

// begin finds separator and columns by the first row. header says that the row
// holds names.
func (t *table) begin(line []byte) (header bool, err error) {
	t.ready = true
	t.sep = separator(line)
	cells, ok := split(line, t.sep)
	if !ok {
		return false, errors.New("a quotation mark is not closed on this line")
	}
	if t.address, header, err = t.column(t.o.Column, cells); err != nil {
		return false, err
	}
	if t.o.MinScore > 0 {
		name := t.o.ScoreColumn
		if name == "" {
			name = "2"
		}
		var named bool
		if t.score, named, err = t.column(name, cells); err != nil {
			return false, err
		}
		header = header || named
	}
	if header {
		t.tell(Header, string(line), "")
	}
	return header, nil
}

// column finds a column by number, by name, or, with "", by the first row that
// holds an address. header says that cells are names.
func (t *table) column(want string, cells []string) (n int, header bool, err error) {
	if want == "" {
		return t.guess(cells)
	}
	if n, err := strconv.Atoi(want); err == nil && n > 0 {
		names := n <= len(cells) && !parseToken([]byte(cells[n-1])).taken() && strings.Trim(cells[n-1], letters) == ""
		return n - 1, names && cells[n-1] != "", nil
	}
	above, _ := split(t.comment, t.sep)
	for i, row := range [][]string{cells, above} {
		for n, name := range row {
			if strings.EqualFold(strings.TrimSpace(name), want) {
				return n, i == 0, nil
			}
		}
	}
	return 0, false, fmt.Errorf("column %q: not among the table's columns (%s): name one of them, or give its number", printable(want), printable(strings.Join(cells, ", ")))
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_ -"

// guess wants exactly one column to hold an address. A first row of names is
// looked over once.
func (t *table) guess(cells []string) (n int, header bool, err error) {
	n = -1
	for i, cell := range cells {
		if !parseToken([]byte(cell)).taken() {
			continue
		}
		if n >= 0 {
			return 0, false, fmt.Errorf("columns %d and %d both hold addresses: say which with column", n+1, i+1)
		}
		n = i
	}
	if n >= 0 {
		return n, false, nil
	}
	for i, cell := range cells {
		switch strings.ToLower(strings.TrimSpace(cell)) {
		case "ip", "ip_address", "ipaddress", "address", "addr", "src_ip", "dst_ip", "ioc", "ioc_value", "indicator", "cidr", "network", "range":
			if n < 0 {
				n = i
			}
		}
	}
	if n < 0 {
		return 0, false, fmt.Errorf("no column of the first row holds an address (%s): say which with column", printable(strings.Join(cells, ", ")))
	}
	return n, true, nil
}

// separator is the one that occurs most often outside quotes.
func separator(line []byte) byte {
	best, most := byte(','), 0
	for _, sep := range []byte(",;\t|") {
		if cells, _ := split(line, sep); len(cells) > most {
			best, most = sep, len(cells)
		}
	}
	return best
}

// split cuts a row; quotation marks protect separators, and are doubled inside
// (RFC 4180). ok is false when one is not closed.
func split(line []byte, sep byte) (cells []string, ok bool) {
	var cell []byte
	quoted := false
	for i := 0; i < len(line); i++ {
		switch ch := line[i]; {
		case ch == '"' && quoted && i+1 < len(line) && line[i+1] == '"':
			cell = append(cell, '"')
			i++
		case ch == '"':
			quoted = !quoted
		case ch == sep && !quoted:
			cells = append(cells, string(bytes.TrimSpace(cell)))
			cell = cell[:0]
		default:
			cell = append(cell, ch)
		}
	}
	return append(cells, string(bytes.TrimSpace(cell))), !quoted
}
