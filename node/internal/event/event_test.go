package event

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// bodies gives an event of each kind.
func bodies() map[Kind]*Event {
	m := map[Kind]*Event{
		KindFlow: {Flow: &Flow{}}, KindAlert: {Alert: &Alert{}}, KindIncident: {Incident: &Incident{}}, KindVerdict: {Verdict: &Verdict{}},
		KindBlock: {Block: &Block{}}, KindIndicator: {Indicator: &Indicator{}}, KindModel: {Model: &Model{}}, KindPeer: {Peer: &Peer{}}, KindFlood: {Flood: &Flood{}}, KindQuality: {Quality: &Quality{}},
	}
	for k, e := range m {
		e.V, e.ID, e.Time, e.Site, e.Kind = Version, NewID(at), at, "alder", k
	}
	return m
}

func TestEveryKindIsReadBack(t *testing.T) {
	m := bodies()
	if len(m) != len(Kinds()) {
		t.Fatalf("%d kinds are tested of %d", len(m), len(Kinds()))
	}
	for _, k := range Kinds() {
		text, err := json.Marshal(m[k])
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(text)
		if err != nil || !reflect.DeepEqual(got, m[k]) {
			t.Errorf("%s: %+v, %v", k, got, err)
		}
	}
}

func TestInvalidRecordsAreRefused(t *testing.T) {
	for want, bend := range map[string]func(*Event){
		"expected 1":        func(e *Event) { e.V = 2 },
		"id and time":       func(e *Event) { e.ID = "" },
		"time are required": func(e *Event) { e.Time = time.Time{} },
		"expected one of":   func(e *Event) { e.Kind = "rumour" },
		"under the key":     func(e *Event) { e.Peer = nil },
		"exactly one body":  func(e *Event) { e.Flow = &Flow{} },
	} {
		e := bodies()[KindPeer]
		bend(e)
		if err := e.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, found %v", want, err)
		}
	}
	if _, err := Decode([]byte(`{"v":"one"}`)); err == nil {
		t.Error("a version of letters was taken")
	}
}

func TestIDsSortByTime(t *testing.T) {
	last := ""
	for i := range 50 {
		id := NewID(at.Add(time.Duration(i*i) * time.Millisecond))
		if len(id) != 25 || id <= last && i > 0 {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
	}
}

// sections of docs/events.md and what they document.
func documented() map[string]reflect.Type {
	return map[string]reflect.Type{
		"Envelope": reflect.TypeFor[Event](), "flow": reflect.TypeFor[Flow](), "tls": reflect.TypeFor[TLS](), "alert": reflect.TypeFor[Alert](), "reasons": reflect.TypeFor[Reason](),
		"incident": reflect.TypeFor[Incident](), "verdict": reflect.TypeFor[Verdict](), "block": reflect.TypeFor[Block](),
		"indicator": reflect.TypeFor[Indicator](), "model": reflect.TypeFor[Model](), "peer": reflect.TypeFor[Peer](), "flood": reflect.TypeFor[Flood](), "quality": reflect.TypeFor[Quality](), "most_drifted": reflect.TypeFor[InputDrift](),
	}
}

// The documentation has a row for every key, none for a key that is not there,
// the right type in it, and says "Optional" exactly where a key may be left out.
func TestDocumentationIsTheSchema(t *testing.T) {
	b, err := os.ReadFile("../../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := regexp.MustCompile(`(?m)^###? (\w+)$`).FindAllStringSubmatchIndex(string(b), -1)
	rows := map[string]map[string][2]string{}
	for i, p := range parts {
		end := len(b)
		if i+1 < len(parts) {
			end = parts[i+1][0]
		}
		rows[string(b[p[2]:p[3]])] = table(t, string(b[p[1]:end]))
	}
	for name, typ := range documented() {
		checkSection(t, name, typ, rows[name])
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("section %s documents nothing", name)
	}
}

func table(t *testing.T, text string) map[string][2]string {
	rows := map[string][2]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| (.*)\\|$").FindAllStringSubmatch(text, -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("%s stands twice in one section", m[1])
		}
		rows[m[1]] = [2]string{m[2], m[3]}
	}
	return rows
}

func checkSection(t *testing.T, name string, typ reflect.Type, rows map[string][2]string) {
	for i := range typ.NumField() {
		key, opts, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		row, ok := rows[key]
		delete(rows, key)
		if !ok {
			t.Errorf("section %s lacks the key %s", name, key)
			continue
		}
		if want := jsonType(typ.Field(i).Type); row[0] != want {
			t.Errorf("section %s: %s is %s, documented as %s", name, key, want, row[0])
		}
		body := name == "Envelope" && typ.Field(i).Type.Kind() == reflect.Pointer // one of them is there
		optional := opts == "omitempty" && !body
		if optional != strings.HasPrefix(row[1], "Optional: ") {
			t.Errorf("section %s: %s: optional is %v, documented otherwise", name, key, optional)
		}
	}
	for key := range rows {
		t.Errorf("section %s documents %s, which is no key", name, key)
	}
}

func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Slice:
		return "array"
	case reflect.Map, reflect.Pointer:
		return "object"
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return "time"
		}
		return "object"
	}
	return "number"
}

// The example of the documentation is a valid record.
func TestDocumentedExampleIsValid(t *testing.T) {
	b, err := os.ReadFile("../../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(b), -1)
	if len(blocks) == 0 {
		t.Fatal("no example")
	}
	for _, m := range blocks {
		e, err := Decode([]byte(m[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		if prefix := NewID(e.Time)[:13]; len(e.ID) != 25 || e.ID[:13] != prefix {
			t.Errorf("the example's id %s does not fit its time: expected %s and 12 digits", e.ID, prefix)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range bodies() {
		text, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"v":1,"id":"a","time":"2026-03-01T12:00:00Z","kind":"peer","peer":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b)
		if err != nil {
			return
		}
		text, err := json.Marshal(e)
		if err != nil {
			t.Skip() // a year that JSON cannot write
		}
		if again, err := Decode(text); err != nil || again.ID != e.ID || again.Kind != e.Kind {
			t.Errorf("not read back: %v", err)
		}
	})
}
