package xdp

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

const verdictTX = 3

// segment is a TCP segment as it came back from the program.
type segment struct {
	src, dst netip.AddrPort
	seq, ack uint32
	flags    byte
	sums     bool // both checksums are right
	macs     [2][6]byte
}

// answerOf runs a frame through XDP; ok says that it was answered.
func answerOf(t *testing.T, f fixture, frame []byte) (s segment, ok bool) {
	t.Helper()
	out := make([]byte, len(frame)+64)
	opts := ebpf.RunOptions{Data: frame, DataOut: out}
	ret, err := f.objs.HedgerowXdp.Run(&opts)
	check(t, err)
	if ret != verdictTX {
		return s, false
	}
	return readSegment(t, opts.DataOut), true
}

func readSegment(t *testing.T, b []byte) (s segment) {
	t.Helper()
	copy(s.macs[0][:], b)
	copy(s.macs[1][:], b[6:])
	b = b[12:]
	for binary.BigEndian.Uint16(b) == 0x8100 {
		b = b[4:]
	}
	b = b[2:]
	var src, dst netip.Addr
	var pseudo, tcp []byte
	s.sums = true
	if b[0]>>4 == 4 {
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		s.sums = onesSum(b[:20]) == 0xffff
		pseudo, tcp = b[12:20], b[20:binary.BigEndian.Uint16(b[2:])]
	} else {
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		pseudo, tcp = b[8:40], b[40:40+binary.BigEndian.Uint16(b[4:])]
	}
	if len(tcp) != 20 {
		t.Fatalf("segment of %d bytes: expected a bare header", len(tcp))
	}
	all := append(append([]byte{0, flow.TCP, 0, 20}, pseudo...), tcp...)
	s.sums = s.sums && onesSum(all) == 0xffff
	s.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(tcp))
	s.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(tcp[2:]))
	s.seq, s.ack, s.flags = binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:]), tcp[13]
	return s
}

