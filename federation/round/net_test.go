package round

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/internal/agenda"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// testnet drives machines by one queue of events in virtual time: no goroutine,
// no clock, so one seed gives one run.
type testnet struct {
	agenda.Agenda
	t     *testing.T
	rng   *rand.Rand
	nodes []*testnode

	loss  float64
	delay func() time.Duration
	cut   map[[2]int]bool
	trace *strings.Builder // nil: silent
}

type testnode struct {
	name   string
	key    *identity.Key
	m      *Machine
	seq    uint64
	disk   []byte
	down   bool
	life   int // counts restarts: what an earlier life waited for never comes
	target float32
	adopts []Head
	signed map[string]wire.Hash // what we signed, by round and base: the disk must prevent a second
	mute   bool                 // never proposes
	slow   time.Duration
	alarm  agenda.Alarm
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newNet(t *testing.T, n int, seed uint64) *testnet {
	w := &testnet{t: t, rng: rand.New(rand.NewPCG(seed, 1)), Agenda: agenda.Agenda{Now: epoch}, cut: make(map[[2]int]bool)}
	w.delay = func() time.Duration { return 10 * time.Millisecond }
	for i := range n {
		k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{byte(i + 1)}, 32)))
		if err != nil {
			t.Fatal(err)
		}
		w.nodes = append(w.nodes, &testnode{key: k, target: float32(i), signed: make(map[string]wire.Hash), slow: time.Second})
	}
	// Sorted by id, so that in scripts node a is first in the rotation.
	slices.SortFunc(w.nodes, func(a, b *testnode) int { return cmp.Compare(a.key.ID(), b.key.ID()) })
	for i := range w.nodes {
		w.nodes[i].name = string(rune('a' + i))
		w.boot(i)
	}
	return w
}

func (w *testnet) config(i int) Config {
	var ids []identity.ID
	for _, nd := range w.nodes {
		ids = append(ids, nd.key.ID())
	}
	return Config{Self: w.nodes[i].key.ID(), Sites: ids, Schema: "test/1", Init: make([]float32, 3), Deadline: 10 * time.Second, Trains: true}
}

func (w *testnet) boot(i int) {
	m, err := New(w.config(i))
	if err != nil {
		w.t.Fatal(err)
	}
	nd := w.nodes[i]
	nd.life++
	if nd.disk != nil {
		if err := m.Restore(nd.disk, w.Now); err != nil {
			w.t.Fatal(err)
		}
	}
	nd.m, nd.down, nd.alarm = m, false, agenda.Alarm{}
	w.tick(i)
}

func (w *testnet) kill(i int) { w.nodes[i].down = true; w.nodes[i].life++ }

func (w *testnet) logf(i int, format string, args ...any) {
	if w.trace != nil {
		_, _ = fmt.Fprintf(w.trace, "%6s %s: %s\n", w.Now.Sub(epoch).Round(time.Millisecond), w.nodes[i].name, fmt.Sprintf(format, args...))
	}
}

func (w *testnet) name(id identity.ID) string {
	for _, nd := range w.nodes {
		if nd.key.ID() == id {
			return nd.name
		}
	}
	return "?"
}

func (w *testnet) tick(i int) {
	nd := w.nodes[i]
	if nd.down {
		return
	}
	nd.m.Tick(w.Now)
	w.drain(i)
}

// arm has Tick called when the machine next asks for it.
func (w *testnet) arm(i int) {
	nd := w.nodes[i]
	life := nd.life
	nd.alarm.Set(&w.Agenda, max(nd.m.Next().Sub(w.Now), time.Millisecond), func() bool { return nd.life == life }, func() { w.tick(i) })
}

func (w *testnet) drain(i int) {
	nd := w.nodes[i]
	for {
		rd := nd.m.Ready()
		if rd.Empty() {
			w.arm(i)
			return
		}
		if rd.Persist {
			b, err := nd.m.Snapshot()
			if err != nil {
				w.t.Fatal(err)
			}
			nd.disk = b
		}
		for _, e := range rd.Events {
			w.logEvent(i, e)
		}
		for _, msg := range rd.Send {
			w.send(i, msg)
		}
		for _, p := range rd.Seal {
			w.seal(i, p)
		}
		for _, f := range rd.Fetch {
			w.fetch(i, f)
		}
		if rd.Train != nil {
			w.train(i, *rd.Train)
		}
		if rd.Adopt != nil {
			nd.adopts = append(nd.adopts, *rd.Adopt)
		}
	}
}

