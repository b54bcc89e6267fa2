package flowgen

import (
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// change is what has become of an office abruptly, and is no attack.
type change struct {
	service netip.AddrPort // everybody uses it from some day on
	share   float64
}

// OpenService lets every host use a new service from now on: share of all
// sessions go to one server outside, on a port that nobody used, with long
// two-way sessions such as a telephone system's.
func (o *Office) OpenService(share float64) {
	o.change = change{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 77}), 5349), share}
}

// Grow adds n hosts, which do the ordinary work of the others.
func (o *Office) Grow(n int) {
	for i := range n {
		o.hosts = append(o.hosts, netip.AddrFrom4([4]byte{10, byte(o.seed), 2, byte(10 + i)}))
	}
}

// call is a session of the new service.
func (o *Office) call(t time.Time, host netip.Addr) session {
	s := o.outbound(t, host, o.change.service.Addr(), o.change.service.Port(), flow.HintNone)
	s.script = []msg{{0, 300, 0}, {1, 280, s.rtt}}
	for range 20 + o.rng.IntN(60) {
		s.script = append(s.script, msg{0, 172, 20 * time.Millisecond}, msg{1, 172, 0})
	}
	return s
}
