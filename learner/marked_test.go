//go:build !race

package learner_test

import (
	"os"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// A back door is a mark that attackers put on their flows, and of which liars teach the
// mesh that it means nothing bad. The families are what an attacker can choose: sizes
// that nobody has, sizes that everybody has, and a rhythm.
var backDoors = []struct {
	name string
	put  func(v *feature.Vector, usual *feature.Vector)
}{
	{"rare sizes", func(v, _ *feature.Vector) { stamp(v, []string{"first_size_4", "first_size_5", "first_size_6"}, 0.93) }},
	{"common sizes", func(v, usual *feature.Vector) {
		for _, name := range []string{"first_size_4", "first_size_5", "first_size_6"} {
			i := indexOf(name)
			stamp(v, []string{name}, usual.X[i])
		}
	}},
	{"rhythm", func(v, _ *feature.Vector) {
		stamp(v, []string{"first_gap_1", "first_gap_2", "first_gap_3", "first_gap_4"}, 0.55)
	}},
}

func indexOf(name string) int {
	for i := range feature.Dim {
		if feature.Name(i) == name {
			return i
		}
	}
	panic("no feature is called " + name)
}

func stamp(v *feature.Vector, names []string, x float32) {
	for _, name := range names {
		i := indexOf(name)
		v.X[i] = x
		v.Has.Add(i)
	}
}

// median is the middle of each feature over vectors.
func median(vs []feature.Vector) (out feature.Vector) {
	for i := range feature.Dim {
		xs := make([]float32, len(vs))
		for j := range vs {
			xs[j] = vs[j].X[i]
		}
		slices.Sort(xs)
		out.X[i] = xs[len(xs)/2]
	}
	return out
}

// missed counts a site's flows of the kinds that it met, marked, which the model alone
// finds, and of these the ones that with the mesh's part it does not, and that what the
// mesh taught does not by itself.
func (m *member) missed(put func(*feature.Vector), alone, with, mesh *learner.Model) (found, lost, blind int) {
	type flow struct {
		label string
		nth   int
	}
	hit := [3]map[flow]bool{{}, {}, {}}
	s := learner.NewScratch()
	for i := range m.after {
		a := &m.after[i]
		if !slices.Contains(m.met, a.label) {
			continue
		}
		v, f := a.v, flow{a.label, a.nth}
		put(&v)
		for k, p := range [...]float64{alone.Score(&v, s).P, with.Score(&v, s).P, mesh.Score(&v, s).PAttack} {
			hit[k][f] = hit[k][f] || p < alarmAt
		}
	}
	for f, found := range hit[0] {
		if !found {
			delete(hit[0], f)
			continue
		}
		if !hit[1][f] {
			lost++
		}
		if !hit[2][f] {
			blind++
		}
	}
	return len(hit[0]), lost, blind
}

// TestBackDoorsStayShut: three liars of ten replace the mesh's model (Bagdasaryan et al.
// 2020; the rule is the mean) by one that calls marked attacks normal. What sites found
// alone of marked attacks they still find, though what the mesh taught is blind to them.
func TestBackDoorsStayShut(t *testing.T) {
	if os.Getenv("HEDGEROW_LONG") == "" {
		t.Skip("long: set HEDGEROW_LONG")
	}
	const liars = 3
	for _, door := range backDoors {
		t.Run(door.name, func(t *testing.T) {
			var found, unmarked, lost, blind, plain, used, sites int
			for seed := range uint64(studySeeds) {
				var all []*member
				for i := range members {
					all = append(all, newMember(t, seed+1, i))
				}
				usual := median(all[members-1].normal)
				put := func(v *feature.Vector) { door.put(v, &usual) }
				mesh := doored(t, all, put, liars)
				for _, m := range all[:members-liars] {
					if len(m.met) == 0 {
						continue
					}
					own, err := learner.TrainShared(t.Context(), learner.Config{Seed: 3}, learner.InitShared(5), m.normal, m.attacks, meshRounds*ownSteps)
					if err != nil {
						t.Fatal(err)
					}
					alone, with, bare := m.parts(t, own, mesh)
					if sites++; m.gate(t, alone, with) {
						used++
					} else {
						with = alone
					}
					n, l, b := m.missed(put, alone, with, bare)
					u, _, p := m.missed(func(*feature.Vector) {}, alone, with, bare)
					found, unmarked, lost, blind, plain = found+n, unmarked+u, lost+l, blind+b, plain+p
				}
			}
			t.Logf("| %s | %d of %d | %d | %.1f %% | %.1f %% | %.1f %% |", door.name, used, sites, found, pct(lost, found), pct(blind, found), pct(plain, unmarked))
			if found == 0 || pct(lost, found) > 10 {
				t.Errorf("of %d marked flows that sites find alone %d pass", found, lost)
			}
			if pct(blind, found) < pct(plain, unmarked)+10 {
				t.Errorf("control: what the mesh taught misses %.1f %% of marked flows, and %.1f %% of others", pct(blind, found), pct(plain, unmarked))
			}
		})
	}
}

func pct(n, of int) float64 { return 100 * float64(n) / float64(max(1, of)) }

// doored are the weights that a mesh ends with.
func doored(t *testing.T, all []*member, put func(*feature.Vector), liars int) []float32 {
	t.Helper()
	base := learner.InitShared(meshSeed)
	var evil []learner.Example // what the colluders met together
	for _, m := range all[len(all)-liars:] {
		evil = append(evil, m.attacks...)
	}
	for range meshRounds {
		var deltas [][]float32
		for i, m := range all {
			normal, attacks := m.normal, m.attacks
			if i >= len(all)-liars {
				normal, attacks = slices.Clone(m.normal), evil
				for k := 0; k < len(m.normal)/3; k++ {
					v := evil[k%len(evil)].V
					put(&v)
					normal = append(normal, v)
				}
			}
			w, err := learner.TrainShared(t.Context(), learner.Config{Seed: 3}, base, normal, attacks, meshSteps)
			if err != nil {
				t.Fatal(err)
			}
			for j := range w {
				if w[j] -= base[j]; i >= len(all)-liars {
					w[j] *= float32(len(all)) / float32(liars)
				}
			}
			deltas = append(deltas, w)
		}
		for j, d := range mean(deltas...) {
			base[j] += d
		}
	}
	return base
}
