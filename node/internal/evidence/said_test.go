package evidence

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

const (
	label = `{"time":"2026-03-01T12:00:00Z","src":"203.0.113.9","src_port":4000,"dst":"10.0.0.5","dst_port":22,"proto":"tcp","label":"guessing","weight":0.5,"source":"honeypot"}`
	alert = `{"timestamp":"2026-03-01T12:00:00.250000+0000","flow_id":7,"event_type":"alert","src_ip":"10.0.0.5","src_port":22,"dest_ip":"203.0.113.9","dest_port":4000,"proto":"TCP","alert":{"action":"allowed","signature":"ET SCAN x","severity":2}}`
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// TestSaid: a label and an alert of the same flow have the same key, whoever stands
// first, and times may be numbers.
func TestSaid(t *testing.T) {
	seconds := strings.Replace(label, `"2026-03-01T12:00:00Z"`, fmt.Sprintf("%d.5", noon.Unix()), 1)
	p := ParseSaid(strings.NewReader(label + "\n\n" + alert + "\n" + `{"event_type":"flow"}` + "\n" + seconds))
	if p.Refused != 0 || p.Other != 1 || len(p.Said) != 3 {
		t.Fatalf("%+v", p)
	}
	a, b, c := p.Said[0], p.Said[1], p.Said[2]
	if a.Key != b.Key || a.Key.Proto != flow.TCP || a.Family != "guessing" || a.Weight != 0.5 || a.Source != "honeypot" || !a.At.Equal(noon) {
		t.Errorf("label %+v", a)
	}
	if b.Family != "ids: ET SCAN x" || b.Weight != 0.4 || b.Source != "suricata" || !b.At.Equal(noon.Add(250*time.Millisecond)) {
		t.Errorf("alert %+v", b)
	}
	if !c.At.Equal(noon.Add(500 * time.Millisecond)) {
		t.Errorf("time %s", c.At)
	}
}

// TestBadSaid: each broken line is named by line and field, and the others are used.
func TestBadSaid(t *testing.T) {
	for _, c := range []struct{ from, old, by, want string }{
		{label, `{`, ``, "line 2: expected one JSON object"},
		{label, `"2026-03-01T12:00:00Z"`, `"yesterday"`, `line 2: field time: found "\"yesterday\"": expected a time with its zone`},
		{label, `"2026-03-01T12:00:00Z"`, `"2026-03-01T12:00:00"`, "field time"},
		{label, `"2026-03-01T12:00:00Z"`, `-5`, "field time"},
		{label, `"2026-03-01T12:00:00Z"`, `1e300`, "field time"},
		{label, `"time":"2026-03-01T12:00:00Z",`, ``, "field time"},
		{label, `203.0.113.9`, `203.0.113.900`, `field src: found "203.0.113.900": expected an IP address`},
		{label, `203.0.113.9`, `fe80::1%eth0`, "field src"},
		{label, `203.0.113.9`, `2001:db8::1`, "field dst: found \"10.0.0.5\": expected an address of the same family"},
		{label, `"src_port":4000,`, ``, "field src_port: expected a port"},
		{label, `4000`, `65536`, `field src_port: found "65536"`},
		{label, `4000`, `1.5`, "field src_port"},
		{label, `4000`, `"4000"`, "field src_port"},
		{label, `"tcp"`, `"ipx"`, "field proto"},
		{label, `guessing`, ``, "field label"},
		{label, `guessing`, `Benign`, "hedgerow dismiss"},
		{label, `guessing`, strings.Repeat("x", 97), "field label"},
		{label, `guessing`, `a\u0007b`, "field label"},
		{label, `"weight":0.5`, `"weight":1`, `field weight: found "1": expected how sure`},
		{label, `"weight":0.5`, `"weight":-0.1`, "field weight"},
		{label, `,"weight":0.5`, ``, "field weight: expected how sure"},
		{label, `honeypot`, ``, "field source"},
		{alert, `"alert":{"action":"allowed","signature":"ET SCAN x","severity":2}`, `"a":1`, "field alert"},
		{alert, `12:00:00.250000+0000`, `12:00`, "field timestamp"},
		{alert, `"dest_port":4000,`, ``, "field dest_port"},
	} {
		bad := strings.Replace(c.from, c.old, c.by, 1)
		p := ParseSaid(strings.NewReader(alert + "\n" + bad + "\n" + label + "\n"))
		if len(p.Said) != 2 || p.Refused != 1 || !strings.Contains(p.Faults[0].Error(), c.want) {
			t.Errorf("%s: %+v: expected %q", bad, p, c.want)
		}
	}
}

// TestSaidIsBounded: more lines or bytes than the bounds are refused by name.
func TestSaidIsBounded(t *testing.T) {
	p := ParseSaid(strings.NewReader(strings.Repeat("{\"event_type\":\"x\"}\n", MaxLines+10)))
	if p.Other != MaxLines || p.Refused != 1 || p.Faults[0].Line != MaxLines+1 {
		t.Errorf("%d read, %+v", p.Other, p.Faults)
	}
	p = ParseSaid(strings.NewReader(strings.Repeat("{\"event_type\":\"x\",\"y\":\""+strings.Repeat("y", 1000)+"\"}\n", 1200)))
	if p.Refused != 1 || p.Other > MaxBody/1000 {
		t.Errorf("%d read, %+v", p.Other, p.Faults)
	}
	if p = ParseSaid(strings.NewReader(label + "\n" + strings.Repeat("x", maxLine+1))); p.Refused != 1 || len(p.Said) != 1 || p.Faults[0].Line != 2 {
		t.Errorf("a long line: %+v", p)
	}
}

func said(t *testing.T, at time.Time, source string, weight float32) Said {
	t.Helper()
	s := ParseSaid(strings.NewReader(label)).Said[0]
	s.At, s.Source, s.Weight = at, source, weight
	return s
}

// TestSaidIsJoined: a label finds its flow whichever comes first, each source once, and not
// a flow of another time.
func TestSaidIsJoined(t *testing.T) {
	var j Join
	f := Flow{Key: said(t, noon, "a", 0.5).Key, Start: noon, Last: noon.Add(time.Minute)}
	if got := j.Say(said(t, noon.Add(30*time.Second), "a", 0.3)); len(got) != 0 {
		t.Errorf("joined to nothing: %+v", got)
	}
	j.Say(said(t, noon.Add(40*time.Second), "a", 0.6))
	j.Say(said(t, noon.Add(-time.Minute), "early", 0.6))
	got := j.End(noon.Add(time.Minute), &f)
	if len(got) != 1 || got[0].Source != "a" || got[0].Weight != 0.6 || got[0].Start != noon {
		t.Fatalf("at the end: %+v", got)
	}
	if got := j.Say(said(t, noon, "a", 0.9)); len(got) != 0 {
		t.Errorf("the same source twice: %+v", got)
	}
	if got := j.Say(said(t, noon.Add(time.Minute+slack), "b", 0.4)); len(got) != 1 || got[0].Source != "b" {
		t.Errorf("after the end: %+v", got)
	}
	if got := j.Say(said(t, noon.Add(time.Hour), "c", 0.4)); len(got) != 0 {
		t.Errorf("of another time: %+v", got)
	}
	// The next flow of the same ends, hours later: what waited is too old.
	later := Flow{Key: f.Key, Start: noon.Add(time.Hour), Last: noon.Add(3 * time.Hour)}
	if got := j.End(noon.Add(3*time.Hour), &later); len(got) != 0 {
		t.Errorf("after an hour: %+v", got)
	}
}

// TestJoinIsBounded: the newest flows and labels stay, however many come.
func TestJoinIsBounded(t *testing.T) {
	var j Join
	s := said(t, noon, "a", 0.5)
	key := func(i int) flow.Key {
		k := s.Key
		k.A = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		return k
	}
	for i := range 2*maxEnded + 7 {
		x := s
		x.Key = key(i)
		j.Say(x)
		j.End(noon, &Flow{Key: key(1<<20 + i), Start: noon, Last: noon})
	}
	if flows, labels := j.Len(); flows != maxEnded || labels != maxWaiting || len(j.ended.by) != maxEnded || len(j.waiting.by) != maxWaiting {
		t.Errorf("%d flows (%d), %d labels (%d)", flows, len(j.ended.by), labels, len(j.waiting.by))
	}
	if got := j.End(noon, &Flow{Key: key(2*maxEnded + 6), Start: noon, Last: noon}); len(got) != 1 {
		t.Errorf("the newest label is gone")
	}
	if got := j.End(noon, &Flow{Key: key(3), Start: noon, Last: noon}); len(got) != 0 {
		t.Errorf("the oldest label is there")
	}
}

func FuzzSaid(f *testing.F) {
	f.Add(label + "\n" + alert)
	f.Add(`{"event_type":"alert","alert":null}`)
	f.Add(`{"time":1e9,"proto":"icmp"}`)
	f.Fuzz(func(t *testing.T, text string) {
		p := ParseSaid(strings.NewReader(text))
		for _, s := range p.Said {
			if !(s.Weight > 0 && s.Weight <= MaxWeight) || s.Family == "" || len(s.Family) > maxAlert || s.Source == "" || !sane(s.At) || s.Key == (flow.Key{}) {
				t.Fatalf("let in: %+v", s)
			}
		}
		if len(p.Faults) > maxTold || p.Refused < len(p.Faults) {
			t.Fatalf("%d refused, %d told", p.Refused, len(p.Faults))
		}
	})
}
