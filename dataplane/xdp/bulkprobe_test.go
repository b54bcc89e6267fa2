package xdp

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

const maxProbes = 1 << 20

// prober looks up many addresses in one run of a program, in the bulk set of a
// plane and in the kernel's own maps.
type prober struct {
	probeObjects
	probes  []kernelAddr
	answers []uint64
	plane   *Plane
}

type probeObjects struct {
	Floor *ebpf.Program `ebpf:"probe_floor"`
	Bulk  *ebpf.Program `ebpf:"probe_bulk"`
	Hash  *ebpf.Program `ebpf:"probe_hash"`
	LPM   *ebpf.Program `ebpf:"probe_lpm"`
	Both  *ebpf.Program `ebpf:"probe_both"`
	Front *ebpf.Program `ebpf:"probe_front"`

	Jobs    *ebpf.Map `ebpf:"jobs"`
	Probes  *ebpf.Map `ebpf:"probes"`
	Answers *ebpf.Map `ebpf:"answers"`
	Hash4   *ebpf.Map `ebpf:"hash4"`
	Hash6   *ebpf.Map `ebpf:"hash6"`
	LPM4    *ebpf.Map `ebpf:"lpm4"`
	LPM6    *ebpf.Map `ebpf:"lpm6"`
	Behind  *ebpf.Map `ebpf:"behind"`
}

func newProber(tb testing.TB, f fixture, entries uint32) *prober {
	tb.Helper()
	spec, err := loadBulkprobe()
	must(tb, err)
	for _, name := range []string{bulkprobeMapHash4, bulkprobeMapHash6, bulkprobeMapLpm4, bulkprobeMapLpm6} {
		spec.Maps[name].MaxEntries = max(entries, 1)
	}
	p := &prober{plane: f.Plane}
	must(tb, spec.LoadAndAssign(&p.probeObjects, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		bulkprobeMapBulkHeads: f.objs.BulkHeads, bulkprobeMapBulkCells: f.objs.BulkCells,
	}}))
	tb.Cleanup(func() {
		for _, prog := range []*ebpf.Program{p.Floor, p.Bulk, p.Hash, p.LPM, p.Both, p.Front} {
			prog.Close()
		}
		closeMaps(map[string]*ebpf.Map{"j": p.Jobs, "p": p.Probes, "a": p.Answers, "h4": p.Hash4, "h6": p.Hash6, "l4": p.LPM4, "l6": p.LPM6, "b": p.Behind})
	})
	mem := mapForTest(tb, p.Probes, maxProbes*unsafe.Sizeof(kernelAddr{}))
	p.probes = unsafe.Slice((*kernelAddr)(unsafe.Pointer(&mem[0])), maxProbes)
	mem = mapForTest(tb, p.Answers, maxProbes*8)
	p.answers = unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), maxProbes)
	return p
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%+v", err)
	}
}

func mapForTest(tb testing.TB, m *ebpf.Map, size uintptr) []byte {
	tb.Helper()
	mem, err := mapArray(m, size, unix.PROT_READ|unix.PROT_WRITE)
	must(tb, err)
	tb.Cleanup(func() { must(tb, unix.Munmap(mem)) })
	return mem
}

// ask puts addresses to be looked up in their places.
func (p *prober) ask(addrs []netip.Addr) {
	for i, a := range addrs {
		p.probes[i] = toKernel(a)
	}
}

// run looks up n addresses from first on, as it will be at a time. It returns
// how many were found and the kernel's time for it.
func (p *prober) run(tb testing.TB, prog *ebpf.Program, first, n uint32, at time.Time) (found uint32, took time.Duration) {
	tb.Helper()
	job := bulkprobeProbeJob{N: n, First: first, Slot: uint32(max(p.plane.bulk.slot, 0)), Now: uint32(p.plane.clock.bootMicros(at) / 1e6)}
	must(tb, p.Jobs.Put(uint32(0), &job))
	found, took, err := prog.Benchmark(make([]byte, 64), 1, nil)
	must(tb, err)
	return found, took
}

// drive sends packets to n destinations through a program, or with none only
// through what chooses the destination. It returns the time a packet.
func (p *prober) drive(tb testing.TB, prog *ebpf.Program, frame []byte, n uint32, packets int) time.Duration {
	tb.Helper()
	if prog != nil {
		must(tb, p.Behind.Put(uint32(0), prog))
	} else if err := p.Behind.Delete(uint32(0)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		tb.Fatal(err)
	}
	must(tb, p.Jobs.Put(uint32(0), &bulkprobeProbeJob{N: n}))
	_, took, err := p.Front.Benchmark(frame, packets, nil)
	must(tb, err)
	return took
}

// oracle puts entries into the kernel's maps: single addresses into the hash,
// and everything, these too, into the trie when all is set.
func (p *prober) oracle(tb testing.TB, entries []dataplane.Listed, all bool) {
	tb.Helper()
	for _, l := range entries {
		a := l.Prefix.Addr()
		k := toKernel(a)
		single := l.Prefix.IsSingleIP()
		switch {
		case single && a.Is4():
			must(tb, p.Hash4.Put(uint32(k.Lo>>32), l.Reason))
		case single:
			must(tb, p.Hash6.Put(k, l.Reason))
		}
		if single && !all {
			continue
		}
		raw := binary.NativeEndian.AppendUint32(nil, uint32(l.Prefix.Bits()))
		raw = append(raw, a.AsSlice()...)
		if a.Is4() {
			must(tb, p.LPM4.Put(raw, l.Reason))
		} else {
			must(tb, p.LPM6.Put(raw, l.Reason))
		}
	}
}

// randomSet are overlapping prefixes in a small space, so that they nest and
// repeat, half of them single addresses.
func randomSet(rng *rand.Rand, n int, expires func() time.Time) []dataplane.Listed {
	set := make([]dataplane.Listed, n)
	for i := range set {
		a := randomAddr(rng)
		bits := a.BitLen()
		if rng.IntN(2) == 0 {
			bits -= rng.IntN(24)
			if a.Is6() && rng.IntN(2) == 0 {
				bits = 24 + rng.IntN(32)
			}
		}
		p, err := a.Prefix(bits)
		if err != nil {
			panic(err) // bits are within the family's
		}
		set[i] = dataplane.Listed{Prefix: p, Reason: uint32(rng.IntN(200)), Expires: expires()}
	}
	return set
}

func randomAddr(rng *rand.Rand) netip.Addr {
	switch rng.IntN(8) {
	case 0: // anywhere
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], rng.Uint32())
		return netip.AddrFrom4(b)
	case 1, 2: // IPv6 in a few nets
		b := [16]byte{0x20, 1, 0xd, byte(rng.IntN(3)), byte(rng.IntN(2)), byte(rng.IntN(256)), 0, byte(rng.IntN(4)), 14: byte(rng.IntN(4)), 15: byte(rng.IntN(256))}
		return netip.AddrFrom16(b)
	default:
		return netip.AddrFrom4([4]byte{byte(20 + rng.IntN(2)), byte(rng.IntN(3)), byte(rng.IntN(256)), byte(rng.IntN(256))})
	}
}
