package flow

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestNewKeyIsCanonical(t *testing.T) {
	for _, c := range []struct {
		src, dst string
		want     Key
		fromB    bool
	}{
		{"10.0.0.1:9", "10.0.0.2:1", Key{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 9, 1, TCP}, false},
		{"10.0.0.2:1", "10.0.0.1:9", Key{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 9, 1, TCP}, true},
		{"10.0.0.1:9", "10.0.0.1:3", Key{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.1"), 3, 9, TCP}, true},
		{"[::ffff:10.0.0.9]:1", "10.0.0.2:1", Key{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.9"), 1, 1, TCP}, true},
		// Sixteen bytes decide, not the text or the family: 10.0.0.1 is ::ffff:a00:1.
		{"[::1]:1", "[fd00::1]:1", Key{netip.MustParseAddr("::1"), netip.MustParseAddr("fd00::1"), 1, 1, TCP}, false},
	} {
		got, fromB := NewKey(ap(c.src), ap(c.dst), TCP)
		if got != c.want || fromB != c.fromB {
			t.Errorf("%s to %s: got %v %v, expected %v %v", c.src, c.dst, got, fromB, c.want, c.fromB)
		}
	}
}

// TestNewKeyNamesBothDirections: whoever sends, the key is one, and exactly one
// direction travels from B.
func TestNewKeyNamesBothDirections(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	addr := func() netip.AddrPort {
		port := uint16(rng.IntN(3))
		if rng.IntN(2) == 0 {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(3))}), port)
		}
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0xfd, 15: byte(rng.IntN(3))}), port)
	}
	for range 20000 {
		src, dst := addr(), addr()
		k, fromB := NewKey(src, dst, UDP)
		back, backFromB := NewKey(dst, src, UDP)
		if k != back || fromB == backFromB && src != dst {
			t.Fatalf("%s and %s: got %v %v and %v %v", src, dst, k, fromB, back, backFromB)
		}
		a16, b16 := k.A.As16(), k.B.As16()
		if string(a16[:]) > string(b16[:]) || k.A == k.B && k.APort > k.BPort {
			t.Fatalf("key %v is not in order", k)
		}
	}
}

func TestKeyString(t *testing.T) {
	for proto, want := range map[uint8]string{TCP: "tcp 10.0.0.1:4000<>[fd00::2]:22", 132: "proto-132 10.0.0.1:4000<>[fd00::2]:22"} {
		k := Key{A: netip.MustParseAddr("10.0.0.1"), B: netip.MustParseAddr("fd00::2"), APort: 4000, BPort: 22, Proto: proto}
		if got := k.String(); got != want {
			t.Errorf("got %q, expected %q", got, want)
		}
	}
	for proto, want := range map[uint8]string{ICMP: "icmp", ICMPv6: "icmpv6", UDP: "udp"} {
		if got := ProtoName(proto); got != want {
			t.Errorf("got %q, expected %q", got, want)
		}
	}
}

func TestMilestone(t *testing.T) {
	want := map[uint32]bool{4: true, 8: true, 16: true, 32: true, 64: true, 256: true, 1024: true, 4096: true, 16384: true, 65536: true,
		1 << 18: true, 1 << 20: true, 1 << 30: true}
	for n := range uint32(1<<18 + 2) {
		if got := Milestone(n); got != want[n] {
			t.Errorf("packet %d: got %v, expected %v", n, got, want[n])
		}
	}
	for _, n := range []uint32{1 << 19, 1 << 20, 1 << 30, 1 << 31, math.MaxUint32} {
		if got := Milestone(n); got != want[n] {
			t.Errorf("packet %d: got %v, expected %v", n, got, want[n])
		}
	}
}

func TestSaturateUS(t *testing.T) {
	for ns, want := range map[int64]uint32{0: 0, 999: 0, 1000: 1, -5: 0, math.MinInt64: 0, math.MaxInt64: math.MaxUint32,
		int64(math.MaxUint32) * 1000: math.MaxUint32, int64(math.MaxUint32)*1000 - 1: math.MaxUint32 - 1} {
		if got := SaturateUS(ns); got != want {
			t.Errorf("%d ns: got %d, expected %d", ns, got, want)
		}
	}
}

func TestRecordEnds(t *testing.T) {
	k, _ := NewKey(ap("10.0.0.1:1"), ap("203.0.113.1:2"), TCP)
	for _, c := range []struct {
		rec     Record
		outside string
		end     int
		ok      bool
	}{
		{Record{Key: k, InitInside: true}, "203.0.113.1:2", 1, true},
		{Record{Key: k, InitB: true, RespInside: true}, "203.0.113.1:2", 0, true},
		{Record{Key: k, InitInside: true, RespInside: true}, "", 0, false},
		{Record{Key: k}, "", 0, false},
	} {
		ep, end, ok := c.rec.Outside()
		if ok != c.ok || end != c.end || ok && ep != ap(c.outside) {
			t.Errorf("%+v: got %v %d %v, expected %s %d %v", c.rec, ep, end, ok, c.outside, c.end, c.ok)
		}
	}
	r := Record{Key: k, InitB: true, Start: 5, Last: 5 + int64(time.Second), Dir: [2]Dir{{Packets: 3}, {Packets: 4}}}
	if r.Initiator() != ap("203.0.113.1:2") || r.Responder() != ap("10.0.0.1:1") || r.Packets() != 7 || r.Duration() != time.Second {
		t.Errorf("got %v %v %d %s", r.Initiator(), r.Responder(), r.Packets(), r.Duration())
	}
}
