package xdp

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Values of bpf/types.h and bpf/flowtable.h that the code generator does not
// carry over.
const (
	waysOfBucket = 12
	eggsOfBucket = 4
	tickBits     = 30 // a tick is 2^30 ns
	tickMask     = 1<<13 - 1
)

// flowsPerBucket is how many flows of Options.MaxFlows a bucket stands for:
// with 8/9 of its slots taken, two choices still find an empty one nearly always.
const flowsPerBucket = waysOfBucket * 8.0 / 9

// bucketsFor is how many buckets a table for so many flows has.
func bucketsFor(maxFlows uint32) uint32 { return uint32(float64(maxFlows)/flowsPerBucket) + 1 }

// FlowTableBytes is the memory that the table of an [Options.MaxFlows] takes.
// It is taken when the plane opens, and does not change.
func FlowTableBytes(maxFlows uint32) uint64 {
	const bucket = unsafe.Sizeof(kernelBucket{}) + waysOfBucket*unsafe.Sizeof(kernelSlot{}) + eggsOfBucket*unsafe.Sizeof(kernelEgg{})
	return uint64(bucketsFor(maxFlows)) * uint64(bucket)
}

// sizeFlowTable sets a spec's maps and constants to a table for so many flows.
func sizeFlowTable(spec *ebpf.CollectionSpec, maxFlows uint32, lru bool) error {
	n := bucketsFor(maxFlows)
	if lru {
		spec.Maps[kernelMapFlowsLru].MaxEntries = maxFlows
		n = 1
	}
	spec.Maps[kernelMapFlowBuckets].MaxEntries = n
	spec.Maps[kernelMapFlowSlots].MaxEntries = n * waysOfBucket
	spec.Maps[kernelMapFlowEggs].MaxEntries = n * eggsOfBucket
	var use uint8
	if lru {
		use = 1
	}
	inOrder := runtime.GOARCH == "amd64"
	err := errors.Join(spec.Variables[kernelVarN_buckets].Set(n), spec.Variables[kernelVarUseLru].Set(use),
		spec.Variables[kernelVarStoresInOrder].Set(inOrder))
	if err != nil {
		return fmt.Errorf("set size of the flow table: %w", err)
	}
	return nil
}

// flowRef is a flow as a sweep found it.
type flowRef struct {
	key kernelFlowKey
	id  uint64
	at  uint32 // index of its slot or egg
	egg bool
}

// quietFor says how long a flow may be silent, in ns, and since when it is.
type quietFor func(k *kernelFlowKey, f *kernelFlow) (limit, last int64)

// flowStore is the kernel's flow table as userspace sees it.
type flowStore interface {
	// idle lists the flows that are silent for longer than they may; least is
	// the shortest time that quiet ever gives.
	idle(now, least int64, quiet quietFor) ([]flowRef, error)
	// end takes a flow out, if it is still there and idle, with its last record.
	end(ref *flowRef, now int64, quiet quietFor) (kernelFlow, bool, error)
	// evicted completes what the kernel counted: flows in the table, when in all
	// total were made and gone have ended, and flows that were pushed out.
	evicted(total, gone, counted uint64) (flows, evicted uint64, err error)
	close() error
}

// openFlowStore gives access to a plane's flow table, new or taken over.
func openFlowStore(m *kernelMaps, maxFlows uint32, lru bool) (flowStore, error) {
	if lru {
		return &lruTable{flows: m.FlowsLru, max: uint64(maxFlows)}, nil
	}
	if err := ensureSeed(m.FlowSeed); err != nil {
		return nil, err
	}
	t := &flowTable{stuck: make(map[*uint32]uint32)}
	err := errors.Join(mapInto(&t.buckets, &t.held, m.FlowBuckets), mapInto(&t.slots, &t.held, m.FlowSlots), mapInto(&t.eggs, &t.held, m.FlowEggs))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the flow table: %w", err), t.close())
	}
	return t, nil
}

