package planetest

import (
	"math/rand/v2"
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Forge writes what somebody can send in the name of victim to an inside host
// without seeing what comes back: every protocol, every TCP flag, both halves of
// a handshake, guesses of every number, fragments, resets that claim to answer
// something. What the host truly answers, to a victim that never asked, is in
// the script too, with numbers that the forger does not know: rng chooses them
// and the guesses, and no guess is right.
func Forge(rng *rand.Rand, victim, host netip.Addr, port uint16) []Step {
	v := netip.AddrPortFrom(victim, uint16(1024+rng.IntN(60000)))
	h := netip.AddrPortFrom(host, port)
	isn := rng.Uint32() // the host's, unknown to the forger
	guess := func() uint32 {
		for {
			if g := rng.Uint32(); g-isn > 1<<20 {
				return g
			}
		}
	}
	tcp := func(hook dataplane.Hook, src, dst netip.AddrPort, flags uint8, seq, ack uint32, payload []byte) Step {
		return Step{hook, Packet{Src: src, Dst: dst, Proto: flow.TCP, Flags: flags, Seq: seq, Ack: ack, Window: 1024, Payload: payload}.Frame()}
	}
	in := func(flags uint8, seq, ack uint32, payload []byte) Step {
		return tcp(dataplane.ToInside, v, h, flags, seq, ack, payload)
	}
	text := []byte("GET / HTTP/1.1\r\n\r\n")
	steps := []Step{
		in(flow.SYN, 7, 0, nil),
		tcp(dataplane.FromInside, h, v, flow.SYN|flow.ACK, isn, 8, nil),
		in(flow.ACK, 8, guess(), nil),
		in(flow.PSH|flow.ACK, 8, guess(), text),
		in(flow.SYN|flow.ACK, 8, guess(), nil),
		in(flow.SYN, guess(), 0, nil), // and again, as if both opened at once
		in(flow.FIN|flow.ACK, 26, guess(), nil),
		in(flow.RST, 27, 0, nil),
		in(flow.RST, guess(), guess(), nil),
		in(flow.RST|flow.ACK, guess(), guess(), nil),
		in(flow.ACK, guess(), guess(), nil), // from the middle of nowhere
		in(flow.SYN|flow.ACK, guess(), guess(), nil),
		tcp(dataplane.FromInside, h, v, flow.RST, 0, 0, nil),
		in(0, guess(), 0, nil),
		in(0x3f, guess(), guess(), text),
	}
	// Both ends, the host's included, from outside: its number is then known.
	mine := guess()
	steps = append(steps,
		in(flow.SYN, 7, 0, nil),
		tcp(dataplane.ToInside, h, v, flow.SYN|flow.ACK, mine, 8, nil),
		in(flow.ACK, 8, mine+1, nil),
		in(flow.PSH|flow.ACK, 8, mine+1, text),
		in(flow.RST, 26, 0, nil))
	return append(steps, forgeOthers(rng, v, h)...)
}

// forgeOthers is what is not TCP.
func forgeOthers(rng *rand.Rand, v, h netip.AddrPort) []Step {
	icmp, types := uint8(flow.ICMP), []uint8{0, 3, 5, 8, 11}
	if v.Addr().Is6() {
		icmp, types = flow.ICMPv6, []uint8{1, 3, 128, 129}
	}
	var out []Step
	add := func(p Packet) {
		p.Src, p.Dst = v, h
		out = append(out, Step{dataplane.ToInside, p.Frame()})
	}
	for _, typ := range types {
		add(Packet{Proto: icmp, Type: typ, Payload: make([]byte, 28)})
	}
	for range 3 {
		add(Packet{Proto: flow.UDP, Payload: []byte("query")})
	}
	out = append(out, Datagram(dataplane.FromInside, h, v, []byte("answer")))
	for _, proto := range []uint8{4, 41, 47, 50, 132, 200} {
		add(Packet{Proto: proto, Payload: make([]byte, 40)})
	}
	id := rng.Uint32()
	add(Packet{Proto: flow.TCP, Flags: flow.ACK, Seq: 1, Ack: rng.Uint32(), Payload: make([]byte, 32), MoreFrags: true, FragID: id})
	add(Packet{Proto: flow.TCP, FragOffset: 6, FragID: id, Payload: make([]byte, 32)})
	add(Packet{Proto: flow.UDP, FragOffset: 1, FragID: id, Payload: make([]byte, 32)})
	return out
}
