package xdp

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// fixture is a plane that is loaded but hooked nowhere: packets come by test runs.
type fixture struct {
	*Detached
	mirror func() *ebpf.Program
}

func newFixture(tb testing.TB, o Options) fixture {
	tb.Helper()
	return fixtureOn(tb, o, false)
}

// fixtureOn is for a link whose frames are raw, that is, begin with the IP header.
func fixtureOn(tb testing.TB, o Options, raw bool) fixture {
	tb.Helper()
	needKernel(tb)
	d, err := OpenDetached(o, raw)
	if err != nil {
		tb.Fatalf("%+v", err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return fixture{d, func() *ebpf.Program {
		prog, err := d.mirror()
		if err != nil {
			tb.Fatalf("%+v", err)
		}
		return prog
	}}
}

func TestConformance(t *testing.T) {
	needKernel(t)
	for _, role := range []Role{Inside, Host} {
		t.Run(role.String(), func(t *testing.T) {
			if role == Host && os.Getenv("HEDGEROW_LONG") != "1" {
				t.Skip("the other role runs the same program, and each case has it verified: set HEDGEROW_LONG=1")
			}
			planetest.Run(t, func(t *testing.T, mode dataplane.Mode) planetest.Fixture {
				return newFixture(t, Options{Mode: mode, Role: role})
			})
		})
	}
}
