package api

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// HuntOrder asks for a search of the flow archive: for indicators (addresses,
// prefixes, services), or by a model.
type HuntOrder struct {
	Indicators []string `json:"indicators,omitempty"`
	Model      string   `json:"model,omitempty"` // hash, or its beginning
	Seconds    float64  `json:"seconds"`         // how far back; 0 is all
}

// Hunt is one search and how far it is.
type Hunt struct {
	ID        int       `json:"id"`
	What      string    `json:"what"`
	By        string    `json:"by"`    // operator, mesh, model
	State     string    `json:"state"` // waiting, running, done, failed
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Flows     int       `json:"flows"`     // looked at
	Of        int       `json:"of"`        // in the archive, about
	Found     int       `json:"found"`     // flows
	Incidents []string  `json:"incidents"` // ids, bounded
	Error     string    `json:"error,omitempty"`
}

// Over says that nothing more will be found.
func (h *Hunt) Over() bool { return h.State == "done" || h.State == "failed" }

// HuntBackend is what a running site offers about its archive.
type HuntBackend interface {
	Hunt(ctx context.Context, o HuntOrder) (Hunt, error)
	HuntState(ctx context.Context, id int) (Hunt, error)
	Hunts(ctx context.Context) ([]Hunt, error)
}

func serveHunts(mux *http.ServeMux, b HuntBackend) {
	get(mux, "/v1/hunts", func(r *http.Request) (any, error) { return b.Hunts(r.Context()) })
	get(mux, "/v1/hunts/{id}", func(r *http.Request) (any, error) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil {
			return nil, wrapped{"hunt " + strconv.Quote(r.PathValue("id")) + ": expected a number", ErrInvalid}
		}
		return b.HuntState(r.Context(), id)
	})
	post(mux, "/v1/hunts", func(ctx context.Context, o HuntOrder) (any, error) { return b.Hunt(ctx, o) })
}

// Hunt begins a search.
func (c *Client) Hunt(ctx context.Context, o HuntOrder) (h Hunt, err error) {
	return h, c.do(ctx, http.MethodPost, "/v1/hunts", o, &h)
}

// HuntState says how far a search is.
func (c *Client) HuntState(ctx context.Context, id int) (h Hunt, err error) {
	return h, c.do(ctx, http.MethodGet, "/v1/hunts/"+strconv.Itoa(id), nil, &h)
}

// Hunts lists the latest searches.
func (c *Client) Hunts(ctx context.Context) (hs []Hunt, err error) {
	return hs, c.do(ctx, http.MethodGet, "/v1/hunts", nil, &hs)
}
