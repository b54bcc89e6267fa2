package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
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
}

const (
	maxNotes     = 1000            // lines that are remembered of each feed and stage
	retryFeed    = time.Minute     // after a look that failed, unless every is shorter
	rereadWarned = time.Hour       // between looks at the warning lists
	keyReasons   = "feeds/reasons" // in the store
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
	list     []*feedState
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
	if o.Dir != "" && len(o.Feeds) > 0 {
		if err := os.MkdirAll(o.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("feeds: %v", err)
		}
	}
	for _, c := range o.Feeds {
		keep := ""
		if o.Dir != "" {
			keep = filepath.Join(o.Dir, c.Name)
		}
		f.list = append(f.list, &feedState{Feed: c, src: fetch.New(fetch.Options{
			Path: c.Path, URL: c.URL, Keep: keep, MaxBytes: c.MaxSize, Client: o.Client,
		})})
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
	if f.bulk == nil {
		if len(f.list) > 0 {
			f.n.log.Warn("feeds are read and not enforced: this packet path holds no large sets", telemetry.KeyCount, len(f.list))
		}
	} else if len(f.list) == 0 {
		f.lift()
		return nil
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
// set when anything has changed.
func (f *feeds) look(ctx context.Context, must func(*feedState) bool) {
	f.work.Lock()
	defer f.work.Unlock()
	changed := f.readWarnings(ctx, must != nil)
	for _, s := range f.list {
		if ctx.Err() != nil {
			return
		}
		if must != nil && must(s) || f.due(s) {
			changed = f.refresh(ctx, s) || changed
		}
	}
	if f.expired() || changed || f.isStale() {
		f.renew()
	}
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
	now := f.n.now()
	o := feed.Options{
		Format: feed.Format(s.Format), Column: s.Column, MinScore: s.MinScore, ScoreColumn: s.ScoreColumn,
		Now: now, MaxBytes: 4 * s.MaxSize,
	}
	var notes []feed.Note
	l, err := s.src.Read(ctx, o, keepNotes(&notes))
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
		if l, taken, err := s.src.Kept(ctx, o); err == nil {
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

func keepNotes(into *[]feed.Note) func(feed.Note) {
	return func(n feed.Note) {
		if len(*into) < maxNotes {
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

// newGuard gathers everything that no feed may block. The caller holds mu.
func (f *feeds) newGuard() *feed.Guard {
	g := &feed.Guard{}
	g.ProtectSpecial()
	for _, a := range f.own {
		a = a.Unmap().WithZone("")
		g.Protect(feed.Own, "an address of this machine", netip.PrefixFrom(a, a.BitLen()))
	}
	g.Protect(feed.Own, "a network of this site", f.n.o.Inside...)
	for _, s := range f.n.o.Mesh.Roster {
		for _, m := range s.Addrs {
			if a, ok := multiaddrIP(m); ok {
				g.Protect(feed.Own, "the site "+s.Name, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	for _, e := range f.never {
		g.Protect(feed.Never, "never-block "+neverWords(e), e.Prefix)
	}
	for _, w := range f.warnings {
		g.Warn(w.Name, w.List)
	}
	g.Seal()
	return g
}

// multiaddrIP reads the address of /ip4/192.0.2.1/tcp/4400.
func multiaddrIP(m string) (netip.Addr, bool) {
	parts := strings.Split(m, "/")
	if len(parts) < 3 || parts[1] != "ip4" && parts[1] != "ip6" {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(parts[2])
	return a.Unmap().WithZone(""), err == nil
}

// renew merges all lists and hands the set to the plane. The caller holds work.
func (f *feeds) renew() {
	now := f.n.now()
	f.mu.Lock()
	g := f.newGuard()
	f.stale = false
	var sources []feed.Source
	var of []*feedState
	for _, s := range f.list {
		if s.list != nil {
			sources = append(sources, feed.Source{Name: s.Name, List: s.list, Until: s.good.Add(s.Expires)})
			of = append(of, s)
		}
	}
	f.mu.Unlock()
	if len(sources) == 0 {
		return // what an earlier run left in the kernel is better than nothing
	}
	cuts := make([][]feed.Note, len(sources))
	set, err := feed.Build(now, sources, g, f.limits(), func(i int, n feed.Note) { keepNotes(&cuts[i])(n) })
	if err == nil {
		err = f.enforce(set, of)
	}
	if err != nil {
		f.n.log.Error("feeds were not renewed: the set of before stays until it expires", telemetry.KeyErr, err)
		f.mu.Lock()
		f.problem = err.Error()
		f.mu.Unlock()
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.guard, f.set, f.problem = g, set, ""
	for i, s := range of {
		s.part, s.cuts = set.Parts[i], cuts[i]
		if s.part.Out != "" {
			f.n.log.Error("feed was left out: it does not fit", telemetry.KeyFeed, s.Name, telemetry.KeyReason, s.part.Out)
		}
	}
}

// BulkLimits is the room that a plane needs for so many entries of feeds, of
// which a fifth may be networks.
func BulkLimits(maxEntries int) policy.BulkLimits {
	return policy.BulkLimits{Addrs: maxEntries, Nets: max(policy.DefaultBulkNets, maxEntries/5)}
}

func (f *feeds) limits() feed.Limits {
	l := BulkLimits(f.o.MaxEntries)
	return feed.Limits{Entries: l.Addrs, Networks: l.Nets, Lengths: policy.MaxBulkLengths}
}

// enforce hands a set to the plane. What the old set hit is added up before, so
// that counts go on.
func (f *feeds) enforce(set *feed.Set, of []*feedState) error {
	if f.bulk == nil {
		return nil
	}
	entries := make([]dataplane.Listed, 0, set.Len())
	ids := map[feed.Feeds]uint32{}
	set.Each(func(e feed.Entry) {
		id, known := ids[e.Feeds]
		if !known {
			id = f.reason(names(e.Feeds, of))
			ids[e.Feeds] = id
		}
		entries = append(entries, dataplane.Listed{Prefix: e.Prefix, Expires: e.Until, Reason: id})
	})
	before, err := f.bulk.BulkState()
	if err != nil {
		return err
	}
	if err := f.bulk.ReplaceBulk(entries); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, n := range before.Hits {
		f.totals[id] += n
	}
	return nil
}

func names(set feed.Feeds, of []*feedState) []string {
	var out []string
	for i, s := range of {
		if set.Has(i) {
			out = append(out, s.Name)
		}
	}
	slices.Sort(out)
	return out
}

// maxReasons is how many sets of feeds can be told apart. Beyond that an entry
// names the first of its feeds only.
const maxReasons = policy.MaxBulkReasons - feed.MaxFeeds

// reason is the id of a set of feeds. Ids are kept in the store, since pinned
// tables outlive the process that filled them.
func (f *feeds) reason(names []string) uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	joined := strings.Join(names, ", ")
	i := slices.Index(f.reasons, joined)
	if i < 0 && len(names) > 1 && len(f.reasons) >= maxReasons {
		joined = names[0]
		i = slices.Index(f.reasons, joined)
	}
	if i < 0 {
		i = len(f.reasons)
		f.reasons = append(f.reasons, joined)
		b, _ := json.Marshal(f.reasons) // strings
		f.n.outbox.put(job{save: &kv{keyReasons, b}})
	}
	return enforce.FirstFeedReason + uint32(i)
}

// named are the feeds of a reason id.
func (f *feeds) named(id uint32) []string {
	if i := int(id) - enforce.FirstFeedReason; i >= 0 && i < len(f.reasons) {
		return strings.Split(f.reasons[i], ", ")
	}
	return nil
}
