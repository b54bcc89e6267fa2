package council

import (
	"testing"
	"time"
)

// faultOrgs is how many organisations the tests of faults have.
func faultOrgs() int {
	if long() {
		return 50
	}
	return 10
}

// newest is the highest round that anybody is in.
func (w *testnet) newest() (r uint64) {
	for _, nd := range w.nodes {
		r = max(r, nd.m.Round())
	}
	return r
}

// finals are the least and the greatest final height.
func (w *testnet) finals() (least, most uint64) {
	least = 1 << 62
	for _, nd := range w.nodes {
		h := nd.m.Tree().Final().Next.Height
		least, most = min(least, h), max(most, h)
	}
	return least, most
}

// oneModel says whether all have the same final block, above a height, and in which round
// the seal came that made it final.
func (w *testnet) oneModel(above uint64) (sealedIn uint64, ok bool) {
	first := w.nodes[0].m.Tree().Final()
	for _, nd := range w.nodes {
		if nd.m.Tree().Final().Hash != first.Hash {
			return 0, false
		}
	}
	return first.Round() + 1, first.Next.Height > above
}

// agreesAgain runs until all have one new final model, and counts the rounds since
// a round.
func (w *testnet) agreesAgain(since, above uint64) (rounds int, took time.Duration) {
	w.t.Helper()
	began := w.Now
	for w.Now.Sub(began) < 5*time.Minute {
		w.Run(10 * time.Millisecond)
		if in, ok := w.oneModel(above); ok {
			return int(in) - int(since), w.Now.Sub(began)
		}
	}
	w.t.Fatalf("no new model that all have, %s on", w.Now.Sub(began))
	return 0, 0
}

// begins runs until three models are final, and says how long a round takes.
func (w *testnet) begins() time.Duration {
	w.t.Helper()
	began := w.Now
	for least := uint64(0); least < 3; least, _ = w.finals() {
		if w.Run(100 * time.Millisecond); w.Now.Sub(began) > time.Minute {
			w.t.Fatal("no three models")
		}
	}
	return w.Now.Sub(began) / 4
}

// TestHalfParted parts one half of the organisations from the other for as long as ten
// rounds take. Nothing becomes final meanwhile, and within two rounds of healing all
// have one new model.
func TestHalfParted(t *testing.T) {
	for seed := range uint64(3) {
		w := newNet(t, faultOrgs(), 100+seed)
		each := w.begins()
		w.Run(time.Duration(seed) * each / 3) // at another point of a round
		for i, nd := range w.nodes {
			nd.group = i % 2
		}
		w.Run(each) // what was on its way
		_, before := w.finals()
		w.Run(9 * each)
		if _, most := w.finals(); most != before {
			t.Errorf("seed %d: %d models were final, and %d in a half", seed, before, most)
		}
		for _, nd := range w.nodes {
			nd.group = 0
		}
		since := w.newest()
		rounds, took := w.agreesAgain(since, before)
		t.Logf("%d organisations, seed %d: one new model %d rounds (%s; a round takes %s) after healing", len(w.nodes), seed, rounds, took, each)
		if rounds > 2 {
			t.Errorf("seed %d: %d rounds until all have one model", seed, rounds)
		}
	}
}

// TestThirtyPercentKilled kills up to three in ten at a time, whenever, for fifty rounds, and
// brings them back from their disks. What was final at a site stays so, models go on, and
// within two rounds of the end all have one model and chains that recompute.
func TestThirtyPercentKilled(t *testing.T) {
	w := newNet(t, faultOrgs(), 200)
	w.begins()
	start, _ := w.oneModel(0)
	_, first := w.finals()
	high := make(map[*testnode]uint64)
	down, kills := 0, 0
	boot := func(nd *testnode) {
		w.boot(nd)
		down--
		if h := nd.m.Tree().Final().Next.Height; h < high[nd] {
			t.Errorf("%d blocks were final at a site, and %d after it was killed", high[nd], h)
		}
	}
	for w.newest() < start+50 {
		for _, nd := range w.nodes {
			switch {
			case nd.down && w.rng.IntN(10) == 0:
				boot(nd)
			case !nd.down && down < 3*len(w.nodes)/10 && w.rng.IntN(40) == 0:
				high[nd] = nd.m.Tree().Final().Next.Height
				w.kill(nd)
				down, kills = down+1, kills+1
			}
		}
		w.Run(500 * time.Millisecond)
		if w.Now.Sub(epoch) > 2*time.Hour {
			t.Fatalf("round %d after two hours: expected %d", w.newest(), start+50)
		}
	}
	_, most := w.finals()
	for _, nd := range w.nodes {
		if nd.down {
			boot(nd)
		}
	}
	rounds, took := w.agreesAgain(w.newest(), most)
	t.Logf("%d organisations, %d kills, %d models final in 50 rounds: one new model %d rounds (%s) after the last was back", len(w.nodes), kills, most-first, rounds, took)
	if rounds > 2 {
		t.Errorf("%d rounds until all have one model", rounds)
	}
	if most < first+5 {
		t.Errorf("only %d models became final in 50 rounds", most-first)
	}
	for _, nd := range w.nodes {
		if _, err := audit(w, nd); err != nil {
			t.Error(err)
		}
	}
	if c := w.conflict(); c != "" {
		t.Error(c)
	}
}
