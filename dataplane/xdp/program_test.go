package xdp

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

func endpoint(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func events(t *testing.T, f fixture) []dataplane.Event {
	t.Helper()
	var all []dataplane.Event
	check(t, f.Poll(func(e *dataplane.Event) { all = append(all, *e) }))
	return all
}

func inject(t *testing.T, f fixture, s planetest.Step) bool {
	t.Helper()
	passed, err := f.Inject(s.Hook, s.Frame)
	check(t, err)
	return passed
}

// skbContext is the part of struct __sk_buff that a test run takes.
type skbContext struct {
	_       [40]uint32
	WireLen uint32
	GSOSegs uint32
	_       [2]uint32
	GSOSize uint32
	_       [3]uint32
}

// What the kernel will cut up on egress counts as the packets on the wire.
func TestSegmentationCountsAsOnTheWire(t *testing.T) {
	f := newFixture(t, Options{Role: Host})
	s := planetest.NewSession(endpoint("10.0.0.1:4000"), endpoint("192.0.2.1:443"))
	frame := s.Data(0, make([]byte, 1000*3+500)).Frame
	ret, err := f.objs.HedgerowTcx.Run(&ebpf.RunOptions{Data: frame, Context: skbContext{GSOSize: 1000, GSOSegs: 4}})
	check(t, err)
	if int32(ret) != -1 {
		t.Fatalf("verdict %d: expected to pass", int32(ret))
	}
	all := events(t, f)
	if len(all) != 1 || all[0].Kind != dataplane.EventMilestone {
		t.Fatalf("events %+v: expected one milestone, since four packets count", all)
	}
	d := all[0].Record.Dir[0]
	want := flow.Dir{
		Packets: 4, Bytes: 3500 + 4*40, Payload: 3500,
		SizeSq: 3*1040*1040 + 540*540, SizeMin: 540, SizeMax: 1040,
		First: d.First, Last: d.Last, Flags: flow.PSH | flow.ACK, PSH: 1, Window: d.Window, TTL: d.TTL,
	}
	if d != want {
		t.Errorf("direction is\n%+v, expected\n%+v", d, want)
	}
	r := all[0].Record
	if r.NFirst != 4 || r.Sizes != [flow.First]int16{1000, 1000, 1000, 500} {
		t.Errorf("first sizes %v (%d): expected 1000, 1000, 1000, 500", r.Sizes, r.NFirst)
	}
	stats, err := f.Stats()
	check(t, err)
	if stats.Packets != 4 || stats.Bytes != 3660 {
		t.Errorf("%d packets, %d bytes seen: expected 4, 3660", stats.Packets, stats.Bytes)
	}
}

// tunnel is a frame that carries three and a half segments of a thousand bytes behind
// what a tunnel begins with.
func tunnel(proto uint8, port uint16, head []byte, inner planetest.Packet) (frame []byte, headers int) {
	inner.Proto, inner.Payload = flow.TCP, make([]byte, 3500)
	body := append(head, inner.AppendIP(nil)...)
	outer := planetest.Packet{Src: endpoint("192.0.2.1:0"), Dst: endpoint("198.51.100.1:0"), Proto: proto, Payload: body}
	if port > 0 {
		outer.Src, outer.Dst = endpoint("192.0.2.1:50000"), netip.AddrPortFrom(outer.Dst.Addr(), port)
	}
	return outer.Frame(), len(body) - 3500
}

// Each segment in a tunnel repeats the inner headers, whether the kernel says so in
// the length on the wire or, as Linux 6.1, does not.
func TestSegmentsInTunnels(t *testing.T) {
	f := newFixture(t, Options{Role: Host})
	v4 := planetest.Packet{Src: endpoint("10.0.0.1:4000"), Dst: endpoint("10.0.0.2:443")}
	v6 := planetest.Packet{Src: endpoint("[fd00::1]:4000"), Dst: endpoint("[fd00::2]:443")}
	ether := make([]byte, 14)
	for name, c := range map[string]struct {
		proto uint8
		port  uint16
		head  []byte
		inner planetest.Packet
	}{
		"vxlan":         {flow.UDP, 4789, append([]byte{8, 0, 0, 0, 0x20, 0, 1, 0}, ether...), v4},
		"vxlan, v6":     {flow.UDP, 8472, append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, ether...), v6},
		"geneve":        {flow.UDP, 6081, append([]byte{2, 0, 0x65, 0x58, 0, 0, 1, 0, 1, 2, 3, 1, 0, 0, 0, 0}, ether...), v4},
		"geneve, bare":  {flow.UDP, 6081, []byte{0, 0, 0x86, 0xdd, 0, 0, 1, 0}, v6},
		"gre":           {47, 0, []byte{0, 0, 8, 0}, v4},
		"gre, numbered": {47, 0, []byte{0xb0, 0, 0x86, 0xdd, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3}, v6},
		"gretap":        {47, 0, append([]byte{0x20, 0, 0x65, 0x58, 2, 2, 2, 2}, ether...), v4},
		"ipip":          {4, 0, nil, v4},
		"6in4":          {41, 0, nil, v6},
		"other":         {flow.UDP, 5000, make([]byte, 40), v4},
	} {
		frame, headers := tunnel(c.proto, c.port, c.head, c.inner)
		ours := len(frame) - 3500 - headers
		for said, wire := range map[string]int{"told": len(frame) + 3*(ours+headers), "not told": len(frame) + 3*34} {
			if name == "other" && said == "not told" {
				continue // nobody can know
			}
			before, err := f.Stats()
			check(t, err)
			_, err = f.objs.HedgerowTcx.Run(&ebpf.RunOptions{Data: frame, Context: skbContext{GSOSize: 1000, GSOSegs: 4, WireLen: uint32(wire)}})
			check(t, err)
			after, err := f.Stats()
			check(t, err)
			want := uint64(3500 + 4*(ours-14+headers))
			if n, b := after.Packets-before.Packets, after.Bytes-before.Bytes; n != 4 || b != want {
				t.Errorf("%s, %s: %d packets of %d bytes: expected 4 of %d", name, said, n, b, want)
			}
		}
	}
}

