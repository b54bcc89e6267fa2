package xdp

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
)

var _ dataplane.Bulk = (*Plane)(nil)

// bulk is the process's side of the bulk set. All that matters is in the
// kernel: what is here is found again after a takeover. It has maps and a lock
// of its own, because a replacement waits for the kernel and must hold up
// neither a single rule nor a read-back of those.
type bulk struct {
	mu     sync.Mutex
	closed bool
	heads  *ebpf.Map
	cells  *ebpf.Map
	hits   *ebpf.Map
	slot   int // of the set in force, -1: none

	headSpec, cellSpec *ebpf.MapSpec
}

// open takes what it needs of a loaded collection.
func (b *bulk) open(objs *kernelMaps, spec *ebpf.CollectionSpec) (err error) {
	b.slot = -1
	b.headSpec = spec.Maps[kernelMapBulkHeads].InnerMap.Copy()
	b.cellSpec = spec.Maps[kernelMapBulkCells].InnerMap.Copy()
	b.headSpec.Name, b.cellSpec.Name = "bulk_head", "bulk_cell"
	for _, c := range []struct{ to, from **ebpf.Map }{{&b.heads, &objs.BulkHeads}, {&b.cells, &objs.BulkCells}, {&b.hits, &objs.BulkHits}} {
		if *c.to, err = (*c.from).Clone(); err != nil {
			return errors.Join(fmt.Errorf("bulk tables: %w", err), b.close())
		}
	}
	return nil
}

func (b *bulk) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	var errs []error
	for _, m := range []*ebpf.Map{b.heads, b.cells, b.hits} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// ReplaceBulk implements [dataplane.Bulk]. It builds the new set beside the
// old one, then turns to it in one store; the memory of both is held for that
// moment. An expiry is kept in whole seconds, rounded up; beyond 24 days to 64
// seconds, rounded down; beyond four years it is four years.
func (p *Plane) ReplaceBulk(entries []dataplane.Listed) error {
	b := &p.bulk
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return dataplane.ErrClosed
	}
	limits := p.o.Bulk.WithDefaults()
	set, err := policy.NewBulkSet(entries, time.Now(), limits)
	if err != nil {
		return fmt.Errorf("replace bulk set: %w", err)
	}
	p.clock.adjust()
	pl := newPlan(set, newSeeds(), uint64(bootNow())/uint64(time.Second), p.clock.bootSeconds)
	if err := limits.Check(pl.sizes()); err != nil {
		return fmt.Errorf("replace bulk set: %w", err)
	}
	g, err := b.build(pl, (b.slot+1)%bulkSlots)
	if err != nil {
		return fmt.Errorf("replace bulk set: build tables: %w", err)
	}
	defer g.close()
	// The caller's thread may be one of low priority, which the locks that single
	// rules wait for must not depend on.
	switched := make(chan error, 1)
	go func() { switched <- p.switchTo(g) }()
	if err := <-switched; err != nil {
		return fmt.Errorf("replace bulk set: %w", err)
	}
	return nil
}

// bootSeconds is a time in seconds of boot time, rounded up.
func (c *bootClock) bootSeconds(ns int64) uint64 {
	ns -= c.offset.Load()
	if ns < 0 {
		return 0
	}
	return (uint64(ns) + uint64(time.Second) - 1) / uint64(time.Second)
}

func newSeeds() (s seeds) {
	var raw [len(s) * 8]byte
	_, _ = rand.Read(raw[:]) // never fails; see its documentation
	for i := range s {
		s[i] = binary.NativeEndian.Uint64(raw[i*8:])
	}
	s[1] |= 1
	s[2] |= 1
	return s
}

// built is a generation in maps of its own.
type built struct {
	generation
	headMap, cellMap *ebpf.Map
	headMem, cellMem []byte
}

func (g *built) close() {
	for _, mem := range [][]byte{g.headMem, g.cellMem} {
		if mem != nil {
			_ = unix.Munmap(mem) // of our own mapping: cannot fail
		}
	}
	g.headMap.Close()
	g.cellMap.Close()
}

// bulkLoads are the entries a cell of eight that are tried in turn. At the
// first, one cell in ten is full; of a million entries the unluckiest lies seven
// cells from its place, of the 16 that are allowed.
var bulkLoads = []float64{4.5, 3.5, 2.5}

