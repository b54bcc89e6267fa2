package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// Model is one model of the registry.
type Model struct {
	event.Model
	Created time.Time `json:"created"`
	Active  bool      `json:"active"`
	Role    string    `json:"role,omitempty"` // active, champion, shadow, canary, fallback
	Bytes   int       `json:"bytes"`
	Dropped bool      `json:"dropped,omitempty"` // its weights went to save space
	// Life is its stages and what decided them; absent for the part of a model
	// that the site made alone and never proposed by itself.
	Life *lifecycle.Model `json:"life,omitempty"`
}

// Export is the whole registry, without weights.
type Export struct {
	Site   string          `json:"site"`
	At     time.Time       `json:"at"`
	Roles  lifecycle.Roles `json:"roles"`
	Spent  lifecycle.Spent `json:"spent"`
	Models []Model         `json:"models"`
}

// ModelDiff is how two models differ on recent flows of this site.
type ModelDiff struct {
	A     string    `json:"a"`
	B     string    `json:"b"`
	Since time.Time `json:"since"` // of the flows
	learner.Comparison
	Flows []event.Flow `json:"flows"` // those of Differ, in its order
}

// ModelBackend is what a running site offers about its models.
type ModelBackend interface {
	Models(ctx context.Context) ([]Model, error)
	// Model finds one by the beginning of its hash.
	Model(ctx context.Context, id string) (Model, error)
	DiffModels(ctx context.Context, a, b string) (ModelDiff, error)
	PromoteModel(ctx context.Context, id, why string) (Model, error)
	// RollbackModel returns who judges then; nobody is a model without a hash.
	RollbackModel(ctx context.Context, why string) (Model, error)
	ExportModels(ctx context.Context) (Export, error)
}

type modelRequest struct {
	ID  string `json:"id,omitempty"`
	Why string `json:"why,omitempty"`
}

func serveModels(mux *http.ServeMux, b ModelBackend) {
	get(mux, "/v1/models", func(r *http.Request) (any, error) { return b.Models(r.Context()) })
	get(mux, "/v1/models/export", func(r *http.Request) (any, error) { return b.ExportModels(r.Context()) })
	get(mux, "/v1/models/show/{id}", func(r *http.Request) (any, error) { return b.Model(r.Context(), r.PathValue("id")) })
	get(mux, "/v1/models/diff/{a}/{b}", func(r *http.Request) (any, error) {
		return b.DiffModels(r.Context(), r.PathValue("a"), r.PathValue("b"))
	})
	post(mux, "/v1/models/promote", func(ctx context.Context, in modelRequest) (any, error) { return b.PromoteModel(ctx, in.ID, in.Why) })
	post(mux, "/v1/models/rollback", func(ctx context.Context, in modelRequest) (any, error) { return b.RollbackModel(ctx, in.Why) })
}

// Models lists the models of this site.
func (c *Client) Models(ctx context.Context) (ms []Model, err error) {
	return ms, c.do(ctx, http.MethodGet, "/v1/models", nil, &ms)
}

// Model finds one by the beginning of its hash.
func (c *Client) Model(ctx context.Context, id string) (m Model, err error) {
	return m, c.do(ctx, http.MethodGet, "/v1/models/show/"+url.PathEscape(id), nil, &m)
}

// DiffModels compares two models on recent flows.
func (c *Client) DiffModels(ctx context.Context, a, b string) (d ModelDiff, err error) {
	return d, c.do(ctx, http.MethodGet, "/v1/models/diff/"+url.PathEscape(a)+"/"+url.PathEscape(b), nil, &d)
}

// PromoteModel makes a model that passed the gate active now.
func (c *Client) PromoteModel(ctx context.Context, id, why string) (m Model, err error) {
	return m, c.do(ctx, http.MethodPost, "/v1/models/promote", modelRequest{id, why}, &m)
}

// RollbackModel lets the active model's predecessor judge again.
func (c *Client) RollbackModel(ctx context.Context, why string) (m Model, err error) {
	return m, c.do(ctx, http.MethodPost, "/v1/models/rollback", modelRequest{"", why}, &m)
}

// ExportModels gives the whole registry, without weights.
func (c *Client) ExportModels(ctx context.Context) (e Export, err error) {
	return e, c.do(ctx, http.MethodGet, "/v1/models/export", nil, &e)
}
