package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/node/internal/feed/fetch"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// configure asks for other feeds and warning lists. The next look takes them
// over, so that nobody waits here for a download that is under way.
func (f *feeds) configure(o FeedOptions) error {
	if err := f.makeDir(len(o.Feeds)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted = &o
	return nil
}

// options are the feeds and warning lists that are asked for.
func (f *feeds) options() FeedOptions {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wanted != nil {
		return *f.wanted
	}
	return f.o
}

func (f *feeds) isEmptied() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.emptied
}

func (f *feeds) makeDir(feeds int) error {
	if f.o.Dir == "" || feeds == 0 {
		return nil
	}
	return os.MkdirAll(f.o.Dir, 0o700)
}

func (f *feeds) keptPath(name string) string {
	if f.o.Dir == "" {
		return ""
	}
	return filepath.Join(f.o.Dir, name)
}

func (f *feeds) newState(c Feed) *feedState {
	return &feedState{Feed: c, src: fetch.New(fetch.Options{
		Path: c.Path, URL: c.URL, Keep: f.keptPath(c.Name), MaxBytes: c.MaxSize, Client: f.o.Client,
		TAXII: c.Format == formatTAXII, AuthFile: c.AuthFile,
	})}
}

// adopt takes over what configure asked for, and says whether the warning lists
// are others now. A feed that stays as it was goes on as it is. One that is
// described otherwise is read anew, and keeps its entries until that has worked.
// The entries of one that is gone go with the next renewal, and so does its copy.
// The caller holds work.
func (f *feeds) adopt() (fresh bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.wanted
	if o == nil {
		return false
	}
	f.wanted = nil
	fresh = !slices.Equal(f.o.WarningLists, o.WarningLists) || !slices.Equal(f.o.IgnoreWarnings, o.IgnoreWarnings)
	if fresh {
		f.warnings = slices.DeleteFunc(f.warnings, func(w fetch.Warning) bool { return !still(w, o) })
		f.unread, f.stale = "", true
	}
	f.o.Feeds, f.o.WarningLists, f.o.IgnoreWarnings = o.Feeds, o.WarningLists, o.IgnoreWarnings
	var list []*feedState
	for _, c := range o.Feeds {
		list = append(list, f.succeed(c))
	}
	for _, old := range f.list {
		if !slices.ContainsFunc(list, func(s *feedState) bool { return s.Name == old.Name }) {
			f.forget(old)
		}
	}
	f.list = list
	return fresh
}

// still says whether a warning list that was read is one that o names.
func still(w fetch.Warning, o *FeedOptions) bool {
	return !slices.Contains(o.IgnoreWarnings, w.Name) && slices.ContainsFunc(o.WarningLists, func(p string) bool {
		return w.Path == p || strings.HasPrefix(w.Path, strings.TrimSuffix(p, "/")+"/")
	})
}

// succeed is the state of a feed under its new description. The caller holds mu.
func (f *feeds) succeed(c Feed) *feedState {
	i := slices.IndexFunc(f.list, func(s *feedState) bool { return s.Name == c.Name })
	if i < 0 {
		return f.newState(c)
	}
	old := f.list[i]
	if old.Feed == c {
		return old
	}
	s := f.newState(c)
	s.list, s.good, s.kept, s.notes, s.part, s.cuts = old.list, old.good, old.kept, old.notes, old.part, old.cuts
	f.stale = true // expires may be another
	return s
}

// forget drops a feed that is no longer configured. The caller holds mu.
func (f *feeds) forget(s *feedState) {
	f.emptied = true
	if path := f.keptPath(s.Name); path != "" {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			f.n.log.Warn("copy of a feed that is gone was not removed", telemetry.KeyFeed, s.Name, telemetry.KeyErr, err)
		}
	}
	f.n.log.Info("feed is no longer configured: its entries are lifted", telemetry.KeyFeed, s.Name)
}
