package softplane_test

import (
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// fixture shows the plane frames at the time that the wall clock says.
type fixture struct{ *softplane.Plane }

func (f fixture) Inject(hook dataplane.Hook, frame []byte) (bool, error) {
	return f.Frame(hook, softplane.Ethernet, frame, 0, time.Now()), nil
}

func (f fixture) Poll(handle func(*dataplane.Event)) error {
	f.Drain(handle)
	return nil
}

func TestConformance(t *testing.T) {
	planetest.Run(t, func(t *testing.T, mode dataplane.Mode) planetest.Fixture {
		return openFixture(t, softplane.Options{Mode: mode})
	})
}

func openFixture(t *testing.T, o softplane.Options) fixture {
	t.Helper()
	p, err := softplane.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return fixture{p}
}

// See shows a frame at an interface of a role.
func (f fixture) See(at planetest.Sight, frame []byte) (bool, error) {
	roles := map[string]softplane.Role{"inside": softplane.Inside, "host": softplane.Host, "outside": softplane.Outside, "sensor": softplane.Sensor}
	where := softplane.Sight{Role: roles[at.Role], Egress: at.Egress, Received: at.Received}
	return f.At(where, softplane.Ethernet, frame, 0, time.Now()), nil
}

func TestPlacement(t *testing.T) {
	planetest.RunPlaced(t, func(t *testing.T, o planetest.Placement) planetest.Placed {
		return openFixture(t, softplane.Options{Mode: o.Mode, Outside: slices.Contains(o.Roles, "outside")})
	})
}