func onesSum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// sipHash is SipHash-2-4 of whole words (Aumasson and Bernstein, 2012).
func sipHash(k [2]uint64, words ...uint64) uint64 {
	v := [4]uint64{k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d, k[0] ^ 0x6c7967656e657261, k[1] ^ 0x7465646279746573}
	round := func(n int) {
		for range n {
			v[0] += v[1]
			v[2] += v[3]
			v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
			v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
			v[0] = bits.RotateLeft64(v[0], 32)
			v[2] += v[1]
			v[0] += v[3]
			v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
			v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
			v[2] = bits.RotateLeft64(v[2], 32)
		}
	}
	for _, w := range append(words, uint64(len(words)*8)<<56) {
		v[3] ^= w
		round(2)
		v[0] ^= w
	}
	v[2] ^= 0xff
	round(4)
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

// The vector of the paper's appendix is over 15 bytes; this one, over 8, is of
// the reference implementation: key 00..0f, input 00..07.
func TestSipHashTwin(t *testing.T) {
	k := [2]uint64{0x0706050403020100, 0x0f0e0d0c0b0a0908}
	if got := sipHash(k, 0x0706050403020100); got != 0x93f5f5799a932462 {
		t.Errorf("SipHash-2-4: got %x, expected 93f5f5799a932462", got)
	}
}

func (f fixture) number(src, dst netip.AddrPort, epoch uint64, dark uint64) uint32 {
	a, b := toKernel(src.Addr()), toKernel(dst.Addr())
	w := uint64(src.Port()) | uint64(dst.Port())<<16 | uint64(uint32(epoch<<1|dark))<<32
	return uint32(sipHash(f.flood.Cookie[epoch&3], a.Hi, a.Lo, b.Hi, b.Lo, w))
}

func epochNow() uint64 { return uint64(bootNow()) >> epochShift }

type pair struct {
	name         string
	client, host netip.AddrPort
	net          netip.Prefix
}

func pairs() []pair {
	return []pair{
		{"v4", endpoint("198.51.100.4:40000"), endpoint("10.0.0.1:443"), netip.MustParsePrefix("10.0.0.0/24")},
		{"v6", endpoint("[2001:db8:5::4]:40000"), endpoint("[fd00::1]:443"), netip.MustParsePrefix("fd00::/64")},
	}
}

func synOf(src, dst netip.AddrPort) planetest.Packet {
	return planetest.Packet{Src: src, Dst: dst, Proto: flow.TCP, Flags: flow.SYN, Seq: 100, Window: 1024,
		SrcMAC: [6]byte{2, 0, 0, 0, 0, 1}, DstMAC: [6]byte{2, 0, 0, 0, 0, 2}}
}

// spend uses up the budget of a service from forged sources.
func exhaust(t *testing.T, f fixture, dst netip.AddrPort) {
	t.Helper()
	for i := range 60 {
		a := netip.AddrFrom4([4]byte{20, 0, 1, byte(i)})
		if dst.Addr().Is6() {
			a = netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::1", 0x100+i))
		}
		_, err := f.objs.HedgerowXdp.Run(&ebpf.RunOptions{Data: synOf(netip.AddrPortFrom(a, 1000), dst).Frame()})
		check(t, err)
	}
}

func floodOf(t *testing.T, f fixture) dataplane.FloodStats {
	t.Helper()
	s, err := f.Stats()
	check(t, err)
	return s.Flood
}

// A client that answers the challenge, as any stack does, gets in; nobody else does.
func TestChallenge(t *testing.T) {
	for _, c := range pairs() {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, Options{Role: Host, Mode: dataplane.Enforce})
			check(t, f.SetFlood(dataplane.Flood{Service: 5, Protected: []dataplane.Guarded{{Prefix: c.net, Port: 443}}}))
			exhaust(t, f, c.host)
			syn := synOf(c.client, c.host)
			syn.VLAN = []uint16{7}
			before := epochNow()
			got, ok := answerOf(t, f, syn.Frame())
			if !ok {
				t.Fatal("the SYN was not answered")
			}
			if want := [2]uint32{f.number(c.client, c.host, before, 0), f.number(c.client, c.host, epochNow(), 0)}; got.ack != want[0] && got.ack != want[1] {
				t.Errorf("number %x: expected %x", got.ack, want)
			}
			want := segment{src: c.host, dst: c.client, seq: got.seq, ack: got.ack, flags: flow.SYN | flow.ACK, sums: true, macs: [2][6]byte{syn.SrcMAC, syn.DstMAC}}
			if got != want {
				t.Errorf("answer %+v, expected %+v", got, want)
			}
			for name, forged := range map[string]planetest.Packet{
				"wrong number":  {Src: c.client, Dst: c.host, Proto: flow.TCP, Flags: flow.RST, Seq: got.ack + 1},
				"other port":    {Src: netip.AddrPortFrom(c.client.Addr(), 40001), Dst: c.host, Proto: flow.TCP, Flags: flow.RST, Seq: got.ack},
				"other address": {Src: netip.AddrPortFrom(c.client.Addr().Next(), 40000), Dst: c.host, Proto: flow.TCP, Flags: flow.RST, Seq: got.ack},
			} {
				inject(t, f, planetest.Step{Hook: dataplane.ToInside, Frame: forged.Frame()})
				exhaust(t, f, c.host)
				if _, ok := answerOf(t, f, synOf(forged.Src, c.host).Frame()); !ok {
					t.Errorf("%s: got in", name)
				}
			}
			if s := floodOf(t, f); s.Proofs != 0 || s.BadProofs != 3 {
				t.Errorf("%d proofs, %d bad ones: expected 0, 3", s.Proofs, s.BadProofs)
			}
			rst := planetest.Packet{Src: c.client, Dst: c.host, Proto: flow.TCP, Flags: flow.RST, Seq: got.ack}
			if !inject(t, f, planetest.Step{Hook: dataplane.ToInside, Frame: rst.Frame()}) {
				t.Error("the reset was dropped")
			}
			exhaust(t, f, c.host)
			if _, ok := answerOf(t, f, syn.Frame()); ok {
				t.Error("who proved its address was asked again")
			}
			s, err := f.Stats()
			check(t, err)
			if s.Flood.Proofs != 1 || s.Flood.Challenges < 4 || s.Dropped != 0 {
				t.Errorf("%d proofs, %d challenges, %d dropped: expected 1, at least 4, 0", s.Flood.Proofs, s.Flood.Challenges, s.Dropped)
			}
		})
	}
}

