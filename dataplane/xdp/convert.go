package xdp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Values of bpf/types.h that the code generator does not carry over.
const (
	markSeq        = 1
	markISN        = 2
	markFIN        = 4
	markISNAt      = 64
	markSenderIn   = 16
	markReceiverIn = 32
	classBlock     = 0
	classObserve   = 1
	v4Bits         = 96 // of ::ffff:0:0/96
)

// malformedKinds name the indexes of kernelCounters.Bad.
var malformedKinds = [...]string{
	1: "link", 2: "ethernet", 3: "vlan", 4: "pppoe", 5: "ipv4", 6: "ipv4-length", 7: "ipv6", 8: "ipv6-length",
	9: "ipv6-ext", 10: "fragment", 11: "tcp", 12: "udp", 13: "icmp",
}

// bootClock converts between the kernel's boot time, which never jumps, and
// Unix time, which may. The difference is taken anew when the wall clock was set.
type bootClock struct {
	offset atomic.Int64
	taken  atomic.Pointer[reading] // when it was
}

// reading is one look at Go's two clocks: at goes with the one that never jumps.
type reading struct {
	at   time.Time
	wall int64
}

func bootNow() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // cannot fail on Linux with this clock
	}
	return ts.Nano()
}

// adjust follows the wall clock when it was set; jitter of reading two clocks
// is ignored, so that a converted time stays the same.
func (c *bootClock) adjust() {
	now := time.Now()
	c.taken.Store(&reading{now, now.UnixNano()})
	if offset := now.UnixNano() - bootNow(); moved(offset - c.offset.Load()) {
		c.offset.Store(offset)
	}
}

// follow is adjust for those in a hurry, who have just asked what time it is: it
// asks the kernel only when something happened. Go's two clocks go at one pace,
// and part when the wall clock is set or the system has slept.
func (c *bootClock) follow(now time.Time) {
	then := c.taken.Load()
	if then == nil || moved(now.UnixNano()-then.wall-int64(now.Sub(then.at))) {
		c.adjust()
	}
}

// moved says whether a difference of two clocks is more than the jitter of
// reading both.
func moved(ns int64) bool { return ns > int64(time.Millisecond) || ns < -int64(time.Millisecond) }

func (c *bootClock) unix(boot uint64) int64 {
	if boot == 0 {
		return 0
	}
	return int64(boot) + c.offset.Load()
}

// bootMicros is a wall-clock time in microseconds of boot time, 0 when before boot.
func (c *bootClock) bootMicros(t time.Time) uint64 {
	ns := t.UnixNano() - c.offset.Load()
	if ns < 0 {
		return 0
	}
	return uint64(ns) / 1000
}

func (c *bootClock) fromMicros(us uint64) time.Time {
	return time.Unix(0, int64(us*1000)+c.offset.Load())
}

func toKernel(a netip.Addr) kernelAddr {
	b := a.As16()
	return kernelAddr{Hi: binary.NativeEndian.Uint64(b[:8]), Lo: binary.NativeEndian.Uint64(b[8:])}
}

func fromKernel(a kernelAddr) netip.Addr {
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:8], a.Hi)
	binary.NativeEndian.PutUint64(b[8:], a.Lo)
	return netip.AddrFrom16(b).Unmap()
}

func flowKey(k flow.Key) kernelFlowKey {
	return kernelFlowKey{A: toKernel(k.A), B: toKernel(k.B), Aport: k.APort, Bport: k.BPort, Proto: k.Proto}
}

func fromFlowKey(k *kernelFlowKey) flow.Key {
	return flow.Key{A: fromKernel(k.A), B: fromKernel(k.B), APort: k.Aport, BPort: k.Bport, Proto: k.Proto}
}

// family is 4 or 6; bits are those of the 16-byte form.
func family(p netip.Prefix) (fam uint16, bits uint32) {
	if p.Addr().Is4() {
		return 4, uint32(p.Bits()) + v4Bits
	}
	return 6, uint32(p.Bits())
}

func fromPrefix(fam uint16, bits uint32, a kernelAddr) netip.Prefix {
	if fam == 4 {
		bits -= v4Bits
	}
	return netip.PrefixFrom(fromKernel(a), int(bits))
}

// decodeEvent copies one sample of the ring buffer into ev.
func decodeEvent(raw []byte, clock *bootClock, ev *dataplane.Event) error {
	if len(raw) < int(unsafe.Sizeof(kernelEvent{})) {
		return fmt.Errorf("event: %d bytes: expected %d", len(raw), unsafe.Sizeof(kernelEvent{}))
	}
	var e kernelEvent
	// The generated struct has the kernel's layout; copying spares any claim on alignment.
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&e)), unsafe.Sizeof(e)), raw)
	*ev = dataplane.Event{
		Kind:   dataplane.EventKind(e.Kind),
		Reason: e.Reason,
		Mode:   dataplane.Mode(e.Mode),
	}
	if ev.Kind == dataplane.EventFirstDrop {
		ev.At = clock.unix(e.At)
	}
	switch ev.Kind {
	case dataplane.EventFlood:
		ev.At, ev.Flood, ev.Reason = clock.unix(e.At), dataplane.FloodKind(e.Reason), 0
	case dataplane.EventProof:
		ev.At = clock.unix(e.At)
	}
	fillRecord(&e.Key, &e.Flow, clock, &ev.Record)
	ev.Record.End = flow.End(e.End)
	return nil
}

// fillRecord turns the kernel's flow, kept by the key's sides, into a record
// kept by initiator and responder.
func fillRecord(k *kernelFlowKey, f *kernelFlow, clock *bootClock, r *flow.Record) {
	i := 0
	if f.InitB != 0 {
		i = 1
	}
	*r = flow.Record{
		Key:      fromFlowKey(k),
		ID:       f.Id,
		InitB:    i == 1,
		Start:    clock.unix(f.Start),
		SynAckUS: f.SynackUs,
		AckUS:    f.AckUs,
		Hint:     flow.Hint(f.Hint),
		Fellows:  f.Fellows,
		Dropped:  f.Dropped,
		NFirst:   min(f.N_first, flow.First),
	}
	for e := range 2 {
		fillDir(f, i^e, clock, &r.Dir[e])
		inside := f.Marks[i^e]&markSenderIn != 0 || f.Marks[i^e^1]&markReceiverIn != 0
		if e == 0 {
			r.InitInside = inside
		} else {
			r.RespInside = inside
		}
		r.Validated[e] = f.D[i^e].Validated != 0
	}
	r.Last = max(r.Start, r.Dir[0].Last, r.Dir[1].Last)
	for n := range int(r.NFirst) {
		r.Sizes[n] = f.Sizes[n]
		if i == 1 {
			r.Sizes[n] = -f.Sizes[n]
		}
		r.Gaps[n] = f.Gaps[n]
	}
}

func fillDir(f *kernelFlow, side int, clock *bootClock, out *flow.Dir) {
	d, rare := &f.D[side], &f.R[side]
	*out = flow.Dir{
		Packets: d.Packets, Bytes: d.Bytes, Payload: d.Payload, SizeSq: d.SizeSq,
		SizeMin: d.SizeMin, SizeMax: d.SizeMax,
		First: clock.unix(rare.First), Last: clock.unix(d.Last),
		GapSq: d.GapSq, GapMax: d.GapMax,
		Flags: d.Flags, SYN: rare.Syn, FIN: rare.Fin, RST: rare.Rst, PSH: d.Psh,
		Retrans: d.Retrans, Window: rare.Window, TTL: d.Ttl,
	}
}