// ensureSeed draws the secret of the hash, unless the table has one.
func ensureSeed(m *ebpf.Map) error {
	var s kernelSeed
	if err := m.Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("read seed of the flow table: %w", err)
	}
	if s.K != (kernelSeed{}).K {
		return nil
	}
	var b [8]byte
	for i := range s.K {
		_, _ = rand.Read(b[:]) // never fails: it ends the program instead
		s.K[i] = binary.NativeEndian.Uint64(b[:])
	}
	if err := m.Put(uint32(0), &s); err != nil {
		return fmt.Errorf("write seed of the flow table: %w", err)
	}
	return nil
}

// flowTable is the table of bpf/flowtable.h, in memory shared with the kernel.
// Its locks are the kernel's: who holds one does so for a copy's time.
type flowTable struct {
	buckets []kernelBucket
	slots   []kernelSlot
	eggs    []kernelEgg
	held    [][]byte
	// stuck are locks that the last sweep found taken, and by which number. One
	// that the next finds unchanged belongs to a process that died holding it.
	stuck map[*uint32]uint32
}

// slotOf is where the slot of a bucket's way lies, as in bpf/flowtable.h.
func (t *flowTable) slotOf(bucket, way int) int { return way*len(t.buckets) + bucket }

// mapInto maps an array of the kernel as a slice.
func mapInto[T any](into *[]T, held *[][]byte, m *ebpf.Map) error {
	var one T
	if uintptr(m.ValueSize()) != unsafe.Sizeof(one) {
		return fmt.Errorf("%s: values of %d bytes: expected %d", m, m.ValueSize(), unsafe.Sizeof(one))
	}
	n := int(m.MaxEntries())
	page := unix.Getpagesize()
	size := (n*int(unsafe.Sizeof(one)) + page - 1) / page * page
	b, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("%s: mmap %d bytes: %w", m, size, err)
	}
	*held = append(*held, b)
	*into = unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
	return nil
}

func (t *flowTable) close() error {
	var errs []error
	for _, b := range t.held {
		errs = append(errs, unix.Munmap(b))
	}
	*t = flowTable{}
	return errors.Join(errs...)
}

// A packet holds a lock for some hundred nanoseconds.
const (
	lockTries = 1000
	readTries = 1000
)

func lockSeq(seq *uint32) bool {
	for range lockTries {
		was := atomic.LoadUint32(seq)
		if was&1 == 0 && atomic.CompareAndSwapUint32(seq, was, was+1) {
			return true
		}
	}
	return false
}

func unlockSeq(seq *uint32) { atomic.AddUint32(seq, 1) }

// steady copies what a sequence number guards, as it was at one time. It gives
// up where somebody always writes.
func steady[T any](seq *uint32, from, to *T) bool {
	for range readTries {
		was := atomic.LoadUint32(seq)
		if was&1 != 0 {
			continue
		}
		*to = *from
		// An exchange of equals: a load alone could come before the copy.
		if atomic.CompareAndSwapUint32(seq, was, was) {
			return true
		}
	}
	return false
}

func (t *flowTable) idle(now, least int64, quiet quietFor) ([]flowRef, error) {
	t.freeStuck()
	var idle []flowRef
	var slot kernelSlot
	var egg kernelEgg
	tick := uint16(now>>tickBits) & tickMask
	for i := range t.buckets {
		b := &t.buckets[i]
		for way, tag := range b.Tags {
			if tag == 0 {
				continue
			}
			if way >= waysOfBucket {
				at := i*eggsOfBucket + way - waysOfBucket
				if steady(&b.Seq, &t.eggs[at], &egg) {
					if f := hatched(&egg); isQuiet(&egg.Key, &f, now, quiet) {
						idle = append(idle, flowRef{key: egg.Key, id: egg.Id, at: uint32(at), egg: true})
					}
				}
				continue
			}
			if recent(tick, b.Seen[way], least) {
				continue
			}
			at := t.slotOf(i, way)
			if steady(&t.slots[at].Seq, &t.slots[at], &slot) && slot.Live != 0 && isQuiet(&slot.Key, &slot.Flow, now, quiet) {
				idle = append(idle, flowRef{key: slot.Key, id: slot.Flow.Id, at: uint32(at)})
			}
		}
	}
	return idle, nil
}

