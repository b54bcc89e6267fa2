package fetch

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
)

func write(t *testing.T, path, text string, at time.Time) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path, keep := filepath.Join(dir, "list"), filepath.Join(dir, "kept")
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	write(t, path, "45.9.148.7\n", at)
	s := New(Options{Path: path, Keep: keep})
	if !s.Changed() {
		t.Error("a file that was never read is unchanged")
	}
	l, err := s.Read(t.Context(), feed.Options{}, nil)
	if err != nil || l.Len() != 1 {
		t.Fatalf("%v, %v", l, err)
	}
	if _, err := s.Read(t.Context(), feed.Options{}, nil); !errors.Is(err, ErrUnchanged) || s.Changed() {
		t.Errorf("the same file again: %v", err)
	}
	write(t, path, "45.9.148.7\n45.9.148.9\n", at.Add(time.Second))
	if !s.Changed() {
		t.Error("a change is not seen")
	}
	if l, err := s.Read(t.Context(), feed.Options{}, nil); err != nil || l.Len() != 2 {
		t.Fatalf("%v, %v", l, err)
	}
	write(t, path, "<html>", at.Add(2*time.Second))
	if _, err := s.Read(t.Context(), feed.Options{}, nil); err == nil || !strings.Contains(err.Error(), "HTML") || !strings.Contains(err.Error(), path) {
		t.Errorf("an error page: %v", err)
	}
	if !s.Changed() {
		t.Error("a file that could not be read is not tried again")
	}
	write(t, path, "# being written\n", at.Add(3*time.Second))
	if _, err := s.Read(t.Context(), feed.Options{}, nil); err == nil || !strings.Contains(err.Error(), "lists nothing any more, after 2 networks") {
		t.Errorf("an empty list: %v", err)
	}
	if err := s.Confirm(at); err != nil {
		t.Fatal(err)
	}
	l, taken, err := New(Options{Path: path, Keep: keep}).Kept(t.Context(), feed.Options{})
	if err != nil || l.Len() != 2 || !taken.Equal(at) {
		t.Errorf("the copy: %v of %v, %v", l, taken, err)
	}
	if left, err := filepath.Glob(keep + "*"); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, "long")
	write(t, long, strings.Repeat("45.9.148.7\n", 200000), time.Now())
	for path, want := range map[string]string{
		filepath.Join(dir, "absent"): "no such file", dir: "no regular file", pipe: "no regular file", "/dev/zero": "no regular file", long: "2 MiB long: at most 1",
	} {
		if _, err := New(Options{Path: path, MaxBytes: 1 << 20}).Read(t.Context(), feed.Options{}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if _, _, err := New(Options{Path: long}).Kept(t.Context(), feed.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no copy is kept: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(Options{Path: long}).Read(ctx, feed.Options{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// server answers with what a test sets, and remembers the last request.
type server struct {
	*httptest.Server
	mu     sync.Mutex // a request may still be served when its client has given up
	answer http.HandlerFunc
	asked  http.Header
}

func (s *server) will(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *server) lastAsked() http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func serve(t *testing.T) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = r.Header.Clone()
		answer := s.answer
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) source(t *testing.T, o Options) *Source {
	t.Helper()
	o.URL, o.Client = s.URL+"/list?key=secret", s.Client()
	o.Client.CheckRedirect = httpsOnly
	t.Cleanup(o.Client.CloseIdleConnections)
	return New(o)
}

func TestDownload(t *testing.T) {
	srv := serve(t)
	keep := filepath.Join(t.TempDir(), "kept")
	s := srv.source(t, Options{Keep: keep})
	srv.will(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Last-Modified", "Mon, 23 Nov 2026 00:00:00 GMT")
		_, _ = w.Write([]byte("45.9.148.7\n"))
	})
	if l, err := s.Read(t.Context(), feed.Options{}, nil); err != nil || l.Len() != 1 {
		t.Fatalf("%v, %v", l, err)
	}
	srv.will(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	if _, err := s.Read(t.Context(), feed.Options{}, nil); !errors.Is(err, ErrUnchanged) {
		t.Errorf("not modified: %v", err)
	}
	if srv.lastAsked().Get("If-None-Match") != `"v1"` || srv.lastAsked().Get("If-Modified-Since") == "" {
		t.Errorf("asked with %v", srv.lastAsked())
	}
	if _, err := srv.source(t, Options{}).Read(t.Context(), feed.Options{}, nil); err == nil || !strings.Contains(err.Error(), "304") {
		t.Errorf("not modified, without having asked: %v", err)
	}
	if l, _, err := s.Kept(t.Context(), feed.Options{}); err != nil || l.Len() != 1 {
		t.Errorf("the copy: %v, %v", l, err)
	}
}

func TestBadServers(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("45.9.148.7\n")) }))
	t.Cleanup(plain.Close)
	srv := serve(t)
	released := make(chan struct{})
	t.Cleanup(func() { close(released) })
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"an error": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "45.9.148.7", http.StatusServiceUnavailable)
		}, "503"},
		"a page":            {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "HTML"},
		"a long list, said": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "2097152") }, "2 MiB long"},
		"an endless list": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write([]byte(strings.Repeat("45.9.148.7\n", 1000))); err != nil {
					return
				}
			}
		}, "longer than max_size"},
		"a way out of https": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain.URL, http.StatusFound) }, "only https"},
		"a circle":           {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/list", http.StatusFound) }, "four times"},
		"silence": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-released:
			}
		}, "deadline"},
	} {
		srv.will(c.answer)
		keep := filepath.Join(t.TempDir(), "kept")
		o := Options{MaxBytes: 1 << 20, Keep: keep}
		if name == "silence" {
			o.Timeout = 100 * time.Millisecond
		}
		s := srv.source(t, o)
		_, err := s.Read(t.Context(), feed.Options{}, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if left, _ := filepath.Glob(keep + "*"); len(left) > 0 {
			t.Errorf("%s: left behind %v", name, left)
		}
	}
	if _, err := New(Options{URL: plain.URL}).Read(t.Context(), feed.Options{}, nil); err == nil || !strings.Contains(err.Error(), "expected an https URL") {
		t.Errorf("http: %v", err)
	}
	if got := New(Options{URL: "https://user:secret@lists.example.org/a?key=secret"}).Name(); strings.Contains(got, "secret") {
		t.Errorf("name %q", got)
	}
}
