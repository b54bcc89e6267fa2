package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// Models lists the models of this site, the oldest first.
func (n *Node) Models(context.Context) ([]api.Model, error) {
	ms, err := n.o.Store.Models()
	if err != nil {
		return nil, err
	}
	n.models.mu.Lock()
	lives, roles := n.models.m.Models(), n.models.m.Roles()
	n.models.mu.Unlock()
	by := map[string]*lifecycle.Model{}
	for i := range lives {
		by[lives[i].ID] = &lives[i]
	}
	out := make([]api.Model, 0, len(ms))
	for _, m := range ms {
		out = append(out, api.Model{
			Model: m.Model, Created: m.Stored, Active: m.Hash == roles.Active, Role: roleOf(m.Hash, roles),
			Bytes: m.Bytes, Dropped: m.Dropped, Life: by[m.Hash],
		})
	}
	return out, nil
}

// benefit says what the mesh's part of the model that decides brings this site, and why
// that is not known. Without a mesh, or a model, it says nothing.
func (n *Node) benefit() (*lifecycle.Benefit, string) {
	if n.member == nil || !n.o.Learner.Enabled {
		return nil, ""
	}
	n.models.mu.Lock()
	defer n.models.mu.Unlock()
	x, err := n.models.m.Model(n.models.m.Roles().Active)
	if err != nil {
		return nil, ""
	}
	b := x.Benefit()
	switch {
	case b != nil:
		return b, b.Words()
	case x.Base != x.ID:
		return nil, "not known yet: the model was not compared with the part of it that was made here alone"
	}
	return nil, "nothing that is in use here: the model was made here alone"
}

func roleOf(id string, r lifecycle.Roles) string {
	switch id {
	case r.Active:
		return "active"
	case r.Canary:
		return "canary"
	case r.Shadow:
		return "shadow"
	case r.Fallback:
		return "fallback"
	case r.Champion:
		return "champion"
	}
	return ""
}

// Model finds one by the beginning of its hash.
func (n *Node) Model(ctx context.Context, id string) (api.Model, error) {
	ms, err := n.Models(ctx)
	if err != nil {
		return api.Model{}, err
	}
	var found []api.Model
	for _, m := range ms {
		if id != "" && strings.HasPrefix(m.Hash, strings.ToLower(id)) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 0:
		return api.Model{}, fmt.Errorf("no model is called %q: `hedgerow models` lists them: %w", id, errNotFound)
	case 1:
		return found[0], nil
	}
	return api.Model{}, fmt.Errorf("%d models begin with %q: write more of the hash: %w", len(found), id, errInvalid)
}

// PromoteModel makes a model that passed the gate active now.
func (n *Node) PromoteModel(ctx context.Context, id, why string) (api.Model, error) {
	x, err := n.Model(ctx, id)
	if err != nil {
		return x, err
	}
	n.models.mu.Lock()
	if _, err = n.models.model(x.Hash); err == nil {
		var fx []lifecycle.Effect
		fx, err = n.models.m.Promote(n.now(), x.Hash, why)
		n.models.carry(fx)
	}
	n.models.mu.Unlock()
	if err != nil {
		return x, lifeError(err)
	}
	return n.Model(ctx, x.Hash)
}

// RollbackModel lets the active model's predecessor judge again, or nobody.
func (n *Node) RollbackModel(ctx context.Context, why string) (api.Model, error) {
	n.models.mu.Lock()
	fx, err := n.models.m.Rollback(n.now(), why)
	n.models.carry(fx)
	active := n.models.m.Roles().Active
	n.models.mu.Unlock()
	if err != nil {
		return api.Model{}, lifeError(err)
	}
	if active == "" {
		return api.Model{}, nil
	}
	return n.Model(ctx, active)
}

func lifeError(err error) error {
	if errors.Is(err, lifecycle.ErrUnknown) {
		return fmt.Errorf("%v: %w", err, errNotFound)
	}
	return fmt.Errorf("%v: %w", err, errInvalid)
}

// ExportModels gives the whole registry, without weights.
func (n *Node) ExportModels(ctx context.Context) (api.Export, error) {
	ms, err := n.Models(ctx)
	n.models.mu.Lock()
	defer n.models.mu.Unlock()
	return api.Export{Site: n.o.Site, At: n.now().UTC(), Roles: n.models.m.Roles(), Spent: n.models.m.Spent(), Models: ms}, err
}

const (
	recentFlows = 4000
	recentFor   = 7 * 24 * time.Hour
)

// DiffModels compares two models on this site's recent flows.
func (n *Node) DiffModels(ctx context.Context, a, b string) (api.ModelDiff, error) {
	var d api.ModelDiff
	var m [2]*learner.Model
	for i, id := range []string{a, b} {
		x, err := n.Model(ctx, id)
		if err != nil {
			return d, err
		}
		n.models.mu.Lock()
		m[i], err = n.models.model(x.Hash)
		n.models.mu.Unlock()
		if err != nil {
			return d, fmt.Errorf("model %.12s: %v: %w", x.Hash, err, errInvalid)
		}
	}
	flows, err := n.recent(ctx)
	if err != nil {
		return d, err
	}
	if len(flows) == 0 {
		return d, fmt.Errorf("no flow of the last %s is in the archive to compare models on: %w", recentFor, errInvalid)
	}
	vs := make([]feature.Vector, len(flows))
	for i := range flows {
		if err := vs[i].UnmarshalBinary(flows[i].Vector); err != nil {
			return d, err
		}
	}
	d.A, d.B, d.Since = m[0].Hash(), m[1].Hash(), flows[0].Archived
	d.Comparison = learner.Compare(m[0], m[1], vs, gateLevel)
	for _, x := range d.Differ {
		d.Flows = append(d.Flows, flows[x.Index].Flow)
	}
	return d, nil
}

// recent are the newest flows of the archive that the present schema reads.
func (n *Node) recent(ctx context.Context) ([]store.Flow, error) {
	ring := make([]store.Flow, 0, recentFlows)
	at := 0
	for f, err := range n.o.Store.Flows(n.now().Add(-recentFor), time.Time{}) {
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if n := feature.Size(f.Vector); n == 0 || n != len(f.Vector) {
			continue
		}
		f.Vector = append([]byte(nil), f.Vector...)
		if len(ring) < recentFlows {
			ring = append(ring, f)
			continue
		}
		ring[at] = f
		at = (at + 1) % recentFlows
	}
	return append(ring[at:len(ring):len(ring)], ring[:at]...), nil
}
