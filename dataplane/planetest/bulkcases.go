package planetest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func bulkCases() []testCase {
	return []testCase{
		{"bulk: source and destination, either direction", dataplane.Enforce, bulkBothEnds},
		{"bulk: the ends of the address space", dataplane.Enforce, bulkSentinels},
		{"bulk: every length of prefix", dataplane.Enforce, bulkLengths},
		{"bulk: the longest living prefix gives the reason", dataplane.Enforce, bulkLongest},
		{"bulk: of equal entries the one that lives longest", dataplane.Enforce, bulkEqual},
		{"bulk: replaced whole", dataplane.Enforce, bulkReplace},
		{"bulk: each set meets the flows that are there", dataplane.Enforce, bulkMeetsFlows},
		{"bulk: what is not listed passes among much that is", dataplane.Enforce, bulkAmongMany},
		{"bulk: goes before rules", dataplane.Enforce, bulkBeforeRules},
		{"bulk: a listed packet leaves its flow alone", dataplane.Enforce, bulkAndFlow},
		{"bulk: never-block holds", dataplane.Enforce, bulkNever},
		{"bulk: monitor never drops", dataplane.Monitor, bulkMonitor},
		{"bulk: first drop is told once a reason", dataplane.Enforce, bulkFirstDrop},
		{"bulk: entries expire, wider ones stay", dataplane.Enforce, bulkExpires},
		{"bulk: a bad entry refuses the whole set", dataplane.Enforce, bulkInvalid},
		{"bulk: fragments meet it", dataplane.Enforce, bulkFragment},
		{"bulk: random sets against a list", dataplane.Enforce, bulkRandom},
	}
}

func list(reason uint32, expires time.Time, prefixes ...string) []dataplane.Listed {
	var out []dataplane.Listed
	for _, s := range prefixes {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a := netip.MustParseAddr(s)
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, dataplane.Listed{Prefix: p, Reason: reason, Expires: expires})
	}
	return out
}

func (r *rig) replace(entries ...dataplane.Listed) {
	r.t.Helper()
	if err := r.ReplaceBulk(entries); err != nil {
		r.t.Fatalf("replace bulk: %v", err)
	}
}

func (r *rig) bulk() dataplane.BulkState {
	r.t.Helper()
	s, err := r.BulkState()
	if err != nil {
		r.t.Fatalf("bulk state: %v", err)
	}
	return s
}

// from is a datagram of an outside address to an inside host.
func from(a netip.Addr) Step {
	host := ap("10.1.0.5:40001")
	if a.Is6() {
		host = ap("[fd00:1::5]:40001")
	}
	return Datagram(dataplane.ToInside, netip.AddrPortFrom(a, 9), host, nil)
}

func fromString(s string) Step { return from(netip.MustParseAddr(s)) }

func bulkBothEnds(t *testing.T, r *rig) {
	same(t, "generation of a fresh plane", r.bulk().Generation, 0)
	for _, f := range families() {
		r.replace(list(7, later(), f.peer.Addr().String(), f.prefix.String())...)
		r.expect(false, "listed address", in(f, f.peer), out(f, f.peer))
		r.expect(false, "listed prefix", in(f, f.peer2), out(f, f.peer2))
		r.expect(true, "not listed", in(f, f.stranger), out(f, f.stranger))
		// What an inside host sends is met whichever end is listed.
		r.replace(list(8, later(), f.host.Addr().String())...)
		r.expect(false, "listed host", in(f, f.peer), out(f, f.peer), in(f, f.stranger))
		st := r.bulk()
		same(t, "enforced", st.Enforced, 1)
		same(t, "intended", st.Intended, 1)
		same(t, "hits", st.Hits[8], 3)
		same(t, "hits of the old set", st.Hits[7], 0)
		if st.Bytes == 0 {
			t.Error("bytes: got 0, expected the memory of the tables")
		}
	}
	same(t, "generations", r.bulk().Generation, 4)
	same(t, "dropped", r.stats().Dropped, 14)
}

