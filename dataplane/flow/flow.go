// Package flow is the vocabulary that the dataplane, the learner and the node
// share: what identifies a flow, and what is known of it after some packets.
//
// A flow is a bidirectional exchange between two transport endpoints. Its Key
// is canonical, so both directions of a flow, seen at whichever hook, name the
// same flow. Its Record is what the kernel (dataplane/xdp) or the software
// plane (dataplane/softplane) counted; both count by the same rules, which
// dataplane/planetest pins down. Times are nanoseconds since the Unix epoch;
// sizes are bytes of the IP packet (header included) unless a field says
// otherwise, so that they are equal at every hook whatever the link layer is.
package flow

import (
	"fmt"
	"math"
	"net/netip"
	"time"
)

// IP protocol numbers that the product treats by name.
const (
	ICMP   = 1
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
)

// Key names a flow: two endpoints in canonical order (A not above B, compared
// first by address as 16 bytes, then by port) and the IP protocol. Addresses
// are never IPv4-mapped IPv6: 10.0.0.1, not ::ffff:10.0.0.1. ICMP and other
// protocols without ports carry zero ports.
type Key struct {
	A, B         netip.Addr
	APort, BPort uint16
	Proto        uint8
}

// NewKey returns the canonical key of a packet from src to dst, and whether
// the packet travels from B to A.
func NewKey(src, dst netip.AddrPort, proto uint8) (k Key, fromB bool) {
	s, d := src.Addr().Unmap(), dst.Addr().Unmap()
	s16, d16 := s.As16(), d.As16()
	c := 0
	for i := range s16 {
		if s16[i] != d16[i] {
			c = int(s16[i]) - int(d16[i])
			break
		}
	}
	if c == 0 {
		c = int(src.Port()) - int(dst.Port())
	}
	if c > 0 {
		return Key{A: d, B: s, APort: dst.Port(), BPort: src.Port(), Proto: proto}, true
	}
	return Key{A: s, B: d, APort: src.Port(), BPort: dst.Port(), Proto: proto}, false
}

// String prints the key as "tcp 10.0.0.1:4000<>10.0.0.2:22".
func (k Key) String() string {
	return fmt.Sprintf("%s %s<>%s", ProtoName(k.Proto),
		netip.AddrPortFrom(k.A, k.APort), netip.AddrPortFrom(k.B, k.BPort))
}

// ProtoName is the lower-case name of an IP protocol, or its number.
func ProtoName(p uint8) string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMPv6:
		return "icmpv6"
	}
	return fmt.Sprintf("proto-%d", p)
}

// TCP flag bits as they stand in the header.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// First is how many payload-carrying packets of a flow have their size and gap kept.
const First = 8

// Dir is what one direction of a flow did.
type Dir struct {
	Packets uint32
	Bytes   uint64 // IP bytes
	Payload uint64 // transport payload bytes
	SizeSq  uint64 // sum of squares of IP packet sizes
	SizeMin uint16 // 0 when Packets is 0
	SizeMax uint16
	First   int64  // time of the first packet, 0 when none
	Last    int64  // time of the last packet
	GapSq   uint64 // sum of squares of gaps between packets of this direction, in us^2, saturating
	GapMax  uint32 // longest such gap, in us, saturating
	Flags   uint8  // OR of TCP flags
	SYN     uint16
	FIN     uint16
	RST     uint16
	PSH     uint16
	Retrans uint16 // TCP segments with payload that begin below the highest sequence seen
	Window  uint16 // TCP window of the first packet, unscaled
	TTL     uint8  // TTL or hop limit of the first packet
}

// Hint is what the first payload bytes of a flow look like.
type Hint uint8

// Hints. They look at four bytes only and prove nothing.
const (
	HintNone Hint = iota
	HintTLS       // a TLS handshake record
	HintSSH       // an SSH banner
	HintHTTP      // an HTTP/1 request
)

// End is why a flow ended.
type End uint8

// Ends.
const (
	Open    End = iota
	EndFIN      // both sides sent FIN
	EndRST      // either side sent RST
	EndIdle     // no packet for the idle time
	EndEvicted
)

