package node

import (
	"context"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// job is one slow thing to do, in order.
type job struct {
	emit   *event.Event
	block  *event.Event
	quiet  bool // store the block, and do not tell
	remove string
	save   *kv
	label  *labelJob
	until  chan<- struct{} // closed when all before it is done
}

// labelJob is what the operator said of an alert.
type labelJob struct {
	alert string
	label store.Label
}

// kv is a value to keep under a key.
type kv struct {
	key   string
	value []byte
}

// queue holds work in order between the judgement, which must not wait, and the
// goroutine that does it. Decisions always fit: they are few, for an incident
// raises one alert for each flow.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	wake  chan struct{}
}

func newQueue[T any]() *queue[T] { return &queue[T]{wake: make(chan struct{}, 1)} }

func (q *queue[T]) put(x T) {
	q.mu.Lock()
	q.items = append(q.items, x)
	q.mu.Unlock()
	q.signal()
}

func (q *queue[T]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue[T]) drain() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	x := q.items
	q.items = nil
	return x
}

// archive keeps ended flows until the disk takes them; beyond the bound they are
// dropped and counted, for history may have gaps and decisions may not wait.
type archive struct {
	mu    sync.Mutex
	flows []store.Flow
	lost  uint64
}

const maxFlowsWaiting = 8192

func (a *archive) add(f event.Flow, v *feature.Vector) {
	enc, _ := v.MarshalBinary() // never fails
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.flows) >= maxFlowsWaiting {
		a.lost++
		return
	}
	a.flows = append(a.flows, store.Flow{Flow: f, Vector: enc})
}

func (a *archive) drain() (flows []store.Flow, lost uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	flows, lost = a.flows, a.lost
	a.flows, a.lost = nil, 0
	return flows, lost
}

// work empties the queue of decisions until ctx ends: they reach the disk and
// the followers in the order in which they were made.
func (n *Node) work(ctx context.Context) error {
	t := time.NewTicker(2 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.outbox.wake:
		case <-t.C:
			n.keepFlows()
		}
		n.empty()
	}
}

// speak carries shares and withdrawals to the mesh in their order, apart from the
// disk, so that neighbours do not wait for it.
func (n *Node) speak(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.toMesh.wake:
		}
		n.tellMesh(ctx)
	}
}

func (n *Node) tellMesh(ctx context.Context) {
	for _, f := range n.toMesh.drain() {
		if f.Share != nil {
			n.share(ctx, f.Share)
		} else {
			n.withdraw(ctx, f.Withdraw)
		}
	}
}

// empty writes what waits. A command may do so beside the worker: what was decided
// first is written first all the same.
func (n *Node) empty() {
	n.writing.Lock()
	defer n.writing.Unlock()
	for _, j := range n.outbox.drain() {
		n.do(j)
	}
}

// settle waits until what was decided so far can be read from the store: who saw a
// block in force shall find its reason there. It does not wait longer than a person
// would, for a full disk may not hide what is stored already.
func (n *Node) settle(ctx context.Context) {
	done := make(chan struct{})
	n.outbox.put(job{until: done})
	n.mu.Lock()
	life := n.life
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
	case <-life.Done():
	}
}

func (n *Node) keepFlows() {
	flows, lost := n.flows.drain()
	if lost > 0 {
		n.log.Warn("flows were not archived: the disk does not follow", telemetry.KeyCount, lost)
	}
	if len(flows) == 0 {
		return
	}
	if err := n.o.Store.AppendFlows(flows); err != nil {
		n.log.Error("flows were not archived", telemetry.KeyCount, len(flows), telemetry.KeyErr, err)
	}
}

// flush writes what is left, when everything else has stopped or somebody waits
// for it to be durable.
func (n *Node) flush() {
	n.empty()
	n.keepFlows()
}

func (n *Node) do(j job) {
	var err error
	switch {
	case j.emit != nil:
		err = n.emit(j.emit)
	case j.block != nil:
		if err = n.o.Store.PutBlock(*j.block.Block); err == nil && !j.quiet {
			err = n.emit(j.block)
		}
	case j.remove != "":
		err = n.o.Store.DeleteBlock(j.remove)
	case j.save != nil:
		err = n.o.Store.Save(j.save.key, j.save.value)
	case j.label != nil:
		err = n.o.Store.SetLabel(j.label.alert, j.label.label)
	case j.until != nil:
		close(j.until)
	}
	if err != nil {
		n.log.Error("decision was not stored", telemetry.KeyErr, err)
	}
}

func (n *Node) emit(e *event.Event) error {
	if n.driven != nil && n.driven.o.Told != nil {
		n.driven.o.Told(e)
	}
	telemetry.LogEvent(context.Background(), n.log, e)
	if n.o.Metrics != nil {
		n.o.Metrics.Observe(e)
	}
	return n.o.Store.PutEvent(e)
}

// putQuestion asks the mesh aside.
func (n *Node) putQuestion(a enforce.Ask) {
	if n.driven != nil {
		n.driven.o.Later(askTakes, func() { n.ask(n.life, a) })
		return
	}
	n.asking.Go(func() { n.ask(n.life, a) })
}

