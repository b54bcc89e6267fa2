// Package fetch reads a feed from where it is: a file, or an https server. It
// bounds time and size, tells a list that has not changed from one that has, and
// keeps a copy of the last good one, so that a site which starts while a source
// is away still has it.
//
// A Source belongs to one goroutine at a time.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
)

// Options name one source: Path or URL is set.
type Options struct {
	Path string // of a regular file
	URL  string // https
	// TAXII says that URL is a collection of a TAXII 2.1 server, and AuthFile names a
	// file with what the header Authorization is to be; "" sends none.
	TAXII    bool
	AuthFile string
	// Keep is the path of the copy of the last good list; "" keeps none. Its
	// folder must exist.
	Keep     string
	MaxBytes int64         // as it lies there, packed or not; 0 is DefaultMaxBytes
	Timeout  time.Duration // of a whole download; 0 is one minute
	Client   *http.Client  // nil is one that follows redirects to https only
}

// DefaultMaxBytes bounds a file or a download.
const DefaultMaxBytes = 64 << 20

// ErrUnchanged says that the source holds what it held when it was last read.
var ErrUnchanged = errors.New("unchanged")

// Source is one place, and what is remembered of it.
type Source struct {
	o    Options
	last stamp // of the last good reading
	held int   // networks that it had
	most int   // pages of a collection
}

// stamp tells one version of a list from another.
type stamp struct {
	size, mtime int64
	inode       uint64
	etag        string
	modified    string
}

// New returns a source. Nothing is opened yet.
func New(o Options) *Source {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.Client == nil {
		o.Client = &http.Client{CheckRedirect: httpsOnly, Transport: transport()}
	}
	return &Source{o: o, most: taxiiPages}
}

func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true // a list is read as it lies there; gzip is told by its content
	t.DisableKeepAlives = true  // once an hour: nothing to keep open
	t.MaxResponseHeaderBytes = 64 << 10
	return t
}

func httpsOnly(r *http.Request, via []*http.Request) error {
	if r.URL.Scheme != "https" || len(via) >= 4 {
		return fmt.Errorf("redirected to %s: only https is followed, and four times at most", r.URL.Redacted())
	}
	return nil
}

// Name is the source without secrets, for people.
func (s *Source) Name() string {
	if s.o.Path != "" {
		return s.o.Path
	}
	u, err := url.Parse(s.o.URL)
	if err != nil {
		return "a URL that cannot be read"
	}
	u.RawQuery = "" // keys of an API stand there
	return u.Redacted()
}

// Changed says without reading whether a file differs from the last good
// reading. It is false for URLs: those are asked at their times.
func (s *Source) Changed() bool {
	if s.o.Path == "" {
		return false
	}
	fi, err := os.Stat(s.o.Path)
	return err == nil && stampOf(fi) != s.last
}

func stampOf(fi os.FileInfo) stamp {
	st := stamp{size: fi.Size(), mtime: fi.ModTime().UnixNano()}
	if u, ok := fi.Sys().(*syscall.Stat_t); ok {
		st.inode = u.Ino
	}
	return st
}

// Read reads the list. The error wraps ErrUnchanged when it is the one that was
// read last. A list that holds nothing after one that held something is an error:
// a file that is just being written looks so.
func (s *Source) Read(ctx context.Context, o feed.Options, note func(feed.Note)) (*feed.List, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if s.o.Path != "" {
		return s.readFile(ctx, o, note)
	}
	if s.o.TAXII {
		return s.collection(ctx, o, note)
	}
	return s.download(ctx, o, note)
}

