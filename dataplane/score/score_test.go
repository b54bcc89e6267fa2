package score_test

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score/scoretest"
)

func record() flow.Record {
	k, _ := flow.NewKey(netip.MustParseAddrPort("10.0.0.9:40000"), netip.MustParseAddrPort("192.0.2.1:443"), flow.TCP)
	return flow.Record{
		Key: k, InitInside: true, Start: 1 << 30, Last: 1<<30 + 10<<10, Validated: [2]bool{true, false}, SynAckUS: 70, AckUS: 30,
		NFirst: 2, Sizes: [8]int16{300, -1400, 9}, Gaps: [8]uint32{5, math.MaxUint32, 9}, Hint: flow.HintTLS, Fellows: 12,
		Dir: [2]flow.Dir{
			{Packets: 5, Bytes: 1000, Payload: 300, SizeSq: 5 * 250 * 250, SizeMin: 40, SizeMax: 900, First: 1 << 30, Last: 1<<30 + 8<<10,
				GapSq: 4 * 100, GapMax: 7, SYN: 1, PSH: 2, Retrans: 3, Window: 64240, TTL: 64},
			{Packets: 3, Bytes: 1600, Payload: 100, SizeSq: 10, SizeMin: 41, SizeMax: 1440, First: 1<<30 + 2<<10, Last: 1<<30 + 10<<10, RST: 1, FIN: 1, TTL: 51},
		},
	}
}

func TestFeaturesOfARecord(t *testing.T) {
	r := record()
	v, at, ok := score.FromRecord(&r)
	if !ok || at.Packets() != 8 {
		t.Fatalf("got milestone %d, %v: expected that of 8 packets", at.Packets(), ok)
	}
	out, in := score.DirBase, score.DirBase+score.DirDim
	for i, want := range map[int]int32{
		score.Proto: 6, score.Service: 443, score.Fellows: 12, score.InitInside: 1, score.RespInside: 0, score.InitProved: 1,
		score.RespProved: 0, score.Hint: 1, score.Duration: 10, score.SynAck: 70, score.Ack: 30, score.Answer: 2, score.Firsts: 2,
		score.UploadShare: 768, score.PacketShare: 640, score.Size1: 300, score.Size1 + 1: -1400, score.Size1 + 2: 0,
		score.Gap1: 5, score.Gap1 + 1: math.MaxInt32, score.Gap1 + 2: 0,
		out + score.Packets: 5, out + score.Payload: 300, out + score.SizeMean: 200, out + score.SizeSpread: 250*250 - 200*200,
		out + score.SizeMin: 40, out + score.SizeMax: 900, out + score.GapMean: 2, out + score.GapMax: 7, out + score.GapSpread: 100 * 64 / 5,
		out + score.Rate: 1000 * 1024 / 9, out + score.SYN: 1, out + score.PSH: 2, out + score.Retrans: 3, out + score.Window: 64240,
		out + score.TTL: 64, in + score.SizeSpread: 0, in + score.RST: 1, in + score.FIN: 1, in + score.TTL: 51, in + score.GapMean: 4,
	} {
		if v[i] != want {
			t.Errorf("%s is %d, expected %d", score.Name(i), v[i], want)
		}
	}
	other := r
	other.InitB = true
	if w, _, _ := score.FromRecord(&other); w[score.Service] != 40000 {
		t.Errorf("begun by b: the service is at %d, expected a's port", w[score.Service])
	}
}

// What no plane counts, or a hostile capture claims, is still a vector.
func TestFeaturesOfExtremes(t *testing.T) {
	d := flow.Dir{Packets: 100, Bytes: math.MaxUint64, Payload: math.MaxUint64, SizeSq: math.MaxUint64, First: math.MinInt64, Last: math.MaxInt64,
		GapSq: math.MaxUint64, GapMax: math.MaxUint32}
	r := flow.Record{Start: math.MaxInt64, Last: math.MinInt64, NFirst: 255, Dir: [2]flow.Dir{d, {}}}
	v, at, ok := score.FromRecord(&r)
	if !ok || at.Packets() != 64 {
		t.Fatalf("got milestone %d, %v: expected that of 64 packets", at.Packets(), ok)
	}
	for i, want := range map[int]int32{
		score.Duration: 0, score.Answer: -1, score.UploadShare: 1024, score.DirBase + score.Payload: math.MaxInt32,
		score.DirBase + score.Rate: 0, score.DirBase + score.GapMax: math.MaxInt32, score.DirBase + score.DirDim + score.SizeMean: 0,
	} {
		if v[i] != want {
			t.Errorf("%s is %d, expected %d", score.Name(i), v[i], want)
		}
	}
}

