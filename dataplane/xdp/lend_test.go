package xdp

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// The verifier takes most of the time that a plane takes to load, and says the
// same of the same program each time. So a plane borrows tables, with the
// programs that were loaded around them, from the tests before it, and gets
// them as new. A plane that takes over tables loads its programs anew.

// lent are tables and what was loaded around them, by the constants of programs.
type lent struct {
	layout string
	maps   map[string]*ebpf.Map
	loaded map[string]*ebpf.Collection
}

// returned are the tables that nobody has, by their layout.
var returned struct {
	sync.Mutex
	by map[string][]*lent
}

// lender is one plane's way to its tables.
type lender struct{ has *lent }

// load stands in for loading a spec, as Options.lend says.
func (l *lender) load(spec *ebpf.CollectionSpec, to any, reuse map[string]*ebpf.Map) error {
	if l.has == nil {
		if len(reuse) > 0 {
			return spec.LoadAndAssign(to, &ebpf.CollectionOptions{MapReplacements: reuse})
		}
		l.has = borrow(layoutOf(spec))
	}
	coll, err := l.has.load(spec)
	if err != nil {
		return err
	}
	out := &ebpf.Collection{Programs: make(map[string]*ebpf.Program), Maps: make(map[string]*ebpf.Map), Variables: maps.Clone(coll.Variables)}
	defer out.Close()
	for name, p := range coll.Programs {
		if out.Programs[name], err = p.Clone(); err != nil {
			return err
		}
	}
	for name, m := range l.has.maps {
		if out.Maps[name], err = m.Clone(); err != nil {
			return err
		}
	}
	return out.Assign(to)
}

func borrow(layout string) *lent {
	returned.Lock()
	defer returned.Unlock()
	free := returned.by[layout]
	if len(free) == 0 {
		return &lent{layout: layout, loaded: make(map[string]*ebpf.Collection)}
	}
	returned.by[layout] = free[:len(free)-1]
	return free[len(free)-1]
}

// giveBack returns what the plane had, as new; after a failure nobody gets it.
// By now the programs run nowhere.
func (l *lender) giveBack(tb testing.TB) {
	tb.Helper()
	if l.has == nil || tb.Failed() {
		return
	}
	// Half a million cells count only after somebody set budgets.
	var floods kernelFloodConfig
	if err := l.has.maps[kernelMapFloods].Lookup(uint32(0), &floods); err != nil {
		tb.Fatal(err)
	}
	for name, m := range l.has.maps {
		if name == kernelMapCells && floods == (kernelFloodConfig{}) {
			continue
		}
		if err := wipe(m); err != nil {
			tb.Fatalf("wipe %s: %v", name, err)
		}
	}
	returned.Lock()
	defer returned.Unlock()
	if returned.by == nil {
		returned.by = make(map[string][]*lent)
	}
	returned.by[l.has.layout] = append(returned.by[l.has.layout], l.has)
}

// load gives the programs of a spec around these tables. The first brings the
// tables along.
func (s *lent) load(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	key := constantsOf(spec)
	if c := s.loaded[key]; c != nil {
		return c, nil
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: s.maps})
	if err != nil {
		return nil, err
	}
	if s.maps == nil {
		s.maps = make(map[string]*ebpf.Map)
		for name := range spec.Maps {
			if !strings.HasPrefix(name, ".") { // constants are each collection's own
				s.maps[name] = c.DetachMap(name)
			}
		}
	}
	s.loaded[key] = c
	return c, nil
}

// layoutOf names all that makes the tables of a spec what they are.
func layoutOf(spec *ebpf.CollectionSpec) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		fmt.Fprintln(&b, name, m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags)
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) { // an array of programs takes those of one kind
		fmt.Fprintln(&b, name, spec.Programs[name].Type, spec.Programs[name].AttachType)
	}
	return b.String()
}

// constantsOf names all that makes the programs of a spec what they are.
func constantsOf(spec *ebpf.CollectionSpec) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(spec.Variables)) {
		fmt.Fprintf(&b, "%s %x\n", name, spec.Variables[name].Value)
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		p := spec.Programs[name]
		fmt.Fprintln(&b, name, p.Type, p.AttachType, len(p.Instructions))
	}
	return b.String()
}

