package lines

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const most = 64 << 10

type told struct {
	text        string
	whole, long bool
}

func all(t testing.TB, b []byte) (out []told, err error) {
	t.Helper()
	l, err := New("x", bytes.NewReader(b), most)
	if err != nil {
		return nil, err
	}
	for {
		text, whole, long, err := l.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		if out = append(out, told{string(text), whole, long}); l.N() != len(out) {
			t.Fatalf("line %d of %d", l.N(), len(out))
		}
	}
}

// TestLines: ends of either kind, a mark of byte order, empty lines, a line that is too
// long, and a last one without an end.
func TestLines(t *testing.T) {
	text := "\xef\xbb\xbfa\r\n\nb\n" + strings.Repeat("x", 3*most) + "\nc\n" + strings.Repeat("y", 2*most)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"plain": []byte(text), "packed": z.Bytes()} {
		got, err := all(t, b)
		if err != nil || len(got) != 6 {
			t.Fatalf("%s: %d lines: %v", name, len(got), err)
		}
		for i, want := range []told{{"a", true, false}, {"", true, false}, {"b", true, false}, {got[3].text, true, true}, {"c", true, false}, {got[5].text, false, true}} {
			if got[i] != want || len(got[i].text) > most {
				t.Errorf("%s: line %d: %.20q, whole %v, long %v", name, i+1, got[i].text, got[i].whole, got[i].long)
			}
		}
	}
	if got, err := all(t, z.Bytes()[:z.Len()-9]); err == nil || len(got) == 0 || !strings.Contains(err.Error(), "not copied whole") {
		t.Errorf("a cut archive: %d lines, %v", len(got), err)
	}
	if _, err := Open(t.TempDir(), most); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder: %v", err)
	}
	file := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(file, []byte("a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(file, most)
	if err != nil || l.Size() != 2 || string(l.Head()) != "a\n" || l.Path() != file {
		t.Fatal(l, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestHalf(t *testing.T) {
	for text, want := range map[string]bool{`{"a":1}`: false, `{"a":1`: true, "a,b": true, "": true} {
		if Half([]byte(text), false) != want || Half([]byte(text), true) {
			t.Errorf("%q: expected %v without an end, and never with one", text, want)
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\nb"))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, _ := all(t, b)
		for i, x := range got {
			if len(x.text) > most || strings.Contains(x.text, "\n") || !x.whole && i != len(got)-1 {
				t.Fatalf("line %d: %+v", i+1, x)
			}
		}
	})
}
