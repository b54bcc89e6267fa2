package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
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

// WhatIf is what other organisations cause at this site.
type WhatIf struct {
	Peers   []string    `json:"peers"`
	Counted int         `json:"counted"` // organisations that count
	Rows    []Influence `json:"rows"`    // the first is of a value that nobody else has spoken of
}

// Influence is one value that organisations have a part in. Its words are those of
// the ladder: observe, rate-limit, block.
type Influence struct {
	Value   string `json:"value,omitempty"`
	Now     string `json:"now"`
	Without string `json:"without"` // had they said nothing
	Lies    string `json:"lies"`    // the most they reach by lying about it together
}

// Indicator is what a site says of an address, a service or a name, in force here.
type Indicator struct {
	ID       string    `json:"id"`
	Type     string    `json:"type"` // address, service, domain, fingerprint, behaviour
	Value    string    `json:"value"`
	Author   string    `json:"author"` // of another organisation as "organisation/site"
	Own      bool      `json:"own"`
	Effect   string    `json:"effect"` // observe, rate-limit, block
	Evidence string    `json:"evidence"`
	Conf     float64   `json:"confidence"`
	TLP      string    `json:"tlp"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Expires  time.Time `json:"expires"`
	Sentence string    `json:"sentence"`
	Stance   string    `json:"stance"` // claim, sighting, or dispute: that it is innocent
}

// Claim is the stance of a word that asks for a defence.
const Claim = "claim"

// RoundBackend is what a running site offers about the consortium.
type RoundBackend interface {
	StartRound(ctx context.Context) (uint64, error)
	AuditRounds(ctx context.Context) (RoundAudit, error)
	ResumeRounds(ctx context.Context) error
	WhatIf(ctx context.Context, peers []string) (WhatIf, error)
	Indicators(ctx context.Context) ([]Indicator, error)
}

func serveRounds(mux *http.ServeMux, b RoundBackend) {
	get(mux, "/v1/federation/audit", func(r *http.Request) (any, error) { return b.AuditRounds(r.Context()) })
	post(mux, "/v1/federation/resume", func(ctx context.Context, _ struct{}) (any, error) { return nil, b.ResumeRounds(ctx) })
	get(mux, "/v1/indicators", func(r *http.Request) (any, error) { return b.Indicators(r.Context()) })
	get(mux, "/v1/what-if", func(r *http.Request) (any, error) { return b.WhatIf(r.Context(), r.URL.Query()["peer"]) })
}

// AuditRounds checks the site's chain of rounds again.
func (c *Client) AuditRounds(ctx context.Context) (a RoundAudit, err error) {
	return a, c.do(ctx, http.MethodGet, "/v1/federation/audit", nil, &a)
}

// ResumeRounds lets the consortium's models reach the gate again after a fork.
func (c *Client) ResumeRounds(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/federation/resume", struct{}{}, nil)
}

// WhatIf tells what other organisations cause at this site.
func (c *Client) WhatIf(ctx context.Context, peers []string) (w WhatIf, err error) {
	return w, c.do(ctx, http.MethodGet, "/v1/what-if?"+url.Values{"peer": peers}.Encode(), nil, &w)
}

// Indicators lists what is in force, of all authors, latest first.
func (c *Client) Indicators(ctx context.Context) (out []Indicator, err error) {
	return out, c.do(ctx, http.MethodGet, "/v1/indicators", nil, &out)
}