// open opens a regular file, and nothing that could make the reader wait.
func open(path string, limit int64) (*os.File, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	switch {
	case err != nil:
	case !fi.Mode().IsRegular():
		err = fmt.Errorf("%s: is no regular file", path)
	case fi.Size() > limit:
		err = fmt.Errorf("%s: is %d MiB long: at most %d are read; raise max_size if that is meant", path, fi.Size()>>20, limit>>20)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, fi, nil
}

func (s *Source) readFile(ctx context.Context, o feed.Options, note func(feed.Note)) (l *feed.List, err error) {
	f, fi, err := open(s.o.Path, s.o.MaxBytes)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	now := stampOf(fi)
	if now == s.last {
		return nil, ErrUnchanged
	}
	l, err = s.take(&bounded{ctx, f, s.o.MaxBytes}, now, o, note, func() error {
		after, err := f.Stat()
		if err == nil && stampOf(after) != now {
			err = errors.New("changed while it was read: it is read again soon")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.o.Path, err)
	}
	return l, nil
}

// take parses r, keeps a copy, and remembers the version.
func (s *Source) take(r io.Reader, version stamp, o feed.Options, note func(feed.Note), check func() error) (*feed.List, error) {
	copied, err := s.newCopy()
	if err != nil {
		return nil, err
	}
	defer copied.drop()
	l, err := feed.Read(copied.tee(r), o, note)
	if err != nil {
		return nil, err
	}
	if check != nil {
		if err := check(); err != nil {
			return nil, err
		}
	}
	if l.Len() == 0 && s.held > 0 {
		return nil, fmt.Errorf("lists nothing any more, after %d networks: if that is meant, wait until they expire or take the feed out", s.held)
	}
	if err := copied.commit(); err != nil {
		return nil, err
	}
	s.last, s.held = version, l.Len()
	return l, nil
}

func (s *Source) download(ctx context.Context, o feed.Options, note func(feed.Note)) (l *feed.List, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.o.URL, nil)
	if err != nil || req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s: expected an https URL", s.Name())
	}
	req.Header.Set("User-Agent", "hedgerow")
	if s.last.etag != "" {
		req.Header.Set("If-None-Match", s.last.etag)
	}
	if s.last.modified != "" {
		req.Header.Set("If-Modified-Since", s.last.modified)
	}
	resp, err := s.o.Client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the error's own text has the URL with its secrets
		}
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusNotModified && s.last != (stamp{}):
		return nil, ErrUnchanged
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: the server answered %s", s.Name(), resp.Status)
	case resp.ContentLength > s.o.MaxBytes:
		return nil, fmt.Errorf("%s: is %d MiB long: at most %d are read; raise max_size if that is meant", s.Name(), resp.ContentLength>>20, s.o.MaxBytes>>20)
	}
	version := stamp{etag: bound(resp.Header.Get("ETag")), modified: bound(resp.Header.Get("Last-Modified"))}
	if l, err = s.take(&bounded{ctx, resp.Body, s.o.MaxBytes}, version, o, note, nil); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	return l, nil
}

// bound leaves out validators that are unreasonably long.
func bound(s string) string {
	if len(s) > 512 {
		return ""
	}
	return s
}

// bounded ends with an error after so many bytes, or when ctx ends.
type bounded struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, fmt.Errorf("took too long: %w", err)
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errors.New("is longer than max_size allows")
	}
	return n, err
}

// Kept reads the copy of the last good list and says when it was taken. The
// error is fs.ErrNotExist when there is none.
func (s *Source) Kept(ctx context.Context, o feed.Options) (l *feed.List, taken time.Time, err error) {
	if s.o.Keep == "" {
		return nil, taken, os.ErrNotExist
	}
	f, fi, err := open(s.o.Keep, s.o.MaxBytes)
	if err != nil {
		return nil, taken, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	l, err = feed.Read(&bounded{ctx, f, s.o.MaxBytes}, o, nil)
	if err != nil {
		return nil, taken, fmt.Errorf("copy of the last good list: %w", err)
	}
	s.held = l.Len()
	return l, fi.ModTime(), nil
}

// Confirm writes down that the list was found unchanged at a time, so that the
// copy's age is counted from then.
func (s *Source) Confirm(at time.Time) error {
	if s.o.Keep == "" {
		return nil
	}
	return os.Chtimes(s.o.Keep, at, at)
}

// copying writes the copy while the list is read.
type copying struct {
	f    *os.File // nil: none is kept
	path string
	r    io.Reader
}

func (s *Source) newCopy() (*copying, error) {
	if s.o.Keep == "" {
		return &copying{}, nil
	}
	f, err := os.CreateTemp(filepath.Dir(s.o.Keep), filepath.Base(s.o.Keep)+".new-*")
	if err != nil {
		return nil, fmt.Errorf("copy of the list: %w", err)
	}
	return &copying{f: f, path: s.o.Keep}, nil
}

func (c *copying) tee(r io.Reader) io.Reader {
	c.r = r
	if c.f != nil {
		c.r = io.TeeReader(r, c.f)
	}
	return c.r
}

// commit puts the copy in its place.
func (c *copying) commit() error {
	if c.f == nil {
		return nil
	}
	if _, err := io.Copy(io.Discard, c.r); err != nil { // what the parser left unread
		return err
	}
	if err := errors.Join(c.f.Sync(), c.f.Close()); err != nil {
		return fmt.Errorf("copy of the list: %w", err)
	}
	if err := os.Rename(c.f.Name(), c.path); err != nil {
		return fmt.Errorf("copy of the list: %w", err)
	}
	c.f = nil
	return nil
}

// drop removes what was not committed.
func (c *copying) drop() {
	if c.f != nil {
		_ = c.f.Close()
		_ = os.Remove(c.f.Name())
	}
}
