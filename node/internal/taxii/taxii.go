// Package taxii serves what a site knows as a TAXII 2.1 server (OASIS Standard, 10
// June 2021), for tools that collect indicators by themselves. It only reads: nobody
// adds anything here. Reading other servers is the business of package feed/fetch.
//
// There are two collections. Public holds what is marked TLP clear and is for
// anybody. Community holds that and TLP green, and is for who has the token; without
// one it is not there. What is marked amber never leaves by this door.
//
// An object is added when this server first sees it, so that a client which asks
// for what was added after its last visit misses nothing; after a restart all is new.
package taxii

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/stix"
)

// Media is the type of everything that is told.
const Media = "application/taxii+json;version=2.1"

// Collections.
const (
	Public    = "7f1c52a6-0d3e-4c55-9a4b-5d1f0d6c0001"
	Community = "7f1c52a6-0d3e-4c55-9a4b-5d1f0d6c0002"
)

const (
	root      = "/taxii2/hedgerow/"
	pageSize  = 100
	pageMost  = 1000
	pathItems = root + "collections/{collection}/"
)

// Options of a server. List is required.
type Options struct {
	Title string
	List  func(context.Context) ([]stix.Indicator, error)
	Token string // of Community; "" means that there is none
	Now   func() time.Time
}

type server struct {
	Options
	mu    sync.Mutex
	added map[string]time.Time // by id and version
	last  time.Time
}

// Handler serves /taxii2/ and all below it.
func Handler(o Options) http.Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &server{Options: o, added: map[string]time.Time{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /taxii2/{$}", s.asked(func(*http.Request) (any, error) {
		return map[string]any{"title": s.Title, "default": root, "api_roots": []string{root}}, nil
	}))
	mux.HandleFunc("GET "+root+"{$}", s.asked(func(*http.Request) (any, error) {
		return map[string]any{"title": s.Title, "versions": []string{Media}, "max_content_length": 1}, nil
	}))
	mux.HandleFunc("GET "+root+"collections/{$}", s.asked(func(r *http.Request) (any, error) {
		out := []any{}
		for _, id := range s.open(r) {
			out = append(out, about(id))
		}
		return map[string]any{"collections": out}, nil
	}))
	mux.HandleFunc("GET "+pathItems+"{$}", s.asked(func(r *http.Request) (any, error) {
		id, err := s.collection(r)
		return about(id), err
	}))
	for path, form := range map[string]func([]item) any{"objects/{$}": objects, "objects/{object}/{$}": objects, "manifest/{$}": manifest} {
		mux.HandleFunc("GET "+pathItems+path, func(w http.ResponseWriter, r *http.Request) { s.page(w, r, form) })
	}
	mux.HandleFunc("/taxii2/", s.asked(func(r *http.Request) (any, error) {
		if r.Method != http.MethodGet {
			return nil, failure{http.StatusMethodNotAllowed, "this server is read only"}
		}
		return nil, failure{http.StatusNotFound, "nothing is here"}
	}))
	return mux
}

// failure is an error as TAXII tells it.
type failure struct {
	status int
	title  string
}

// Error is the title.
func (f failure) Error() string { return f.title }

func (s *server) asked(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := s.admit(r)
		if err != nil {
			reply(w, nil, err)
			return
		}
		v, err := f(r)
		reply(w, v, err)
	}
}

// admit refuses a wrong token and a client that wants another form.
func (s *server) admit(r *http.Request) error {
	if accept := r.Header.Get("Accept"); accept != "" && !strings.Contains(accept, "application/taxii+json") && !strings.Contains(accept, "*/*") {
		return failure{http.StatusNotAcceptable, "only " + Media + " is served"}
	}
	if r.Header.Get("Authorization") != "" && !s.known(r) {
		return failure{http.StatusUnauthorized, "the token is another one"}
	}
	return nil
}

func (s *server) known(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.Token))
	return ok && s.Token != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// open lists the collections that a client may see.
func (s *server) open(r *http.Request) []string {
	if s.known(r) {
		return []string{Public, Community}
	}
	return []string{Public}
}

func (s *server) collection(r *http.Request) (string, error) {
	id := r.PathValue("collection")
	if !slices.Contains(s.open(r), id) {
		return "", failure{http.StatusNotFound, "no such collection, or it takes a token"}
	}
	return id, nil
}

func about(id string) map[string]any {
	title := "TLP clear: for everybody"
	if id == Community {
		title = "TLP clear and green: for the community"
	}
	return map[string]any{"id": id, "title": title, "can_read": true, "can_write": false, "media_types": []string{"application/stix+json;version=2.1"}}
}

// item is an object with when it was added.
type item struct {
	stix.Object
	added time.Time
}

