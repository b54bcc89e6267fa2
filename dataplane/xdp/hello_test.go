package xdp

import (
	"crypto/tls"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/hello"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// A flood of hellos from outside takes nothing from inside hosts, and what was
// left out is counted.
func TestHellosAreBounded(t *testing.T) {
	if len(kernelHelloPart{}.Bytes) != hello.SampleSize {
		t.Fatalf("samples of %d bytes: expected %d", len(kernelHelloPart{}.Bytes), hello.SampleSize)
	}
	f := newFixture(t, Options{Mode: dataplane.Monitor})
	check(t, f.WatchHellos(true))
	quic, err := planetest.Initial{ID: []byte("somebody"), Frames: []byte{1}, Size: 1200}.Seal()
	check(t, err)
	for i := range 30000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 4}), uint16(1000+i))
		s := planetest.Datagram(dataplane.ToInside, from, netip.MustParseAddrPort("10.0.0.5:443"), quic)
		if _, err := f.Inject(s.Hook, s.Frame); err != nil {
			t.Fatal(err)
		}
	}
	if lost := statsOf(t, f).HellosLost; lost == 0 {
		t.Error("30,000 hellos at once, none is counted as lost")
	}
	check(t, f.Poll(func(*dataplane.Event) {})) // makes room in the ring
	before := statsOf(t, f).HellosLost
	s := planetest.NewSession(netip.MustParseAddrPort("10.0.0.5:4000"), netip.MustParseAddrPort("203.0.113.9:443"))
	steps := append(s.Open(), s.Data(0, planetest.ClientHello(&tls.Config{ServerName: "shop.example", CurvePreferences: []tls.CurveID{tls.X25519}})))
	for _, st := range append(steps, s.Close()...) {
		if _, err := f.Inject(st.Hook, st.Frame); err != nil {
			t.Fatal(err)
		}
	}
	var told *flow.Hello
	check(t, f.Poll(func(e *dataplane.Event) {
		if e.Kind == dataplane.EventEnd && e.Record.Key.Proto == flow.TCP {
			told = e.Record.Hello
		}
	}))
	if told == nil || told.Name != "shop.example" || statsOf(t, f).HellosLost != before {
		t.Errorf("an inside host during the flood: %+v, %d more lost", told, statsOf(t, f).HellosLost-before)
	}
}

func statsOf(t *testing.T, f fixture) dataplane.Stats {
	t.Helper()
	s, err := f.Stats()
	check(t, err)
	return s
}

// The kinds of samples in the ring are told apart by their sizes.
func TestSamplesDifferInSize(t *testing.T) {
	sizes := map[uintptr]bool{unsafe.Sizeof(kernelEvent{}): true, unsafe.Sizeof(kernelDnsAnswer{}): true, unsafe.Sizeof(kernelHelloPart{}): true}
	if len(sizes) != 3 {
		t.Errorf("sizes %v: expected three", sizes)
	}
}