func (w *testnet) logEvent(i int, e Event) {
	switch e.Step {
	case Begun, CaughtUp:
		w.logf(i, "%s %d", e.Step, e.Round)
	case Delta, Listed:
		w.logf(i, "%s %d of %s", e.Step, e.Round, w.name(e.Author))
	case Aggregated:
		var names []string
		for _, id := range e.Sites {
			names = append(names, w.name(id))
		}
		w.logf(i, "%s %d from %s: %v", e.Step, e.Round, strings.Join(names, " "), w.nodes[i].m.Head().Params)
	case Failed:
		w.logf(i, "%s %d: %s", e.Step, e.Round, e.Why)
	}
}

func (w *testnet) seal(i int, p wire.Payload) {
	nd := w.nodes[i]
	if _, ok := p.(*wire.List); ok && nd.mute {
		return
	}
	nd.seq++
	msg, err := wire.Seal(nd.key, nd.seq, w.Now, p)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := nd.m.Step(w.Now, msg); err != nil {
		return
	}
	var what string
	switch p := p.(type) {
	case *wire.Delta:
		what = fmt.Sprint("delta ", p.Round, p.Base)
	case *wire.List:
		what = fmt.Sprint("list ", p.Round, p.View, p.Base)
	default:
		return
	}
	if old, ok := nd.signed[what]; ok && old != msg.Hash {
		w.t.Errorf("%s equivocates: a second %.12s", nd.name, what)
	}
	nd.signed[what] = msg.Hash
}

func (w *testnet) send(i int, msg *wire.Message) {
	for j := range w.nodes {
		if j == i || w.cut[[2]int{i, j}] || w.rng.Float64() < w.loss {
			continue
		}
		w.After(w.delay(), func() { w.deliver(j, msg) })
	}
}

func (w *testnet) deliver(j int, msg *wire.Message) {
	if w.nodes[j].down {
		return
	}
	if err := w.nodes[j].m.Step(w.Now, msg); err != nil && wire.ReasonOf(err).Penal() {
		w.logf(j, "refused %s of %s: %s", msg.Kind(), w.name(msg.Author), wire.ReasonOf(err))
	}
	w.drain(j)
}

func (w *testnet) fetch(i int, f Fetch) {
	nd, life := w.nodes[i], w.nodes[i].life
	j := slices.IndexFunc(w.nodes, func(n *testnode) bool { return n.key.ID() == f.From })
	if w.cut[[2]int{i, j}] || w.cut[[2]int{j, i}] || w.rng.Float64() < w.loss {
		return
	}
	w.After(2*w.delay(), func() {
		if nd.life != life || w.nodes[j].down {
			return
		}
		blob := w.nodes[j].m.Serve(wire.Fetch{Hash: f.Hash, Params: f.Params})
		if blob == nil {
			return
		}
		if f.Params {
			params, err := wire.DecodeParams(blob)
			if err == nil {
				err = nd.m.Fetched(w.Now, f.Hash, params)
			}
			if err != nil && wire.ReasonOf(err) != wire.NotFound {
				w.t.Errorf("%s: fetched model: %v", nd.name, err)
			}
			w.drain(i)
			return
		}
		msg, err := wire.Open(blob, w.Now, func(identity.ID) bool { return true })
		if err != nil {
			w.t.Errorf("fetched delta: %v", err)
			return
		}
		w.deliver(i, msg)
	})
}

func (w *testnet) train(i int, tr Train) {
	nd, life := w.nodes[i], w.nodes[i].life
	w.After(nd.slow, func() {
		if nd.life != life {
			return
		}
		params := slices.Clone(tr.Params)
		for j := range params {
			params[j] += (nd.target - params[j]) / 2
		}
		if d, err := nd.m.Trained(w.Now, tr.Round, tr.Base, params, 10); err == nil {
			w.seal(i, d)
		}
		w.drain(i)
	})
}

func (w *testnet) start(i int) {
	if _, err := w.nodes[i].m.Start(w.Now); err != nil {
		w.logf(i, "start: %v", err)
	}
	w.drain(i)
}

func (w *testnet) partition(group []int) {
	clear(w.cut)
	for i := range w.nodes {
		for j := range w.nodes {
			if slices.Contains(group, i) != slices.Contains(group, j) {
				w.cut[[2]int{i, j}] = true
			}
		}
	}
}

// one says whether all live nodes have the same head.
func (w *testnet) one() bool {
	var first *Machine
	for _, nd := range w.nodes {
		switch {
		case nd.down:
		case first == nil:
			first = nd.m
		case nd.m.Head().state() != first.Head().state():
			return false
		}
	}
	return true
}

func (w *testnet) heads() string {
	var out []string
	for _, nd := range w.nodes {
		h := nd.m.Head()
		s := fmt.Sprintf("%s %d.%d %s", nd.name, h.Round, h.View, h.Hash.Short())
		if nd.down {
			s += " (down)"
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}
