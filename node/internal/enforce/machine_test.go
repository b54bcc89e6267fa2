package enforce

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// machine returns one with ids that count up, so that scripts are repeatable.
func machine(o Options) *Machine {
	o.Site = "alder"
	if o.Alpha == 0 {
		o.Alpha = 1e-4
	}
	m := New(o)
	n := 0
	m.newID = func(time.Time) string { n++; return fmt.Sprintf("e%03d", n) }
	return m
}

type fl struct {
	id        uint64
	from, to  string
	validated bool
	kind      dataplane.EventKind
	end       flow.End
	dirs      [2]flow.Dir
}

func (f fl) event() *dataplane.Event {
	src, dst := netip.MustParseAddrPort(f.from), netip.MustParseAddrPort(f.to)
	k, fromB := flow.NewKey(src, dst, flow.TCP)
	r := flow.Record{
		Key: k, ID: f.id, InitB: fromB, Dir: f.dirs, End: f.end,
		InitInside: src.Addr().IsPrivate(), RespInside: dst.Addr().IsPrivate(),
		Start: t0.UnixNano(), Last: t0.Add(time.Second).UnixNano(),
	}
	if f.validated {
		r.Validated = [2]bool{true, true}
	}
	return &dataplane.Event{Kind: f.kind, Record: r}
}

var odd = Judgement{Judged: true, P: 1e-5, Detector: "self", Model: "m1"}
var usual = Judgement{Judged: true, P: 0.4, Detector: "self", Model: "m1"}

func why() []event.Reason {
	return []event.Reason{{Feature: "up", Words: "sent 3 MB to a new peer", Weight: 1}}
}

// say prints effects as one line each, for comparison.
func say(fx []Effect) string {
	var b strings.Builder
	for _, f := range fx {
		switch {
		case f.Apply != nil:
			fmt.Fprintf(&b, "apply %s %s\n", f.Apply.Rule.Action, f.Apply.Rule.Target)
		case f.Remove != nil:
			fmt.Fprintf(&b, "remove %s\n", f.Remove)
		case f.Ask != nil:
			fmt.Fprintf(&b, "ask %s\n", f.Ask.Value)
		case f.Share != nil:
			fmt.Fprintf(&b, "share %s %s %s\n", f.Share.Type, f.Share.Value, f.Share.Evidence)
		case f.Withdraw != "":
			fmt.Fprintf(&b, "withdraw %s\n", f.Withdraw)
		case f.Label != nil:
			fmt.Fprintf(&b, "label attack=%v\n", f.Label.Attack)
		case f.Emit != nil && f.Emit.Block != nil:
			fmt.Fprintf(&b, "block %s %s\n", f.Emit.Block.Target, f.Emit.Block.State)
		case f.Emit != nil && f.Emit.Verdict != nil:
			fmt.Fprintf(&b, "verdict %s %s\n", f.Emit.Verdict.Action, f.Emit.Verdict.Sentence)
		case f.Emit != nil:
			fmt.Fprintf(&b, "emit %s\n", f.Emit.Kind)
		}
	}
	return b.String()
}

func want(t *testing.T, fx []Effect, lines ...string) {
	t.Helper()
	w := strings.Join(lines, "\n")
	if w != "" {
		w += "\n"
	}
	if got := say(fx); got != w {
		t.Fatalf("effects:\n%swant:\n%s", got, w)
	}
	for _, f := range fx {
		for _, e := range []*event.Event{f.Emit} {
			if e != nil {
				if err := e.Validate(); err != nil {
					t.Fatalf("emitted %v", err)
				}
			}
		}
	}
}

func TestLadderOfAnOutboundBeacon(t *testing.T) {
	m := machine(Options{})
	f := fl{id: 1, from: "10.0.0.3:40000", to: "198.51.100.7:443", validated: true}
	fx, id := m.Flow(t0, f.event(), odd, why)
	want(t, fx, "emit alert", "emit incident",
		"apply suspend tcp 10.0.0.3:40000<>198.51.100.7:443", "ask 198.51.100.7")
	if id == "" {
		t.Fatal("flow belongs to no incident")
	}
	// Nobody else has seen it, and one flow is not enough.
	want(t, m.Answer(t0, id, nil))
	// The same flow at a later milestone is no second alert.
	f.kind = dataplane.EventMilestone
	fx, _ = m.Flow(t0, f.event(), odd, why)
	want(t, fx)
	// A second flow is: now the service is blocked, told, shared.
	f.id, f.from = 2, "10.0.0.3:40001"
	fx, _ = m.Flow(t0.Add(time.Second), f.event(), odd, why)
	want(t, fx, "emit alert", "emit incident",
		"apply suspend tcp 10.0.0.3:40001<>198.51.100.7:443",
		"apply block 198.51.100.7:443/tcp",
		"share service 198.51.100.7 tcp/443 validated", "emit incident")
}

