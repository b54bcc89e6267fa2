package enforce

import (
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

const (
	igmp = 2
	// brief is what membership and addresses are spoken of in, in bytes. Whoever sends
	// more as that sends something else.
	brief = 16 << 10
)

// control says that a flow keeps a network together: neighbours and routers that look
// for each other, group membership, names and addresses that are handed out. It goes
// to everybody on a link, or to nobody beyond it; it is no reason to act.
func control(rec *flow.Record) bool {
	i, r := rec.Initiator(), rec.Responder()
	if toMany(i.Addr()) || toMany(r.Addr()) {
		return true
	}
	short := rec.Dir[0].Payload+rec.Dir[1].Payload <= brief
	switch rec.Key.Proto {
	case igmp:
		return short
	case flow.ICMPv6:
		return i.Addr().IsLinkLocalUnicast() || r.Addr().IsLinkLocalUnicast()
	case flow.UDP:
		return short && (dhcp(i.Port(), r.Port()) || dhcp(r.Port(), i.Port()))
	}
	return false
}

func toMany(a netip.Addr) bool {
	return a.IsMulticast() || a.IsUnspecified() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// dhcp says that two ports are those of a client and a server, or of a relay.
func dhcp(a, b uint16) bool {
	return a == 67 && (b == 67 || b == 68) || a == 547 && (b == 546 || b == 547)
}
