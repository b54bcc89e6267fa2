package node

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/feed"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

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
func (f *feeds) renew(ctx context.Context) {
	now := f.n.now()
	f.mu.Lock()
	g := f.newGuard()
	f.stale = false
	emptied := f.emptied
	var sources []feed.Source
	var of []*feedState
	for _, s := range f.list {
		if s.list != nil {
			sources = append(sources, feed.Source{Name: s.Name, List: s.list, Until: s.good.Add(s.Expires)})
			of = append(of, s)
		}
	}
	f.mu.Unlock()
	if len(sources) == 0 && !emptied {
		return // what an earlier run left in the kernel is better than nothing
	}
	cuts := make([][]feed.Note, len(sources))
	keep := make([]func(feed.Note), len(sources))
	for i := range cuts {
		keep[i] = keepNotes(&cuts[i])
	}
	var set *feed.Set
	err := f.n.back.Run(ctx, func(context.Context) (err error) {
		set, err = feed.Build(now, sources, g, f.limits(), func(i int, n feed.Note) { keep[i](n) })
		return err
	})
	if err == nil {
		err = f.enforce(ctx, set, of)
	}
	if err != nil && ctx.Err() != nil {
		return
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
	if f.bulk != nil && set.Len() != f.set.Len() {
		f.n.log.Info("blocklists are in force", telemetry.KeyCount, set.Len())
	}
	f.guard, f.set, f.problem, f.emptied = g, set, "", false
	for i, s := range of {
		told := s.part.Out
		s.part, s.cuts = set.Parts[i], cuts[i]
		if s.part.Out != "" && s.part.Out != told { // the set is renewed often
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
func (f *feeds) enforce(ctx context.Context, set *feed.Set, of []*feedState) error {
	if f.bulk == nil {
		return nil
	}
	entries := make([]dataplane.Listed, 0, set.Len())
	var kinds []feed.Feeds
	var before dataplane.BulkState
	err := f.n.back.Run(ctx, func(context.Context) (err error) {
		at := map[feed.Feeds]uint32{}
		set.Each(func(e feed.Entry) {
			i, known := at[e.Feeds]
			if !known {
				i = uint32(len(kinds))
				at[e.Feeds] = i
				kinds = append(kinds, e.Feeds)
			}
			entries = append(entries, dataplane.Listed{Prefix: e.Prefix, Expires: e.Until, Reason: i})
		})
		before, err = f.bulk.BulkState()
		return err
	})
	if err != nil {
		return err
	}
	ids := make([]uint32, len(kinds))
	for i, k := range kinds { // under mu, which the background must not hold
		ids[i] = f.reason(names(k, of))
	}
	err = f.n.back.Run(ctx, func(context.Context) error {
		for i := range entries {
			entries[i].Reason = ids[entries[i].Reason]
		}
		return f.bulk.ReplaceBulk(entries)
	})
	if err != nil {
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
