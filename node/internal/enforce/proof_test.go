package enforce

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func darkProof(i int, proved bool) *dataplane.Event {
	return fl{id: 0, from: "198.51.100.7:5000", to: fmt.Sprintf("10.0.9.%d:22", i), validated: proved, kind: dataplane.EventProof}.event()
}

func TestHandshakesWithUnusedAddressesBlock(t *testing.T) {
	m := machine(Options{Rules: true})
	var said string
	for i := range darkLimit {
		fx, id := m.Flow(t0.Add(time.Duration(i)*time.Second), darkProof(i, true), Judgement{}, nil)
		if i < darkLimit-1 && (len(fx) != 0 || id != "") {
			t.Fatalf("proof %d led to %s", i, say(fx))
		}
		said += say(append(fx, m.Answer(t0, id, nil)...))
	}
	if !strings.Contains(said, "apply block 198.51.100.7\n") || !strings.Contains(said, "share address 198.51.100.7 validated") {
		t.Fatalf("%d handshakes led to %s, want a block that is shared", darkLimit, said)
	}
}

func TestWhatProvesNothingOfDarkAddresses(t *testing.T) {
	for name, script := range map[string]func(i int) (*dataplane.Event, time.Time){
		"unproved":    func(i int) (*dataplane.Event, time.Time) { return darkProof(i, false), t0 },
		"one service": func(int) (*dataplane.Event, time.Time) { return darkProof(1, true), t0 },
		"over an hour": func(i int) (*dataplane.Event, time.Time) {
			return darkProof(i, true), t0.Add(time.Duration(i) * time.Hour)
		},
		"flood event": func(i int) (*dataplane.Event, time.Time) {
			ev := darkProof(i, true)
			ev.Kind, ev.Flood = dataplane.EventFlood, dataplane.OverSource
			return ev, t0
		},
	} {
		m := machine(Options{Rules: true})
		for i := range 40 {
			ev, now := script(i)
			if fx, _ := m.Flow(now, ev, odd, why); len(fx) != 0 {
				t.Fatalf("%s: event %d led to %s", name, i, say(fx))
			}
		}
	}
}

// A scan by bare SYNs is limited; the same scanner is blocked once it has also
// completed handshakes with several services without a word.
func TestAScanIsBlockedByWhatItProved(t *testing.T) {
	for _, c := range []struct {
		touches int
		want    string
	}{{touchLimit - 1, "rate-limit"}, {touchLimit, "block"}} {
		m := machine(Options{Rules: true})
		for i := range c.touches {
			f := fl{id: uint64(500 + i), from: "198.51.100.7:7000", to: fmt.Sprintf("10.0.0.1:%d", 20+i), validated: true,
				kind: dataplane.EventEnd, end: flow.EndFIN, dirs: [2]flow.Dir{{Packets: 3, SYN: 1}, {Packets: 2, SYN: 1}}}
			m.Flow(t0, f.event(), Judgement{}, nil)
		}
		for i := range scanLimit {
			_, id := m.Flow(t0, refusedFlow(i).event(), Judgement{}, nil)
			m.Answer(t0, id, nil)
		}
		if bs := m.Standing(); len(bs) != 1 || bs[0].Action != c.want {
			t.Errorf("%d services touched: standing %+v, want one %s", c.touches, bs, c.want)
		}
	}
}

// A run of odd flows that somebody forged does not add to a run of the real
// peer's.
func TestForgedRunsStayApart(t *testing.T) {
	m := machine(Options{})
	m.SetBudget(1e-4, 1e-9)
	somewhat := Judgement{Judged: true, P: 2e-3, Detector: "self", Model: "m1"}
	play := func(id int, proved bool) []Effect {
		f := fl{id: uint64(id), from: fmt.Sprintf("198.51.100.7:%d", 1000+id), to: "10.0.0.1:22", validated: proved, kind: dataplane.EventEnd}
		fx, in := m.Flow(t0, f.event(), somewhat, why)
		return append(fx, m.Answer(t0, in, nil)...)
	}
	for i := range 40 {
		if s := say(play(i, false)); strings.Contains(s, "apply block") || strings.Contains(s, "share") {
			t.Fatalf("forged flow %d led to %s", i, s)
		}
	}
	if bs := m.Standing(); len(bs) != 1 || bs[0].Action != "rate-limit" {
		t.Fatalf("standing %+v, want one rate limit: the run itself is told", bs)
	}
	if s := say(play(100, true)); strings.Contains(s, "apply block") {
		t.Fatalf("the first flow of the real peer led to %s", s)
	}
	var said string
	for i := range 20 {
		said += say(play(200+i, true))
	}
	if !strings.Contains(said, "apply block 198.51.100.7\n") {
		t.Fatalf("a run of the peer's own led to %s, want a block", said)
	}
}
