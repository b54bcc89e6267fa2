package softplane_test

import (
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
		p, err := softplane.Open(softplane.Options{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		return fixture{p}
	})
}
