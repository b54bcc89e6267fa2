package xdp

import (
	"net/netip"
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
	var l lender
	if _, bench := tb.(*testing.B); !bench && o.spoil == nil {
		o.lend = l.load
	}
	d, err := OpenDetached(o, raw)
	if err != nil {
		tb.Fatalf("%+v", err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
		l.giveBack(tb)
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

// placeContext is the head of struct __sk_buff that a test run takes: all else
// must be zero.
type placeContext struct {
	_              [9]uint32
	IngressIfindex uint32
	_              [38]uint32
}

// See shows a frame at an interface of a role.
func (f fixture) See(at planetest.Sight, frame []byte) (bool, error) {
	role, err := ParseRole(at.Role)
	if err != nil {
		return false, err
	}
	progs, err := f.programs(variant{role: role})
	if err != nil {
		return false, err
	}
	if !at.Egress {
		return runXDP(progs.HedgerowXdp, frame)
	}
	var from placeContext
	if at.Received {
		from.IngressIfindex = 7
	}
	ret, err := progs.HedgerowTcx.Run(&ebpf.RunOptions{Data: frame, Context: from})
	return int32(ret) == tcxNext, err
}

func TestPlacement(t *testing.T) {
	needKernel(t)
	planetest.RunPlaced(t, func(t *testing.T, p planetest.Placement) planetest.Placed {
		o := Options{Mode: p.Mode, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
		for i, name := range p.Roles {
			role, err := ParseRole(name)
			check(t, err)
			if i == 0 {
				o.Role = role
			} else {
				o.Also = append(o.Also, Attach{name, role})
			}
		}
		return newFixture(t, o)
	})
}
