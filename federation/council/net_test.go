package council

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/internal/agenda"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// hashes stand for signatures: whoever has the id can make them, and the
// harness gives each id only to its owner.
type hashes struct{}

func fakeSign(id identity.ID, kind string, msg []byte) []byte {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\x00%s\x00", id, kind)
	_, _ = h.Write(msg)
	sum := h.Sum(nil)
	return append(sum, sum...)
}

func (hashes) Verify(id identity.ID, kind string, msg, sig []byte) bool {
	return bytes.Equal(fakeSign(id, kind, msg), sig)
}

// meanOf stands for a robust rule; what the rounds need is that it is a function.
func meanOf(deltas [][]float32, _ int) ([]float32, error) {
	out := make([]float32, len(deltas[0]))
	for _, d := range deltas {
		for i := range d {
			out[i] += d[i] / float32(len(deltas))
		}
	}
	return out, nil
}

func testGenesis(t testing.TB, n int) chain.Genesis {
	g := chain.Genesis{Name: "test", Schema: "s/1", Rule: "mean/1", Init: []float32{0, 0}}
	for i := range n {
		k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{byte(i + 1)}, 32)))
		if err != nil {
			t.Fatal(err)
		}
		g.Orgs = append(g.Orgs, chain.Member{Org: string(rune('a' + i)), Voter: k.ID()})
	}
	return g
}

// testnet drives machines by one queue of events in virtual time.
type testnet struct {
	agenda.Agenda
	t     testing.TB
	rng   *rand.Rand
	gen   chain.Genesis
	nodes []*testnode
	loss  float64
	slow  time.Duration // longest delay
	fail  int           // trainings of each node that fail first
	votes map[wire.Hash]map[identity.ID]bool
	says  map[string]wire.Hash // what each honest voter signed, by place
	block map[wire.Hash]*wire.Block
}

type testnode struct {
	id      identity.ID
	org     int
	liar    bool
	m       *Machine
	life    int
	down    bool
	group   int // nodes of different groups do not hear each other
	skew    time.Duration
	seq     uint64
	disk    []byte
	blobs   map[wire.Hash][]float32
	chain   map[uint64]*wire.Sealed
	alarm   agenda.Alarm
	adopted []*Model
	asked   int // for bytes
	events  map[string]int
	bend    func(p wire.Payload) []wire.Payload // what a liar makes of its words
	deaf    bool                                // serves no bytes
	fails   int                                 // trainings that failed
}

func newNet(t testing.TB, orgs int, seed uint64) *testnet {
	w := &testnet{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), Agenda: agenda.Agenda{Now: epoch}, gen: testGenesis(t, orgs), slow: 80 * time.Millisecond,
		votes: make(map[wire.Hash]map[identity.ID]bool), says: make(map[string]wire.Hash), block: make(map[wire.Hash]*wire.Block),
	}
	for i := range orgs {
		w.join(i)
	}
	return w
}

// join adds a node of an organisation; a second one is a twin, which only a
// liar has.
func (w *testnet) join(org int) *testnode {
	nd := &testnode{
		id: w.gen.Orgs[org].Voter, org: org, blobs: make(map[wire.Hash][]float32),
		chain: make(map[uint64]*wire.Sealed), events: make(map[string]int),
	}
	w.nodes = append(w.nodes, nd)
	w.boot(nd)
	return nd
}

func (w *testnet) config(nd *testnode) Config {
	return Config{
		Self: nd.id, Genesis: w.gen, Crypto: hashes{}, Combine: meanOf, Trains: true,
		Sign: func(kind string, msg []byte) []byte { return fakeSign(nd.id, kind, msg) },
		Salt: func() (s [16]byte) {
			binary.BigEndian.PutUint64(s[:], w.rng.Uint64())
			return s
		},
		Every: time.Second, Gather: 2 * time.Second, Reveal: 2 * time.Second, Vote: 2 * time.Second,
		Grace: 500 * time.Millisecond, Retry: 500 * time.Millisecond, Announce: 2 * time.Second,
	}
}

func (w *testnet) boot(nd *testnode) {
	m, err := New(w.config(nd))
	if err != nil {
		w.t.Fatal(err)
	}
	nd.life++
	if nd.disk == nil {
		m.Anew()
	} else {
		if err := m.Restore(nd.disk, func(h wire.Hash) []float32 { return nd.blobs[h] }); err != nil {
			w.t.Fatal(err)
		}
	}
	nd.m, nd.down, nd.alarm = m, false, agenda.Alarm{}
	m.Tick(w.clock(nd))
	w.drain(nd)
}

