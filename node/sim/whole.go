package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/soft"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

// whole is one site with its node and what passes its gateway.
type whole struct {
	i       int
	org     int
	liar    bool
	ctx     context.Context
	site    *scenario.Site
	key     *identity.Key
	clock   time.Time
	plane   *softplane.Plane
	store   *store.Store
	node    *node.Node
	steps   *node.Steps
	handler federation.Handler // nil: alone

	world  *soft.World
	source *scenario.Source
	coming pile[session]
	script script // of what was recorded elsewhere; nothing in a made-up world
	plays  pile[playing]
	begun  uint64      // sessions
	proofs bool        // unused services answer, and whoever knocks there completes the handshake
	proved []*recorded // to be told

	sent     []message
	inbox    pile[message]
	number   uint64 // of what was sent
	later    []task
	messages int64
	bytes    int64
	unsaid   int // lies that were refused at their own site

	seen watch
}

// session begins at a time; visit is nil where it is ordinary work.
type session struct {
	at    time.Time
	n     uint64
	s     *scenario.Session
	visit *visit
	opens bool // it is the first of its visit
	// forged is what somebody sends in another's name
	forged bool
}

func (x session) Before(y session) bool { return x.at.Before(y.at) || x.at.Equal(y.at) && x.n < y.n }

// playing is a session that has begun.
type playing struct {
	session
	p *soft.Play
}

func (x playing) Before(y playing) bool { return x.session.Before(y.session) }

// task is to be done for a node when all nodes have come to a time.
type task struct {
	at   time.Time
	site int
	n    uint64
	do   func()
}

func (x task) Before(y task) bool {
	if !x.at.Equal(y.at) {
		return x.at.Before(y.at)
	}
	return x.site < y.site || x.site == y.site && x.n < y.n
}

// Frame shows the node's packet path a frame at its time.
func (w *whole) Frame(hook dataplane.Hook, frame []byte, at time.Time) bool {
	w.clock = at
	return w.plane.Frame(hook, softplane.Ethernet, frame, 0, at)
}

// keyOf is a site's key, which comes from the seed.
func keyOf(seed uint64, i int) (*identity.Key, error) {
	return identity.Generate(reader{source(seed, forKeys, i, 0)})
}

// reader gives bytes of a source.
type reader struct{ rng *rand.Rand }

func (r reader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r.rng.Uint32())
	}
	return len(b), nil
}

// build makes the node of a site.
func (m *mesh) build(ctx context.Context, w *whole) error {
	w.ctx = ctx
	now := func() time.Time { return w.clock }
	var err error
	if w.plane, err = softplane.Open(softplane.Options{Inside: []netip.Prefix{w.site.LAN}, MaxFlows: 4096, Now: now}); err != nil {
		return err
	}
	if w.store, err = store.Open("", store.Options{InMemory: true, Now: now}); err != nil {
		return err
	}
	s := &m.s.Nodes
	w.node, err = node.New(node.Options{
		Site: w.site.Name, Version: "sim", Interface: "simulated", Plane: w.plane, Mode: dataplane.Enforce, Store: w.store, Key: w.key,
		Inside: []netip.Prefix{w.site.LAN},
		Learner: node.LearnerOptions{
			Enabled: s.Learner, WarmupFlows: s.Warmup, Warmup: time.Hour, Wait: seconds(s.Retrain / 2), RetrainEvery: seconds(s.Retrain),
			IncidentsPerDay: 5, FalseBlocksPerMonth: 1, Seed: mix(m.s.Seed) + uint64(w.i), Context: feature.ContextOptions{
				Settle: settle, Hosts: 512, Pairs: 2048, Flows: 4096, Seed: uint64(w.i + 1)},
		},
		Policy: node.PolicyOptions{Suspend: 30 * time.Second, Block: seconds(s.Block), MaxBlocksPerHour: 60, MaxShare: 0.05, Rules: true},
		Mesh:   m.meshOf(w),
		Now:    now, Rand: reader{source(m.s.Seed, forKeys, w.i, 1)},
	})
	if err != nil {
		return err
	}
	w.steps, w.handler, err = w.node.Steps(ctx, node.StepOptions{Plane: &prover{Plane: w.plane, w: w}, Later: w.note, Told: w.told})
	return err
}

