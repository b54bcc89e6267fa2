package xdp

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// The comparison must see what differs, or agreement says nothing.
func TestTwinsSeeDifferences(t *testing.T) {
	w := newTwins(t, dataplane.Enforce, false)
	steps := planetest.NewSession(endpoint("10.0.0.1:4000"), endpoint("192.0.2.1:443")).Open()
	differences, err := w.Play(steps)
	check(t, err)
	if len(differences) != 0 {
		t.Fatalf("a plain handshake: %v", differences)
	}
	check(t, w.A.Apply(blockUntil(time.Hour, "192.0.2.1")))
	differences, err = w.Play(steps)
	check(t, err)
	// Three verdicts, the first drop, the flow, what was counted.
	if len(differences) < 6 {
		t.Errorf("with a rule in one plane only: %q: expected at least 6 differences", differences)
	}
}

func blockUntil(d time.Duration, addr string) dataplane.Rule {
	return dataplane.Rule{Target: dataplane.Peer(netip.MustParseAddr(addr)), Action: dataplane.Block, Expires: time.Now().Add(d), Reason: 3}
}

// fuzzRules are in force while the fuzzer plays, so that verdicts differ where
// parsing does.
func fuzzRules() []dataplane.Rule {
	until := time.Now().Add(24 * time.Hour)
	key, _ := flow.NewKey(endpoint("10.1.0.5:40001"), endpoint("198.51.100.4:443"), flow.TCP)
	service := dataplane.Target{Prefix: dataplane.Peer(netip.MustParseAddr("203.0.113.77")).Prefix, Port: 53, Proto: flow.UDP}
	return []dataplane.Rule{
		{Target: dataplane.Peer(netip.MustParseAddr("203.0.113.9")), Action: dataplane.Block, Expires: until, Reason: 1},
		{Target: dataplane.Peer(netip.MustParseAddr("2001:db8:7::9")), Action: dataplane.Block, Expires: until, Reason: 2},
		{Target: dataplane.Target{Prefix: netip.MustParsePrefix("192.0.2.0/24")}, Action: dataplane.Block, Expires: until, Reason: 3},
		{Target: dataplane.Target{Prefix: netip.MustParsePrefix("2001:db8:8::/48")}, Action: dataplane.Observe, Expires: until, Reason: 4},
		{Target: dataplane.Target{Flow: key}, Action: dataplane.Suspend, Expires: until, Reason: 5},
		{Target: service, Action: dataplane.Block, Expires: until, Reason: 6},
	}
}

var fuzzNever = []dataplane.Never{
	{Prefix: netip.MustParsePrefix("192.0.2.53/32"), Proto: flow.UDP, Port: 53},
	{Prefix: netip.MustParsePrefix("2001:db8:7::9/128"), Proto: 60},
	{Prefix: netip.MustParsePrefix("203.0.113.9/32"), Proto: 50},
}

// What the fuzzer does to the frames of a scenario.
const (
	fuzzRaw   = 1 << iota // on a link of bare IP
	fuzzTwice             // the frames once more, at the other hook
	fuzzCut               // the last byte of the edits says where the frame ends
)

// FuzzFramesThroughBothPlanes builds frames of a scenario, changes bytes of
// them as edits say (pairs of a position and a value), and shows them to both
// planes, which must agree on all. Without root, the plane in Go alone must
// keep its promises.
func FuzzFramesThroughBothPlanes(f *testing.F) {
	for kind := range uint8(len(scenarios())) {
		f.Add(kind, uint8(0), []byte{}, []byte{})
		f.Add(kind, uint8(fuzzRaw|fuzzTwice), []byte{}, []byte{})
		f.Add(kind, uint8(fuzzCut), []byte{40}, []byte{})
		for _, at := range []byte{0, 2, 6, 9, 20, 32, 46} {
			f.Add(kind, uint8(fuzzTwice), []byte{at + 14, 0xff}, []byte("GET "))
		}
	}
	f.Add(uint8(0xff), uint8(0), []byte{}, []byte("any bytes at all, as an Ethernet frame"))
	twins := newFuzzTwins(f)
	f.Fuzz(func(t *testing.T, kind, how uint8, edits, payload []byte) {
		raw := how & fuzzRaw
		steps := fuzzSteps(kind, how, edits, payload)
		if twins[raw] == nil {
			playSoft(t, softLinks[raw], steps)
			return
		}
		differences, err := twins[raw].Play(steps)
		check(t, err)
		for _, d := range differences {
			t.Error(d)
		}
	})
}