func TestFeaturesNeedTheirFields(t *testing.T) {
	for lack, want := range map[flow.Lack]bool{0: true, flow.LackClock: true, flow.LackTTL: false, flow.LackSplit: false, flow.LackClock | flow.LackRTT: false} {
		r := record()
		r.Lacks = lack
		if _, _, ok := score.FromRecord(&r); ok != want {
			t.Errorf("lacking %s: got %v, expected %v", lack, ok, want)
		}
	}
}

func TestMilestones(t *testing.T) {
	for n := range uint32(2000) {
		at, ok := score.At(n)
		if want := n >= 4 && n < 256; ok != want {
			t.Fatalf("%d packets: got %v, expected %v", n, ok, want)
		}
		if ok && (at.Packets() > n || at < score.Milestones-1 && 2*at.Packets() <= n || !flow.Milestone(at.Packets())) {
			t.Errorf("%d packets: milestone of %d", n, at.Packets())
		}
		if _, due := score.Due(n-1, n); n > 0 && due != (flow.Milestone(n) && n <= 64) {
			t.Errorf("packet %d: due is %v", n, due)
		}
	}
	if at, due := score.Due(3, 40); !due || at.Packets() != 32 {
		t.Errorf("from 3 to 40: got %d, %v, expected that of 32", at.Packets(), due)
	}
	if _, due := score.Due(100, 255); due {
		t.Error("from 100 to 255: nothing was passed")
	}
}

func TestEvalAndDecide(t *testing.T) {
	s := &score.Scorer{
		Forests: []score.Forest{
			{Base: 10, Trees: []score.Tree{
				{Depth: 2, Feature: [6]uint8{3, 7}, Threshold: [6]int32{0, -5}, Leaf: []int16{1, 2, 4, 8}},
				{Depth: 1, Feature: [6]uint8{60}, Threshold: [6]int32{math.MinInt32}, Leaf: []int16{-100, 100}},
			}},
			{Base: -7},
		},
		Steps: [score.Milestones]score.Step{{0, 20, 30}, {1, -7, score.Never}, {0, score.Never, score.Never}, {1, -7, -7}, {0, 0, 0}},
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		x3, x7, x60 int32
		want        int32
	}{
		{0, -5, math.MinInt32, 10 + 1 - 100}, {1, -5, 0, 10 + 2 + 100}, {0, -4, 0, 10 + 4 + 100}, {9, 9, math.MinInt32, 10 + 8 - 100},
	} {
		v := score.Vector{3: c.x3, 7: c.x7, 60: c.x60}
		if got := s.Eval(0, &v); got != c.want {
			t.Errorf("%+v: got %d, expected %d", c, got, c.want)
		}
		if got := s.Eval(1, &v); got != -7 {
			t.Errorf("a forest without trees: got %d, expected its base", got)
		}
	}
	for _, c := range []struct {
		at    score.Milestone
		score int32
		want  score.Action
	}{
		{0, 19, score.Pass}, {0, 20, score.RateLimit}, {0, 29, score.RateLimit}, {0, 30, score.Suspend}, {1, -7, score.RateLimit},
		{2, math.MaxInt32 - 1, score.Pass}, {3, -7, score.Suspend}, {4, -1, score.Pass}, {4, 0, score.Suspend},
	} {
		if got := s.Decide(c.at, c.score); got != c.want {
			t.Errorf("milestone %d, score %d: got %s, expected %s", c.at, c.score, got, c.want)
		}
	}
}

