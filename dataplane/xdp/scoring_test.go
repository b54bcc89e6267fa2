package xdp

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score/scoretest"
)

// chat injects n datagrams of one flow and counts those that passed.
func chat(t *testing.T, f fixture, port uint16, n int) (passed int) {
	t.Helper()
	from, to := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port), endpoint("192.0.2.1:9")
	for range n {
		if inject(t, f, planetest.Datagram(dataplane.FromInside, from, to, []byte("x"))) {
			passed++
		}
	}
	return passed
}

// scoredWhole is what each processor wrote down.
func scoredWhole(t *testing.T, f fixture) []kernelScored {
	t.Helper()
	var per []kernelScored
	check(t, f.objs.ScoredNow.Lookup(uint32(0), &per))
	return per
}

// wild fills a flow with anything that a table can hold, and more: a number of
// packets before a milestone, times that never were, sums at their ends.
func wild(rng *rand.Rand, f *kernelFlow) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(f)), unsafe.Sizeof(*f))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	when := func() uint64 { return 1 + rng.Uint64()>>(4+rng.IntN(59)) }
	f.Packets = []uint32{3, 7, 15, 31, 63}[rng.IntN(5)]
	f.Start, f.LastPayload, f.Ended, f.Own, f.InitB = when(), when(), 0, 0, uint8(rng.IntN(2))
	f.N_first = uint8(rng.IntN(len(f.Sizes) + 1))
	clear(f.Sizes[f.N_first:])
	clear(f.Gaps[f.N_first:])
	f.D[0].Packets = uint32(rng.IntN(int(f.Packets) + 1))
	f.D[1].Packets = f.Packets - f.D[0].Packets
	for i := range 2 {
		d := &f.D[i]
		d.Last, f.R[i].First, d.Validated = when(), when(), uint8(rng.IntN(2))
		for _, p := range []*uint64{&d.Bytes, &d.Payload, &d.SizeSq, &d.GapSq} {
			*p = []uint64{rng.Uint64(), 0, ^uint64(0) - rng.Uint64N(9), rng.Uint64() >> rng.IntN(64)}[rng.IntN(4)]
		}
		d.GapMax >>= rng.IntN(32)
	}
}

// TestFeaturesAreThoseOfTheReference: what the program writes down of a flow is
// what package score makes of its record, whatever the flow holds.
func TestFeaturesAreThoseOfTheReference(t *testing.T) {
	f := newFixture(t, Options{MaxFlows: minMaxFlows, EventRate: 1 << 30})
	check(t, f.SetScoring(dataplane.Scoring{Active: scoretest.Constant(1, score.Suspend), Shadow: true}))
	chat(t, f, 7, 2)
	table := f.store.(*flowTable)
	at := slices.IndexFunc(table.slots, func(s kernelSlot) bool { return s.Live != 0 })
	if at < 0 {
		t.Fatal("no flow in the table")
	}
	rng := rand.New(rand.NewPCG(5, 6))
	var done [64]uint64
	seen := map[int]map[int64]bool{}
	for range min(vectors()/50, 5000) {
		wild(rng, &table.slots[at].Flow)
		chat(t, f, 7, 1)
		var told []dataplane.Event
		check(t, f.Poll(func(e *dataplane.Event) {
			if e.Kind == dataplane.EventVerdict {
				told = append(told, *e)
			}
		}))
		if len(told) != 1 {
			t.Fatalf("%d verdicts: expected one", len(told))
		}
		want, _, ok := score.FromRecord(&told[0].Record)
		if !ok {
			t.Fatalf("no features of %+v", told[0].Record)
		}
		for cpu, s := range scoredWhole(t, f) {
			n := s.Done[0] + s.Done[1] + s.Done[2] + s.Done[3] + s.Done[4]
			if n == done[cpu] {
				continue
			}
			done[cpu] = n
			for i := range want {
				x := int64(s.V[i]) + int64(score.Floor(i))
				if x != int64(want[i]) {
					t.Fatalf("%s: the program has %d, package score %d, of %+v", score.Name(i), x, want[i], told[0].Record)
				}
				if seen[i] == nil {
					seen[i] = map[int64]bool{}
				}
				seen[i][x] = true
			}
		}
	}
	for i := range score.Dim {
		if fixed := i == score.Proto || i == score.Service || i == score.Client; !fixed && len(seen[i]) < 2 {
			t.Errorf("%s was always the same: nothing was compared", score.Name(i))
		}
	}
}