func TestHairpinIsInsideOnBothEnds(t *testing.T) {
	f := newFixture(t, Options{})
	a, b := endpoint("10.0.0.1:4000"), endpoint("10.0.0.2:53")
	for range 2 {
		inject(t, f, planetest.Datagram(dataplane.FromInside, a, b, []byte("x")))
		inject(t, f, planetest.Datagram(dataplane.ToInside, a, b, []byte("x")))
	}
	all := events(t, f)
	if len(all) != 1 || !all[0].Record.InitInside || !all[0].Record.RespInside {
		t.Errorf("events %+v: expected one milestone with both ends inside", all)
	}
}

func TestFullTablesSaySo(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce, maxRules: 4})
	expires := time.Now().Add(time.Hour)
	for name, target := range map[string]func(i byte) dataplane.Target{
		"addresses": func(i byte) dataplane.Target { return dataplane.Peer(netip.AddrFrom4([4]byte{192, 0, 2, i})) },
		"prefixes": func(i byte) dataplane.Target {
			return dataplane.Target{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, i, 0}), 24)}
		},
	} {
		var err error
		for i := byte(0); i < 100 && err == nil; i++ {
			err = f.Apply(dataplane.Rule{Target: target(i), Action: dataplane.Block, Expires: expires})
		}
		if !errors.Is(err, dataplane.ErrFull) {
			t.Errorf("%s: %v: expected ErrFull", name, err)
		}
	}
	s, err := f.Stats()
	check(t, err)
	if s.RulesIntended != s.RulesEnforced || s.RulesEnforced < 8 {
		t.Errorf("%d rules intended, %d enforced: expected equal, 8 at least", s.RulesIntended, s.RulesEnforced)
	}
}

// Wide IPv6 prefixes must not reach IPv4, which is kept as ::ffff:a.b.c.d.
func TestFamiliesAreApart(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce})
	check(t, f.Apply(dataplane.Rule{
		Target: dataplane.Target{Prefix: netip.MustParsePrefix("::/16")}, Action: dataplane.Block, Expires: time.Now().Add(time.Hour),
	}))
	if !inject(t, f, planetest.Datagram(dataplane.ToInside, endpoint("192.0.2.1:1"), endpoint("10.0.0.1:2"), nil)) {
		t.Error("a block of ::/16 dropped IPv4")
	}
	if inject(t, f, planetest.Datagram(dataplane.ToInside, endpoint("[::5]:1"), endpoint("[fd00::1]:2"), nil)) {
		t.Error("a block of ::/16 passed ::5")
	}
}

// The kernel's one lookup of the narrowest prefix must decide as a walk over
// all rules would, after any history of nested rules.
func TestNestedPrefixesAgainstAWalk(t *testing.T) {
	f := newFixture(t, Options{Mode: dataplane.Enforce})
	rng := rand.New(rand.NewPCG(7, 7))
	twin := make(map[netip.Prefix]time.Time)
	// All end at different times: what covers what is decided by who lives
	// longest, and in a second half of them have expired while looked at.
	start := time.Now()
	for step := range 300 {
		base := netip.AddrFrom4([4]byte{20, byte(rng.IntN(2)), byte(rng.IntN(2)), byte(rng.IntN(2)) << 7})
		pfx, err := base.Prefix(8 + rng.IntN(18))
		check(t, err)
		target := dataplane.Target{Prefix: pfx}
		if rng.IntN(3) == 0 {
			delete(twin, pfx)
			check(t, f.Remove(target))
		} else {
			twin[pfx] = start.Add(time.Duration(rng.IntN(3000)) * time.Millisecond)
			check(t, f.Apply(dataplane.Rule{Target: target, Action: dataplane.Block, Expires: twin[pfx]}))
		}
		if step%5 == 0 {
			compareWithWalk(t, f, rng, twin)
		}
	}
	eventually(t, "half of the rules to expire", func() bool { return time.Since(start) > 1500*time.Millisecond })
	compareWithWalk(t, f, rng, twin)
}

