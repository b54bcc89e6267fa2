package learner_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

func TestModelSurvivesEncoding(t *testing.T) {
	d := someDay(t)
	b, err := d.model.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	back, err := learner.Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if back.Meta() != d.model.Meta() {
		t.Errorf("meta: %+v: expected %+v", back.Meta(), d.model.Meta())
	}
	s := learner.NewScratch()
	for i := range d.after[:200] {
		if x, y := d.model.Score(&d.after[i].v, s), back.Score(&d.after[i].v, s); x != y {
			t.Fatalf("vector %d: %+v: expected %+v", i, y, x)
		}
	}
	again, err := back.MarshalBinary()
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("second encoding differs (%v)", err)
	}
	t.Logf("%d bytes", len(b))
}

func TestTrainingIsRepeatable(t *testing.T) {
	slow(t)
	d := someDay(t)
	var hash [2]string
	for i := range hash {
		m, err := learner.Train(t.Context(), learner.Config{Seed: 9, Epochs: 1}, d.model, d.normal[:400], nil)
		if err != nil {
			t.Fatal(err)
		}
		hash[i] = m.Meta().Hash
		if m.Meta().Parent != d.model.Meta().Hash {
			t.Error("parent is not the previous model")
		}
	}
	if hash[0] != hash[1] {
		t.Errorf("%s and %s", hash[0], hash[1])
	}
}