func (w *testnet) kill(nd *testnode) { nd.down = true; nd.life++ }

func (w *testnet) clock(nd *testnode) time.Time { return w.Now.Add(nd.skew) }

func (w *testnet) arm(nd *testnode) {
	life := nd.life
	nd.alarm.Set(&w.Agenda, max(nd.m.Next().Sub(w.clock(nd)), 5*time.Millisecond), func() bool { return nd.life == life }, func() {
		nd.m.Tick(w.clock(nd))
		w.drain(nd)
	})
}

// drain carries out what a machine asks for, in the order that it demands.
func (w *testnet) drain(nd *testnode) {
	for {
		rd := nd.m.Ready()
		if rd.Empty() {
			w.arm(nd)
			return
		}
		w.store(nd, &rd)
		for _, msg := range rd.Send {
			w.send(nd, msg)
		}
		for _, p := range rd.Seal {
			w.seal(nd, p)
		}
		for _, f := range rd.Fetch {
			w.fetch(nd, f)
		}
		if rd.Sync != nil {
			w.sync(nd, *rd.Sync)
		}
		if rd.Train != nil {
			w.train(nd, *rd.Train)
		}
		if rd.Adopt != nil {
			nd.adopted = append(nd.adopted, rd.Adopt)
		}
		for _, e := range rd.Events {
			nd.events[e.Step]++
		}
	}
}

func (w *testnet) store(nd *testnode, rd *Ready) {
	for _, k := range rd.Keep {
		nd.blobs[k.Hash] = slices.Clone(k.Params)
	}
	for _, s := range rd.Chain {
		nd.chain[s.Block.Height] = s
	}
	if rd.Persist {
		b, err := nd.m.Snapshot()
		if err != nil {
			w.t.Fatal(err)
		}
		nd.disk = b
	}
}

func (w *testnet) seal(nd *testnode, p wire.Payload) {
	out := []wire.Payload{p}
	if nd.bend != nil {
		out = nd.bend(p)
	}
	for _, p := range out {
		nd.seq++
		msg := &wire.Message{Author: nd.id, Seq: nd.seq, Time: w.Now, Payload: p}
		w.note(nd, p)
		if err := nd.m.Step(w.clock(nd), msg); err != nil && !nd.liar && wire.ReasonOf(err).Penal() {
			w.t.Errorf("%s: our own %s: %v", w.gen.Orgs[nd.org].Org, p.Kind(), err)
		}
	}
}

// note remembers blocks and votes for the judge, who sees everything, and
// holds honest members to one word in one place.
func (w *testnet) note(nd *testnode, p wire.Payload) {
	var place string
	var hash wire.Hash
	switch p := p.(type) {
	case *wire.Proposal:
		place, hash = fmt.Sprint("list ", p.Block.Round), p.Block.Hash()
		w.block[hash] = &p.Block
	case *wire.Vote:
		place, hash = fmt.Sprint("vote ", p.Round), p.Block
		w.voted(p.Block, nd.id)
	case *wire.SetVote:
		place, hash = fmt.Sprint("set-vote ", p.Round), p.Set
	case *wire.Set:
		place, hash = fmt.Sprint("set ", p.Round), p.Hash()
	case *wire.Commit:
		place, hash = fmt.Sprint("commit ", p.Round, p.Parent), p.Commit
	default:
		return
	}
	if nd.liar {
		return
	}
	place = string(nd.id) + place
	if old, ok := w.says[place]; ok && old != hash {
		w.t.Errorf("an honest member signed two words at %s", place)
	}
	w.says[place] = hash
}

func (w *testnet) voted(block wire.Hash, id identity.ID) {
	if w.votes[block] == nil {
		w.votes[block] = make(map[identity.ID]bool)
	}
	w.votes[block][id] = true
}

func (w *testnet) hears(from, to *testnode) bool {
	return from != to && from.group == to.group && !to.down && w.rng.Float64() >= w.loss
}

func (w *testnet) delay() time.Duration {
	return time.Duration(1+w.rng.Int64N(int64(w.slow/time.Millisecond))) * time.Millisecond
}

