package planetest

import (
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Step is one frame of a script and the hook that sees it.
type Step struct {
	Hook  dataplane.Hook
	Frame []byte
}

// Session writes the frames of one TCP connection in order and keeps its
// sequence numbers. Ends are named by who speaks: 0 the client, 1 the server.
type Session struct {
	Client, Server netip.AddrPort
	// ServerInside says that the server is the protected host; else the client is.
	ServerInside bool
	Seq          [2]uint32 // next sequence number of each end
	Window       [2]uint16
	TTL          [2]uint8
}

// NewSession returns a session whose initial sequence numbers are fixed and,
// for the client, near the wrap.
func NewSession(client, server netip.AddrPort) *Session {
	return &Session{Client: client, Server: server, Seq: [2]uint32{0xfffffff0, 7000},
		Window: [2]uint16{64240, 65160}, TTL: [2]uint8{64, 57}}
}

// Packet is the segment that end from would send now, without changing the session.
func (s *Session) Packet(from int, flags uint8, payload []byte) Packet {
	p := Packet{Src: s.Client, Dst: s.Server, Proto: flow.TCP, Flags: flags, Seq: s.Seq[from],
		Window: s.Window[from], TTL: s.TTL[from], Payload: payload}
	if flags&flow.ACK != 0 {
		p.Ack = s.Seq[1-from]
	}
	if from == 1 {
		p.Src, p.Dst = s.Server, s.Client
	}
	return p
}

// HookOf is the hook that sees packets of end from.
func (s *Session) HookOf(from int) dataplane.Hook {
	if (from == 0) != s.ServerInside {
		return dataplane.FromInside
	}
	return dataplane.ToInside
}

// Send is the next segment of end from; the session moves on by it.
func (s *Session) Send(from int, flags uint8, payload []byte) Step {
	st := Step{Hook: s.HookOf(from), Frame: s.Packet(from, flags, payload).Frame()}
	s.Seq[from] += uint32(len(payload))
	if flags&flow.SYN != 0 {
		s.Seq[from]++
	}
	if flags&flow.FIN != 0 {
		s.Seq[from]++
	}
	return st
}

// Open is the three-way handshake.
func (s *Session) Open() []Step {
	return []Step{
		s.Send(0, flow.SYN, nil),
		s.Send(1, flow.SYN|flow.ACK, nil),
		s.Send(0, flow.ACK, nil),
	}
}

// Data is one pushed segment of end from.
func (s *Session) Data(from int, payload []byte) Step {
	return s.Send(from, flow.PSH|flow.ACK, payload)
}

// Close is an orderly end that the client begins: FIN, FIN and ACK in one, ACK.
func (s *Session) Close() []Step {
	return []Step{
		s.Send(0, flow.FIN|flow.ACK, nil),
		s.Send(1, flow.FIN|flow.ACK, nil),
		s.Send(0, flow.ACK, nil),
	}
}

// Datagram is a UDP frame from an inside (FromInside) or outside sender.
func Datagram(hook dataplane.Hook, src, dst netip.AddrPort, payload []byte) Step {
	return Step{Hook: hook, Frame: Packet{Src: src, Dst: dst, Proto: flow.UDP, Payload: payload}.Frame()}
}