var softLinks = [2]softplane.LinkType{softplane.Ethernet, softplane.Raw}

func newFuzzTwins(f *testing.F) (out [2]*planetest.Twins) {
	if !mayLoad() {
		return out
	}
	for raw := range out {
		out[raw] = newTwins(f, dataplane.Enforce, raw == fuzzRaw)
		both(f, out[raw], func(p dataplane.Plane) error { return p.Apply(fuzzRules()...) })
		both(f, out[raw], func(p dataplane.Plane) error { return p.SetNever(fuzzNever) })
	}
	return out
}

// playSoft checks what holds for one plane alone: packets are counted, bytes
// and flows add up, and in monitor mode all pass.
func playSoft(t *testing.T, link softplane.LinkType, steps []planetest.Step) {
	s := newSoftTwin(t, dataplane.Monitor, link)
	check(t, s.Apply(fuzzRules()...))
	var packets, dropped uint64
	for _, step := range steps {
		passed, err := s.Inject(step.Hook, step.Frame)
		check(t, err)
		if !passed {
			t.Errorf("dropped in monitor mode: % x", step.Frame)
		}
	}
	check(t, s.Flush(func(e *dataplane.Event) {
		if e.Kind == dataplane.EventEnd {
			packets += uint64(e.Record.Packets())
			dropped += uint64(e.Record.Dropped)
		}
	}))
	st, err := s.Stats()
	check(t, err)
	if st.Packets != uint64(len(steps)) || packets+dropped > st.Packets || st.Flows != 0 || st.Dropped != 0 {
		t.Errorf("%d frames, %d in flows, %d dropped of flows: %+v", len(steps), packets, dropped, st)
	}
}

// fuzzSteps makes the frames. A kind beyond the scenarios is the payload itself.
func fuzzSteps(kind, how uint8, edits, payload []byte) []planetest.Step {
	const most = 1400
	payload = payload[:min(len(payload), most)]
	all := scenarios()
	if int(kind) >= len(all) {
		return edited([]planetest.Step{{Frame: payload}}, how, edits)
	}
	return edited(all[kind](payload), how, edits)
}

// edited returns the frames as how says, unchanged and after each further edit.
func edited(steps []planetest.Step, how uint8, edits []byte) (out []planetest.Step) {
	const most = 64
	for _, s := range steps {
		b := s.Frame
		if how&fuzzRaw != 0 && len(b) > 14 {
			b = b[14:]
		}
		if how&fuzzCut != 0 && len(edits) > 0 {
			b = b[:min(len(b), int(edits[len(edits)-1]))]
		}
		if short := MinInject - len(b); short > 0 {
			b = append(slices.Clone(b), make([]byte, short)...)
		}
		out = append(out, planetest.Step{Hook: s.Hook, Frame: b})
		for k := 0; k+1 < min(len(edits), most); k += 2 {
			b = slices.Clone(b)
			b[int(edits[k])%len(b)] ^= edits[k+1]
			out = append(out, planetest.Step{Hook: s.Hook, Frame: b})
		}
	}
	if how&fuzzTwice != 0 {
		for _, s := range out[:len(out):len(out)] {
			out = append(out, planetest.Step{Hook: 1 - s.Hook, Frame: s.Frame})
		}
	}
	return out
}

