package distill

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner/trees"
)

// made are flows of one kind: normal ones answer about as much as they are asked;
// odd ones upload in regular small packets, which no single number shows.
func made(n int, odd bool, seed uint64) []Flow {
	rng := rand.New(rand.NewPCG(seed, 7))
	out := make([]Flow, n)
	for i := range out {
		up := rng.IntN(1024)
		size := 60 + rng.IntN(1400)
		if odd {
			up, size = 900+rng.IntN(124), 60+rng.IntN(200)
		} else if up > 880 && size < 280 {
			size += 400
		}
		for m := range score.Milestone(1 + rng.IntN(score.Milestones)) {
			l := Look{At: m, P: rng.Float32()}
			l.X[score.UploadShare], l.X[score.Proto] = int32(up), 6
			l.X[score.DirBase+score.SizeMean] = int32(size)
			l.X[score.DirBase+score.Packets] = int32(m.Packets() / 2)
			l.X[score.Duration] = int32(rng.IntN(1 << 20))
			l.X[score.DirBase+score.TTL] = int32(rng.IntN(1 << 16))
			out[i].Looks = append(out[i].Looks, l)
		}
	}
	return out
}

func weighed(fs []Flow, w float32) []Flow {
	for i := range fs {
		fs[i].Weight = w
	}
	return fs
}

func share(s *score.Scorer, fs []Flow) float64 {
	n := 0
	for i := range fs {
		if acts(s, &fs[i]) {
			n++
		}
	}
	return float64(n) / float64(len(fs))
}

