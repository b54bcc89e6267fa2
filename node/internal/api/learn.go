package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
)

// HistoryBackend is what a running site takes of its past.
type HistoryBackend interface {
	// HistoryBasis is what a lesson has to be read by.
	HistoryBasis(ctx context.Context) (history.Basis, error)
	// LearnHistory lets a lesson teach. It tells say how far it is, never late
	// for say's sake; say must return at once. Nil tells nobody.
	LearnHistory(ctx context.Context, l *history.Lesson, say func(words string)) (history.Trained, error)
}

// handOver is a line of the answer to a lesson; the last has a result or an error.
type handOver struct {
	Words  string           `json:"words,omitempty"`
	Result *history.Trained `json:"result,omitempty"`
	Error  string           `json:"error,omitempty"`
}

func serveHistory(mux *http.ServeMux, b HistoryBackend) {
	get(mux, "/v1/learn/basis", func(r *http.Request) (any, error) { return b.HistoryBasis(r.Context()) })
	var one sync.Mutex // lesson at a time: each is megabytes, and trains
	mux.HandleFunc("POST /v1/learn/history", func(w http.ResponseWriter, r *http.Request) {
		if !one.TryLock() {
			reply(w, nil, fmt.Errorf("another history is being learnt: wait for its end: %w", ErrBusy))
			return
		}
		free := sync.OnceFunc(one.Unlock)
		defer free()
		basis, err := b.HistoryBasis(r.Context())
		if err != nil {
			reply(w, nil, err)
			return
		}
		l, err := history.Decode(http.MaxBytesReader(w, r.Body, history.MaxEncoded), basis)
		if err != nil {
			reply(w, nil, fmt.Errorf("lesson: %w: %w", err, ErrInvalid))
			return
		}
		learnAloud(w, r, b, l, free)
	})
}

// learnAloud answers with lines about how far learning is. Who reads slowly misses
// lines, and does not hold learning up. Who has read the last may hand over the
// next lesson: it is written after free.
func learnAloud(w http.ResponseWriter, r *http.Request, b HistoryBackend, l *history.Lesson, free func()) {
	lines, last := make(chan string, 16), make(chan handOver, 1)
	say := func(words string) {
		select {
		case lines <- words:
		default:
		}
	}
	go func() {
		t, err := b.LearnHistory(r.Context(), l, say)
		if err != nil {
			last <- handOver{Error: err.Error()}
			return
		}
		last <- handOver{Result: &t}
	}()
	w.Header().Set("Content-Type", "application/x-ndjson")
	rc, enc := http.NewResponseController(w), json.NewEncoder(w)
	write := func(x handOver) { // when the reader went away, the request's context has ended
		_ = errors.Join(enc.Encode(x), rc.Flush())
	}
	for {
		select {
		case words := <-lines:
			write(handOver{Words: words})
		case x := <-last:
			for len(lines) > 0 {
				write(handOver{Words: <-lines})
			}
			free()
			write(x)
			return
		}
	}
}

// HistoryBasis asks what a lesson has to be read by.
func (c *Client) HistoryBasis(ctx context.Context) (b history.Basis, err error) {
	return b, c.do(ctx, http.MethodGet, "/v1/learn/basis", nil, &b)
}

// LearnHistory hands a lesson over and waits until it was learnt; say hears how
// far that is. When ctx ends earlier, training ends with it; labels that were taken
// stay.
func (c *Client) LearnHistory(ctx context.Context, l *history.Lesson, say func(words string)) (t history.Trained, err error) {
	body, in := io.Pipe()
	go func() { in.CloseWithError(l.Encode(in)) }()
	defer func() { _ = body.Close() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://hedgerow/v1/learn/history", body)
	if err != nil {
		return t, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return t, c.explain(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return t, failure(resp)
	}
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var x handOver
		switch err := json.Unmarshal(sc.Bytes(), &x); {
		case err != nil:
			return t, fmt.Errorf("answer of the daemon at %s: %v", c.socket, err)
		case x.Error != "":
			return t, errors.New(x.Error)
		case x.Result != nil:
			return *x.Result, nil
		case say != nil:
			say(x.Words)
		}
	}
	return t, fmt.Errorf("daemon at %s ended before the history was learnt (%v): labels that it took are kept; do it again", c.socket, errors.Join(sc.Err(), ctx.Err()))
}
