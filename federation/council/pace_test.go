package council

import (
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// alone is a machine of seven that hears only what the test tells it, after it has
// committed in the first round.
func alone(t *testing.T) (w *testnet, m *Machine) {
	t.Helper()
	w = newNet(t, 7, 1)
	m, err := New(w.config(w.nodes[0]))
	if err != nil {
		t.Fatal(err)
	}
	m.Tick(epoch)
	job := m.Ready().Train
	if job == nil {
		t.Fatal("nothing is asked to train")
	}
	if err := m.Trained(epoch, job.Base, []float32{1, 2}); err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Ready().Seal {
		if err := m.Step(epoch, &wire.Message{Author: w.nodes[0].id, Seq: 1, Time: epoch, Payload: p}); err != nil {
			t.Fatal(err)
		}
	}
	if sent := len(m.Ready().Send); sent == 0 {
		t.Fatal("a commitment was not sent")
	}
	return w, m
}

// commits is a node's commitment, as the others hear it.
func (w *testnet) commits(nd *testnode) *wire.Message {
	p := &wire.Commit{Round: 1, Parent: w.gen.Hash(), Commit: wire.Hash{byte(nd.org), 9}}
	st := chain.Statement{Kind: chain.SayCommit, Round: p.Round, Parent: p.Parent, Hash: p.Commit}
	copy(p.Sig[:], fakeSign(nd.id, st.Kind, st.Bytes(w.gen.Hash())))
	return &wire.Message{Author: nd.id, Seq: 1, Time: w.Now, Payload: p}
}

// repeats says whether a tick sends a commitment again.
func repeats(m *Machine, now time.Time) bool {
	m.Tick(now)
	for _, msg := range m.Ready().Send {
		if msg.Kind() == wire.KindCommit {
			return true
		}
	}
	return false
}

// What a member said is said again when nothing is heard for a while; what others say
// meanwhile puts that off, but not for ever: who talks must not silence anybody.
func TestRepeatsWhenNothingComes(t *testing.T) {
	_, m := alone(t)
	retry := m.cfg.Retry
	if repeats(m, epoch.Add(retry/2)) {
		t.Error("said again before there was time for an answer")
	}
	if !repeats(m, epoch.Add(retry)) {
		t.Error("not said again though nothing came")
	}

	w, busy := alone(t)
	now := epoch
	for _, nd := range w.nodes[1:] {
		now = now.Add(retry * 4 / 5)
		if now.Sub(epoch) >= busy.cfg.Announce {
			break
		}
		if err := busy.Step(now, w.commits(nd)); err != nil {
			t.Fatal(err)
		}
		if repeats(busy, now) {
			t.Errorf("said again after %v, while words come", now.Sub(epoch))
		}
	}
	if !repeats(busy, epoch.Add(busy.cfg.Announce)) {
		t.Error("others' words keep ours back for ever")
	}
}

// Where rounds take long, a word that is late is not said again so soon.
func TestSlowRoundsMakePatient(t *testing.T) {
	_, m := alone(t)
	retry := m.cfg.Retry
	for took, expected := range map[time.Duration]time.Duration{0: 1, 8: 2, 1000: 4} { // in Retry; Announce is 4
		if got := m.patient(took * retry); got != expected*retry {
			t.Errorf("after a round of %d Retry: %v until words are said again, expected %v", took, got, expected*retry)
		}
	}
	m.patience = m.patient(12 * retry)
	now := m.since.Add(time.Minute)
	m.enter(now, 2)
	if again, most := m.resendAt.Sub(now), m.resendBy.Sub(now); again != 3*retry || most != 12*retry {
		t.Errorf("said again after %v of silence and %v at the latest: expected %v and %v", again, most, 3*retry, 12*retry)
	}
}

// What was heard before brings no news.
func TestOldWordsAreNoNews(t *testing.T) {
	w, m := alone(t)
	msg := w.commits(w.nodes[1])
	if err := m.Step(epoch, msg); err != nil {
		t.Fatal(err)
	}
	at := m.resendAt
	if err := m.Step(epoch.Add(m.cfg.Retry/2), msg); wire.ReasonOf(err) != wire.Duplicate {
		t.Fatalf("%v: expected a duplicate", err)
	}
	if m.resendAt != at {
		t.Error("a duplicate puts off what is to be said again")
	}
}

// A few things are asked for at a time, each of its owner first; who does not answer
// holds up nothing but its own.
func TestAsksForAFewAtATime(t *testing.T) {
	w, m := alone(t)
	c := &m.tree.Tip().Next
	const wants = 2*fetchesAtOnce + 3
	for i := range wants {
		m.want(epoch, wire.Hash{byte(i)}, c, w.nodes[1+i%6].id)
	}
	asked := make(map[wire.Hash]int)
	now := epoch
	for step := range 3 {
		m.fetch(now)
		got := m.Ready().Fetch
		if expected := min(fetchesAtOnce, wants-len(asked)); len(got) < expected || len(got) > fetchesAtOnce {
			t.Fatalf("step %d: %d asked for, expected %d", step, len(got), expected)
		}
		for _, f := range got {
			if asked[f.Hash]++; asked[f.Hash] == 1 && f.From != w.nodes[1+int(f.Hash[0])%6].id {
				t.Errorf("%s was asked of another than its owner first", f.Hash.Short())
			}
		}
		if m.fetch(now); len(m.Ready().Fetch) > 0 {
			t.Errorf("step %d: more was asked for at once", step)
		}
		m.last = now
		if next := m.fetchAt(); !next.After(now) {
			t.Errorf("step %d: a tick is due at once, though nobody can be asked", step)
		}
		now = now.Add(m.cfg.Retry)
	}
	if len(asked) != wants {
		t.Errorf("%d of %d were asked for: those that got no answer are asked again before the others", len(asked), wants)
	}
}

// What one waits for is asked for again of another, and members do not all ask in the
// same order.
func TestAsksAnother(t *testing.T) {
	w, m := alone(t)
	c := &m.tree.Tip().Next
	h := wire.Hash{1}
	m.want(epoch, h, c, w.nodes[3].id)
	from := make(map[string]bool)
	for i := range 6 {
		m.fetch(epoch.Add(time.Duration(i) * m.cfg.Retry))
		for _, f := range m.Ready().Fetch {
			from[string(f.From)] = true
		}
	}
	if len(from) != 6 || from[string(m.cfg.Self)] {
		t.Errorf("%d sources were asked: expected each of the six others", len(from))
	}
	orders := make(map[bool]bool)
	for _, nd := range w.nodes {
		other, err := New(w.config(nd))
		if err != nil {
			t.Fatal(err)
		}
		orders[other.compare(wire.Hash{0x55}, wire.Hash{0xaa}) < 0] = true
	}
	if len(orders) != 2 {
		t.Error("seven members ask in one order")
	}
}

// Who lacks a seal hears of it by the commitments that build on it: nobody tells of a seal
// that brought all of them on. The block is asked for once Retry has passed, and only
// commitments of a round that there cannot be without it count.
func TestCommitmentsTellOfASeal(t *testing.T) {
	w, m := alone(t)
	says := func(i int, round uint64) {
		p := &wire.Commit{Round: round, Parent: wire.Hash{0xab}, Commit: wire.Hash{byte(i), 9}}
		st := chain.Statement{Kind: chain.SayCommit, Round: p.Round, Parent: p.Parent, Hash: p.Commit}
		copy(p.Sig[:], fakeSign(w.nodes[i].id, st.Kind, st.Bytes(w.gen.Hash())))
		if err := m.Step(epoch, &wire.Message{Author: w.nodes[i].id, Seq: 1, Time: epoch, Payload: p}); err != nil {
			t.Fatal(err)
		}
	}
	retry := epoch.Add(m.cfg.Retry)
	says(1, 1)
	m.Tick(retry)
	if s := m.Ready().Sync; s != nil {
		t.Fatalf("%+v is asked for: a commitment of the round that we are in needs no seal", s)
	}
	says(2, 2)
	if s := m.Ready().Sync; s != nil {
		t.Fatalf("%+v is asked for at once: its votes are on their way", s)
	}
	if !m.Next().Before(retry.Add(2 * m.cfg.Retry)) {
		t.Errorf("the next tick is %s on", m.Next().Sub(retry))
	}
	m.Tick(retry.Add(m.cfg.Retry))
	if s := m.Ready().Sync; s == nil || s.From != w.nodes[2].id || s.Height != 1 {
		t.Errorf("%+v is asked for: expected the first block of who committed on it", s)
	}
}
