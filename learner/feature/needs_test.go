package feature

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// groups writes other values into the fields that each bit of flow.Lack covers.
var groups = map[flow.Lack]func(r *flow.Record, rng *rand.Rand){
	flow.LackAddrs: func(r *flow.Record, rng *rand.Rand) {
		r.Key.A, r.Key.B = anyAddr(rng), anyAddr(rng)
		r.InitInside, r.RespInside = rng.IntN(2) == 0, rng.IntN(2) == 0
	},
	flow.LackPort: func(r *flow.Record, rng *rand.Rand) {
		if r.InitB {
			r.Key.APort = uint16(rng.IntN(1 << 16))
		} else {
			r.Key.BPort = uint16(rng.IntN(1 << 16))
		}
	},
	flow.LackClock: func(r *flow.Record, rng *rand.Rand) {
		d := rng.Int64N(int64(time.Hour))
		r.Start, r.Last = r.Start+d, r.Last+d
	},
	flow.LackProto: func(r *flow.Record, rng *rand.Rand) {
		r.Key.Proto = []uint8{flow.TCP, flow.UDP, flow.ICMP, 47}[rng.IntN(4)]
	},
	flow.LackPackets: func(r *flow.Record, rng *rand.Rand) {
		r.Dir[0].Packets, r.Dir[1].Packets = rng.Uint32N(9), rng.Uint32N(9)
	},
	flow.LackSpan:       func(r *flow.Record, rng *rand.Rand) { r.Start = r.Last - rng.Int64N(int64(time.Hour)) },
	flow.LackBytes:      func(r *flow.Record, rng *rand.Rand) { both(r, func(d *flow.Dir) { d.Bytes = rng.Uint64N(1 << 30) }) },
	flow.LackPayload:    func(r *flow.Record, rng *rand.Rand) { both(r, func(d *flow.Dir) { d.Payload = rng.Uint64N(1 << 30) }) },
	flow.LackSizeSpread: func(r *flow.Record, rng *rand.Rand) { both(r, func(d *flow.Dir) { d.SizeSq = rng.Uint64N(1 << 40) }) },
	flow.LackSizeMax:    func(r *flow.Record, rng *rand.Rand) { both(r, func(d *flow.Dir) { d.SizeMax = uint16(rng.Uint32()) }) },
	flow.LackGapSpread:  func(r *flow.Record, rng *rand.Rand) { both(r, func(d *flow.Dir) { d.GapSq = rng.Uint64() }) },
	flow.LackGapMax:     func(r *flow.Record, rng *rand.Rand) { both(r, func(d *flow.Dir) { d.GapMax = rng.Uint32() }) },
	flow.LackFirsts: func(r *flow.Record, rng *rand.Rand) {
		r.NFirst = uint8(rng.IntN(flow.First + 1))
		for i := range r.Sizes {
			r.Sizes[i], r.Gaps[i] = int16(rng.IntN(3000)-1500), rng.Uint32()
		}
	},
	flow.LackHint: func(r *flow.Record, rng *rand.Rand) { r.Hint = flow.Hint(rng.IntN(4)) },
	flow.LackHello: func(r *flow.Record, rng *rand.Rand) {
		r.Hello = &flow.Hello{Told: flow.ToldAll, Named: rng.IntN(2) == 0, ECH: rng.IntN(2) == 0, Version: uint16(flow.SSL30 + rng.IntN(5)),
			Ciphers: uint16(rng.IntN(90)), Extensions: uint16(rng.IntN(40)), Print: 1 + rng.Uint64N(3), Protocol: []string{"", "h2", "imap"}[rng.IntN(3)]}
	},
	flow.LackFlags: func(r *flow.Record, rng *rand.Rand) {
		both(r, func(d *flow.Dir) { d.FIN, d.RST = uint16(rng.IntN(2)), uint16(rng.IntN(2)) })
	},
	flow.LackSYN:     func(r *flow.Record, rng *rand.Rand) { both(r, func(d *flow.Dir) { d.SYN = uint16(rng.IntN(9)) }) },
	flow.LackPSH:     func(r *flow.Record, rng *rand.Rand) { both(r, func(d *flow.Dir) { d.PSH = uint16(rng.IntN(9)) }) },
	flow.LackRetrans: func(r *flow.Record, rng *rand.Rand) { both(r, func(d *flow.Dir) { d.Retrans = uint16(rng.IntN(9)) }) },
	flow.LackProof:   func(r *flow.Record, rng *rand.Rand) { r.Validated = [2]bool{rng.IntN(2) == 0, rng.IntN(2) == 0} },
	flow.LackRTT:     func(r *flow.Record, rng *rand.Rand) { r.SynAckUS, r.AckUS = rng.Uint32(), rng.Uint32() },
	flow.LackWindow:  func(r *flow.Record, rng *rand.Rand) { both(r, func(d *flow.Dir) { d.Window = uint16(rng.Uint32()) }) },
	flow.LackTTL:     func(r *flow.Record, rng *rand.Rand) { both(r, func(d *flow.Dir) { d.TTL = uint8(rng.Uint32()) }) },
	flow.LackSplit: func(r *flow.Record, rng *rand.Rand) {
		sum := r.Packets()
		r.Dir[1].Packets = rng.Uint32N(sum)
		r.Dir[0].Packets = sum - r.Dir[1].Packets
	},
}

