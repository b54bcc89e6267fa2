package xdp

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Plane is the kernel's packet path on one interface.
type Plane struct {
	o      Options
	log    *slog.Logger
	iface  *net.Interface
	clock  bootClock
	objs   kernelObjects
	reader *ringbuf.Reader

	xdp, tcx   link.Link
	attachMode string
	pins       pins

	running atomic.Bool

	bulk bulk // has its own lock, taken ahead of mu

	mu     sync.Mutex // all below
	closed bool
	cfg    kernelConfig
	rules  map[dataplane.Target]entry
	count  [tables]int
	flood  kernelFloodConfig
	epoch  uint64 // whose keys were drawn last
}

var _ dataplane.Plane = (*Plane)(nil)

// Open loads the programs and hooks them to the interface, or takes over what
// an earlier process pinned there. It attaches wholly or not at all: on error,
// what was there before is there still. It wraps [dataplane.ErrUnsupported]
// when the kernel or the link cannot do what is needed.
func Open(o Options) (*Plane, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	iface, err := findInterface(o.Interface)
	if err != nil {
		return nil, err
	}
	if o.rawLink, err = rawLink(iface); err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Interface, err)
	}
	// From here on the system is touched.
	var undo undoStack
	p, err := open(o, iface, &undo)
	if err != nil {
		undo.run(o.Log)
		return nil, fmt.Errorf("open %s: %w", o.Interface, err)
	}
	undo.release(o.Log)
	return p, nil
}

func open(o Options, iface *net.Interface, undo *undoStack) (*Plane, error) {
	found, err := findPins(o.PinDir, o.Interface)
	if err != nil {
		return nil, err
	}
	p, err := load(o, iface, found, undo)
	if err != nil {
		return nil, err
	}
	if err := p.attach(undo); err != nil {
		return nil, err
	}
	if err := p.settle(); err != nil {
		return nil, err
	}
	p.pins.removeOld(p.log)
	return p, nil
}

// load brings programs and maps into the kernel, without hooking them anywhere.
func load(o Options, iface *net.Interface, at pins, undo *undoStack) (*Plane, error) {
	p := &Plane{o: o, log: o.Log, iface: iface, pins: at, rules: make(map[dataplane.Target]entry)}
	p.clock.adjust()
	spec, err := makeSpec(o)
	if err != nil {
		return nil, err
	}
	reuse, err := p.pins.loadMaps(spec)
	if err != nil {
		return nil, err
	}
	defer closeMaps(reuse)
	if err := spec.LoadAndAssign(&p.objs, &ebpf.CollectionOptions{MapReplacements: reuse}); err != nil {
		return nil, loadError(err)
	}
	undo.add(p.objs.Close)
	if err := p.bulk.open(&p.objs.kernelMaps, spec); err != nil {
		return nil, err
	}
	undo.add(p.bulk.close)
	if err := p.restore(len(reuse) > 0); err != nil {
		return nil, err
	}
	if err := p.pins.pinMaps(p.maps(), reuse, undo); err != nil {
		return nil, err
	}
	p.reader, err = ringbuf.NewReader(p.objs.Events)
	if err != nil {
		return nil, fmt.Errorf("open event ring: %w", err)
	}
	undo.add(p.reader.Close)
	return p, nil
}

// makeSpec is the embedded object, set to the options.
func makeSpec(o Options) (*ebpf.CollectionSpec, error) {
	spec, err := loadKernel()
	if err != nil {
		return nil, fmt.Errorf("read embedded programs: %w", err)
	}
	xdpHook, tcxHook := o.Role.hooks()
	err = errors.Join(
		spec.Variables[kernelVarXdpHook].Set(uint8(xdpHook)),
		spec.Variables[kernelVarTcxHook].Set(uint8(tcxHook)),
		spec.Variables[kernelVarLinkRaw].Set(o.rawLink))
	if err != nil {
		return nil, fmt.Errorf("set direction of hooks and kind of link: %w", err)
	}
	spec.Maps[kernelMapFlows].MaxEntries = o.MaxFlows
	if o.maxRules > 0 {
		for _, name := range []string{kernelMapVerdicts, kernelMapAddrs, kernelMapPairs, kernelMapPrefixes, kernelMapNevers, kernelMapRemedies} {
			spec.Maps[name].MaxEntries = o.maxRules
		}
	}
	return spec, nil
}