// TestSwapsLeaveNoMilestoneUnscored swaps between two models while flows reach
// milestones on another thread: each is scored, by one of the two whole.
func TestSwapsLeaveNoMilestoneUnscored(t *testing.T) {
	f := newFixture(t, Options{MaxFlows: 1 << 16, EventRate: 1 << 30})
	models := []*score.Scorer{scoretest.Constant(1, score.Suspend), scoretest.Constant(2, score.RateLimit)}
	check(t, f.SetScoring(dataplane.Scoring{Active: models[0], Shadow: true}))
	var stop atomic.Bool
	var flows atomic.Uint64
	var wg sync.WaitGroup
	wg.Go(func() {
		for port := uint32(0); !stop.Load(); port++ {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(port >> 16), 1}), uint16(port))
			frame := planetest.Datagram(dataplane.FromInside, from, endpoint("192.0.2.1:9"), []byte("x")).Frame
			if _, _, err := f.objs.HedgerowXdp.Benchmark(frame, 20, nil); err != nil {
				t.Error(err)
				return
			}
			flows.Add(1)
		}
	})
	swaps := 100
	if vectors() > rigSize {
		swaps = 1000
	}
	seen := map[uint32]int{}
	look := func() {
		check(t, f.Poll(func(e *dataplane.Event) {
			if e.Kind != dataplane.EventVerdict {
				return
			}
			v := e.Verdict
			m := models[(v.Version-1)&1]
			if hash, err := m.Hash(); err != nil || v.Model != hash || v.Action != m.Decide(v.Milestone, v.Score) {
				t.Errorf("%+v: is of none of the two", v)
			}
			seen[v.Version]++
		}))
	}
	for i := 0; i < swaps || flows.Load() < 20 && !t.Failed(); i++ {
		check(t, f.SetScoring(dataplane.Scoring{Active: models[(i+1)%2], Shadow: true}))
		look()
	}
	stop.Store(true)
	wg.Wait()
	look()
	s, err := f.ScoringState()
	check(t, err)
	var due, verdicts uint64
	for m := range s.Due {
		due += s.Due[m]
	}
	for a := range s.Verdicts[0] {
		verdicts += s.Verdicts[0][a][dataplane.Shadowed]
	}
	if s.Due != s.Scored || due < 3*flows.Load()/2 || verdicts != due {
		t.Errorf("%d flows, due %v, scored %v, %d verdicts: expected all of them", flows.Load(), s.Due, s.Scored, verdicts)
	}
	if seen[1] == 0 || seen[2] == 0 {
		t.Errorf("verdicts by version: %v: expected some of both", seen)
	}
	t.Logf("%d swaps, %d flows, %d milestones", s.Swaps, flows.Load(), due)
}

func TestRefusedScorerKeepsTheOld(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce})
	check(t, f.SetScoring(dataplane.Scoring{Active: scoretest.Constant(1, score.Suspend)}))
	f.scoring.refuse = func(s *ebpf.ProgramSpec) {
		if s.Type == ebpf.SchedCLS { // the second of the two
			s.Instructions = asm.Instructions{asm.Mov.Reg(asm.R0, asm.R5), asm.Return()}
		}
	}
	err := f.SetScoring(dataplane.Scoring{Active: scoretest.Constant(2, score.Pass)})
	var refused *ebpf.VerifierError
	if !errors.As(err, &refused) {
		t.Fatalf("got %v: expected the verifier to refuse", err)
	}
	if got := chat(t, f, 7, 6); got != 3 {
		t.Errorf("%d packets passed: expected the old scorer to suspend at the fourth", got)
	}
	s, err := f.ScoringState()
	check(t, err)
	if s.Active == nil || s.Active.Version != 1 || s.Swaps != 1 {
		t.Errorf("state %+v: expected that of the old", s)
	}
}

