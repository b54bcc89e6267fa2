package enforce

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// A model of normal says that something is otherwise than it was, not that it is an
// attack; when a site changes, it says so of everything at once. So what only the
// learner holds against somebody may cut off but a share of what is ordinary here, and
// where many ordinary relations become unusual at the same time, that is one change of
// the site and not an attack by each. Strangers have no part in this: they are judged
// as before, so that a change is no shelter for them.
const (
	bonded     = 4              // ordinary conversations that make a relation
	usualFrom  = 0.05           // p from which on a flow is ordinary: none that adds to a climb
	cutWindow  = time.Hour      // in which what was cut off counts
	recently   = 24 * time.Hour // a relation that was seen within is live
	remembered = 30 * 24 * time.Hour
	maxBonds   = 1 << 15

	// Whatever the share, so many relations and flows may be cut off, though no more
	// than half of what there is, or one: small sites have to be able to act as well.
	fewRelations = 2
	fewFlows     = 8

	// A change of the site: so large a share of the relations that were seen within
	// turnWithin became unusual in that time, and no fewer than that of each.
	turnWithin    = 5 * time.Minute
	turnShare     = 0.2
	turnRelations = 5
	turnHosts     = 3
	turnParties   = 3
	turnLasts     = 10 * time.Minute // after it was last so
)

// relation is who of the site deals with whom: an inside host with a service, or with
// somebody outside who calls it.
type relation struct {
	host netip.Addr
	with party
}

func relationOf(rec *flow.Record) relation {
	host := insideHost(rec)
	if _, end, ok := rec.Outside(); ok && end == 0 {
		return relation{host, party{addr: rec.Initiator().Addr()}}
	}
	far := rec.Responder()
	return relation{host, party{far.Addr(), far.Port(), rec.Key.Proto}}
}

// under says that a rule for a target would hold the relation up.
func (r relation) under(t dataplane.Target) bool {
	if !t.Prefix.IsValid() || !t.Prefix.Contains(r.with.addr) {
		return false
	}
	return t.Port == 0 || r.with.port == t.Port && r.with.proto == t.Proto
}

// bond is how long a relation has been ordinary.
type bond struct {
	n           int
	first, last time.Time
}

// habits are the ordinary relations of a site, and what was held up of them because
// the learner alone said so. It has no clock: the caller passes the time.
type habits struct {
	share  float64
	settle time.Duration // what is ordinary has been so for at least that long
	born   time.Time
	bonds  map[relation]*bond
	swept  time.Time
	odd    map[relation]time.Time // found unusual within turnWithin
	cut    map[relation]time.Time // cut off within cutWindow
	held   int                    // times that it was refused
	turned time.Time              // when the present change began
	until  time.Time              // its end
	count  census
	at     time.Time // of the census
	slots  [60]slot
}

// slot is a minute of flows of ordinary relations.
type slot struct {
	minute         int64
	ended, stopped int
}

// census is how many relations there are.
type census struct {
	live, recent int // seen within recently, and within turnWithin
}

func newHabits(share float64, settle time.Duration) *habits {
	return &habits{share: share, settle: settle, bonds: map[relation]*bond{}, odd: map[relation]time.Time{}, cut: map[relation]time.Time{}}
}

// cold says that the site has not watched for long enough to know what is ordinary.
// Everything is taken for it then.
func (h *habits) cold(now time.Time) bool {
	return h.settle > 0 && (h.born.IsZero() || now.Sub(h.born) < 2*h.settle)
}

// established says that a relation is ordinary here.
func (h *habits) established(now time.Time, r relation) bool {
	return h.cold(now) || h.bonds[r].good(now, h.settle)
}

func (b *bond) good(now time.Time, settle time.Duration) bool {
	return b != nil && b.n >= bonded && now.Sub(b.first) >= settle && now.Sub(b.last) < remembered
}

// seen counts a report of a flow. ordinary says that it ended, that both ends talked,
// and that nothing is held against it.
func (h *habits) seen(now time.Time, r relation, ended, ordinary bool) {
	if h.born.IsZero() {
		h.born = now
	}
	b := h.bonds[r]
	if b == nil {
		if !ordinary || !h.room(now) {
			return
		}
		b = &bond{first: now}
		h.bonds[r] = b
	}
	b.last = now
	if ordinary {
		b.n = min(b.n+1, bonded)
	}
	if ended && b.good(now, h.settle) {
		h.slot(now).ended++
	}
}

// room forgets who was not seen for long when there is no room for more; where that
// frees none, newcomers are left out and judged as strangers.
func (h *habits) room(now time.Time) bool {
	if len(h.bonds) < maxBonds {
		return true
	}
	if now.Sub(h.swept) < time.Minute {
		return false
	}
	h.swept = now
	for r, b := range h.bonds {
		if now.Sub(b.last) >= remembered || b.n < bonded && now.Sub(b.last) >= recently {
			delete(h.bonds, r)
		}
	}
	return len(h.bonds) < maxBonds
}

func (h *habits) slot(now time.Time) *slot {
	minute := now.Unix() / 60
	s := &h.slots[uint64(minute)%uint64(len(h.slots))]
	if s.minute != minute {
		*s = slot{minute: minute}
	}
	return s
}

// flows are those of ordinary relations within the window: all, and those stopped.
func (h *habits) flows(now time.Time) (all, stopped int) {
	minute := now.Unix() / 60
	for _, s := range h.slots {
		if age := minute - s.minute; age >= 0 && age < int64(len(h.slots)) {
			all += s.ended
			stopped += s.stopped
		}
	}
	return all, stopped
}