// With fewer held flows than the budget asks for, a scorer acts on nothing, and its
// report says so; with as many it acts.
func TestFewFlowsMakeAMuteScorer(t *testing.T) {
	for n, mute := range map[int]bool{400: true, 700: false} {
		r, err := Distil(t.Context(), made(n, false, 1), weighed(made(40, true, 2), 1), Options{Budget: 1e-4, Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		if got := share(r.Scorer, made(500, true, 5)) == 0; got != mute || r.Report.Mute() != mute {
			t.Errorf("%d flows, %d held: mute %v, which the report says: %v; expected %v", n, r.Report.Held, got, r.Report.Mute(), mute)
		}
	}
}

func TestDistilFindsAndKeepsTheBudget(t *testing.T) {
	const budget = 0.01
	r, err := Distil(t.Context(), made(6000, false, 1), weighed(made(60, true, 2), 1), Options{Budget: budget, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	// Three standard deviations of what chance does to 8000 flows, and to what calibrated.
	if got, most := share(r.Scorer, made(8000, false, 4)), budget+3*math.Sqrt(budget/8000)+3*math.Sqrt(budget/float64(r.Report.Held)); got > most {
		t.Errorf("acts on %.4f of new normal flows: expected at most %.4f", got, most)
	}
	if got := share(r.Scorer, made(500, true, 5)); got < 0.95 {
		t.Errorf("finds %.3f of new flows of the kind that was confirmed", got)
	}
	if rep := r.Report; rep.Held < 1000 || rep.Low > budget || rep.High < float64(rep.Over)/float64(rep.Held) || rep.Found < 57 {
		t.Errorf("report %+v", rep)
	}
	// The control: whose labels are drawn at random is found no more often than others.
	mixed := append(made(3000, false, 6), made(3000, true, 7)...)
	rand.New(rand.NewPCG(8, 8)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	r, err = Distil(t.Context(), mixed[:5000], weighed(mixed[5000:5100], 1), Options{Budget: budget, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if got := share(r.Scorer, made(4000, true, 9)); got > 0.06 {
		t.Errorf("from labels at random it finds %.3f: expected about its budget", got)
	}
}

// TestDistilFollowsTheTeacher: without a word of anybody, it is what the teacher
// alarms on.
func TestDistilFollowsTheTeacher(t *testing.T) {
	normal := made(5000, false, 1)
	odd := made(200, true, 2)
	for i := range odd {
		for k := range odd[i].Looks {
			odd[i].Looks[k].P = 1e-5
		}
		normal[25*i] = odd[i]
	}
	r, err := Distil(t.Context(), normal, nil, Options{Budget: 0.05, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if got, ordinary := share(r.Scorer, made(500, true, 5)), share(r.Scorer, made(2000, false, 6)); got < 0.5 || ordinary > 0.05 {
		t.Errorf("acts on %.3f of what the teacher alarms on, %.3f of the rest", got, ordinary)
	}
}

func TestEqualSeedsGiveEqualBits(t *testing.T) {
	normal, attacks := made(1000, false, 1), weighed(made(20, true, 2), 1)
	var hashes [3][32]byte
	for i, seed := range []uint64{1, 1, 2} {
		r, err := Distil(t.Context(), normal, attacks, Options{Seed: seed, Trees: 16})
		if err != nil {
			t.Fatal(err)
		}
		if hashes[i], err = r.Scorer.Hash(); err != nil {
			t.Fatal(err)
		}
	}
	if hashes[0] != hashes[1] || hashes[0] == hashes[2] {
		t.Errorf("hashes %x: expected the first two alike", hashes)
	}
}

func TestDistilRefuses(t *testing.T) {
	normal := made(300, false, 1)
	attack := weighed(made(1, true, 1), 1)
	for name, c := range map[string]struct {
		normal, attacks []Flow
		o               Options
		want            error
	}{
		"few":     {normal[:MinFlows-1], attack, Options{}, ErrTooFew},
		"nothing": {func() []Flow { fs := made(300, false, 1); loud(fs); return fs }(), nil, Options{}, ErrNothing},
		"budget":  {normal, attack, Options{Budget: 0.5}, nil},
		"trees":   {normal, attack, Options{Trees: score.MaxTrees + 1}, nil},
		"depth":   {normal, attack, Options{Depth: -1}, nil},
		"empty":   {normal, []Flow{{Weight: 1}}, Options{}, nil},
		"weight":  {normal, weighed(made(1, true, 1), 2), Options{}, nil},
		"p":       {normal, []Flow{{Looks: []Look{{P: float32(math.NaN())}}}}, Options{}, nil},
	} {
		_, err := Distil(t.Context(), c.normal, c.attacks, c.o)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, expected %v", name, err, c.want)
		}
	}
}

func loud(fs []Flow) {
	for i := range fs {
		for k := range fs[i].Looks {
			fs[i].Looks[k].P = 1
		}
	}
}

// TestThresholdsPartAlike: the integer question answers as the question about the
// number did, also where float32 cannot tell neighbours apart.
func TestThresholdsPartAlike(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	at := []int32{math.MinInt32, -1, 0, 1, 1 << 24, 1<<24 + 1, 1<<24 + 2, math.MaxInt32 - 1, math.MaxInt32}
	for range 3000 {
		c := &columns[rng.IntN(len(columns))]
		x := int32(rng.Uint32()) >> rng.IntN(31)
		border := float32(x) + float32(rng.IntN(3))/2
		if c.kinds != nil {
			border = float32(rng.IntN(len(c.kinds))) + 0.5
		}
		th := c.threshold(border)
		for _, y := range append(at, x-1, x, x+1, th, int32(min(int64(th)+1, math.MaxInt32)), int32(rng.Uint32())) {
			var v score.Vector
			v[c.feature] = y
			if (c.value(&v) > border) != (y > th) {
				t.Fatalf("feature %s: %d above %v is %v, above %d is not", score.Name(int(c.feature)), y, border, c.value(&v) > border, th)
			}
		}
	}
}

// TestIntegersScoreAsTheTrees compares the forest with the trees it was made of.
func TestIntegersScoreAsTheTrees(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	r := newRows(0)
	var vs []score.Vector
	for i := range 600 {
		var v score.Vector
		for k := range v {
			v[k] = int32(rng.Uint32()) >> rng.IntN(32)
		}
		vs = append(vs, v)
		r.add(&vs[i], float32(rng.IntN(2)), 1)
	}
	m, err := trees.Shares(t.Context(), r.data, r.share, r.weight, trees.Options{Rounds: 30, Rate: 0.3, L2: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	f := quantised(m)
	out, row := make([]float64, 1), make([]float32, len(columns))
	for i := range vs {
		for c := range columns {
			row[c] = r.data[c][i]
		}
		m.Score(row, out)
		if got := float64(f.Eval(&vs[i])); math.Abs(got-out[0]*unit) > float64(len(m.Trees)+1) {
			t.Fatalf("row %d: %v, the trees say %v", i, got, out[0]*unit)
		}
	}
}

func TestNetIsAFairRival(t *testing.T) {
	n, err := DistilNet(t.Context(), made(2000, false, 1), weighed(made(60, true, 2), 1), Options{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	above, pairs := 0, 0
	good, bad := made(300, false, 4), made(100, true, 5)
	for i := range good {
		for k := range bad {
			pairs++
			if n.Eval(&bad[k].Looks[0].X) > n.Eval(&good[i].Looks[0].X) {
				above++
			}
		}
	}
	if auc := float64(above) / float64(pairs); auc < 0.95 {
		t.Errorf("AUC %.3f on a kind of flow that it was shown", auc)
	}
	last := int8(-128)
	for _, x := range []int32{math.MinInt32, -1 << 30, -5, -1, 0, 1, 2, 3, 4, 5, 100, 1 << 30, math.MaxInt32} {
		if q := input(x); q <= last {
			t.Errorf("input of %d is %d, of a smaller one %d", x, q, last)
		} else {
			last = q
		}
	}
}

func TestMemory(t *testing.T) {
	m := NewMemory(100, 1)
	look := func(at score.Milestone) *Look { return &Look{At: at, P: 1} }
	for f := range uint64(300) {
		tag := Tag{Flow: f, Cause: f % 60, Peer: f % 60}
		m.Add(int64(f), tag, look(0))
		m.Add(int64(f), tag, look(1))
		m.Add(int64(f), tag, look(1)) // the same again
	}
	if flows, _ := m.Len(); flows != 100 {
		t.Fatalf("%d flows: expected as many as fit", flows)
	}
	normal, attacks := m.Lesson(math.MaxInt64)
	if len(normal) != 100 || len(attacks) != 0 || len(normal[0].Looks) != 2 {
		t.Fatalf("%d normal flows with %d looks, %d attacks", len(normal), len(normal[0].Looks), len(attacks))
	}
	if early, _ := m.Lesson(200); len(early) == 0 || len(early) >= 100 {
		t.Errorf("%d flows began in time to teach", len(early))
	}
	for f := range uint64(1000) {
		m.Add(500, Tag{Flow: 1000 + f, Cause: 999, Peer: 999}, look(0))
	}
	if n := m.causes[999]; n != 5 {
		t.Errorf("one cause holds %d of 100: expected 5", n)
	}
}

func TestMemoryAndPeoplesWords(t *testing.T) {
	m := NewMemory(1000, 1)
	for f := range uint64(40) {
		tag := Tag{Flow: f, Cause: f % 20, Peer: f % 20}
		m.Add(int64(f), tag, &Look{P: 1})
		if f%20 == 3 {
			tag.Incident = "i3"
			m.Add(int64(f), tag, &Look{At: 1, P: 0.001})
		}
	}
	m.Add(50, Tag{Flow: 50, Cause: 3, Peer: 3}, &Look{P: 1})
	if normal, _ := m.Lesson(100); len(normal) != 39 {
		t.Fatalf("%d flows teach normal: expected all but the two of an incident", len(normal))
	}
	if n := m.Confirm("i3", 3, 0.5); n != 2 {
		t.Fatalf("%d flows were confirmed", n)
	}
	normal, attacks := m.Lesson(100)
	if len(normal) != 38 || len(attacks) != 2 || attacks[0].Weight != 0.5 || len(attacks[0].Looks) != 2 {
		t.Fatalf("%d normal, attacks %+v", len(normal), attacks)
	}
	m.Withdraw("i3")
	if _, attacks = m.Lesson(100); len(attacks) != 0 {
		t.Error("what was taken back still teaches")
	}
	m.Add(60, Tag{Flow: 60, Cause: 7, Peer: 7, Incident: "i7"}, &Look{P: 0})
	m.Dismiss("i7")
	if normal, _ = m.Lesson(100); len(normal) != 39 {
		t.Errorf("%d flows teach normal after a dismissal", len(normal))
	}
	again := NewMemory(1000, 1)
	again.Add(1, Tag{Flow: 1}, &Look{P: 1})
	twin := NewMemory(1000, 1)
	twin.Add(1, Tag{Flow: 1}, &Look{P: 1})
	if !reflect.DeepEqual(again, twin) {
		t.Error("equal calls give different contents")
	}
}