// recent says that a slot, by its bucket's word, had a packet so lately that it
// cannot be idle. Ticks go round in 2.4 hours: longer limits are not told so.
func recent(tick, seen uint16, least int64) bool {
	age := int64((tick-seen)&tickMask) + 1
	return least <= (tickMask+1)/2<<tickBits && age<<tickBits < least
}

func isQuiet(k *kernelFlowKey, f *kernelFlow, now int64, quiet quietFor) bool {
	limit, last := quiet(k, f)
	return now-last > limit
}

// freeStuck opens locks whose holder died, and gives up what they guarded. No
// packet holds a lock over two sweeps.
func (t *flowTable) freeStuck() {
	found := make(map[*uint32]uint32)
	look := func(seq *uint32) bool {
		was := atomic.LoadUint32(seq)
		if was&1 == 0 {
			return false
		}
		if t.stuck[seq] == was {
			return true
		}
		found[seq] = was
		return false
	}
	for i := range t.buckets {
		b := &t.buckets[i]
		if look(&b.Seq) {
			clear(b.Tags[waysOfBucket:])
			unlockSeq(&b.Seq)
		}
		for way := range waysOfBucket {
			s := &t.slots[t.slotOf(i, way)]
			if look(&s.Seq) {
				s.Live = 0
				b.Tags[way] = 0
				unlockSeq(&s.Seq)
			}
		}
	}
	t.stuck = found
}

func (t *flowTable) end(ref *flowRef, now int64, quiet quietFor) (f kernelFlow, ended bool, err error) {
	if ref.egg {
		b := &t.buckets[ref.at/eggsOfBucket]
		if !lockSeq(&b.Seq) {
			return f, false, nil
		}
		defer unlockSeq(&b.Seq)
		egg, tag := &t.eggs[ref.at], &b.Tags[waysOfBucket+ref.at%eggsOfBucket]
		f = hatched(egg)
		if *tag == 0 || egg.Key != ref.key || !isQuiet(&egg.Key, &f, now, quiet) {
			return f, false, nil
		}
		*tag = 0
		return f, true, nil
	}
	s := &t.slots[ref.at]
	if !lockSeq(&s.Seq) {
		return f, false, nil
	}
	defer unlockSeq(&s.Seq)
	if s.Live == 0 || s.Key != ref.key || !isQuiet(&s.Key, &s.Flow, now, quiet) {
		return f, false, nil
	}
	s.Live = 0
	n := uint32(len(t.buckets))
	t.buckets[ref.at%n].Tags[ref.at/n] = 0
	return s.Flow, true, nil
}

func (t *flowTable) evicted(total, gone, counted uint64) (flows, evicted uint64, err error) {
	if total <= gone+counted {
		return 0, counted, nil // counters are read one by one, while packets come
	}
	return total - gone - counted, counted, nil
}

// hatched is the flow that an egg holds: one packet, or resets that are alike;
// hatch() in bpf/flowtable.h makes the same.
func hatched(e *kernelEgg) kernelFlow {
	const protoTCP, syn, fin, rst, psh, ack = 6, 2, 1, 4, 8, 16
	const wayOwn, wayBoth = 8, 16
	n := 1 + e.More
	f := kernelFlow{Packets: n, Dropped: e.Dropped, InitB: e.FromB, Id: e.Id, Start: e.At, LastPayload: e.At}
	side := e.FromB & 1
	d, r, marks := &f.D[side], &f.R[side], &f.Marks[side]
	size := min(e.IpLen, 0xffff)
	d.Packets, d.Payload = n, uint64(e.Payload)
	d.Bytes, d.SizeSq = uint64(e.Payload)+uint64(n)*uint64(e.HdrLen), uint64(n)*uint64(size)*uint64(size)
	d.SizeMin, d.SizeMax, d.Ttl, d.Last = uint16(size), uint16(size), e.Ttl, e.At+1000*uint64(e.Span)
	r.First, r.Window = e.At, e.Window
	*marks = markReceiverIn
	if e.Hook == 0 {
		*marks = markSenderIn
	}
	if e.Way&wayBoth != 0 {
		*marks |= markReceiverIn
	}
	*marks |= uint16(e.Again)
	if e.Way&wayOwn != 0 {
		f.Own = 1
	}
	if e.Payload > 0 {
		f.N_first = 1
		f.Sizes[0] = int16(min(e.Payload, 32767))
		if side == 1 {
			f.Sizes[0] = -f.Sizes[0]
		}
	}
	if e.Key.Proto != protoTCP {
		return f
	}
	if e.Payload > 0 {
		f.Hint = hintOf(e.First4)
	}
	switch {
	case e.Flags&(syn|ack) == syn:
		f.InitSure = 1
	case e.Flags&(syn|ack) == syn|ack && f.Own != 0:
		f.InitSure, f.InitB = 1, side^1
	}
	one := func(bit uint8) uint16 { return uint16(min(e.Flags&bit, 1)) }
	d.Flags, d.Psh = e.Flags&0x3f, one(psh)
	r.Syn, r.Fin, r.Rst = one(syn), one(fin), one(rst)+uint16(e.More)
	d.SeqHigh = e.Seq + e.Payload + uint32(r.Syn) + uint32(r.Fin)
	*marks |= markSeq
	if r.Syn != 0 {
		r.Isn, r.SynAt = e.Seq, e.At
		*marks |= markISN | markISNAt<<(e.Hook&1)
	}
	if r.Fin != 0 {
		r.FinEnd = d.SeqHigh
		*marks |= markFIN
	}
	return f
}

