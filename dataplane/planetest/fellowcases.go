package planetest

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

func fellowCases() []testCase {
	return []testCase{{"a flow knows how many like it there were", dataplane.Monitor, fellowsMeet}}
}

// fellowsMeet: flows are alike by their initiator and the service that they ask, from
// their fourth packet on. What is counted is of the last seconds, so that a machine
// that took longer over it has to try again, at another service.
func fellowsMeet(t *testing.T, r *rig) {
	for _, f := range families() {
		for try := uint16(0); ; try++ {
			began := time.Now()
			got := r.fellows(f, try)
			if slices.Equal(got, []uint16{0, 1, 2, 2, 0, 0, 0}) {
				break
			}
			if time.Since(began) < 4*time.Second || try > 50 {
				t.Fatalf("%s: flows like each knew of %v: expected 0, 1 and 2, again at packet 8, and none of what is not alike", f.name, got)
			}
		}
	}
}

// fellows are what the reports say of three flows alike, of which the last goes on, then
// of one to another service, one of another host, and one the other way round.
func (r *rig) fellows(f family, try uint16) (got []uint16) {
	at := func(a netip.AddrPort, port uint16) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), port) }
	service, other := at(f.peer, 1000+2*try), at(f.peer, 1001+2*try)
	mine := 20000 + 10*try
	r.events()
	r.play(talk(at(f.host, mine), service, 4)...)
	r.play(talk(at(f.host, mine+1), service, 4)...)
	r.play(talk(at(f.host, mine+2), service, 8)...)
	r.play(talk(at(f.host, mine+3), other, 4)...)
	r.play(talk(at(f.host2, mine+4), service, 4)...)
	r.play(talk(at(f.host, mine+5), service, 5)[1:]...)
	for _, e := range r.events() {
		if e.Kind == dataplane.EventMilestone {
			got = append(got, e.Record.Fellows)
		}
	}
	return got
}
