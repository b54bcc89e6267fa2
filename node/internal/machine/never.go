package machine

import (
	"net/netip"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Own lists the machine's own addresses. Policy must refuse them as targets;
// they are not never-block entries as a whole, for on a host's own interface
// every packet is from or to one of them, and nothing could ever be blocked.
func (v *View) Own() []netip.Addr {
	var list []netip.Addr
	for _, l := range v.Links {
		for _, p := range l.Addrs {
			if !slices.Contains(list, p.Addr()) {
				list = append(list, p.Addr())
			}
		}
	}
	return list
}

// NeverBlock lists what must go on whatever is learned: the way out
// (gateways), names (resolvers, and the gateway's own name service towards
// inside hosts), and the operator's logged-in session. The plane itself adds
// neighbour discovery, path-MTU messages and DHCP. role is "inside" or "host".
func (v *View) NeverBlock(role string) []dataplane.Never {
	var list []dataplane.Never
	add := func(a netip.Addr, proto uint8, port uint16, any bool) {
		a = a.Unmap().WithZone("")
		n := dataplane.Never{Prefix: netip.PrefixFrom(a, a.BitLen()), Proto: proto, Port: port, AnySide: any}
		if a.IsValid() && !a.IsLoopback() && !a.IsUnspecified() && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	for _, r := range v.Routes {
		add(r.Gateway, 0, 0, false)
	}
	for _, a := range v.Resolvers {
		add(a, flow.UDP, 53, false)
		add(a, flow.TCP, 53, false)
		add(a, flow.TCP, 853, false)
	}
	for _, a := range v.Management {
		for _, port := range v.SSHPorts {
			add(a, flow.TCP, port, true)
		}
	}
	if role == "inside" {
		v.services(add)
	}
	return list
}

// services are what a gateway offers to the hosts behind it.
func (v *View) services(add func(netip.Addr, uint8, uint16, bool)) {
	for _, l := range v.Links {
		if l.Loopback || v.defaultVia(l.Name) {
			continue
		}
		for _, p := range l.Addrs {
			add(p.Addr(), flow.UDP, 53, false)
			add(p.Addr(), flow.TCP, 53, false)
			for _, port := range v.SSHPorts {
				add(p.Addr(), flow.TCP, port, false)
			}
		}
	}
}
