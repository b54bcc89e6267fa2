package taxii

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
	"github.com/hedgerow-mesh/hedgerow/node/internal/feed/fetch"
	"github.com/hedgerow-mesh/hedgerow/node/internal/stix"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func known(n int, tlp string) stix.Indicator {
	return stix.Indicator{
		ID: fmt.Sprintf("%s-%02d", tlp, n), Type: "address", Value: fmt.Sprintf("203.0.113.%d", n), Author: "briar/" + tlp, TLP: tlp,
		Sentence: "tried 40 passwords", Conf: 0.9, First: noon, Last: noon, Expires: noon.Add(time.Hour),
	}
}

// bench is a server, what it knows, and its clock, which moves on with each look.
type bench struct {
	t    *testing.T
	list []stix.Indicator
	fail error
	now  time.Time
	h    http.Handler
}

func newBench(t *testing.T, token string, list ...stix.Indicator) *bench {
	b := &bench{t: t, list: list, now: noon}
	b.h = Handler(Options{Title: "alder", Token: token, Now: func() time.Time { b.now = b.now.Add(time.Second); return b.now },
		List: func(context.Context) ([]stix.Indicator, error) { return b.list, b.fail }})
	return b
}

type envelope struct {
	More    bool
	Next    string
	Objects []struct {
		ID, Type, Pattern, Version string
		DateAdded                  string `json:"date_added"`
	}
}

func (b *bench) get(path, token string) (*httptest.ResponseRecorder, envelope) {
	b.t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Accept", Media)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	var e envelope
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Header().Get("Content-Type") != Media {
		b.t.Fatalf("%s: %v in %s of type %q", path, err, w.Body, w.Header().Get("Content-Type"))
	}
	return w, e
}

func items(collection, rest string) string { return root + "collections/" + collection + "/" + rest }

func patterns(e envelope) (out []string) {
	for _, o := range e.Objects {
		if o.Type == "indicator" {
			out = append(out, o.Pattern)
		}
	}
	return out
}

// Nothing that is marked amber is told to anybody, and green only to who has the token.
func TestMarksAreHonoured(t *testing.T) {
	b := newBench(t, "s3cret", known(1, "clear"), known(2, "green"), known(3, "amber"), known(4, "amber+strict"))
	for _, c := range []struct {
		collection, token string
		status, sees      int
	}{
		{Public, "", 200, 1}, {Public, "s3cret", 200, 1}, {Community, "s3cret", 200, 2}, {Community, "", 404, 0},
		{Public, "s3cre", 401, 0}, {Community, "S3cret", 401, 0}, {"none", "s3cret", 404, 0},
	} {
		for _, rest := range []string{"", "objects/", "manifest/"} {
			w, e := b.get(items(c.collection, rest), c.token)
			if w.Code != c.status || rest == "objects/" && len(patterns(e)) != c.sees {
				t.Errorf("%s of %s with %q: %d, %v", rest, c.collection, c.token, w.Code, patterns(e))
			}
			for _, secret := range []string{"203.0.113.3", "203.0.113.4", "briar/amber"} {
				if strings.Contains(w.Body.String(), secret) {
					t.Errorf("%s of %s with %q tells %s", rest, c.collection, c.token, secret)
				}
			}
			if c.collection == Public && strings.Contains(w.Body.String(), "green") && rest != "" {
				t.Errorf("public %s tells of green: %s", rest, w.Body)
			}
		}
	}
	w, _ := b.get(root+"collections/", "")
	if strings.Contains(w.Body.String(), Community) || !strings.Contains(w.Body.String(), Public) {
		t.Errorf("collections without a token: %s", w.Body)
	}
	if w, _ = newBench(t, "").get(root+"collections/", "x"); w.Code != 401 {
		t.Errorf("a token where there is none: %d", w.Code)
	}
}

// A client that pages through a collection gets every object once, in the order in
// which they were added.
func TestPages(t *testing.T) {
	b := newBench(t, "")
	for n := range 12 {
		b.list = append(b.list, known(n, "clear"))
	}
	var got []string
	next, pages := "", 0
	for {
		w, e := b.get(items(Public, "objects/?limit=5&next="+url.QueryEscape(next)), "")
		if w.Code != 200 || len(e.Objects) > 5 || w.Header().Get("X-TAXII-Date-Added-Last") == "" {
			t.Fatalf("page %d: %d, %d objects", pages, w.Code, len(e.Objects))
		}
		for _, o := range e.Objects {
			got = append(got, o.ID)
		}
		if pages++; !e.More {
			break
		}
		next = e.Next
	}
	slices.Sort(got)
	if len(got) != 14 || len(slices.Compact(got)) != 14 || pages != 3 { // with one author and one mark
		t.Errorf("%d objects in %d pages", len(got), pages)
	}
}

