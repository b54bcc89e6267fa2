package gossip

import (
	"slices"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
)

func listening(t *testing.T, n byte, discover bool, listen ...string) *Transport {
	t.Helper()
	return transport(t, n, Options{Listen: listen, Discover: discover})
}

// A host that listens everywhere tells peers nothing of its inside interfaces; what
// it was told to listen at by name it tells.
func TestInsideAddressesAreNotTold(t *testing.T) {
	everywhere := listening(t, 1, false, "/ip4/0.0.0.0/tcp/0")
	inside := func(a ma.Multiaddr) bool { return len(everywhere.shown(nil)([]ma.Multiaddr{a})) == 0 }
	real, err := everywhere.host.Network().InterfaceListenAddresses()
	if err != nil || !slices.ContainsFunc(real, inside) {
		t.Fatalf("control: it listens at nothing inside, not even the loopback: %v, %v", real, err)
	}
	if told := everywhere.host.Addrs(); slices.ContainsFunc(told, inside) {
		t.Errorf("peers are told of %v", told)
	}
	if told := listening(t, 2, false, "/ip4/127.0.0.1/tcp/0").host.Addrs(); len(told) != 1 {
		t.Errorf("listening at a named address, it tells %v", told)
	}
	if told := listening(t, 3, true, "/ip4/0.0.0.0/tcp/0").host.Addrs(); !slices.ContainsFunc(told, inside) {
		t.Errorf("announced on the local network, it tells %v alone", told)
	}
	in := []ma.Multiaddr{}
	for _, s := range []string{"/ip4/10.1.2.3/tcp/1", "/ip4/192.168.1.1/udp/1/quic-v1", "/ip6/fd00::1/tcp/1", "/ip6/fe80::1/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/1", "/ip6/2600::1/tcp/1"} {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, a)
	}
	if out := everywhere.shown(nil)(in); len(out) != 2 {
		t.Errorf("of %v it tells %v", in, out)
	}
}