// hintOf is hint() of bpf/flows.h, of four bytes as they lie in memory.
func hintOf(first4 uint32) uint8 {
	const tls, ssh, http = 1, 2, 3
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], first4)
	switch string(b[:]) {
	case "SSH-":
		return ssh
	case "GET ", "POST", "HEAD", "PUT ", "DELE", "OPTI", "PATC", "CONN", "TRAC":
		return http
	}
	if b[0] == 0x16 && b[1] == 3 && b[2] <= 4 {
		return tls
	}
	return 0
}

// lruTable is the kernel's own LRU_HASH, the peer that the table is measured
// against. What it evicts, it does not tell.
type lruTable struct {
	flows *ebpf.Map
	max   uint64
}

func (t *lruTable) close() error { return nil }

func (t *lruTable) idle(now, _ int64, quiet quietFor) ([]flowRef, error) {
	var idle []flowRef
	for k, v := range dump[kernelFlowKey, kernelSlot](t.flows) {
		if v.err != nil {
			return nil, fmt.Errorf("sweep flows: %w", v.err)
		}
		if isQuiet(&k, &v.value.Flow, now, quiet) {
			idle = append(idle, flowRef{key: k, id: v.value.Flow.Id})
		}
	}
	return idle, nil
}

func (t *lruTable) end(ref *flowRef, _ int64, _ quietFor) (kernelFlow, bool, error) {
	var s kernelSlot
	err := t.flows.LookupAndDelete(&ref.key, &s)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return kernelFlow{}, false, nil
	}
	if err != nil {
		return kernelFlow{}, false, fmt.Errorf("end idle flow: %w", err)
	}
	return s.Flow, true, nil
}

func (t *lruTable) evicted(total, gone, _ uint64) (flows, evicted uint64, err error) {
	if total <= gone {
		return 0, 0, nil
	}
	flows = total - gone
	if total <= t.max/2 {
		return flows, 0, nil // as long as few were ever in it, none can have left
	}
	var n uint64
	for _, v := range dump[kernelFlowKey, kernelSlot](t.flows) {
		if v.err != nil {
			return 0, 0, fmt.Errorf("count flows: %w", v.err)
		}
		n++
	}
	return n, flows - min(n, flows), nil
}

// quiet is how long a flow may be silent by the options.
func (p *Plane) quiet(k *kernelFlowKey, f *kernelFlow) (limit, last int64) {
	const protoTCP = 6
	d := p.o.Idle.Other
	if k.Proto == protoTCP {
		d = p.o.Idle.TCP
		if f.D[0].Packets == 0 || f.D[1].Packets == 0 {
			d = p.o.Idle.Unanswered
		}
	}
	return int64(d), int64(max(f.Start, f.D[0].Last, f.D[1].Last))
}

func (i Idle) least() time.Duration { return min(i.Unanswered, i.TCP, i.Other) }
