package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/learner/budget"
	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// truth holds what the learner did against what the operator asked for and what
// people said of it. It is under the node's lock.
type truth struct {
	account *budget.Account
	track   *calibrate.Track
	flows   rate // that end
	low     map[uint64]lowest
	level   float64 // rank of single flows that keeps the budget, 0 when unknown
	share   float64 // for which it was told
	asked   time.Time
	looked  time.Time
}

const (
	keyBudget   = "node/budget"
	trackSize   = 1 << 16
	maxOpen     = 1 << 15          // flows whose lowest is remembered
	levelEvery  = time.Minute      // between looks at the track
	budgetEvery = 10 * time.Second // between looks at the budgets
)

func newTruth(now time.Time) truth {
	return truth{account: budget.New(now), track: calibrate.NewTrack(trackSize), low: map[uint64]lowest{}}
}

// lowest are the least p-value and rank that an open flow got.
type lowest struct{ p, rank float64 }

// loadBudget brings the account back.
func (n *Node) loadBudget() error {
	b, err := n.o.Store.Load(keyBudget)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	a, err := budget.Decode(b)
	if err != nil {
		n.log.Warn("the stored account of the budgets cannot be used: it begins anew", telemetry.KeyErr, err)
		return nil
	}
	n.truth.account = a
	return nil
}

// judged counts a report of a flow for the track and the account. What belongs to
// a known attack says nothing of normal. It returns the least p-value of the flow
// so far. The caller holds n.mu.
func (n *Node) judged(now time.Time, ev *dataplane.Event, j enforce.Judgement, incident string) float64 {
	if !j.Judged {
		return 1
	}
	t, id, x := &n.truth, ev.Record.ID, lowest{j.P, j.Rank}
	if low, ok := t.low[id]; ok {
		x = lowest{min(x.p, low.p), min(x.rank, low.rank)}
	}
	if ev.Kind != dataplane.EventEnd {
		if len(t.low) >= maxOpen {
			clear(t.low) // a flood: what is open is counted by its last report only
		}
		t.low[id] = x
		return x.p
	}
	delete(t.low, id)
	t.flows.count(now)
	if incident != "" && n.machine.Attack(incident) {
		return x.p
	}
	t.track.Add(x.rank, causeHash(&ev.Record))
	t.account.Flow(n.machine.Alone(x.p, x.rank))
	return x.p
}

// singleLevel is the rank at which single flows keep the operator's incidents
// a day, by what later flows really got; 0 while too few are known. The caller
// holds n.mu.
func (n *Node) singleLevel(now time.Time) float64 {
	t := &n.truth
	if now.Sub(t.asked) < levelEvery && !now.Before(t.asked) {
		return t.level
	}
	t.asked, t.level = now, 0
	t.share = n.o.Learner.IncidentsPerDay / max(1, t.flows.perDay(now))
	if level, ok := t.track.Level(min(t.share, 1e-2)); ok {
		t.level = level
	}
	return t.level
}

// account notes what an effect means for the budgets. The caller holds n.mu.
func (n *Node) account(now time.Time, f *enforce.Effect) {
	a := n.truth.account
	switch {
	case f.Emit != nil && f.Emit.Alert != nil:
		x := f.Emit.Alert
		a.Incident(now, x.Incident, !enforce.ByRule(x.Detector) && !x.Past)
	case f.Apply != nil && f.Apply.Block != nil && f.Apply.Rule.Action == dataplane.Block:
		a.Blocked(f.Apply.Block.Block.Incident)
	case f.Label != nil && (!f.Label.Attack || f.Label.Weight >= 1):
		a.Label(f.Label.Incident, f.Label.Attack)
	}
}

func (n *Node) askedFor() budget.Asked {
	return budget.Asked{IncidentsPerDay: n.o.Learner.IncidentsPerDay, FalseBlocksPerMonth: n.o.Learner.FalseBlocksPerMonth}
}

// hold keeps the learner from blocking by itself while its false blocks are
// surely above what the operator accepts. The caller holds n.mu.
func (n *Node) hold(now time.Time) error {
	r := n.truth.account.Report(now, n.askedFor())
	if r.Blocks.State != budget.Over {
		return nil
	}
	return fmt.Errorf("%s: blocks wait for `hedgerow confirm`", r.Blocks.Words("a month"))
}

// balance looks at the budgets now and then: a model that is surely over goes
// back, and the account is stored.
func (n *Node) balance(now time.Time) {
	n.mu.Lock()
	t := &n.truth
	if now.Sub(t.looked) < budgetEvery && !now.Before(t.looked) {
		n.mu.Unlock()
		return
	}
	t.looked = now
	r := t.account.Report(now, n.askedFor())
	if t.account.Dirty() {
		if b, err := t.account.Encode(); err == nil {
			n.outbox.put(job{save: &kv{keyBudget, b}})
		}
	}
	n.mu.Unlock()
	if r.Model.State != budget.Over {
		return
	}
	l := n.models
	l.mu.Lock()
	defer l.mu.Unlock()
	fx, err := l.m.Over(now, l.m.Roles().Active, "its false incidents: "+r.Model.Words("a day"))
	if err != nil {
		n.log.Error("a model over its budget was not taken back", telemetry.KeyErr, err)
	}
	l.carry(fx)
}