func TestTheMeshsAnswerIsEnoughWithOneFlow(t *testing.T) {
	m := machine(Options{})
	_, id := m.Flow(t0, fl{id: 1, from: "10.0.0.3:1", to: "198.51.100.7:443", validated: true}.event(), odd, why)
	fx := m.Answer(t0, id, []string{"birch"})
	want(t, fx, "apply block 198.51.100.7:443/tcp",
		"share service 198.51.100.7 tcp/443 validated", "emit incident")
	if s := fx[0].Apply.Block.Block.Reason; !strings.Contains(s, "also seen by birch") {
		t.Fatalf("reason %q does not name who has seen it", s)
	}
}

// Invariant: no block of a source on spoofable evidence, and nothing of it
// reaches the mesh or the labels.
func TestSpoofableEvidenceNeverBlocksNorLeaves(t *testing.T) {
	m := machine(Options{Rules: true})
	for i := range 500 {
		f := fl{
			id: uint64(i + 1), from: fmt.Sprintf("198.51.100.7:%d", 1000+i),
			to: fmt.Sprintf("10.0.0.%d:%d", 1+i%200, i+1), kind: dataplane.EventEnd, end: flow.EndIdle,
			dirs: [2]flow.Dir{{Packets: 1, SYN: 1}},
		}
		fx, id := m.Flow(t0, f.event(), odd, why)
		fx = append(fx, m.Answer(t0, id, []string{"birch", "cedar"})...)
		for _, e := range fx {
			if e.Share != nil || e.Label != nil || e.Apply != nil && e.Apply.Rule.Action == dataplane.Block {
				t.Fatalf("flow %d: spoofable evidence led to %s", i, say([]Effect{e}))
			}
		}
	}
	if seen, _, _ := m.Seen("198.51.100.7"); seen {
		t.Fatal("the site tells others that it has seen a peer that anybody could have forged")
	}
	bs := m.Standing()
	if len(bs) != 1 || bs[0].Action != "rate-limit" {
		t.Fatalf("standing %+v, want one rate limit", bs)
	}
	// The one whose name was used comes by, as he always does: nothing of the
	// above was his.
	for i := range 50 {
		own := fl{id: uint64(900 + i), from: fmt.Sprintf("198.51.100.7:%d", 9+i), to: "10.0.0.1:22", validated: true}
		for _, own.kind = range []dataplane.EventKind{dataplane.EventMilestone, dataplane.EventEnd} {
			if fx, _ := m.Flow(t0, own.event(), usual, why); len(fx) != 0 {
				t.Fatalf("an ordinary connection of a peer whose name was forged led to %s", say(fx))
			}
		}
	}
	// What is odd in flows that he did open is his.
	fx, id := m.Flow(t0, fl{id: 990, from: "198.51.100.7:990", to: "10.0.0.1:22", validated: true}.event(), odd, why)
	fx = append(fx, m.Answer(t0, id, []string{"birch"})...)
	if !strings.Contains(say(fx), "apply block 198.51.100.7\n") {
		t.Fatalf("odd flow of a proved peer that others have seen led to %s, want a block", say(fx))
	}
}

func TestRulesCountWithoutALearner(t *testing.T) {
	for _, c := range []struct {
		name string
		n    int
		flow func(i int) fl
		want string
	}{
		{"scan below the limit", scanLimit - 1, refusedFlow, ""},
		{"scan", scanLimit, refusedFlow, "scan"},
		{"logins below the limit", guessLimit - 1, loginFlow, ""},
		{"logins", guessLimit, loginFlow, "guessing"},
		{"web visits", 200, func(i int) fl { f := loginFlow(i); f.to = "10.0.0.1:80"; return f }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := machine(Options{Rules: true})
			var last string
			for i := range c.n {
				fx, id := m.Flow(t0.Add(time.Duration(i)*time.Second/10), c.flow(i).event(), Judgement{}, nil)
				m.Answer(t0, id, nil)
				for _, e := range fx {
					if e.Emit != nil && e.Emit.Alert != nil {
						last = e.Emit.Alert.Detector
					}
				}
			}
			if strings.TrimPrefix(last, "rule:") != c.want {
				t.Fatalf("detector %q, want %q", last, c.want)
			}
		})
	}
}

func refusedFlow(i int) fl {
	return fl{
		id: uint64(i + 1), from: "198.51.100.7:5000", to: fmt.Sprintf("10.0.0.1:%d", 100+i),
		kind: dataplane.EventEnd, end: flow.EndRST,
		dirs: [2]flow.Dir{{Packets: 1, SYN: 1}, {Packets: 1, RST: 1}},
	}
}

