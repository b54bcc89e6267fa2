package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
)

// A TAXII 2.1 collection (OASIS Standard, 10 June 2021) is read whole at each look,
// page by page, and handed on as one STIX bundle: an entry ends by its absence, as in
// any other feed.

const (
	taxiiMedia = "application/taxii+json;version=2.1"
	taxiiPage  = 1000 // objects that are asked for at once; a server may give fewer
	taxiiPages = 1000
	maxAuth    = 4096
)

// envelope is a page.
type envelope struct {
	More    bool              `json:"more"`
	Next    string            `json:"next"`
	Objects []json.RawMessage `json:"objects"`
}

func (s *Source) collection(ctx context.Context, o feed.Options, note func(feed.Note)) (*feed.List, error) {
	u, err := url.Parse(s.o.URL)
	if err != nil || u.Scheme != "https" {
		return nil, fmt.Errorf("%s: expected an https URL of a collection", s.Name())
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/objects") + "/objects/"
	auth, err := s.authorization()
	if err != nil {
		return nil, err
	}
	bundle, err := s.pages(ctx, u, auth)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	sum := sha256.Sum256(bundle)
	version := stamp{etag: hex.EncodeToString(sum[:])}
	if version == s.last {
		return nil, ErrUnchanged
	}
	o.Format = feed.STIX
	l, err := s.take(bytes.NewReader(bundle), version, o, note, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	return l, nil
}

// authorization is the header that the source's file holds, "" without a file.
func (s *Source) authorization() (string, error) {
	if s.o.AuthFile == "" {
		return "", nil
	}
	v, err := ReadToken(s.o.AuthFile)
	if err != nil {
		return "", fmt.Errorf("auth_file: %w", err)
	}
	return v, nil
}

// ReadToken reads a file that holds one line of printable ASCII which nobody else
// may read.
func ReadToken(path string) (string, error) {
	f, fi, err := open(path, maxAuth)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAuth))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s: others may read it: expected mode 0600 (`chmod 600 %s`)", path, path)
	}
	v := strings.TrimSpace(string(b))
	if v == "" || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", fmt.Errorf("%s: expected one line of printable characters", path)
	}
	return v, nil
}

// pages reads all pages into a bundle.
func (s *Source) pages(ctx context.Context, u *url.URL, auth string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(`{"type":"bundle","objects":[`)
	left, n := s.o.MaxBytes, 0
	next := url.Values{}
	seen := map[string]bool{}
	for range s.most {
		e, added, size, err := s.onePage(ctx, u, auth, next, left)
		if err != nil {
			return nil, err
		}
		left -= size
		for _, o := range e.Objects {
			if n++; n > 1 {
				b.WriteByte(',')
			}
			b.Write(o)
		}
		if !e.More {
			b.WriteString(`]}`)
			return b.Bytes(), nil
		}
		key, value := "next", e.Next
		if value == "" { // a server without cursors says how far it got
			key, value = "added_after", added
		}
		if value == "" || seen[key+value] {
			return nil, errors.New("the server says that there is more, and not where")
		}
		seen[key+value], next = true, url.Values{key: {value}}
	}
	return nil, fmt.Errorf("has more than %d pages: name a smaller collection", s.most)
}

func (s *Source) onePage(ctx context.Context, u *url.URL, auth string, at url.Values, left int64) (e envelope, added string, size int64, err error) {
	page := *u
	q := page.Query()
	q.Set("limit", fmt.Sprint(taxiiPage))
	for k, v := range at {
		q[k] = v
	}
	page.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page.String(), nil)
	if err != nil {
		return e, "", 0, errors.New("the URL cannot be asked")
	}
	req.Header.Set("User-Agent", "hedgerow")
	req.Header.Set("Accept", taxiiMedia)
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	resp, err := s.o.Client.Do(req)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err // the error's own text has the URL with its secrets
		}
		return e, "", 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return e, "", 0, fmt.Errorf("the server answered %s: look at feed.auth_file", resp.Status)
	case resp.StatusCode != http.StatusOK:
		return e, "", 0, fmt.Errorf("the server answered %s", resp.Status)
	case !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/taxii+json"):
		return e, "", 0, fmt.Errorf("the server answered with %.60q: this is no collection of TAXII 2.1", resp.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(&bounded{ctx, resp.Body, left})
	if err != nil {
		return e, "", 0, err
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return e, "", 0, fmt.Errorf("a page is no TAXII envelope: %w", err)
	}
	return e, bound(resp.Header.Get("X-TAXII-Date-Added-Last")), int64(len(body)), nil
}
