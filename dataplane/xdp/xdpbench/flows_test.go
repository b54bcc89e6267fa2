package xdpbench

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func clients(n int) []Source {
	out := make([]Source, n)
	for i := range out {
		out[i] = Source{netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), uint16(40000 + i)}
	}
	return out
}

// Over either table, a handshake makes a flow which then takes what the stream
// sends, and which is told from one that came later under the same name.
func TestFlowsAreKnownAgain(t *testing.T) {
	needKernel(t)
	const n = 500
	e := Ends{
		From: net.HardwareAddr{2, 0, 0, 0, 0, 1}, To: net.HardwareAddr{2, 0, 0, 0, 0, 2},
		Dst: netip.MustParseAddrPort("10.99.0.2:443"), TCP: true, Empty: true,
	}
	s, err := NewStream(e, n)
	check(t, err)
	t.Cleanup(func() { s.Close() })
	for _, lru := range []bool{false, true} {
		t.Run(fmt.Sprint("lru=", lru), func(t *testing.T) {
			f, err := LoadFlows("flows", 4096, lru, e)
			check(t, err)
			t.Cleanup(func() { check(t, f.Close()) })
			all := clients(n)
			check(t, f.Establish(all))
			were, err := f.Known(all)
			check(t, err)
			if len(were) < n*9/10 {
				t.Fatalf("%d of %d flows are in a table with room for eight times as many", len(were), n)
			}
			check(t, s.SetSources(all))
			if _, err := f.Run(s, 4*n); err != nil {
				t.Fatal(err)
			}
			v, err := f.Verdicts()
			check(t, err)
			kept, err := f.Kept(were)
			check(t, err)
			if v != (Verdicts{Passed: 4 * n}) || kept != len(were) {
				t.Errorf("verdicts %+v, %d of %d flows kept: expected %d passed, and all", v, kept, len(were), 4*n)
			}
			st, err := f.plane.Stats()
			check(t, err)
			if st.FlowsTotal != uint64(n) {
				t.Errorf("%d flows were made: expected %d, those of the handshakes", st.FlowsTotal, n)
			}
			one := all[0]
			were[one]++ // as if it had been another
			if kept, err = f.Kept(were); err != nil || kept != len(were)-1 {
				t.Errorf("%d kept, error %v: expected one less than %d", kept, err, len(were))
			}
		})
	}
}

func TestFilterRefusesWhatItCannotHold(t *testing.T) {
	for n, want := range map[int]string{FilterMost + 1: "expected at most", 1: "filter_ipv4"} {
		if f, err := OpenFilter(t.TempDir(), listed(n)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d addresses, nothing pinned: %v, error %v: expected one with %q", n, f, err, want)
		}
	}
}

func TestUpdatesArrive(t *testing.T) {
	needKernel(t)
	u, err := NewUpdate()
	check(t, err)
	t.Cleanup(func() { check(t, u.Close()) })
	for range 3 {
		check(t, u.Do())
	}
	if n, err := u.Value(); err != nil || n != 3 {
		t.Errorf("the kernel has %d, error %v: expected 3", n, err)
	}
}
