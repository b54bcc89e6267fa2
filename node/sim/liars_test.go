//go:build !race

package sim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Sites that tell each other keep attackers out which each alone lets in.
func TestMeshPreventsFirstContacts(t *testing.T) {
	r := playMesh(t, smallMesh(1), 0)
	alone, together := playMesh(t, smallMesh(0), 0).Sums(), r.Sums()
	if alone.Seen != 6 || alone.Prevented != 0 || alone.Bytes != 0 {
		t.Errorf("alone: %+v", alone)
	}
	if together.Seen != 6 || together.Prevented < 4 || together.FalseBlocks != 0 || together.Lost != 0 {
		t.Errorf("together: %+v", together)
	}
	after, share, attackers := r.Spread()
	last := len(after) - 1
	if attackers != 2 || share[0] >= share[last] || share[last] != 1 {
		t.Errorf("%d attackers, shares %v after %v", attackers, share, after)
	}
}

// Liars of fewer organisations than it takes block nobody, by whatever they say, and
// neither does who forges innocent senders.
func TestMeshLiarsBlockNobody(t *testing.T) {
	for _, lie := range Builtin().Lies {
		s := smallMesh(7)
		s.Sites.Count, s.Nodes.Seconds, s.Nodes.Flows = 7, 30, 3
		s.Attackers = Attackers{Attack: lie.Name, Share: 0.3}
		s.Campaigns.Attackers = 1
		one, two := playMesh(t, s, 1), playMesh(t, s, 2)
		if bytesOf(t, one) != bytesOf(t, two) {
			t.Errorf("%s: one worker and two made different bytes", lie.Name)
		}
		if sums := one.Sums(); sums.FalseBlocks != 0 || sums.Lost != 0 || sums.Ordinary < 200 {
			t.Errorf("%s: %+v", lie.Name, sums)
		}
	}
	// Where all trust each other, one liar is enough: that trust is for one's own.
	s := smallMesh(1)
	s.Nodes.Seconds, s.Attackers = 30, Attackers{Attack: "bad-mouthing", Share: 0.25}
	if sums := playMesh(t, s, 0).Sums(); sums.FalseBlocks == 0 {
		t.Errorf("direct trust: %+v", sums)
	}
}

// Who is cut off hears nothing, and catches up.
func TestMeshCut(t *testing.T) {
	s := smallMesh(1)
	s.Campaigns.Move = 5
	s.Network.Cuts = []Cut{{From: 0, Until: 40, Share: 0.5}}
	r := playMesh(t, s, 0)
	whole := smallMesh(1)
	whole.Campaigns.Move = 5
	a, b := r.Sums(), playMesh(t, whole, 0).Sums()
	if a.Prevented >= b.Prevented {
		t.Errorf("in two parts %+v, whole %+v", a, b)
	}
	if _, share, _ := r.Spread(); share[len(share)-1] != 1 {
		t.Errorf("the cut healed, yet the blocks did not reach all: %v", share)
	}
}

// Whole nodes are swept, too: a shard at a time, or all at once.
func TestMeshSweep(t *testing.T) {
	const text = `
name = "trust"
depth = "mesh"
[sites]
count = 3
[nodes]
seconds = 15.0
flows = 3.0
[campaigns]
attackers = 1
begin = 1.0
move = 4.0
[grid]
"nodes.organisations" = [0, 1]
"attackers.attack" = ["bad-mouthing"]
"attackers.share" = [0.0, 0.34]
`
	w, dir := parseSweep(t, text), t.TempDir()
	whole, parts, merged := filepath.Join(dir, "whole"), []string{filepath.Join(dir, "1"), filepath.Join(dir, "2")}, filepath.Join(dir, "merged")
	if !play(t, w, whole, Shard{}, Options{}) {
		t.Fatal("not complete")
	}
	for i, part := range parts {
		play(t, w, part, Shard{i + 1, len(parts)}, Options{Workers: 1})
	}
	if err := Merge(merged, parts, Builtin()); err != nil {
		t.Fatal(err)
	}
	same(t, filepath.Join(whole, cellsName), filepath.Join(merged, cellsName))
	groups := textOf(t, merged, "groups.csv")
	if textOf(t, whole, "groups.csv") != groups || strings.Count(groups, "\n") != 1+len(w.Cells) {
		t.Errorf("groups:\n%s", groups)
	}
	if head, _, _ := strings.Cut(groups, "\n"); !strings.Contains(head, "prevented_share") || strings.Contains(head, "auc") {
		t.Errorf("columns %s", head)
	}
	if !strings.Contains(textOf(t, whole, "heat-prevented_share.svg"), "bad-mouthing") {
		t.Error("no map of lies and trust")
	}
}

func textOf(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
