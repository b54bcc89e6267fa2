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
// processor adds to a handshake moves it little, while other distances do.
func TestABusyMomentIsNoOtherDistance(t *testing.T) {
	const idle, wait, pause = 90 * time.Microsecond, 400 * time.Microsecond, 50 * time.Millisecond
	var quiet, busy, far Vector
	FromRecord(&quiet, exchange(time.Second, idle, pause))
	FromRecord(&busy, exchange(time.Second, idle+wait, pause))
	FromRecord(&far, exchange(time.Second, 40*time.Millisecond, pause))
	at := func(v *Vector) float64 { return float64(v.X[iRTT]) }
	if d := at(&busy) - at(&quiet); d < 0 || d > 0.05 {
		t.Errorf("%s, or with waiting %s: %.3f apart", Describe(iRTT, &quiet), Describe(iRTT, &busy), d)
	}
	if d := at(&far) - at(&quiet); d < 0.3 {
		t.Errorf("%s, and from afar %s: only %.3f apart", Describe(iRTT, &quiet), Describe(iRTT, &far), d)
	}
}

// What was stored before the handshake's time had this grain is read as if it had been measured with it.
func TestVectorsOfTheSecondSchema(t *testing.T) {
	var now, back Vector
	FromRecord(&now, exchange(300*time.Millisecond, 20*time.Millisecond, 100*time.Millisecond))
	old := now
	old.X[iRTT] = float32(math.Log1p(now.Value(iRTT)/rttGrain2) / math.Log1p(specs[iRTT].Hi/rttGrain2))
	if math.Abs(float64(old.X[iRTT]-now.X[iRTT])) < 0.05 {
		t.Fatal("the grains do not differ")
	}
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
