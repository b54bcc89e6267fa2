package node

import (
	"context"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
	"github.com/hedgerow-mesh/hedgerow/learner/quality"
	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
)

// Trained is what a lesson of history led to.
type Trained struct {
	Normals int              `json:"normals"` // reports that the model was trained on
	Later   int              `json:"later"`   // newer ones that it was examined on
	Attacks int              `json:"attacks"`
	Model   *lifecycle.Model `json:"model,omitempty"` // where it stands; nil when none was trained
	Words   string           `json:"words"`
}

// heldHistory is the share of the past, the newest of it, that does not train a
// model but examines it.
const heldHistory = 0.2

// Reference is how the inputs of the model in use were distributed in its
// training; nil without a model.
func (n *Node) Reference() *quality.Reference {
	n.learn.mu.Lock()
	defer n.learn.mu.Unlock()
	return n.learn.fit.ref
}

// LearnHistory lets a lesson of old traffic teach: attacks become labels, replacing
// those that the same files gave before, and normal traffic trains a model, which
// passes through the same life as any other. What is stored is durable when it
// returns.
func (n *Node) LearnHistory(ctx context.Context, h *history.Lesson) (Trained, error) {
	l := n.learn
	s, t := l.takeHistory(h)
	defer n.flush()
	if len(s.normal) < learner.MinNormal {
		t.Words = fmt.Sprintf("no model was trained: %d reports of normal traffic may teach, %d are needed", len(s.normal), learner.MinNormal)
		if t.Attacks > 0 {
			t.Words += "; the labelled attacks are kept and teach with the next model"
		}
		return t, nil
	}
	x, err := l.teach(ctx, s, "history")
	if err != nil {
		return t, fmt.Errorf("learn history: train: %w", err)
	}
	t.Model = &x
	t.Words = fmt.Sprintf("model %.12s is %s: %s", x.ID, stateOf(&x), x.History[len(x.History)-1].Why)
	return t, nil
}

// takeHistory puts a lesson where models are trained and examined from. What is
// newest is held back from training.
func (l *learning) takeHistory(h *history.Lesson) (s lesson, t Trained) {
	type report struct {
		at                  time.Time
		v                   feature.Vector
		host, peer, service uint64
	}
	var past []report
	h.Normals.Each(func(at time.Time, v *feature.Vector, host, peer, service uint64) {
		past = append(past, report{at, *v, host, peer, service})
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	held := len(past) - int(heldHistory*float64(len(past)))
	for i := range past {
		x := &past[i]
		if i < held {
			l.pool.Add(x.at, &x.v, x.host, x.peer, x.service)
			s.until = x.at.Add(1)
		}
		l.later.Add(x.at, &x.v, x.host, x.peer, x.service)
	}
	if held > 0 && (l.first.IsZero() || past[0].at.Before(l.first)) {
		l.first = past[0].at
	}
	for _, x := range h.Attacks {
		l.attacks = without(l.attacks, historyOf(x.Source))
	}
	for _, x := range h.Attacks[:min(len(h.Attacks), maxAttacks-len(l.attacks))] {
		l.attacks = append(l.attacks, labelled{x.Example, historyOf(x.Source)})
		t.Attacks++
	}
	l.saveAttacks()
	for i := range h.Bad {
		l.tellQuality(h.Bad[i].File, &h.Bad[i].Report)
	}
	s.from, s.champion, s.attacks = l.first, l.champion, examples(l.attacks)
	s.normal = l.pool.Mature(s.until, l.suspected)
	t.Normals, t.Later = len(s.normal), len(past)-held
	return s, t
}

// historyOf is what a file's labels are kept under, in the place of an incident.
func historyOf(path string) string {
	const most = 200
	return "history:" + path[max(0, len(path)-most):]
}