// wipe makes a map what it was when it was made.
func wipe(m *ebpf.Map) error {
	switch {
	case m.Type() == ebpf.RingBuf:
		return drain(m)
	case m.Flags()&unix.BPF_F_MMAPABLE != 0:
		return inMemory(m, func(mem []byte) { clear(mem) })
	case m.Type() == ebpf.Array && m.ValueSize() == 8: // of which there are many
		keys := make([]uint32, m.MaxEntries())
		for i := range keys {
			keys[i] = uint32(i)
		}
		_, err := m.BatchUpdate(keys, make([]uint64, len(keys)), nil)
		return err
	case m.Type() == ebpf.Array, m.Type() == ebpf.PerCPUArray:
		return eachZero(m)
	}
	keys, err := keysOf(m)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

func eachZero(m *ebpf.Map) error {
	var zero any = make([]byte, m.ValueSize())
	if m.Type() == ebpf.PerCPUArray {
		all := make([][]byte, ebpf.MustPossibleCPU())
		for i := range all {
			all[i] = make([]byte, m.ValueSize())
		}
		zero = all
	}
	for i := range m.MaxEntries() {
		if err := m.Put(i, zero); err != nil {
			return err
		}
	}
	return nil
}

func keysOf(m *ebpf.Map) (keys [][]byte, err error) {
	for k, err := m.NextKeyBytes(nil); k != nil || err != nil; k, err = m.NextKeyBytes(k) {
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// inMemory calls f with all of a map's values.
func inMemory(m *ebpf.Map, f func([]byte)) error {
	stride := (uintptr(m.ValueSize()) + 7) &^ 7
	mem, err := mapArray(m, uintptr(m.MaxEntries())*stride, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return err
	}
	f(mem)
	return unix.Munmap(mem)
}

// drain takes out of a ring what is in it.
func drain(ring *ebpf.Map) error {
	r, err := ringbuf.NewReader(ring)
	if err != nil {
		return err
	}
	defer r.Close()
	r.SetDeadline(time.Unix(1, 0))
	for err == nil {
		_, err = r.Read()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// isNew says whether nothing was ever written to a map, as far as one can tell.
func isNew(t *testing.T, m *ebpf.Map) (fresh bool) {
	t.Helper()
	fresh = true
	zero := func(b []byte) {
		fresh = fresh && !slices.ContainsFunc(unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), len(b)/8), func(w uint64) bool { return w != 0 })
	}
	switch {
	case m.Type() == ebpf.RingBuf:
		r, err := ringbuf.NewReader(m)
		check(t, err)
		defer r.Close()
		return r.AvailableBytes() == 0
	case m.Flags()&unix.BPF_F_MMAPABLE != 0:
		check(t, inMemory(m, zero))
	case m.Type() == ebpf.Array:
		for i := range m.MaxEntries() {
			b, err := m.LookupBytes(i)
			check(t, err)
			fresh = fresh && strings.Trim(string(b), "\x00") == ""
		}
	case m.Type() == ebpf.PerCPUArray:
		for i := range m.MaxEntries() {
			var all [][]byte
			check(t, m.Lookup(i, &all))
			for _, b := range all {
				fresh = fresh && strings.Trim(string(b), "\x00") == ""
			}
		}
	default:
		keys, err := keysOf(m)
		check(t, err)
		for _, k := range keys { // those of arrays are always there
			if m.Type() != ebpf.ArrayOfMaps && m.Type() != ebpf.ProgramArray {
				return false
			}
			var id uint32
			err := m.Lookup(k, &id)
			fresh = fresh && errors.Is(err, ebpf.ErrKeyNotExist)
		}
	}
	return fresh
}

// What one plane leaves in the tables the next must not find.
func TestLentTablesAreAsNew(t *testing.T) {
	needKernel(t)
	l := &lender{}
	d, err := OpenDetached(Options{Mode: dataplane.Enforce, maxRules: 4000, lend: l.load}, false)
	check(t, err)
	soil(t, fixture{Detached: d})
	check(t, d.Close())
	var touched []string
	for name, m := range l.has.maps {
		if !isNew(t, m) {
			touched = append(touched, name)
		}
	}
	slices.Sort(touched)
	for _, name := range []string{
		kernelMapAddrs, kernelMapBulkCells, kernelMapBulkHeads, kernelMapBulkHits, kernelMapCells, kernelMapEvents, kernelMapFlowBuckets, kernelMapFlowEggs,
		kernelMapFlowSeed, kernelMapFlowSlots, kernelMapNevers, kernelMapPrefixes, kernelMapRuleMarks, kernelMapSettings, kernelMapTotals, kernelMapVerdicts,
	} {
		if !slices.Contains(touched, name) {
			t.Errorf("%s was not touched: wiping it says nothing (touched: %s)", name, touched)
		}
	}
	l.giveBack(t)
	for name, m := range l.has.maps {
		if !isNew(t, m) {
			t.Errorf("%s is not as new", name)
		}
	}
}

// soil leaves traces in as many tables as it can.
func soil(t *testing.T, f fixture) {
	t.Helper()
	expires := time.Now().Add(time.Hour)
	a, b := endpoint("10.0.0.1:4000"), endpoint("192.0.2.1:443")
	key, _ := flow.NewKey(a, endpoint("192.0.2.9:443"), flow.TCP)
	check(t, f.Apply(
		dataplane.Rule{Target: dataplane.Peer(b.Addr()), Action: dataplane.Observe, Expires: expires, Reason: 1},
		dataplane.Rule{Target: dataplane.Target{Flow: key}, Action: dataplane.Suspend, Expires: expires, Reason: 2},
		dataplane.Rule{Target: dataplane.Target{Prefix: netip.MustParsePrefix("203.0.113.0/24")}, Action: dataplane.Block, Expires: expires, Reason: 3},
	))
	check(t, f.SetNever([]dataplane.Never{{Prefix: netip.MustParsePrefix("192.0.2.7/32")}}))
	check(t, f.SetFlood(dataplane.Flood{Service: 5, Source: 5}))
	check(t, f.ReplaceBulk([]dataplane.Listed{{Prefix: dataplane.Peer(endpoint("198.51.100.1:1").Addr()).Prefix, Expires: expires}}))
	s := planetest.NewSession(a, b)
	for _, step := range append(s.Open(), s.Data(0, []byte("x"))) {
		inject(t, f, step)
	}
	for _, from := range []string{"198.51.100.1:1", "203.0.113.1:1", "192.0.2.7:7"} {
		inject(t, f, planetest.Datagram(dataplane.ToInside, endpoint(from), a, nil))
	}
}
