package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Errors that backends wrap.
var (
	ErrNotFound = errors.New("not found")
	ErrInvalid  = errors.New("invalid")
	ErrBusy     = errors.New("busy")
)

const maxBody = 64 << 10

// Listen opens the socket with mode 0660 in a folder that is made with 0750
// when it is missing. A socket that nobody answers on is replaced; one that
// somebody answers on is an error that says so.
func Listen(path string) (net.Listener, error) {
	if len(path) > 100 {
		return nil, fmt.Errorf("socket %s: path is %d bytes long: the system allows about 100; set site.socket to a shorter one", path, len(path))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("socket folder: %v", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("socket %s: another hedgerow answers there: stop it, or set site.socket to another path", path)
	}
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("socket %s: a file that is no socket is in the way: move it, or set site.socket to another path", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("socket %s: stale and cannot be removed: %v", path, err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %v", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("socket %s: %v", path, err)
	}
	return l, nil
}

// Serve answers on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, b Backend, log *slog.Logger) error {
	s := &http.Server{
		Handler:           Handler(b, log),
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() {
		done, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if s.Shutdown(done) != nil {
			_ = s.Close()
		}
	})
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("api: %v", err)
	}
	return nil
}

type server struct {
	b   Backend
	log *slog.Logger
}

// Handler serves b.
func Handler(b Backend, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &server{b, log}
	mux := http.NewServeMux()
	get(mux, "/v1/status", func(r *http.Request) (any, error) { return b.Status(r.Context()) })
	get(mux, "/v1/blocks", func(r *http.Request) (any, error) { return b.Blocks(r.Context()) })
	get(mux, "/v1/peers", func(r *http.Request) (any, error) { return b.Peers(r.Context()) })
	serveModels(mux, b)
	serveHunts(mux, b)
	serveRounds(mux, b)
	serveHistory(mux, b)
	get(mux, "/v1/explain/{id}", func(r *http.Request) (any, error) { return b.Explain(r.Context(), r.PathValue("id")) })
	get(mux, "/v1/feeds", func(r *http.Request) (any, error) { return b.Feeds(r.Context()) })
	get(mux, "/v1/feeds/{name}/refused", func(r *http.Request) (any, error) { return b.Refused(r.Context(), r.PathValue("name")) })
	get(mux, "/v1/listed/{addr}", func(r *http.Request) (any, error) { return b.WhyListed(r.Context(), r.PathValue("addr")) })
	post(mux, "/v1/feeds/reload", func(ctx context.Context, in targetRequest) (any, error) { return b.ReloadFeeds(ctx, in.Target) })
	mux.HandleFunc("GET /v1/events", s.events)
	post(mux, "/v1/label", func(ctx context.Context, in labelRequest) (any, error) {
		return nil, b.Label(ctx, in.ID, in.Attack)
	})
	post(mux, "/v1/block", func(ctx context.Context, in blockRequest) (any, error) {
		return nil, b.Block(ctx, in.Target, time.Duration(in.Seconds*float64(time.Second)), in.Reason)
	})
	get(mux, "/v1/verify", func(r *http.Request) (any, error) { return b.Verify(r.Context()) })
	post(mux, "/v1/order", func(ctx context.Context, in Order) (any, error) { return nil, b.Order(ctx, in) })
	post(mux, "/v1/unblock", func(ctx context.Context, in targetRequest) (any, error) { return nil, b.Unblock(ctx, in.Target) })
	post(mux, "/v1/allow", func(ctx context.Context, in allowRequest) (any, error) {
		return b.Allow(ctx, in.Entry, in.Remove)
	})
	post(mux, "/v1/stop", func(ctx context.Context, in stopRequest) (any, error) { return nil, b.Stop(ctx, in.Remove) })
	post(mux, "/v1/mode", func(ctx context.Context, in modeRequest) (any, error) { return nil, b.SetMode(ctx, in.Mode) })
	post(mux, "/v1/panic", func(ctx context.Context, in panicRequest) (any, error) {
		n, err := b.Panic(ctx, in.On)
		return map[string]int{"lifted": n}, err
	})
	post(mux, "/v1/round", func(ctx context.Context, _ struct{}) (any, error) {
		n, err := b.StartRound(ctx)
		return map[string]uint64{"round": n}, err
	})
	return mux
}

type (
	labelRequest struct {
		ID     string `json:"id"`
		Attack bool   `json:"attack"`
	}
	blockRequest struct {
		Target  string  `json:"target"`
		Seconds float64 `json:"seconds"`
		Reason  string  `json:"reason"`
	}
	targetRequest struct {
		Target string `json:"target"`
	}
	allowRequest struct {
		Entry  string `json:"entry"`
		Remove bool   `json:"remove"`
	}
	stopRequest struct {
		Remove bool `json:"remove"`
	}
	modeRequest struct {
		Mode string `json:"mode"`
	}
	panicRequest struct {
		On bool `json:"on"`
	}
)

func get(mux *http.ServeMux, path string, f func(*http.Request) (any, error)) {
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		reply(w, v, err)
	})
}

func post[T any](mux *http.ServeMux, path string, f func(context.Context, T) (any, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in T
		d := json.NewDecoder(io.LimitReader(r.Body, maxBody))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil {
			reply(w, nil, fmt.Errorf("request body: %v: %w", err, ErrInvalid))
			return
		}
		v, err := f(r.Context(), in)
		reply(w, v, err)
	})
}

func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		code := http.StatusInternalServerError
		switch {
		case errors.Is(err, ErrNotFound):
			code = http.StatusNotFound
		case errors.Is(err, ErrInvalid):
			code = http.StatusBadRequest
		case errors.Is(err, ErrBusy):
			code = http.StatusConflict
		}
		w.WriteHeader(code)
		v = map[string]string{"error": err.Error()}
	} else if v == nil {
		v = struct{}{}
	}
	_ = json.NewEncoder(w).Encode(v) // the reader went away: nobody to tell
}

// events lists records, or with follow=1 streams them as lines of JSON.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r)
	if err != nil {
		reply(w, nil, err)
		return
	}
	if r.URL.Query().Get("follow") == "" {
		evs, err := s.b.Events(r.Context(), q)
		reply(w, evs, err)
		return
	}
	ch, err := s.b.Follow(r.Context(), q)
	if err != nil {
		reply(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	rc := http.NewResponseController(w)
	_ = rc.Flush()
	enc := json.NewEncoder(w)
	for e := range ch {
		if enc.Encode(e) != nil || rc.Flush() != nil {
			return
		}
	}
}

func parseQuery(r *http.Request) (Query, error) {
	v := r.URL.Query()
	q := Query{Limit: 100}
	if s := v.Get("kind"); s != "" {
		for k := range strings.SplitSeq(s, ",") {
			q.Kinds = append(q.Kinds, event.Kind(k))
		}
	}
	if s := v.Get("since"); s != "" {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return q, fmt.Errorf("since: %q: expected a time such as 2026-01-02T15:04:05Z: %w", s, ErrInvalid)
		}
		q.Since = t
	}
	if s := v.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 10000 {
			return q, fmt.Errorf("limit: %q: expected 1 to 10000: %w", s, ErrInvalid)
		}
		q.Limit = n
	}
	return q, nil
}
