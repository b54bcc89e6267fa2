package stix

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func indicators() []Indicator {
	at := func(id, value, author, tlp string) Indicator {
		return Indicator{ID: id, Value: value, Author: author, TLP: tlp, Sentence: "tried 40 passwords", Conf: 0.876, First: noon, Last: noon.Add(time.Minute), Expires: noon.Add(time.Hour)}
	}
	return []Indicator{
		at("03", "203.0.113.9", "alder", "amber"), at("01", "198.51.100.0/24", "briar/gate", "green"),
		at("02", "2001:db8::7", "briar/gate", "green"), at("04", "203.0.113.10 tcp/8443", "cedar/gate", "clear"), at("05", "203.0.113.11", "alder", "amber+strict"),
	}
}

// TestBundle holds every object to what STIX 2.1 requires of its type.
func TestBundle(t *testing.T) {
	b, err := Bundle(indicators())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Type, ID string
		Objects  []map[string]any
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	form := regexp.MustCompile(`^[a-z-]+--[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for _, o := range got.Objects {
		id := o["id"].(string)
		if !form.MatchString(id) || !strings.HasPrefix(id, o["type"].(string)+"--") || o["spec_version"] != "2.1" || ids[id] {
			t.Errorf("object %v", o)
		}
		ids[id] = true
	}
	patterns := 0
	for _, o := range got.Objects {
		if o["type"] != "indicator" {
			continue
		}
		patterns++
		if !ids[o["created_by_ref"].(string)] || !ids[o["object_marking_refs"].([]any)[0].(string)] || o["confidence"] != 88.0 || o["pattern_type"] != "stix" || o["valid_until"] != "2026-03-01T13:00:00.000Z" {
			t.Errorf("indicator %v", o)
		}
	}
	if got.Type != "bundle" || !form.MatchString(got.ID) || patterns != 5 || len(got.Objects) != 5+3+4 {
		t.Errorf("%s %s: %d indicators among %d objects, expected 5 with 3 authors and 4 markings", got.Type, got.ID, patterns, len(got.Objects))
	}
	again, err := Bundle(indicators())
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("the same list gives other bytes: %v", err)
	}
}

// TestOurOwnReaderTakesIt: what is exported here is imported there.
func TestOurOwnReaderTakesIt(t *testing.T) {
	b, err := Bundle(indicators())
	if err != nil {
		t.Fatal(err)
	}
	l, err := feed.Read(bytes.NewReader(b), feed.Options{Now: noon}, func(n feed.Note) { t.Logf("%+v", n) })
	if err != nil {
		t.Fatal(err)
	}
	if l.Format != feed.STIX || l.Len() != 4 {
		t.Errorf("format %v, %d entries: expected 4, for a service is no address", l.Format, l.Len())
	}
}

func TestBundleRefuses(t *testing.T) {
	for name, bend := range map[string]func(*Indicator){
		"no address":    func(x *Indicator) { x.Value = "example.org" },
		"no domain":     func(x *Indicator) { x.Type, x.Value = "domain", "a.example' OR '1" },
		"a quote":       func(x *Indicator) { x.Value = "203.0.113.9' OR '1" },
		"no port":       func(x *Indicator) { x.Value = "203.0.113.9 tcp/" },
		"a bad port":    func(x *Indicator) { x.Value = "203.0.113.9 tcp/1 OR 2" },
		"no mark":       func(x *Indicator) { x.TLP = "" },
		"red":           func(x *Indicator) { x.TLP = "red" },
		"over at once":  func(x *Indicator) { x.Expires = x.First },
		"other service": func(x *Indicator) { x.Value = "203.0.113.9 icmp/0" },
	} {
		l := indicators()[:1]
		bend(&l[0])
		if b, err := Bundle(l); err == nil {
			t.Errorf("%s: %s", name, b)
		}
	}
	if b, err := Bundle(nil); err != nil || !json.Valid(b) {
		t.Errorf("none: %v", err)
	}
}

// A domain has a pattern of its own, which readers elsewhere know; a fingerprint and
// a behaviour have none.
func TestDomainIsExpressed(t *testing.T) {
	x := indicators()[0]
	x.Type, x.Value = "domain", "evil.example"
	objects, err := Objects([]Indicator{x})
	if err != nil || len(objects) != 3 || objects[2].Type != "indicator" || !strings.Contains(string(objects[2].JSON), "[domain-name:value = 'evil.example']") {
		t.Errorf("%+v, %v", objects, err)
	}
	for typ, want := range map[string]bool{"address": true, "service": true, "domain": true, "": true, "fingerprint": false, "behaviour": false} {
		if Expressible(Indicator{Type: typ}) != want {
			t.Errorf("%q: expected %v", typ, want)
		}
	}
}
