package planetest

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func parseCases() []testCase {
	return []testCase{
		{"VLAN tags", dataplane.Enforce, vlan},
		{"IPv4 options and IPv6 extension headers", dataplane.Enforce, headers},
		{"fragments", dataplane.Enforce, fragments},
		{"PPPoE sessions", dataplane.Enforce, pppoe},
		{"tunnels are flows of their outer addresses", dataplane.Enforce, tunnels},
		{"what is not IP passes", dataplane.Enforce, notIP},
		{"the first drop of a later fragment says whose", dataplane.Enforce, fragmentFirstDrop},
		{"padding does not count", dataplane.Enforce, padding},
		{"malformed frames pass and are counted by kind", dataplane.Enforce, malformed},
		{"a blocked address cannot hide in a malformed packet", dataplane.Enforce, malformedBlocked},
	}
}

func vlan(t *testing.T, r *rig) {
	for _, f := range families() {
		p := Packet{Src: f.host, Dst: f.peer, Proto: flow.UDP, Payload: []byte("x")}
		for _, tags := range [][]uint16{nil, {7}, {100, 7}, nil} {
			p.VLAN = tags
			r.play(Step{dataplane.FromInside, p.Frame()})
		}
		rec := one(t, r.events(), dataplane.EventMilestone).Record
		same(t, "packets of one flow under any tags", rec.Dir[0].Packets, 4)
		same(t, "equal sizes", rec.Dir[0].SizeMin, rec.Dir[0].SizeMax)
		r.apply(block(dataplane.Peer(f.peer.Addr()), 1))
		for _, tags := range [][]uint16{{7}, {100, 7}} {
			p.VLAN = tags
			r.expect(false, "blocked under tags", Step{dataplane.FromInside, p.Frame()})
		}
	}
}

func headers(t *testing.T, r *rig) {
	f := families()[0]
	p := Packet{Src: f.host, Dst: f.peer, Proto: flow.UDP, Payload: []byte("x"), Options: []byte{1, 1, 1, 1, 1}}
	for range 4 {
		r.play(Step{dataplane.FromInside, p.Frame()})
	}
	rec := one(t, r.events(), dataplane.EventMilestone).Record
	same(t, "key", rec.Key, key(f.host, f.peer, flow.UDP))
	same(t, "payload", rec.Dir[0].Payload, 4)
	same(t, "size", rec.Dir[0].SizeMax, 20+8+8+1)

	f = families()[1]
	p = Packet{Src: f.host, Dst: f.peer, Proto: flow.UDP, Payload: []byte("x"),
		Ext: []Ext{{0, []byte{1, 4, 0, 0, 0, 0}}, {60, make([]byte, 14)}, {43, []byte{4, 0, 0, 0, 0, 0}}}}
	for range 4 {
		r.play(Step{dataplane.FromInside, p.Frame()})
	}
	rec = one(t, r.events(), dataplane.EventMilestone).Record
	same(t, "key", rec.Key, key(f.host, f.peer, flow.UDP))
	same(t, "payload", rec.Dir[0].Payload, 4)
	same(t, "size", rec.Dir[0].SizeMax, 40+8+16+8+8+1)
}

func fragments(t *testing.T, r *rig) {
	for _, f := range families() {
		before := r.stats()
		p := Packet{Src: f.peer, Dst: f.host, Proto: flow.UDP, Payload: make([]byte, 64), MoreFrags: true, FragID: 9}
		first := Step{dataplane.ToInside, p.Frame()}
		p.FragOffset, p.MoreFrags = 9, false
		rest := Step{dataplane.ToInside, p.Frame()}
		r.play(first, rest, rest)
		st := r.stats()
		same(t, "later fragments", st.NotAccountedFrag-before.NotAccountedFrag, 2)
		same(t, "flows", st.Flows-before.Flows, 1)

		service := dataplane.Target{Prefix: dataplane.Peer(f.peer.Addr()).Prefix, Port: f.peer.Port(), Proto: flow.UDP}
		r.apply(block(service, 1))
		r.expect(false, "first fragment of a blocked service", first)
		r.expect(true, "its rest, which names no port", rest)
		r.apply(block(dataplane.Peer(f.peer.Addr()), 1))
		r.expect(false, "any fragment of a blocked address", first, rest)
		same(t, "later fragments, dropped or not", r.stats().NotAccountedFrag-before.NotAccountedFrag, 4)
	}
	// A fragment header on a whole packet (RFC 6946) changes nothing.
	f := families()[1]
	p := Packet{Src: f.stranger, Dst: f.host, Proto: flow.UDP, Fragment: true}
	before := r.stats()
	r.play(Step{dataplane.ToInside, p.Frame()})
	st := r.stats()
	same(t, "later fragments", st.NotAccountedFrag, before.NotAccountedFrag)
	same(t, "flows", st.Flows-before.Flows, 1)
}

