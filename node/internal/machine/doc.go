// Package machine looks at the machine that a site runs on: which interface
// is the inside one, who must never be cut off, and what stands in the way of
// a good start. It changes nothing, and most of it needs no privilege.
//
// Look is the thin shell that reads netlink, nftables, /proc, /run and /etc;
// everything else is a pure function of the View that it returns. What cannot
// be read is left out of the View and said in its Unread, never guessed.
package machine

import (
	"net/netip"
	"time"
)

// View is a machine at one moment.
type View struct {
	Links      []Link
	Routes     []Route
	Forward4   bool // net.ipv4.ip_forward
	Forward6   bool // net.ipv6.conf.all.forwarding
	NAT        []string
	Tables     []string     // nftables tables as "family name"
	Processes  []string     // names of the programs that matter here, once each
	Resolvers  []netip.Addr // of resolv.conf
	SSHPorts   []uint16     // ports at which this machine takes SSH sessions
	Management []netip.Addr // far ends of SSH sessions that are logged in
	Unproven   []netip.Addr // far ends of SSH connections that may not be logged in
	Memory     uint64       // bytes available
	Now        time.Time
	Synced     Tri
	Disk       Disk
	Unread     map[string]string // what could not be read, and why
}

// Tri is a truth that may be unknown.
type Tri uint8

// Truths.
const (
	Unknown Tri = iota
	No
	Yes
)

// Link is a network interface.
type Link struct {
	Name     string
	Index    int
	Up       bool
	Loopback bool
	Ethernet bool
	Raw      bool           // frames begin with the IP header: tun, WireGuard, PPP
	Bridge   string         // the bridge that it is a port of; "" for none
	Kind     string         // as the system names it: "bridge", "veth", "device"
	Addrs    []netip.Prefix // with the host's bits
}

// Route is a default route.
type Route struct {
	Interface string
	Gateway   netip.Addr // invalid when the link itself is the way
}

// Disk is where the state will lie.
type Disk struct {
	Dir      string // nearest folder that exists
	Free     uint64
	Writable bool
	Known    bool
}

// link returns the interface with that name.
func (v *View) link(name string) (Link, bool) {
	for _, l := range v.Links {
		if l.Name == name {
			return l, true
		}
	}
	return Link{}, false
}

// defaultVia says whether a default route leaves by the interface.
func (v *View) defaultVia(name string) bool {
	for _, r := range v.Routes {
		if r.Interface == name {
			return true
		}
	}
	return false
}
