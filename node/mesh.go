package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/council"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// modelSchema names what a shared model's numbers mean: sites of another schema
// are refused by name instead of averaged.
var modelSchema = fmt.Sprintf("attack-%d/features-%d", learner.SharedDim(), feature.Version)

// makeMember joins the mesh, where there is one.
func (n *Node) makeMember() error {
	if n.o.Mesh.Transport == nil {
		return nil
	}
	o := federation.Options{
		Site: n.o.Site, Key: n.o.Key, Roster: n.o.Mesh.Roster, Transport: n.o.Mesh.Transport,
		Storage: storage{n.o.Store}, RoundEvery: n.o.Mesh.RoundEvery, DeltaDeadline: n.o.Mesh.Gather,
		Log: n.log.With("component", "mesh"), Now: n.o.Now, Seed: uint64(n.now().UnixNano()), Rand: n.o.Rand,
		OnIndicator: n.onIndicator, OnPeer: n.onPeer, OnRound: n.onRound,
		OnAsk: func(_ wire.Type, value string) (bool, uint64, time.Time) {
			n.mu.Lock()
			defer n.mu.Unlock()
			ok, count, last := n.machine.Seen(value)
			return ok, uint64(count), last
		},
	}
	founded, err := n.joinConsortium(&o)
	if err != nil {
		return err
	}
	if n.o.Learner.Enabled && (founded || len(n.o.Mesh.Roster) > 0) { // with nobody to average with there are no rounds
		o.Trainer, o.Schema = n.learn, modelSchema
		o.ParamDim, o.Init = learner.SharedDim(), learner.InitShared(sharedSeed)
	}
	m, err := federation.New(o)
	if err != nil {
		return fmt.Errorf("node: %v", err)
	}
	n.member = m
	return nil
}

// reconcile enforces what the mesh had told before the last stop and a crash
// kept from the plane; what stands already stays as it is.
func (n *Node) reconcile() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.member.Indicators() {
		if l.Own && !enforce.Marks(string(l.Indicator.Type)) || (l.Effect != federation.Enforce && l.Effect != federation.Limit) {
			continue
		}
		n.take(&l.Indicator, l.Author, l.Effect)
	}
}

// storage gives the mesh its corner of the store.
type storage struct{ s *store.Store }

func (s storage) Load(key string) ([]byte, error) {
	b, err := s.s.Load(key)
	if err != nil {
		return nil, translate(err)
	}
	return b, nil
}

func (s storage) Save(key string, b []byte) error { return s.s.Save(key, b) }

func (s storage) Delete(key string) error { return s.s.Delete(key) }

func (n *Node) onPeer(e federation.PeerEvent) {
	state := "gone"
	if e.Peer.Connected {
		state = "connected"
	}
	now := n.now()
	n.outbox.put(job{emit: &event.Event{
		V: event.Version, ID: event.NewID(now), Time: now, Site: n.o.Site, Kind: event.KindPeer,
		Peer: &event.Peer{Name: e.Site, PeerID: string(e.Peer.ID), State: state, Why: e.Peer.Why},
	}})
}

// onRound tells the steps of a round. Adoption and refusal are told by the gate
// itself, with what it measured.
func (n *Node) onRound(e federation.RoundEvent) {
	switch e.Step {
	case "adopted", "refused", council.Entered, council.Committed:
		return
	}
	now := n.now()
	why := e.Step
	if e.Site != "" {
		why += " by " + e.Site
	}
	if len(e.Sites) > 0 {
		why += " from " + strings.Join(e.Sites, ", ")
	}
	if e.Why != "" {
		why += ": " + e.Why
	}
	n.outbox.put(job{emit: &event.Event{
		V: event.Version, ID: event.NewID(now), Time: now, Site: n.o.Site, Kind: event.KindModel,
		Model: &event.Model{Hash: e.Hash, Parent: e.Base, Origin: "round", Round: e.Round, State: "round-" + e.Step, Attacks: 0, Flows: e.Examples, Why: why},
	}})
}

// StartRound begins the next model round now.
func (n *Node) StartRound(ctx context.Context) (uint64, error) {
	if n.member == nil {
		return 0, fmt.Errorf("this site is alone: [[mesh.peer]] in the configuration names others: %w", errInvalid)
	}
	return n.member.StartRound(ctx)
}
