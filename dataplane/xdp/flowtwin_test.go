package xdp

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// twinFlow is what a slow and obvious table would know of a flow.
type twinFlow struct {
	packets, bytes, payload [2]uint64
	flags                   [2]uint8
	initB                   bool
	resets                  bool // nothing else
}

// randomPacket is one of few flows, so that they meet again.
func randomPacket(rng *rand.Rand) (p planetest.Packet, hook dataplane.Hook) {
	in := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(4))}), uint16(1000+rng.IntN(8)))
	out := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(4))}), 443)
	if rng.IntN(3) == 0 {
		in = netip.AddrPortFrom(netip.MustParseAddr("fd00::1"), in.Port())
		out = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::2"), out.Port())
	}
	payloads := []string{"", "", "x", "GET / HTTP/1.1", "SSH-2.0-y", "\x16\x03\x01\x00\x00", "abcdefgh"}
	p = planetest.Packet{Src: in, Dst: out, Proto: flow.UDP, TTL: uint8(1 + rng.IntN(200)), Payload: []byte(payloads[rng.IntN(len(payloads))])}
	if rng.IntN(2) == 0 {
		p.Proto = flow.TCP
		p.Flags = []uint8{flow.SYN, flow.SYN | flow.ACK, flow.ACK, flow.PSH | flow.ACK, flow.FIN | flow.ACK, flow.RST}[rng.IntN(6)]
		p.Seq, p.Ack, p.Window = rng.Uint32(), rng.Uint32(), uint16(rng.Uint32())
	}
	if rng.IntN(2) == 0 {
		p.Src, p.Dst = p.Dst, p.Src
		return p, dataplane.ToInside
	}
	return p, dataplane.FromInside
}

// The table must hold what a map would, after any history of packets.
func TestFlowTableAgainstTwin(t *testing.T) {
	f := newFixture(t, Options{EventRate: 1})
	rng := rand.New(rand.NewPCG(11, 12))
	twin := make(map[flow.Key]*twinFlow)
	for step := range 4000 {
		p, hook := randomPacket(rng)
		p.Flags &^= flow.FIN // a flow's end by FIN is for the conformance suite
		inject(t, f, planetest.Step{Hook: hook, Frame: p.Frame()})
		k, fromB := flow.NewKey(p.Src, p.Dst, p.Proto)
		w := twin[k]
		reset := p.Flags&flow.RST != 0
		switch {
		case reset && w != nil && !w.resets:
			delete(twin, k)
			continue
		case w == nil, reset && (w.initB != fromB || w.payload != [2]uint64{} || len(p.Payload) > 0), !reset && w.resets:
			w = &twinFlow{initB: fromB, resets: reset}
			twin[k] = w
		}
		w.add(&p, fromB)
		if step%200 == 199 {
			compareWithTwin(t, f, twin)
		}
	}
	if len(twin) < 20 {
		t.Errorf("only %d flows at the end: expected more to compare", len(twin))
	}
}

func (w *twinFlow) add(p *planetest.Packet, fromB bool) {
	side, header := 0, 40
	if fromB {
		side = 1
	}
	if p.Proto == flow.UDP {
		header = 28
	}
	if p.Src.Addr().Is6() {
		header += 20
	}
	w.packets[side]++
	w.bytes[side] += uint64(header + len(p.Payload))
	w.payload[side] += uint64(len(p.Payload))
	w.flags[side] |= p.Flags
}

func compareWithTwin(t *testing.T, f fixture, twin map[flow.Key]*twinFlow) {
	t.Helper()
	all := tracked(t, f)
	if len(all) != len(twin) {
		t.Fatalf("%d flows in the table: expected %d", len(all), len(twin))
	}
	for k, w := range twin {
		r, ok := all[k]
		if !ok {
			t.Fatalf("%s is not in the table", k)
		}
		got := twinFlow{initB: w.initB, resets: w.resets}
		for side := range 2 {
			d := &r.D[side]
			got.packets[side], got.bytes[side], got.payload[side], got.flags[side] = uint64(d.Packets), d.Bytes, d.Payload, d.Flags
		}
		if k.Proto == flow.UDP {
			got.initB = r.InitB != 0
		}
		if got != *w || uint64(r.Packets) != w.packets[0]+w.packets[1] {
			t.Fatalf("%s: %+v, %d packets: expected %+v", k, got, r.Packets, *w)
		}
	}
}

// What userspace makes of an egg is what the kernel makes of it: a drop tells
// the kernel's.
func TestEggsHatchAlike(t *testing.T) {
	for _, role := range []Role{Inside, Host} {
		f := newFixture(t, Options{Role: role, Mode: dataplane.Enforce})
		rng := rand.New(rand.NewPCG(21, 22))
		tried := 0
		for range 300 {
			p, hook := randomPacket(rng)
			inject(t, f, planetest.Step{Hook: hook, Frame: p.Frame()})
			k, _ := flow.NewKey(p.Src, p.Dst, p.Proto)
			egg, ok := tracked(t, f)[k]
			if !ok {
				t.Fatalf("%s: no egg", k)
			}
			if p.Flags&flow.RST != 0 {
				continue // is told when something else comes, see TestResetsHatchAlike
			}
			tried++
			kk := flowKey(k)
			var want flow.Record
			egg.Dropped++
			fillRecord(&kk, &egg, &f.clock, &want)
			events(t, f)
			target := dataplane.Target{Flow: k}
			check(t, f.Apply(dataplane.Rule{Target: target, Action: dataplane.Suspend, Expires: time.Now().Add(time.Hour)}))
			if inject(t, f, planetest.Step{Hook: hook, Frame: p.Frame()}) {
				t.Fatalf("%s: a suspended flow's packet passed", k)
			}
			told := events(t, f)
			if len(told) != 1 || told[0].Record != want {
				t.Fatalf("%+v\ntold %+v\nexpected the record\n%+v", p, told, want)
			}
			check(t, f.Remove(target))
			forget(t, f, k)
		}
		if tried < 200 {
			t.Errorf("%d eggs tried: expected at least 200", tried)
		}
	}
}