func bulkSentinels(t *testing.T, r *rig) {
	ends := []string{"0.0.0.0", "255.255.255.255", "0.0.0.1", "128.0.0.0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1"}
	for _, s := range ends {
		r.replace(list(1, later(), s)...)
		for _, other := range ends {
			r.expect(other != s, fmt.Sprintf("%s with %s listed", other, s), fromString(other))
		}
	}
	r.replace(list(1, later(), "8.0.0.0/8", "255.255.255.254/31", "ffff::/16", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127")...)
	r.expect(false, "listed", fromString("8.0.0.0"), fromString("8.255.255.255"), fromString("255.255.255.255"), fromString("255.255.255.254"),
		fromString("ffff::"), fromString("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
	r.expect(true, "beside", fromString("7.255.255.255"), fromString("9.0.0.0"), fromString("255.255.255.253"),
		fromString("0.0.0.0"), fromString("::"), fromString("fffe:ffff::"))
}

// edges are the first and last address of a prefix and those beside them.
func edges(p netip.Prefix) (in, out []netip.Addr) {
	first := p.Addr()
	raw := first.AsSlice()
	for bit := p.Bits(); bit < first.BitLen(); bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(raw)
	in = []netip.Addr{first, last}
	for _, a := range []netip.Addr{first.Prev(), last.Next()} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return in, out
}

// bulkLengths lists one prefix of each length, far from each other, in three
// sets, since a set may hold but so many lengths of IPv6.
func bulkLengths(t *testing.T, r *rig) {
	for _, c := range []struct {
		base     string
		from, to int
	}{{"5.184.216.34", 8, 32}, {"2001:db8:5a5a:a5a5:1234:5678:9abc:def1", 16, 79}, {"2001:db8:5a5a:a5a5:1234:5678:9abc:def1", 65, 128}} {
		var set []dataplane.Listed
		for bits := c.from; bits <= c.to; bits++ {
			raw := netip.MustParseAddr(c.base).AsSlice()
			raw[(len(raw)-4)/8] += byte(2 * (bits - c.from)) // within the shortest prefix, so that none holds another
			a, _ := netip.AddrFromSlice(raw)
			p, err := a.Prefix(bits)
			if err != nil {
				t.Fatal(err)
			}
			set = append(set, dataplane.Listed{Prefix: p, Expires: later()})
		}
		r.replace(set...)
		for _, l := range set {
			inside, outside := edges(l.Prefix)
			for _, x := range inside {
				r.expect(false, fmt.Sprintf("%s in %s", x, l.Prefix), from(x))
			}
			for _, x := range outside {
				r.expect(true, fmt.Sprintf("%s beside %s", x, l.Prefix), from(x))
			}
		}
		same(t, "enforced", r.bulk().Enforced, uint64(len(set)))
	}
}

func bulkLongest(t *testing.T, r *rig) {
	for _, f := range families() {
		addr := f.peer.Addr().String()
		var set []dataplane.Listed
		set = append(set, list(1, later(), addr)...)
		set = append(set, list(2, later().Add(time.Hour), f.prefix.String())...)
		set = append(set, list(3, later().Add(time.Minute), f.wide.String())...)
		for k, want := range []uint32{1, 2, 3} {
			r.replace(set[k:]...)
			before := r.bulk().Hits[want]
			r.expect(false, "listed", in(f, f.peer))
			same(t, "hits of the narrowest", r.bulk().Hits[want], before+1)
		}
		// The order of the list does not matter.
		r.replace(set[2], set[0], set[1])
		r.expect(false, "listed", in(f, f.peer))
		same(t, "hits of the address", r.bulk().Hits[1], 1)
	}
}

func bulkEqual(t *testing.T, r *rig) {
	f := families()[0]
	for _, target := range []string{f.peer.Addr().String(), f.prefix.String()} {
		short, long := list(1, later(), target), list(2, later().Add(time.Hour), target)
		past := list(3, time.Now().Add(-time.Hour), target)
		for _, set := range [][]dataplane.Listed{{short[0], long[0], past[0]}, {past[0], long[0], short[0]}} {
			r.replace(set...)
			r.expect(false, "listed three times", in(f, f.peer))
			st := r.bulk()
			same(t, "enforced", st.Enforced, 1)
			same(t, "intended", st.Intended, 1)
			same(t, "hits of the one that lives longest", st.Hits[2], 1)
		}
	}
}

func bulkReplace(t *testing.T, r *rig) {
	f, g := families()[0], families()[1]
	r.replace(list(1, later(), f.peer.Addr().String(), f.peer2.Addr().String(), g.prefix.String())...)
	same(t, "enforced", r.bulk().Enforced, 3)
	r.expect(false, "listed", in(f, f.peer), in(f, f.peer2), in(g, g.peer))
	r.replace(list(1, later(), f.peer2.Addr().String(), f.stranger.Addr().String())...)
	r.expect(true, "no longer listed", in(f, f.peer), in(g, g.peer))
	r.expect(false, "listed in both, and in the new one", in(f, f.peer2), in(f, f.stranger))
	r.replace()
	r.expect(true, "all withdrawn", in(f, f.peer), in(f, f.peer2), in(f, f.stranger))
	st := r.bulk()
	same(t, "generation", st.Generation, 3)
	same(t, "enforced", st.Enforced, 0)
	r.replace(list(1, later(), f.peer.Addr().String())...)
	r.expect(false, "listed anew", in(f, f.peer))
	same(t, "generation", r.bulk().Generation, 4)
}

// bulkMeetsFlows gives a flow that was there before sets that list neither of
// its ends, one, none again, the other: what one set said must not hold for the
// next, nor for the one after, which lies where the first one lay.
func bulkMeetsFlows(t *testing.T, r *rig) {
	for _, f := range families() {
		packets := []Step{in(f, f.peer), out(f, f.peer), in(f, f.peer), out(f, f.peer)}
		peer, host, other := f.peer.Addr().String(), f.host.Addr().String(), f.peer2.Addr().String()
		r.replace()
		r.expect(true, "a new flow", packets...)
		for turn, set := range []string{other, peer, other, host, other, other, host, peer} {
			r.replace(list(1, later(), set)...)
			r.expect(set == other, fmt.Sprintf("turn %d: %s listed", turn, set), append(packets, packets...)...)
		}
		r.replace()
		r.expect(true, "nothing listed", packets...)
		r.replace(list(1, later(), peer)...)
		r.expect(false, "listed anew", packets...)
	}
}

// bulkAmongMany has so much that is listed that planes may well look for that
// first, and then so much that is not.
func bulkAmongMany(t *testing.T, r *rig) {
	f := families()[0]
	r.replace(list(1, later(), f.peer.Addr().String(), "203.0.113.0/28")...)
	for range 3 {
		for range 200 {
			r.expect(false, "listed", in(f, f.peer))
		}
		r.expect(true, "not listed", in(f, f.stranger), out(f, f.peer2), in(f, f.peer2), in(f, f.stranger))
		r.expect(false, "prefix", fromString("203.0.113.3"), out(f, ap("203.0.113.4:1")))
		for range 200 {
			r.expect(true, "not listed, often", in(f, f.stranger))
		}
		r.expect(false, "listed, rarely", in(f, f.peer), out(f, f.peer), fromString("203.0.113.5"))
	}
}

func bulkBeforeRules(t *testing.T, r *rig) {
	f := families()[0]
	target := dataplane.Peer(f.peer.Addr())
	r.apply(block(target, 2))
	r.expect(false, "blocked by rule", in(f, f.peer))
	same(t, "reason", r.only(dataplane.EventFirstDrop).Reason, 2)
	r.replace(list(50, later(), f.peer.Addr().String())...)
	r.expect(false, "blocked, and listed", in(f, f.peer), out(f, f.peer))
	same(t, "reason", r.only(dataplane.EventFirstDrop).Reason, 50)
	h, _ := r.listed(target)
	same(t, "hits of the rule", h.Packets, 1)
	same(t, "hits of the bulk set", r.bulk().Hits[50], 2)
	// Without the set, the rule goes on.
	r.replace()
	r.expect(false, "blocked by rule", in(f, f.peer))
	h, _ = r.listed(target)
	same(t, "hits of the rule", h.Packets, 2)
}

// bulkAndFlow lists a peer whose flow is known: the flow is told with the first
// drop, and neither goes on nor counts what is dropped.
func bulkAndFlow(t *testing.T, r *rig) {
	f := families()[0]
	r.expect(true, "not listed", in(f, f.peer), out(f, f.peer))
	r.replace(list(50, later(), f.peer.Addr().String())...)
	r.expect(false, "listed", in(f, f.peer), out(f, f.peer))
	e := r.only(dataplane.EventFirstDrop)
	same(t, "packets of the flow", e.Record.Packets(), 2)
	same(t, "dropped of the flow", e.Record.Dropped, 0)
	r.replace()
	r.expect(true, "no longer listed", in(f, f.peer), in(f, f.peer))
	e = r.only(dataplane.EventMilestone)
	same(t, "packets of the flow", e.Record.Packets(), 4)
	same(t, "dropped of the flow", e.Record.Dropped, 0)
}

func bulkNever(t *testing.T, r *rig) {
	for _, f := range families() {
		r.replace(list(1, later(), f.prefix.String())...)
		single := dataplane.Peer(f.peer.Addr()).Prefix
		if err := r.SetNever([]dataplane.Never{{Prefix: single, Proto: flow.UDP, Port: f.peer.Port()}}); err != nil {
			t.Fatalf("never: %v", err)
		}
		r.expect(true, "never-block entry", in(f, f.peer), out(f, f.peer))
		r.expect(false, "its neighbour", in(f, f.peer2))
		r.expect(false, "another port of it", in(f, netip.AddrPortFrom(f.peer.Addr(), 9)))
	}
	same(t, "saved", r.stats().NeverSaved, 4)
}

func bulkMonitor(t *testing.T, r *rig) {
	f := families()[0]
	r.replace(list(4, later(), f.prefix.String())...)
	r.expect(true, "in monitor mode", in(f, f.peer), out(f, f.peer2))
	st := r.stats()
	same(t, "dropped", st.Dropped, 0)
	same(t, "would drop", st.WouldDrop, 2)
	same(t, "hits", r.bulk().Hits[4], 2)
	same(t, "mode of the event", r.only(dataplane.EventFirstDrop).Mode, dataplane.Monitor)
}

func bulkFirstDrop(t *testing.T, r *rig) {
	f := families()[0]
	set := append(list(4, later(), f.peer.Addr().String(), f.peer2.Addr().String()), list(5, later(), f.stranger.Addr().String())...)
	r.replace(set...)
	r.expect(false, "listed", in(f, f.peer), in(f, f.peer2), out(f, f.peer))
	e := r.only(dataplane.EventFirstDrop)
	same(t, "reason", e.Reason, 4)
	same(t, "initiator", e.Record.Initiator(), f.peer)
	r.expect(false, "listed for another reason", in(f, f.stranger), in(f, f.stranger))
	same(t, "reason", r.only(dataplane.EventFirstDrop).Reason, 5)
	r.replace(set...)
	r.expect(false, "listed again", in(f, f.peer), in(f, f.stranger))
	same(t, "events after a reload of the same reasons", len(r.events()), 0)
	r.replace(list(6, later(), f.peer.Addr().String())...)
	r.expect(false, "listed for a new reason", in(f, f.peer))
	same(t, "reason", r.only(dataplane.EventFirstDrop).Reason, 6)
}

func bulkExpires(t *testing.T, r *rig) {
	f, g := families()[0], families()[1]
	soon := time.Now().Add(2200 * time.Millisecond)
	set := list(1, soon, f.peer.Addr().String(), f.prefix.String(), g.peer.Addr().String(), "198.51.100.0/24")
	set = append(set, list(2, later(), f.wide.String(), g.prefix.String())...)
	r.replace(set...)
	r.expect(false, "before expiry", in(f, f.peer), in(g, g.peer), in(f, f.stranger))
	same(t, "enforced", r.bulk().Enforced, 6)
	same(t, "hits", r.bulk().Hits[1], 3)
	r.within(6*time.Second, "expiry", func() bool { return r.inject(in(f, f.stranger)) })
	if early := time.Until(soon); early > 1100*time.Millisecond {
		t.Errorf("gone %s before its expiry", early)
	}
	r.within(3*time.Second, "expired entries leave the count", func() bool { return r.bulk().Enforced == 2 })
	same(t, "intended", r.bulk().Intended, 2)
	before := r.bulk().Hits
	r.expect(false, "covered by a wider prefix that lives", in(f, f.peer), in(g, g.peer))
	same(t, "hits of the wider", r.bulk().Hits[2], before[2]+2)
	same(t, "hits of the expired", r.bulk().Hits[1], before[1])
}

func bulkInvalid(t *testing.T, r *rig) {
	f := families()[0]
	good := list(1, later(), f.peer.Addr().String())[0]
	r.replace(good)
	host := netip.MustParsePrefix("203.0.113.9/24")
	many := make([]dataplane.Listed, 1025)
	for k := range many {
		many[k] = good
		many[k].Reason = uint32(k)
	}
	for what, bad := range map[string][]dataplane.Listed{
		"no prefix":      {{Expires: later()}},
		"no expiry":      {{Prefix: good.Prefix}},
		"host bits":      {{Prefix: host, Expires: later()}},
		"everything":     {{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Expires: later()}},
		"too wide":       {{Prefix: netip.MustParsePrefix("16.0.0.0/7"), Expires: later()}},
		"too wide, IPv6": {{Prefix: netip.MustParsePrefix("2000::/3"), Expires: later()}},
		"mapped":         {{Prefix: netip.MustParsePrefix("::ffff:192.0.2.1/128"), Expires: later()}},
	} {
		set := append(list(1, later(), f.stranger.Addr().String()), bad...)
		if err := r.ReplaceBulk(set); err == nil {
			t.Errorf("%s: got nil, expected an error", what)
		}
	}
	if err := r.ReplaceBulk(many); !isFull(err) {
		t.Errorf("more reasons than are counted: got %v, expected ErrFull", err)
	}
	r.expect(false, "the old set stands", in(f, f.peer))
	r.expect(true, "nothing of the refused sets", in(f, f.stranger))
	same(t, "generation", r.bulk().Generation, 1)
}

func bulkFragment(t *testing.T, r *rig) {
	f := families()[0]
	frag := Packet{Src: f.peer, Dst: f.host, Proto: flow.UDP, Payload: make([]byte, 32), FragOffset: 100}
	step := Step{Hook: dataplane.ToInside, Frame: frag.Frame()}
	r.expect(true, "a fragment", step)
	r.replace(list(1, later(), f.peer.Addr().String())...)
	r.expect(false, "a fragment of a listed address", step)
}

// bulkRandom compares the plane with a walk over the list, for addresses in and
// around many overlapping entries.
func bulkRandom(t *testing.T, r *rig) {
	rng := rand.New(rand.NewPCG(3, 9))
	addr := func() netip.Addr {
		if rng.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{20, byte(rng.IntN(2)), byte(rng.IntN(4)), byte(rng.IntN(256))})
		}
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(rng.IntN(2)), 0, 0, byte(rng.IntN(4)), 14: byte(rng.IntN(2)), 15: byte(rng.IntN(256))})
	}
	for round := range 4 {
		var set []dataplane.Listed
		for range 20 << (2 * round) {
			a := addr()
			low := 8
			if a.Is6() {
				low = 16
			}
			p, err := a.Prefix(a.BitLen() - rng.IntN((a.BitLen()-low)/4)*rng.IntN(2)*rng.IntN(5))
			if err != nil {
				t.Fatal(err)
			}
			set = append(set, dataplane.Listed{Prefix: p, Reason: uint32(rng.IntN(5)), Expires: later()})
		}
		r.replace(set...)
		for range 300 {
			a := addr()
			listed := false
			for _, l := range set {
				listed = listed || l.Prefix.Contains(a)
			}
			r.expect(!listed, fmt.Sprintf("round %d: %s", round, a), from(a))
		}
	}
}