func loginFlow(i int) fl {
	return fl{
		id: uint64(i + 1), from: fmt.Sprintf("198.51.100.7:%d", 5000+i), to: "10.0.0.1:22", validated: true,
		kind: dataplane.EventEnd, end: flow.EndFIN,
		dirs: [2]flow.Dir{{Packets: 8, Payload: 900}, {Packets: 8, Payload: 1200}},
	}
}

func TestUndoIsComplete(t *testing.T) {
	for _, how := range []string{"dismiss", "unblock"} {
		t.Run(how, func(t *testing.T) {
			m := machine(Options{})
			f := fl{id: 1, from: "10.0.0.3:1", to: "198.51.100.7:443", validated: true}
			_, id := m.Flow(t0, f.event(), odd, why)
			m.Answer(t0, id, []string{"birch"})
			var fx []Effect
			var err error
			if how == "dismiss" {
				fx, err = m.Dismiss(t0, id)
			} else {
				tg, perr := ParseTarget("198.51.100.7 tcp/443")
				if perr != nil {
					t.Fatal(perr)
				}
				fx, err = m.Unblock(t0, tg)
			}
			if err != nil {
				t.Fatal(err)
			}
			want(t, fx, "remove tcp 10.0.0.3:1<>198.51.100.7:443",
				"remove 198.51.100.7:443/tcp", "block 198.51.100.7:443/tcp lifted",
				"withdraw 198.51.100.7:443/tcp", "label attack=false", "emit incident")
			// Not blocked again by more of the same.
			for i := range 5 {
				f.id = uint64(10 + i)
				if fx, _ := m.Flow(t0.Add(time.Minute), f.event(), odd, why); len(fx) != 0 {
					t.Fatalf("after the undo: %s", say(fx))
				}
			}
			if _, refused := m.Indicator(t0, Received{Author: "birch", Value: "198.51.100.7 tcp/443", Expires: t0.Add(time.Hour)}); refused == "" {
				t.Fatal("another site's indicator overrides the operator's undo")
			}
		})
	}
}

func TestSharedIndicators(t *testing.T) {
	m := machine(Options{May: func(_ time.Time, r dataplane.Rule) error {
		if r.Target.Prefix.Contains(netip.MustParseAddr("192.0.2.1")) {
			return dataplane.ErrNeverBlock
		}
		return nil
	}})
	fx, refused := m.Indicator(t0, Received{Author: "birch", Value: "203.0.113.9", Expires: t0.Add(30 * 24 * time.Hour), Sentence: "scan"})
	if refused != "" {
		t.Fatal(refused)
	}
	want(t, fx, "apply block 203.0.113.9")
	if d := fx[0].Apply.Rule.Expires.Sub(t0); d > 7*24*time.Hour {
		t.Fatalf("expires in %v, want at most 7 days", d)
	}
	for value, part := range map[string]string{
		"192.0.2.1": "never-block", "0.0.0.0/0": "too wide", "nonsense": "expected an address", "203.0.113.9": "already",
	} {
		if _, refused := m.Indicator(t0, Received{Author: "birch", Value: value, Expires: t0.Add(time.Hour)}); !strings.Contains(refused, part) {
			t.Errorf("indicator for %s: refused with %q, want %q", value, refused, part)
		}
	}
	want(t, m.Withdrawn(t0, "cedar", "203.0.113.9"))
	want(t, m.Withdrawn(t0, "birch", "203.0.113.9"), "remove 203.0.113.9", "block 203.0.113.9 lifted")
}

// Organisations that enforce something together lift it together.
func TestIndicatorsOfOtherOrganisations(t *testing.T) {
	m := machine(Options{})
	say := func(author string, limit bool) []Effect {
		t.Helper()
		fx, refused := m.Indicator(t0, Received{Author: author, Value: "203.0.113.9", Expires: t0.Add(time.Hour), Limit: limit})
		if refused != "" {
			t.Fatal(refused)
		}
		return fx
	}
	want(t, say("briar/gate", true), "apply rate-limit 203.0.113.9")
	want(t, say("cedar/gate", false), "apply block 203.0.113.9")
	want(t, m.Withdrawn(t0, "birch", "203.0.113.9")) // a site of ours, which said nothing
	want(t, m.Withdrawn(t0, "briar/gate", "203.0.113.9"), "remove 203.0.113.9", "block 203.0.113.9 lifted")
	if _, refused := m.Indicator(t0, Received{Author: "birch", Value: "203.0.113.9", Expires: t0.Add(time.Hour)}); refused != "" {
		t.Fatal(refused)
	}
	want(t, m.Withdrawn(t0, "briar/gate", "203.0.113.9"))
}

