package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/evidence"
)

// Taken says what became of the lines that a tool sent.
type Taken struct {
	Accepted int              `json:"accepted"`
	Joined   int              `json:"joined"`  // flows that have ended and are labelled now; the other labels wait
	Other    int              `json:"other"`   // records that tell of no attack
	Refused  int              `json:"refused"` // lines
	Faults   []evidence.Fault `json:"faults,omitempty"`
	Error    string           `json:"error,omitempty"` // the first fault, as a sentence
}

// LabelTaker is what a running site makes of labels. It returns how many flows they
// were joined to.
type LabelTaker interface {
	TakeLabels(ctx context.Context, said []evidence.Said) (joined int, err error)
}

// IntakeHandler serves the intake of other tools: labels, and nothing else of the
// daemon.
func IntakeHandler(b LabelTaker) http.Handler {
	mux := http.NewServeMux()
	slots := make(chan struct{}, 4) // requests at a time: each may hold a megabyte
	mux.HandleFunc("POST /v1/labels", func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-r.Context().Done():
			return
		}
		p := evidence.ParseSaid(r.Body)
		t := Taken{Accepted: len(p.Said), Other: p.Other, Refused: p.Refused, Faults: p.Faults}
		var err error
		if t.Joined, err = b.TakeLabels(r.Context(), p.Said); err != nil {
			reply(w, nil, err)
			return
		}
		if p.Refused > 0 {
			t.Error = p.Faults[0].Error()
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
		}
		reply(w, t, nil)
	})
	return mux
}

// ServeIntake answers tools on l until ctx ends.
func ServeIntake(ctx context.Context, l net.Listener, b LabelTaker, log *slog.Logger) error {
	s := &http.Server{
		Handler: IntakeHandler(b), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("intake: %v", err)
	}
	return nil
}