// What is not challenged: other ports, other packets, the other hook, monitor mode.
func TestChallengeIsNarrow(t *testing.T) {
	c := pairs()[0]
	f := newFixture(t, Options{Role: Host, Mode: dataplane.Enforce})
	set := dataplane.Flood{Service: 5, Destination: 6, Protected: []dataplane.Guarded{{Prefix: c.net, Port: 443}}}
	check(t, f.SetFlood(set))
	other := netip.AddrPortFrom(c.host.Addr(), 80)
	exhaust(t, f, other)
	syn := synOf(c.client, c.host)
	ack, udp, options := syn, syn, syn
	ack.Flags, udp.Proto, options.Options = flow.ACK, flow.UDP, make([]byte, 4)
	exhaust(t, f, c.host)
	for name, frame := range map[string][]byte{
		"other port": synOf(c.client, other).Frame(), "ack": ack.Frame(), "udp": udp.Frame(), "ip options": options.Frame(),
	} {
		if _, ok := answerOf(t, f, frame); ok {
			t.Errorf("%s: answered", name)
		}
		if inject(t, f, planetest.Step{Hook: dataplane.ToInside, Frame: frame}) {
			t.Errorf("%s: passed over its budget", name)
		}
	}
	check(t, f.SetMode(dataplane.Monitor))
	before := floodOf(t, f).Challenges
	if !inject(t, f, planetest.Step{Hook: dataplane.ToInside, Frame: syn.Frame()}) {
		t.Error("in monitor mode a SYN did not pass")
	}
	if got := floodOf(t, f).Challenges - before; got != 1 {
		t.Errorf("challenges that would have been: %d, expected 1", got)
	}
	check(t, f.SetMode(dataplane.Enforce))
	check(t, f.SetNever([]dataplane.Never{{Prefix: netip.PrefixFrom(c.client.Addr(), 32)}}))
	if !inject(t, f, planetest.Step{Hook: dataplane.ToInside, Frame: syn.Frame()}) {
		t.Error("a never-block client was not let in")
	}

	// In front of inside hosts packets from outside are seen by TCX, which cannot answer.
	in := newFixture(t, Options{Role: Inside, Mode: dataplane.Enforce})
	check(t, in.SetFlood(set))
	for i := range 40 {
		s := synOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 0, 2, byte(i)}), 1), c.host)
		inject(t, in, planetest.Step{Hook: dataplane.ToInside, Frame: s.Frame()})
	}
	if s := floodOf(t, in); s.Challenges != 0 || s.BudgetDropped["service"] == 0 {
		t.Errorf("at TCX: %d challenges, %v over budget: expected none, some", s.Challenges, s.BudgetDropped)
	}
}

func TestNumbersOutliveARotation(t *testing.T) {
	f := newFixture(t, Options{Role: Host, Mode: dataplane.Enforce})
	check(t, f.SetFlood(dataplane.Flood{Service: 1}))
	epoch := epochNow()
	before := f.flood.Cookie
	f.epoch = epoch - 1
	check(t, f.finishSweep(false))
	for i := range before {
		if changed := before[i] != f.flood.Cookie[i]; changed != (uint64(i) == (epochNow()+2)&3) {
			t.Errorf("key %d in epoch %d: changed %v", i, epochNow(), changed)
		}
	}
	after := f.flood
	check(t, f.finishSweep(false))
	if f.flood != after && epochNow() == epoch {
		t.Error("keys changed twice in one epoch")
	}
}

