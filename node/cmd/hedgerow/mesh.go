package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/gossip"
	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/membership"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

func rosterOf(cfg *config.Config) ([]federation.Site, error) {
	var out []federation.Site
	for _, p := range cfg.Mesh.Peers {
		id, err := identity.ParseID(p.ID)
		if err != nil {
			return nil, fmt.Errorf("mesh.peer %q: id: %v", p.Name, err)
		}
		out = append(out, federation.Site{Name: p.Name, ID: id, Addrs: p.Addrs})
	}
	return out, nil
}

// joinMesh opens the transport to the sites of the configuration, those that were
// invited, and those of the consortium; without any, the site is alone and listens
// to nobody. The member trusts the first two; the keeper sees to the third, and tells
// who is in it.
func joinMesh(cfg *config.Config, key *identity.Key, fixed []federation.Site, told func(federation.Roll), log *slog.Logger) (mesh node.MeshOptions, k *membership.Keeper, err error) {
	folder := papersOf(cfg)
	s, err := folder.Load(time.Now())
	if err != nil {
		return mesh, nil, err
	}
	if a, b := cfg.Mesh.Organisation, s.Organisation; a != "" && b != "" && a != b {
		return mesh, nil, fmt.Errorf("mesh.organisation is %q, but this site was invited as one of %q: give both the same name, or move %s away", a, b, folder.Path(""))
	}
	pass, err := passphrase(cfg)
	if err != nil {
		return mesh, nil, err
	}
	mesh = node.MeshOptions{
		Organisation: cmp.Or(cfg.Mesh.Organisation, s.Organisation), Roster: membership.Merge(fixed, s.Own()),
		RoundEvery: cfg.Mesh.RoundEvery, Gather: cfg.Mesh.Gather, Consortium: consortiumOf(s),
	}
	o := membership.KeeperOptions{Folder: folder, Fixed: fixed, Pass: pass, Told: told, Log: log.With(telemetry.KeyComponent, "membership")}
	if len(mesh.Roster) == 0 && s.Directory == nil {
		k, err = membership.NewKeeper(o)
		return mesh, k, err
	}
	t, err := gossip.New(gossip.Options{
		Key: key, Organisation: mesh.Organisation, Roster: mesh.Roster, Listen: cfg.Mesh.Listen,
		Discover: cfg.Federation.Discover, Relay: cfg.Federation.Relay, Behind: cfg.Federation.BehindNAT,
		Log: log.With(telemetry.KeyComponent, "gossip"),
	})
	if err != nil {
		return mesh, nil, err
	}
	o.Mesh, mesh.Transport, mesh.Addrs = t, t, t.Addrs
	if k, err = membership.NewKeeper(o); err != nil {
		return mesh, nil, errors.Join(err, t.Close())
	}
	return mesh, k, nil
}

// consortiumOf is the consortium in the papers; nil without.
func consortiumOf(s *membership.State) *node.ConsortiumOptions {
	if s.Directory == nil {
		return nil
	}
	return &node.ConsortiumOptions{
		ID: s.Directory.Roster().Consortium().String(), Organisation: s.Organisation, Roll: s.Roll(time.Now()), Founders: s.Founders(),
	}
}
