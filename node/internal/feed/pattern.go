package feed

import (
	"errors"
	"fmt"
	"strings"
)

// The grammar of STIX patterns (STIX 2.1, section 9) as far as it decides the
// one question that a blocklist asks: which addresses make the pattern true,
// whatever else was seen? Those are the comparisons with an address that nothing
// but OR connects to the whole.

// term is one alternative of a pattern.
type term struct {
	text    string // as it stands there
	address string // "" when it is about something else
	joined  int    // 1 when it holds only together with others
}

const (
	maxPattern = 1 << 20
	maxDepth   = 128
)

type patternParser struct {
	toks  []patternToken
	pos   int
	depth int
}

type patternToken struct {
	kind byte // 's' string, 'w' word, or the character itself
	text string
}

// parsePattern returns the alternatives of a pattern.
func parsePattern(s string) ([]term, error) {
	toks, err := patternTokens(s)
	if err != nil {
		return nil, err
	}
	p := &patternParser{toks: toks}
	terms, err := p.observations()
	if err == nil && p.pos < len(toks) {
		err = fmt.Errorf("unexpected %q", toks[p.pos].text)
	}
	return terms, err
}

func patternTokens(s string) ([]patternToken, error) {
	if len(s) > maxPattern {
		return nil, fmt.Errorf("pattern is longer than %d KiB", maxPattern>>10)
	}
	var toks []patternToken
	for i := 0; i < len(s); {
		switch ch := s[i]; {
		case ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r':
			i++
		case ch == '\'':
			text, n := quoted(s[i:])
			if n == 0 {
				return nil, errors.New("a string is not closed")
			}
			toks = append(toks, patternToken{'s', text})
			i += n
		case strings.IndexByte("[](),", ch) >= 0:
			toks = append(toks, patternToken{ch, s[i : i+1]})
			i++
		case strings.IndexByte("=!<>", ch) >= 0:
			n := 1
			for i+n < len(s) && strings.IndexByte("=!<>", s[i+n]) >= 0 {
				n++
			}
			toks = append(toks, patternToken{'=', s[i : i+n]})
			i += n
		default:
			n := wordLength(s[i:])
			toks = append(toks, patternToken{'w', s[i : i+n]})
			i += n
		}
	}
	return toks, nil
}

// wordLength is that of a keyword, a number or an object path. Paths may hold
// quoted keys and list steps: file:hashes.'SHA-256', x:refs[*].value.
func wordLength(s string) int {
	i := 0
	for i < len(s) {
		switch {
		case s[i] == '\'' && i > 0 && (s[i-1] == '.' || s[i-1] == ':'):
			_, n := quoted(s[i:])
			if n == 0 {
				return max(i, 1)
			}
			i += n
		case s[i] == '[' && i > 0:
			n := strings.IndexByte(s[i:], ']')
			if n < 0 || strings.Trim(s[i+1:i+n], "0123456789*") != "" {
				return i
			}
			i += n + 1
		case strings.IndexByte(" \t\r\n'[](),=!<>", s[i]) >= 0:
			return max(i, 1)
		default:
			i++
		}
	}
	return i
}

// quoted reads a string literal and returns its length with quotes, 0 when it
// does not end.
func quoted(s string) (string, int) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '\'':
			return b.String(), i + 1
		default:
			b.WriteByte(s[i])
		}
	}
	return "", 0
}

func (p *patternParser) next() patternToken {
	if p.pos >= len(p.toks) {
		return patternToken{}
	}
	return p.toks[p.pos]
}

func (p *patternParser) accept(kind byte, words ...string) bool {
	t := p.next()
	if t.kind != kind || p.pos >= len(p.toks) {
		return false
	}
	if len(words) == 0 {
		p.pos++
		return true
	}
	for _, w := range words {
		if strings.EqualFold(t.text, w) {
			p.pos++
			return true
		}
	}
	return false
}

func (p *patternParser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	return nil
}

func join(terms []term) []term {
	for i := range terms {
		terms[i].joined = 1
	}
	return terms
}

// observations reads [..] OR [..] AND [..] FOLLOWEDBY [..]. OR binds weakest but
// for FOLLOWEDBY; wherever both occur beside each other without parentheses,
// everything counts as joined, which is the safe reading.
func (p *patternParser) observations() ([]term, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	var all, group []term
	sizes := 0 // observations in the current AND group
	followed := false
	for {
		terms, err := p.observation()
		if err != nil {
			return nil, err
		}
		group = append(group, terms...)
		sizes++
		switch {
		case p.accept('w', "AND"):
			continue
		case p.accept('w', "FOLLOWEDBY"):
			followed = true
			continue
		}
		if sizes > 1 {
			group = join(group)
		}
		all, group, sizes = append(all, group...), nil, 0
		if !p.accept('w', "OR") {
			break
		}
	}
	if followed {
		all = join(all)
	}
	return all, nil
}

