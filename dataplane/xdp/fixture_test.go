package xdp

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// fixture is a plane that is loaded but hooked nowhere: packets come by test runs.
type fixture struct {
	*Plane
	// mirror is the XDP program over the same maps, set to the direction of TCX:
	// a test run for TCX refuses frames whose IP header is cut.
	mirror func() *ebpf.Program
}

func newFixture(tb testing.TB, o Options) fixture {
	tb.Helper()
	needKernel(tb)
	if o.Interface == "" {
		o.Interface = "lo"
	}
	o = o.withDefaults()
	var undo undoStack
	p, err := load(o, pins{}, &undo)
	if err != nil {
		undo.run(o.Log)
		tb.Fatalf("%+v", err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	p.at[0].mode = "test run"
	return fixture{p, sync.OnceValue(func() *ebpf.Program { return loadMirror(tb, p) })}
}

func loadMirror(tb testing.TB, p *Plane) *ebpf.Program {
	tb.Helper()
	spec, err := makeSpec(p.o, p.o.Role)
	if err != nil {
		tb.Fatal(err)
	}
	_, tcxHook := p.o.Role.hooks()
	if err := spec.Variables[kernelVarXdpHook].Set(uint8(tcxHook)); err != nil {
		tb.Fatal(err)
	}
	delete(spec.Programs, kernelProgHedgerowTcx)
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: p.maps()})
	if err != nil {
		tb.Fatalf("%+v", err)
	}
	tb.Cleanup(coll.Close)
	return coll.Programs[kernelProgHedgerowXdp]
}

// Inject runs the program of the hook that packets of this direction meet.
func (f fixture) Inject(hook dataplane.Hook, frame []byte) (bool, error) {
	xdpHook, _ := f.o.Role.hooks()
	if hook == xdpHook {
		ret, err := runOn(f.objs.HedgerowXdp, frame)
		return ret == 2, err
	}
	ret, err := runOn(f.objs.HedgerowTcx, frame)
	if errors.Is(err, syscall.EINVAL) {
		ret, err = runOn(f.mirror(), frame)
		return ret == 2, err
	}
	return int32(ret) == -1, err
}

func runOn(prog *ebpf.Program, frame []byte) (uint32, error) {
	ret, err := prog.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		return 0, fmt.Errorf("test run of %d bytes: %w", len(frame), err)
	}
	return ret, nil
}

func (f fixture) Poll(handle func(*dataplane.Event)) error { return f.poll(handle) }

func TestConformance(t *testing.T) {
	needKernel(t)
	for _, role := range []Role{Inside, Host} {
		t.Run(role.String(), func(t *testing.T) {
			if role == Host && testing.Short() {
				t.Skip("short: the other role runs the same program")
			}
			planetest.Run(t, func(t *testing.T, mode dataplane.Mode) planetest.Fixture {
				return newFixture(t, Options{Mode: mode, Role: role})
			})
		})
	}
}
