package node

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// hunts runs what is newly known over the flow archive: indicators of the mesh
// as they come, models as they become active, and what the operator asks for.
// One search runs at a time, a chunk of flows and then a pause, so that it takes
// a quarter of one processor at most.
type hunts struct {
	n    *Node
	wake chan struct{}

	mu      sync.Mutex
	list    []*hunt
	next    int
	pending []string // indicators that came and are not hunted yet
}

// hunt is one search.
type hunt struct {
	api.Hunt
	seek  quarry
	model *learner.Model
}

const (
	maxHunts     = 32     // remembered
	maxQuarry    = 10_000 // indicators of one search
	maxPending   = 4096   // indicators that wait
	chunkFlows   = 2048   // between pauses
	maxHuntFound = 1000   // flows that one search may make findings of
	huntLabel    = 0.3    // weight of what an indicator says of a proved peer's flows
	rests        = 3      // times a chunk's own time
	// Each new model looks at the same past again, so it has to be surer than of
	// what happens now: a twentieth of the operator's incidents a day.
	strict        = 20
	mostAccused   = 3 // causes that a model's own search tells
	huntBack      = 7 * 24 * time.Hour
	indicatorWait = 2 * time.Second // so that a burst of indicators is one search
)

// byModel is who asks for the search of a model that has just become active.
const byModel = "model"

func newHunts(n *Node) *hunts { return &hunts{n: n, wake: make(chan struct{}, 1)} }

// familiar is known of a flow once its site is settled; no model learnt from
// others.
var familiar = feature.Index("known_peer")

// quarry is what a search by indicators looks for.
type quarry struct {
	addrs map[netip.Addr][]dataplane.Target
	wide  []dataplane.Target
}

func (q *quarry) add(t dataplane.Target) {
	if !t.Prefix.IsSingleIP() {
		q.wide = append(q.wide, t)
		return
	}
	if q.addrs == nil {
		q.addrs = map[netip.Addr][]dataplane.Target{}
	}
	q.addrs[t.Prefix.Addr()] = append(q.addrs[t.Prefix.Addr()], t)
}

// hit is the indicator that a flow's outside end is under.
func (q *quarry) hit(f *event.Flow) (dataplane.Target, bool) {
	_, t, peer, _ := enforce.CauseOfFlow(f)
	if !peer.IsValid() {
		return t, false
	}
	fits := func(want dataplane.Target) bool {
		return want.Prefix.Contains(peer) && (want.Port == 0 || want.Port == t.Port && want.Proto == t.Proto)
	}
	for _, list := range [][]dataplane.Target{q.addrs[peer], q.wide} {
		if i := slices.IndexFunc(list, fits); i >= 0 {
			return list[i], true
		}
	}
	return t, false
}

// Hunt begins a search by the operator's word.
func (n *Node) Hunt(ctx context.Context, o api.HuntOrder) (api.Hunt, error) {
	h := &hunt{Hunt: api.Hunt{By: "operator"}}
	if (len(o.Indicators) == 0) == (o.Model == "") {
		return api.Hunt{}, fmt.Errorf("hunt: expected indicators or a model: %w", errInvalid)
	}
	if len(o.Indicators) > maxQuarry {
		return api.Hunt{}, fmt.Errorf("hunt: %d indicators: expected at most %d: %w", len(o.Indicators), maxQuarry, errInvalid)
	}
	for _, s := range o.Indicators {
		t, err := enforce.ParseTarget(s)
		if err == nil && (t.IsFlow() || t.Host.IsValid()) {
			err = fmt.Errorf("target %q: expected an address, a prefix or a service", s)
		}
		if err != nil && looksLikeDomain(s) {
			err = fmt.Errorf("%s: the archive holds addresses and no domains: hunt for its addresses", s)
		}
		if err != nil {
			return api.Hunt{}, fmt.Errorf("hunt: %v: %w", err, errInvalid)
		}
		h.seek.add(t)
	}
	h.What = strings.Join(o.Indicators[:min(len(o.Indicators), 5)], ", ")
	if more := len(o.Indicators) - 5; more > 0 {
		h.What += fmt.Sprintf(" and %d more", more)
	}
	if o.Model != "" {
		x, err := n.Model(ctx, o.Model)
		if err != nil {
			return api.Hunt{}, err
		}
		n.models.mu.Lock()
		h.model, err = n.models.model(x.Hash)
		n.models.mu.Unlock()
		if err != nil {
			return api.Hunt{}, fmt.Errorf("hunt: model %.12s: %v: %w", x.Hash, err, errInvalid)
		}
		h.What = fmt.Sprintf("model %.12s", x.Hash)
	}
	if o.Seconds > 0 {
		h.Since = n.now().Add(-time.Duration(o.Seconds * float64(time.Second)))
	}
	return n.hunts.enqueue(h), nil
}

