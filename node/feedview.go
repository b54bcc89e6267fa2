package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// Feeds lists the blocklists and the set that they make together.
func (n *Node) Feeds(context.Context) (api.Feeds, error) { return n.feeds.view() }

// Refused lists lines of a feed that were not simply taken: first what the
// reader says, then the guard.
func (n *Node) Refused(_ context.Context, name string) ([]api.FeedNote, error) {
	s := n.feeds.byName(name)
	if s == nil {
		return nil, n.feeds.unknown(name)
	}
	n.feeds.mu.Lock()
	defer n.feeds.mu.Unlock()
	return append(slices.Clone(s.notes), s.cuts...), nil
}

// WhyListed says what the blocklists say of an address.
func (n *Node) WhyListed(_ context.Context, addr string) (*api.Listing, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" {
		return nil, fmt.Errorf("address %q: expected one such as 192.0.2.1: %w", addr, errInvalid)
	}
	return n.feeds.why(a.Unmap()), nil
}

// listed is what the blocklists say of what may be an address.
func (n *Node) listed(id string) *api.Listing {
	if a, err := netip.ParseAddr(id); err == nil && a.Zone() == "" {
		if l := n.feeds.why(a.Unmap()); len(l.On) > 0 {
			return l
		}
	}
	return nil
}

