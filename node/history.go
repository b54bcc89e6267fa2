package node

import (
	"context"
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/quality"
	"github.com/hedgerow-mesh/hedgerow/node/internal/history"
)

const (
	// heldHistory is the share of the past, the newest of it, that does not train a
	// model but examines it.
	heldHistory = 0.2
	// pastAtOnce is how many old reports are taken before packets' reports, which
	// wait for the same lock, go on.
	pastAtOnce = 128
)

// Reference is how the inputs of the model in use were distributed in its
// training; nil without a model.
func (n *Node) Reference() *quality.Reference {
	n.learn.mu.Lock()
	defer n.learn.mu.Unlock()
	return n.learn.fit.ref
}

// HistoryBasis is what a lesson for this site has to be read by.
func (n *Node) HistoryBasis(context.Context) (history.Basis, error) {
	return history.Basis{Now: n.now(), Wait: n.o.Learner.Wait, Reference: n.Reference()}, nil
}

// LearnHistory lets a lesson of old traffic teach: attacks become labels, replacing
// those that the same files gave before, and normal traffic trains a model, which
// passes through the same life as any other. It may be called while the node runs,
// beside all that it does. What is stored is durable when it returns. say hears how
// far it is; nil tells nobody.
func (n *Node) LearnHistory(ctx context.Context, h *history.Lesson, say func(words string)) (history.Trained, error) {
	l := n.learn
	s, t := l.takeHistory(h)
	s.say = say
	defer n.flush()
	if len(s.normal) < learner.MinNormal {
		t.Words = fmt.Sprintf("no model was trained: %d reports of normal traffic may teach, %d are needed", len(s.normal), learner.MinNormal)
		if t.Attacks > 0 {
			t.Words += "; the labelled attacks are kept and teach with the next model"
		}
		return t, nil
	}
	if say != nil {
		say(fmt.Sprintf("taken: %d reports of normal traffic and %d of attacks", len(s.normal), t.Attacks))
	}
	x, err := l.teach(ctx, s, "history")
	if err != nil {
		return t, fmt.Errorf("learn history: train: %w (the labelled attacks are kept)", err)
	}
	t.Model = &x
	t.Words = fmt.Sprintf("model %.12s is %s: %s", x.ID, stateOf(&x), x.History[len(x.History)-1].Why)
	return t, nil
}

// past is an old report of normal traffic.
type past struct {
	at                  time.Time
	v                   feature.Vector
	host, peer, service uint64
}

// takeHistory puts a lesson where models are trained and examined from. What is
// newest is held back from training.
func (l *learning) takeHistory(h *history.Lesson) (s lesson, t history.Trained) {
	var old []past
	h.Normals.Each(func(at time.Time, v *feature.Vector, host, peer, service uint64) {
		old = append(old, past{at, *v, host, peer, service})
	})
	l.judgeAll()
	held := len(old) - int(heldHistory*float64(len(old)))
	l.takePast(old[:held], old[held:])
	l.mu.Lock()
	defer l.mu.Unlock()
	if held > 0 {
		s.until = old[held-1].at.Add(1)
		if l.first.IsZero() || old[0].at.Before(l.first) {
			l.first = old[0].at
		}
	}
	t.Attacks = l.takeExamples(h.Attacks)
	for i := range h.Bad {
		l.tellQuality(h.Bad[i].File, &h.Bad[i].Report)
	}
	if live := l.n.now().Add(-l.n.o.Learner.Wait); l.champion != nil && live.After(s.until) && l.canExamine(live) {
		s.until = live // what was seen live since then teaches as well
	}
	s.from, s.champion, s.attacks = l.first, l.champion, examples(l.attacks)
	s.normal = l.pool.Mature(s.until, l.suspected)
	later, _ := l.later.Later(s.until, l.suspected)
	t.Normals, t.Later = len(s.normal), len(later)
	return s, t
}

// canExamine says that there is enough traffic later than a time to examine a model
// on. The caller holds l.mu.
func (l *learning) canExamine(after time.Time) bool {
	later, _ := l.later.Later(after, l.suspected)
	return len(later) >= l.n.models.m.Options().MinNormals
}

// takePast lets old reports in: what teaches, and what examines. A site that runs
// keeps at least half of what it saw itself.
func (l *learning) takePast(teach, examine []past) {
	l.mu.Lock()
	pool, later := l.pool, l.later
	if own := pool.Len(); own > 0 {
		teach = thinned(teach, max(pool.Room(), own/2))
	} else {
		examine = append(teach[:len(teach):len(teach)], examine...)
	}
	if own := later.Len(); own > 0 {
		examine = thinned(examine, max(later.Room(), own/2))
	}
	l.mu.Unlock()
	l.addPast(pool, teach)
	l.addPast(later, examine)
}

func (l *learning) addPast(to *learner.Reservoir, xs []past) {
	for len(xs) > 0 {
		n := min(pastAtOnce, len(xs))
		l.mu.Lock()
		for i := range xs[:n] {
			x := &xs[i]
			to.Add(x.at, &x.v, x.host, x.peer, x.service)
		}
		l.mu.Unlock()
		xs = xs[n:]
	}
}

// thinned is at most n of xs, spread evenly.
func thinned(xs []past, n int) []past {
	if len(xs) <= n {
		return xs
	}
	out := make([]past, n)
	for i := range out {
		out[i] = xs[i*len(xs)/n]
	}
	return out
}

// takeExamples puts labelled attacks in the place of those that the same files gave
// before, as many as there is room for. The caller holds l.mu.
func (l *learning) takeExamples(xs []history.Example) int {
	again := map[string]bool{}
	for i := range xs {
		again[historyOf(xs[i].Source)] = true
	}
	kept := make([]labelled, 0, len(l.attacks)+len(xs))
	for i := range l.attacks {
		if !again[l.attacks[i].incident] {
			kept = append(kept, l.attacks[i])
		}
	}
	n := max(0, min(len(xs), maxAttacks-len(kept)))
	for i := range xs[:n] {
		kept = append(kept, labelled{xs[i].Example, historyOf(xs[i].Source)})
	}
	l.attacks = kept
	l.saveAttacks()
	return n
}

// historyOf is what a file's labels are kept under, in the place of an incident.
func historyOf(path string) string {
	const most = 200
	return "history:" + path[max(0, len(path)-most):]
}