// relations counts them. Where there are many it looks once a second.
func (h *habits) relations(now time.Time) census {
	if d := now.Sub(h.at); len(h.bonds) > 4096 && d >= 0 && d < time.Second {
		return h.count
	}
	h.count, h.at = census{}, now
	for _, b := range h.bonds {
		if b.good(now, h.settle) && now.Sub(b.last) < recently {
			h.count.live++
			if now.Sub(b.last) < turnWithin {
				h.count.recent++
			}
		}
	}
	return h.count
}

// most is how many of all may be cut off.
func (h *habits) most(all, few int) int {
	return max(1, min(few, all/2), int(h.share*float64(all)))
}

// within forgets what is older than a window.
func within(m map[relation]time.Time, now time.Time, window time.Duration) {
	for r, at := range m {
		if now.Sub(at) >= window {
			delete(m, r)
		}
	}
}

// may says why these relations may not be cut off, nil when they may. It changes
// nothing but the count of refusals.
func (h *habits) may(now time.Time, rs ...relation) error {
	if len(rs) == 0 {
		return nil
	}
	err := h.refuse(now, rs)
	if err != nil {
		h.held++
	}
	return err
}

func (h *habits) refuse(now time.Time, rs []relation) error {
	if h.cold(now) {
		return fmt.Errorf("held back: this site is yet getting to know what is ordinary here, for another %s", h.born.Add(2*h.settle).Sub(now).Round(time.Second))
	}
	if h.changed(now) {
		return fmt.Errorf("held back: much of what is ordinary here became unusual at once: that is taken for a change of the site until %s", h.until.UTC().Format(time.TimeOnly))
	}
	within(h.cut, now, cutWindow)
	n, all := len(h.cut), h.relations(now).live
	for _, r := range rs {
		if _, already := h.cut[r]; !already {
			n++
		}
	}
	if most := h.most(all, fewRelations); n > most {
		return fmt.Errorf("held back: would cut off %d of the site's %d ordinary relations within an hour, at most %d on the learner's word alone (`hedgerow confirm` lifts that)", n, all, most)
	}
	return nil
}

// mayFlow is may for a flow that is to be stopped.
func (h *habits) mayFlow(now time.Time, r relation) error {
	if err := h.may(now, r); err != nil {
		return err
	}
	all, stopped := h.flows(now)
	if most := h.most(all+stopped, fewFlows); stopped >= most {
		h.held++
		return fmt.Errorf("held back: %d of the site's %d ordinary flows within an hour were stopped, at most %d on the learner's word alone (`hedgerow confirm` lifts that)", stopped, all+stopped, most)
	}
	return nil
}

// cutOff notes that relations are.
func (h *habits) cutOff(now time.Time, rs ...relation) {
	for _, r := range rs {
		h.cut[r] = now
	}
}

// stopped notes that a flow is.
func (h *habits) stopped(now time.Time, r relation) {
	h.cutOff(now, r)
	h.slot(now).stopped++
}

// under are the ordinary relations that a rule for a target would hold up.
func (h *habits) under(now time.Time, t dataplane.Target) (out []relation) {
	for r, b := range h.bonds {
		if r.under(t) && b.good(now, h.settle) {
			out = append(out, r)
		}
	}
	return out
}

// unusual notes that the learner found a relation so. The result says that with it a
// change of the site began.
func (h *habits) unusual(now time.Time, r relation) bool {
	if h.cold(now) {
		return false
	}
	h.odd[r] = now
	within(h.odd, now, turnWithin)
	if len(h.odd) < turnRelations {
		return false
	}
	hosts, parties := h.spread()
	if hosts < turnHosts || parties < turnParties || float64(len(h.odd)) < turnShare*float64(h.relations(now).recent) {
		return false
	}
	began := !h.changed(now)
	if began {
		h.turned = now
	}
	h.until = now.Add(turnLasts)
	return began
}

// spread is how many hosts and parties what is unusual is spread over.
func (h *habits) spread() (hosts, parties int) {
	hs, ps := map[netip.Addr]bool{}, map[party]bool{}
	for r := range h.odd {
		hs[r.host], ps[r.with] = true, true
	}
	return len(hs), len(ps)
}

// changed says that the site is changing.
func (h *habits) changed(now time.Time) bool { return now.Before(h.until) }

// renew ends a change: another model judges, of which nothing is known.
func (h *habits) renew() {
	h.until = time.Time{}
	clear(h.odd)
}

// ordinaryFlow says that a flow is one of those that make a relation.
func ordinaryFlow(rec *flow.Record, j Judgement) bool {
	if rec.Dir[0].Payload == 0 || rec.Dir[1].Payload == 0 || rec.Dropped > 0 || j.Judged && j.P < usualFrom {
		return false
	}
	_, end, ok := rec.Outside()
	return !ok || end == 1 || rec.Validated[0] // who calls from outside may be forged
}

// amounts are the features that say how much, or how often, in a minute.
var amounts = map[string]bool{
	"host_flows": true, "host_peers": true, "host_ports": true, "host_failed": true, "pair_flows": true,
	"peer_out": true, "stranger_out": true, "stranger_flows": true,
}

// resting says that most of what makes a flow unusual is that less happens than
// usual, as after a pause. That is no evidence of an attack.
func resting(reasons []event.Reason) bool {
	var less, all float64
	for _, r := range reasons {
		all += r.Weight
		if amounts[r.Feature] && r.Value < r.Normal {
			less += r.Weight
		}
	}
	return all > 0 && 2*less >= all
}