// TestChangedFramesThroughBothPlanes plays many more frames than a fuzzer can
// start rounds for: scenarios with a few bytes of their headers changed.
func TestChangedFramesThroughBothPlanes(t *testing.T) {
	needKernel(t)
	rng := rand.New(rand.NewPCG(11, 13))
	all := scenarios()
	for _, raw := range []uint8{0, fuzzRaw} {
		w := newTwins(t, dataplane.Enforce, raw != 0)
		both(t, w, func(p dataplane.Plane) error { return p.Apply(fuzzRules()...) })
		both(t, w, func(p dataplane.Plane) error { return p.SetNever(fuzzNever) })
		for range 40 {
			var steps []planetest.Step
			for len(steps) < 1000 {
				edits := make([]byte, 2*rng.IntN(6))
				for i := range edits {
					edits[i] = byte(rng.IntN(120 + 136*(i%2)))
				}
				how := raw | uint8(rng.IntN(8))&^fuzzRaw
				steps = append(steps, fuzzSteps(uint8(rng.IntN(len(all))), how, edits, make([]byte, rng.IntN(40)))...)
			}
			differences, err := w.Play(steps)
			check(t, err)
			if len(differences) > 0 {
				t.Fatalf("raw %v: %s", raw != 0, strings.Join(differences, "\n"))
			}
		}
	}
}

// scenarios are what the fuzzer begins with: each header that a parser knows.
func scenarios() []func(payload []byte) []planetest.Step {
	host4, peer4 := endpoint("10.1.0.5:40001"), endpoint("203.0.113.9:443")
	host6, peer6 := endpoint("[fd00:1::5]:40001"), endpoint("[2001:db8:7::9]:53")
	one := func(p planetest.Packet) func([]byte) []planetest.Step {
		return func(payload []byte) []planetest.Step {
			p.Payload = append([]byte{0, 0, 8, 0}, payload...)
			return []planetest.Step{{Hook: dataplane.FromInside, Frame: p.Frame()}}
		}
	}
	session := func(client, server netip.AddrPort) func([]byte) []planetest.Step {
		return func(payload []byte) []planetest.Step {
			s := planetest.NewSession(client, server)
			return append(append(s.Open(), s.Data(0, payload), s.Data(1, payload)), s.Close()...)
		}
	}
	exts := []planetest.Ext{{Type: 0, Body: make([]byte, 6)}, {Type: 43, Body: make([]byte, 6)}, {Type: 51, Body: make([]byte, 10)}, {Type: 60, Body: make([]byte, 14)}}
	return []func([]byte) []planetest.Step{
		session(host4, endpoint("198.51.100.4:443")),
		session(host4, endpoint("198.51.100.5:80")),
		session(host6, peer6),
		one(planetest.Packet{Src: host4, Dst: peer4, Proto: flow.UDP, Options: []byte{1, 1, 1, 1}}),
		one(planetest.Packet{Src: endpoint("192.0.2.53:53"), Dst: host4, Proto: flow.UDP, VLAN: []uint16{1, 2}}),
		one(planetest.Packet{Src: host4, Dst: endpoint("203.0.113.77:53"), Proto: flow.UDP, Session: 3}),
		one(planetest.Packet{Src: host6, Dst: peer6, Proto: flow.UDP, Ext: exts, Session: 3, VLAN: []uint16{1}}),
		one(planetest.Packet{Src: peer6, Dst: host6, Proto: flow.ICMPv6, Type: 135, Ext: exts[:1]}),
		one(planetest.Packet{Src: peer4, Dst: host4, Proto: flow.ICMP, Type: 3, Code: 4}),
		one(planetest.Packet{Src: peer4, Dst: host4, Proto: flow.TCP, MoreFrags: true, FragID: 1}),
		one(planetest.Packet{Src: peer4, Dst: host4, Proto: flow.UDP, FragOffset: 3, FragID: 1}),
		one(planetest.Packet{Src: peer6, Dst: host6, Proto: flow.TCP, FragOffset: 2, Ext: exts[:2]}),
		one(planetest.Packet{Src: peer6, Dst: host6, Proto: flow.UDP, Fragment: true, MoreFrags: true}),
		one(planetest.Packet{Src: peer4, Dst: host4, Proto: 47}),
		one(planetest.Packet{Src: peer6, Dst: host6, Proto: 41, Ext: exts[3:]}),
		one(planetest.Packet{Src: host4, Dst: host4, Proto: flow.UDP, VLAN: []uint16{1, 2, 3}}),
	}
}