// ask puts an incident's question to the mesh, and its answer to the machine:
// always, within half a second, for the machine waits for it.
func (n *Node) ask(ctx context.Context, a enforce.Ask) {
	var seen []string
	if n.member != nil {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		answers, err := n.member.Ask(ctx, a.Value)
		if err != nil {
			n.log.Warn("mesh was not asked", "value", a.Value, telemetry.KeyErr, err)
		}
		for _, x := range answers {
			if x.Seen && x.From == "" && x.Site != n.o.Site { // other organisations' words take the ladder
				seen = append(seen, x.Site)
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.act(n.machine.Answer(n.now(), a.Incident, seen))
}

func (n *Node) share(ctx context.Context, s *enforce.Share) {
	ev := n.indicatorEvent("indicator", s.Type, s.Value, n.o.Site)
	ev.Indicator.Score, ev.Indicator.Conf, ev.Indicator.Evidence = 1, s.Conf, s.Evidence
	ev.Indicator.Expires, ev.Indicator.Sentence = s.Expires, s.Sentence
	if n.member == nil || s.Dispute && !n.member.Disputable(wire.Type(s.Type), s.Value) {
		return
	}
	now := n.now()
	tlp, evidence := n.mark(s)
	ind := wire.Indicator{
		Type: wire.Type(s.Type), Value: s.Value, Score: 1, Confidence: s.Conf,
		Evidence: wire.Evidence(s.Evidence), Sentence: wire.Sanitise(s.Sentence),
		First: now, Last: now, Expires: s.Expires, TLP: tlp, EvidenceHash: evidence,
	}
	if s.Dispute {
		ind.Stance, ev.Indicator.Op = wire.Disputes, string(wire.Disputes)
	}
	id, err := n.member.Publish(ctx, ind)
	ev.Indicator.SentNS = n.now().UnixNano()
	ev.Indicator.ID, ev.Indicator.Outcome = id, "sent"
	if err != nil {
		ev.Indicator.Outcome, ev.Indicator.Why = "refused", err.Error()
	} else {
		n.shared.Store(s.Key, id)
		if err := n.o.Store.Save(sharedPrefix+s.Key, []byte(id)); err != nil {
			n.log.Error("indicator id was not stored", telemetry.KeyErr, err)
		}
	}
	if err := n.emit(ev); err != nil {
		n.log.Error("decision was not stored", telemetry.KeyErr, err)
	}
}

const sharedPrefix = "node/shared/"

func (n *Node) withdraw(ctx context.Context, key string) {
	if n.member == nil {
		return
	}
	id, _ := n.shared.Load(key)
	if id == nil {
		b, err := n.o.Store.Load(sharedPrefix + key)
		if err != nil {
			return // never shared
		}
		id = string(b)
	}
	err := n.member.Withdraw(ctx, id.(string))
	ev := n.indicatorEvent("withdrawal", "", key, n.o.Site)
	ev.Indicator.ID, ev.Indicator.Outcome, ev.Indicator.SentNS = id.(string), "sent", n.now().UnixNano()
	if err != nil {
		ev.Indicator.Outcome, ev.Indicator.Why = "refused", err.Error()
	}
	n.shared.Delete(key)
	if err := n.emit(ev); err != nil {
		n.log.Error("decision was not stored", telemetry.KeyErr, err)
	}
}

func (n *Node) indicatorEvent(op, typ, value, author string) *event.Event {
	now := n.now()
	return &event.Event{
		V: event.Version, ID: event.NewID(now), Time: now, Site: n.o.Site, Kind: event.KindIndicator,
		Indicator: &event.Indicator{Op: op, Type: typ, Value: value, Author: author},
	}
}

// onIndicator lets the machine decide what another site's claim leads to here.
func (n *Node) onIndicator(e federation.IndicatorEvent) {
	ev := n.indicatorEvent(e.Op, string(e.Indicator.Type), e.Indicator.Value, e.Author)
	if e.Op == "indicator" && e.Indicator.Stance != wire.Claims {
		ev.Indicator.Op = string(e.Indicator.Stance)
	}
	b := ev.Indicator
	b.ID, b.Score, b.Conf = e.Indicator.ID, e.Indicator.Score, e.Indicator.Confidence
	b.Evidence, b.Expires, b.Sentence = string(e.Indicator.Evidence), e.Indicator.Expires, e.Indicator.Sentence
	b.SentNS = e.SentAt.UnixNano()
	n.mu.Lock()
	switch e.Effect {
	case federation.Enforce, federation.Limit:
		why := n.take(&e.Indicator, e.Author, e.Effect)
		b.Outcome, b.Why = "enforced", why
		if why != "" {
			b.Outcome = "observed"
		}
		b.DoneNS = n.now().UnixNano()
		n.hunts.indicator(e.Indicator.Value)
	case federation.Lift:
		n.act(n.machine.Withdrawn(n.now(), e.Author, e.Indicator.Value))
		n.sensor.Unmark(e.Author, e.Indicator.Value)
		b.Outcome, b.DoneNS = "lifted", n.now().UnixNano()
	case federation.Refused:
		b.Outcome, b.Why = "refused", string(e.Reason)+": "+e.Why
	default:
		b.Outcome, b.Why = "observed", e.Why
	}
	n.mu.Unlock()
	n.outbox.put(job{emit: ev})
}
