package fetch

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
)

// object is a STIX indicator of an address.
func object(n int) string {
	return fmt.Sprintf(`{"type":"indicator","spec_version":"2.1","id":"indicator--00000000-0000-4000-8000-%012d","created":"2026-01-01T00:00:00Z","modified":"2026-01-01T00:00:00Z","pattern":"[ipv4-addr:value = '45.9.148.%d']","pattern_type":"stix","valid_from":"2026-01-01T00:00:00Z"}`, n, n)
}

// taxiiSource is a source of a collection that a function serves.
func taxiiSource(t *testing.T, o Options, h http.HandlerFunc) *Source {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	o.URL, o.TAXII, o.Client = srv.URL+"/api/collections/7/", true, srv.Client()
	return New(o)
}

func page(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", taxiiMedia)
	_, _ = fmt.Fprint(w, body)
}

func tokenFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// A collection of several pages becomes one list, with the credentials of the file;
// the same content again is unchanged, and the copy can be read without the server.
func TestCollection(t *testing.T) {
	extra := 0
	keep := filepath.Join(t.TempDir(), "kept")
	s := taxiiSource(t, Options{AuthFile: tokenFile(t, "Bearer s3cret\n", 0o600), Keep: keep}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/collections/7/objects/" || r.Header.Get("Authorization") != "Bearer s3cret" || r.Header.Get("Accept") != taxiiMedia || r.URL.Query().Get("limit") == "" {
			t.Errorf("asked for %s with %v", r.URL, r.Header)
		}
		switch q := r.URL.Query(); {
		case q.Get("next") == "" && q.Get("added_after") == "":
			page(w, `{"more":true,"next":"c/2","objects":[`+object(1)+`,`+object(2)+`]}`)
		case q.Get("next") == "c/2": // a server that goes on without a cursor
			w.Header().Set("X-TAXII-Date-Added-Last", "2026-03-01T12:00:00Z")
			page(w, `{"more":true,"objects":[`+object(3)+`]}`)
		case q.Get("added_after") == "2026-03-01T12:00:00Z":
			page(w, `{"objects":[`+object(4+extra)+`]}`)
		default:
			t.Errorf("asked for %s", r.URL)
		}
	})
	o := feed.Options{Now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	l, err := s.Read(t.Context(), o, nil)
	if err != nil || l.Len() != 4 || l.Format != feed.STIX {
		t.Fatalf("%+v, %v", l, err)
	}
	if _, err := s.Read(t.Context(), o, nil); !errors.Is(err, ErrUnchanged) {
		t.Errorf("the same content: %v", err)
	}
	extra = 1
	if l, err := s.Read(t.Context(), o, nil); err != nil || l.Len() != 4 {
		t.Errorf("another content: %v", err)
	}
	if l, _, err := s.Kept(t.Context(), feed.Options{Format: feed.STIX, Now: o.Now}); err != nil || l.Len() != 4 {
		t.Errorf("the copy: %v", err)
	}
}

func TestCollectionsThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		h    http.HandlerFunc
		want string
	}{
		"no credentials":  {Options{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "feed.auth_file"},
		"not there":       {Options{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, "404"},
		"a web page":      {Options{}, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "<html>") }, "no collection of TAXII 2.1"},
		"no JSON":         {Options{}, func(w http.ResponseWriter, _ *http.Request) { page(w, "{") }, "no TAXII envelope"},
		"more of nothing": {Options{}, func(w http.ResponseWriter, _ *http.Request) { page(w, `{"more":true}`) }, "not where"},
		"in circles":      {Options{}, func(w http.ResponseWriter, _ *http.Request) { page(w, `{"more":true,"next":"1"}`) }, "not where"},
		"too long": {Options{MaxBytes: 500}, func(w http.ResponseWriter, _ *http.Request) {
			page(w, `{"objects":[`+object(1)+`,`+object(2)+`]}`)
		}, "max_size"},
		"too long in all": {Options{MaxBytes: 900}, func(w http.ResponseWriter, r *http.Request) {
			page(w, `{"more":true,"next":"`+r.URL.Query().Get("next")+`x","objects":[`+object(1)+`]}`)
		}, "max_size"},
		"without end": {Options{}, func(w http.ResponseWriter, r *http.Request) {
			page(w, `{"more":true,"next":"`+r.URL.Query().Get("next")+`x"}`)
		}, "20 pages"},
	} {
		s := taxiiSource(t, c.o, c.h)
		s.most = 20
		_, err := s.Read(t.Context(), feed.Options{}, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// What is no token is refused before anybody is asked, and never told.
func TestTokens(t *testing.T) {
	for name, c := range map[string]struct{ path, want string }{
		"open to others": {tokenFile(t, "s3cret", 0o644), "others may read it"},
		"empty":          {tokenFile(t, "\n", 0o600), "one line"},
		"two lines":      {tokenFile(t, "s3cret\nX-Other: y", 0o600), "one line"},
		"too long":       {tokenFile(t, strings.Repeat("s3cret", 1000), 0o600), "at most"},
		"absent":         {filepath.Join(t.TempDir(), "none"), "no such file"},
	} {
		s := taxiiSource(t, Options{AuthFile: c.path}, func(http.ResponseWriter, *http.Request) { t.Errorf("%s: the server was asked", name) })
		_, err := s.Read(t.Context(), feed.Options{}, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