// settle is how long what a node saw rests before it counts as familiar: minutes
// are here what days are at a gateway.
const settle = 4 * time.Second

// meshOf says who a site's neighbours are: it trusts those of its organisation, and
// weighs the words of the others.
func (m *mesh) meshOf(w *whole) node.MeshOptions {
	orgs := m.s.Nodes.Organisations
	if orgs == 0 {
		return node.MeshOptions{}
	}
	o := node.MeshOptions{
		Organisation: m.orgName(w.org), Transport: &port{m.bus, w}, RoundEvery: seconds(m.s.Nodes.Rounds), Gather: 30 * time.Second,
	}
	for _, x := range m.sites {
		if x.org == w.org {
			o.Roster = append(o.Roster, federation.Site{Name: x.site.Name, ID: x.key.ID(), Addrs: []string{addrOf(x)}})
		}
	}
	if orgs > 1 {
		roll := m.roll(w)
		o.Consortium = &node.ConsortiumOptions{ID: m.s.Name, Organisation: o.Organisation, Roll: roll}
		if m.s.Nodes.Learner && len(roll.Counted) >= robust.Quorum {
			o.Consortium.Founders = roll.Counted
		}
	}
	return o
}

func orgName(i int) string { return fmt.Sprintf("org-%03d", i+1) }

// note keeps what is to be done later.
func (w *whole) note(after time.Duration, f func()) {
	w.number++
	w.later = append(w.later, task{w.clock.Add(after), w.i, w.number, f})
}

// live is a site's life from its clock to a time.
func (w *whole) live(until time.Time) error {
	from := w.clock
	w.plane.Advance(from)
	w.steps.Step()
	for {
		at, what := w.first()
		if !at.Before(until) {
			break
		}
		w.clock = later(from, at)
		var err error
		switch what {
		case aMessage:
			x := w.inbox.take()
			w.handler.Receive(w.ctx, x.topic, w.seen.ids[x.from], x.b)
			w.steps.Step()
		case aSession:
			err = w.begin(w.coming.take())
		case aPlay:
			w.goOn(w.plays.take())
		case aPacket:
			w.show()
		}
		if err != nil {
			return err
		}
	}
	w.clock = until
	w.steps.Step()
	return nil
}

// What is next at a site.
const (
	aMessage = iota
	aSession
	aPlay
	aPacket
	aNothing
)

// never is later than any simulation.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// first is what comes next, and when.
func (w *whole) first() (at time.Time, what int) {
	at, what = never, aNothing
	if len(w.coming) > 0 {
		at, what = w.coming[0].at, aSession
	}
	if x := w.script.next(); x != nil && x.at.Before(at) {
		at, what = x.at, aPacket
	}
	if len(w.plays) > 0 && w.plays[0].at.Before(at) {
		at, what = w.plays[0].at, aPlay
	}
	if len(w.inbox) > 0 && !w.inbox[0].at.After(at) {
		at, what = w.inbox[0].at, aMessage
	}
	return at, what
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// begin starts a session.
func (w *whole) begin(x session) error {
	if x.visit == nil && !x.forged {
		w.next(x.at)
	}
	w.begun++
	p, err := w.world.Play(x.s, x.at)
	if err != nil {
		return err
	}
	x.n = w.begun
	w.goOn(playing{x, p})
	return nil
}

// next puts the next piece of ordinary work into what is coming.
func (w *whole) next(after time.Time) {
	x := w.source.Next()
	w.coming.put(session{at: after.Add(x.After), s: &x.Session})
}

// goOn plays a session on, and lets the node see what came of it.
func (w *whole) goOn(x playing) {
	at, more := x.p.Next()
	w.steps.Seen()
	if more {
		x.at = at
		w.plays.put(x)
		return
	}
	w.seen.ended(w, &x)
}

// close ends a site.
func (w *whole) close() error {
	for _, x := range w.plays {
		x.p.Stop()
	}
	var err error
	if w.plane != nil {
		err = w.plane.Close()
	}
	if w.store != nil {
		err = errors.Join(err, w.store.Close())
	}
	return err
}
