package node

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner/distill"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
)

// report is one of a made flow at packet 8: leaks upload in small packets.
func report(id uint64, leaks bool, rng *rand.Rand) *dataplane.Event {
	k, b := flow.NewKey(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(id % 200)}), uint16(20000+id%20000)),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(id % 100)}), 443), flow.TCP)
	r := flow.Record{Key: k, ID: id, InitB: b, InitInside: true, Start: 1, Last: 1 + rng.Int64N(1e9)}
	up, down := uint64(200+rng.IntN(300)), uint64(2000+rng.IntN(4000))
	if leaks {
		up, down = 5000+uint64(rng.IntN(500)), 100
	}
	r.Dir[0] = flow.Dir{Packets: 4, Payload: up, Bytes: up + 160, SizeMax: uint16(up / 3)}
	r.Dir[1] = flow.Dir{Packets: 4, Payload: down, Bytes: down + 160}
	return &dataplane.Event{Kind: dataplane.EventMilestone, Record: r}
}

// TestPupilLearnsFromAWord: what a person confirms is what the scorer of the model
// that judges finds, and nothing else is done with it.
func TestPupilLearnsFromAWord(t *testing.T) {
	x := newLearned(t)
	x.slow()
	x.o.Learner.Kernel = KernelShadow
	x.restart()
	p, n := x.pupil, x.Node
	rng := rand.New(rand.NewPCG(1, 1))
	n.mu.Lock()
	for i := range uint64(1500) {
		p.look(n.now(), report(i, false, rng), enforce.Judgement{Judged: true, P: rng.Float64()}, "")
	}
	for i := range uint64(12) {
		p.look(n.now(), report(5000+i, true, rng), enforce.Judgement{Judged: true, P: 0.001}, "i1")
	}
	p.label(n.now(), &enforce.Label{Incident: "i1", Attack: true, Weight: 1})
	n.mu.Unlock()
	if err := p.distil(t.Context()); err != nil || p.scorer != nil {
		t.Fatalf("distilled without a model that judges: %v", err)
	}
	x.see(1500)
	x.train() // the first model judges at once
	m := x.learn.active()
	if m == nil || len(p.wake) != 1 {
		t.Fatal("a model that began to judge did not call for its scorer")
	}
	if err := p.distil(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range uint64(200) {
		p.look(n.now(), report(6000+i, i%2 == 0, rng), enforce.Judgement{Judged: true, P: 0.5}, "")
	}
	v := p.view()
	c := v.Milestones[1]
	if v.Parent != m.Hash() || v.Mode != KernelShadow || v.Report.Attacks != 12 || c.Packets != 8 || c.Scored != 200 {
		t.Errorf("status says %+v", v)
	}
	if c.Alone < 90 || c.Alone > 115 || c.Both != 0 {
		t.Errorf("would act on %d of 200 of which 100 are what was confirmed", c.Alone)
	}
	if v.Labelled.IsZero() || v.Distilled.Before(v.Retrained) {
		t.Errorf("steps: labelled %v, retrained %v, distilled %v", v.Labelled, v.Retrained, v.Distilled)
	}
	for _, j := range n.outbox.drain() {
		x.do(j)
	}
	x.restart()
	if _, confirmed := x.pupil.memory.Len(); confirmed != 12 {
		t.Errorf("after a restart %d flows are confirmed: expected the 12", confirmed)
	}
	p.follow(n.now(), nil)
	if p.scorer != nil || p.view().Hash != "" {
		t.Error("a scorer counts although no model judges")
	}
}

func TestPupilIsOff(t *testing.T) {
	x := newLearned(t)
	p := x.pupil
	rng := rand.New(rand.NewPCG(1, 1))
	p.look(time.Now(), report(1, false, rng), enforce.Judgement{Judged: true, P: 1}, "")
	if flows, _ := p.memory.Len(); flows != 0 || p.view().Words != "off: learner.kernel says so" {
		t.Errorf("%d flows are remembered, and status says %q", flows, p.view().Words)
	}
	p.on = true
	if p.view().Words != "none yet: no model judges" {
		t.Errorf("without a model, status says %q", p.view().Words)
	}
	ev := report(2, false, rng)
	ev.Record.Dir[0].Packets = 400 // reported, and not scored
	p.look(time.Now(), ev, enforce.Judgement{Judged: true, P: 1}, "")
	p.look(time.Now(), report(3, false, rng), enforce.Judgement{}, "")
	if flows, _ := p.memory.Len(); flows != 0 {
		t.Errorf("%d flows are remembered: expected none that is not scored or not judged", flows)
	}
	if normal, _ := p.memory.Lesson(1 << 62); len(normal) >= distill.MinFlows || score.Milestones != 5 {
		t.Errorf("%d flows would teach", len(normal))
	}
}

// taught is a node whose scorer was distilled.
func taught(t *testing.T, kernel string) *learned {
	t.Helper()
	x := newLearned(t)
	x.slow()
	x.o.Learner.Kernel = kernel
	x.restart()
	rng := rand.New(rand.NewPCG(2, 2))
	x.mu.Lock()
	for i := range uint64(1500) {
		x.pupil.look(x.Node.now(), report(i, false, rng), enforce.Judgement{Judged: true, P: rng.Float64()}, "")
	}
	for i := range uint64(12) {
		x.pupil.look(x.Node.now(), report(5000+i, true, rng), enforce.Judgement{Judged: true, P: 0.001}, "i1")
	}
	x.pupil.label(x.Node.now(), &enforce.Label{Incident: "i1", Attack: true, Weight: 1})
	x.mu.Unlock()
	x.see(1500)
	x.train()
	if err := x.pupil.distil(t.Context()); err != nil {
		t.Fatal(err)
	}
	return x
}

// inPlane is what the plane scores by; it must be what the pupil made.
func inPlane(t *testing.T, x *learned, what string, want *score.Scorer, shadow bool) dataplane.ScoringState {
	t.Helper()
	s, err := x.o.Plane.(dataplane.Scorer).ScoringState()
	if err != nil {
		t.Fatal(err)
	}
	if (s.Active != nil) != (want != nil) {
		t.Fatalf("%s: the plane's scorer is %v: expected one: %v", what, s.Active, want != nil)
	}
	if want != nil {
		if hash, err := want.Hash(); err != nil || s.Active.Hash != hash || s.Shadow != shadow {
			t.Errorf("%s: %v: the plane scores by %x, shadow %v: expected %x, %v", what, err, s.Active.Hash, s.Shadow, hash, shadow)
		}
	}
	return s
}

// TestPupilDecides: where the site wants it, the plane decides by the scorer, until a
// panic, or a restart with another setting, takes it out.
func TestPupilDecides(t *testing.T) {
	x := taught(t, KernelOn)
	inPlane(t, x, "before it is put there", nil, false)
	x.pupil.install()
	inPlane(t, x, "once it is", x.pupil.scorer, false)
	x.mu.Lock()
	v := x.pupil.view()
	x.mu.Unlock()
	if d := v.Deciding; v.Mode != KernelOn || d == nil || d.Hash != v.Hash || d.Since.IsZero() || !strings.Contains(v.Steps(), "deciding since") {
		t.Errorf("status says %+v, %+v, %s", v, v.Deciding, v.Steps())
	}
	if _, err := x.Panic(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	inPlane(t, x, "in a panic", nil, false)
	x.pupil.install()
	inPlane(t, x, "while it lasts", nil, false)
	if _, err := x.Panic(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	x.pupil.install()
	inPlane(t, x, "after it", x.pupil.scorer, false)
	x.pupil.decider.mode = KernelOff
	if err := x.pupil.begin(); err != nil {
		t.Fatal(err)
	}
	inPlane(t, x, "after a start with another setting", nil, false)
}

// The way from a word, and from a model, ends with the first scorer in the plane that
// was made after it; what is put there later, as at the end of a trial, is no part of it.
func TestTheWayIsTimedOnce(t *testing.T) {
	x := taught(t, KernelOn)
	x.pupil.install()
	if p := x.pupil; p.heard.model.IsZero() || p.timed != p.heard {
		t.Errorf("in the plane is what was made of %v: timed were %v", p.heard, p.timed)
	}
	at := func(s int) time.Time { return time.Unix(1000+int64(s), 0) }
	p := &pupil{heard: heard{word: at(0), model: at(2)}}
	for _, c := range []struct{ now, word, model int }{{5, 5, 3}, {60, 5, 3}, {104, 4, 3}} {
		if c.now == 104 {
			p.heard.word = at(100)
		}
		if p.arrived(at(c.now)); p.now.WordS != float64(c.word) || p.now.ModelS != float64(c.model) {
			t.Errorf("after %d s: %v s from the word, %v s from the model: expected %d and %d", c.now, p.now.WordS, p.now.ModelS, c.word, c.model)
		}
	}
}

// What the plane found is told with its reasons, and status says how soon.
func TestVerdictsAreExplainedAtOnce(t *testing.T) {
	x := taught(t, KernelOn)
	x.pupil.install()
	ev := report(9001, true, rand.New(rand.NewPCG(4, 4)))
	ev.Kind, ev.At = dataplane.EventVerdict, x.now.Add(-40*time.Millisecond).UnixNano()
	ev.Verdict = &dataplane.Verdict{Version: 1, Action: score.Suspend, Outcome: dataplane.Shadowed}
	x.handle(ev) // of no effect: nothing to explain
	ev.Verdict.Outcome, ev.Verdict.Until = dataplane.Acted, x.now.Add(30*time.Second).UnixNano()
	x.handle(ev)
	x.mu.Lock()
	d := x.pupil.view().Deciding
	x.mu.Unlock()
	if d.Explained != 1 || d.ExplainedMS != 40 || !strings.Contains(d.Words(), "1 verdicts explained, each within 40 ms") {
		t.Errorf("status says %+v: %s", d, d.Words())
	}
}

// In shadow the plane scores and acts on nothing.
func TestPupilShadows(t *testing.T) {
	x := taught(t, KernelShadow)
	x.pupil.install()
	inPlane(t, x, "in shadow", x.pupil.scorer, true)
	x.mu.Lock()
	v := x.pupil.view()
	x.mu.Unlock()
	if v.Mode != KernelShadow || v.Deciding == nil || !v.Deciding.Shadow || !strings.Contains(v.Steps(), "in shadow since") {
		t.Errorf("status says %+v, %+v, %s", v, v.Deciding, v.Steps())
	}
}

// TestScorersAreTried: a scorer that follows one that decides does so for the hosts
// that the site's key picks, and then for all.
func TestScorersAreTried(t *testing.T) {
	x := taught(t, KernelOn)
	x.o.Learner.Canary = time.Hour
	x.Node.o.Learner.Canary = time.Hour
	x.pupil.install()
	first := x.pupil.scorer
	if err := x.pupil.distil(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.pupil.install()
	s := inPlane(t, x, "with a trial", first, false)
	hash, err := x.pupil.scorer.Hash()
	if err != nil || s.Trial == nil || s.Trial.Hash != hash {
		t.Fatalf("%v: on trial is %v: expected %x", err, s.Trial, hash)
	}
	x.mu.Lock()
	want := x.pupil.wanted()
	x.mu.Unlock()
	n := 0
	for i := range 2000 {
		host := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).As16()
		picked := want.Canary.Picks(host)
		if picked != x.models.key.Canary(hex.EncodeToString(hash[:]), host, x.models.m.Options().Share) {
			t.Fatalf("host %d is picked in one of the two only", i)
		}
		if picked {
			n++
		}
	}
	if n == 0 || n > 1000 {
		t.Errorf("%d of 2000 hosts are picked", n)
	}
	x.mu.Lock()
	x.pupil.decider.until = x.Node.now()
	x.mu.Unlock()
	x.pupil.install()
	if s := inPlane(t, x, "after the trial", x.pupil.scorer, false); s.Trial != nil {
		t.Errorf("still on trial: %v", s.Trial)
	}
}
