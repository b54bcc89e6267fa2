package enforce

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// From frame to verdict: whatever is sent in a third party's name, and however
// odd the learner finds it, and although other sites have seen him, he is not
// blocked, nothing of it is shared or learnt, and his own connections neither
// suffer nor turn it against him.
func TestNobodyIsBlockedInAnothersName(t *testing.T) {
	plane, err := softplane.Open(softplane.Options{Mode: dataplane.Enforce, Now: func() time.Time { return t0 }})
	if err != nil {
		t.Fatal(err)
	}
	defer plane.Close()
	m := machine(Options{Rules: true, Mode: dataplane.Enforce})
	rng := rand.New(rand.NewPCG(8, 1))
	victims := []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:9::7")}
	hosts := []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}
	at, seen := t0, 0
	judge := func(j Judgement) {
		plane.Drain(func(ev *dataplane.Event) {
			seen++
			fx, id := m.Flow(at, ev, j, why)
			fx = append(fx, m.Answer(at, id, []string{"birch", "cedar"})...)
			for _, f := range fx {
				if f.Share != nil || f.Label != nil || f.Apply != nil && f.Apply.Rule.Action == dataplane.Block {
					t.Fatalf("event %d of %s led to %s", ev.Kind, ev.Record.Key, say([]Effect{f}))
				}
			}
		})
	}
	for round := range 60 {
		for i, v := range victims {
			for _, s := range planetest.Forge(rng, v, hosts[i], uint16(20+round)) {
				at = at.Add(10 * time.Millisecond)
				plane.Frame(s.Hook, softplane.Ethernet, s.Frame, 0, at)
			}
			plane.Flush()
			judge(odd)
			own := planetest.NewSession(netip.AddrPortFrom(v, uint16(30000+round)), netip.AddrPortFrom(hosts[i], 443))
			own.ServerInside = true
			for _, s := range append(append(own.Open(), own.Data(0, []byte("hello")), own.Data(1, []byte("hello"))), own.Close()...) {
				at = at.Add(10 * time.Millisecond)
				if !plane.Frame(s.Hook, softplane.Ethernet, s.Frame, 0, at) {
					t.Fatalf("a packet of the third party's own was dropped")
				}
			}
			judge(usual)
		}
	}
	if seen < 1000 {
		t.Fatalf("%d events: expected thousands", seen)
	}
	for _, v := range victims {
		if known, _, _ := m.Seen(v.String()); known {
			t.Errorf("the site tells others that it has seen %s misbehave", v)
		}
	}
	for _, b := range m.Standing() {
		if b.Action != "rate-limit" {
			t.Errorf("standing: %+v, expected rate limits at most", b)
		}
	}
}
