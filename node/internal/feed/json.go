package feed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// json reads the document of a STIX bundle or a MISP warning list, object by
// object: of the document only its bytes are held.
func (c *collector) json(r io.Reader) error {
	b, err := io.ReadAll(&bounding{r: r, left: MaxJSON, limit: MaxJSON})
	if err != nil {
		return err
	}
	d := &document{collector: c, b: b, Decoder: json.NewDecoder(bytes.NewReader(b))}
	if err := d.read(); err != nil {
		return fmt.Errorf("line %d: %w", d.at(), err)
	}
	c.line = 0
	c.list.Lines = bytes.Count(b, []byte{'\n'}) + 1
	return nil
}

// document knows on which line the decoder is.
type document struct {
	*collector
	*json.Decoder
	b       []byte
	counted int // bytes
	newline int // of them
}

// at is the line on which the next value begins.
func (d *document) at() int {
	to := min(int(d.InputOffset()), len(d.b))
	for to < len(d.b) && bytes.IndexByte([]byte(" \t\r\n,:"), d.b[to]) >= 0 {
		to++
	}
	if to > d.counted {
		d.newline += bytes.Count(d.b[d.counted:to], []byte{'\n'})
		d.counted = to
	}
	return d.newline + 1
}

var errJSON = errors.New("not the JSON that was expected")

func badJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON ends early: the file is cut short")
	}
	return fmt.Errorf("not valid JSON: %v", err)
}

// read walks the top-level object, or a bare array of objects.
func (d *document) read() error {
	t, err := d.Token()
	if err != nil {
		return badJSON(err)
	}
	switch t {
	case json.Delim('['):
		return d.array(d.list.Format)
	case json.Delim('{'):
	default:
		return errJSON
	}
	found := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return badJSON(err)
		}
		want := map[Format]string{STIX: "objects", MISP: "list"}[d.list.Format]
		if key != want {
			var skip json.RawMessage
			if err := d.Decode(&skip); err != nil {
				return badJSON(err)
			}
			continue
		}
		if t, err := d.Token(); err != nil || t != json.Delim('[') {
			return fmt.Errorf("%q is no array: %w of format %s", want, errJSON, d.list.Format)
		}
		if err := d.array(d.list.Format); err != nil {
			return err
		}
		found = true
	}
	if _, err := d.Token(); err != nil {
		return badJSON(err)
	}
	if !found {
		return fmt.Errorf("neither the objects of a STIX bundle nor the list of a MISP warning list are there: %w", errJSON)
	}
	return nil
}

// array reads the entries up to the closing bracket.
func (d *document) array(f Format) error {
	b := bundle{collector: d.collector, newest: map[string]int{}}
	for d.More() {
		d.line = d.at()
		if f == MISP {
			if err := d.warning(); err != nil {
				return err
			}
			continue
		}
		var x object
		if err := d.Decode(&x); err != nil {
			var wrong *json.UnmarshalTypeError
			if !errors.As(err, &wrong) {
				return badJSON(err)
			}
			d.tell(Malformed, wrong.Value, fmt.Sprintf("%s of an object is a %s", wrong.Field, wrong.Value))
			continue
		}
		if err := b.add(x); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return badJSON(err)
	}
	return b.finish()
}

// warning reads one entry of a MISP list.
func (d *document) warning() error {
	var v any
	if err := d.Decode(&v); err != nil {
		return badJSON(err)
	}
	s, ok := v.(string)
	if !ok {
		d.tell(Malformed, fmt.Sprint(v), "expected a string")
		return d.garbage()
	}
	if p := parseToken([]byte(s)); p.kind == Malformed && strings.Trim(s, "0123456789.:/") != "" {
		d.tell(Other, s, "") // such lists hold names, hashes and more too
		return nil
	}
	return d.token([]byte(s), never)
}

// object is what is read of a STIX object.
type object struct {
	Type       string          `json:"type"`
	ID         string          `json:"id"`
	Modified   string          `json:"modified"`
	Pattern    json.RawMessage `json:"pattern"`
	Language   string          `json:"pattern_type"`
	ValidFrom  string          `json:"valid_from"`
	ValidUntil string          `json:"valid_until"`
	Revoked    bool            `json:"revoked"`
}

// bundle holds the indicators of a bundle until it ends, since a later object
// may be a newer version of an earlier one (STIX 2.1, section 3.6).
type bundle struct {
	*collector
	held   []indicator
	newest map[string]int // by id
}

type indicator struct {
	object
	line int
}

func (b *bundle) add(x object) error {
	if x.Type != "indicator" {
		return nil // reports, actors, relationships: no claim about an address
	}
	if len(b.held) >= b.o.MaxEntries {
		return fmt.Errorf("more than %d indicators: raise max_entries if that is meant", b.o.MaxEntries)
	}
	in := indicator{x, b.line}
	if i, known := b.newest[x.ID]; known && x.ID != "" {
		if instant(x.Modified).Before(instant(b.held[i].Modified)) {
			in, b.held[i] = b.held[i], in
		}
		old := b.held[i]
		b.held[i] = in
		b.line = old.line
		b.tell(Superseded, old.ID, "a newer version is on line "+fmt.Sprint(in.line))
		return nil
	}
	b.newest[x.ID] = len(b.held)
	b.held = append(b.held, in)
	return nil
}

// instant reads a STIX time; the zero time stands for none.
func instant(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

func (b *bundle) finish() error {
	for _, in := range b.held {
		b.line = in.line
		until, ok := b.valid(&in)
		if !ok {
			continue
		}
		var text string
		if json.Unmarshal(in.Pattern, &text) != nil || text == "" {
			b.tell(Malformed, in.ID, "pattern: expected a string")
			continue
		}
		if err := b.pattern(text, until); err != nil {
			return err
		}
	}
	return nil
}

// valid says until when an indicator holds, and tells when it does not.
func (b *bundle) valid(in *indicator) (until uint32, ok bool) {
	from, to := instant(in.ValidFrom), instant(in.ValidUntil)
	now := b.o.Now
	switch {
	case in.Revoked:
		b.tell(Revoked, in.ID, "")
	case in.Language != "" && in.Language != "stix":
		b.tell(Other, in.ID, "pattern language "+in.Language)
	case in.ValidUntil != "" && to.IsZero():
		b.tell(Malformed, in.ID, "valid_until: "+in.ValidUntil)
	case !now.IsZero() && !to.IsZero() && !to.After(now):
		b.tell(Outdated, in.ID, "valid_until "+in.ValidUntil)
	case !now.IsZero() && from.After(now):
		b.tell(NotYet, in.ID, "valid_from "+in.ValidFrom)
	case to.IsZero():
		return never, true
	default:
		return seconds(to), true
	}
	return 0, false
}

// pattern takes the addresses that fulfil a pattern each by itself.
func (b *bundle) pattern(text string, until uint32) error {
	terms, err := parsePattern(text)
	if err != nil {
		b.tell(Malformed, text, err.Error())
		return nil
	}
	for _, t := range terms {
		switch {
		case t.joined > 0:
			b.tell(Compound, t.text, "needs more than the address")
		case t.address == "":
			b.tell(Other, t.text, "")
		default:
			if err := b.token([]byte(t.address), until); err != nil {
				return err
			}
		}
	}
	return nil
}
