package node

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// tuning is what a site runs with, to be changed.
func (s *feedSite) tuning() Tuning {
	return Tuning{Spared: s.o.Spared, Policy: s.o.Policy, Flood: s.o.Flood, IncidentsPerDay: s.o.Learner.IncidentsPerDay, Feeds: s.o.Feeds}
}

// rereading gives the site a configuration that change makes of the one at its start.
func (s *feedSite) rereading(change func(*Tuning) error) {
	s.o.Reread = func() (api.Reloaded, error) {
		t := s.tuning()
		if err := change(&t); err != nil {
			return api.Reloaded{}, err
		}
		return api.Reloaded{Path: "c.toml", Taken: []string{"feed"}, Restart: []string{"mesh.peer"}}, s.node.Tune(t)
	}
}

func TestReloadTakesOverFeeds(t *testing.T) {
	s := newFeedSite(t, "stays", "goes")
	s.write("stays", "45.9.148.7\n")
	s.write("goes", "45.9.149.7\n")
	s.write("comes", "45.9.150.7\n")
	gone, come := netip.MustParseAddr("45.9.149.7"), netip.MustParseAddr("45.9.150.7")
	change := func(*Tuning) error { return nil }
	s.rereading(func(t *Tuning) error { return change(t) })
	s.start()
	s.reload()
	s.want(gone, false, "at the start")
	eventually(t, "a copy is kept", func() bool { _, err := os.Stat(filepath.Join(s.o.Feeds.Dir, "goes")); return err == nil })

	change = func(t *Tuning) error {
		next := t.Feeds.Feeds[1]
		next.Name, next.Path = "comes", filepath.Join(s.dir, "comes")
		t.Feeds.Feeds = []Feed{t.Feeds.Feeds[0], next}
		return nil
	}
	f, err := s.node.ReloadFeeds(t.Context(), "comes")
	if err != nil || f.Configuration == nil || f.Configuration.Words() != "c.toml: now in force: feed; only a restart takes over mesh.peer" {
		t.Fatalf("%+v, %v", f.Configuration, err)
	}
	if len(f.List) != 2 || f.List[1].Name != "comes" || f.Enforced != 2 {
		t.Errorf("feeds %+v", f)
	}
	s.want(listed, false, "of the feed that stays")
	s.want(gone, true, "of the feed that went")
	s.want(come, false, "of the feed that came")
	if _, err := os.Stat(filepath.Join(s.o.Feeds.Dir, "goes")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy of the feed that went: %v", err)
	}
	st, err := s.node.Status(t.Context())
	if err != nil || len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], "only a restart takes over: mesh.peer") {
		t.Errorf("warnings %q, %v", st.Warnings, err)
	}

	change = func(t *Tuning) error { t.Feeds.Feeds = nil; return nil }
	if f = s.reload(); len(f.List) != 0 || f.Enforced != 0 || f.Intended != 0 {
		t.Errorf("without feeds: %+v", f)
	}
	s.want(listed, true, "without feeds")
	change = func(*Tuning) error { return nil }
	if f = s.reload(); f.Enforced != 2 {
		t.Errorf("with the first feeds again: %+v", f)
	}
	s.want(gone, false, "with the first feeds again")
}

// A feed that is described otherwise keeps its entries until it was read so.
func TestReloadOfAFeedThatCannotBeRead(t *testing.T) {
	s := newFeedSite(t, "bad")
	s.write("bad", "45.9.148.7\n")
	path := filepath.Join(s.dir, "missing")
	s.rereading(func(t *Tuning) error {
		t.Feeds.Feeds = slices.Clone(t.Feeds.Feeds)
		t.Feeds.Feeds[0].Path, t.Feeds.Feeds[0].Expires = path, 2*time.Hour
		return nil
	})
	s.start()
	if f, err := s.node.feeds.view(); err != nil || len(f.List) != 1 {
		t.Fatal(f, err)
	}
	s.node.feeds.look(t.Context(), func(*feedState) bool { return true })
	s.want(listed, false, "at the start")
	f := s.reload()
	if f.Failing != 1 || f.Enforced != 1 || f.List[0].Source != path {
		t.Errorf("%+v", f)
	}
	s.want(listed, false, "with a source that is not there")
	s.write("missing", "45.9.148.99\n")
	s.reload()
	s.want(listed, true, "with the new source")
	s.want(unlisted, false, "with the new source")
}