// enqueue lets a search wait its turn.
func (h *hunts) enqueue(x *hunt) api.Hunt {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	x.ID, x.State, x.Until, x.Incidents = h.next, "waiting", h.n.now(), []string{}
	x.Of = h.n.o.Store.Stats().Flows
	h.list = append(h.list, x)
	if len(h.list) > maxHunts {
		// The oldest that is over goes, or else the oldest that waits.
		i := max(0, slices.IndexFunc(h.list, func(o *hunt) bool { return o.Over() }))
		h.list = slices.Delete(h.list, i, i+1)
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return x.Hunt
}

// indicator lets a new indicator of the mesh be hunted for, soon.
func (h *hunts) indicator(value string) {
	h.mu.Lock()
	if len(h.pending) < maxPending {
		h.pending = append(h.pending, value)
	}
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// active lets a model that has just become active look back.
func (h *hunts) active(m *learner.Model) {
	if !m.Meta().KnowsAttacks {
		return
	}
	x := &hunt{Hunt: api.Hunt{By: byModel, What: fmt.Sprintf("model %.12s", m.Hash()), Since: h.n.now().Add(-huntBack)}, model: m}
	h.mu.Lock()
	// Only the newest model is worth the time.
	h.list = slices.DeleteFunc(h.list, func(o *hunt) bool { return o.By == byModel && o.State == "waiting" })
	h.mu.Unlock()
	h.enqueue(x)
}

// run does the searches, one after the other, until ctx ends.
func (h *hunts) run(ctx context.Context) error {
	for {
		x := h.take()
		if x == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-h.wake:
			}
			if h.waits() && !sleep(ctx, indicatorWait) {
				return nil
			}
			h.gather()
			continue
		}
		err := h.search(ctx, x)
		if ctx.Err() != nil {
			return nil
		}
		h.mu.Lock()
		x.State, x.Ended = "done", h.n.now()
		if err != nil {
			x.State, x.Error = "failed", err.Error()
		}
		done := x.Hunt
		h.mu.Unlock()
		if err != nil || done.Found > 0 {
			h.n.log.Info("archive was searched", "what", done.What, telemetry.KeyCount, done.Flows, "found", done.Found, telemetry.KeyErr, done.Error)
		}
	}
}

func (h *hunts) take() *hunt {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.list {
		if x.State == "waiting" {
			x.State, x.Started = "running", h.n.now()
			return x
		}
	}
	return nil
}

func (h *hunts) waits() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.pending) > 0
}