func compareWithWalk(t *testing.T, f fixture, rng *rand.Rand, twin map[netip.Prefix]time.Time) {
	t.Helper()
	for range 10 {
		a := netip.AddrFrom4([4]byte{20, byte(rng.IntN(2)), byte(rng.IntN(2)), byte(rng.IntN(256))})
		before := walk(twin, a, time.Now())
		passed := inject(t, f, planetest.Datagram(dataplane.ToInside, netip.AddrPortFrom(a, 9), endpoint("10.0.0.1:2"), nil))
		after := walk(twin, a, time.Now())
		if before == after && passed == before {
			t.Fatalf("%s passed: %v, but the walk says blocked: %v (rules %v)", a, passed, before, twin)
		}
	}
}

func walk(twin map[netip.Prefix]time.Time, a netip.Addr, now time.Time) (blocked bool) {
	for pfx, until := range twin {
		if pfx.Contains(a) && until.After(now) {
			return true
		}
	}
	return false
}

func TestEventBudgetIsCounted(t *testing.T) {
	f := newFixture(t, Options{EventRate: 5})
	for i := range 50 {
		s := planetest.NewSession(netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(1000+i)), endpoint("192.0.2.1:80"))
		inject(t, f, s.Send(0, flow.SYN, nil))
		inject(t, f, s.Send(1, flow.RST|flow.ACK, nil)) // an end, so an event
	}
	told := len(events(t, f))
	s, err := f.Stats()
	check(t, err)
	if told < 5 || s.EventsLost == 0 || uint64(told)+s.EventsLost != 50 {
		t.Errorf("%d events told, %d lost: expected at least 5, some, 50 together", told, s.EventsLost)
	}
	if s.Flows != 0 || s.FlowsTotal != 50 {
		t.Errorf("%d flows of %d left: expected 0 of 50", s.Flows, s.FlowsTotal)
	}
}

// A flood of new flows pushes old ones out; the count must own up to it.
func TestEvictionIsCounted(t *testing.T) {
	f := newFixture(t, Options{MaxFlows: minMaxFlows})
	const flood = 3 * minMaxFlows
	for i := range flood {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)}), 1)
		inject(t, f, planetest.Datagram(dataplane.ToInside, src, endpoint("10.0.0.1:2"), nil))
	}
	s, err := f.Stats()
	check(t, err)
	if s.FlowsTotal != flood || s.Flows > minMaxFlows || s.Flows+s.FlowsEvicted != flood || s.FlowsEvicted == 0 {
		t.Errorf("%d flows in all, %d in the table, %d evicted: expected %d, at most %d, the rest", s.FlowsTotal, s.Flows, s.FlowsEvicted, flood, minMaxFlows)
	}
}

func TestClosedPlane(t *testing.T) {
	f := newFixture(t, Options{})
	check(t, f.Close())
	_, rulesErr := f.Rules()
	_, statsErr := f.Stats()
	for name, err := range map[string]error{
		"apply": f.Apply(), "remove": f.Remove(), "never": f.SetNever(nil), "mode": f.SetMode(dataplane.Monitor),
		"rules": rulesErr, "stats": statsErr, "run": f.Run(t.Context(), nil), "detach": f.Detach(),
	} {
		if !errors.Is(err, dataplane.ErrClosed) {
			t.Errorf("%s: %v: expected ErrClosed", name, err)
		}
	}
}

func TestMilestonesAgree(t *testing.T) {
	f := newFixture(t, Options{})
	a, b := endpoint("10.0.0.1:4000"), endpoint("192.0.2.2:53")
	step := planetest.Datagram(dataplane.FromInside, a, b, []byte("x"))
	var want []uint32
	for n := uint32(1); n <= 1100; n++ {
		inject(t, f, step)
		if flow.Milestone(n) {
			want = append(want, n)
		}
	}
	all := events(t, f)
	if len(all) != len(want) {
		t.Fatalf("%d milestones: expected %d", len(all), len(want))
	}
	for i, e := range all {
		if e.Record.Packets() != want[i] {
			t.Errorf("milestone %d at packet %d: expected %d", i, e.Record.Packets(), want[i])
		}
	}
}
