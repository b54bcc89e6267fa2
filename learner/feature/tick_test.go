package feature

import (
	"encoding/binary"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// exchange is a short flow of five packets each way in the span, answered first
// after rtt, with the initiator's longest pause between packets.
func exchange(span, rtt, pause time.Duration) *flow.Record {
	k, fromB := flow.NewKey(netip.AddrPortFrom(aHost, 40000), netip.AddrPortFrom(aPeer, 443), flow.TCP)
	us := func(d time.Duration) uint32 { return uint32(d / time.Microsecond) }
	r := &flow.Record{Key: k, ID: 1, InitB: fromB, InitInside: true, Start: 1e18, Last: 1e18 + int64(span), End: flow.EndFIN,
		SynAckUS: us(rtt) / 2, AckUS: us(rtt) / 2, NFirst: 4}
	for i := range r.Sizes[:4] {
		r.Sizes[i], r.Gaps[i] = 300, us(pause)
	}
	for d := range r.Dir {
		r.Dir[d] = flow.Dir{Packets: 5, Bytes: 1500, Payload: 1200, SizeSq: 5 * 300 * 300, SizeMin: 300, SizeMax: 300, First: r.Start, Last: r.Last,
			GapMax: us(pause), GapSq: uint64(us(pause))*uint64(us(pause)) + 1, TTL: 64, Window: 64240}
	}
	return r
}

// A machine that is busy for a moment is no other machine: what a wait for a
// processor adds moves no feature far, while other distances and thinking do.
func TestABusyMomentMovesNoFeature(t *testing.T) {
	const idle, wait = 90 * time.Microsecond, time.Millisecond
	var quiet, busy, far Vector
	FromRecord(&quiet, exchange(4*idle, idle, idle))
	FromRecord(&busy, exchange(4*(idle+wait), idle+wait, idle+wait))
	FromRecord(&far, exchange(4*80*time.Millisecond, 40*time.Millisecond, 80*time.Millisecond))
	if quiet.Has != busy.Has || quiet.Has != far.Has {
		t.Error("how long it took decides what is known of a flow")
	}
	for i := range Dim {
		if d := math.Abs(float64(busy.X[i] - quiet.X[i])); d > 0.05 {
			t.Errorf("%s: %s, or with waiting %s: %.3f apart", Name(i), Describe(i, &quiet), Describe(i, &busy), d)
		}
	}
	for _, i := range []int{iRTT, iGap1, iGap4, iGapMaxOut, iDuration, iRateOut, iRateIn} {
		if d := math.Abs(float64(far.X[i] - quiet.X[i])); d < 0.1 {
			t.Errorf("%s: %s, and from afar %s: only %.3f apart", Name(i), Describe(i, &quiet), Describe(i, &far), d)
		}
	}
}

// A quarter of the speed is within one standard deviation of times.
func TestLeastSpreadIsAFactor(t *testing.T) {
	for _, i := range []int{iRTT, iGap1, iGap4, iGapMaxOut} {
		at := specs[i].Hi / 20
		if d := float64(Scaled(i, at) - Scaled(i, at/sway)); d > 1.01*LeastSpread(i) || d < 0.9*LeastSpread(i) {
			t.Errorf("%s: a factor of %d is %.3f, the least spread %.3f", Name(i), sway, d, LeastSpread(i))
		}
	}
	if LeastSpread(iPackets) != 0 || LeastSpread(iHostFlows) != 0 {
		t.Error("counts have a spread of their own")
	}
}

// What was stored before times had this grain is read as if it had been measured with it.
func TestVectorsOfTheSecondSchema(t *testing.T) {
	r := exchange(300*time.Millisecond, 20*time.Millisecond, 100*time.Millisecond)
	var now, old, back Vector
	FromRecord(&now, r)
	old = now
	for i, grain := range grain2 {
		old.X[i] = float32(math.Log1p(now.Value(i)/grain) / math.Log1p(specs[i].Hi/grain))
	}
	mean := 0.3 / 4
	old.set(iRateOut, 1200/0.3)
	old.set(iRateIn, 1200/0.3)
	old.set(iGapDevOut, now.Value(iGapDevOut)*(mean+tick)/mean)
	b, _ := old.MarshalBinary()
	b[0] = 2
	if err := back.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if back.Has != now.Has {
		t.Error("another mask")
	}
	for i := range Dim {
		if math.Abs(float64(back.X[i]-now.X[i])) > 1e-4 {
			t.Errorf("%s: %v comes back as %v, expected %v", Name(i), old.X[i], back.X[i], now.X[i])
		}
	}
	again, _ := back.MarshalBinary()
	if again[0] != Version || back.UnmarshalBinary(again) != nil {
		t.Error("it is not stored in the new schema")
	}
	// What no schema has is refused, in the old one too.
	binary.LittleEndian.PutUint32(b[17+4*iRTT:], math.Float32bits(2))
	if back.UnmarshalBinary(b) == nil {
		t.Error("a time beyond its range was read")
	}
}
