package machine

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Inside is the answer to "where is the site?".
type Inside struct {
	Interface string
	Role      string         // "inside": the hosts are behind it; "host": it is this machine's own; or as named
	Prefixes  []netip.Prefix // its networks, without link-local ones
	Why       string         // in words
}

// FindInside finds the interface with the protected hosts: the only one with a
// private address that is not the default route's. A machine with one
// interface protects itself. In any other case the error names the choices.
func (v *View) FindInside() (Inside, error) {
	var all, private []Link
	for _, l := range v.Links {
		if !candidate(l) {
			continue
		}
		all = append(all, l)
		if hasPrivate(l) && !v.defaultVia(l.Name) {
			private = append(private, l)
		}
	}
	switch {
	case len(all) == 0:
		return Inside{}, errors.New("find the inside interface: no Ethernet interface is up with an address: bring one up, or name it in dataplane.interface")
	case len(all) == 1 && (len(private) == 0 || len(v.Routes) == 0):
		return inside(all[0], "host", "it is the only interface, so this machine protects itself"), nil
	case len(private) == 1:
		return inside(private[0], "inside", "it has a private address and the default route leaves elsewhere"), nil
	case len(private) > 1:
		return Inside{}, fmt.Errorf("find the inside interface: %s all look like it: name one in dataplane.interface", names(private))
	}
	return Inside{}, fmt.Errorf("find the inside interface: none of %s has a private address apart from the default route: name one in dataplane.interface, and set dataplane.role", names(all))
}

// Describe says what is known of an interface that was named.
func (v *View) Describe(name, role string) (Inside, error) {
	l, ok := v.link(name)
	switch {
	case !ok:
		return Inside{}, fmt.Errorf("interface %s: not found: expected one of %s", name, names(v.Links))
	case !l.Up:
		return Inside{}, fmt.Errorf("interface %s: is down: run `ip link set %s up`", name, name)
	case !l.Ethernet && !l.Loopback && !l.Raw:
		return Inside{}, fmt.Errorf("interface %s: its frames begin neither with Ethernet nor with IP: expected the Ethernet interface of the hosts", name)
	case role == "bridge" && l.Bridge == "":
		return Inside{}, fmt.Errorf("interface %s: is not a port of a bridge: set its role to \"inside\", or name a port", name)
	}
	return inside(l, role, "it was named in the configuration"), nil
}

func inside(l Link, role, why string) Inside {
	in := Inside{Interface: l.Name, Role: role, Why: why}
	for _, p := range l.Addrs {
		if !p.Addr().IsLinkLocalUnicast() {
			in.Prefixes = append(in.Prefixes, p.Masked())
		}
	}
	return in
}

func candidate(l Link) bool {
	return l.Up && !l.Loopback && l.Ethernet && !container(l.Name) && len(inside(l, "", "").Prefixes) > 0
}

// container knows the names that container and virtual machine programs give.
func container(name string) bool {
	for _, p := range []string{"docker", "br-", "virbr", "cni", "flannel", "cali", "podman", "lxc", "lxdbr", "vnet"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func hasPrivate(l Link) bool {
	for _, p := range l.Addrs {
		if p.Addr().IsPrivate() {
			return true
		}
	}
	return false
}

func names(links []Link) string {
	var list []string
	for _, l := range links {
		if !l.Loopback {
			list = append(list, l.Name)
		}
	}
	if len(list) == 0 {
		return "(none)"
	}
	return strings.Join(list, ", ")
}