func padding(t *testing.T, r *rig) {
	f := families()[0]
	step := out(f, f.peer)
	step.Frame = append(step.Frame, make([]byte, 18)...)
	r.play(step, step, step, step)
	rec := r.only(dataplane.EventMilestone).Record
	same(t, "size", rec.Dir[0].SizeMax, 32)
	same(t, "payload", rec.Dir[0].Payload, 16)
}

func pppoe(t *testing.T, r *rig) {
	for _, f := range families() {
		p := Packet{Src: f.host, Dst: f.peer, Proto: flow.UDP, Payload: []byte("x")}
		for _, session := range []uint16{0, 1, 0xffff, 0} {
			p.Session = session
			r.play(Step{dataplane.FromInside, p.Frame()})
		}
		rec := one(t, r.events(), dataplane.EventMilestone).Record
		same(t, "packets of one flow, in a session or not", rec.Dir[0].Packets, 4)
		same(t, "equal sizes", rec.Dir[0].SizeMin, rec.Dir[0].SizeMax)
		r.apply(block(dataplane.Peer(f.peer.Addr()), 1))
		p.Session, p.VLAN = 7, []uint16{7}
		r.expect(false, "blocked in a session under a tag", Step{dataplane.FromInside, p.Frame()})
	}
}

// tunnels: IPIP, IPv6 in IP, GRE, ESP, SCTP have no ports here; VXLAN is UDP.
// In IPv4 the authentication header is a protocol, in IPv6 an extension.
func tunnels(t *testing.T, r *rig) {
	for _, f := range families() {
		inner := Packet{Src: f.stranger, Dst: f.host2, Proto: flow.TCP, Flags: flow.SYN}
		protos := []uint8{4, 41, 47, 50, 132}
		if f.name == "v4" {
			protos = append(protos, 51)
		}
		for _, proto := range protos {
			body := inner.AppendIP(nil)
			if proto == 47 {
				body = append([]byte{0, 0, 0x08, 0}, body...)
			}
			p := Packet{Src: f.peer, Dst: f.host, Proto: proto, Payload: body}
			for range 4 {
				r.play(Step{dataplane.ToInside, p.Frame()})
			}
			rec := r.only(dataplane.EventMilestone).Record
			outer := key(netip.AddrPortFrom(f.host.Addr(), 0), netip.AddrPortFrom(f.peer.Addr(), 0), proto)
			same(t, "key", rec.Key, outer)
			same(t, "payload", rec.Dir[0].Payload, uint64(4*len(body)))
		}
		r.apply(block(dataplane.Peer(f.stranger.Addr()), 1))
		r.expect(true, "a blocked address inside a tunnel", Step{dataplane.ToInside,
			Packet{Src: f.peer, Dst: f.host, Proto: 4, Payload: inner.AppendIP(nil)}.Frame()})
		vxlan := Packet{Src: f.peer, Dst: netip.AddrPortFrom(f.host.Addr(), 4789), Proto: flow.UDP, Payload: inner.Frame()}
		for range 4 {
			r.play(Step{dataplane.ToInside, vxlan.Frame()})
		}
		same(t, "key", r.only(dataplane.EventMilestone).Record.Key, key(vxlan.Src, vxlan.Dst, flow.UDP))
		r.apply(block(dataplane.Peer(f.peer.Addr()), 1))
		r.expect(false, "the tunnel of a blocked address", Step{dataplane.ToInside, vxlan.Frame()})
	}
}

