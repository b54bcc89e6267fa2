package sim

import (
	"bytes"
	"strings"
	"testing"
)

// smallMesh is a mesh that is played in a moment.
func smallMesh(organisations int) *Scenario {
	s := Default()
	s.Name, s.Depth, s.Sites.Count = "small", DepthMesh, 4
	s.Nodes.Seconds, s.Nodes.Organisations = 60, organisations
	s.Campaigns = Campaigns{Attackers: 2, Kinds: []string{"scan", "brute"}, Begin: 5, Every: 3, Move: 12}
	return &s
}

func playMesh(t *testing.T, s *Scenario, workers int) *MeshResult {
	t.Helper()
	r, err := RunMesh(t.Context(), s, Options{Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// bytesOf is all that a run writes.
func bytesOf(t *testing.T, r *MeshResult) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	for _, x := range r.tables() {
		if err := x.write(&b); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestMeshSameBytesOnAnyCores(t *testing.T) {
	s := smallMesh(1)
	s.Sites.Count, s.Network.Loss, s.Nodes.Seconds = 3, 0.1, 10
	one, three := playMesh(t, s, 1), playMesh(t, s, 3)
	if bytesOf(t, one) != bytesOf(t, three) {
		t.Error("one worker and three made different bytes")
	}
	if sums := one.Sums(); sums.Ordinary < 200 || sums.Bytes == 0 {
		t.Errorf("%+v", sums)
	}
	s.Seed++
	if bytesOf(t, playMesh(t, s, 2)) == bytesOf(t, one) {
		t.Error("another seed made the same bytes")
	}
}

func TestRoundsUnderABadNetwork(t *testing.T) {
	l := newLinks(&Network{Spell: 1, Cuts: []Cut{{From: 2, Until: 4, Share: 0.4}}}, 1, 10)
	for round, want := range map[float64]int{1: 10, 2: 6, 3: 6, 4: 10} {
		l.until(round)
		n := 0
		for _, in := range l.largest() {
			if in {
				n++
			}
		}
		if n != want {
			t.Errorf("round %g: %d sites together: expected %d", round, n, want)
		}
	}
	l = newLinks(&Network{Away: 0.3, Spell: 2}, 1, 50)
	away := 0
	for round := range 400 {
		l.until(float64(round))
		for _, gone := range l.away {
			if gone {
				away++
			}
		}
	}
	if share := float64(away) / 400 / 50; share < 0.25 || share > 0.35 {
		t.Errorf("away %.3f of the time: expected 0.3", share)
	}
}

func TestMeshScenarioNamesTheField(t *testing.T) {
	for text, want := range map[string]string{
		"depth = 'deep'": "depth: found \"deep\"",
		"depth = 'mesh'\n[sites]\ncount = 5\n[nodes]\norganisations = 6":             "nodes.organisations: found 6",
		"depth = 'mesh'\n[campaigns]\nkinds = ['poke']":                              "campaigns.kinds: found \"poke\"",
		"depth = 'mesh'\n[network]\nloss = 1.5":                                      "network.loss: found 1.5",
		"depth = 'mesh'\n[network]\ncuts = [{from = 5.0, until = 1.0, share = 0.5}]": "network.cuts: found",
		"depth = 'mesh'\n[attackers]\nattack = 'alie'\nshare = 0.1":                  "attackers.attack: found \"alie\"",
		"depth = 'mesh'\n[nodes]\nflow = 3.0":                                        "nodes.flow: is not a known key",
	} {
		if _, err := Parse(strings.NewReader(text), "s.toml", ".", Builtin()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v: expected %q", text, err, want)
		}
	}
	_, err := ParseSweep(strings.NewReader("[data]\nset = 'made-up'\n[grid]\ndepth = ['rounds', 'mesh']"), "s.toml", ".", Builtin())
	if err == nil || !strings.Contains(err.Error(), "depth: found \"mesh\" after \"rounds\"") {
		t.Errorf("sweep: %v", err)
	}
	s := smallMesh(1)
	if _, err := Run(t.Context(), s, Options{}); err == nil {
		t.Error("a mesh was played as rounds")
	}
	s.Depth = DepthRounds
	if _, err := RunMesh(t.Context(), s, Options{}); err == nil {
		t.Error("rounds were played as a mesh")
	}
}
