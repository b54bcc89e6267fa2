package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
)

// Addresses of tests about feeds must be ordinary ones: those for documentation
// are what a feed may not list.
var (
	listed   = netip.MustParseAddr("45.9.148.7")
	unlisted = netip.MustParseAddr("45.9.148.99")
)

// feedSite is a site whose feeds lie in a folder, with a clock of its own.
type feedSite struct {
	*testSite
	dir   string
	clock atomic.Int64
}

func newFeedSite(t *testing.T, feeds ...string) *feedSite {
	t.Helper()
	s := &feedSite{testSite: sites(t, "alder")[0], dir: t.TempDir()}
	s.stop()
	s.clock.Store(time.Now().UnixNano())
	s.o.Now = func() time.Time { return time.Unix(0, s.clock.Load()) }
	s.o.Feeds.Dir = filepath.Join(s.dir, "kept")
	for _, name := range feeds {
		s.o.Feeds.Feeds = append(s.o.Feeds.Feeds, Feed{
			Name: name, Path: filepath.Join(s.dir, name), Every: time.Hour, Expires: 5 * time.Hour, MaxSize: 1 << 20,
		})
	}
	return s
}

// write makes a version of a feed's file that no reader mistakes for another.
func (s *feedSite) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
}

func (s *feedSite) later(d time.Duration) { s.clock.Add(int64(d)) }

