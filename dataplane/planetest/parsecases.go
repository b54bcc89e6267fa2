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

// badFrame is a frame that no plane may account, and what it is called.
type badFrame struct {
	kind  string
	frame []byte
}

// malformedFrames returns frames that are broken in every way that planes tell
// apart, from the peer to the host of one family.
func malformedFrames(f family) []badFrame {
	udp := Packet{Src: f.peer, Dst: f.host, Proto: flow.UDP, Payload: []byte("payload")}
	tcp := Packet{Src: f.peer, Dst: f.host, Proto: flow.TCP, Flags: flow.SYN}
	edit := func(p Packet, change func(ip []byte)) []byte {
		b := p.Frame()
		change(b[14:])
		return b
	}
	if f.name == "v4" {
		short := Packet{Src: f.peer, Dst: f.host, Proto: 253, Payload: make([]byte, 4)}
		return []badFrame{
			{"vlan", append(make([]byte, 12), 0x81, 0x00)},
			{"ipv4", udp.Frame()[:14+19]},
			{"ipv4", edit(udp, func(ip []byte) { ip[0] = 0x44 })},
			{"ipv4", edit(udp, func(ip []byte) { ip[0] = 0x65 })},
			{"ipv4", edit(udp, func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 19) })},
			{"ipv4", edit(udp, func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 600) })},
			{"ipv4", edit(udp, func(ip []byte) { ip[0] = 0x4f })},
			{"udp", edit(short, func(ip []byte) { ip[9] = flow.UDP })},
			{"icmp", edit(short, func(ip []byte) { ip[9] = flow.ICMP })},
			{"tcp", edit(short, func(ip []byte) { ip[9] = flow.TCP })},
			{"tcp", edit(tcp, func(ip []byte) { ip[20+12] = 4 << 4 })},
			{"tcp", edit(tcp, func(ip []byte) { ip[20+12] = 15 << 4 })},
		}
	}
	long := udp
	for range 7 {
		long.Ext = append(long.Ext, Ext{60, make([]byte, 6)})
	}
	cut := Packet{Src: f.peer, Dst: f.host, Proto: 253, Payload: make([]byte, 7)}
	return []badFrame{
		{"ipv6", udp.Frame()[:14+39]},
		{"ipv6", edit(udp, func(ip []byte) { ip[0] = 0x50 })},
		{"ipv6", edit(udp, func(ip []byte) { binary.BigEndian.PutUint16(ip[4:], 600) })},
		{"ipv6-ext", long.Frame()},
		{"ipv6-ext", edit(cut, func(ip []byte) { ip[6] = 60 })},
		{"ipv6-ext", edit(cut, func(ip []byte) { ip[6] = 44 })},
		{"udp", edit(cut, func(ip []byte) { ip[6] = flow.UDP })},
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
			if want := bad.kind == "vlan" || bad.kind == "ipv4" || bad.kind == "ipv6"; passed != want {
				t.Errorf("%s frame %d (%s): passed %v, expected %v", f.name, k, bad.kind, passed, want)
			}
		}
		r.expect(true, "another address", in(f, netip.AddrPortFrom(f.peer2.Addr(), 1)))
	}
}
