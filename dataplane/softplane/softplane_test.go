package softplane_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

var (
	start  = time.Unix(1_700_000_000, 0)
	host   = netip.MustParseAddrPort("10.0.0.5:40000")
	server = netip.MustParseAddrPort("203.0.113.9:443")
)

func open(t testing.TB, o softplane.Options) *softplane.Plane {
	t.Helper()
	p, err := softplane.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func drain(p *softplane.Plane) (events []dataplane.Event) {
	p.Drain(func(e *dataplane.Event) { events = append(events, *e) })
	return events
}

func stats(t testing.TB, p *softplane.Plane) dataplane.Stats {
	t.Helper()
	s, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func udp(n int) []byte {
	src := netip.AddrPortFrom(host.Addr(), uint16(1000+n))
	return planetest.Packet{Src: src, Dst: server, Proto: flow.UDP, Payload: []byte("data")}.Frame()
}

func TestIdleTimes(t *testing.T) {
	s := planetest.NewSession(host, server)
	syn := s.Send(0, flow.SYN, nil).Frame
	synAck := s.Send(1, flow.SYN|flow.ACK, nil).Frame
	for _, c := range []struct {
		name   string
		frames [][]byte
		idle   time.Duration
	}{
		{"tcp unanswered", [][]byte{syn}, 5 * time.Second},
		{"tcp", [][]byte{syn, synAck}, 60 * time.Second},
		{"udp", [][]byte{udp(0)}, 15 * time.Second},
	} {
		p := open(t, softplane.Options{})
		for _, f := range c.frames {
			p.Frame(dataplane.FromInside, softplane.Ethernet, f, 0, start)
		}
		p.Advance(start.Add(c.idle - 1))
		if got := drain(p); len(got) != 0 {
			t.Errorf("%s: ended before %s", c.name, c.idle)
		}
		p.Advance(start.Add(c.idle))
		got := drain(p)
		if len(got) != 1 || got[0].Kind != dataplane.EventEnd || got[0].Record.End != flow.EndIdle {
			t.Errorf("%s: after %s: got %+v, expected one end by idleness", c.name, c.idle, got)
		}
		if n := stats(t, p).Flows; n != 0 {
			t.Errorf("%s: flows left: got %d, expected 0", c.name, n)
		}
	}
}

func TestSilenceSplitsFlowsWithoutASweep(t *testing.T) {
	p := open(t, softplane.Options{Idle: softplane.Idle{Other: 100 * time.Millisecond}})
	for i := range 3 {
		p.Frame(dataplane.FromInside, softplane.Ethernet, udp(0), 0, start.Add(time.Duration(i)*100*time.Millisecond))
	}
	if got := stats(t, p); got.FlowsTotal != 3 || got.Flows != 1 || len(drain(p)) != 2 {
		t.Errorf("got %d flows in all and %d now, expected 3 and 1", got.FlowsTotal, got.Flows)
	}
}

func TestEvictionTakesTheLongestSilent(t *testing.T) {
	p := open(t, softplane.Options{MaxFlows: 4})
	at := start
	show := func(n int) {
		at = at.Add(time.Millisecond)
		p.Frame(dataplane.FromInside, softplane.Ethernet, udp(n), 0, at)
	}
	for _, n := range []int{0, 1, 2, 3, 0, 4, 0, 5} {
		show(n)
	}
	var ports []uint16
	for _, e := range drain(p) {
		if e.Record.End != flow.EndEvicted {
			t.Fatalf("got %+v, expected evictions only", e)
		}
		ports = append(ports, e.Record.Initiator().Port())
	}
	if len(ports) != 2 || ports[0] != 1001 || ports[1] != 1002 {
		t.Errorf("evicted ports: got %v, expected 1001 and 1002", ports)
	}
	if s := stats(t, p); s.FlowsEvicted != 2 || s.Flows != 4 {
		t.Errorf("got %d evicted and %d in the table, expected 2 and 4", s.FlowsEvicted, s.Flows)
	}
}

func TestGapsAndTimes(t *testing.T) {
	p := open(t, softplane.Options{})
	for _, ms := range []int{0, 10, 40, 35} { // the last one steps back
		p.Frame(dataplane.FromInside, softplane.Ethernet, udp(0), 0, start.Add(time.Duration(ms)*time.Millisecond))
	}
	events := drain(p)
	if len(events) != 1 {
		t.Fatalf("events: got %d, expected the milestone", len(events))
	}
	r := events[0].Record
	d := r.Dir[0]
	if d.GapMax != 30_000 || d.GapSq != 10_000*10_000+30_000*30_000 {
		t.Errorf("gaps: got max %d and squares %d, expected 30000 and 1e9", d.GapMax, d.GapSq)
	}
	if want := [flow.First]uint32{0, 10_000, 30_000, 0}; r.Gaps != want {
		t.Errorf("first gaps: got %v, expected %v", r.Gaps, want)
	}
	if r.Start != start.UnixNano() || r.Duration() != 40*time.Millisecond {
		t.Errorf("start %d and duration %s: expected %d and 40ms", r.Start, r.Duration(), start.UnixNano())
	}
}

func TestHandshakeTimes(t *testing.T) {
	p := open(t, softplane.Options{})
	s := planetest.NewSession(host, server)
	for i, step := range append(s.Open(), s.Send(0, flow.RST, nil)) {
		p.Frame(step.Hook, softplane.Ethernet, step.Frame, 0, start.Add(time.Duration(i*i)*time.Millisecond))
	}
	events := drain(p)
	if len(events) != 1 || events[0].Record.SynAckUS != 1000 || events[0].Record.AckUS != 3000 {
		t.Fatalf("got %+v, expected one end with 1000 and 3000 us", events)
	}
}

func TestClockThatJumps(t *testing.T) {
	p := open(t, softplane.Options{})
	show := func(n int, at time.Time) { p.Frame(dataplane.FromInside, softplane.Ethernet, udp(n), 0, at) }
	show(0, start)
	show(1, start.AddDate(50, 0, 0))
	show(2, start.Add(time.Second))
	p.Advance(start.Add(2 * time.Second))
	if got := stats(t, p).Flows; got != 1 {
		t.Errorf("flows: got %d, expected only the one of the present", got)
	}
}

func TestEventQueueIsBounded(t *testing.T) {
	p := open(t, softplane.Options{MaxEvents: 3})
	for n := range 10 {
		for range 4 {
			p.Frame(dataplane.FromInside, softplane.Ethernet, udp(n), 0, start)
		}
	}
	if got := len(drain(p)); got != 3 || stats(t, p).EventsLost != 7 {
		t.Errorf("delivered %d, lost %d: expected 3 and 7", got, stats(t, p).EventsLost)
	}
}

func TestFlushTellsWhatIsOpen(t *testing.T) {
	p := open(t, softplane.Options{})
	for n := range 3 {
		p.Frame(dataplane.FromInside, softplane.Ethernet, udp(n), 0, start)
	}
	p.Flush()
	events := drain(p)
	if len(events) != 3 || events[0].Record.End != flow.Open || stats(t, p).Flows != 0 {
		t.Errorf("got %d events and %d flows, expected 3 and 0", len(events), stats(t, p).Flows)
	}
}

func TestLinkTypes(t *testing.T) {
	packet := planetest.Packet{Src: host, Dst: server, Proto: flow.UDP, Payload: []byte("x")}
	v6 := planetest.Packet{Src: netip.MustParseAddrPort("[fd00::1]:1"), Dst: netip.MustParseAddrPort("[2001:db8::1]:2"), Proto: flow.UDP}
	sll := append(make([]byte, 14), 8, 0)
	sll2 := append([]byte{8, 0}, make([]byte, 18)...)
	big := binary.BigEndian.AppendUint32(nil, 30)
	for _, c := range []struct {
		name  string
		link  softplane.LinkType
		frame []byte
		flows uint64
		bad   string
	}{
		{"ethernet", softplane.Ethernet, packet.Frame(), 1, ""},
		{"raw", softplane.Raw, packet.AppendIP(nil), 1, ""},
		{"raw v6", softplane.Raw, v6.AppendIP(nil), 1, ""},
		{"raw other", softplane.RawOld, []byte{0x10}, 0, "link"},
		{"cooked", softplane.LinuxSLL, packet.AppendIP(sll), 1, ""},
		{"cooked cut", softplane.LinuxSLL, sll[:15], 0, "link"},
		{"cooked v2", softplane.LinuxSLL2, packet.AppendIP(sll2), 1, ""},
		{"cooked v2 cut", softplane.LinuxSLL2, sll2[:19], 0, "link"},
		{"null little", softplane.Null, packet.AppendIP([]byte{2, 0, 0, 0}), 1, ""},
		{"null big", softplane.Null, packet.AppendIP([]byte{0, 0, 0, 2}), 1, ""},
		{"loop v6", softplane.Loop, v6.AppendIP(big), 1, ""},
		{"loop other family", softplane.Loop, []byte{0, 0, 0, 99}, 0, ""},
		{"ppp", softplane.PPP, packet.AppendIP([]byte{0, 0x21}), 1, ""},
		{"ppp in hdlc", softplane.PPPSerial, v6.AppendIP([]byte{0xff, 3, 0, 0x57}), 1, ""},
		{"ppp that is cisco hdlc", softplane.PPP, packet.AppendIP([]byte{0x0f, 0, 8, 0}), 1, ""},
		{"ppp control", softplane.PPP, []byte{0xc0, 0x21, 1, 1}, 0, ""},
		{"ppp cut", softplane.PPP, []byte{0xff, 3, 0}, 0, "link"},
		{"pppoe", softplane.PPPoE, packet.AppendIP([]byte{0x11, 0, 0, 1, 0, 31, 0, 0x21}), 1, ""},
		{"pppoe cut", softplane.PPPoE, []byte{0x11, 0, 0, 1, 0, 31, 0}, 0, "pppoe"},
		{"cisco hdlc", softplane.CiscoHDLC, packet.AppendIP([]byte{0x0f, 0, 8, 0}), 1, ""},
		{"cisco hdlc cut", softplane.CiscoHDLC, []byte{0x0f, 0, 8}, 0, "link"},
		{"pppoe in a cooked capture", softplane.LinuxSLL, packet.AppendIP(append(make([]byte, 14), 0x88, 0x64, 0x11, 0, 0, 1, 0, 31, 0, 0x21)), 1, ""},
		{"unknown link", 147, packet.Frame(), 0, "link"},
	} {
		p := open(t, softplane.Options{})
		if !p.Frame(dataplane.FromInside, c.link, c.frame, 0, start) {
			t.Errorf("%s: dropped", c.name)
		}
		s := stats(t, p)
		if s.Flows != c.flows || c.bad == "" && len(s.Malformed) != 0 || c.bad != "" && s.Malformed[c.bad] != 1 {
			t.Errorf("%s: got %d flows, malformed %v; expected %d and %q", c.name, s.Flows, s.Malformed, c.flows, c.bad)
		}
	}
}

func TestCutCapture(t *testing.T) {
	s := planetest.NewSession(host, server)
	whole := s.Packet(0, flow.ACK, make([]byte, 1000)).Frame()
	p := open(t, softplane.Options{})
	for range 4 {
		p.Frame(dataplane.FromInside, softplane.Ethernet, whole[:68], len(whole), start)
	}
	events := drain(p)
	if len(events) != 1 || events[0].Record.Dir[0].Payload != 4000 {
		t.Errorf("got %+v, expected a milestone with 4000 payload bytes as on the wire", events)
	}
	p.Frame(dataplane.FromInside, softplane.Ethernet, whole[:68], 0, start)
	if got := stats(t, p).Malformed["ipv4-length"]; got != 1 {
		t.Errorf("the same bytes as a whole frame: malformed %d, expected 1", got)
	}
}

func TestCapturedTakesEndsFromPrefixes(t *testing.T) {
	outside, inside := netip.MustParseAddrPort("198.51.100.1:1"), netip.MustParseAddrPort("192.0.2.7:2")
	frame := planetest.Packet{Src: outside, Dst: inside, Proto: flow.UDP}.Frame()
	back := planetest.Packet{Src: inside, Dst: outside, Proto: flow.UDP}.Frame()
	p := open(t, softplane.Options{Inside: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if p.HookFor(softplane.Ethernet, frame) != dataplane.ToInside || p.HookFor(softplane.Ethernet, back) != dataplane.FromInside {
		t.Error("hooks: expected ToInside, and FromInside for the answer")
	}
	p.Captured(softplane.Ethernet, frame, 0, start)
	p.Flush()
	r := drain(p)[0].Record
	if r.InitInside || !r.RespInside {
		t.Errorf("inside: got %v and %v, expected false and true", r.InitInside, r.RespInside)
	}
	// Segmentation offload leaves the length empty; on a wire that is malformed.
	big := planetest.Packet{Src: outside, Dst: inside, Proto: flow.UDP, Payload: make([]byte, 2000)}.Frame()
	big[16], big[17] = 0, 0
	p.Captured(softplane.Ethernet, big, 0, start)
	p.Frame(dataplane.ToInside, softplane.Ethernet, big, 0, start)
	p.Flush()
	if got := drain(p); len(got) != 1 || got[0].Record.Dir[0].Payload != 2000 || stats(t, p).Malformed["ipv4-length"] != 1 {
		t.Errorf("offload: got %+v, expected one flow of 2000 bytes and one malformed frame", got)
	}
}

func TestKeyOf(t *testing.T) {
	session := planetest.NewSession(host, server)
	whole := session.Packet(0, flow.ACK, make([]byte, 1000))
	want, _ := flow.NewKey(host, server, flow.TCP)
	for name, frame := range map[string][]byte{"whole": whole.Frame(), "cut by the capture": whole.Frame()[:60]} {
		if got, ok := softplane.KeyOf(softplane.Ethernet, frame); !ok || got != want {
			t.Errorf("%s: got %v %v, expected %v", name, got, ok, want)
		}
	}
	later := whole
	later.FragOffset = 4
	arp := append(make([]byte, 12), 8, 6, 0, 0)
	for name, frame := range map[string][]byte{"header cut": whole.Frame()[:50], "later fragment": later.Frame(), "not IP": arp, "empty": nil} {
		if got, ok := softplane.KeyOf(softplane.Ethernet, frame); ok {
			t.Errorf("%s: got %v, expected no key", name, got)
		}
	}
}

func TestVirtualClock(t *testing.T) {
	now := start
	p := open(t, softplane.Options{Mode: dataplane.Enforce, Now: func() time.Time { return now }})
	rule := dataplane.Rule{Target: dataplane.Peer(server.Addr()), Action: dataplane.Block, Expires: start.Add(time.Minute)}
	if err := p.Apply(rule); err != nil {
		t.Fatal(err)
	}
	if p.Frame(dataplane.FromInside, softplane.Ethernet, udp(0), 0, start.Add(59*time.Second)) {
		t.Error("passed before the rule's expiry")
	}
	if !p.Frame(dataplane.FromInside, softplane.Ethernet, udp(0), 0, start.Add(60*time.Second)) {
		t.Error("dropped after the rule's expiry")
	}
}

func TestClosed(t *testing.T) {
	p := open(t, softplane.Options{})
	ran := make(chan error, 1)
	go func() { ran <- p.Run(t.Context(), func(*dataplane.Event) {}) }()
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := <-ran; !errors.Is(err, dataplane.ErrClosed) {
		t.Errorf("run: got %v, expected %v", err, dataplane.ErrClosed)
	}
	_, rulesErr := p.Rules()
	_, statsErr := p.Stats()
	for name, err := range map[string]error{"apply": p.Apply(), "remove": p.Remove(), "never": p.SetNever(nil),
		"mode": p.SetMode(dataplane.Enforce), "rules": rulesErr, "stats": statsErr} {
		if !errors.Is(err, dataplane.ErrClosed) {
			t.Errorf("%s: got %v, expected %v", name, err, dataplane.ErrClosed)
		}
	}
	if !p.Frame(dataplane.ToInside, softplane.Ethernet, udp(0), 0, start) {
		t.Error("a closed plane drops")
	}
}

func TestRunDeliversAndStops(t *testing.T) {
	p := open(t, softplane.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan uint32, 8)
	ran := make(chan error, 1)
	go func() { ran <- p.Run(ctx, func(e *dataplane.Event) { got <- e.Record.Packets() }) }()
	for range 8 {
		p.Frame(dataplane.FromInside, softplane.Ethernet, udp(0), 0, start)
	}
	if a, b := <-got, <-got; a != 4 || b != 8 {
		t.Errorf("milestones: got %d and %d, expected 4 and 8", a, b)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("run after a cancelled context: %v", err)
	}
}

func TestHandlerMayBlock(t *testing.T) {
	p := open(t, softplane.Options{Mode: dataplane.Enforce, Now: func() time.Time { return start }})
	for range 4 {
		p.Frame(dataplane.FromInside, softplane.Ethernet, udp(0), 0, start)
	}
	p.Drain(func(e *dataplane.Event) {
		err := p.Apply(dataplane.Rule{Target: dataplane.Target{Flow: e.Record.Key}, Action: dataplane.Suspend, Expires: start.Add(time.Minute)})
		if err != nil {
			t.Errorf("apply from the handler: %v", err)
		}
	})
	if p.Frame(dataplane.FromInside, softplane.Ethernet, udp(0), 0, start) {
		t.Error("the flow goes on")
	}
}

// TestManyHands calls everything at once; the race detector looks on.
func TestManyHands(t *testing.T) {
	p := open(t, softplane.Options{Mode: dataplane.Enforce, MaxFlows: 16, MaxEvents: 64})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	var delivered atomic.Uint64
	go func() { ran <- p.Run(ctx, func(*dataplane.Event) { delivered.Add(1) }) }()
	var hands sync.WaitGroup
	for hand := range 4 {
		hands.Go(func() {
			for n := range 500 {
				p.Frame(dataplane.FromInside, softplane.Ethernet, udp(n%40), 0, start.Add(time.Duration(n)*time.Millisecond))
				p.Advance(start.Add(time.Duration(n) * time.Millisecond))
				target := dataplane.Peer(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}))
				rule := dataplane.Rule{Target: target, Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}
				if err := errors.Join(p.Apply(rule), p.Remove(target), p.SetMode(dataplane.Mode(hand%2)), p.SetNever(nil)); err != nil {
					t.Error(err)
				}
				if _, err := p.Rules(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	hands.Wait()
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	late := p.Drain(func(*dataplane.Event) {})
	st := stats(t, p)
	if st.Packets != 2000 || delivered.Load()+uint64(late)+st.EventsLost < st.FlowsTotal-st.Flows {
		t.Errorf("%d packets; %d events delivered, %d late, %d lost for %d flows that ended",
			st.Packets, delivered.Load(), late, st.EventsLost, st.FlowsTotal-st.Flows)
	}
}

func TestBadOptions(t *testing.T) {
	for _, o := range []softplane.Options{{MaxFlows: -1}, {MaxEvents: -1}, {Inside: make([]netip.Prefix, 1)}, {Idle: softplane.Idle{TCP: -1}}} {
		if _, err := softplane.Open(o); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
}

func FuzzFrame(f *testing.F) {
	s := planetest.NewSession(host, server)
	for _, step := range append(s.Open(), s.Data(0, []byte("GET / HTTP/1.1\r\n"))) {
		f.Add(uint16(softplane.Ethernet), step.Frame, 0, int64(1))
	}
	v6 := planetest.Packet{Src: netip.MustParseAddrPort("[fd00::1]:1"), Dst: netip.MustParseAddrPort("[2001:db8::1]:2"), Proto: flow.UDP,
		VLAN: []uint16{1, 2}, Ext: []planetest.Ext{{Type: 0, Body: make([]byte, 6)}, {Type: 51, Body: make([]byte, 10)}}, Fragment: true}
	f.Add(uint16(softplane.Ethernet), v6.Frame(), 2000, int64(5))
	f.Add(uint16(softplane.Raw), v6.AppendIP(nil), -1, int64(-5))
	f.Add(uint16(softplane.Null), []byte{2, 0, 0, 0, 0x45}, 1<<30, int64(1)<<62)
	f.Fuzz(func(t *testing.T, link uint16, frame []byte, wire int, ns int64) {
		p := open(t, softplane.Options{Mode: dataplane.Enforce, MaxFlows: 2, Now: func() time.Time { return start }})
		if err := p.Apply(dataplane.Rule{Target: dataplane.Target{Prefix: netip.MustParsePrefix("203.0.113.0/24")},
			Action: dataplane.Block, Expires: start.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(0, ns)
		for i := range 3 {
			p.Frame(dataplane.Hook(i%2), softplane.LinkType(link), frame, wire, at)
			p.Captured(softplane.LinkType(link), frame, wire, at)
		}
		p.HookFor(softplane.LinkType(link), frame)
		p.Flush()
		for _, e := range drain(p) {
			r := e.Record
			if e.Kind == dataplane.EventEnd && (r.Packets() == 0 || r.Dir[0].Payload > r.Dir[0].Bytes || r.Last < r.Start) {
				t.Errorf("record does not add up: %+v", r)
			}
		}
		if s := stats(t, p); s.Packets != 6 {
			t.Errorf("packets: got %d, expected 6", s.Packets)
		}
	})
}

func TestKnownFlowDoesNotAllocate(t *testing.T) {
	p := open(t, softplane.Options{})
	frame := udp(0)
	for range 5000 {
		p.Frame(dataplane.FromInside, softplane.Ethernet, frame, 0, start)
	}
	if n := testing.AllocsPerRun(1000, func() { p.Frame(dataplane.FromInside, softplane.Ethernet, frame, 0, start) }); n != 0 {
		t.Errorf("allocations for a packet of a known flow: got %v, expected 0", n)
	}
}

func BenchmarkFrame(b *testing.B) {
	session := planetest.NewSession(host, server)
	data := session.Data(0, make([]byte, 1200)).Frame
	b.Run("known flow", func(b *testing.B) {
		p := open(b, softplane.Options{})
		b.ReportAllocs()
		for b.Loop() {
			p.Frame(dataplane.FromInside, softplane.Ethernet, data, 0, start)
		}
	})
	b.Run("blocked", func(b *testing.B) {
		p := open(b, softplane.Options{Mode: dataplane.Enforce, Now: func() time.Time { return start }})
		if err := p.Apply(dataplane.Rule{Target: dataplane.Peer(server.Addr()), Action: dataplane.Block, Expires: start.Add(time.Hour)}); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			p.Frame(dataplane.FromInside, softplane.Ethernet, data, 0, start)
		}
	})
	b.Run("new flow, full table", func(b *testing.B) {
		p := open(b, softplane.Options{MaxFlows: 1 << 14})
		frame := udp(0)
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			binary.BigEndian.PutUint32(frame[14+12:], uint32(n))
			p.Frame(dataplane.FromInside, softplane.Ethernet, frame, 0, start)
			if n%1024 == 0 {
				p.Drain(func(*dataplane.Event) {})
			}
		}
	})
}