func both(r *flow.Record, f func(*flow.Dir)) { f(&r.Dir[0]); f(&r.Dir[1]) }

func anyAddr(rng *rand.Rand) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 51, 100, byte(rng.IntN(250))})
}

// record is a TCP flow in which every field says something.
func record(rng *rand.Rand) *flow.Record {
	k, fromB := flow.NewKey(netip.AddrPortFrom(anyAddr(rng), uint16(40000+rng.IntN(9))), netip.AddrPortFrom(anyAddr(rng), uint16(rng.IntN(1<<16))), flow.TCP)
	r := &flow.Record{Key: k, InitB: fromB, ID: rng.Uint64(), Start: 1e18 + rng.Int64N(1e12), End: flow.EndFIN}
	r.Last = r.Start + rng.Int64N(int64(20*time.Second))
	r.Dir[0].Packets, r.Dir[1].Packets = 3+rng.Uint32N(50), 3+rng.Uint32N(50)
	both(r, func(d *flow.Dir) { d.First, d.Last = r.Start, r.Last })
	for bit := flow.Lack(1); bit < flow.LackAll; bit <<= 1 {
		switch bit {
		case flow.LackAddrs, flow.LackPort, flow.LackClock, flow.LackSpan, flow.LackSplit:
		default:
			groups[bit](r, rng)
		}
	}
	return r
}

// TestWhatASourceLacksIsNotRead: for every group of fields, a record that says
// that it lacks them has the same features whatever stands there, the features
// made of them are absent, and all others are as if nothing lacked.
func TestWhatASourceLacksIsNotRead(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for bit := flow.Lack(1); bit < flow.LackAll+1; bit <<= 1 {
		change := groups[bit]
		if change == nil {
			t.Fatalf("no case for %s", bit)
		}
		for range 8 {
			full, lacking := settledContext(t, rng), settledContext(t, rng)
			r := record(rng)
			var whole, one, other Vector
			full.Update(r, true)
			full.Vector(&whole, r)
			r.Lacks = bit
			lacking.Update(r, true)
			lacking.Vector(&one, r)
			changed := *r
			change(&changed, rng)
			again := settledContext(t, rng)
			again.Update(&changed, true)
			again.Vector(&other, &changed)
			if bit != flow.LackFirsts && one != other {
				t.Fatalf("%s: the features follow fields that the source does not give:\n%v", bit, diff(&one, &other))
			}
			for i := range Dim {
				switch {
				case needs[i]&bit != 0 && (one.Known(i) || one.X[i] != 0):
					t.Fatalf("%s: %s is %v, expected absent", bit, Name(i), one.X[i])
				case needs[i]&bit == 0 && bit != flow.LackFirsts && (one.Known(i) != whole.Known(i) || one.X[i] != whole.X[i]):
					t.Fatalf("%s: %s is %v, without the lack %v", bit, Name(i), one.X[i], whole.X[i])
				}
			}
		}
	}
}

// settledContext knows a little of everybody, always the same.
func settledContext(t *testing.T, _ *rand.Rand) *Context {
	t.Helper()
	c := newContext(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		r := record(rng)
		r.Last = 1e18 - int64(time.Hour) + int64(i)*int64(500*time.Millisecond)
		r.Start = r.Last - int64(time.Millisecond)
		c.Update(r, true)
	}
	return c
}

func diff(a, b *Vector) (out []string) {
	for i := range Dim {
		if a.X[i] != b.X[i] || a.Known(i) != b.Known(i) {
			out = append(out, Name(i))
		}
	}
	return out
}

// TestHintWithoutFirsts: a log that names the protocol gives the three hints of
// flows that carried payload, and of others none, as the planes do.
func TestHintWithoutFirsts(t *testing.T) {
	r := record(rand.New(rand.NewPCG(3, 3)))
	r.Lacks, r.NFirst, r.Hint = flow.LackFirsts, 0, flow.HintSSH
	var v Vector
	FromRecord(&v, r)
	if v.Value(iSSH) != 1 || v.Value(iTLS) != 0 {
		t.Errorf("ssh %v, tls %v: expected 1 and 0", v.Value(iSSH), v.Value(iTLS))
	}
	both(r, func(d *flow.Dir) { d.Payload = 0 })
	if FromRecord(&v, r); v.Known(iSSH) {
		t.Error("a hint of a flow without payload")
	}
	if r.Lacks |= flow.LackPayload; r.Lacks.String() != "payload, first packets" {
		t.Errorf("words: %s", r.Lacks)
	}
	if FromRecord(&v, r); v.Value(iSSH) != 1 {
		t.Error("no hint where the source gives it without payload")
	}
}
