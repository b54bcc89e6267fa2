package feature

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func newHorizons(t testing.TB) *Horizons {
	t.Helper()
	h, err := NewHorizons(ContextOptions{Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// a host of the site, and an address outside.
func inside(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
func outer(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, byte(i >> 16), byte(i >> 8), byte(i)})
}

// ended is a flow that is over, of one packet out, and one of in bytes of payload back
// if that is not below 0.
func ended(from, to netip.Addr, port uint16, proto uint8, out, in int, at time.Duration) *flow.Record {
	k, fromB := flow.NewKey(netip.AddrPortFrom(from, 40000), netip.AddrPortFrom(to, port), proto)
	if proto == flow.ICMP {
		k, fromB = flow.NewKey(netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0), proto)
	}
	r := &flow.Record{Key: k, ID: uint64(at) + 1, InitB: fromB, Start: int64(at) + 1e18, Last: int64(at) + 1e18, End: flow.EndIdle}
	r.InitInside, r.RespInside = from.As4()[0] == 10, to.As4()[0] == 10
	r.Dir[0] = flow.Dir{Packets: 1, Payload: uint64(out)}
	if in >= 0 {
		r.Dir[1] = flow.Dir{Packets: 1, Payload: uint64(in)}
	}
	return r
}

// campaigns are deeds, each flow of which is like anybody's, at so many an hour that no
// minute has much of it.
var campaigns = map[Deed]func(host, i int, at time.Duration) *flow.Record{
	Unanswered: func(host, _ int, at time.Duration) *flow.Record {
		return ended(inside(host), outer(1), 1177, flow.TCP, 0, -1, at)
	},
	Missed: func(host, i int, at time.Duration) *flow.Record {
		return ended(inside(host), outer(i), 445, flow.UDP, 0, -1, at)
	},
	Knocked: func(host, i int, at time.Duration) *flow.Record {
		return ended(inside(host), outer(1), uint16(i+1), flow.UDP, 0, -1, at)
	},
	Pinged: func(host, i int, at time.Duration) *flow.Record {
		return ended(inside(host), outer(i), 0, flow.ICMP, 56, 56, at)
	},
	Guessed: func(host, _ int, at time.Duration) *flow.Record {
		return ended(inside(host), inside(9999), 22, flow.TCP, 900, 1200, at)
	},
	Sent: func(host, _ int, at time.Duration) *flow.Record {
		return ended(inside(host), outer(1), 443, flow.TCP, 25<<20, 3000, at)
	},
}

// do has a host do a deed n times, a gap apart, and returns after how many it was first
// told of, -1 for never, and over which span.
func do(h *Horizons, d Deed, host, n int, from, gap time.Duration) (int, time.Duration) {
	for i := range n {
		if x := h.Observe(campaigns[d](host, i, from+time.Duration(i)*gap), d == Guessed); x.Tell && x.Deed == d {
			return i + 1, x.Span
		}
	}
	return -1, 0
}

func TestSlowDeedsShow(t *testing.T) {
	for d := range campaigns {
		t.Run(d.String(), func(t *testing.T) {
			at, span := do(newHorizons(t), d, 1, 100, 0, 50*time.Second)
			if at < 0 || span != time.Hour {
				t.Errorf("72 an hour: told of at %d, over %s: expected over an hour", at, span)
			}
			at, span = do(newHorizons(t), d, 1, 250, 0, 6*time.Minute)
			if at < 0 || span != 24*time.Hour {
				t.Errorf("240 a day: told of at %d, over %s: expected over a day", at, span)
			}
			// The control: as much in all, by ten hosts.
			h := newHorizons(t)
			for i := range 100 {
				if x := h.Observe(campaigns[d](i%10, i, time.Duration(i)*50*time.Second), d == Guessed); x.Span != 0 {
					t.Fatalf("shared by ten hosts: told: %+v", x)
				}
			}
		})
	}
}

func TestNobodyMakesRoomForItself(t *testing.T) {
	const day = 24 * time.Hour
	h := newHorizons(t)
	for i := range 5 { // all but as much as it may, for days
		if at, _ := do(h, Missed, 1, 14, time.Duration(i)*day, 2*time.Minute); at >= 0 {
			t.Fatalf("told of at %d", at)
		}
	}
	if at, _ := do(h, Missed, 1, 60, 6*day, time.Minute); at < 0 || at > 45 {
		t.Errorf("told of at %d: expected soon after the 30th within an hour", at)
	}
	// What another host does, and has rested, makes room, for it is how this site is.
	h = newHorizons(t)
	do(h, Missed, 2, 28, 0, 2*time.Minute)
	if at, _ := do(h, Missed, 1, 50, 2*time.Hour, time.Minute); at >= 0 && at < 50 {
		t.Errorf("another host did 28: told of at %d: expected beyond 56 only", at)
	}
	// What was too much makes none, however long ago.
	h = newHorizons(t)
	do(h, Missed, 2, 1000, 0, time.Minute)
	for i := range 1000 {
		h.Observe(campaigns[Missed](2, i, time.Duration(i)*time.Minute), false)
	}
	if at, _ := do(h, Missed, 1, 200, 2*day, time.Minute); at < 0 || at > 75 {
		t.Errorf("another host scanned for a day: told of at %d: expected within twice what it may", at)
	}
}

// When the line is down, everybody gets nothing at once.
func TestOutageIsNobodysDeed(t *testing.T) {
	h := newHorizons(t)
	rng := rand.New(rand.NewPCG(1, 1))
	told := map[int]bool{}
	for i := range 50 * 20 { // of 50 hosts, each tries some 20 addresses within a minute
		host := rng.IntN(50)
		r := ended(inside(host), outer(rng.IntN(4000)), 443, flow.TCP, 0, -1, time.Duration(i)*60*time.Millisecond)
		if x := h.Observe(r, false); x.Tell {
			told[host] = true
		}
	}
	if len(told) > 2 {
		t.Errorf("%d of 50 hosts told of: expected at most 2", len(told))
	}
	// The control: the same by one of them, while the others are at rest.
	if at, _ := do(newHorizons(t), Missed, 1, 20, 0, 3*time.Second); at < 0 {
		t.Error("one host alone is not told of")
	}
}

func TestWhoAnswersIsNoDeadEnd(t *testing.T) {
	h := newHorizons(t)
	h.Observe(ended(inside(1), outer(1), 80, flow.TCP, 100, 100, 0), false)
	if at, _ := do(h, Unanswered, 1, 200, time.Second, time.Minute); at >= 0 {
		t.Errorf("told of at %d, though it answered once", at)
	}
}

func TestWhatIsNotKnownIsNotCounted(t *testing.T) {
	for _, l := range []flow.Lack{flow.LackPackets, flow.LackSplit, flow.LackClock, flow.LackAddrs} {
		h := newHorizons(t)
		for i := range 200 {
			r := campaigns[Missed](1, i, time.Duration(i)*time.Second)
			r.Lacks = l
			if x := h.Observe(r, false); x.Span != 0 {
				t.Fatalf("lacking %v: %+v", l, x)
			}
		}
	}
}

// Whoever calls from outside is held against nobody, and makes no room.
func TestOutsidersGuessingSlowly(t *testing.T) {
	h := newHorizons(t)
	first := func(n int, at time.Duration) int {
		for i := range 100 {
			if x := h.Observe(ended(outer(n), inside(1), 22, flow.TCP, 900, 1200, at+time.Duration(i)*time.Minute), true); x.Tell {
				return i + 1
			}
		}
		return -1
	}
	for n := range 3 {
		if at := first(n, time.Duration(n)*3*time.Hour); at < 30 || at > 61 {
			t.Errorf("caller %d: told of at %d", n, at)
		}
	}
	for i := range 100 { // failing from outside is for the rules
		if x := h.Observe(ended(outer(9), inside(i), 80, flow.TCP, 0, -1, time.Duration(i)*time.Second), false); x.Span != 0 {
			t.Fatalf("%+v", x)
		}
	}
}

func TestHorizonsStayBounded(t *testing.T) {
	h := newHorizons(t)
	before := h.Bytes()
	rng := rand.New(rand.NewPCG(2, 2))
	r := ended(inside(1), outer(1), 80, flow.TCP, 0, -1, 0)
	var n int
	if a := testing.AllocsPerRun(20000, func() {
		n++
		at := time.Duration(rng.Int64N(int64(30 * 24 * time.Hour))) // a clock that is all over the place
		q := *r
		q.Key.A, q.Start, q.Last = outer(rng.IntN(1<<24)), int64(at), int64(at)
		q.RespInside, q.InitInside = rng.IntN(2) == 0, rng.IntN(4) > 0
		h.Observe(&q, rng.IntN(2) == 0)
	}); a > 0 {
		t.Errorf("%v allocations", a)
	}
	if h.Bytes() != before || before > 8<<20 {
		t.Errorf("%d bytes, then %d: expected as many, at most 8 MiB", before, h.Bytes())
	}
	// One host that tries everything pushes out nothing that others have.
	do(h, Sent, 2, 20, 0, time.Minute)
	h = newHorizons(t)
	do(h, Sent, 2, 40, 0, time.Minute)
	for i := range 100_000 {
		h.Observe(ended(inside(3), outer(i), 80, flow.TCP, 0, -1, 40*time.Minute+time.Duration(i)), false)
	}
	if at, _ := do(h, Sent, 2, 3, 41*time.Minute, time.Second); at < 0 {
		t.Error("what a host had sent is forgotten after another's scan")
	}
}

func BenchmarkHorizons(b *testing.B) {
	h := newHorizons(b)
	rng := rand.New(rand.NewPCG(3, 3))
	var rs []*flow.Record
	for i := range 4096 {
		rs = append(rs, ended(inside(rng.IntN(200)), outer(rng.IntN(3000)), 443, flow.TCP, rng.IntN(2000), rng.IntN(3000)-100, time.Duration(i)*time.Second))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		h.Observe(rs[i&4095], false)
	}
}

func TestDeedsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for d := range deeds {
		if s := d.String(); s == "" || seen[s] {
			t.Errorf("deed %d is called %q", d, s)
		} else {
			seen[s] = true
		}
	}
	if s := fmt.Sprint(deeds); s != "" {
		t.Errorf("a deed that there is not is called %q", s)
	}
}