// Record is a flow so far. Index 0 of every pair is the initiator (who sent the
// first packet seen, or for TCP the first SYN without ACK), 1 the responder.
type Record struct {
	Key        Key
	ID         uint64 // unique per plane start; tells apart two flows of one key
	InitB      bool   // the initiator is Key.B
	InitInside bool   // the initiator is on the protected side
	RespInside bool   // the responder is on the protected side
	Start      int64  // time of the first packet
	Last       int64  // time of the last packet
	Dir        [2]Dir
	// Validated[e] says that endpoint e proved that it receives at its
	// address: its ACK answered the other side's initial sequence number.
	Validated [2]bool
	SynAckUS  uint32 // SYN to SYN-ACK, us; 0 unknown
	AckUS     uint32 // SYN-ACK to ACK, us; 0 unknown
	NFirst    uint8  // valid entries of Sizes and Gaps
	// Sizes are transport payload sizes of the first payload-carrying packets
	// (any direction): positive from the initiator, negative from the responder.
	Sizes [First]int16
	Gaps  [First]uint32 // us since the flow's previous payload-carrying packet (since Start for the first), saturating
	Hint  Hint
	// Fellows are the flows of the same initiator to the same service (address, port
	// and protocol) that came to their fourth packet before this one did, in the same
	// window of 2^33 ns or the one before; at most 65535. Flows whose initiator proved
	// its address and others are counted apart. 0 before the fourth packet, and where a
	// record's source was no plane.
	Fellows uint16
	// Hello is what a TLS client said as the flow began, nil when it is not known.
	// A plane gives it from the report after the packet that completed it.
	Hello *Hello
	End   End
	// Dropped counts this flow's packets that were dropped (in monitor mode:
	// would have been dropped). They are not counted in Dir, but for the one at
	// which the plane's own scorer suspended the flow.
	Dropped uint32
	// Lacks says which fields the record's source could not give; none, for a plane.
	Lacks Lack
}

// Packets is the number of accounted packets of both directions.
func (r *Record) Packets() uint32 { return r.Dir[0].Packets + r.Dir[1].Packets }

// OnlyResets says that the flow is nothing but TCP resets: what came after the
// end of another flow, or without one. They are traffic, but tell nothing of
// how anybody behaves.
func (r *Record) OnlyResets() bool {
	n := r.Packets()
	return r.Key.Proto == TCP && n > 0 && n == uint32(r.Dir[0].RST)+uint32(r.Dir[1].RST)
}

// Initiator is the endpoint that opened the flow.
func (r *Record) Initiator() netip.AddrPort {
	if r.InitB {
		return netip.AddrPortFrom(r.Key.B, r.Key.BPort)
	}
	return netip.AddrPortFrom(r.Key.A, r.Key.APort)
}

// Responder is the endpoint that was contacted.
func (r *Record) Responder() netip.AddrPort {
	if r.InitB {
		return netip.AddrPortFrom(r.Key.A, r.Key.APort)
	}
	return netip.AddrPortFrom(r.Key.B, r.Key.BPort)
}

// Duration is the time from the first to the last packet.
func (r *Record) Duration() time.Duration { return time.Duration(r.Last - r.Start) }

// Outside returns the endpoint outside the site and its index (0 initiator, 1
// responder). ok is false when both ends are inside, or both are outside.
func (r *Record) Outside() (ep netip.AddrPort, end int, ok bool) {
	switch {
	case r.InitInside && !r.RespInside:
		return r.Responder(), 1, true
	case r.RespInside && !r.InitInside:
		return r.Initiator(), 0, true
	}
	return netip.AddrPort{}, 0, false
}

// Milestone says whether packet number n of a flow (counted over both
// directions, from 1) is one at which the flow is reported: 4, 8, 16, 32, 64,
// and from there every fourfold (256, 1024, ...).
func Milestone(n uint32) bool {
	if n < 4 || n&(n-1) != 0 {
		return false
	}
	if n <= 64 {
		return true
	}
	shift := 0
	for m := n; m > 64; m >>= 1 {
		shift++
	}
	return shift%2 == 0
}

// SaturateUS converts a duration in nanoseconds to whole microseconds that fit 32 bits.
func SaturateUS(ns int64) uint32 {
	us := ns / 1000
	if us < 0 {
		return 0
	}
	if us > math.MaxUint32 {
		return math.MaxUint32
	}
	return uint32(us)
}
