//go:build linux

package netspace

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Cable makes a veth pair from the calling thread's network to another's, and
// returns its near end.
func Cable(name, peer string, to *Space) (netlink.Link, error) {
	v := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer, PeerNamespace: netlink.NsFd(to.FD()),
	}
	if err := netlink.LinkAdd(v); err != nil {
		return nil, fmt.Errorf("veth %s to %s: %w", name, peer, err)
	}
	return netlink.LinkByName(name)
}

// AddAddr gives a link of the calling thread's network an address.
func AddAddr(link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if err := netlink.AddrAdd(link, a); err != nil {
		return fmt.Errorf("address %s: %w", p, err)
	}
	return nil
}

// AddRoute makes a route in the calling thread's network.
func AddRoute(link netlink.Link, to netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(to), Gw: via.AsSlice()}
	if err := netlink.RouteAdd(r); err != nil {
		return fmt.Errorf("route to %s via %s: %w", to, via, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
