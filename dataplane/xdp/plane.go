package xdp

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netns"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Plane is the kernel's packet path on one or several interfaces.
type Plane struct {
	o      Options
	log    *slog.Logger
	clock  bootClock
	objs   kernelObjects // tables, and the programs of the first interface
	first  variant       // of those programs
	spec   *ebpf.CollectionSpec
	reader *ringbuf.Reader
	store  flowStore
	pins   pins
	reused map[string]bool // tables that are pinned in this version's folder already
	ns     netns.NsHandle  // where the interfaces are

	supersedes bool // an earlier process pinned tables of another version

	hellos       hellos
	running      atomic.Bool
	linksChanged atomic.Bool

	bulk    bulk    // has its own lock, taken ahead of mu
	scoring scoring // likewise; its last is mu's

	mu     sync.Mutex // all below
	closed bool
	hooked bool
	at     []*attachment
	more   map[variant]*kernelPrograms // beside those of the first interface
	cfg    kernelConfig
	rules  map[dataplane.Target]entry
	marks  marks
	buf    ruleBuf
	count  [tables]int
	flood  kernelFloodConfig
	epoch  uint64 // whose keys were drawn last
}

var _ dataplane.Plane = (*Plane)(nil)

// Open is Load and Attach in one. On error, what was there before is there
// still.
func Open(o Options) (*Plane, error) {
	p, err := Load(o)
	if err != nil {
		return nil, err
	}
	if err := p.Attach(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Load brings programs and tables into the kernel, or opens the tables that an
// earlier process pinned, and hooks nothing: rules can be applied before the
// first packet meets them. It wraps [dataplane.ErrUnsupported] when the kernel
// or a link cannot do what is needed, and a *[HeldError] when another process
// works on the pin folder.
func Load(o Options) (*Plane, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	at, err := survey(o)
	if err != nil {
		return nil, err
	}
	if err := Privileged(); err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Interface, err)
	}
	found, err := findPins(o.PinDir)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Interface, err)
	}
	// From here on the system is touched.
	if err := found.acquire(); err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Interface, err)
	}
	var undo undoStack
	p, err := load(o, at, found, &undo)
	if err != nil {
		undo.run(o.Log)
		found.release()
		found.unmake()
		return nil, fmt.Errorf("open %s: %w", o.Interface, err)
	}
	undo.release(o.Log)
	return p, nil
}

// Supersedes says that Attach will replace programs that work on other tables:
// what is not in this plane's by then is enforced no longer.
func (p *Plane) Supersedes() bool { return p.supersedes }

// Attach hooks the programs to every interface, or swaps them into the links
// that an earlier process pinned: wholly or not at all. Only then do the
// options' settings hold, and are tables of other versions removed.
func (p *Plane) Attach() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return dataplane.ErrClosed
	case p.hooked:
		return errors.New("attach: is attached already")
	}
	var undo undoStack
	if err := p.attachAll(&undo); err != nil {
		_ = p.inNamespace(func() error { undo.run(p.log); return nil })
		for _, a := range p.at {
			a.xdp, a.egress, a.hold = nil, nil, nil
		}
		return err
	}
	p.hooked = true
	for _, a := range p.at {
		a.down = ""
	}
	undo.release(p.log)
	p.pins.removeOld(p.o.all(), p.log)
	return nil
}

func (p *Plane) attachAll(undo *undoStack) error {
	if err := p.pins.pinMaps(p.spec, p.maps(), p.reused, undo); err != nil {
		return fmt.Errorf("open %s: %w", p.o.Interface, err)
	}
	if err := p.placeActors(); err != nil {
		return fmt.Errorf("open %s: %w", p.o.Interface, err)
	}
	for _, a := range p.at {
		if err := p.inNamespace(func() error { return p.hook(a, undo) }); err != nil {
			return fmt.Errorf("open %s: %w", a.Interface, err)
		}
	}
	return p.settle()
}

// load brings programs and maps into the kernel, without hooking them anywhere.
func load(o Options, at []*attachment, pinned pins, undo *undoStack) (*Plane, error) {
	p := &Plane{o: o, log: o.Log, pins: pinned, at: at, rules: make(map[dataplane.Target]entry), more: make(map[variant]*kernelPrograms)}
	p.clock.adjust()
	for _, a := range at {
		a.pins = pinned.links(a.Interface)
	}
	var err error
	p.first = at[0].variant()
	if p.spec, err = makeSpec(o, p.first); err != nil {
		return nil, err
	}
	if err := p.loadObjects(undo); err != nil {
		return nil, err
	}
	for _, a := range p.at {
		if err := p.loadVariant(a.variant(), undo); err != nil {
			return nil, err
		}
	}
	p.store, err = openFlowStore(&p.objs.kernelMaps, o.MaxFlows, o.lruFlows)
	if err != nil {
		return nil, err
	}
	undo.add(p.store.close)
	p.reader, err = ringbuf.NewReader(p.objs.Events)
	if err != nil {
		return nil, fmt.Errorf("open event ring: %w", err)
	}
	undo.add(p.reader.Close)
	if p.ns, err = netns.Get(); err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	undo.add(p.ns.Close)
	return p, nil
}