func (s *feedSite) reload() api.Feeds {
	s.t.Helper()
	f, err := s.node.ReloadFeeds(s.t.Context(), "")
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// open is whether a visitor's packets pass, by the clock of the site.
func (s *feedSite) open(from netip.Addr) bool {
	all := true
	for _, x := range visit(from, 50000) {
		all = s.plane.Frame(x.Hook, softplane.Ethernet, x.Frame, 0, s.o.Now()) && all
	}
	return all
}

func (s *feedSite) want(a netip.Addr, open bool, when string) {
	s.t.Helper()
	if s.open(a) != open {
		s.t.Fatalf("%s: packets of %s pass: %v", when, a, !open)
	}
}

func TestAFeedBlocksExplainsAndYields(t *testing.T) {
	s := newFeedSite(t, "bad", "worse")
	s.write("bad", "# a list\n45.9.148.7\n10.0.0.5\nevil.example.org\n")
	s.write("worse", "45.9.148.0/28\n")
	s.start()
	f := s.reload()
	if f.Intended != 2 || f.Enforced != 2 || f.Failing != 0 || f.List[0].Enforced != 1 || f.List[0].Listed != 2 || f.List[0].Counts[feed.Special] != 1 || f.List[0].Counts[feed.Name] != 1 {
		t.Fatalf("feeds %+v", f)
	}
	s.want(listed, false, "with the feeds")
	s.want(unlisted, true, "with the feeds")

	l, err := s.node.WhyListed(t.Context(), listed.String())
	if err != nil || !l.Listed || len(l.On) != 2 || l.On[0].Feed != "bad" || l.On[0].Line != 2 || l.On[1].Entry != "45.9.148.0/28" {
		t.Fatalf("why: %+v, %v", l, err)
	}
	x, err := s.node.Explain(t.Context(), listed.String())
	if err != nil || !strings.Contains(x.Sentence, "on the blocklist bad (45.9.148.7, line 2) and worse") || x.Undo != "hedgerow allow 45.9.148.7" {
		t.Fatalf("explanation %+v, %v", x, err)
	}
	notes, err := s.node.Refused(t.Context(), "bad")
	if err != nil || len(notes) != 2 || notes[0].Kind != feed.Name || notes[1].Kind != feed.Special || notes[1].Line != 3 {
		t.Fatalf("refused %+v, %v", notes, err)
	}
	eventually(t, "the explanation has the first drop", func() bool {
		x, err := s.node.Explain(t.Context(), listed.String())
		return err == nil && len(x.Chain) == 1 && x.Chain[0].Verdict.FirstDropNS > 0
	})
	eventually(t, "the first drop is told", func() bool {
		es, err := s.node.Events(t.Context(), api.Query{Kinds: []event.Kind{event.KindVerdict}, Limit: 10})
		return err == nil && slices.ContainsFunc(es, func(e *event.Event) bool {
			return e.Verdict.Target == listed.String() && e.Verdict.Evidence == "feed" && strings.Contains(e.Verdict.Sentence, "blocklist bad")
		})
	})
	each := uint64(len(visit(listed, 50000)))
	for i := range uint64(3) { // counts go on when the set is renewed
		if f = s.reload(); f.List[0].Hits != (i+1)*each || f.List[1].Hits != f.List[0].Hits {
			t.Errorf("hits %d and %d, want %d", f.List[0].Hits, f.List[1].Hits, (i+1)*each)
		}
		s.want(listed, false, "again")
	}
	st, err := s.node.Status(t.Context())
	if err != nil || st.Feeds.Words != "2 feeds, 2 entries enforced of 2 intended" || len(st.Warnings) != 0 {
		t.Errorf("status %+v %v, %v", st.Feeds, st.Warnings, err)
	}

	if _, err := s.node.Panic(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	s.want(listed, false, "in panic, which does not lift the operator's own lists")
	if _, err := s.node.Allow(t.Context(), listed.String(), false); err != nil {
		t.Fatal(err)
	}
	s.want(listed, true, "on the never-block list")
	f = s.reload()
	l, err = s.node.WhyListed(t.Context(), listed.String())
	if err != nil || l.Listed || !strings.Contains(l.Sentence, "not blocked: it is protected (never-block 45.9.148.7") || f.List[0].Counts[feed.Never] != 1 || f.List[1].Counts[feed.Split] != 1 {
		t.Errorf("with the never-block entry: %+v, %+v, %v", l, f.List, err)
	}
	s.want(netip.MustParseAddr("45.9.148.8"), false, "beside the never-block entry")
}

func TestMonitorModeDropsNothingOfAFeed(t *testing.T) {
	s := newFeedSite(t, "bad")
	s.o.Mode = dataplane.Monitor
	s.write("bad", "45.9.148.7\n")
	s.start()
	s.reload()
	if err := s.plane.SetMode(dataplane.Monitor); err != nil {
		t.Fatal(err)
	}
	s.want(listed, true, "in monitor mode")
	if st, err := s.plane.Stats(); err != nil || st.WouldDrop == 0 || st.Dropped != 0 {
		t.Errorf("%+v, %v", st, err)
	}
}

// What a source does, the last good entries stay until they expire.
func TestABadRefreshKeepsTheLastGoodEntries(t *testing.T) {
	s := newFeedSite(t, "bad")
	path := filepath.Join(s.dir, "bad")
	s.write("bad", "45.9.148.7\n")
	s.start()
	s.reload()
	for name, spoil := range map[string]func(){
		"garbage":  func() { s.write("bad", strings.Repeat("lorem ipsum\n", 20000)) },
		"one line": func() { s.write("bad", strings.Repeat("x", 100000)) },
		"too long": func() { s.write("bad", strings.Repeat("45.9.148.99\n", 200000)) },
		"a gigabyte": func() { // a file of holes: addresses, and then nothing that could be one
			s.write("bad", strings.Repeat("45.9.148.99\n", 1000))
			if err := os.Truncate(path, 1<<30); err != nil {
				t.Fatal(err)
			}
		},
		"an error page": func() { s.write("bad", "<html>503</html>") },
		"emptied":       func() { s.write("bad", "") },
		"gone":          func() { _ = os.Remove(path) },
	} {
		spoil()
		f := s.reload()
		if f.Failing != 1 || f.List[0].Error == "" || f.Enforced != 1 {
			t.Errorf("%s: %+v", name, f)
		}
		s.want(listed, false, name)
		if st, err := s.node.Status(t.Context()); err != nil || len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], "its last good entries stay until") {
			t.Errorf("%s: warnings %q, %v", name, st.Warnings, err)
		}
	}
	s.later(5*time.Hour - time.Minute)
	s.want(listed, false, "shortly before the end")
	s.later(2 * time.Minute)
	s.want(listed, true, "after the end")
	s.write("bad", "45.9.148.7\n45.9.148.8\n")
	if f := s.reload(); f.Failing != 0 || f.Enforced != 2 {
		t.Errorf("a good list again: %+v", f)
	}
	s.want(listed, false, "with a good list again")
	s.later(4 * time.Hour)
	s.reload() // unchanged, and that renews it
	s.later(4 * time.Hour)
	s.want(listed, false, "after an unchanged list was looked at")
}