// items lists a collection, oldest first.
func (s *server) items(r *http.Request, collection string) ([]item, error) {
	list, err := s.List(r.Context())
	if err != nil {
		return nil, failure{http.StatusInternalServerError, "the list is not at hand"}
	}
	all, err := stix.Objects(slices.DeleteFunc(slices.Clone(list), func(x stix.Indicator) bool {
		return x.TLP != "clear" && x.TLP != "green" || !stix.Expressible(x)
	}))
	if err != nil {
		return nil, failure{http.StatusInternalServerError, "the list cannot be told"}
	}
	open := map[string]bool{}
	seen, err := stix.Objects(slices.DeleteFunc(slices.Clone(list), func(x stix.Indicator) bool {
		return x.TLP != "clear" && (x.TLP != "green" || collection != Community) || !stix.Expressible(x)
	}))
	if err != nil {
		return nil, failure{http.StatusInternalServerError, "the list cannot be told"}
	}
	for _, o := range seen {
		open[o.ID] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.date(all)
	var out []item
	for _, o := range all {
		if open[o.ID] {
			out = append(out, item{o, s.added[o.ID+o.Version]})
		}
	}
	slices.SortFunc(out, func(a, b item) int { return cmp.Or(a.added.Compare(b.added), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

// date gives what is new a time after all before, and forgets what is gone. s.mu is held.
func (s *server) date(all []stix.Object) {
	now := s.Now().UTC().Truncate(time.Microsecond)
	if !now.After(s.last) {
		now = s.last.Add(time.Microsecond)
	}
	live := make(map[string]time.Time, len(all))
	for _, o := range all {
		at, ok := s.added[o.ID+o.Version]
		if !ok {
			at, s.last = now, now
		}
		live[o.ID+o.Version] = at
	}
	s.added = live
}

const stampForm = "2006-01-02T15:04:05.000000Z"

// query is what a client wants of a collection.
type query struct {
	after time.Time
	id    string // of the object that the page before ended with
	limit int
	match map[string][]string
}

func ask(r *http.Request) (q query, err error) {
	v := r.URL.Query()
	q.limit, q.match = pageSize, map[string][]string{}
	if s := v.Get("limit"); s != "" {
		if q.limit, err = strconv.Atoi(s); err != nil || q.limit < 1 {
			return q, failure{http.StatusBadRequest, "limit: expected a whole number above 0"}
		}
		q.limit = min(q.limit, pageMost)
	}
	if s := v.Get("added_after"); s != "" {
		if q.after, err = time.Parse(time.RFC3339, s); err != nil {
			return q, failure{http.StatusBadRequest, "added_after: expected a time as 2026-03-01T12:00:00.000000Z"}
		}
		q.id = "~" // after every id of that time
	}
	if s := v.Get("next"); s != "" {
		b, err := base64.RawURLEncoding.DecodeString(s)
		at, id, ok := strings.Cut(string(b), " ")
		when, bad := time.Parse(stampForm, at)
		if err != nil || bad != nil || !ok {
			return q, failure{http.StatusBadRequest, "next: expected what the page before told"}
		}
		q.after, q.id = when, id
	}
	for _, k := range []string{"id", "type", "version", "spec_version"} {
		if s := v.Get("match[" + k + "]"); s != "" {
			q.match[k] = strings.Split(s, ",")
		}
	}
	if id := r.PathValue("object"); id != "" {
		q.match["id"] = []string{id}
	}
	return q, nil
}

// wants says whether an item is after the cursor and fits the filters.
func (q *query) wants(x *item) bool {
	if c := cmp.Or(x.added.Compare(q.after), cmp.Compare(x.ID, q.id)); c <= 0 {
		return false
	}
	fits := func(key string, words ...string) bool {
		return q.match[key] == nil || slices.ContainsFunc(words, func(w string) bool { return slices.Contains(q.match[key], w) })
	}
	// Only the latest version of an object is known, which is the first as well.
	return fits("id", x.ID) && fits("type", x.Type) && fits("spec_version", "2.1") && fits("version", x.Version, "last", "first", "all")
}

func (s *server) page(w http.ResponseWriter, r *http.Request, form func([]item) any) {
	var all []item
	err := s.admit(r)
	collection, q := "", query{}
	if err == nil {
		collection, err = s.collection(r)
	}
	if err == nil {
		q, err = ask(r)
	}
	if err == nil {
		all, err = s.items(r, collection)
	}
	if err != nil {
		reply(w, nil, err)
		return
	}
	all = slices.DeleteFunc(all, func(x item) bool { return !q.wants(&x) })
	out := map[string]any{}
	if len(all) > q.limit {
		all = all[:q.limit]
		end := all[q.limit-1]
		out["more"], out["next"] = true, base64.RawURLEncoding.EncodeToString([]byte(end.added.Format(stampForm)+" "+end.ID))
	}
	if len(all) > 0 {
		w.Header().Set("X-TAXII-Date-Added-First", all[0].added.Format(stampForm))
		w.Header().Set("X-TAXII-Date-Added-Last", all[len(all)-1].added.Format(stampForm))
		out["objects"] = form(all)
	} else if r.PathValue("object") != "" {
		reply(w, nil, failure{http.StatusNotFound, "no such object"})
		return
	}
	reply(w, out, nil)
}

func objects(items []item) any {
	out := make([]json.RawMessage, len(items))
	for i := range items {
		out[i] = items[i].JSON
	}
	return out
}

func manifest(items []item) any {
	out := make([]map[string]string, len(items))
	for i, x := range items {
		out[i] = map[string]string{"id": x.ID, "date_added": x.added.Format(stampForm), "version": x.Version, "media_type": "application/stix+json;version=2.1"}
	}
	return out
}

func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", Media)
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		f := failure{http.StatusInternalServerError, "the request failed"}
		_ = errors.As(err, &f) // else that
		if f.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="hedgerow"`)
		}
		w.WriteHeader(f.status)
		v = map[string]string{"title": f.title, "http_status": fmt.Sprint(f.status)}
	}
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