// loadObjects makes or takes over the tables, and loads the first role's
// programs around them.
func (p *Plane) loadObjects(undo *undoStack) error {
	reuse, err := p.pins.loadMaps(p.spec)
	if err != nil {
		return err
	}
	defer func() { closeMaps(reuse) }()
	p.reused = make(map[string]bool, len(reuse))
	for name := range reuse {
		p.reused[name] = true
	}
	if len(reuse) == 0 && p.pins.base != "" {
		p.supersedes = len(p.pins.oldTables(p.o.all())) > 0
		reuse = p.pins.carry(p.spec, p.o.all())
	}
	if err := p.o.load(p.spec, &p.objs, reuse); err != nil {
		return loadError(err)
	}
	undo.add(p.objs.Close)
	if err := p.bulk.open(&p.objs.kernelMaps, p.spec); err != nil {
		return err
	}
	undo.add(p.bulk.close)
	if err := p.marks.open(p.objs.RuleMarks); err != nil {
		return err
	}
	undo.add(p.marks.close)
	if err := p.restore(len(reuse) > 0); err != nil {
		return err
	}
	return p.setNetworks()
}

// variant is what the programs of an interface are made for.
type variant struct {
	role Role
	raw  bool // frames begin with the IP header
}

func (a *attachment) variant() variant { return variant{a.Role.program(), a.raw} }

// survey looks at the interfaces before anything is touched.
func survey(o Options) ([]*attachment, error) {
	var at []*attachment
	for _, a := range o.all() {
		iface, err := findInterface(a.Interface)
		if err != nil {
			return nil, err
		}
		raw, err := rawLink(iface)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", a.Interface, err)
		}
		at = append(at, &attachment{Attach: a, raw: raw, down: "not attached yet"})
	}
	return at, nil
}

// loadVariant loads the programs of a further interface around the same tables.
func (p *Plane) loadVariant(v variant, undo *undoStack) error {
	if v == p.first || p.more[v] != nil {
		return nil
	}
	spec, err := makeSpec(p.o, v)
	if err != nil {
		return err
	}
	progs := new(kernelPrograms)
	if err := p.o.load(spec, progs, p.shared()); err != nil {
		return loadError(err)
	}
	undo.add(progs.Close)
	p.more[v] = progs
	return nil
}

// programs are those of a variant.
func (p *Plane) programs(v variant) (*kernelPrograms, error) {
	if v == p.first {
		return &p.objs.kernelPrograms, nil
	}
	progs := p.more[v]
	if progs == nil {
		return nil, fmt.Errorf("the interface is of another kind than at the start: start again")
	}
	return progs, nil
}

// shared are all maps, by name.
func (p *Plane) shared() map[string]*ebpf.Map {
	all := make(map[string]*ebpf.Map)
	v := reflect.ValueOf(&p.objs.kernelMaps).Elem()
	for i := range v.NumField() {
		if m, ok := v.Field(i).Interface().(*ebpf.Map); ok {
			all[v.Type().Field(i).Tag.Get("ebpf")] = m
		}
	}
	return all
}

// makeSpec is the embedded object, set to the options and a variant.
func makeSpec(o Options, v variant) (*ebpf.CollectionSpec, error) {
	spec, err := loadKernel()
	if err != nil {
		return nil, fmt.Errorf("read embedded programs: %w", err)
	}
	xdpHook, tcxHook := v.role.hooks()
	err = errors.Join(
		spec.Variables[kernelVarXdpHook].Set(uint8(xdpHook)),
		spec.Variables[kernelVarTcxHook].Set(uint8(tcxHook)),
		spec.Variables[kernelVarRole].Set(kernelRoles[v.role]),
		spec.Variables[kernelVarOutside].Set(o.has(Outside)),
		spec.Variables[kernelVarLinkRaw].Set(v.raw))
	if err != nil {
		return nil, fmt.Errorf("set role and kind of link: %w", err)
	}
	if err := sizeFlowTable(spec, o.MaxFlows, o.lruFlows); err != nil {
		return nil, err
	}
	if o.maxRules > 0 {
		for _, name := range []string{kernelMapVerdicts, kernelMapAddrs, kernelMapPairs, kernelMapPrefixes, kernelMapNevers, kernelMapRemedies} {
			spec.Maps[name].MaxEntries = o.maxRules
		}
	}
	if o.clsact {
		spec.Programs[kernelProgHedgerowTcx].AttachType = ebpf.AttachNone
		spec.Programs[kernelProgHedgerowActTcx].AttachType = ebpf.AttachNone
	}
	if o.spoil != nil {
		o.spoil(spec)
	}
	return spec, nil
}

