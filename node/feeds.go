package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
	"github.com/hedgerow-mesh/hedgerow/node/internal/feed/fetch"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// FeedOptions are the site's blocklists and what guards against wrong entries.
type FeedOptions struct {
	Feeds          []Feed
	WarningLists   []string     // files and folders
	IgnoreWarnings []string     // names of warning lists that do not count
	MaxEntries     int          // of the merged set; 0 is policy.DefaultBulkAddrs
	Dir            string       // where copies of the last good lists are kept; "" keeps none
	Client         *http.Client // nil is the default one
}

// Feed is one blocklist; Path or URL is set.
type Feed struct {
	Name        string
	Path, URL   string
	Format      string
	Column      string
	Every       time.Duration // between looks
	Expires     time.Duration // of entries, from the last good look
	MinScore    float64
	ScoreColumn string
	MaxSize     int64
	AuthFile    string // of a TAXII collection
}

// formatTAXII is the format of a feed whose URL is a TAXII collection.
const formatTAXII = "taxii"

const (
	maxNotes     = 1000            // lines that are remembered of each feed and stage
	retryFeed    = time.Minute     // after a look that failed, unless every is shorter
	rereadWarned = time.Hour       // between looks at the warning lists
	keyReasons   = "feeds/reasons" // in the store
	readAtOnce   = 4
	lookAtFiles  = 2 * time.Second // between looks whether a file has changed
)

// feeds keeps the bulk set of the plane equal to what the site's blocklists say.
//
// One goroutine reads and merges, under work; mu guards what others look at, and
// is held for moments only. Neither is held while the node's own lock is wanted.
type feeds struct {
	n    *Node
	o    FeedOptions
	bulk dataplane.Bulk // nil: the plane holds no large sets

	work sync.Mutex

	mu       sync.Mutex
	wanted   *FeedOptions // to be taken over by the next look; nil: nothing
	emptied  bool         // what a feed that is gone left in the plane must go too
	list     []*feedState // changed with work held as well
	never    []dataplane.Never
	own      []netip.Addr
	stale    bool // these have changed since the last merge
	warnings []fetch.Warning
	warned   time.Time // of the last look at the warning lists
	unread   string    // which warning lists cannot be read
	problem  string    // of the last merge
	guard    *feed.Guard
	set      *feed.Set
	reasons  []string          // names of feeds joined; the index is the reason less firstReason
	totals   map[uint32]uint64 // hits of earlier generations
}

// feedState is one feed.
type feedState struct {
	Feed
	src   *fetch.Source
	list  *feed.List // nil: nothing yet
	good  time.Time  // of the last good look: entries live from here
	next  time.Time  // of the next look
	kept  bool       // the list is the copy of an earlier run
	err   string     // of the last look, "" when it was good
	over  bool       // its entries have expired
	notes []feed.Note
	part  feed.Part
	cuts  []feed.Note // what the guard refused or split
}

func newFeeds(n *Node) (*feeds, error) {
	o := n.o.Feeds
	if o.MaxEntries <= 0 {
		o.MaxEntries = policy.DefaultBulkAddrs
	}
	f := &feeds{n: n, o: o, totals: map[uint32]uint64{}, guard: &feed.Guard{}, set: &feed.Set{}}
	f.bulk, _ = n.o.Plane.(dataplane.Bulk)
	if err := f.makeDir(len(o.Feeds)); err != nil {
		return nil, fmt.Errorf("feeds: %v", err)
	}
	for _, c := range o.Feeds {
		f.list = append(f.list, f.newState(c))
	}
	b, err := n.o.Store.Load(keyReasons)
	if err == nil {
		err = json.Unmarshal(b, &f.reasons)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("feeds: %v", err)
	}
	f.guard.Seal()
	return f, nil
}

// protect takes the never-block list and the machine's addresses, which no feed
// may contradict.
func (f *feeds) protect(never []dataplane.Never, own []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.never, f.own = slices.Clone(never), slices.Clone(own)
	f.stale = true
}

// run looks after all feeds until ctx ends.
func (f *feeds) run(ctx context.Context) error {
	configured := len(f.options().Feeds)
	if f.bulk == nil && configured > 0 {
		f.n.log.Warn("feeds are read and not enforced: this packet path holds no large sets", telemetry.KeyCount, configured)
	} else if f.bulk != nil && configured == 0 {
		f.lift()
	}
	t := time.NewTicker(lookAtFiles)
	defer t.Stop()
	for {
		f.look(ctx, nil)
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// lift empties a set that an earlier run left behind, when no feed is
// configured any more.
func (f *feeds) lift() {
	s, err := f.bulk.BulkState()
	if err == nil && s.Intended+s.Enforced > 0 {
		err = f.bulk.ReplaceBulk(nil)
		f.n.log.Info("no feed is configured any more: their entries are lifted", telemetry.KeyCount, s.Enforced)
	}
	if err != nil {
		f.n.log.Error("entries of feeds were not lifted", telemetry.KeyErr, err)
	}
}

// look refreshes the feeds that are due, or those that must be, and renews the
// set when anything has changed. Files come first, so that they do not wait for
// a server.
func (f *feeds) look(ctx context.Context, must func(*feedState) bool) {
	f.work.Lock()
	defer f.work.Unlock()
	fresh := f.adopt()
	if len(f.list) == 0 && !f.isEmptied() {
		return
	}
	changed := f.readWarnings(ctx, must != nil || fresh)
	for _, remote := range []bool{false, true} {
		var due []*feedState
		for _, s := range f.list {
			if (s.URL != "") == remote && (must != nil && must(s) || f.due(s)) {
				due = append(due, s)
			}
		}
		changed = f.refreshAll(ctx, due) || changed
		if ctx.Err() != nil {
			return
		}
		if f.expired() || changed || f.isStale() || f.isEmptied() {
			f.renew(ctx)
		}
		changed = false
	}
}

// refreshAll reads several feeds at once, and says whether the set has to be
// renewed.
func (f *feeds) refreshAll(ctx context.Context, due []*feedState) bool {
	var changed atomic.Bool
	var g errgroup.Group
	g.SetLimit(readAtOnce)
	for _, s := range due {
		g.Go(func() error {
			if f.refresh(ctx, s) {
				changed.Store(true)
			}
			return nil
		})
	}
	_ = g.Wait() // a feed's error is its own
	return changed.Load()
}

func (f *feeds) isStale() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stale
}

func (f *feeds) due(s *feedState) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.n.now().Before(s.next) || s.src.Changed()
}

