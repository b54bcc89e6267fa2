package feed

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// plain takes the first column of a line; "a - b" is a range too. A second
// address in the line is refused: to take only the first would turn somebody's
// range into one host.
func (c *collector) plain(line []byte) error {
	line = uncommented(line)
	if len(line) == 0 {
		return nil
	}
	first, rest := cutField(line)
	if len(rest) > 0 && rest[0] == '-' || bytes.HasSuffix(first, []byte("-")) {
		joined := bytes.ReplaceAll(bytes.ReplaceAll(line, []byte(" "), nil), []byte("\t"), nil)
		return c.token(joined, never)
	}
	if len(rest) > 0 {
		second, _ := cutField(rest)
		if bytes.ContainsAny(second, ".:") && parseToken(second).kind == "" {
			c.tell(Malformed, string(line), "two addresses: a range is written a-b; name the column of a table with column")
			return c.garbage()
		}
	}
	if c.o.MinScore > 0 && !c.scored(string(first), field(line, c.scoreColumn())) {
		return nil
	}
	return c.token(first, never)
}

// cutField splits at white space.
func cutField(line []byte) (first, rest []byte) {
	for i, c := range line {
		if c == ' ' || c == '\t' {
			return line[:i], bytes.TrimLeft(line[i:], " \t")
		}
	}
	return line, nil
}

// field is the n-th column of a plain line, from 1; nil when there is none.
func field(line []byte, n int) []byte {
	for ; n > 1; n-- {
		if _, line = cutField(line); len(line) == 0 {
			return nil
		}
	}
	first, _ := cutField(line)
	return first
}

func (c *collector) scoreColumn() int {
	if n, err := strconv.Atoi(c.o.ScoreColumn); err == nil && n > 0 {
		return n
	}
	return 2
}

// scored says whether a line's score is high enough, and tells when not.
func (c *collector) scored(value string, score []byte) bool {
	f, err := strconv.ParseFloat(string(score), 64)
	switch {
	case err != nil || f != f:
		c.tell(NoScore, value, fmt.Sprintf("found %q where the score should be", printable(string(score))))
	case f < c.o.MinScore:
		c.tell(BelowScore, value, fmt.Sprintf("%g of at least %g", f, c.o.MinScore))
	default:
		return true
	}
	return false
}

func isIpset(line []byte) bool {
	verb, _ := cutField(line)
	switch string(verb) {
	case "create", "add", "-N", "-A", "-exist":
		return true
	}
	return false
}

// saved reads what `ipset save` prints. Timeouts are not read: an entry stays
// for as long as the file lists it.
type saved struct {
	*collector
	masks map[string]int // sets of hash:ip with the option netmask: an address stands for a network
}

const maxSets = 4096

func (s *saved) row(line []byte) error {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] == '#' {
		return nil
	}
	words := strings.Fields(string(line))
	switch {
	case len(words) >= 3 && (words[0] == "create" || words[0] == "-N"):
		s.create(words)
		return nil
	case len(words) >= 3 && (words[0] == "add" || words[0] == "-A"):
		return s.add(words[1], words[2], words[3:])
	case words[0] == "COMMIT", words[0] == "flush", words[0] == "-F":
		return nil
	}
	s.tell(Malformed, string(line), "expected create or add, as `ipset save` prints them")
	return s.garbage()
}

func (s *saved) create(words []string) {
	for i := 3; i+1 < len(words); i++ {
		if n, err := strconv.Atoi(words[i+1]); words[i] == "netmask" && err == nil && n > 0 && n <= 128 && len(s.masks) < maxSets {
			if s.masks == nil {
				s.masks = map[string]int{}
			}
			s.masks[words[1]] = n
		}
	}
}

func (s *saved) add(set, entry string, options []string) error {
	if n, ok := s.masks[set]; ok && !strings.ContainsAny(entry, "/-,") {
		entry = fmt.Sprintf("%s/%d", entry, n)
	}
	if strings.Contains(entry, ",") {
		s.tell(Service, entry, "a set of more than addresses")
		return nil
	}
	for _, o := range options {
		if o != "nomatch" {
			continue
		}
		p := parseToken([]byte(entry))
		if !p.taken() {
			s.tell(p.kind, entry, p.detail)
			return nil
		}
		s.tell(Exception, entry, "nomatch")
		return s.take(p, never, &s.list.except)
	}
	return s.token([]byte(entry), never)
}
