package planetest

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score/scoretest"
)

func scoreCases() []testCase {
	return []testCase{
		{"a score suspends its flow from the packet that decides", dataplane.Enforce, scoreSuspends},
		{"a score is of what the record says", dataplane.Enforce, scoreLooks},
		{"a flow is scored at milestones only", dataplane.Enforce, scoreMilestones},
		{"a score limits its flow to a rate", dataplane.Enforce, scoreLimits},
		{"a score acts on nothing in monitor mode", dataplane.Monitor, scoreMonitors},
		{"a score drops nothing of the never-block list", dataplane.Enforce, scoreSpares},
		{"a scorer in shadow is told and acts on nothing", dataplane.Enforce, scoreShadows},
		{"a scorer on trial decides for its share of the hosts", dataplane.Enforce, scoreTries},
		{"a scorer is replaced at once, or stays", dataplane.Enforce, scoreSwaps},
		{"a hold ends by itself", dataplane.Enforce, scoreEnds},
	}
}

// verdictOf is a scorer that says the same of every flow, at one milestone of it.
func verdictOf(at score.Milestone, a score.Action) *score.Scorer { return scoretest.Constant(7, a, at) }

func (r *rig) scorer() dataplane.Scorer {
	r.t.Helper()
	s, ok := r.Fixture.(dataplane.Scorer)
	if !ok {
		r.t.Fatal("the plane scores nothing")
	}
	return s
}

func (r *rig) score(s dataplane.Scoring) {
	r.t.Helper()
	if err := r.scorer().SetScoring(s); err != nil {
		r.t.Fatalf("set scoring: %v", err)
	}
}

func (r *rig) scoring() dataplane.ScoringState {
	r.t.Helper()
	s, err := r.scorer().ScoringState()
	if err != nil {
		r.t.Fatalf("scoring state: %v", err)
	}
	return s
}

func (r *rig) held() []dataplane.Hit {
	r.t.Helper()
	hits, err := r.scorer().Held()
	if err != nil {
		r.t.Fatalf("held: %v", err)
	}
	return hits
}

// verdicts are the pending events of that kind.
func (r *rig) verdicts() []dataplane.Event {
	r.t.Helper()
	var out []dataplane.Event
	err := r.Poll(func(e *dataplane.Event) {
		if e.Kind == dataplane.EventVerdict {
			v := *e.Verdict
			out = append(out, dataplane.Event{Kind: e.Kind, Record: e.Record, At: e.At, Mode: e.Mode, Verdict: &v})
		}
	})
	if err != nil {
		r.t.Fatalf("poll: %v", err)
	}
	return out
}

// talk is n datagrams of one flow, there and back by turns.
func talk(host, peer netip.AddrPort, n int) []Step {
	var steps []Step
	for i := range n {
		if i%2 == 0 {
			steps = append(steps, Datagram(dataplane.FromInside, host, peer, []byte("ping")))
		} else {
			steps = append(steps, Datagram(dataplane.ToInside, peer, host, []byte("pong")))
		}
	}
	return steps
}

