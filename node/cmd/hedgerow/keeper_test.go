package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/gossip"
	"github.com/hedgerow-mesh/hedgerow/node/internal/membership"
)

// silent is a member that says nothing.
type silent struct{}

func (silent) Receive(context.Context, federation.Topic, identity.ID, []byte) federation.Verdict {
	return federation.Ignore
}
func (silent) Serve(context.Context, identity.ID, []byte) ([]byte, error) { return nil, nil }
func (silent) PeerChanged(federation.PeerInfo)                            {}

// paperedSite is a site with papers and, once started, a keeper over a real transport.
type paperedSite struct {
	folder *membership.Folder
	us     membership.Us
	tr     *gossip.Transport
}

func newPapered(t *testing.T, name, organisation string) *paperedSite {
	t.Helper()
	k, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &paperedSite{folder: membership.At(t.TempDir(), nil)}
	s.tr, err = gossip.New(gossip.Options{Key: k, Organisation: organisation, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, DialEvery: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s.us = membership.Us{Name: name, Key: k, Addrs: s.tr.Addrs()}
	return s
}

// start keeps the site's papers until the test ends.
func (s *paperedSite) start(t *testing.T) {
	t.Helper()
	k, err := membership.NewKeeper(membership.KeeperOptions{Folder: s.folder, Mesh: s.tr, Log: slog.New(slog.DiscardHandler), LookEvery: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- s.tr.Run(ctx, silent{}) }()
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func (s *paperedSite) sees(x *paperedSite) bool {
	return slices.ContainsFunc(s.tr.Peers(), func(p federation.PeerInfo) bool { return p.ID == x.us.Key.ID() && p.Connected })
}

// invites has one organisation join at another's site.
func (s *paperedSite) invites(t *testing.T, guest *paperedSite, organisation string) {
	t.Helper()
	state, err := s.folder.Load(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tok, err := membership.Invite(membership.Token{
		Kind: membership.ForOrganisation, Name: organisation, Inviter: s.us.Key.ID(), Expires: time.Now().Add(time.Minute),
		Organisation: state.Organisation, Consortium: state.Directory.Roster().Name(),
	})
	if err != nil {
		t.Fatal(err)
	}
	at := func(k *identity.Key, listen []string, other federation.Site) *gossip.Transport {
		tr, err := gossip.New(gossip.Options{Key: k, Organisation: membership.MeshOfVisits, Listen: listen, Roster: []federation.Site{other}, DialEvery: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	host := at(s.us.Key, []string{"/ip4/127.0.0.1/tcp/0"}, federation.Site{Name: "guest", ID: tok.Guest().ID()})
	tok.Addrs = host.Addrs()
	visitor := at(tok.Guest(), nil, federation.Site{Name: "host", ID: s.us.Key.ID(), Addrs: tok.Addrs})
	done := make(chan error, 1)
	go func() {
		_, _, err := s.folder.Welcome(t.Context(), host, s.us, tok, time.Now)
		done <- err
	}()
	if _, err := guest.folder.Join(t.Context(), visitor, guest.us, tok, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !cond(); <-tick.C {
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("not within two minutes: %s", what)
		}
	}
}

// Three organisations come together by invitations to one of them; the others hear
// of each other, and a member that two thirds revoke is cut off everywhere.
func TestKeepersKeepTheRoster(t *testing.T) {
	a, b, c := newPapered(t, "a1", "alder"), newPapered(t, "b1", "briar"), newPapered(t, "c1", "cedar")
	if err := a.folder.Create(a.us, "grove", "alder", time.Now()); err != nil {
		t.Fatal(err)
	}
	a.start(t)
	a.invites(t, b, "briar")
	b.start(t)
	a.invites(t, c, "cedar")
	c.start(t)
	within(t, "everybody is connected with everybody", func() bool {
		return a.sees(b) && a.sees(c) && b.sees(a) && b.sees(c) && c.sees(a) && c.sees(b)
	})
	if out, err := a.folder.RevokeOrganisation(a.us, "cedar", "it was sold", time.Now()); err != nil || !out.Applied {
		t.Fatal(out, err)
	}
	within(t, "the revoked one is cut off by both, who go on", func() bool {
		return !a.sees(c) && !b.sees(c) && len(a.tr.Peers()) == 1 && len(b.tr.Peers()) == 1 && a.sees(b) && b.sees(a)
	})
}