func (w *testnet) send(nd *testnode, msg *wire.Message) {
	for _, to := range w.nodes {
		if to.id != nd.id && w.hears(nd, to) {
			w.After(w.delay(), func() { w.deliver(to, msg) })
		}
	}
}

func (w *testnet) deliver(to *testnode, msg *wire.Message) {
	if to.down {
		return
	}
	_ = to.m.Step(w.clock(to), msg) // refusals are part of the game
	w.drain(to)
}

func (w *testnet) ask(nd *testnode, id identity.ID, f func(from *testnode)) {
	life := nd.life
	for _, from := range w.nodes {
		if from.id == id && w.hears(from, nd) && !from.down && !from.deaf {
			from.asked++
			w.After(w.delay(), func() {
				if nd.life == life && !from.down {
					f(from)
				}
			})
			return
		}
	}
}

func (w *testnet) fetch(nd *testnode, f Fetch) {
	w.ask(nd, f.From, func(from *testnode) {
		p := from.m.Serve(f.Hash)
		if p == nil {
			p = from.blobs[f.Hash]
		}
		if p != nil {
			_ = nd.m.Fetched(w.clock(nd), f.Hash, p)
			w.drain(nd)
		}
	})
}

func (w *testnet) sync(nd *testnode, s Sync) {
	w.ask(nd, s.From, func(from *testnode) {
		for h := s.Height; ; h++ {
			b := from.chain[h]
			if b == nil {
				break
			}
			_ = nd.m.Add(w.clock(nd), b)
		}
		for _, l := range from.m.Tree().Path() {
			_ = nd.m.Add(w.clock(nd), l.Sealed)
		}
		w.drain(nd)
	})
}

func (w *testnet) train(nd *testnode, tr Train) {
	life := nd.life
	w.After(200*time.Millisecond, func() {
		if nd.life != life {
			return
		}
		if nd.fails < w.fail {
			nd.fails++
			nd.m.TrainFailed(w.clock(nd), tr.Base, "warming up")
			w.drain(nd)
			return
		}
		p := slices.Clone(tr.Params)
		for i := range p {
			p[i] += (float32(nd.org) - p[i]) / 4
		}
		_ = nd.m.Trained(w.clock(nd), tr.Base, p)
		w.drain(nd)
	})
}

func (w *testnet) honest() (out []*testnode) {
	for _, nd := range w.nodes {
		if !nd.liar {
			out = append(out, nd)
		}
	}
	return out
}

// conflict looks for two final seals that exclude each other, among all blocks
// that could be sealed from all votes that were ever given to anybody.
func (w *testnet) conflict() string { return conflictIn(w.sealed()) }

func conflictIn(sealed map[wire.Hash]*wire.Block) string {
	var final []wire.Hash
	for _, child := range sealed {
		if b := sealed[child.Parent]; b != nil && child.Round == b.Round+1 {
			final = append(final, child.Parent)
		}
	}
	for _, x := range final {
		for _, y := range final {
			if !within(sealed, x, y) && !within(sealed, y, x) {
				return fmt.Sprintf("rounds %d and %d", sealed[x].Round, sealed[y].Round)
			}
		}
	}
	return ""
}

// sealed are all blocks that have enough votes of the roster on their own path.
func (w *testnet) sealed() map[wire.Hash]*wire.Block {
	tree, err := chain.NewTree(w.gen, hashes{})
	if err != nil {
		w.t.Fatal(err)
	}
	next := map[wire.Hash]chain.Context{tree.Tip().Hash: tree.Tip().Next}
	sealed := map[wire.Hash]*wire.Block{}
	for more := true; more; {
		more = false
		for h, b := range w.block {
			c, ok := next[b.Parent]
			if !ok || sealed[h] != nil {
				continue
			}
			n := 0
			for i, o := range c.Orgs {
				if w.votes[h][o.Voter] && c.Seals(i) {
					n++
				}
			}
			if n >= c.Quorum() {
				sealed[h], next[h], more = b, c.After(b), true
			}
		}
	}
	return sealed
}

// within says whether a is b or before it.
func within(sealed map[wire.Hash]*wire.Block, a, b wire.Hash) bool {
	for at := b; ; {
		if at == a {
			return true
		}
		block := sealed[at]
		if block == nil {
			return false
		}
		at = block.Parent
	}
}