func TestValidateRefuses(t *testing.T) {
	for want, spoil := range map[string]func(*score.Scorer){
		"0 forests":        func(s *score.Scorer) { s.Forests = nil },
		"6 forests":        func(s *score.Scorer) { s.Forests = make([]score.Forest, 6) },
		"forest 9":         func(s *score.Scorer) { s.Steps[2].Forest = 9 },
		"no step uses it":  func(s *score.Scorer) { s.Steps = [score.Milestones]score.Step{} },
		"limit first":      func(s *score.Scorer) { s.Steps[1].Limit, s.Steps[1].Suspend = 2, 1 },
		"base":             func(s *score.Scorer) { s.Forests[0].Base = math.MinInt32 },
		"129 trees":        func(s *score.Scorer) { s.Forests[1].Trees = make([]score.Tree, 129) },
		"depth 7":          func(s *score.Scorer) { s.Forests[1].Trees[0].Depth = 7 },
		"depth 0":          func(s *score.Scorer) { s.Forests[1].Trees[0].Depth = 0 },
		"leaves":           func(s *score.Scorer) { s.Forests[1].Trees[0].Leaf = nil },
		"feature 255":      func(s *score.Scorer) { s.Forests[1].Trees[0].Feature[0] = 255 },
		"no value exceeds": func(s *score.Scorer) { s.Forests[1].Trees[0].Threshold[0] = math.MaxInt32 },
		"is set":           func(s *score.Scorer) { s.Forests[1].Trees[0].Threshold[5] = 1 },
	} {
		s := scoretest.Random(rand.New(rand.NewPCG(1, 1)), 2, 3, 2)
		spoil(s)
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, expected an error that says %q", err, want)
		}
		if _, err := s.Hash(); err == nil {
			t.Errorf("%s: has a hash", want)
		}
	}
}

func TestCodecKeepsAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 2))
	for range 50 {
		s := scoretest.Random(rng, 1+rng.IntN(5), rng.IntN(20), 0)
		b, err := s.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got, err := score.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := got.MarshalBinary()
		if err != nil || !slices.Equal(b, again) {
			t.Fatalf("%v: encodes otherwise once decoded", err)
		}
		v := scoretest.Vector(rng, s)
		for m := range score.Milestone(score.Milestones) {
			if got.Eval(m, &v) != s.Eval(m, &v) {
				t.Fatal("evaluates otherwise once decoded")
			}
		}
		for _, bad := range [][]byte{b[:len(b)-1], append(slices.Clone(b), 0), b[:20], nil} {
			if _, err := score.Decode(bad); err == nil {
				t.Fatalf("%d of %d bytes were decoded", len(bad), len(b))
			}
		}
	}
	if b, err := scoretest.Random(rng, 5, score.MaxTrees, 6).MarshalBinary(); err != nil || len(b) != score.MaxEncoded {
		t.Errorf("the largest has %d bytes, %v: expected %d", len(b), err, score.MaxEncoded)
	}
}

func FuzzDecode(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range 4 {
		b, err := scoretest.Random(rng, 1+i, i, 0).MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := score.Decode(b)
		if err != nil {
			return
		}
		again, err := s.MarshalBinary()
		if err != nil || !slices.Equal(b, again) {
			t.Fatalf("%v: what was decoded encodes otherwise", err)
		}
	})
}

func TestShare(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, part := range []float64{-1, 0, 0.1, 0.5, 1, 7, math.NaN()} {
		want := 0.0
		if part > 0 {
			want = min(part, 1)
		}
		var n, both int
		const hosts = 20000
		s := score.ShareOf([4]uint64{rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64()}, part)
		other := score.ShareOf([4]uint64{rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64()}, part)
		for i := range hosts {
			host := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).As16()
			if s.Picks(host) {
				n++
				if other.Picks(host) {
					both++
				}
			}
		}
		if got := float64(n) / hosts; math.Abs(got-want) > 0.02 {
			t.Errorf("a share of %v picks %v of the hosts", part, got)
		}
		if got := float64(both) / hosts; math.Abs(got-want*want) > 0.03 {
			t.Errorf("two shares of %v have %v of the hosts in common: expected those of chance", part, got)
		}
	}
}

func TestNamesAreApart(t *testing.T) {
	seen := map[string]bool{}
	for i := range score.Dim {
		if n := score.Name(i); n == "" || seen[n] {
			t.Errorf("feature %d: name %q is empty or taken", i, n)
		}
		seen[score.Name(i)] = true
	}
}
