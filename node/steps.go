package node

import (
	"context"
	"errors"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/node/internal/background"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// askTakes is how long a stepped node's question to the mesh is under way.
const askTakes = 100 * time.Millisecond

// StepOptions say what a stepped node asks of its driver.
type StepOptions struct {
	// Plane gives the events that wait, in order: what Plane.Run would.
	Plane interface {
		Drain(handle func(*dataplane.Event)) int
	}
	Later federation.Later   // required; a request to another site runs in what it was given
	Told  func(*event.Event) // what the node tells; may be nil
}

// Steps plays a node without goroutines and timers, for a driver with a time of its
// own, which Options.Now reads: a simulation. Decisions, training, the stages of
// models and the mesh are those of Run. Left out is what works on the disk beside
// them: the archive of flows and the hunts in it, the upkeep of the store, feeds, and
// the scorer of a kernel. Training takes none of the driver's time.
type Steps struct {
	n    *Node
	o    StepOptions
	ctx  context.Context
	mesh *federation.Steps
	tick, stage, retrain,
	repair time.Time // when they are due next
}

// Steps begins the node's life, until ctx ends. The handler, nil without a mesh, is
// what the driver's transport delivers to. A node either runs or is stepped, once.
func (n *Node) Steps(ctx context.Context, o StepOptions) (*Steps, federation.Handler, error) {
	if o.Plane == nil || o.Later == nil {
		return nil, nil, errors.New("node: steps: expected a plane and a function for what comes later")
	}
	now := n.now()
	s := &Steps{n: n, o: o, ctx: ctx, tick: now, stage: now, retrain: now.Add(n.o.Learner.RetrainEvery), repair: now.Add(repairEvery)}
	n.life, n.driven, n.back = ctx, s, background.Here()
	if n.o.Learner.Enabled {
		n.models.start()
	}
	if n.member == nil {
		return s, nil, nil
	}
	n.reconcile()
	var h federation.Handler
	var err error
	s.mesh, h, err = n.member.Steps(ctx, o.Later)
	return s, h, err
}

// Seen handles what the plane has to tell. A driver calls it after each frame, as
// Run hears of it at once.
func (s *Steps) Seen() { s.o.Plane.Drain(s.n.handle) }

// Step does all that is due by the driver's clock.
func (s *Steps) Step() {
	n, now := s.n, s.n.now()
	s.Seen()
	if due(&s.tick, now, time.Second) {
		n.tick()
		n.flows.drain() // there is no archive
	}
	if due(&s.repair, now, repairEvery) {
		n.repair()
	}
	if n.o.Learner.Enabled {
		s.learn(now)
	}
	n.tellMesh(s.ctx)
	if s.mesh != nil {
		s.mesh.Step()
	}
	n.empty()
}

func (s *Steps) learn(now time.Time) {
	l := s.n.learn
	train := due(&s.retrain, now, s.n.o.Learner.RetrainEvery)
	select {
	case <-l.wake:
		l.judgeFull()
		train = train || l.called()
	default:
	}
	if train {
		l.again(s.ctx)
	}
	if due(&s.stage, now, s.n.models.pace()) {
		s.n.models.step()
	}
}

// due says whether a time has come, and sets the next.
func due(at *time.Time, now time.Time, every time.Duration) bool {
	if now.Before(*at) {
		return false
	}
	*at = now.Add(every)
	return true
}

// Member is the node's part in the mesh; nil where it is alone.
func (s *Steps) Member() *federation.Member { return s.n.member }
