package node

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
)

// talks lets three hosts talk with four services for that many minutes.
func (x *learned) talks(minutes int) {
	id := uint64(0)
	for range minutes {
		x.now = x.now.Add(time.Minute)
		for host := range 3 {
			for to := range 4 {
				id++
				src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(host + 1)}), uint16(20000+id))
				dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(to + 1)}), 443)
				k, fromB := flow.NewKey(src, dst, flow.TCP)
				r := flow.Record{Key: k, InitB: fromB, ID: id, InitInside: true, Start: x.now.UnixNano(), Last: x.now.UnixNano(), End: flow.EndFIN, Validated: [2]bool{true, true}}
				for i := range r.Dir {
					r.Dir[i] = flow.Dir{Packets: 5, Bytes: 800, Payload: 500, SizeSq: 128000, SizeMin: 60, SizeMax: 400, First: r.Start, Last: r.Start, SYN: 1, FIN: 1, TTL: 60, Window: 64240}
				}
				x.handle(&dataplane.Event{Kind: dataplane.EventEnd, At: x.now.UnixNano(), Record: r})
			}
		}
	}
}

// What a site knows of its ordinary traffic outlasts a restart: who is familiar, whose
// relations the learner alone may not cut off, and how many hosts and services blocks
// may touch. The control is a site that kept nothing.
func TestTiesOutlastARestart(t *testing.T) {
	for _, kept := range []bool{false, true} {
		t.Run(fmt.Sprintf("kept %v", kept), func(t *testing.T) {
			x := newLearned(t)
			x.talks(60)
			was, uses := x.machine.Ordinary(x.now), len(x.guard.Uses(x.now))
			if was.Relations != 12 || uses != 3+4+4 || !x.sensor.Settled() {
				t.Fatalf("before: %+v, %d hosts and services, settled %v", was, uses, x.sensor.Settled())
			}
			if kept {
				x.keepTies(x.now, true)
			}
			x.states()
			x.restart()
			now, uses := x.machine.Ordinary(x.now), len(x.guard.Uses(x.now))
			if got := now.Relations == 12 && uses == 11 && x.sensor.Settled(); got != kept {
				t.Errorf("after: %+v, %d hosts and services, settled %v", now, uses, x.sensor.Settled())
			}
			if ties := x.machine.Ties(); kept && len(ties.List) != 12+4 {
				t.Errorf("after: %d ties, expected 12 relations and 4 parties that were met well", len(ties.List))
			}
		})
	}
}

// They are stored every ten minutes, not only at an end that a machine may not live to see.
func TestTiesAreKeptNowAndThen(t *testing.T) {
	x := newLearned(t)
	saved := func() (n int) {
		for _, j := range x.outbox.drain() {
			if j.save != nil && j.save.key == keyTies {
				n++
			}
		}
		return n
	}
	begin := x.now
	for range 35 * 60 {
		x.now = x.now.Add(time.Second)
		x.keepTies(x.now, false)
	}
	if n := saved(); n != 3 {
		t.Errorf("%d times in 35 minutes", n)
	}
	x.keepTies(begin, false) // the clock went back
	if n := saved(); n != 1 {
		t.Errorf("%d times after the clock went back", n)
	}
}

// Stored bytes that cannot be are refused, or what they say that cannot be is left out;
// nothing of it stops the site.
func TestTiesThatCannotBe(t *testing.T) {
	x := newLearned(t)
	x.talks(60)
	ties, uses := encodeTies(x.machine.Ties()), encodeUses(x.guard.Uses(x.now))
	for n := range ties {
		if _, err := decodeTies(ties[:n]); err == nil {
			t.Fatalf("%d of %d bytes are taken", n, len(ties))
		}
	}
	for n := range uses {
		if _, err := decodeUses(uses[:n]); err == nil {
			t.Fatalf("%d of %d bytes are taken", n, len(uses))
		}
	}
	for _, key := range []string{keyFamiliar, keyTies, keyUses} {
		if err := x.o.Store.Save(key, []byte("nonsense")); err != nil {
			t.Fatal(err)
		}
	}
	x.restart() // fails the test where the site does not start
	if o := x.machine.Ordinary(x.now); o.Relations != 0 {
		t.Errorf("%+v of nonsense", o)
	}

	a, late := netip.MustParseAddr("10.0.0.1"), x.now.Add(time.Hour)
	good := enforce.Tie{Host: a, Peer: a, N: 9, First: x.now.Add(-time.Hour), Last: x.now}
	bad := func(change func(*enforce.Tie)) enforce.Tie {
		c := good
		change(&c)
		return c
	}
	list := []enforce.Tie{
		good,
		bad(func(c *enforce.Tie) { c.Last = late }),
		bad(func(c *enforce.Tie) { c.First = late }),
		bad(func(c *enforce.Tie) { c.N = 0 }),
		bad(func(c *enforce.Tie) { c.Peer = netip.Addr{} }),
		bad(func(c *enforce.Tie) { c.First, c.Last = x.now.Add(-90*24*time.Hour), x.now.Add(-60*24*time.Hour) }),
	}
	if n := x.machine.Resume(x.now, enforce.Ties{Born: x.now.Add(-time.Hour), List: list}); n != 1 {
		t.Errorf("%d of one good tie are in use", n)
	}
	if n := x.machine.Resume(x.now, enforce.Ties{Born: late, List: list}); n != 0 {
		t.Errorf("%d of a site that begins in the future are in use", n)
	}
	if n := x.guard.Resume(x.now, []policy.Use{{Addr: a, At: x.now}, {Addr: a, At: late}, {At: x.now}, {Addr: a, At: x.now.Add(-48 * time.Hour)}}); n != 1 {
		t.Errorf("%d of one good use are in use", n)
	}
}

func FuzzTies(f *testing.F) {
	at := time.Unix(1_700_000_000, 0)
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")
	f.Add(encodeTies(enforce.Ties{Born: at, List: []enforce.Tie{{Host: a, Peer: b, Port: 443, Proto: 6, N: 4, First: at, Last: at, Cut: at}, {Peer: b, N: 1, First: at, Last: at}}}))
	f.Add(encodeUses([]policy.Use{{Addr: a, At: at}, {Addr: b, Port: 53, Proto: 17, At: at}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if x, err := decodeTies(raw); err == nil {
			if again, err := decodeTies(encodeTies(x)); err != nil || !reflect.DeepEqual(x, again) {
				t.Errorf("%+v comes back as %+v, %v", x, again, err)
			}
		}
		_, _ = decodeLesson(raw) // that it does not panic
		if x, err := decodeUses(raw); err == nil {
			if again, err := decodeUses(encodeUses(x)); err != nil || !reflect.DeepEqual(x, again) {
				t.Errorf("%+v comes back as %+v, %v", x, again, err)
			}
		}
	})
}