func loadError(err error) error {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		return fmt.Errorf("load programs: %w: this kernel's verifier refuses them (6.1 or later is needed): %w", dataplane.ErrUnsupported, err)
	}
	return fmt.Errorf("load programs: %w: run as root or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN", err)
}

// restore learns from reused maps what is in them; new ones it sets up.
func (p *Plane) restore(reused bool) error {
	if !reused {
		return p.settle()
	}
	if err := p.objs.Settings.Lookup(uint32(0), &p.cfg); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	if err := p.objs.Floods.Lookup(uint32(0), &p.flood); err != nil {
		return fmt.Errorf("read flood settings: %w", err)
	}
	return errors.Join(p.adopt(), p.bulk.adopt(p.cfg.Bulk))
}

// settle writes the options' settings. On a takeover that waits until the
// programs are in place: a failed one changes nothing.
func (p *Plane) settle() error {
	p.cfg.Mode = uint32(p.o.Mode)
	p.cfg.EventRate = p.o.EventRate
	return p.writeConfig()
}

// maps are those that outlive the process, by name.
func (p *Plane) maps() map[string]*ebpf.Map {
	m := &p.objs.kernelMaps
	return map[string]*ebpf.Map{
		kernelMapBulkHeads: m.BulkHeads, kernelMapBulkCells: m.BulkCells, kernelMapBulkHits: m.BulkHits,
		kernelMapAddrs: m.Addrs, kernelMapBudget: m.Budget, kernelMapEvents: m.Events, kernelMapFlows: m.Flows,
		kernelMapCells: m.Cells, kernelMapFloods: m.Floods, kernelMapFloodNow: m.FloodNow,
		kernelMapFloodTotals: m.FloodTotals, kernelMapGuards: m.Guards, kernelMapProofs: m.Proofs,
		kernelMapNevers: m.Nevers, kernelMapPairs: m.Pairs, kernelMapQueries: m.Queries, kernelMapPrefixes: m.Prefixes,
		kernelMapRemedies: m.Remedies, kernelMapSettings: m.Settings,
		kernelMapTotals: m.Totals, kernelMapVerdicts: m.Verdicts,
	}
}

func closeMaps(m map[string]*ebpf.Map) {
	for one := range maps.Values(m) {
		one.Close()
	}
}

// Close implements [dataplane.Plane]. With a pin folder the kernel goes on
// enforcing; without one this detaches. Closing twice is fine.
func (p *Plane) Close() error {
	err := p.shut()
	return errors.Join(err, p.bulk.close())
}

func (p *Plane) shut() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return errors.Join(p.reader.Close(), closeLink(p.xdp), closeLink(p.tcx), p.objs.Close())
}

func closeLink(l link.Link) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// Detach ends enforcement on the interface: links are cut, pins removed, and
// the plane is closed.
func (p *Plane) Detach() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return dataplane.ErrClosed
	}
	var errs []error
	for _, l := range []link.Link{p.xdp, p.tcx} {
		if l == nil {
			continue
		}
		if err := l.Detach(); err != nil && !errors.Is(err, link.ErrNotSupported) {
			errs = append(errs, err)
		}
	}
	p.mu.Unlock()
	if err := errors.Join(append(errs, p.pins.remove(), p.Close())...); err != nil {
		return fmt.Errorf("detach from %s: %w", p.o.Interface, err)
	}
	return nil
}

// undoStack holds what a failed Open must take back, last first, and what is
// held only for that.
type undoStack struct {
	back []func() error
	held []io.Closer
}

func (u *undoStack) add(f func() error) { u.back = append(u.back, f) }

func (u *undoStack) hold(c io.Closer) { u.held = append(u.held, c) }

// run takes everything back.
func (u *undoStack) run(log *slog.Logger) {
	for _, f := range slices.Backward(u.back) {
		if err := f(); err != nil {
			log.Warn("undoing a failed attach", "error", err)
		}
	}
	u.release(log)
}

// release lets go of what a way back would have needed.
func (u *undoStack) release(log *slog.Logger) {
	for _, c := range u.held {
		if err := c.Close(); err != nil {
			log.Warn("closing an earlier program", "error", err)
		}
	}
}
