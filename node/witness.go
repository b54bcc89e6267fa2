package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/evidence"
)

const (
	// perTool is how many examples one tool's words may be of: the newest, so that
	// a loud one crowds out nobody but itself.
	perTool    = 500
	saidAtOnce = 32
	// sure is the weight from which a flow is no example of normal any more.
	sure = 0.5
	// fromTool begins what a tool's examples are kept under.
	fromTool = "intake:"
)

// TakeLabels joins what other tools say to flows: to those that ended already now,
// to the others when they end. Such a label teaches with its weight, with the next
// model; nothing is blocked for it.
func (n *Node) TakeLabels(_ context.Context, said []evidence.Said) (joined int, err error) {
	if !n.o.Learner.Enabled {
		return 0, fmt.Errorf("labels: the learner is off: set learner.enabled: %w", errInvalid)
	}
	for len(said) > 0 { // in pieces, for packets' reports wait for the same locks
		k := min(saidAtOnce, len(said))
		var found []evidence.Joined
		n.mu.Lock()
		for i := range said[:k] {
			found = append(found, n.witness.Say(said[i])...)
		}
		n.mu.Unlock()
		n.learn.witnessed(found)
		joined, said = joined+len(found), said[k:]
	}
	return joined, nil
}

// attested lets a flow that ended meet what was said of it. The caller holds n.mu.
func (n *Node) attested(now time.Time, ev *dataplane.Event, v *feature.Vector) {
	if !n.o.Learner.Enabled {
		return
	}
	r := &ev.Record
	f := evidence.Flow{Key: r.Key, Start: time.Unix(0, r.Start), Last: time.Unix(0, r.Last), V: *v}
	peer, _, ok := r.Outside()
	if !ok {
		peer = r.Responder()
	}
	f.Host, f.Peer, _ = ownersOf(r, peer)
	n.learn.witnessed(n.witness.End(now, &f))
}

// witnessed takes flows that tools called attacks.
func (l *learning) witnessed(found []evidence.Joined) {
	if len(found) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range found {
		x := &found[i]
		if x.Weight >= sure {
			l.pool.ForgetPair(x.Host, x.Peer)
			l.later.ForgetPair(x.Host, x.Peer)
		}
		l.addWitness(labelled{learner.Example{V: x.V, Weight: x.Weight, Family: strings.Clone(x.Family)}, fromTool + x.Source})
	}
	l.unsaved = true
}

// addWitness keeps an example of a tool in its bounds: the tool's oldest gives way.
func (l *learning) addWitness(x labelled) {
	oldest, own := -1, 0
	for i := range l.attacks {
		if l.attacks[i].incident == x.incident {
			if own++; oldest < 0 {
				oldest = i
			}
		}
	}
	if own >= perTool || len(l.attacks) >= maxAttacks && oldest >= 0 {
		l.attacks = append(l.attacks[:oldest:oldest], l.attacks[oldest+1:]...)
	}
	if len(l.attacks) < maxAttacks {
		l.attacks = append(l.attacks, x)
	}
}

// keepWitnessed stores what tools said since it was stored last.
func (l *learning) keepWitnessed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unsaved {
		l.saveAttacks()
	}
}
