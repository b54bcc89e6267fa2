package softplane_test

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// realData is the folder of real data.
func realData(t *testing.T) string {
	t.Helper()
	return realdata.Dir(t, ".")
}

type frameSource interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType
}

func openCapture(t *testing.T, name string) frameSource {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if src, err := pcapgo.NewReader(f); err == nil {
		return src // whatever the file's name says
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	src, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// Real floods, mostly reflected ones, replayed as they came: a second holds no
// more new flows of a service than its budget, however many reflectors or forged
// sources there are.
func TestBudgetsHoldAgainstRealFloods(t *testing.T) {
	dir := filepath.Join(realData(t), "ddos-stopddos")
	names, err := filepath.Glob(filepath.Join(dir, "*.pcap*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("captures in %s: %d, %v: expected some", dir, len(names), err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) { replayFlood(t, name) })
	}
}

// Small ones: one of the captures is a sample of a flood, of ten new flows a second.
const serviceBudget, addressBudget = 2, 4

func replayFlood(t *testing.T, name string) {
	var at time.Time
	p := open(t, softplane.Options{Mode: dataplane.Enforce, Now: func() time.Time { return at }})
	if err := p.SetFlood(dataplane.Flood{Service: serviceBudget, Destination: addressBudget}); err != nil {
		t.Fatal(err)
	}
	type target struct {
		addr netip.Addr
		port uint16 // 0: the whole address
	}
	born := map[target][]time.Time{} // when flows began, that passed
	src, packets := openCapture(t, name), 0
	for {
		frame, info, err := src.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if info.Timestamp.Before(at) {
			info.Timestamp = at // budgets are of one clock, which does not go back
		}
		at, packets = info.Timestamp, packets+1
		before := stats(t, p).FlowsTotal
		p.Frame(dataplane.ToInside, softplane.LinkType(src.LinkType()), frame, info.Length, at)
		if stats(t, p).FlowsTotal == before {
			continue
		}
		key, _ := softplane.KeyOf(softplane.LinkType(src.LinkType()), frame)
		to := destination(t, frame, src.LinkType(), key)
		born[target{to.Addr(), to.Port()}] = append(born[target{to.Addr(), to.Port()}], at)
		born[target{to.Addr(), 0}] = append(born[target{to.Addr(), 0}], at)
	}
	busiest := 0
	for to, times := range born {
		limit := addressBudget
		if to.port != 0 {
			limit = serviceBudget
		}
		// A bucket of n that fills at n a second lets at most 2n+1 through in a second.
		n := inOneSecond(times)
		busiest = max(busiest, n)
		if n > 2*limit+1 {
			t.Errorf("%v: %d new flows in a second: expected at most %d", to, n, 2*limit+1)
		}
	}
	s := stats(t, p)
	t.Logf("%d packets, %d flows, over budget %v, busiest second of a target %d flows", packets, s.FlowsTotal, s.Flood.BudgetDropped, busiest)
	if len(s.Flood.BudgetDropped) == 0 {
		t.Error("nothing was over a budget: this was no flood")
	}
	var told bool
	for _, e := range drain(p) {
		told = told || e.Kind == dataplane.EventFlood
		if e.Record.Validated != [2]bool{} || e.Kind == dataplane.EventProof || e.Kind == dataplane.EventFirstDrop {
			t.Fatalf("event %d of %s: expected no proof and no rule", e.Kind, e.Record.Key)
		}
	}
	if !told {
		t.Error("no event tells of the flood")
	}
}

// destination is where a frame went.
func destination(t *testing.T, frame []byte, link layers.LinkType, key flow.Key) netip.AddrPort {
	t.Helper()
	pkt := gopacket.NewPacket(frame, link, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	a, ok := netip.AddrFromSlice(pkt.NetworkLayer().NetworkFlow().Dst().Raw())
	if !ok {
		t.Fatalf("frame of %s has no address", key)
	}
	if a == key.A {
		return netip.AddrPortFrom(key.A, key.APort)
	}
	return netip.AddrPortFrom(key.B, key.BPort)
}

// inOneSecond is the most of ordered times that lie within a second.
func inOneSecond(times []time.Time) int {
	most, from := 0, 0
	for i, at := range times {
		for at.Sub(times[from]) >= time.Second {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}