func TestDarkResponder(t *testing.T) {
	for _, c := range pairs() {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, Options{Role: Host, Mode: dataplane.Enforce})
			check(t, f.SetFlood(dataplane.Flood{Dark: []netip.Prefix{c.net}}))
			syn := synOf(c.client, c.host)
			got, ok := answerOf(t, f, syn.Frame())
			want := segment{src: c.host, dst: c.client, seq: got.seq, ack: 101, flags: flow.SYN | flow.ACK, sums: true, macs: [2][6]byte{syn.SrcMAC, syn.DstMAC}}
			if !ok || got != want {
				t.Fatalf("answered %v: %+v, expected %+v", ok, got, want)
			}
			ack := syn
			ack.Flags, ack.Seq, ack.Ack = flow.ACK, 101, got.seq
			if _, ok := answerOf(t, f, ack.Frame()); ok {
				t.Error("a wrong number was answered")
			}
			check(t, noProof(events(t, f)))
			ack.Ack = got.seq + 1
			end, ok := answerOf(t, f, ack.Frame())
			want = segment{src: c.host, dst: c.client, seq: ack.Ack, flags: flow.RST, sums: true, macs: want.macs}
			if !ok || end != want {
				t.Errorf("answered %v: %+v, expected %+v", ok, end, want)
			}
			var proof *dataplane.Event
			for _, e := range events(t, f) {
				if e.Kind == dataplane.EventProof {
					proof = &e
				}
			}
			if proof == nil {
				t.Fatal("nothing was told of the proof")
			}
			r := &proof.Record
			if r.Initiator() != c.client || r.Responder() != c.host || !r.Validated[0] || r.Validated[1] || r.InitInside || !r.RespInside {
				t.Errorf("told of %s -> %s, validated %v, inside %v %v: expected the client, proved, from outside",
					r.Initiator(), r.Responder(), r.Validated, r.InitInside, r.RespInside)
			}
			if d := time.Since(time.Unix(0, proof.At)); d < 0 || d > time.Minute {
				t.Errorf("told at %s ago: expected just now", d)
			}
			if s := floodOf(t, f); s.Proofs != 1 || s.BadProofs != 1 || s.DarkAnswers != 2 {
				t.Errorf("%d proofs, %d bad, %d answers: expected 1, 1, 2", s.Proofs, s.BadProofs, s.DarkAnswers)
			}
			beside := synOf(c.client, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 443))
			if c.client.Addr().Is6() {
				beside = synOf(c.client, endpoint("[fd01::1]:443"))
			}
			if _, ok := answerOf(t, f, beside.Frame()); ok {
				t.Error("an address outside of the prefix answered")
			}
			check(t, f.SetMode(dataplane.Monitor))
			if _, ok := answerOf(t, f, syn.Frame()); ok {
				t.Error("answered in monitor mode")
			}
		})
	}
}

func noProof(all []dataplane.Event) error {
	for _, e := range all {
		if e.Kind == dataplane.EventProof {
			return fmt.Errorf("proof of %s was told", e.Record.Initiator())
		}
	}
	return nil
}

func TestDarkAnswersAreBounded(t *testing.T) {
	f := newFixture(t, Options{Role: Host, Mode: dataplane.Enforce})
	check(t, f.SetFlood(dataplane.Flood{Dark: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}))
	start := time.Now()
	for i := range 6000 {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 3, byte(i >> 8), byte(i)}), 1)
		_, err := f.objs.HedgerowXdp.Run(&ebpf.RunOptions{Data: synOf(src, endpoint("10.0.0.9:22")).Frame()})
		check(t, err)
	}
	most := uint64(1001 + time.Since(start).Seconds()*1000)
	if got := floodOf(t, f).DarkAnswers; got < 1000 || got > most {
		t.Errorf("%d answers: expected 1000 to %d", got, most)
	}
}

func TestFloodSettingsAreReplaced(t *testing.T) {
	f := newFixture(t, Options{Role: Host, Mode: dataplane.Enforce})
	dark := netip.MustParsePrefix("10.0.0.0/24")
	check(t, f.SetFlood(dataplane.Flood{Dark: []netip.Prefix{dark}, Service: 3,
		Protected: []dataplane.Guarded{{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Port: 80}, {Prefix: netip.MustParsePrefix("10.1.0.0/24"), Port: 81}}}))
	keys := f.flood.Cookie
	check(t, f.SetFlood(dataplane.Flood{Dark: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}}))
	if f.flood.Cookie != keys {
		t.Error("secrets changed with the settings")
	}
	if _, ok := answerOf(t, f, synOf(endpoint("198.51.100.4:1"), endpoint("10.0.0.9:22")).Frame()); ok {
		t.Error("an address that is no longer dark answered")
	}
	if _, ok := answerOf(t, f, synOf(endpoint("198.51.100.4:1"), endpoint("10.2.0.9:22")).Frame()); !ok {
		t.Error("an address that is dark now did not answer")
	}
	var k kernelNeverKey
	var v kernelGuarded
	n := 0
	for it := f.objs.Guards.Iterate(); it.Next(&k, &v); n++ {
	}
	if n != 1 {
		t.Errorf("%d prefixes in the kernel, expected 1", n)
	}
}