// What comes later is all that a client gets which asks for what was added since.
func TestAddedAfter(t *testing.T) {
	b := newBench(t, "", known(1, "clear"))
	w, _ := b.get(items(Public, "objects/"), "")
	last := w.Header().Get("X-TAXII-Date-Added-Last")
	if _, e := b.get(items(Public, "objects/?added_after="+last), ""); len(e.Objects) != 0 {
		t.Errorf("nothing is new, and there is %v", e.Objects)
	}
	old := known(2, "clear")
	old.First, old.Last = noon.Add(-time.Hour), noon.Add(-time.Hour) // said long ago, heard now
	b.list = append(b.list, old)
	if _, e := b.get(items(Public, "objects/?added_after="+last), ""); len(e.Objects) != 1 || !strings.Contains(e.Objects[0].Pattern, "203.0.113.2") {
		t.Errorf("what was heard since: %v", e.Objects)
	}
	b.list[0].Last = noon.Add(time.Minute)
	if _, e := b.get(items(Public, "objects/?added_after="+last), ""); len(patterns(e)) != 2 {
		t.Errorf("what was said anew since: %v", e.Objects)
	}
}

// TestOurOwnReaderReadsIt: a feed of format taxii takes what is served here.
func TestOurOwnReaderReadsIt(t *testing.T) {
	b := newBench(t, "")
	for n := range 120 {
		b.list = append(b.list, known(n, "clear"))
	}
	srv := httptest.NewTLSServer(b.h)
	defer srv.Close()
	src := fetch.New(fetch.Options{URL: srv.URL + items(Public, ""), TAXII: true, Client: srv.Client()})
	l, err := src.Read(t.Context(), feed.Options{Now: noon}, nil)
	if err != nil || l.Len() != 120 {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := src.Read(t.Context(), feed.Options{Now: noon}, nil); !errors.Is(err, fetch.ErrUnchanged) {
		t.Errorf("again: %v", err)
	}
}

func TestFilters(t *testing.T) {
	b := newBench(t, "", known(1, "clear"), known(2, "clear"), stix.Indicator{Type: "fingerprint", Value: "x", TLP: "clear"})
	_, e := b.get(items(Public, "objects/?match[type]=indicator"), "")
	if len(e.Objects) != 2 {
		t.Fatalf("indicators: %v", e.Objects)
	}
	one := e.Objects[1]
	if _, e := b.get(items(Public, "objects/"+one.ID+"/"), ""); len(e.Objects) != 1 || e.Objects[0].ID != one.ID {
		t.Errorf("by its id: %v", e.Objects)
	}
	if _, e := b.get(items(Public, "objects/?match[id]="+one.ID+",x&match[version]=all"), ""); len(e.Objects) != 1 {
		t.Errorf("among ids: %v", e.Objects)
	}
	if _, e := b.get(items(Public, "objects/?match[spec_version]=2.0"), ""); len(e.Objects) != 0 {
		t.Errorf("of another version of STIX: %v", e.Objects)
	}
	_, e = b.get(items(Public, "manifest/?match[type]=indicator"), "")
	if len(e.Objects) != 2 || e.Objects[0].DateAdded == "" || e.Objects[0].Version == "" || e.Objects[0].Pattern != "" {
		t.Errorf("manifest: %+v", e.Objects)
	}
}

func TestRequestsAreRefusedByName(t *testing.T) {
	b := newBench(t, "", known(1, "clear"))
	for path, want := range map[string]string{
		items(Public, "objects/?limit=0"):         "limit",
		items(Public, "objects/?limit=x"):         "limit",
		items(Public, "objects/?added_after=now"): "added_after",
		items(Public, "objects/?next=!"):          "next",
		items(Public, "objects/?next=AAAA"):       "next",
		items(Public, "objects/indicator--x/"):    "no such object",
		root + "nothing/":                         "nothing is here",
		"/taxii2/other/":                          "nothing is here",
	} {
		if w, _ := b.get(path, ""); w.Code/100 != 4 || !strings.Contains(w.Body.String(), want) || !strings.Contains(w.Body.String(), fmt.Sprint(w.Code)) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for method, want := range map[string]int{http.MethodPost: 405, http.MethodDelete: 405} {
		w := httptest.NewRecorder()
		b.h.ServeHTTP(w, httptest.NewRequest(method, items(Public, "objects/"), strings.NewReader("{}")))
		if w.Code != want {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/taxii2/", nil)
	r.Header.Set("Accept", "text/html")
	w := httptest.NewRecorder()
	if b.h.ServeHTTP(w, r); w.Code != http.StatusNotAcceptable {
		t.Errorf("as HTML: %d", w.Code)
	}
	if w, _ := b.get("/taxii2/", ""); w.Code != 200 || !strings.Contains(w.Body.String(), root) {
		t.Errorf("discovery: %d %s", w.Code, w.Body)
	}
	if w, _ := b.get(root, ""); w.Code != 200 || !strings.Contains(w.Body.String(), "taxii+json;version=2.1") {
		t.Errorf("api root: %d %s", w.Code, w.Body)
	}
	b.fail = errors.New("secret path")
	if w, _ := b.get(items(Public, "objects/"), ""); w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("without a list: %d %s", w.Code, w.Body)
	}
}
