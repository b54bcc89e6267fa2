package xdp

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/hello"
)

func TestAddressesSurviveTheKernelsForm(t *testing.T) {
	for _, s := range []string{"0.0.0.0", "10.1.2.3", "255.255.255.255", "::", "::1", "2001:db8::42", "ffff::"} {
		a := netip.MustParseAddr(s)
		if got := fromKernel(toKernel(a)); got != a {
			t.Errorf("%s came back as %s", a, got)
		}
	}
}

func TestPrefixesSurviveTheKernelsForm(t *testing.T) {
	for _, s := range []string{"10.0.0.0/8", "10.1.2.3/32", "2001:db8::/32", "::/0", "0.0.0.0/0"} {
		p := netip.MustParsePrefix(s)
		fam, bits := family(p)
		if got := fromPrefix(fam, bits, toKernel(p.Addr())); got != p {
			t.Errorf("%s came back as %s", p, got)
		}
	}
}

// A record is told by initiator, whichever side of the key that is.
func TestRecordFollowsTheInitiator(t *testing.T) {
	var clock bootClock
	clock.offset.Store(1000)
	f := kernelFlow{Id: 5, Start: 10, N_first: 9, InitB: 1}
	f.D[0].Packets, f.D[1].Packets = 3, 4
	f.Marks[1], f.D[1].Last = markSenderIn, 70
	f.D[0].Validated = 1
	f.Sizes[0] = -100 // from b, who is the initiator here
	var r flow.Record
	fillRecord(&kernelFlowKey{Aport: 1, Bport: 2, Proto: flow.TCP}, &f, &clock, &r)
	if !r.InitB || r.Dir[0].Packets != 4 || r.Dir[1].Packets != 3 {
		t.Errorf("initiator %v, packets %d and %d: expected b, 4, 3", r.InitB, r.Dir[0].Packets, r.Dir[1].Packets)
	}
	if !r.InitInside || r.RespInside || r.Validated != [2]bool{false, true} {
		t.Errorf("inside %v %v, validated %v", r.InitInside, r.RespInside, r.Validated)
	}
	if r.Sizes[0] != 100 || r.NFirst != flow.First {
		t.Errorf("first size %d of %d: expected 100 of %d", r.Sizes[0], r.NFirst, flow.First)
	}
	if r.Start != 1010 || r.Last != 1070 || r.Dir[0].First != 0 {
		t.Errorf("times %d, %d, %d: expected 1010, 1070, 0", r.Start, r.Last, r.Dir[0].First)
	}
}

// addSized seeds a decoder with nothing, and with n bytes of zeros and of ones.
func addSized(f *testing.F, n int) {
	f.Add([]byte{})
	f.Add(make([]byte, n))
	f.Add(bytes.Repeat([]byte{0xff}, n))
}