func notIP(t *testing.T, r *rig) {
	before := r.stats()
	frames := [][]byte{
		append(append(make([]byte, 12), 0x08, 0x06), make([]byte, 28)...),                                 // ARP
		append(append(make([]byte, 12), 0x00, 0x26, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0), make([]byte, 40)...),   // IP in LLC/SNAP
		append(append(make([]byte, 12), 0x88, 0x63, 0x11, 9, 0, 0, 0, 0), make([]byte, 40)...),            // PPPoE discovery
		append(append(make([]byte, 12), 0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0xc0, 0x21), make([]byte, 4)...), // LCP
		append(append(make([]byte, 12), 0x88, 0x47, 0, 1, 0x01, 64), make([]byte, 40)...),                 // MPLS
	}
	for _, b := range frames {
		r.expect(true, "not IP", Step{dataplane.ToInside, b})
	}
	st := r.stats()
	same(t, "frames", st.Packets-before.Packets, uint64(len(frames)))
	same(t, "IP bytes", st.Bytes, before.Bytes)
	same(t, "malformed kinds", len(st.Malformed), len(before.Malformed))
}

func fragmentFirstDrop(t *testing.T, r *rig) {
	for _, f := range families() {
		r.apply(block(dataplane.Peer(f.peer.Addr()), 5))
		p := Packet{Src: f.peer, Dst: f.host, Proto: flow.UDP, Payload: make([]byte, 64), FragOffset: 9, FragID: 9}
		r.expect(false, "later fragment of a blocked address", Step{dataplane.ToInside, p.Frame()})
		e := r.only(dataplane.EventFirstDrop)
		same(t, "key", e.Record.Key, key(netip.AddrPortFrom(f.host.Addr(), 0), netip.AddrPortFrom(f.peer.Addr(), 0), flow.UDP))
		same(t, "initiator", e.Record.Initiator().Addr(), f.peer.Addr())
		same(t, "dropped", e.Record.Dropped, 1)
	}
}

// badFrame is a frame that no plane may account, and what it is called.
type badFrame struct {
	kind  string
	frame []byte
}

// anonymous says that the kind hides the addresses, so that no rule can match.
func (b badFrame) anonymous() bool {
	switch b.kind {
	case "vlan", "pppoe", "ipv4", "ipv4-length", "ipv6", "ipv6-length":
		return true
	}
	return false
}

// edit builds a packet and changes it from its IP header on.
func edit(p Packet, change func(ip []byte)) []byte {
	b := p.Frame()
	change(b[14:])
	return b
}

// malformedFrames returns frames that are broken in every way that planes tell
// apart, from the peer to the host of one family.
func malformedFrames(f family) []badFrame {
	if f.name == "v4" {
		return append(malformedLinks(f), malformedIPv4(f)...)
	}
	return append(malformedLinks(f), malformedIPv6(f)...)
}

func malformedLinks(f family) []badFrame {
	p := Packet{Src: f.peer, Dst: f.host, Proto: flow.UDP, Payload: []byte("payload")}
	cutTag := append(make([]byte, 12), 0x81, 0x00)
	p.VLAN = []uint16{1, 2, 3}
	three := p.Frame()
	p.VLAN, p.Session = nil, 1
	session := func(change func(h []byte)) []byte { return edit(p, change) }
	return []badFrame{
		{"vlan", cutTag},
		{"vlan", three},
		{"pppoe", session(func([]byte) {})[:14+7]},
		{"pppoe", session(func(h []byte) { h[0] = 0x21 })},
		{"pppoe", session(func(h []byte) { h[1] = 1 })},
		{"pppoe", session(func(h []byte) { binary.BigEndian.PutUint16(h[4:], 1) })},
		{"pppoe", session(func(h []byte) { binary.BigEndian.PutUint16(h[4:], uint16(len(p.Frame())-14-6+1)) })},
	}
}

