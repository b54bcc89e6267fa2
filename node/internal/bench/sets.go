//go:build linux

package bench

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
)

// population is the addresses of one size: those that are listed, and as many
// that are not, all distinct, unicast and public. Equal sizes give equal ones.
type population struct{ listed, others []netip.Addr }

func populate(size int) population {
	rng := rand.New(rand.NewPCG(uint64(size), 0x68656467))
	seen := make(map[uint32]bool, 2*size)
	draw := func(n int) []netip.Addr {
		out := make([]netip.Addr, 0, n)
		for len(out) < n {
			v := rng.Uint32()
			if seen[v] || !public(v) {
				continue
			}
			seen[v] = true
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], v)
			out = append(out, netip.AddrFrom4(b))
		}
		return out
	}
	return population{draw(size), draw(size)}
}

// public leaves out what no peer can have, and the addresses of the measurement.
func public(v uint32) bool {
	switch first := v >> 24; {
	case first == 0, first == 10, first == 127, first >= 224:
		return false
	case v>>20 == 0xac1, v>>16 == 0xc0a8, v>>16 == 0xa9fe, v>>22 == 0x64400000>>22:
		return false
	}
	return true
}

// sources are packets of n addresses, evenly taken from all, in an order in
// which no cache can guess the next.
func sources(from []netip.Addr, n int) []xdpbench.Source {
	rng := rand.New(rand.NewPCG(uint64(n), uint64(len(from))))
	n = min(n, len(from))
	out := make([]xdpbench.Source, n)
	for i, at := range rng.Perm(len(from))[:n] {
		out[i] = xdpbench.Source{Addr: from[at], Port: uint16(1024 + i%60000)}
	}
	return out
}