// refresh reads one feed and says whether the set has to be renewed.
func (f *feeds) refresh(ctx context.Context, s *feedState) bool {
	o := f.reading(s)
	now := o.Now
	var notes []feed.Note
	var l *feed.List
	err := f.n.back.Aside(ctx, func(ctx context.Context) (err error) {
		l, err = s.src.Read(ctx, o, keepNotes(&notes))
		return err
	})
	if errors.Is(err, fetch.ErrUnchanged) {
		if err := s.src.Confirm(now); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.n.log.Warn("copy of a feed was not renewed", telemetry.KeyFeed, s.Name, telemetry.KeyErr, err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		s.good, s.next, s.err, s.over, s.kept = now, now.Add(s.Every), "", false, false
		return true
	}
	if err != nil {
		return f.failed(ctx, s, o, err)
	}
	f.mu.Lock()
	s.list, s.notes = l, notes
	s.good, s.next, s.err, s.over, s.kept = now, now.Add(s.Every), "", false, false
	f.mu.Unlock()
	f.n.log.Info("feed was read", telemetry.KeyFeed, s.Name, telemetry.KeyCount, l.Len(),
		telemetry.KeyRefused, l.Counts.Of(feed.Refused), telemetry.KeySkipped, l.Counts.Of(feed.Skipped))
	return true
}

// failed keeps what there is: the list that was read before, or the copy of an
// earlier run.
func (f *feeds) failed(ctx context.Context, s *feedState, o feed.Options, cause error) bool {
	f.mu.Lock()
	first := s.list == nil && s.next.IsZero()
	told := s.err == cause.Error()
	s.err, s.next = cause.Error(), f.n.now().Add(min(s.Every, retryFeed))
	until := s.good.Add(s.Expires)
	f.mu.Unlock()
	loaded := false
	if first {
		if l, taken, err := f.keptCopy(ctx, s, o); err == nil {
			f.mu.Lock()
			s.list, s.good, s.kept = l, taken, true
			until = taken.Add(s.Expires)
			f.mu.Unlock()
			loaded = true
		} else if !errors.Is(err, fs.ErrNotExist) {
			f.n.log.Warn("copy of a feed cannot be used", telemetry.KeyFeed, s.Name, telemetry.KeyErr, err)
		}
	}
	if !told {
		if s.list == nil {
			f.n.log.Warn("feed cannot be read, and there is no earlier copy", telemetry.KeyFeed, s.Name, telemetry.KeyErr, cause)
		} else {
			f.n.log.Warn("feed was not refreshed: its last good entries stay until they expire", telemetry.KeyFeed, s.Name, telemetry.KeyUntil, until, telemetry.KeyErr, cause)
		}
	}
	return loaded
}

// keepNotes remembers the first lines of each kind: the many of one must not
// hide the few of another.
func keepNotes(into *[]feed.Note) func(feed.Note) {
	kept := feed.Counts{}
	return func(n feed.Note) {
		if kept[n.Kind]++; kept[n.Kind] <= maxNotes {
			*into = append(*into, n)
		}
	}
}

// expired says aloud when a feed's entries have come to their end, and whether
// one has.
func (f *feeds) expired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	any := false
	for _, s := range f.list {
		if s.list != nil && !s.over && !f.n.now().Before(s.good.Add(s.Expires)) {
			s.over, any = true, true
			f.n.log.Warn("feed has expired: its entries are no longer enforced", telemetry.KeyFeed, s.Name, telemetry.KeyErr, s.err)
		}
	}
	return any
}

// readWarnings reads the warning lists at their times, and says whether it did.
// Lists that cannot be read any more stay as they were.
func (f *feeds) readWarnings(ctx context.Context, now bool) bool {
	f.mu.Lock()
	due := now || f.warned.IsZero() || f.n.now().Sub(f.warned) >= rereadWarned
	before := f.warnings
	f.mu.Unlock()
	if !due || len(f.o.WarningLists) == 0 {
		return false
	}
	ws, err := fetch.Warnings(ctx, f.o.WarningLists, f.o.IgnoreWarnings)
	problem := ""
	if err != nil {
		problem = strings.ReplaceAll(err.Error(), "\n", "; ")
		for _, old := range before {
			if !slices.ContainsFunc(ws, func(w fetch.Warning) bool { return w.Path == old.Path }) {
				ws = append(ws, old)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if problem != f.unread && problem != "" {
		f.n.log.Warn("some warning lists cannot be read: what they protected before stays protected", telemetry.KeyErr, problem)
	}
	f.warnings, f.warned, f.unread = ws, f.n.now(), problem
	return true
}
