//go:build !race

package sim

import "testing"

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