func (f *feeds) byName(name string) *feedState {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.list {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func (f *feeds) unknown(name string) error {
	var names []string
	for _, s := range f.options().Feeds {
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return fmt.Errorf("feed %q: no feed is configured: [[feed]] in the configuration names them: %w", name, errNotFound)
	}
	return fmt.Errorf("feed %q: expected one of %s: %w", name, strings.Join(names, ", "), errNotFound)
}

// view reads the plane's own account beside what is intended.
func (f *feeds) view() (api.Feeds, error) {
	var st dataplane.BulkState
	if f.bulk != nil {
		var err error
		if st, err = f.bulk.BulkState(); err != nil {
			return api.Feeds{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v := api.Feeds{
		Protected: f.guard.Len(), WarningLists: len(f.warnings), Generation: st.Generation, Bytes: st.Bytes,
		Problem: f.problem, List: make([]api.Feed, 0, len(f.list)),
	}
	if v.Problem == "" {
		v.Problem = f.unread
	}
	v.Intended, v.Enforced, v.Configured = f.living(), st.Enforced, len(f.list)
	hits := f.hits(&st)
	for _, s := range f.list {
		if s.err != "" || s.part.Out != "" {
			v.Failing++
		}
		v.List = append(v.List, s.view(hits[s.Name]))
	}
	v.Words = f.words(&v)
	return v, nil
}

// living counts the entries of the set that have not expired.
func (f *feeds) living() (n uint64) {
	now := f.n.now()
	f.set.Each(func(e feed.Entry) {
		if e.Until.After(now) {
			n++
		}
	})
	return n
}

func (s *feedState) view(hits uint64) api.Feed {
	v := api.Feed{
		Name: s.Name, Source: s.src.Name(), Enforced: s.part.Kept, Hits: hits, Read: s.good, Next: s.next,
		Kept: s.kept, Error: s.err, Counts: feed.Counts{},
	}
	if s.part.Out != "" {
		v.Error = s.part.Out
	}
	if s.list != nil {
		v.Format, v.Lines, v.Listed, v.Expires = s.list.Format, s.list.Lines, s.list.Len(), s.good.Add(s.Expires)
		v.Counts.Add(s.list.Counts)
	}
	v.Counts.Add(s.part.Counts)
	return v
}

// hits are packets by feed. The caller holds mu.
func (f *feeds) hits(st *dataplane.BulkState) map[string]uint64 {
	out := map[string]uint64{}
	for _, by := range []map[uint32]uint64{f.totals, st.Hits} {
		for id, n := range by {
			for _, name := range f.named(id) {
				out[name] += n
			}
		}
	}
	return out
}

func (f *feeds) words(v *api.Feeds) string {
	switch {
	case v.Configured == 0:
		return "none"
	case f.bulk == nil:
		return fmt.Sprintf("%d feeds are read and not enforced: this packet path holds no large sets", v.Configured)
	}
	s := fmt.Sprintf("%d feeds, %d entries enforced of %d intended", v.Configured, v.Enforced, v.Intended)
	if v.Failing > 0 {
		s += fmt.Sprintf("; %d not read or left out (`hedgerow feeds` says why)", v.Failing)
	}
	return s
}

// why looks an address up in every list, and in the set.
func (f *feeds) why(a netip.Addr) *api.Listing {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &api.Listing{Address: a.String(), On: []api.ListedBy{}}
	for _, s := range f.list {
		if s.list == nil {
			continue
		}
		if p, line, ok := s.list.Where(a); ok {
			l.On = append(l.On, api.ListedBy{Feed: s.Name, Entry: prefixWords(p), Line: line, Source: s.src.Name()})
		}
	}
	if _, name, net, ok := f.guard.Why(a); ok {
		l.Protected = name + ", " + prefixWords(net)
	}
	if e, ok := f.set.Has(a); ok && e.Until.After(f.n.now()) {
		l.Listed, l.Entry, l.Expires = true, prefixWords(e.Prefix), e.Until
	}
	l.Sentence = listingWords(l, f.bulk != nil)
	return l
}

func prefixWords(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func listingWords(l *api.Listing, enforced bool) string {
	var on []string
	for _, x := range l.On {
		on = append(on, fmt.Sprintf("%s (%s, line %d)", x.Feed, x.Entry, x.Line))
	}
	where := strings.Join(on, " and ")
	switch {
	case l.Listed && enforced:
		return fmt.Sprintf("%s is on the blocklist %s", l.Address, where)
	case l.Listed:
		return fmt.Sprintf("%s is on the blocklist %s, which this packet path does not enforce", l.Address, where)
	case where != "" && l.Protected != "":
		return fmt.Sprintf("%s is on the blocklist %s, and not blocked: it is protected (%s)", l.Address, where, l.Protected)
	case where != "":
		return fmt.Sprintf("%s is on the blocklist %s, and not in force: the list has expired, was left out, takes it out itself, or was read just now and the set with it is not made yet", l.Address, where)
	case l.Protected != "":
		return fmt.Sprintf("%s is on no blocklist, and could be on none: it is protected (%s)", l.Address, l.Protected)
	}
	return l.Address + " is on no blocklist"
}

// firstListed tells when the plane first dropped a packet for a blocklist. It
// says whether the reason was one.
func (f *feeds) firstListed(ev *dataplane.Event) *event.Event {
	if ev.Reason < enforce.FirstFeedReason {
		return nil
	}
	now := f.n.now()
	k := ev.Record.Key
	f.mu.Lock()
	names := f.named(ev.Reason)
	f.mu.Unlock()
	for _, a := range []netip.Addr{k.A, k.B} {
		l := f.why(a)
		if !l.Listed {
			continue
		}
		e := &event.Event{V: event.Version, ID: event.NewID(now), Time: now, Site: f.n.o.Site, Kind: event.KindVerdict}
		e.Verdict = &event.Verdict{
			Target: l.Address, Action: dataplane.Block.String(), Mode: ev.Mode.String(), Expires: l.Expires,
			Evidence: "feed", Sentence: l.Sentence, FirstDropNS: ev.At,
		}
		return e
	}
	f.n.log.Info("packet was dropped for a blocklist", telemetry.KeyFeed, strings.Join(names, ", "))
	return nil
}

// figures are the feeds for the metrics.
func (f *feeds) figures() (out telemetry.FeedFigures) {
	v, err := f.view()
	if err != nil {
		out.Err = err
		return out
	}
	now := f.n.now()
	out.Intended, out.Enforced, out.Bytes, out.Protected = v.Intended, v.Enforced, v.Bytes, v.Protected
	for _, x := range v.List {
		age := 0.0
		if !x.Read.IsZero() {
			age = now.Sub(x.Read).Seconds()
		}
		out.Feeds = append(out.Feeds, telemetry.FeedFigure{
			Name: x.Name, Entries: x.Enforced, Refused: x.Counts.Of(feed.Refused), Skipped: x.Counts.Of(feed.Skipped),
			Hits: x.Hits, Age: age, Failing: x.Error != "",
		})
	}
	return out
}