func malformedIPv4(f family) []badFrame {
	udp := Packet{Src: f.peer, Dst: f.host, Proto: flow.UDP, Payload: []byte("payload")}
	tcp := Packet{Src: f.peer, Dst: f.host, Proto: flow.TCP, Flags: flow.SYN}
	short := Packet{Src: f.peer, Dst: f.host, Proto: 253, Payload: make([]byte, 4)}
	inSession := udp
	inSession.Session = 1
	return append(fragmentTricks(f), []badFrame{
		{"ipv4", udp.Frame()[:14+19]},
		{"ipv4", edit(udp, func(ip []byte) { ip[0] = 0x44 })},
		{"ipv4", edit(udp, func(ip []byte) { ip[0] = 0x65 })},
		{"ipv4-length", edit(udp, func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 0) })},
		{"ipv4-length", edit(udp, func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 19) })},
		{"ipv4-length", edit(udp, func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 600) })},
		{"ipv4-length", edit(udp, func(ip []byte) { ip[0] = 0x4f })},
		{"ipv4-length", append(edit(inSession, func(h []byte) { h[8+3]++ }), 0, 0)}, // fits the frame, not the session
		{"udp", edit(short, func(ip []byte) { ip[9] = flow.UDP })},
		{"icmp", edit(short, func(ip []byte) { ip[9] = flow.ICMP })},
		{"tcp", edit(short, func(ip []byte) { ip[9] = flow.TCP })},
		{"tcp", edit(tcp, func(ip []byte) { ip[20+12] = 4 << 4 })},
		{"tcp", edit(tcp, func(ip []byte) { ip[20+12] = 15 << 4 })},
	}...)
}

func malformedIPv6(f family) []badFrame {
	udp := Packet{Src: f.peer, Dst: f.host, Proto: flow.UDP, Payload: []byte("payload")}
	long := udp
	for range 7 {
		long.Ext = append(long.Ext, Ext{60, make([]byte, 6)})
	}
	cut := Packet{Src: f.peer, Dst: f.host, Proto: 253, Payload: make([]byte, 7)}
	return append(fragmentTricks(f), []badFrame{
		{"ipv6", udp.Frame()[:14+39]},
		{"ipv6", edit(udp, func(ip []byte) { ip[0] = 0x50 })},
		{"ipv6-length", edit(udp, func(ip []byte) { binary.BigEndian.PutUint16(ip[4:], 600) })},
		{"ipv6-ext", long.Frame()},
		{"ipv6-ext", edit(cut, func(ip []byte) { ip[6] = 60 })},
		{"ipv6-ext", edit(cut, func(ip []byte) { ip[6] = 44 })},
		{"udp", edit(cut, func(ip []byte) { ip[6] = flow.UDP })},
	}...)
}

// fragmentTricks hide a transport header from whoever looks at one packet only:
// cut within the first fragment, or written again by the second (RFC 1858, RFC
// 3128); or they make more than a packet can hold.
func fragmentTricks(f family) []badFrame {
	first := Packet{Src: f.peer, Dst: f.host, Proto: 253, Payload: make([]byte, 16), MoreFrags: true, FragID: 9}
	over := Packet{Src: f.peer, Dst: f.host, Proto: flow.TCP, Payload: make([]byte, 64), FragOffset: 1, FragID: 9}
	huge := Packet{Src: f.peer, Dst: f.host, Proto: flow.UDP, Payload: make([]byte, 64), FragOffset: 0x1fff, FragID: 9}
	next := 9
	if f.name == "v6" {
		next = 40
	}
	return []badFrame{
		{"fragment", edit(first, func(ip []byte) { ip[next] = flow.TCP })},
		{"fragment", over.Frame()},
		{"fragment", huge.Frame()},
	}
}

func malformed(t *testing.T, r *rig) {
	for _, f := range families() {
		for k, bad := range malformedFrames(f) {
			before := r.stats().Malformed[bad.kind]
			r.expect(true, "malformed "+bad.kind, Step{dataplane.ToInside, bad.frame})
			if got := r.stats().Malformed[bad.kind]; got != before+1 {
				t.Errorf("%s frame %d: count of kind %q: got %d, expected %d (all: %v)",
					f.name, k, bad.kind, got, before+1, r.stats().Malformed)
			}
		}
	}
	same(t, "flows", r.stats().FlowsTotal, 0)
}

func malformedBlocked(t *testing.T, r *rig) {
	for _, f := range families() {
		r.apply(block(dataplane.Peer(f.peer.Addr()), 1))
		for k, bad := range malformedFrames(f) {
			passed := r.inject(Step{dataplane.ToInside, bad.frame})
			if want := bad.anonymous(); passed != want {
				t.Errorf("%s frame %d (%s): passed %v, expected %v", f.name, k, bad.kind, passed, want)
			}
		}
		r.expect(true, "another address", in(f, netip.AddrPortFrom(f.peer2.Addr(), 1)))
	}
}
