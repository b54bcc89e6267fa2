package node

import (
	"fmt"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// floodEvery is how often one kind of flood is logged; figures are in the status
// and the metrics.
const floodEvery = time.Minute

// setFlood hands the bounds for floods to the plane.
func (n *Node) setFlood(f *dataplane.Flood) error {
	for _, d := range f.Dark {
		for _, a := range n.o.Own {
			if d.Contains(a) {
				return fmt.Errorf("flood.dark: %s holds %s, an address of this machine: name only addresses that nobody uses", d, a)
			}
		}
	}
	if g, ok := n.o.Plane.(dataplane.FloodGuard); ok {
		if err := g.SetFlood(*f); err != nil {
			return fmt.Errorf("plane: %v", err)
		}
	}
	return nil
}

// toldFlood logs what a flood ran into. The packet at hand may be anybody's, so
// its source is not named. The caller holds the lock.
func (n *Node) toldFlood(now time.Time, ev *dataplane.Event) {
	k := int(ev.Flood) % dataplane.FloodKinds
	if now.Sub(n.floodTold[k]) < floodEvery {
		return
	}
	n.floodTold[k] = now
	n.log.Warn("a flood meets its bound", telemetry.KeyReason, floodWords[k],
		telemetry.KeyTarget, ev.Record.Responder().String(), telemetry.KeyMode, ev.Mode.String())
}

var floodWords = [dataplane.FloodKinds]string{
	dataplane.FloodNone:       "a flood of an unknown kind",
	dataplane.OverSource:      "a source opens more flows than flood.source allows",
	dataplane.OverSourceNet:   "a source network opens more flows than flood.source_net allows",
	dataplane.OverService:     "a service gets more new flows than flood.service allows",
	dataplane.OverDestination: "an address gets more new flows than flood.destination allows",
	dataplane.BreakerOpened:   "more new flows than flood.breaker: what is unknown is not followed for now",
	dataplane.BreakerClosed:   "new flows are followed again",
	dataplane.Challenged:      "unknown clients of a protected service are asked to prove their address",
}
