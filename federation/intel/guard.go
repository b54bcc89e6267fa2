package intel

import (
	"net/netip"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// rootServers are the root name servers (https://www.iana.org/domains/root/servers).
// To block one is to break name resolution, and nobody has a reason to.
var rootServers = func() []netip.Addr {
	var out []netip.Addr
	for _, s := range []string{
		"198.41.0.4", "170.247.170.2", "192.33.4.12", "199.7.91.13", "192.203.230.10", "192.5.5.241", "192.112.36.4",
		"198.97.190.53", "192.36.148.17", "192.58.128.30", "193.0.14.129", "199.7.83.42", "202.12.27.33",
		"2001:503:ba3e::2:30", "2801:1b8:10::b", "2001:500:2::c", "2001:500:2d::d", "2001:500:a8::e", "2001:500:2f::f", "2001:500:12::d0d",
		"2001:500:1::53", "2001:7fe::53", "2001:503:c27::2:30", "2001:7fd::1", "2001:500:9f::42", "2001:dc3::35",
	} {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}()

// guarded says whether a value covers something that nobody may have blocked: a root
// name server. Width and private ranges are refused by wire before.
func guarded(target wire.Target) bool {
	return slices.ContainsFunc(rootServers, target.Prefix.Contains)
}

// covers says whether a value touches a list.
func covers(list func() []netip.Prefix, target wire.Target) bool {
	if list == nil {
		return false
	}
	for _, p := range list() {
		if p.Overlaps(target.Prefix) {
			return true
		}
	}
	return false
}
