package history

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// basis is a site that asks for a day of waiting, long after start.
var basis = Basis{Now: start.Add(30 * 24 * time.Hour), Wait: 24 * time.Hour}

func encoded(t testing.TB, l *Lesson) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := l.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type kept struct {
	at                  int64
	v                   feature.Vector
	host, peer, service uint64
}

func normals(l *Lesson) (out []kept) {
	l.Normals.Each(func(at time.Time, v *feature.Vector, host, peer, service uint64) {
		out = append(out, kept{at.UnixNano(), *v, host, peer, service})
	})
	return out
}

// TestALessonIsHandedOverWhole: what a daemon decodes is what was read.
func TestALessonIsHandedOverWhole(t *testing.T) {
	path := made(t, "conn.log", 1500, true)
	l := learn(t, LearnOptions{}, path, path) // the second time is a bad window
	b := encoded(t, l)
	got, err := Decode(bytes.NewReader(b), basis)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(normals(l), normals(got)) || !reflect.DeepEqual(l.Attacks, got.Attacks) || len(l.Attacks) == 0 || l.Normals.Len() < 1000 {
		t.Errorf("%d normal and %d attacks became %d and %d", l.Normals.Len(), len(l.Attacks), got.Normals.Len(), len(got.Attacks))
	}
	if len(l.Bad) == 0 || len(got.Bad) != len(l.Bad) || got.Bad[0].Words() != l.Bad[0].Words() {
		t.Errorf("bad windows %+v became %+v", l.Bad, got.Bad)
	}
	if strings.Contains(string(b), "10.0.0.") {
		t.Error("an address is in it")
	}
}

// TestWhatIsNoLessonIsRefused names line and field.
func TestWhatIsNoLessonIsRefused(t *testing.T) {
	good := string(encoded(t, learn(t, LearnOptions{}, made(t, "conn.log", 200, true))))
	lines := strings.SplitAfter(strings.TrimSuffix(good, "\n"), "\n")
	last := len(lines) - 1
	swap := func(n int, old, by string) string {
		changed := strings.Replace(lines[n], old, by, 1)
		if changed == lines[n] {
			t.Fatalf("line %d has no %s", n+1, old)
		}
		return strings.Join(lines[:n], "") + changed + strings.Join(lines[n+1:], "")
	}
	for text, want := range map[string]string{
		"":                                             "line 1: it ends here",
		"[]\n":                                         "line 1: expected one JSON object",
		swap(0, `"lesson":1`, `"lesson":2`):            "line 1: field lesson: 2",
		swap(0, `"schema":`, `"schema":9`):             "line 1: field schema: 9",
		swap(0, `"normals":`, `"normals":9999`):        "line 1: field normals",
		swap(0, `"attacks":`, `"attacks":-`):           "line 1: field attacks",
		swap(1, `"at_ns":`, `"at_ns":-`):               "line 2: field at_ns",
		swap(1, `"at_ns":1`, `"at_ns":2`):              "line 2: field at_ns",
		swap(1, `"v":"`, `"v":"AAAA`):                  "line 2: field v",
		swap(1, `"host":`, `"guest":`):                 "line 2: expected one JSON object",
		swap(last, `"weight":0`, `"weight":1`):         "field weight: 1.8",
		swap(last, `"weight":0.8`, `"weight":0`):       "field weight: 0",
		swap(last, `"family":"Upload"`, `"family":""`): "field family: 0 bytes",
		good + "\n{}\n":                                "something follows",
		strings.Join(lines[:last], ""):                 "it ends here",
	} {
		if _, err := Decode(strings.NewReader(text), basis); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v: expected %q", text, err, want)
		}
	}
	young := basis
	young.Now = start.Add(24 * time.Hour)
	if _, err := Decode(strings.NewReader(good), young); err == nil || !strings.Contains(err.Error(), "older than learner.wait") {
		t.Errorf("young traffic: %v", err)
	}
	if _, err := Decode(strings.NewReader(strings.Repeat(" ", MaxEncoded)+good), basis); err == nil {
		t.Error("more than the bound was read")
	}
}

func FuzzLesson(f *testing.F) {
	pool, err := learner.NewReservoir(learner.ReservoirOptions{Size: 16})
	if err != nil {
		f.Fatal(err)
	}
	v := feature.Vector{}
	pool.Add(start, &v, 1, 2, 3)
	seed := Lesson{Normals: pool, Attacks: []Example{{learner.Example{V: v, Weight: 0.5, Family: "scan"}, "a.log"}}}
	f.Add(encoded(f, &seed))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Decode(bytes.NewReader(b), basis)
		if err != nil {
			return
		}
		again, err := Decode(bytes.NewReader(encoded(t, l)), basis)
		if err != nil || again.Normals.Len() != l.Normals.Len() || len(again.Attacks) != len(l.Attacks) {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
	})
}