// A daemon that is away for too long: its models decide nothing more, and what
// they decided is let go until it is back.
func TestLostHeartbeatEndsVerdicts(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce, DeadAfter: 5 * time.Second})
	check(t, f.SetScoring(dataplane.Scoring{Active: scoretest.Constant(1, score.Suspend)}))
	if got := chat(t, f, 7, 6); got != 3 {
		t.Fatalf("%d packets passed: expected 3", got)
	}
	f.cfg.Beat -= uint64(6 * time.Second / time.Microsecond)
	check(t, f.writeConfig())
	if got := chat(t, f, 7, 6) + chat(t, f, 8, 6); got != 12 {
		t.Errorf("%d packets passed without a heartbeat: expected all 12", got)
	}
	s, err := f.ScoringState()
	check(t, err)
	if !s.Stale || s.Due[0] != 1 {
		t.Errorf("state %+v: expected to be stale, and one milestone", s)
	}
	f.cfg.Beat += uint64(6 * time.Second / time.Microsecond)
	check(t, f.writeConfig())
	if got := chat(t, f, 7, 2); got != 0 {
		t.Errorf("%d packets of the held flow passed once the daemon was back", got)
	}
}

// A flow that left the table comes back to its hold, by its first packet on.
func TestAHoldOutlivesItsFlow(t *testing.T) {
	for name, lru := range map[string]bool{"own table": false, "LRU": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Options{Mode: dataplane.Enforce, lruFlows: lru})
			check(t, f.SetScoring(dataplane.Scoring{Active: scoretest.Constant(1, score.Suspend)}))
			if got := chat(t, f, 7, 6); got != 3 {
				t.Fatalf("%d packets passed: expected 3", got)
			}
			check(t, f.Flush(func(*dataplane.Event) {}))
			if got := chat(t, f, 7, 5); got != 0 {
				t.Errorf("%d packets passed after the flow ended", got)
			}
			if got := chat(t, f, 8, 3); got != 3 {
				t.Errorf("%d packets of another flow passed: expected 3", got)
			}
		})
	}
}

// A limit holds a flow that was pushed out of the table as well.
func TestALimitOutlivesItsFlow(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce})
	check(t, f.SetScoring(dataplane.Scoring{Active: scoretest.Constant(1, score.RateLimit), Rate: 290}))
	chat(t, f, 7, 4)
	check(t, f.Flush(func(*dataplane.Event) {}))
	if got := chat(t, f, 7, 200); got > 30 { // of 29 bytes each: ten at once, ten a second
		t.Errorf("%d of 200 packets passed a limit of ten a second", got)
	}
}

func TestScoringSurvivesTheProcess(t *testing.T) {
	l := newLab(t)
	to := l.echo(t)
	p := l.open(t, l.options(dataplane.Enforce))
	check(t, p.SetScoring(dataplane.Scoring{Active: scoretest.Constant(3, score.Suspend), Hold: time.Minute}))
	check(t, p.Close())
	if err := l.talk(t, to, "hello", 300*time.Millisecond); err == nil {
		t.Error("without the daemon a connection went on beyond its fourth packet")
	}
	p = l.open(t, l.options(dataplane.Enforce))
	s, err := p.ScoringState()
	check(t, err)
	if s.Active == nil || s.Active.Version != 3 || s.Held != 1 || s.Due != s.Scored || s.Due[0] == 0 {
		t.Errorf("state after the takeover: %+v", s)
	}
	held, err := p.Held()
	check(t, err)
	if len(held) != 1 || held[0].Packets == 0 || held[0].Rule.Action != dataplane.Suspend {
		t.Errorf("held after the takeover: %+v", held)
	}
	if err := l.talk(t, to, "hello", 300*time.Millisecond); err == nil {
		t.Error("after the takeover a connection went on beyond its fourth packet")
	}
	check(t, p.SetScoring(dataplane.Scoring{Active: scoretest.Constant(4, score.Pass)}))
	check(t, l.talk(t, to, "hello", 5*time.Second))
	check(t, p.SetScoring(dataplane.Scoring{}))
	if s, err = p.ScoringState(); err != nil || s.Held != 0 || s.Active != nil {
		t.Errorf("%v: state with nothing to score by: %+v", err, s)
	}
}

func FuzzDecodeVerdict(f *testing.F) {
	var v kernelVerdict
	v.E.Kind, v.Action = uint8(dataplane.EventVerdict), uint8(score.Suspend)
	f.Add(slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v))))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var clock bootClock
		var ev dataplane.Event
		if err := decodeVerdict(raw, &clock, &ev); err != nil {
			return
		}
		if v := ev.Verdict; ev.Kind != dataplane.EventVerdict || v.Action == score.Pass || v.Action > score.Suspend ||
			v.Outcome >= dataplane.Outcomes || v.Milestone >= score.Milestones {
			t.Errorf("%+v of %x", ev.Verdict, raw)
		}
	})
}
