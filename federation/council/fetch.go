package council

import (
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// fetchesAtOnce is for how many of its wants a member waits at a time. The updates of
// a round are all known in one moment; asked for in one moment too, each would come
// late, and be asked for again before it could come.
const fetchesAtOnce = 8

// A want is a hash to be fetched.
type want struct {
	sources   []identity.ID
	asked     int
	due       time.Time   // from when on the next source may be asked
	preferred identity.ID // who was put next out of turn
}

// want has a hash fetched from these, and then from each member of a roster.
func (m *Machine) want(now time.Time, h wire.Hash, c *chain.Context, first ...identity.ID) {
	if m.wants[h] != nil {
		return
	}
	w := &want{due: now}
	m.wants[h] = w
	for _, id := range append(first, m.inTurn(c)...) {
		if id != m.cfg.Self && !slices.Contains(w.sources, id) && len(w.sources) < 2*wire.MaxOrgs {
			w.sources = append(w.sources, id)
		}
	}
}

// prefer has id asked next, once, if what h names is wanted.
func (m *Machine) prefer(h wire.Hash, id identity.ID) {
	w := m.wants[h]
	if w == nil || w.preferred == id {
		return
	}
	if at := slices.Index(w.sources, id); at >= 0 {
		next := w.asked % len(w.sources)
		w.sources[at], w.sources[next] = w.sources[next], w.sources[at]
		w.preferred = id
	}
}

// inTurn are the voters of a roster, those behind our own place first: where all
// want the same, not all ask the same one for it.
func (m *Machine) inTurn(c *chain.Context) []identity.ID {
	at := c.Org(m.cfg.Self) + 1
	if at == 0 { // one that does not vote
		for _, b := range []byte(m.cfg.Self) {
			at += int(b)
		}
	}
	at %= len(c.Orgs)
	return ids(slices.Concat(c.Orgs[at:], c.Orgs[:at]))
}

// waiting says whether an answer may still come, so that nobody else is asked.
func (w *want) waiting(now time.Time) bool { return w.asked > 0 && now.Before(w.due) }

// fetch asks for wants that are due, one source after the other: those first that
// were asked for least. Which of those, differs from member to member, so that not
// all ask the same one at the same time.
func (m *Machine) fetch(now time.Time) {
	room := fetchesAtOnce
	var due []wire.Hash
	for h, w := range m.wants {
		if w.waiting(now) {
			room--
		} else if !now.Before(w.due) && len(w.sources) > 0 {
			due = append(due, h)
		}
	}
	if room <= 0 || len(due) == 0 {
		return
	}
	slices.SortFunc(due, func(a, b wire.Hash) int {
		if n := m.wants[a].asked - m.wants[b].asked; n != 0 {
			return n
		}
		return m.compare(a, b)
	})
	for _, h := range due[:min(room, len(due))] {
		w := m.wants[h]
		m.ready.Fetch = append(m.ready.Fetch, Fetch{Hash: h, From: w.sources[w.asked%len(w.sources)]})
		w.asked++
		w.due = now.Add(m.cfg.Retry)
	}
}

// compare orders hashes in a way of this member's own.
func (m *Machine) compare(a, b wire.Hash) int {
	for i, x := range m.own {
		if n := int(a[i]^x) - int(b[i]^x); n != 0 {
			return n
		}
	}
	return 0
}

// fetchAt is when fetch has something to do again.
func (m *Machine) fetchAt() time.Time {
	at, room := m.announceAt, fetchesAtOnce
	var idle bool
	for _, w := range m.wants {
		switch {
		case w.waiting(m.last):
			room--
			if w.due.Before(at) {
				at = w.due
			}
		case len(w.sources) > 0:
			idle = true
		}
	}
	if idle && room > 0 {
		return m.last
	}
	return at
}
