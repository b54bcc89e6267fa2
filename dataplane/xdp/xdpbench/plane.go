package xdpbench

import (
	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
)

// Plane is the shipped plane, loaded for measuring: it enforces, and faces the
// outside.
type Plane struct{ *xdp.Measured }

// LoadPlane loads one with tables for so many flows and, if rules is not 0, so
// many single rules of each kind.
func LoadPlane(flows, rules uint32) (*Plane, error) {
	m, err := xdp.LoadMeasured(xdp.Options{Role: xdp.Host, Mode: dataplane.Enforce, MaxFlows: flows}, rules)
	if err != nil {
		return nil, err
	}
	return &Plane{m}, nil
}

// ObjectHash names the embedded programs.
func ObjectHash() string { return xdp.ObjectHash() }