// build makes a generation and puts it into a slot, where no program looks yet.
func (b *bulk) build(pl *plan, slot int) (*built, error) {
	var err error
	for _, load := range bulkLoads {
		l := pl.layout(load)
		g, noRoom := b.allocate(l.cells)
		if noRoom != nil {
			return nil, noRoom
		}
		// The kernel takes its time over this one: more than filling may take.
		placed := make(chan error, 1)
		go func() { placed <- b.put(slot, g) }()
		err = pl.fill(g.head, g.cells, l)
		if err = errors.Join(err, <-placed); err == nil {
			return g, nil
		}
		g.close()
		err = errors.Join(err, b.empty(slot))
		if !errors.Is(err, errCrowded) {
			return nil, err
		}
	}
	return nil, err
}

func (b *bulk) allocate(cells uint32) (*built, error) {
	spec := b.cellSpec.Copy()
	spec.MaxEntries = cells
	g := &built{}
	var err error
	if g.headMap, err = ebpf.NewMap(b.headSpec); err == nil {
		g.cellMap, err = ebpf.NewMap(spec)
	}
	if err == nil {
		err = g.mapMemory(unix.PROT_READ | unix.PROT_WRITE)
	}
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// mapMemory makes the memory of both maps the process's own.
func (g *built) mapMemory(prot int) (err error) {
	if g.headMem, err = mapArray(g.headMap, unsafe.Sizeof(kernelBulkHead{}), prot); err != nil {
		return err
	}
	n := uintptr(g.cellMap.MaxEntries())
	if g.cellMem, err = mapArray(g.cellMap, n*unsafe.Sizeof(kernelBulkCell{}), prot); err != nil {
		return err
	}
	g.head = (*kernelBulkHead)(unsafe.Pointer(&g.headMem[0]))
	g.cells = unsafe.Slice((*kernelBulkCell)(unsafe.Pointer(&g.cellMem[0])), n)
	return nil
}

func mapArray(m *ebpf.Map, size uintptr, prot int) ([]byte, error) {
	page := uintptr(unix.Getpagesize())
	mem, err := unix.Mmap(m.FD(), 0, int((size+page-1)&^(page-1)), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map memory of %s: %w", m, err)
	}
	return mem, nil
}

// switchTo makes a generation the one in force. The other slot is free: it was
// emptied after the last switch, or at the takeover.
func (p *Plane) switchTo(g *built) error {
	b := &p.bulk
	next := (b.slot + 1) % bulkSlots
	if err := b.inherit(g.head, next); err != nil {
		return errors.Join(err, b.empty(next))
	}
	use := bulkUse(next, g.head.Generation)
	if g.head.Entries == 0 {
		use = 0 // nothing to look for
	}
	if err := p.useBulk(use); err != nil {
		return errors.Join(err, b.empty(next))
	}
	old := b.slot
	b.slot = next
	if old < 0 {
		return nil
	}
	// A packet may still be on the old generation. Putting a map into an outer
	// map waits until no packet is that was there before.
	if err := b.cells.Put(uint32(next), g.cellMap); err != nil {
		return fmt.Errorf("wait for packets: %w", err)
	}
	return b.empty(old)
}

// bulkUse names a set as BULK_SLOT of bpf/bulk.h has it. No two sets of a plane
// have one name before 2^30 were replaced.
func bulkUse(slot int, generation uint64) uint32 { return uint32(generation)<<2 | uint32(slot+1) }

func (p *Plane) useBulk(use uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	was := p.cfg.Bulk
	p.cfg.Bulk = use
	if err := p.writeConfig(); err != nil {
		p.cfg.Bulk = was
		return err
	}
	return nil
}

// inherit carries on the count of generations and what was told, and clears
// the counters of the slot.
func (b *bulk) inherit(head *kernelBulkHead, slot int) error {
	head.Generation = 1
	if b.slot >= 0 {
		old, err := b.view()
		if err != nil {
			return err
		}
		defer old.close()
		head.Generation = old.head.Generation + 1
		told := make(map[uint32]uint32, old.head.N_reasons)
		for i := range min(old.head.N_reasons, bulkReasons) {
			told[old.head.Reasons[i]] = old.head.Told[i]
		}
		for i := range head.N_reasons {
			head.Told[i] = told[head.Reasons[i]]
		}
	}
	zero := make([]uint64, ebpf.MustPossibleCPU())
	for i := range head.N_reasons {
		if err := b.hits.Put(uint32(slot)*bulkReasons+i, zero); err != nil {
			return fmt.Errorf("clear hit counters: %w", err)
		}
	}
	return nil
}

func (b *bulk) put(slot int, g *built) error {
	return b.both(func(outer *ebpf.Map) error {
		inner := g.headMap
		if outer == b.cells {
			inner = g.cellMap
		}
		if err := outer.Put(uint32(slot), inner); err != nil {
			return fmt.Errorf("fill slot %d of %s: %w", slot, outer, err)
		}
		return nil
	})
}

// empty frees what a slot holds.
func (b *bulk) empty(slot int) error {
	return b.both(func(outer *ebpf.Map) error {
		if err := outer.Delete(uint32(slot)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("empty slot %d of %s: %w", slot, outer, err)
		}
		return nil
	})
}

// both does something to both outer maps at once: each call waits until the
// kernel has seen all its processors, and so they wait together.
func (b *bulk) both(do func(outer *ebpf.Map) error) error {
	var g errgroup.Group
	for _, outer := range []*ebpf.Map{b.heads, b.cells} {
		g.Go(func() error { return do(outer) })
	}
	return g.Wait()
}

// at opens the generation in a slot for reading; nil when there is none.
func (b *bulk) at(slot int) (*built, error) {
	g := &built{}
	for _, m := range []struct {
		outer *ebpf.Map
		to    **ebpf.Map
	}{{b.heads, &g.headMap}, {b.cells, &g.cellMap}} {
		err := m.outer.Lookup(uint32(slot), m.to)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			g.close()
			return nil, nil
		}
		if err != nil {
			g.close()
			return nil, fmt.Errorf("open slot %d of %s: %w", slot, m.outer, err)
		}
	}
	if err := g.mapMemory(unix.PROT_READ); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// view opens the generation in force.
func (b *bulk) view() (*built, error) {
	g, err := b.at(b.slot)
	if err == nil && g == nil {
		err = fmt.Errorf("slot %d is empty: somebody else changed the tables: replace the set", b.slot)
	}
	return g, err
}

// adopt finds the set in force after a takeover, and frees one whose building
// was cut short. An empty set is in force when the programs use none.
func (b *bulk) adopt(inUse uint32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if inUse &= 3; inUse > bulkSlots {
		return fmt.Errorf("bulk tables: slot %d: expected at most %d", inUse, bulkSlots)
	}
	b.slot = int(inUse) - 1
	for slot := range bulkSlots {
		if slot == b.slot {
			continue
		}
		g, err := b.at(slot)
		if err != nil {
			return err
		}
		keep := g != nil && b.slot < 0 && g.head.Entries == 0
		if g != nil {
			g.close()
		}
		if keep {
			b.slot = slot
			continue
		}
		if err := b.empty(slot); err != nil {
			return err
		}
	}
	return nil
}

// BulkState implements [dataplane.Bulk]. It walks the memory that the programs
// read, some 30 ms for a million entries. An entry to which no packet would
// find its way is not counted as enforced. Intended leaves out what has
// expired. Hits count a packet at its source, or if that is not listed, at its
// destination, and not at all when a rule of Apply blocked it already.
func (p *Plane) BulkState() (dataplane.BulkState, error) {
	b := &p.bulk
	b.mu.Lock()
	defer b.mu.Unlock()
	s := dataplane.BulkState{Hits: make(map[uint32]uint64)}
	if b.closed {
		return s, dataplane.ErrClosed
	}
	if b.slot < 0 {
		return s, nil
	}
	g, err := b.view()
	if err != nil {
		return s, fmt.Errorf("bulk state: %w", err)
	}
	defer g.close()
	c := g.census(uint64(bootNow())/uint64(time.Second) - uint64(g.head.Base))
	s.Generation = g.head.Generation
	s.Enforced = c.living
	if g.head.Entries > c.expired {
		s.Intended = g.head.Entries - c.expired
	}
	s.Bytes = uint64(len(g.headMem) + len(g.cellMem))
	if err := b.readHits(g.head, s.Hits); err != nil {
		return s, fmt.Errorf("bulk state: %w", err)
	}
	return s, nil
}

func (b *bulk) readHits(head *kernelBulkHead, into map[uint32]uint64) error {
	var per []uint64
	for i := range min(head.N_reasons, bulkReasons) {
		if err := b.hits.Lookup(uint32(b.slot)*bulkReasons+i, &per); err != nil {
			return fmt.Errorf("read hit counters: %w", err)
		}
		for _, n := range per {
			if n > 0 {
				into[head.Reasons[i]] += n
			}
		}
	}
	return nil
}