// The same for resets, of which an egg holds several.
func TestResetsHatchAlike(t *testing.T) {
	f := newFixture(t, Options{})
	rng := rand.New(rand.NewPCG(23, 24))
	for n := range 40 {
		p, hook := randomPacket(rng)
		p.Proto, p.Flags = flow.TCP, flow.RST|uint8(rng.IntN(2))*flow.ACK
		if n > 2 {
			p.Payload = nil
		}
		for range 1 + n {
			inject(t, f, planetest.Step{Hook: hook, Frame: p.Frame()})
		}
		events(t, f)
		k, _ := flow.NewKey(p.Src, p.Dst, p.Proto)
		egg := tracked(t, f)[k]
		kk := flowKey(k)
		var want flow.Record
		fillRecord(&kk, &egg, &f.clock, &want)
		want.End = flow.EndRST
		if len(p.Payload) == 0 && want.Packets() != uint32(1+n) {
			t.Fatalf("%d packets: expected %d", want.Packets(), 1+n)
		}
		p.Flags = flow.SYN
		inject(t, f, planetest.Step{Hook: hook, Frame: p.Frame()})
		if told := events(t, f); len(told) != 1 || told[0].Record != want {
			t.Fatalf("%+v\ntold %+v\nexpected the record\n%+v", p, told, want)
		}
		forget(t, f, k)
	}
}

// A process that died holding a lock costs one flow, and that until the second
// sweep.
func TestStuckLocksAreFreed(t *testing.T) {
	f := newFixture(t, Options{})
	flat := f.store.(*flowTable)
	two := planetest.Datagram(dataplane.FromInside, endpoint("10.0.0.1:1"), endpoint("192.0.2.1:2"), nil)
	inject(t, f, two)
	inject(t, f, two)
	one := planetest.Datagram(dataplane.FromInside, endpoint("10.0.0.1:3"), endpoint("192.0.2.1:4"), nil)
	inject(t, f, one)
	refs, err := f.store.idle(0, 0, always)
	check(t, err)
	for _, r := range refs {
		seq := &flat.slots[r.at].Seq
		if r.egg {
			seq = &flat.buckets[r.at/eggsOfBucket].Seq
		}
		if !lockSeq(seq) {
			t.Fatal("a lock is taken, without packets")
		}
	}
	inject(t, f, two)
	inject(t, f, one)
	s, err := f.Stats()
	check(t, err)
	if len(refs) != 2 || s.FlowsUntracked != 2 {
		t.Errorf("%d flows, %d packets untracked: expected 2, 2", len(refs), s.FlowsUntracked)
	}
	for range 2 {
		_, err = f.store.idle(bootNow(), int64(time.Hour), f.quiet)
		check(t, err)
	}
	inject(t, f, two)
	inject(t, f, one)
	if all := tracked(t, f); len(all) != 2 {
		t.Errorf("%d flows after the locks were freed: expected 2 new ones", len(all))
	}
}

// Ways of single packets meet only eggs: no flood of them ends a flow that had
// a second packet, and none frees a suspended one.
func TestSinglePacketsPushOutNoFlow(t *testing.T) {
	f := newFixture(t, Options{MaxFlows: minMaxFlows, Mode: dataplane.Enforce, EventRate: 1})
	const flows = minMaxFlows * 3 / 4
	before := make(map[flow.Key]uint64)
	for i := range flows {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 53)
		for range 2 {
			inject(t, f, planetest.Datagram(dataplane.FromInside, a, endpoint("192.0.2.1:53"), []byte("x")))
		}
	}
	for k, r := range tracked(t, f) {
		before[k] = r.Id
	}
	bad := planetest.Datagram(dataplane.FromInside, endpoint("10.2.0.1:1"), endpoint("192.0.2.66:53"), nil)
	k, _ := flow.NewKey(endpoint("10.2.0.1:1"), endpoint("192.0.2.66:53"), flow.UDP)
	check(t, f.Apply(dataplane.Rule{Target: dataplane.Target{Flow: k}, Action: dataplane.Suspend, Expires: time.Now().Add(time.Hour)}))
	for i := range 20 * minMaxFlows {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 7)
		inject(t, f, planetest.Datagram(dataplane.ToInside, src, endpoint("10.0.0.1:2"), nil))
	}
	after := tracked(t, f)
	lost := 0
	for k, id := range before {
		if r, ok := after[k]; !ok || r.Id != id {
			lost++
		}
	}
	if lost != 0 || len(before) != flows {
		t.Errorf("%d of %d flows lost to a flood of single packets: expected none of %d", lost, len(before), flows)
	}
	if inject(t, f, bad) {
		t.Error("the flood freed a suspended flow")
	}
	s, err := f.Stats()
	check(t, err)
	if s.Flows != uint64(len(after)) || s.FlowsEvicted == 0 {
		t.Errorf("%d flows by the counters, %d in the table, %d evicted: expected equal, and some", s.Flows, len(after), s.FlowsEvicted)
	}
}