// observation reads [..] or (..), with qualifiers.
func (p *patternParser) observation() (terms []term, err error) {
	switch {
	case p.accept('('):
		if terms, err = p.observations(); err == nil && !p.accept(')') {
			err = errors.New("a parenthesis is not closed")
		}
	case p.accept('['):
		if terms, err = p.alternatives(); err == nil && !p.accept(']') {
			err = errors.New("a bracket is not closed")
		}
	default:
		return nil, fmt.Errorf("expected an observation in brackets, found %q", p.next().text)
	}
	for err == nil && p.accept('w', "WITHIN", "REPEATS", "START") {
		terms = join(terms) // seen so often, or at such times: more than the address
		for p.next().kind == 's' || p.next().kind == 'w' && !p.peekWord("AND", "OR", "FOLLOWEDBY", "WITHIN", "REPEATS", "START") {
			p.pos++
		}
	}
	return terms, err
}

func (p *patternParser) peekWord(words ...string) bool {
	ok := p.accept('w', words...)
	if ok {
		p.pos--
	}
	return ok
}

// alternatives reads comparisons joined by OR.
func (p *patternParser) alternatives() ([]term, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	var all []term
	for {
		terms, err := p.together()
		if err != nil {
			return nil, err
		}
		all = append(all, terms...)
		if !p.accept('w', "OR") {
			return all, nil
		}
	}
}

// together reads comparisons joined by AND. One that only names the type of the
// address beside it adds nothing.
func (p *patternParser) together() ([]term, error) {
	var all []term
	n := 0
	for {
		terms, plainType, err := p.comparison()
		if err != nil {
			return nil, err
		}
		if !plainType {
			all = append(all, terms...)
			n++
		}
		if p.accept('w', "AND") {
			continue
		}
		if n > 1 {
			all = join(all)
		}
		if n == 0 {
			all = append(all, terms...)
		}
		return all, nil
	}
}

// comparison reads PATH OPERATOR VALUE, or a parenthesis.
func (p *patternParser) comparison() (terms []term, plainType bool, err error) {
	if err := p.enter(); err != nil {
		return nil, false, err
	}
	defer func() { p.depth-- }()
	if p.accept('w', "NOT") {
		terms, _, err = p.comparison()
		return join(terms), false, err
	}
	if p.accept('(') {
		if terms, err = p.alternatives(); err == nil && !p.accept(')') {
			err = errors.New("a parenthesis is not closed")
		}
		return terms, false, err
	}
	if p.accept('w', "EXISTS") {
		t := term{text: "EXISTS " + p.next().text}
		if !p.accept('w') {
			return nil, false, errors.New("EXISTS: expected an object path")
		}
		return []term{t}, false, nil
	}
	path := p.next()
	if !p.accept('w') {
		return nil, false, fmt.Errorf("expected an object path, found %q", path.text)
	}
	return p.operator(path.text)
}

func (p *patternParser) operator(path string) (terms []term, plainType bool, err error) {
	if t := p.next(); t.kind == ']' || t.kind == ')' || p.peekWord("AND", "OR") {
		return []term{{text: path}}, false, nil // converters leave such where they know no comparison
	}
	negated := p.accept('w', "NOT")
	op := p.next()
	if !p.accept('=') && !p.accept('w', "IN", "LIKE", "MATCHES", "ISSUBSET", "ISSUPERSET") {
		return nil, false, fmt.Errorf("%s: expected an operator, found %q", path, op.text)
	}
	values, err := p.values(strings.EqualFold(op.text, "IN"))
	if err != nil {
		return nil, false, fmt.Errorf("%s: %v", path, err)
	}
	names := !negated && isAddressPath(path) && (op.text == "=" || op.text == "==" || strings.EqualFold(op.text, "IN") || strings.EqualFold(op.text, "ISSUBSET"))
	for _, v := range values {
		t := term{text: path + " " + op.text + " " + v}
		if names {
			t.address = v
		}
		terms = append(terms, t)
	}
	plainType = !negated && op.text == "=" && strings.HasSuffix(path, "_ref.type") && len(values) == 1 && strings.HasPrefix(values[0], "ipv")
	return terms, plainType, nil
}

func (p *patternParser) values(set bool) (values []string, err error) {
	if !set {
		t := p.next()
		if !p.accept('s') && !p.accept('w') {
			return nil, fmt.Errorf("expected a value, found %q", t.text)
		}
		// A typed literal: t'2026-01-01T00:00:00Z', h'ff', b'..'.
		if next := p.next(); t.kind == 'w' && len(t.text) == 1 && next.kind == 's' {
			p.pos++
			return []string{next.text}, nil
		}
		return []string{t.text}, nil
	}
	if !p.accept('(') {
		return nil, errors.New("IN: expected a parenthesis")
	}
	for {
		t := p.next()
		if !p.accept('s') && !p.accept('w') {
			return nil, fmt.Errorf("IN: expected a value, found %q", t.text)
		}
		values = append(values, t.text)
		if p.accept(')') {
			return values, nil
		}
		if !p.accept(',') {
			return nil, errors.New("IN: a parenthesis is not closed")
		}
	}
}

func isAddressPath(path string) bool {
	switch strings.ToLower(path) {
	case "ipv4-addr:value", "ipv6-addr:value",
		"network-traffic:src_ref.value", "network-traffic:dst_ref.value":
		return true
	}
	return false
}