// kernelRoles are the roles' numbers in bpf/place.h.
var kernelRoles = map[Role]uint8{Inside: 0, Host: 1, Outside: 2, Sensor: 3}

func loadError(err error) error {
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		return fmt.Errorf("load programs: %w: this kernel's verifier refuses them (6.1 or later is needed): %w", dataplane.ErrUnsupported, err)
	}
	return fmt.Errorf("load programs: %w: run as root or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN", err)
}

// restore learns from reused maps what is in them; new ones it sets up.
func (p *Plane) restore(reused bool) error {
	if p.reused[kernelMapSettings] {
		if err := p.objs.Settings.Lookup(uint32(0), &p.cfg); err != nil {
			return fmt.Errorf("read settings: %w", err)
		}
		if err := p.objs.Floods.Lookup(uint32(0), &p.flood); err != nil {
			return fmt.Errorf("read flood settings: %w", err)
		}
	} else if err := p.settle(); err != nil {
		return err
	}
	if !reused {
		return nil
	}
	for list, on := range map[*ebpf.Map]*uint32{p.objs.Nevers: &p.cfg.Nevers, p.objs.Remedies: &p.cfg.Remedies} {
		if holds[kernelNeverKey](list) {
			*on = 1
		}
	}
	if err := p.remarkNever(); err != nil {
		return err
	}
	if err := p.writeConfig(); err != nil {
		return err
	}
	return errors.Join(p.adopt(), p.bulk.adopt(p.cfg.Bulk))
}

// settle writes the options' settings. On a takeover that waits until the
// programs are in place: a failed one changes nothing.
func (p *Plane) settle() error {
	p.cfg.Mode = uint32(p.o.Mode)
	p.cfg.EventRate = p.o.EventRate
	p.cfg.FailClosed = uint32(p.o.Fail)
	p.cfg.DeadAfter = uint64(p.o.DeadAfter.Microseconds())
	p.cfg.Beat = uint64(bootNow()) / 1000
	p.cfg.Most = p.longest()
	return p.writeConfig()
}

// longest is the longest packet of any link when one of them is in generic
// mode, where XDP is shown aggregates: what is longer was more than one packet.
// Otherwise it is 0.
func (p *Plane) longest() (most uint32) {
	generic := false
	for _, a := range p.at {
		if a.iface == nil {
			continue
		}
		most = max(most, uint32(a.iface.MTU))
		generic = generic || a.mode == modeGeneric
	}
	if !generic {
		return 0
	}
	return most
}

// maps are those that outlive the process, by name.
func (p *Plane) maps() map[string]*ebpf.Map {
	all := p.shared()
	for _, name := range []string{kernelMapScratch, kernelMapScratchEgg, kernelMapScratchNow, kernelMapScratchPkt} {
		delete(all, name)
	}
	return all
}

func closeMaps(m map[string]*ebpf.Map) {
	for one := range maps.Values(m) {
		one.Close()
	}
}

// Close implements [dataplane.Plane]. With a pin folder the kernel goes on
// enforcing; without one, or before Attach, this detaches. Closing twice is fine.
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
	errs := []error{p.reader.Close()}
	for _, a := range p.at {
		errs = append(errs, p.inNamespace(a.close))
	}
	for _, progs := range p.more {
		errs = append(errs, progs.Close())
	}
	errs = append(errs, p.store.close(), p.marks.close(), p.objs.Close(), p.ns.Close())
	p.pins.release()
	if !p.hooked {
		p.pins.unmake()
	}
	return errors.Join(errs...)
}

// Detach ends enforcement: links are cut, pins removed, and the plane is closed.
func (p *Plane) Detach() error {
	err := p.unhook()
	if errors.Is(err, dataplane.ErrClosed) {
		return err
	}
	return errors.Join(err, p.Close())
}

func (p *Plane) unhook() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	var errs []error
	for _, a := range p.at {
		if err := p.inNamespace(a.detach); err != nil {
			errs = append(errs, fmt.Errorf("detach from %s: %w", a.Interface, err))
		}
	}
	if p.pins.dir != "" {
		errs = append(errs, os.RemoveAll(p.pins.dir))
	}
	return errors.Join(errs...)
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