func TestPanicLiftsAllButTheOperatorsAndStays(t *testing.T) {
	m := machine(Options{})
	own, err := ParseTarget("203.0.113.50")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Block(t0, own, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	f := fl{id: 1, from: "10.0.0.3:1", to: "198.51.100.7:443", validated: true}
	_, id := m.Flow(t0, f.event(), odd, why)
	m.Answer(t0, id, []string{"birch"})
	fx := m.Panic(t0, true)
	want(t, fx, "remove tcp 10.0.0.3:1<>198.51.100.7:443", "remove 198.51.100.7:443/tcp",
		"block 198.51.100.7:443/tcp lifted", "withdraw 198.51.100.7:443/tcp")
	if _, refused := m.Indicator(t0, Received{Author: "b", Value: "203.0.113.9", Expires: t0.Add(time.Hour)}); refused == "" {
		t.Fatal("a shared verdict was made during panic")
	}
	f.id = 2
	fx, _ = m.Flow(t0, f.event(), odd, why)
	if s := say(fx); strings.Contains(s, "apply") {
		t.Fatalf("during panic: %s", s)
	}
	if bs := m.Standing(); len(bs) != 1 || bs[0].Source != SourceOperator {
		t.Fatalf("standing %+v, want the operator's block alone", bs)
	}
}

func TestExpiryRestoreAndFirstDrop(t *testing.T) {
	m := machine(Options{BlockFor: time.Hour})
	f := fl{id: 1, from: "10.0.0.3:1", to: "198.51.100.7:443", validated: true}
	_, id := m.Flow(t0, f.event(), odd, why)
	fx := m.Answer(t0, id, []string{"birch"})
	reason := fx[0].Apply.Rule.Reason

	n := machine(Options{BlockFor: time.Hour})
	want(t, n.Restore(t0.Add(time.Minute), m.Standing()), "apply block 198.51.100.7:443/tcp")
	drop := f.event()
	drop.Kind, drop.Reason, drop.At = dataplane.EventFirstDrop, reason, t0.Add(2*time.Minute).UnixNano()
	fx, _ = n.Flow(t0.Add(2*time.Minute), drop, Judgement{}, nil)
	if len(fx) != 1 || fx[0].Emit.Verdict.FirstDropNS != drop.At {
		t.Fatalf("first drop: %s", say(fx))
	}
	want(t, n.Tick(t0.Add(time.Hour)), "remove 198.51.100.7:443/tcp", "block 198.51.100.7:443/tcp expired")
	want(t, n.Restore(t0.Add(2*time.Hour), m.Standing()))
}

func TestGuardRefusesAloud(t *testing.T) {
	m := machine(Options{May: func(time.Time, dataplane.Rule) error { return errors.New("60 blocks this hour are the limit") }})
	fx, _ := m.Flow(t0, fl{id: 1, from: "10.0.0.3:1", to: "198.51.100.7:443", validated: true}.event(), odd, why)
	want(t, fx, "emit alert", "emit incident",
		"verdict observe would suspend, but: 60 blocks this hour are the limit", "ask 198.51.100.7")
}

func TestMemoryIsBounded(t *testing.T) {
	m := machine(Options{MaxIncidents: 100, Rules: true})
	for i := range 20000 {
		f := fl{id: uint64(i), from: fmt.Sprintf("198.%d.%d.%d:9", 18+i>>16, i>>8&255, i&255), to: "10.0.0.1:22", kind: dataplane.EventEnd}
		m.Flow(t0, f.event(), odd, why)
	}
	if len(m.incidents) > 100 || len(m.byID) > 100 || len(m.order) > 100 || len(m.rules.peers) > maxTracked {
		t.Fatalf("%d incidents, %d tracked peers", len(m.incidents), len(m.rules.peers))
	}
}

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]string{
		"203.0.113.9": "203.0.113.9", "203.0.113.77/24": "203.0.113.0/24", "2001:db8::1": "2001:db8::1",
		"203.0.113.9 tcp/443": "203.0.113.9:443/tcp", "2001:db8::1 udp/53": "2001:db8::1:53/udp",
		"203.0.113.9:443/tcp": "203.0.113.9:443/tcp", "2001:db8::1:53/udp": "2001:db8::1:53/udp", "::ffff:203.0.113.9": "203.0.113.9",
	} {
		got, err := ParseTarget(in)
		if err != nil || got.String() != want {
			t.Errorf("%q: %v, %v; want %s", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "host", "1.2.3", "1.2.3.4 sctp/5", "1.2.3.4 tcp/0", "1.2.3.4 tcp/99999", "1.2.3.4/99", "fe80::1%eth0"} {
		if got, err := ParseTarget(bad); err == nil {
			t.Errorf("%q parsed as %v", bad, got)
		}
	}
}
