package round

import (
	"fmt"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// wake starts the clocks at the first call.
func (m *Machine) wake(now time.Time) {
	if m.since.IsZero() {
		m.since, m.announceAt = now, now
	}
	if now.After(m.last) {
		m.last = now
	}
}

// Tick does what time asks for.
func (m *Machine) Tick(now time.Time) {
	m.wake(now)
	if at := m.nextBegin(); m.open == nil && !at.IsZero() && !now.Before(at) {
		if _, err := m.Start(now); err != nil {
			m.event(Event{Step: Failed, Why: err.Error()})
		}
	}
	if !now.Before(m.announceAt) {
		m.announceAt = now.Add(m.cfg.Announce)
		m.announce()
	}
	if m.open != nil && !now.Before(m.resendAt) {
		m.ready.Send = append(m.ready.Send, m.open.own...)
		m.resendGap = min(2*m.resendGap, m.cfg.Announce)
		m.resendAt = now.Add(m.resendGap)
	}
	m.progress(now)
	m.fetch(now)
}

// announce has our state sealed anew, unless that is under way.
func (m *Machine) announce() {
	if m.sealing {
		return
	}
	m.sealing = true
	st := m.head.state()
	m.ready.Seal = append(m.ready.Seal, &st)
}

// seal asks once for one message of the open round.
func (m *Machine) seal(what string, p wire.Payload) {
	if m.open.sealing[what] {
		return
	}
	m.open.sealing[what] = true
	m.ready.Seal = append(m.ready.Seal, p)
}

// keep sends a message of ours and resends it while the round is open.
func (m *Machine) keep(msg *wire.Message) {
	m.open.own = append(m.open.own, msg)
	m.ready.Send = append(m.ready.Send, msg)
}

func (m *Machine) event(e Event) { m.ready.Events = append(m.ready.Events, e) }

// progress computes what can be computed, lists when it is our turn, and asks
// for a better model when there is one.
func (m *Machine) progress(now time.Time) {
	m.close(now)
	m.propose(now)
	m.follow(now)
	m.fetch(now)
}

// close computes the lowest view's list whose deltas are all here.
func (m *Machine) close(now time.Time) {
	if m.open == nil {
		return
	}
	for _, v := range m.open.views() {
		p := m.open.lists[v].Payload.(*wire.List)
		if m.open.bad[v] || !m.holds(p) {
			continue
		}
		params, sites, err := m.aggregate(p)
		if err != nil {
			m.open.bad[v] = true
			m.event(Event{Step: Failed, Round: p.Round, Author: m.open.lists[v].Author, Why: err.Error()})
			continue
		}
		base := m.head.Hash
		m.adopt(now, Head{Round: p.Round, View: v, Hash: wire.ModelHash(m.cfg.Schema, params), Params: params})
		m.event(Event{Step: Aggregated, Round: p.Round, Base: base, Hash: m.head.Hash, Sites: sites})
		return
	}
}

func (m *Machine) holds(p *wire.List) bool {
	for _, h := range p.Deltas {
		if m.open.deltas[h] == nil {
			return false
		}
	}
	return true
}

// adopt makes a model the head. The open round, on the old base, becomes the
// previous one when it led here, and is dropped when not.
func (m *Machine) adopt(now time.Time, h Head) {
	m.prev = nil
	if m.open != nil && m.open.round == h.Round {
		m.prev = m.open
	}
	m.open, m.head, m.since = nil, h, now
	m.ownLists = nil
	m.noticed = time.Time{}
	clear(m.wants)
	m.ready.Persist = true
	m.ready.Train = nil
	m.ready.Adopt = &Head{Round: h.Round, View: h.View, Hash: h.Hash, Params: slices.Clone(h.Params)}
	m.announceAt = now.Add(m.cfg.Announce)
	m.announce()
}

// propose lists the deltas that we hold when it is our turn: at once when they
// are all there, else from the deadline on.
func (m *Machine) propose(now time.Time) {
	o := m.open
	if o == nil {
		return
	}
	v := m.view(now)
	all := m.authors() == len(m.cfg.Sites)
	late := !now.Before(o.begun.Add(m.cfg.Deadline))
	if m.proposer(o.round, v) != m.cfg.Self || o.lists[v] != nil || m.authors() < m.cfg.MinDeltas || (!all && !late) {
		return
	}
	var hs []wire.Hash
	seen := make(map[identity.ID]bool)
	for _, h := range o.hashes() {
		if a := o.deltas[h].Author; !seen[a] {
			seen[a] = true
			hs = append(hs, h)
		}
	}
	m.seal(fmt.Sprint("list ", v), &wire.List{Round: o.round, View: v, Base: o.base, Deltas: hs})
}

// authors counts the sites whose deltas we hold.
func (m *Machine) authors() int {
	seen := make(map[identity.ID]bool)
	for _, d := range m.open.deltas {
		seen[d.Author] = true
	}
	return len(seen)
}

func (o *open) hashes() []wire.Hash {
	hs := make([]wire.Hash, 0, len(o.deltas))
	for h := range o.deltas {
		hs = append(hs, h)
	}
	slices.SortFunc(hs, func(a, b wire.Hash) int { return slices.Compare(a[:], b[:]) })
	return hs
}

// best is the best state that somebody announced, above ours; with a hash, among
// those of that hash.
func (m *Machine) best(hash wire.Hash) (wire.State, bool) {
	top, found := m.head.state(), false
	for _, msg := range m.states {
		st := *msg.Payload.(*wire.State)
		if better(st, top) && (hash == (wire.Hash{}) || st.Hash == hash) {
			top, found = st, true
		}
	}
	return top, found
}

// follow asks for the best announced model. When we are about to compute the
// next one ourselves, it gives that some time first.
func (m *Machine) follow(now time.Time) {
	top, found := m.best(wire.Hash{})
	if !found {
		m.noticed = time.Time{}
		return
	}
	if top.Hash == m.head.Hash { // the same model under a better name
		if top.Round != m.head.Round { // deltas that cancel out leave the model as it was
			m.adopt(now, Head{Round: top.Round, View: top.View, Hash: top.Hash, Params: m.head.Params})
			return
		}
		m.head.View = top.View
		m.ready.Persist = true
		m.announce()
		return
	}
	if m.noticed.IsZero() {
		m.noticed = now
	}
	if m.open != nil && top.Round == m.open.round && len(m.open.lists) > 0 && now.Before(m.noticed.Add(3*m.cfg.Retry)) {
		return
	}
	for _, id := range m.cfg.Sites {
		if msg := m.states[id]; msg != nil && msg.Payload.(*wire.State).Hash == top.Hash {
			m.want(now, top.Hash, true, id)
		}
	}
}

// want notes that a hash is to be fetched, first from this site, later from
// whoever else may hold it.
func (m *Machine) want(now time.Time, h wire.Hash, params bool, from identity.ID) {
	w := m.wants[h]
	if w == nil {
		w = &want{params: params, due: now}
		m.wants[h] = w
	}
	if from != m.cfg.Self && !slices.Contains(w.sources, from) {
		w.sources = append(w.sources, from)
	}
	if params {
		return
	}
	for _, id := range m.cfg.Sites {
		if id != m.cfg.Self && !slices.Contains(w.sources, id) {
			w.sources = append(w.sources, id)
		}
	}
}

// fetch asks for every want that is due, one source after the other.
func (m *Machine) fetch(now time.Time) {
	hs := make([]wire.Hash, 0, len(m.wants))
	for h, w := range m.wants {
		if !now.Before(w.due) && len(w.sources) > 0 {
			hs = append(hs, h)
		}
	}
	slices.SortFunc(hs, func(a, b wire.Hash) int { return slices.Compare(a[:], b[:]) })
	for _, h := range hs {
		w := m.wants[h]
		m.ready.Fetch = append(m.ready.Fetch, Fetch{Hash: h, Params: w.params, From: w.sources[w.next%len(w.sources)]})
		w.next++
		w.due = now.Add(m.cfg.Retry)
	}
}
