package gossip

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/federation"
)

func quiet(t *testing.T, n byte, roster []federation.Site) *Transport {
	t.Helper()
	return transport(t, n, Options{Roster: roster})
}

// transport is one of organisation test that does not run, with the nth key.
func transport(t *testing.T, n byte, o Options) *Transport {
	t.Helper()
	k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	o.Key, o.Organisation = k, "test"
	tr, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// Direct connections are mutual, at least three, and never with one's own
// organisation.
func TestDirectPeersAreMutual(t *testing.T) {
	const n = 12
	var all []federation.Site
	for i := range n {
		k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{byte(i + 1)}, 32)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, federation.Site{Name: fmt.Sprint("s", i), ID: k.ID(), Organisation: fmt.Sprint("org", i/2)})
	}
	chosen := make(map[peer.ID][]peer.ID)
	for i := range n {
		roster := slices.Clone(all)
		for j := range roster {
			if roster[j].Organisation == all[i].Organisation {
				roster[j].Organisation = "" // our own
			}
		}
		tr := quiet(t, byte(i+1), roster)
		for _, p := range tr.directPeers() {
			chosen[tr.host.ID()] = append(chosen[tr.host.ID()], p.ID)
			if tr.links.get(p.ID).at().Organisation == "" {
				t.Errorf("site %d is direct with one of its own organisation", i)
			}
		}
	}
	for a, list := range chosen {
		if len(list) < direct {
			t.Errorf("%s has %d direct peers, expected at least %d", a, len(list), direct)
		}
		for _, b := range list {
			if !slices.Contains(chosen[b], a) {
				t.Errorf("%s is direct with %s, but not the other way", a, b)
			}
		}
	}
	if len(chosen) != n {
		t.Errorf("%d of %d sites have direct peers", len(chosen), n)
	}
}

func TestLedger(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLedger(Budget{Messages: 2, Burst: 4, Bytes: 100}, func() time.Time { return now })
	two := []*peerLink{
		{pid: "a", site: member{Site: federation.Site{Organisation: "one"}}}, {pid: "b", site: member{Site: federation.Site{Organisation: "one"}}},
		{pid: "c", site: member{Site: federation.Site{Organisation: "two"}}},
	}
	l.bill(two)
	for i := range 6 {
		if ok := l.charge([]peer.ID{"a", "b"}[i%2], 1); ok != (i < 4) {
			t.Errorf("message %d of organisation one: %v", i, ok)
		}
	}
	if !l.charge("c", 1) || l.charge("stranger", 1) {
		t.Error("organisation two pays for one, or a stranger has an account")
	}
	if l.charge("c", 5000) {
		t.Error("5000 bytes were taken, of 4000 at once")
	}
	now = now.Add(time.Second)
	l.bill(two) // a roster that is set again forgives nothing
	for i := range 3 {
		if ok := l.charge("a", 1); ok != (i < 2) {
			t.Errorf("message %d a second later: %v, expected two", i, ok)
		}
	}
	if l.blame("a", 100) || l.silenced("a") {
		t.Error("a site is cut off for 100 messages above its budget")
	}
	now = now.Add(forgive)
	if got, _ := l.left("a"); got < 49.9 || got > 50.1 {
		t.Errorf("after %s %g of 100 are left, expected half", forgive, got)
	}
	l.bill(two[2:])
	if over, _ := l.left("a"); over != 0 || l.charge("a", 1) {
		t.Error("who has left the roster still has an account")
	}
}

// Who floods is cut off once, and let in again when half of the flood is forgotten.
func TestFlooderIsCutOff(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLedger(Budget{}, func() time.Time { return now })
	l.bill([]*peerLink{{pid: "a"}, {pid: "b"}})
	cuts := 0
	for range 3 * tooMuch {
		if l.blame("a", 1) {
			cuts++
		}
	}
	if cuts != 1 || !l.silenced("a") || l.silenced("b") {
		t.Errorf("cut off %d times, silenced %v, its neighbour %v", cuts, l.silenced("a"), l.silenced("b"))
	}
	now = now.Add(forgive)
	if !l.silenced("a") {
		t.Error("let in again while more than half of what was too much is remembered")
	}
	now = now.Add(2 * forgive)
	if l.silenced("a") {
		t.Error("three half-lives later it is still not let in")
	}
	if l.blame("a", 1) {
		t.Error("cut off again for one message")
	}
	if !l.blame("a", tooMuch) {
		t.Error("it may flood a second time")
	}
}

// What is found on the local network is a hint about sites that we know.
func TestNearby(t *testing.T) {
	k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{9}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	tr := quiet(t, 1, []federation.Site{{Name: "x", ID: k.ID()}})
	known, err := peer.Decode(string(k.ID()))
	if err != nil {
		t.Fatal(err)
	}
	at := slices.Repeat([]ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1")}, 20)
	nearby{tr}.HandlePeerFound(peer.AddrInfo{ID: "stranger", Addrs: at})
	nearby{tr}.HandlePeerFound(peer.AddrInfo{ID: known, Addrs: at})
	if got := tr.waysTo(tr.links.get(known)); len(got) != maxNear || tr.links.len() != 1 {
		t.Errorf("%d addresses, %d sites; expected %d and one", len(got), tr.links.len(), maxNear)
	}
	if tr.opt.Discover {
		t.Error("the local network is searched though nobody asked for it")
	}
}