func TestReloadOfABrokenConfigurationChangesNothing(t *testing.T) {
	s := newFeedSite(t, "bad")
	s.write("bad", "45.9.148.7\n")
	cause := errors.New("c.toml:3: feed #1.evry: is not a known key")
	var change func(*Tuning) error
	s.rereading(func(t *Tuning) error { return change(t) })
	s.start()
	s.node.feeds.look(t.Context(), func(*feedState) bool { return true })

	host := netip.MustParsePrefix("10.0.0.5/32")
	tuned := func(t *Tuning) {
		t.Feeds.Feeds, t.IncidentsPerDay = nil, 17
		t.Policy.Block, t.Policy.MaxBlocksPerHour = time.Minute, -1
		t.Policy.Remediation = []dataplane.Never{{Prefix: host}}
		t.Spared = []dataplane.Never{{Prefix: netip.PrefixFrom(unlisted, 32)}}
	}
	for what, c := range map[string]struct {
		change func(*Tuning) error
		want   string
	}{
		"a file that cannot be parsed": {func(t *Tuning) error { tuned(t); return cause }, "feed #1.evry"},
		"remediation": {func(t *Tuning) error {
			tuned(t)
			t.Policy.Remediation = []dataplane.Never{{Prefix: netip.MustParsePrefix("10.0.0.5/8")}}
			return nil
		}, "policy.remediation: "},
		"never-block": {func(t *Tuning) error {
			tuned(t)
			t.Spared = append(t.Spared, dataplane.Never{Prefix: netip.MustParsePrefix("10.0.0.5/8")})
			return nil
		}, "dataplane.never_block: "},
		"flood": {func(t *Tuning) error { tuned(t); t.Flood.Source = 20_000_000; return nil }, "flood: "},
		"caps":  {func(t *Tuning) error { tuned(t); t.Policy.MaxShare = 2; return nil }, "policy: "},
	} {
		change = c.change
		if _, err := s.node.ReloadFeeds(t.Context(), ""); err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v, expected an error with %q", what, err, c.want)
		}
		st, err := s.node.Status(t.Context())
		if err != nil || len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], c.want) {
			t.Errorf("%s: warnings %q, %v", what, st.Warnings, err)
		}
		s.want(listed, false, what)
		n := s.node
		n.mu.Lock()
		if n.o.Policy.Block != time.Hour || n.o.Policy.MaxBlocksPerHour != 60 || len(n.o.Policy.Remediation)+len(n.o.Spared) != 0 || n.o.Learner.IncidentsPerDay == 17 {
			t.Errorf("%s: the site runs with %+v, %v", what, n.o.Policy, n.o.Spared)
		}
		n.mu.Unlock()
		if list, err := n.Allow(t.Context(), "", false); err != nil || len(list) != 0 {
			t.Errorf("%s: never-block list %q, %v", what, list, err)
		}
	}
	change = func(t *Tuning) error { tuned(t); return nil }
	s.reload()
	st, err := s.node.Status(t.Context())
	if err != nil || len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], "mesh.peer") {
		t.Errorf("after a good one: %q, %v", st.Warnings, err)
	}
	if list, err := s.node.Allow(t.Context(), "", false); err != nil || !slices.Equal(list, []string{"45.9.148.99  (configuration)"}) {
		t.Errorf("never-block list %q, %v", list, err)
	}
	s.scan(attacker)
	eventually(t, "the scan is told", func() bool {
		es, err := s.node.Events(t.Context(), api.Query{Kinds: []event.Kind{event.KindAlert}, Limit: 10})
		return err == nil && len(es) > 0
	})
	if bs, err := s.node.Blocks(t.Context()); err != nil || slices.ContainsFunc(bs, func(b api.Block) bool { return b.Action == "block" }) {
		t.Errorf("blocks %+v, %v: expected none, for none may be made", bs, err)
	}
}
