package node

import (
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/learner/budget"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// raised is what an incident of the learner's that led to a block looks like.
func (x *learned) raised(id, detector string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.account(x.now, &enforce.Effect{Emit: &event.Event{Alert: &event.Alert{Incident: id, Detector: detector}}})
	x.account(x.now, &enforce.Effect{Apply: &enforce.Apply{Rule: dataplane.Rule{Action: dataplane.Block}, Block: &event.Event{Block: &event.Block{Incident: id}}}})
}

func (x *learned) dismissed(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.account(x.now, &enforce.Effect{Label: &enforce.Label{Incident: id, Weight: 1}})
}

// A model whose false incidents are surely above what was asked for goes back,
// and while false blocks are, the learner's wait for a person.
func TestBudgetsAreHeldAgainstTruth(t *testing.T) {
	x := newLearned(t)
	x.o.Learner.FalseBlocksPerMonth = 1
	x.restart()
	x.see(1500)
	x.train()
	first := x.models.m.Roles().Active
	x.see(1500)
	x.train()
	x.pass()
	x.pass()
	second := x.models.m.Roles().Active
	if second == "" || second == first {
		t.Fatalf("roles %+v", x.models.m.Roles())
	}
	if err := x.hold(x.now); err != nil {
		t.Fatalf("blocks are held before anything was false: %v", err)
	}
	// The rules' incidents count for the site, and not against the model.
	for i := range 20 {
		id := "rule" + string(rune('a'+i))
		x.raised(id, "rule:scan")
		x.dismissed(id)
	}
	x.now = x.now.Add(2 * time.Hour)
	x.balance(x.now)
	if x.models.m.Roles().Active != second {
		t.Fatal("a model went back for what a counting rule did")
	}
	if err := x.hold(x.now); err == nil || !strings.Contains(err.Error(), "20 were false") || !strings.Contains(err.Error(), "hedgerow confirm") {
		t.Errorf("held: %v", err)
	}
	for i := range 20 {
		id := "own" + string(rune('a'+i))
		x.raised(id, "self")
		x.dismissed(id)
	}
	x.now = x.now.Add(time.Hour)
	x.balance(x.now)
	if x.models.m.Roles().Active != first {
		t.Error("a model that is surely over its budget stays")
	}
	s, err := x.Status(t.Context())
	if err != nil || s.Learning.Budget.Incidents.State != budget.Over || s.Learning.Budget.Incidents.Count != 40 || s.Learning.Budget.Model.Count != 0 {
		t.Errorf("status %+v: %v", s.Learning.Budget, err)
	}
	// It outlives the process.
	x.states()
	x.restart()
	if r := x.truth.account.Report(x.now, x.askedFor()); r.Incidents.Count != 40 {
		t.Errorf("after a restart %+v", r.Incidents)
	}
}
