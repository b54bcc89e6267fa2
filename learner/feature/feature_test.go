package feature

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func TestSchemaIsWhole(t *testing.T) {
	names := map[string]bool{}
	for i, f := range Schema() {
		if f.Name == "" || f.Unit == "" || f.Absent == "" || f.Why == "" || !(f.Lo < f.Hi) || names[f.Name] {
			t.Errorf("feature %d: %+v", i, f)
		}
		names[f.Name] = true
		if Index(f.Name) != i {
			t.Errorf("%s: index %d: expected %d", f.Name, Index(f.Name), i)
		}
		if flagged := IsFlag(i); !flagged && !strings.Contains(specs[i].words, "%s") {
			t.Errorf("%s: words without a number", f.Name)
		}
	}
}

func TestScalesInvert(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for i, f := range Schema() {
		for range 50 {
			x := f.Lo + (f.Hi-f.Lo)*math.Pow(rng.Float64(), 4)
			s := Scaled(i, x)
			if s < -1 || s > 1 {
				t.Fatalf("%s: %v gives %v", f.Name, x, s)
			}
			if back := Natural(i, s); math.Abs(back-x) > 1e-3*(math.Abs(x)+specs[i].grain+0.01) {
				t.Errorf("%s: %v comes back as %v", f.Name, x, back)
			}
		}
		for _, odd := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			if s := Scaled(i, odd); !(s >= -1 && s <= 1) {
				t.Errorf("%s: %v gives %v", f.Name, odd, s)
			}
		}
	}
}

var (
	aHost = netip.MustParseAddr("10.0.0.7")
	aPeer = netip.MustParseAddr("203.0.113.9")
)

// syn is a flow of one unanswered SYN to a port.
func syn(id uint64, port uint16, at time.Duration) *flow.Record {
	k, fromB := flow.NewKey(netip.AddrPortFrom(aHost, 40000), netip.AddrPortFrom(aPeer, port), flow.TCP)
	r := &flow.Record{Key: k, ID: id, InitB: fromB, InitInside: true, Start: int64(at) + 1e18, Last: int64(at) + 1e18, End: flow.EndIdle}
	r.Dir[0] = flow.Dir{Packets: 1, Bytes: 60, SizeSq: 3600, SizeMin: 60, SizeMax: 60, First: r.Start, Last: r.Start, SYN: 1, TTL: 60, Window: 64240}
	return r
}

func newContext(t *testing.T) *Context {
	t.Helper()
	c, err := NewContext(ContextOptions{Window: 10 * time.Second, Settle: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestScanShowsInTheContext(t *testing.T) {
	c := newContext(t)
	var v Vector
	for i := range 40 {
		r := syn(uint64(i+1), uint16(100+i), time.Duration(i)*200*time.Millisecond)
		c.Update(r, true)
		c.Update(r, true) // a second report is the same flow
		c.Vector(&v, r)
	}
	// 5 flows a second are 300 a minute.
	if x := v.Value(iHostFlows); x < 250 || x > 350 {
		t.Errorf("flows a minute: %v", x)
	}
	if x := v.Value(iHostPorts); x < 230 || x > 370 {
		t.Errorf("ports a minute: %v", x)
	}
	if x := v.Value(iHostPeers); x > 15 {
		t.Errorf("peers a minute: %v", x)
	}
	if x := v.Value(iContactGap); math.Abs(x-0.2) > 0.02 {
		t.Errorf("contact gap %v s", x)
	}
	if x := v.Value(iContactDev); x > 0.01 {
		t.Errorf("contacts vary %v", x)
	}
	if err := v.Valid(); err != nil {
		t.Error(err)
	}
}

func TestFamiliarityWaits(t *testing.T) {
	c := newContext(t)
	var v Vector
	r := syn(1, 443, 0)
	c.Update(r, true)
	c.Vector(&v, r)
	if v.Known(iNovelPeer) {
		t.Error("familiarity known before it settled")
	}
	for i := range 20 {
		r = syn(uint64(i+2), 443, time.Duration(i)*500*time.Millisecond)
		c.Update(r, true)
	}
	c.Vector(&v, r)
	if x := v.Value(iNovelPeer); x < 5 || x > 18 {
		t.Errorf("met %v times before: expected what is older than the settling time", x)
	}
	r = syn(99, 8443, 10*time.Second)
	c.Vector(&v, r)
	if x := v.Value(iNovelPort); x > 0.01 {
		t.Errorf("an unused port was used %v times", x)
	}
	if got := Describe(iNovelPort, &v); got != "this host used the port never before" {
		t.Errorf("words: %q", got)
	}
}

func TestContextAllocatesNothing(t *testing.T) {
	c := newContext(t)
	r := syn(1, 443, 0)
	var v Vector
	if n := testing.AllocsPerRun(100, func() { c.Update(r, true); c.Vector(&v, r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	t.Logf("a context of default size holds %d bytes", defaultBytes(t))
}

func defaultBytes(t *testing.T) int {
	c, err := NewContext(ContextOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Bytes()
}

func TestClockMayJump(t *testing.T) {
	c := newContext(t)
	var v Vector
	for i, at := range []time.Duration{0, time.Second, -time.Hour, 1000 * time.Hour, time.Second, 2 * time.Second} {
		r := syn(uint64(i+1), 443, at)
		c.Update(r, true)
		c.Vector(&v, r)
		if err := v.Valid(); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzVector(f *testing.F) {
	v := Vector{Has: Mask{3}}
	v.X[0] = 0.5
	b, err := v.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, in []byte) {
		var v Vector
		if v.UnmarshalBinary(in) != nil {
			return
		}
		if err := v.Valid(); err != nil {
			t.Fatal(err)
		}
		out, err := v.MarshalBinary()
		if err != nil || len(out) != EncodedSize {
			t.Fatal(len(out), err)
		}
		for i := range Dim {
			if Describe(i, &v) == "" {
				t.Errorf("%s: no words", Name(i))
			}
		}
	})
}
