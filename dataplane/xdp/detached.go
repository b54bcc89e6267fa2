package xdp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"syscall"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Lengths of frames that the kernel takes for a test run.
const (
	MinInject = 14
	MaxInject = 70000
)

// Detached is a plane whose programs are in the kernel but hooked nowhere:
// frames come by Inject and run through the very programs that Open attaches.
// Benchmarks and comparisons with other planes need it. It pins nothing.
type Detached struct {
	*Plane
	mirrored *ebpf.Program
}

// OpenDetached loads programs and maps. raw says that frames begin with the IP
// header instead of Ethernet. Interface and PinDir of the options are not used.
func OpenDetached(o Options, raw bool) (*Detached, error) {
	o.Interface, o.PinDir = "lo", ""
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	var undo undoStack
	var at []*attachment
	for _, a := range o.all() {
		at = append(at, &attachment{Attach: a, raw: raw, mode: "test run"})
	}
	p, err := load(o, at, pins{}, &undo)
	if err != nil {
		undo.run(o.Log)
		return nil, fmt.Errorf("open detached: %w", err)
	}
	if err := p.placeActors(); err != nil {
		undo.run(o.Log)
		return nil, fmt.Errorf("open detached: %w", err)
	}
	undo.release(o.Log)
	return &Detached{Plane: p}, nil
}

// Inject shows a frame of MinInject to MaxInject bytes to the program that
// frames of this direction meet, and says whether it passed. One goroutine at a
// time.
func (d *Detached) Inject(hook dataplane.Hook, frame []byte) (passed bool, err error) {
	xdpHook, _ := d.o.Role.hooks()
	if hook == xdpHook {
		return runXDP(d.objs.HedgerowXdp, frame)
	}
	if !d.first.raw && len(frame) <= maxSkbRun {
		ret, err := runOn(d.objs.HedgerowTcx, frame)
		if !errors.Is(err, syscall.EINVAL) {
			return int32(ret) == tcxNext, err
		}
	}
	prog, err := d.mirror()
	if err != nil {
		return false, err
	}
	return runXDP(prog, frame)
}

// What the programs return for a packet that may go on, and what a test run
// takes as an skb at most.
const (
	xdpPass   = 2
	tcxNext   = -1
	maxSkbRun = 3500
)

func runXDP(prog *ebpf.Program, frame []byte) (bool, error) {
	ret, err := runOn(prog, frame)
	return ret == xdpPass, err
}

func runOn(prog *ebpf.Program, frame []byte) (uint32, error) {
	ret, err := prog.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		return 0, fmt.Errorf("test run of %d bytes: %w", len(frame), err)
	}
	return ret, nil
}

// mirror is the XDP program over the same maps, set to the direction of TCX: a
// test run for TCX takes neither frames whose IP header is cut, nor long ones,
// nor such without Ethernet.
func (d *Detached) mirror() (*ebpf.Program, error) {
	if d.mirrored != nil {
		return d.mirrored, nil
	}
	spec, err := makeSpec(d.o, d.first)
	if err != nil {
		return nil, err
	}
	_, tcxHook := d.o.Role.hooks()
	if err := spec.Variables[kernelVarXdpHook].Set(uint8(tcxHook)); err != nil {
		return nil, fmt.Errorf("set direction: %w", err)
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != kernelProgHedgerowXdp })
	var progs struct {
		XDP *ebpf.Program `ebpf:"hedgerow_xdp"`
	}
	if err := d.o.load(spec, &progs, d.maps()); err != nil {
		return nil, fmt.Errorf("load the mirror program: %w", err)
	}
	d.mirrored = progs.XDP
	return d.mirrored, nil
}

// Poll delivers the events that wait now.
func (d *Detached) Poll(handle func(*dataplane.Event)) error { return d.poll(handle) }

// Flush delivers the events that wait, then ends every flow that is still open
// and delivers those ends. Options.Idle is not asked.
func (d *Detached) Flush(handle func(*dataplane.Event)) error {
	if err := d.poll(handle); err != nil {
		return err
	}
	was := d.o.Idle
	d.o.Idle = Idle{Unanswered: -1, TCP: -1, Other: -1} // even a flow of this very moment
	defer func() { d.o.Idle = was }()
	return d.sweep(context.Background(), handle)
}

// Close releases programs and maps.
func (d *Detached) Close() error {
	var err error
	if d.mirrored != nil {
		err = d.mirrored.Close()
	}
	return errors.Join(err, d.Plane.Close())
}
