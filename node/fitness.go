package node

import (
	"hash/maphash"
	"net/netip"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/quality"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// fitness is the gate that traffic passes before it may teach: reports wait in a
// window, and the window is judged as a whole. It is under the learner's lock;
// judging itself is not, for it takes milliseconds and reports must not wait.
type fitness struct {
	open     *quality.Window
	full     []*quality.Window
	ref      *quality.Reference // of what the champion was trained on
	before   *quality.Reference // of the last window
	judging  int                // windows that somebody judges now
	indicted map[uint64]bool    // peers that were indicted while somebody did
	last     *event.Quality
	told     time.Time
}

// maxFull bounds the windows that wait to be judged while a model is trained.
const maxFull = 8

// tellEvery is how often a good window is told when nothing changes.
const tellEvery = 10 * time.Minute

var keySeed = maphash.MakeSeed()

func newFitness() (fitness, error) {
	w, err := quality.NewWindow(quality.Limits{})
	return fitness{open: w, indicted: map[uint64]bool{}}, err
}

// offer puts a report of an unsuspicious flow into the open window. The caller
// holds l.mu.
func (l *learning) offer(now time.Time, ev *dataplane.Event, v *feature.Vector, peer netip.AddrPort) {
	r := &ev.Record
	it := quality.Item{
		At: time.Unix(0, r.Last), Seen: now, Key: reportKey(r, ev.Kind), V: *v,
		Final: ev.Kind == dataplane.EventEnd, Blind: feature.All().Without(feature.Given(r.Lacks)),
	}
	it.Host, it.Peer, it.Service = ownersOf(r, peer)
	l.fit.open.Add(now, &it)
	if !l.fit.open.Full() {
		return
	}
	if len(l.fit.full) < maxFull {
		l.fit.full = append(l.fit.full, l.fit.open)
	} // else this window's reports teach nothing: training lags far behind
	l.fit.open = l.fit.open.Next()
	l.poke()
}

// reportKey names a flow as far as it got: equal keys are one report told twice.
func reportKey(r *flow.Record, kind dataplane.EventKind) uint64 {
	return maphash.Comparable(keySeed, struct {
		k           flow.Key
		start, last int64
		n           uint32
		kind        dataplane.EventKind
	}{r.Key, r.Start, r.Last, r.Packets(), kind})
}

// forget leaves out what an indicted peer did.
func (f *fitness) forget(peer uint64) {
	drop := func(w *quality.Window) { w.Drop(func(it *quality.Item) bool { return it.Peer == peer }) }
	drop(f.open)
	for _, w := range f.full {
		drop(w)
	}
	if f.judging > 0 {
		f.indicted[peer] = true
	}
}

// trainedOn sets what windows are compared with.
func (f *fitness) trainedOn(vecs []feature.Vector) { f.ref = quality.NewReference(vecs) }

// judgeFull judges the windows that are full, judgeAll the open one as well, so
// that a training has all that there is.
func (l *learning) judgeFull() {
	l.mu.Lock()
	ws := l.fit.full
	l.fit.full = nil
	l.fit.judging++
	l.mu.Unlock()
	l.judge(ws)
}

func (l *learning) judgeAll() {
	l.mu.Lock()
	ws := append(l.fit.full, l.fit.open)
	l.fit.full, l.fit.open = nil, l.fit.open.Next()
	l.fit.judging++
	l.mu.Unlock()
	l.judge(ws)
}

// judge lets the reports of good windows teach. The caller has counted itself.
func (l *learning) judge(ws []*quality.Window) {
	for _, w := range ws {
		if w.Offered() == 0 {
			continue
		}
		l.mu.Lock()
		ref, before := l.fit.ref, l.fit.before
		l.mu.Unlock()
		rep := w.Judge(ref, before)
		now := w.Reference()
		l.mu.Lock()
		if now != nil && now.N() >= quality.Enough {
			l.fit.before = now
		}
		if rep.Teaches() {
			l.learnFrom(w)
		}
		l.tellQuality("live", &rep)
		l.mu.Unlock()
	}
	l.mu.Lock()
	if l.fit.judging--; l.fit.judging == 0 {
		clear(l.fit.indicted)
	}
	l.mu.Unlock()
}

// learnFrom puts a window's reports where models are trained and examined from.
func (l *learning) learnFrom(w *quality.Window) {
	for i := range w.Items() {
		it := &w.Items()[i]
		if l.fit.indicted[it.Peer] {
			continue
		}
		l.pool.Add(it.Seen, &it.V, it.Host, it.Peer, it.Service)
		l.later.Add(it.Seen, &it.V, it.Host, it.Peer, it.Service)
	}
}

// tellQuality keeps a window's report for status and tells it: always when it is
// not good or no longer bad, else now and then. The caller holds l.mu.
func (l *learning) tellQuality(source string, rep *quality.Report) {
	now := l.n.now()
	body := qualityBody(source, rep)
	same := l.fit.last != nil && l.fit.last.Verdict == body.Verdict
	l.fit.last = body
	if same && body.Verdict == string(quality.Good) && now.Sub(l.fit.told) < tellEvery {
		return
	}
	l.fit.told = now
	l.n.outbox.put(job{emit: &event.Event{
		V: event.Version, ID: event.NewID(now), Time: now, Site: l.n.o.Site, Kind: event.KindQuality, Quality: body,
	}})
}

func qualityBody(source string, r *quality.Report) *event.Quality {
	b := &event.Quality{
		Source: source, From: r.From.UTC(), To: r.To.UTC(), Verdict: string(r.Verdict), Why: strings.Join(r.Reasons, "; "),
		Reports: r.Offered, Kept: r.Kept, Invalid: r.Invalid, Duplicates: r.Duplicates, ClockBack: r.Backwards, ClockAhead: r.Future,
		TCPEnded: r.TCPEnded, OneSided: r.OneSided, Attacks: r.Attacks, Drifted: len(r.Drifted), Compared: r.Compared,
	}
	for _, d := range r.Drifted[:min(5, len(r.Drifted))] {
		b.Most = append(b.Most, event.InputDrift{Feature: d.Feature, PSI: d.PSI, Limit: d.Limit, Words: d.Words})
	}
	return b
}

// quality is the last window's report, nil before the first.
func (l *learning) quality() *event.Quality {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fit.last
}