func hashOf(t *testing.T, s *score.Scorer) [32]byte {
	t.Helper()
	h, err := s.Hash()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func scoreSuspends(t *testing.T, r *rig) {
	s := verdictOf(0, score.Suspend)
	r.score(dataplane.Scoring{Active: s, Reason: 77})
	for i, f := range families() {
		began := time.Now()
		r.play(talk(f.host, f.peer, 3)...)
		r.expect(false, "the packet that decides", in(f, f.peer))
		r.expect(false, "after it", talk(f.host, f.peer, 2)...)
		all := r.verdicts()
		if len(all) != 1 {
			t.Fatalf("%s: verdicts: got %d, expected 1", f.name, len(all))
		}
		v, rec := all[0].Verdict, all[0].Record
		want := dataplane.Verdict{Model: hashOf(t, s), Version: 7, Score: 5, Action: score.Suspend, Outcome: dataplane.Acted, Until: v.Until}
		same(t, "verdict", *v, want)
		if d := time.Unix(0, v.Until).Sub(began); d < dataplane.DefaultHold-time.Second || d > dataplane.DefaultHold+time.Minute {
			t.Errorf("held for %s: expected %s", d, dataplane.DefaultHold)
		}
		same(t, "key", rec.Key, key(f.host, f.peer, flow.UDP))
		same(t, "packets", rec.Packets(), 4)
		same(t, "dropped with it", rec.Dropped, 1)
		st := r.scoring()
		same(t, "due", st.Due[0], uint64(i+1))
		same(t, "scored", st.Scored[0], uint64(i+1))
		same(t, "counted", st.Verdicts[0][score.Suspend][dataplane.Acted], uint64(i+1))
		same(t, "dropped", st.Dropped, uint64(3*(i+1)))
		same(t, "dropped of all", r.stats().Dropped, st.Dropped)
		r.play(talk(f.host2, f.peer, 3)...)
		hits := r.held()
		same(t, "held", len(hits), 1)
		rule := hits[0].Rule
		same(t, "held flow", rule.Target.Flow, rec.Key)
		same(t, "action", rule.Action, dataplane.Suspend)
		same(t, "reason", rule.Reason, 77)
		same(t, "hits", hits[0].Packets, 2)
		if err := r.Remove(rule.Target); err != nil {
			t.Fatalf("remove: %v", err)
		}
		same(t, "held once freed", len(r.held()), 0)
		r.play(talk(f.host, f.peer, 3)...)
	}
}

// A random scorer says the same of a flow as package score of its record.
func scoreLooks(t *testing.T, r *rig) {
	rng := rand.New(rand.NewPCG(21, 4))
	s := scoretest.Random(rng, 5, 30, 4)
	for m := range s.Steps { // everything is a verdict, so that the score is told
		s.Steps[m] = score.Step{Forest: uint8(m), Limit: -1 << 31, Suspend: score.Never}
	}
	for i := range s.Forests { // ask what flows of this test may answer either way
		for k := range s.Forests[i].Trees {
			for l := range 4 {
				s.Forests[i].Trees[k].Threshold[l] = rng.Int32N(1 << rng.IntN(20))
			}
		}
	}
	r.score(dataplane.Scoring{Active: s, Shadow: true})
	var told int
	for n := range 12 {
		f := families()[n%2]
		sess := NewSession(netip.AddrPortFrom(f.host.Addr(), uint16(1000+n)), f.peer)
		r.play(sess.Open()...)
		for range 4 + rng.IntN(70) {
			r.play(sess.Data(rng.IntN(2), make([]byte, rng.IntN(900))))
		}
		for _, e := range r.verdicts() {
			v, at, ok := score.FromRecord(&e.Record)
			if !ok || at != e.Verdict.Milestone {
				t.Fatalf("told at milestone %d; the record is at %d, %v", e.Verdict.Milestone, at, ok)
			}
			same(t, "score", e.Verdict.Score, s.Eval(at, &v))
			told++
		}
	}
	if told < 24 {
		t.Errorf("%d verdicts: expected some of each flow", told)
	}
}

func scoreMilestones(t *testing.T, r *rig) {
	f := families()[0]
	r.score(dataplane.Scoring{Active: verdictOf(2, score.Suspend)})
	r.play(talk(f.host, f.peer, 15)...)
	r.expect(false, "packet 16", in(f, f.peer))
	st := r.scoring()
	same(t, "scored", st.Scored, [score.Milestones]uint64{1, 1, 1})
	same(t, "due", st.Due, st.Scored)
	// What reaches no more milestones is asked no more.
	r.score(dataplane.Scoring{Active: verdictOf(0, score.Pass)})
	r.play(talk(f.host2, f.peer2, 300)...)
	same(t, "scored", r.scoring().Scored, [score.Milestones]uint64{2, 2, 2, 1, 1})
	// A TCP flow that ends with a milestone's packet has ended.
	sess := NewSession(f.host2, f.stranger)
	r.score(dataplane.Scoring{Active: verdictOf(0, score.Suspend)})
	r.play(sess.Open()...)
	r.play(sess.Send(1, flow.RST, nil))
	same(t, "verdicts", len(r.verdicts()), 1)
}

func scoreLimits(t *testing.T, r *rig) {
	f := families()[0]
	r.score(dataplane.Scoring{Active: verdictOf(0, score.RateLimit), Rate: 1000})
	r.play(talk(f.host, f.peer, 4)...)
	big := func() Step { return Datagram(dataplane.FromInside, f.host, f.peer, make([]byte, 500)) }
	r.play(big())
	passed := 0
	for range 20 {
		if r.inject(big()) {
			passed++
		}
	}
	if passed > 6 {
		t.Errorf("%d of 20 packets of 528 bytes passed a rate of 1000 bytes a second", passed)
	}
	hits := r.held()
	same(t, "held", len(hits), 1)
	same(t, "action", hits[0].Rule.Action, dataplane.RateLimit)
	same(t, "rate", hits[0].Rule.Rate, 1000)
	same(t, "hits", hits[0].Packets, uint64(20-passed))
	all := r.verdicts()
	same(t, "verdicts", len(all), 1)
	same(t, "action", all[0].Verdict.Action, score.RateLimit)
	r.play(talk(f.host2, f.peer, 3)...)
}

func scoreMonitors(t *testing.T, r *rig) {
	f := families()[0]
	r.score(dataplane.Scoring{Active: verdictOf(0, score.Suspend)})
	r.play(talk(f.host, f.peer, 40)...)
	all := r.verdicts()
	same(t, "verdicts", len(all), 1)
	same(t, "outcome", all[0].Verdict.Outcome, dataplane.Monitored)
	same(t, "until", all[0].Verdict.Until, 0)
	same(t, "held", len(r.held()), 0)
	s := r.stats()
	same(t, "dropped", s.Dropped, 0)
	same(t, "would drop", s.WouldDrop, 1)
	same(t, "all were scored", r.scoring().Scored, [score.Milestones]uint64{1, 1, 1, 1})
}

func scoreSpares(t *testing.T, r *rig) {
	f := families()[0]
	if err := r.SetNever([]dataplane.Never{{Prefix: dataplane.Peer(f.peer.Addr()).Prefix, Proto: flow.UDP}}); err != nil {
		t.Fatalf("set never: %v", err)
	}
	r.score(dataplane.Scoring{Active: verdictOf(0, score.Suspend)})
	r.play(talk(f.host, f.peer, 40)...)
	all := r.verdicts()
	same(t, "verdicts", len(all), 1)
	same(t, "outcome", all[0].Verdict.Outcome, dataplane.Spared)
	same(t, "never saved", r.stats().NeverSaved, 1)
	r.play(talk(f.host, f.stranger, 3)...)
	r.expect(false, "another peer", in(f, f.stranger))
	// What is held is spared as soon as the list says so.
	if err := r.SetNever([]dataplane.Never{{Prefix: dataplane.Peer(f.stranger.Addr()).Prefix}}); err != nil {
		t.Fatalf("set never: %v", err)
	}
	r.play(talk(f.host, f.stranger, 3)...)
	same(t, "never saved", r.stats().NeverSaved, 4)
}

func scoreShadows(t *testing.T, r *rig) {
	f := families()[0]
	for i, s := range []dataplane.Scoring{
		{Active: verdictOf(0, score.Suspend), Shadow: true},
		{Trial: verdictOf(0, score.Suspend)},
		{Active: verdictOf(0, score.Pass), Trial: verdictOf(0, score.Suspend)},
	} {
		r.score(s)
		r.play(talk(netip.AddrPortFrom(f.host.Addr(), uint16(2000+i)), f.peer, 20)...)
		all := r.verdicts()
		if len(all) != 1 {
			t.Fatalf("%d: verdicts: got %d, expected 1", i, len(all))
		}
		same(t, "outcome", all[0].Verdict.Outcome, dataplane.Shadowed)
		same(t, "trial", all[0].Verdict.Trial, i > 0)
		same(t, "held", len(r.held()), 0)
		same(t, "would drop", r.stats().WouldDrop+r.stats().Dropped, 0)
	}
}

func scoreTries(t *testing.T, r *rig) {
	for _, f := range families() {
		rng := rand.New(rand.NewPCG(9, 9))
		share := score.ShareOf([4]uint64{rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64()}, 0.5)
		var chosen, other netip.AddrPort
		for i := byte(1); !chosen.IsValid() || !other.IsValid(); i++ {
			b := f.host.Addr().AsSlice()
			b[len(b)-1] = i
			a, _ := netip.AddrFromSlice(b)
			if share.Picks(a.As16()) {
				chosen = netip.AddrPortFrom(a, 999)
			} else {
				other = netip.AddrPortFrom(a, 999)
			}
		}
		r.score(dataplane.Scoring{Active: verdictOf(1, score.Suspend), Trial: verdictOf(0, score.Suspend), Canary: share})
		r.play(talk(chosen, f.peer, 3)...)
		r.expect(false, "packet 4 of a host of the share", Datagram(dataplane.ToInside, f.peer, chosen, nil))
		// Begun from outside, it is the host all the same.
		r.play(Datagram(dataplane.ToInside, f.stranger, chosen, nil))
		r.play(talk(chosen, f.stranger, 2)...)
		r.expect(false, "packet 4 of a host of the share that was called", Datagram(dataplane.ToInside, f.stranger, chosen, nil))
		same(t, "verdicts", len(r.verdicts()), 2)
		r.play(talk(other, f.peer, 7)...)
		r.expect(false, "packet 8 of another host", Datagram(dataplane.ToInside, f.peer, other, nil))
		all := r.verdicts()
		same(t, "verdicts", len(all), 2)
		same(t, "first", all[0].Verdict.Outcome, dataplane.Shadowed)
		same(t, "first is the trial's", all[0].Verdict.Trial, true)
		same(t, "second", all[1].Verdict.Outcome, dataplane.Acted)
		same(t, "second is the trial's", all[1].Verdict.Trial, false)
	}
}

func scoreSwaps(t *testing.T, r *rig) {
	f := families()[0]
	one, two := verdictOf(0, score.Suspend), verdictOf(0, score.Pass)
	two.Version = 8
	port := uint16(3000)
	try := func(what string, passes bool) {
		t.Helper()
		port++
		host := netip.AddrPortFrom(f.host.Addr(), port)
		r.play(talk(host, f.peer, 3)...)
		r.expect(passes, what, Datagram(dataplane.ToInside, f.peer, host, nil))
	}
	try("without a scorer", true)
	r.score(dataplane.Scoring{Active: one})
	try("with one", false)
	bad := verdictOf(0, score.Pass)
	bad.Forests = nil
	if err := r.scorer().SetScoring(dataplane.Scoring{Active: bad}); err == nil {
		t.Error("a scorer without forests was taken")
	}
	try("with the one before", false)
	r.score(dataplane.Scoring{Active: two})
	try("with another", true)
	st := r.scoring()
	if st.Active == nil || st.Trial != nil || *st.Active != (dataplane.Model{Hash: hashOf(t, two), Version: 8}) {
		t.Errorf("state %+v: expected the second scorer", st)
	}
	same(t, "held over a swap", st.Held, 2)
	r.score(dataplane.Scoring{Active: one})
	try("with the first again", false)
	r.score(dataplane.Scoring{})
	try("with none", true)
	st = r.scoring()
	same(t, "held with none", st.Held, 0)
	if st.Active != nil || st.Trial != nil {
		t.Errorf("state %+v: expected no scorer", st)
	}
	host := netip.AddrPortFrom(f.host.Addr(), port-1)
	r.play(talk(host, f.peer, 3)...)
	r.score(dataplane.Scoring{Active: two})
	r.play(talk(host, f.peer, 3)...)
}

func scoreEnds(t *testing.T, r *rig) {
	f := families()[0]
	r.score(dataplane.Scoring{Active: verdictOf(0, score.Suspend), Hold: time.Second})
	r.play(talk(f.host, f.peer, 3)...)
	r.expect(false, "packet 4", in(f, f.peer))
	same(t, "held", len(r.held()), 1)
	r.within(5*time.Second, "the flow goes on", func() bool { return r.inject(in(f, f.peer)) })
	same(t, "held", len(r.held()), 0)
	r.play(talk(f.host, f.peer, 3)...)
}
