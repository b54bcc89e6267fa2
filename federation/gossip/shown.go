package gossip

import (
	"slices"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// shown picks what peers are told of our own addresses when a connection opens.
// A host that listens on 0.0.0.0 would tell all of its interfaces, those of the
// protected side among them, and so the plan of the inside network. Only public
// addresses are told, relayed ones, and those that the configuration names. A site
// that announces itself on the local network tells them all.
func (t *Transport) shown(listen []ma.Multiaddr) func([]ma.Multiaddr) []ma.Multiaddr {
	if t.opt.Discover {
		return func(all []ma.Multiaddr) []ma.Multiaddr { return all }
	}
	named := map[string]bool{}
	for _, a := range listen {
		if ip, err := manet.ToIP(a); err == nil && !ip.IsUnspecified() {
			named[ip.String()] = true
		}
	}
	return func(all []ma.Multiaddr) []ma.Multiaddr {
		return slices.DeleteFunc(slices.Clone(all), func(a ma.Multiaddr) bool {
			ip, err := manet.ToIP(a)
			told := manet.IsPublicAddr(a) || relayed(a) || err == nil && named[ip.String()]
			return !told
		})
	}
}