func TestScoreAllocatesNothing(t *testing.T) {
	d := someDay(t)
	s := learner.NewScratch()
	if n := testing.AllocsPerRun(50, func() { d.model.Score(&d.after[0].v, s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestModelIsSharedByGoroutines(t *testing.T) {
	d := someDay(t)
	want := d.model.Score(&d.after[0].v, learner.NewScratch())
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			s := learner.NewScratch()
			for i := range 20 {
				d.model.Score(&d.after[i].v, s)
			}
			d.model.Explain(&d.after[0].v, s)
			if got := d.model.Score(&d.after[0].v, s); got != want {
				return fmt.Errorf("%+v: expected %+v", got, want)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestUntaughtAttackPartIsSilent(t *testing.T) {
	slow(t)
	d := someDay(t)
	if len(d.model.Shared()) != learner.SharedDim() || d.model.Meta().KnowsAttacks {
		t.Fatal("a model without attacks claims to know some")
	}
	s := learner.NewScratch()
	for i := range d.after {
		if x := d.model.Score(&d.after[i].v, s); x.P != x.PSelf || x.PAttack != 1 {
			t.Fatalf("vector %d: %+v", i, x)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	d := someDay(f)
	b, err := d.model.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{})
	f.Add(b[:len(b)/2])
	f.Add(b[:40])
	f.Add(append(bytes.Clone(b), 0))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := learner.Unmarshal(in)
		if err != nil {
			return
		}
		p := m.Score(&feature.Vector{}, learner.NewScratch()).P
		if !(p > 0 && p <= 1) {
			t.Errorf("p %v", p)
		}
	})
}

func TestMemoryMatchesVariantsAndNoNormal(t *testing.T) {
	d := someDay(t)
	m := learner.NewMemory(d.normal)
	scans := vectors(d.after, "scan")
	for i := range 5 {
		if !m.Add(&scans[i], "scan") {
			t.Fatal("a scan cannot be told from normal")
		}
	}
	variants, normals := 0, 0
	for i := range scans[5:] {
		if _, ok := m.Match(&scans[5+i]); ok {
			variants++
		}
	}
	fresh := vectors(d.after, "normal")
	for i := range fresh {
		if _, ok := m.Match(&fresh[i]); ok {
			normals++
		}
	}
	t.Logf("%d of %d later scan vectors, %d of %d normal", variants, len(scans)-5, normals, len(fresh))
	if variants < (len(scans)-5)/2 || normals > 0 {
		t.Errorf("%d of %d variants, %d of %d normal", variants, len(scans)-5, normals, len(fresh))
	}
	if m.Add(&d.normal[len(d.normal)-1], "ordinary") {
		t.Error("a normal vector is claimed")
	}
	if n := m.Forget("scan"); n != 5 || m.Len() != 1 {
		t.Errorf("forgot %d, %d left", n, m.Len())
	}
}

// What was confirmed under the first schema is known again in a flow of which
// the present one tells more; of another flow, what is told more counts.
func TestMemoryOfTheFirstSchema(t *testing.T) {
	d := someDay(t)
	now := vectors(d.after, "scan")[0]
	old := now
	for i := range now.X {
		if !feature.First().Has(i) {
			old.X[i] = 0
			old.Has.Remove(i)
			now.X[i] = 0.9
			now.Has.Add(i)
		}
	}
	m := learner.NewMemory(d.normal)
	m.Add(&old, "scan")
	if _, ok := m.Match(&now); !ok {
		t.Error("a behaviour of the first schema is not known again")
	}
	m.Forget("scan")
	m.Add(&now, "scan")
	for i := range now.X {
		if !feature.First().Has(i) {
			now.X[i] = 0
		}
	}
	if dist, ok := m.Match(&now); ok {
		t.Errorf("another client is the same behaviour, %.2f of the way", dist)
	}
}

func TestReservoirKeepsShares(t *testing.T) {
	o := learner.ReservoirOptions{Size: 100, Seed: 1}
	r, err := learner.NewReservoir(o)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1000, 0)
	fill := func(r *learner.Reservoir, from, to int) {
		for i := from; i < to; i++ {
			host, peer := uint64(i%5), uint64(i%11)
			if i%2 == 0 {
				host, peer = 99, 77 // one pair is loud
			}
			v := feature.Vector{Has: feature.Mask{1}}
			v.X[0] = float32(i) / 2000
			r.Add(at.Add(time.Duration(i)*time.Second), &v, host, peer, uint64(i%3))
		}
	}
	fill(r, 0, 1000)
	b, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	twin, err := learner.NewReservoir(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := twin.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	fill(r, 1000, 1500)
	fill(twin, 1000, 1500)
	x, y := r.Mature(at.Add(time.Hour), nil), twin.Mature(at.Add(time.Hour), nil)
	if !slices.Equal(x, y) {
		t.Error("a restored reservoir goes on differently")
	}
	for i := 1; i < len(x); i++ {
		if x[i].X[0] < x[i-1].X[0] {
			t.Fatal("not in the order of time")
		}
	}
	if n := len(r.Mature(at.Add(700*time.Second), nil)); n == 0 || n >= r.Len() {
		t.Errorf("%d of %d are older than 700 s", n, r.Len())
	}
	loud := func(peer uint64) bool { return peer == 77 }
	end := at.Add(time.Hour)
	all, calm := r.Mature(end, nil), r.Mature(end, loud)
	later, _ := r.Later(time.Time{}, loud)
	if len(calm) != len(later) || len(calm) >= len(all) {
		t.Errorf("%d and %d of %d without a suspected peer: expected the same, and fewer", len(calm), len(later), len(all))
	}
	if n := r.Forget(77); n != len(all)-len(calm) {
		t.Errorf("%d came from the suspected peer, and %d were held back", n, len(all)-len(calm))
	} else if n == 0 || n > 20 {
		t.Errorf("the loud peer held %d of 100: expected at most 20", n)
	}
	if r.Forget(77) != 0 {
		t.Error("forgotten twice")
	}
}

func FuzzReservoir(f *testing.F) {
	f.Add([]byte{1, 0, 0})
	f.Add(make([]byte, 13))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := learner.NewReservoir(learner.ReservoirOptions{Size: 32})
		if err != nil {
			t.Fatal(err)
		}
		if r.UnmarshalBinary(in) == nil && r.Len() > 32 {
			t.Errorf("%d entries", r.Len())
		}
	})
}

func TestTrainRefusesBadInput(t *testing.T) {
	bad := make([]feature.Vector, learner.MinNormal)
	bad[3].X[0] = float32(math.NaN())
	for name, in := range map[string][]feature.Vector{"few": make([]feature.Vector, 5), "not finite": bad} {
		if _, err := learner.Train(t.Context(), learner.Config{}, nil, in, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := learner.TrainShared(t.Context(), learner.Config{}, []float32{1}, make([]feature.Vector, learner.MinNormal), nil, 5); err == nil {
		t.Error("a base of one weight accepted")
	}
}

func BenchmarkScore(b *testing.B) {
	d := someDay(b)
	s := learner.NewScratch()
	for _, kind := range []string{"normal", "spurt", "brute", "scan"} {
		b.Run(kind, func(b *testing.B) {
			vs := vectors(d.after, kind)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				d.model.Score(&vs[i%len(vs)], s)
				i++
			}
		})
	}
}