// gather makes one search of the indicators that came.
func (h *hunts) gather() {
	h.mu.Lock()
	values := h.pending
	h.pending = nil
	h.mu.Unlock()
	x := &hunt{Hunt: api.Hunt{By: "mesh", What: fmt.Sprintf("%d indicators of the mesh", len(values))}}
	n := 0
	for _, v := range values {
		if t, err := enforce.ParseTarget(v); err == nil && !t.IsFlow() && !t.Host.IsValid() {
			x.seek.add(t)
			n++
		}
	}
	if n == 1 {
		x.What = "the mesh's indicator " + values[0]
	}
	if n > 0 {
		h.enqueue(x)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// search goes through the archive chunk by chunk. A chunk ends where the time of
// archiving changes, so that none is met twice or left out.
func (h *hunts) search(ctx context.Context, x *hunt) error {
	h.n.mu.Lock()
	share := h.n.o.Learner.IncidentsPerDay / max(1, h.n.truth.flows.perDay(h.n.now()))
	h.n.mu.Unlock()
	s := &searcher{h: h, x: x, seeker: enforce.NewSeeker(min(share, 1e-2) / strict), scratch: learner.NewScratch(), held: map[string][]sighting{}}
	defer s.end()
	from := x.Since
	for {
		began := time.Now()
		last, more, err := s.chunk(ctx, from)
		if err != nil || !more || s.found >= maxHuntFound {
			return err
		}
		from = last
		if !sleep(ctx, rests*time.Since(began)) {
			return nil
		}
	}
}

// searcher is a search under way.
type searcher struct {
	h       *hunts
	x       *hunt
	seeker  *enforce.Seeker
	scratch *learner.Scratch
	recent  bounded // odd vectors by cause, for when it turns out to be found
	held    map[string][]sighting
	order   []string // of held
	found   int
}

func (s *searcher) chunk(ctx context.Context, from time.Time) (last time.Time, more bool, err error) {
	n := 0
	for f, err := range s.h.n.o.Store.Flows(from, s.x.Until) {
		if err != nil {
			return last, false, err
		}
		if n >= chunkFlows && !f.Archived.Equal(last) {
			s.h.progress(s.x, n)
			return f.Archived, true, nil
		}
		last = f.Archived
		n++
		s.look(&f)
		if ctx.Err() != nil || s.found >= maxHuntFound {
			break
		}
	}
	s.h.progress(s.x, n)
	return last, false, nil
}

func (h *hunts) progress(x *hunt, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x.Flows += n
	x.Of = max(x.Of, x.Flows)
}

// look holds one flow against what is sought.
func (s *searcher) look(f *store.Flow) {
	var v feature.Vector
	known := v.UnmarshalBinary(f.Vector) == nil
	if s.x.model == nil {
		if t, ok := s.x.seek.hit(&f.Flow); ok {
			x := enforce.Finding{Flow: f.Flow, Detector: "indicator", Sentence: fmt.Sprintf("%s %s:%d > %s:%d, and %s is an indicator now",
				f.Flow.Proto, f.Flow.Src, f.Flow.SrcPort, f.Flow.Dst, f.Flow.DstPort, t), Label: huntLabel}
			s.tell(x, &v, known)
		}
		return
	}
	if !known || !v.Known(familiar) {
		return // of an earlier schema, or from before the site knew who is familiar
	}
	p, by := s.score(&v)
	cause, _, _, _ := enforce.CauseOfFlow(&f.Flow)
	if p <= odd {
		s.recent.add(cause, &v, perCause)
	}
	flows, part, reached := s.seeker.Judge(&f.Flow, enforce.Judgement{Judged: true, P: p, Detector: by})
	if !reached {
		return
	}
	x := enforce.Finding{Flow: f.Flow, Detector: part, P: p, Model: s.x.model.Hash()}
	for _, c := range s.x.model.Explain(&v, s.scratch) {
		if len(x.Reasons) == 5 || c.Weight < 0.02 {
			break
		}
		x.Reasons = append(x.Reasons, event.Reason{Feature: c.Name, Words: c.Words, Value: c.Value, Normal: c.Normal, Weight: c.Weight})
	}
	x.Sentence = fmt.Sprintf("%d flows of %s in a row are unusual by a newer model", flows, cause)
	if h := s.held[cause]; h != nil || len(s.held) < maxHuntFound {
		if h == nil {
			s.order = append(s.order, cause)
		}
		s.held[cause] = append(h, sighting{x, v})
		s.held[cause] = s.held[cause][max(0, len(s.held[cause])-perCause):]
	}
}

// sighting is a flow that brought its cause to the limit.
type sighting struct {
	x enforce.Finding
	v feature.Vector
}

// end tells what a model found once it has seen everything: the causes that it
// still finds unusual, the likeliest few first. A cause that became ordinary while
// the archive went on was only new, and a model that accuses many of those that
// passed is more likely wrong than they are.
func (s *searcher) end() {
	stand := slices.DeleteFunc(s.order, func(c string) bool { return !s.seeker.Stands(c) })
	best := func(c string) float64 {
		p := 1.0
		for i := range s.held[c] {
			p = min(p, s.held[c][i].x.P)
		}
		return p
	}
	if s.x.By == byModel {
		slices.SortStableFunc(stand, func(a, b string) int { return cmp.Compare(best(a), best(b)) })
		if more := len(stand) - mostAccused; more > 0 {
			s.h.n.log.Info("a model finds many causes of the past unusual: the likeliest are told", "what", s.x.What, telemetry.KeyCount, len(stand))
			stand = stand[:mostAccused]
		}
	}
	for _, c := range stand {
		for i := range s.held[c] {
			s.tell(s.held[c][i].x, &s.held[c][i].v, true)
		}
	}
}

// score is a flow's p-value and the part of the model that says it. What was new
// to a site when it was young is no news now: by itself a model looks back with
// what it knows of attacks, and with its normal only when the operator asks.
func (s *searcher) score(v *feature.Vector) (p float64, by string) {
	sc := s.x.model.Score(v, s.scratch)
	if s.x.By == byModel {
		return min(1, 2*sc.PAttack), learner.Attack.String() // as if both parts spoke
	}
	return sc.P, sc.By.String()
}

// tell makes an incident of what was found.
func (s *searcher) tell(x enforce.Finding, v *feature.Vector, known bool) {
	n := s.h.n
	cause, _, _, _ := enforce.CauseOfFlow(&x.Flow)
	n.mu.Lock()
	fx, id := n.machine.Found(n.now(), x)
	if id != "" && known {
		for _, old := range s.recent.by[cause] {
			n.buffer.incidents.add(id, &old, perIncident)
		}
		s.recent.remove(cause)
		n.buffer.incidents.add(id, v, perIncident)
	}
	n.act(fx)
	n.mu.Unlock()
	if id == "" {
		return
	}
	s.found++
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.x.Found++
	if !slices.Contains(s.x.Incidents, id) && len(s.x.Incidents) < 100 {
		s.x.Incidents = append(s.x.Incidents, id)
	}
}

// HuntState says how far a search is.
func (n *Node) HuntState(_ context.Context, id int) (api.Hunt, error) {
	n.hunts.mu.Lock()
	defer n.hunts.mu.Unlock()
	for _, x := range n.hunts.list {
		if x.ID == id {
			return x.copy(), nil
		}
	}
	return api.Hunt{}, fmt.Errorf("hunt %d: `hedgerow hunt --list` names those that are remembered: %w", id, errNotFound)
}

// Hunts lists the latest searches, the oldest first.
func (n *Node) Hunts(context.Context) ([]api.Hunt, error) {
	n.hunts.mu.Lock()
	defer n.hunts.mu.Unlock()
	out := make([]api.Hunt, 0, len(n.hunts.list))
	for _, x := range n.hunts.list {
		out = append(out, x.copy())
	}
	return out, nil
}

func (x *hunt) copy() api.Hunt {
	c := x.Hunt
	c.Incidents = slices.Clone(x.Incidents)
	return c
}