func TestFeedsOutliveTheProcessWithoutTheirSource(t *testing.T) {
	s := newFeedSite(t, "bad")
	s.write("bad", "45.9.148.7\n")
	s.start()
	s.reload()
	eventually(t, "the reason is stored", func() bool { _, err := s.o.Store.Load(keyReasons); return err == nil })
	s.stop()
	if err := os.Remove(filepath.Join(s.dir, "bad")); err != nil {
		t.Fatal(err)
	}
	s.later(time.Hour)
	s.start()
	f := s.reload()
	if f.Enforced != 1 || !f.List[0].Kept || f.List[0].Error == "" {
		t.Fatalf("feeds %+v", f)
	}
	s.want(listed, false, "from the copy")
	if ids := s.node.feeds.reasons; !slices.Equal(ids, []string{"bad"}) {
		t.Errorf("reasons %q", ids)
	}
	s.later(4*time.Hour + time.Minute)
	s.want(listed, true, "after the end that the first reading set")
}

func TestADownloadIsAFeed(t *testing.T) {
	var broken atomic.Bool
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			http.Error(w, "45.9.148.99", http.StatusBadGateway)
			return
		}
		w.Header().Set("ETag", `"a"`)
		if r.Header.Get("If-None-Match") == `"a"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = fmt.Fprintln(w, "45.9.148.7")
	}))
	t.Cleanup(srv.Close)
	s := newFeedSite(t)
	s.o.Feeds.Client = srv.Client()
	t.Cleanup(srv.Client().CloseIdleConnections)
	s.o.Feeds.Feeds = []Feed{{Name: "web", URL: srv.URL + "/?key=secret", Every: time.Hour, Expires: 5 * time.Hour, MaxSize: 1 << 20}}
	s.start()
	if f := s.reload(); f.Enforced != 1 || strings.Contains(f.List[0].Source, "secret") {
		t.Fatalf("%+v", f)
	}
	if f := s.reload(); f.Failing != 0 || f.Enforced != 1 {
		t.Fatalf("not modified: %+v", f)
	}
	broken.Store(true)
	if f := s.reload(); f.Failing != 1 || f.Enforced != 1 || !strings.Contains(f.List[0].Error, "502") {
		t.Fatalf("a broken server: %+v", f)
	}
	s.want(listed, false, "with a broken server")
}

func TestWarningListsAndOwnNetworksGuard(t *testing.T) {
	s := newFeedSite(t, "bad")
	s.o.Own = []netip.Addr{netip.MustParseAddr("45.9.150.1")}
	s.o.Inside = []netip.Prefix{netip.MustParsePrefix("45.9.151.0/24"), netip.MustParsePrefix("10.0.0.0/8")}
	s.o.Feeds.WarningLists = []string{filepath.Join(s.dir, "warn")}
	s.write("warn/cdn/list.json", `{"list": ["45.9.148.0/24"]}`)
	s.write("bad", "45.9.148.7\n45.9.149.7\n45.9.150.1\n45.9.151.9\n")
	s.start()
	f := s.reload()
	if c := f.List[0].Counts; f.Enforced != 1 || c[feed.Warned] != 1 || c[feed.Own] != 2 || f.WarningLists != 1 {
		t.Fatalf("%+v", f)
	}
	s.want(listed, true, "a warned network")
	s.want(netip.MustParseAddr("45.9.149.7"), false, "beside it")
	s.write("warn/cdn/list.json", `{"list": [`)
	if f = s.reload(); f.Enforced != 1 || !strings.Contains(f.Problem, "cdn") || f.WarningLists != 1 {
		t.Errorf("a broken warning list stays in force: %+v", f)
	}
	// The machine takes an address that a feed lists.
	if err := s.node.SetSystem(nil, []netip.Addr{netip.MustParseAddr("45.9.149.7")}); err != nil {
		t.Fatal(err)
	}
	if f = s.reload(); f.Enforced != 1 || f.List[0].Counts[feed.Own] != 2 {
		t.Errorf("after the change of addresses: %+v", f.List)
	}
	s.want(netip.MustParseAddr("45.9.149.7"), true, "an own address")
	s.want(netip.MustParseAddr("45.9.150.1"), false, "an address that is no longer own")
}

// plain hides what a plane can do beyond dataplane.Plane.
type plain struct{ dataplane.Plane }

func TestAPlaneWithoutLargeSetsSaysSo(t *testing.T) {
	s := newFeedSite(t, "bad")
	s.write("bad", "45.9.148.7\n")
	s.start()
	s.stop()
	s.o.Plane = plain{s.plane}
	n, err := New(s.o)
	if err != nil {
		t.Fatal(err)
	}
	f, err := n.ReloadFeeds(t.Context(), "")
	if err != nil || f.Enforced != 0 || !strings.Contains(f.Words, "not enforced: this packet path holds no large sets") {
		t.Errorf("%+v, %v", f, err)
	}
	if l, err := n.WhyListed(t.Context(), listed.String()); err != nil || !strings.Contains(l.Sentence, "does not enforce") {
		t.Errorf("%+v, %v", l, err)
	}
}

// A plane may still hold the set of a run before; it goes with the feeds, and
// stays when they only cannot be read.
func TestWhatAnEarlierRunLeft(t *testing.T) {
	s := newFeedSite(t, "bad")
	s.write("bad", "45.9.148.7\n")
	s.start()
	s.reload()
	s.stop()
	again := func(feeds []Feed) *Node {
		s.o.Plane, s.o.Feeds.Feeds, s.o.Feeds.Dir = s.plane, feeds, ""
		n, err := New(s.o)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := again([]Feed{{Name: "bad", Path: filepath.Join(s.dir, "absent"), Every: time.Hour, Expires: 5 * time.Hour}})
	if f, err := n.ReloadFeeds(t.Context(), ""); err != nil || f.Enforced != 1 {
		t.Errorf("unreadable: %+v, %v", f, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := again(nil).feeds.run(ctx); err != nil {
		t.Fatal(err)
	}
	if st, err := s.plane.BulkState(); err != nil || st.Enforced != 0 {
		t.Errorf("without feeds: %+v, %v", st, err)
	}
}

// full is a plane that takes no further set.
type full struct {
	*softplane.Plane
	no atomic.Bool
}

func (p *full) ReplaceBulk(e []dataplane.Listed) error {
	if p.no.Load() {
		return fmt.Errorf("replace bulk set: %w", dataplane.ErrFull)
	}
	return p.Plane.ReplaceBulk(e)
}

func TestAFullPlaneKeepsTheSetOfBefore(t *testing.T) {
	s := newFeedSite(t, "bad")
	s.write("bad", "45.9.148.7\n")
	s.start()
	s.stop()
	p := &full{Plane: s.plane}
	s.o.Plane = p
	n, err := New(s.o)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := n.ReloadFeeds(t.Context(), ""); err != nil || f.Enforced != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	p.no.Store(true)
	s.write("bad", "45.9.148.8\n45.9.148.99\n")
	f, err := n.ReloadFeeds(t.Context(), "")
	if err != nil || f.Enforced != 1 || !strings.Contains(f.Problem, "table is full") {
		t.Errorf("%+v, %v", f, err)
	}
	s.want(listed, false, "while the plane is full")
	if l, err := n.WhyListed(t.Context(), listed.String()); err != nil || !l.Listed {
		t.Errorf("the set of before is not explained: %+v, %v", l, err)
	}
}

// What the commands ask goes over the socket and comes back whole.
func TestFeedsOverTheSocket(t *testing.T) {
	s := newFeedSite(t, "bad")
	s.write("bad", "45.9.148.7\n10.0.0.5\n")
	s.start()
	s.stop() // the answer must not change between two questions
	l, err := api.Listen(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- api.Serve(ctx, l, s.node, nil) }()
	cl := api.NewClient(l.Addr().String())
	t.Cleanup(func() {
		cl.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	f, err := cl.ReloadFeeds(ctx, "bad")
	if err != nil || f.Enforced != 1 || f.List[0].Counts[feed.Special] != 1 {
		t.Fatalf("reload: %+v, %v", f, err)
	}
	if again, err := cl.Feeds(ctx); err != nil || again.Enforced != 1 || again.List[0].Source != f.List[0].Source {
		t.Errorf("feeds: %+v, %v", again, err)
	}
	if ns, err := cl.Refused(ctx, "bad"); err != nil || len(ns) != 1 || ns[0].Line != 2 || ns[0].Value != "10.0.0.5" {
		t.Errorf("refused: %+v, %v", ns, err)
	}
	if why, err := cl.WhyListed(ctx, "45.9.148.7"); err != nil || !why.Listed || len(why.On) != 1 {
		t.Errorf("why: %+v, %v", why, err)
	}
	if _, err := cl.WhyListed(ctx, "x/y z"); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("why nonsense: %v", err)
	}
	if _, err := cl.ReloadFeeds(ctx, "good"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("reload of an unknown feed: %v", err)
	}
}

func TestFeedRequestsAreNamed(t *testing.T) {
	s := newFeedSite(t, "bad")
	s.write("bad", "45.9.148.7\n")
	s.start()
	if _, err := s.node.ReloadFeeds(t.Context(), "good"); !errors.Is(err, errNotFound) || !strings.Contains(err.Error(), "expected one of bad") {
		t.Errorf("reload: %v", err)
	}
	if _, err := s.node.Refused(t.Context(), "good"); !errors.Is(err, errNotFound) {
		t.Errorf("refused: %v", err)
	}
	if _, err := s.node.WhyListed(t.Context(), "nowhere"); !errors.Is(err, errInvalid) {
		t.Errorf("why: %v", err)
	}
	if l, err := s.node.WhyListed(t.Context(), "1.1.1.1"); err != nil || l.Listed || l.Sentence != "1.1.1.1 is on no blocklist" {
		t.Errorf("why: %+v, %v", l, err)
	}
}

// Reasons of feeds and of decisions never meet, however many there are.
func TestReasonsOfFeedsAreTheirOwn(t *testing.T) {
	s := newFeedSite(t)
	s.start()
	f := s.node.feeds
	seen := map[uint32]bool{}
	for i := range 3 * maxReasons {
		id := f.reason([]string{fmt.Sprint("a", i%64), fmt.Sprint("b", i)})
		if id < enforce.FirstFeedReason || id > 0xffffff {
			t.Fatalf("reason %#x", id)
		}
		seen[id] = true
	}
	if len(seen) > maxReasons+feed.MaxFeeds || !slices.Equal(f.named(enforce.FirstFeedReason), []string{"a0", "b0"}) {
		t.Errorf("%d reasons", len(seen))
	}
	if f.named(7) != nil || f.named(0xffffff) != nil {
		t.Error("a reason that no feed has is named")
	}
}

// The set is renewed at each look; what does not fit is told once.
func TestAFeedThatDoesNotFitIsToldOnce(t *testing.T) {
	s := newFeedSite(t, "small", "large")
	var log bytes.Buffer
	s.o.Log = slog.New(slog.NewTextHandler(&log, nil))
	s.o.Feeds.MaxEntries = 3
	s.write("small", "45.9.148.7\n")
	s.write("large", "45.9.149.1\n45.9.150.1\n45.9.151.1\n45.9.152.1\n")
	s.start()
	for range 3 {
		if f := s.reload(); f.Failing != 1 || f.Enforced != 1 || !strings.Contains(f.Words, "1 not read or left out") || !strings.Contains(f.List[1].Error, "feeds.max_entries") {
			t.Errorf("feeds %+v", f)
		}
	}
	s.want(listed, false, "of the feed that fits")
	s.stop()
	if n := strings.Count(log.String(), "left out"); n != 1 {
		t.Errorf("told %d times:\n%s", n, &log)
	}
}