func FuzzDecodeEvent(f *testing.F) {
	addSized(f, int(unsafe.Sizeof(kernelEvent{})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var clock bootClock
		var ev dataplane.Event
		err := decodeEvent(raw, &clock, &ev)
		if short := len(raw) < int(unsafe.Sizeof(kernelEvent{})); short != (err != nil) {
			t.Fatalf("%d bytes: %v", len(raw), err)
		}
		if ev.Record.NFirst > flow.First {
			t.Fatalf("%d first packets", ev.Record.NFirst)
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	addSized(f, int(unsafe.Sizeof(kernelDnsAnswer{})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var clock bootClock
		var ev dataplane.Event
		err := decodeAnswer(raw, &clock, &ev)
		if len(raw) < int(unsafe.Sizeof(kernelDnsAnswer{})) && err == nil {
			t.Fatalf("%d bytes were read", len(raw))
		}
		if err == nil && (ev.Kind != dataplane.EventAnswer || len(ev.Answer.Message) > len(kernelDnsAnswer{}.Message)) {
			t.Fatalf("read as %+v", ev)
		}
	})
}

func FuzzDecodeHello(f *testing.F) {
	addSized(f, int(unsafe.Sizeof(kernelHelloPart{})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var clock bootClock
		s, err := decodeHello(raw, &clock)
		if len(raw) < int(unsafe.Sizeof(kernelHelloPart{})) && err == nil {
			t.Fatalf("%d bytes were read", len(raw))
		}
		if len(s.Payload) > hello.SampleSize {
			t.Fatalf("a payload of %d bytes", len(s.Payload))
		}
	})
}

func TestFlattenCarriesWiderPrefixes(t *testing.T) {
	pfx := netip.MustParsePrefix
	m, err := flatten([]dataplane.Never{
		{Prefix: pfx("10.0.0.0/8"), Proto: flow.TCP, Port: 22},
		{Prefix: pfx("10.0.0.5/32"), Proto: flow.UDP, Port: 53, AnySide: true},
		{Prefix: pfx("10.0.0.5/32"), Proto: flow.TCP, Port: 22}, // said before
		{Prefix: pfx("192.0.2.0/24")},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := m[kernelNeverKey{Bits: 32 + 128, Family: 4, Addr: toKernel(netip.MustParseAddr("10.0.0.5"))}]
	if got.N != 2 || got.T[0].Port != 53 || got.T[0].AnySide != 1 || got.T[1].Port != 22 {
		t.Errorf("entries of 10.0.0.5: %+v: expected its own and that of 10.0.0.0/8, once", got)
	}
	if len(m) != 3 {
		t.Errorf("%d prefixes: expected 3", len(m))
	}
}

func TestFlattenRefuses(t *testing.T) {
	many := make([]dataplane.Never, neverTuples+1)
	for i := range many {
		many[i] = dataplane.Never{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Port: uint16(i + 1)}
	}
	if _, err := flatten(many); !errors.Is(err, dataplane.ErrFull) {
		t.Errorf("%d entries of one prefix: %v: expected ErrFull", len(many), err)
	}
	for _, p := range []netip.Prefix{{}, netip.PrefixFrom(netip.MustParseAddr("10.1.2.3"), 8), netip.MustParsePrefix("::ffff:10.0.0.0/104")} {
		if _, err := flatten([]dataplane.Never{{Prefix: p}}); err == nil {
			t.Errorf("prefix %s was accepted", p)
		}
	}
}

func TestOptionsSayWhatTheyExpect(t *testing.T) {
	for want, o := range map[string]Options{
		"interface: is required":    {},
		"not an interface name":     {Interface: "a/b"},
		"role 9":                    {Interface: "lo", Role: 9},
		"mode 9":                    {Interface: "lo", Mode: 9},
		"max flows 5":               {Interface: "lo", MaxFlows: 5},
		"sweep every 1ns":           {Interface: "lo", SweepEvery: 1},
		"durations must be positiv": {Interface: "lo", Idle: Idle{TCP: -1}},
	} {
		if err := o.withDefaults().validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v: expected %q", o, err, want)
		}
	}
	if err := (Options{Interface: "eth0.100"}).withDefaults().validate(); err != nil {
		t.Error(err)
	}
}

func TestEscapeKeepsNamesApart(t *testing.T) {
	seen := make(map[string]string)
	for _, n := range []string{"eth0", "eth0.1", "eth0%2E1", "eth0%1"} {
		e := escape(n)
		if strings.Contains(e, ".") || seen[e] != "" {
			t.Errorf("%s and %q are both %s", n, seen[e], e)
		}
		seen[e] = n
	}
}

func TestBootClockKeepsTimes(t *testing.T) {
	var c bootClock
	c.adjust()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		at := time.Now().Add(time.Duration(rng.Int64N(int64(time.Hour))))
		c.adjust()
		if d := at.Sub(c.fromMicros(c.bootMicros(at))); d < 0 || d >= time.Microsecond {
			t.Fatalf("%s came back off by %s", at, d)
		}
	}
	if us := c.bootMicros(time.Unix(0, 0)); us != 0 {
		t.Errorf("a time before boot is %d: expected 0", us)
	}
}

// Whoever follows the clock asks the kernel only when the wall clock went its
// own way since it was asked last.
func TestFollowingTheClockNoticesWhenItWasSet(t *testing.T) {
	var c bootClock
	c.follow(time.Now())
	right := c.offset.Load()
	if d := time.Since(c.fromMicros(uint64(bootNow()) / 1000)); d > time.Minute || d < -time.Minute {
		t.Fatalf("the first look puts now %s from now", d)
	}
	c.offset.Store(right + int64(time.Hour))
	c.follow(time.Now())
	if got := c.offset.Load(); got != right+int64(time.Hour) {
		t.Errorf("offset %d: expected that nobody asked, and %d stayed", got, right+int64(time.Hour))
	}
	c.taken.Load().wall -= int64(time.Hour) // as if the clock had been put forward since
	c.follow(time.Now())
	if got := c.offset.Load(); moved(got - right) {
		t.Errorf("offset %d: expected %d, taken anew", got, right)
	}
}
