package api

import (
	"context"
	"net/http"
)

// RoundAudit is what checking a chain of rounds again found.
type RoundAudit struct {
	Chain  string         `json:"chain"`
	Rule   string         `json:"rule"`
	Blocks []AuditedBlock `json:"blocks"`           // that hold, in order
	Broken string         `json:"broken,omitempty"` // why the next one does not
}

// AuditedBlock is one global model of a consortium.
type AuditedBlock struct {
	Height     uint64   `json:"height"`
	Round      uint64   `json:"round"`
	Hash       string   `json:"hash"`
	Model      string   `json:"model"`
	Listed     int      `json:"listed"`             // organisations whose updates made it
	Withheld   []string `json:"withheld,omitempty"` // who committed and did not reveal
	Change     string   `json:"change,omitempty"`   // of the roster
	Recomputed bool     `json:"recomputed"`         // false: its updates are no longer stored, and two thirds of signatures vouch
}

// RoundBackend is what a running site offers about rounds of models.
type RoundBackend interface {
	StartRound(ctx context.Context) (uint64, error)
	AuditRounds(ctx context.Context) (RoundAudit, error)
}

func serveRounds(mux *http.ServeMux, b RoundBackend) {
	get(mux, "/v1/federation/audit", func(r *http.Request) (any, error) { return b.AuditRounds(r.Context()) })
}

// AuditRounds checks the site's chain of rounds again.
func (c *Client) AuditRounds(ctx context.Context) (a RoundAudit, err error) {
	return a, c.do(ctx, http.MethodGet, "/v1/federation/audit", nil, &a)
}
