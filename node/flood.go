package node

import (
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

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

// lookAtFloods compares the plane's totals with those of a moment ago, and tells
// what began, goes on or is over.
func (n *Node) lookAtFloods() {
	g, ok := n.o.Plane.(dataplane.FloodGuard)
	if !ok {
		return
	}
	totals, err := g.FloodTotals()
	if err != nil {
		n.log.Error("totals of floods were not read", telemetry.KeyErr, err)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.floods.look(n.now(), &totals, &n.o.Flood, n.machine.Mode()) {
		n.outbox.put(job{emit: e})
	}
}

// beginFloods ends the records of floods that an earlier process did not see the
// end of, and counts from here.
func (n *Node) beginFloods() error {
	n.lookAtFloods()
	es, err := n.o.Store.Events(store.Query{Kinds: []event.Kind{event.KindFlood}, Limit: 100, Reverse: true})
	if err != nil {
		return fmt.Errorf("node: %v", err)
	}
	for _, e := range es {
		if e.Flood.State != floodOpen {
			continue
		}
		closed, body := *e, *e.Flood
		body.State = floodClosed
		closed.Flood, closed.Time = &body, n.now()
		n.outbox.put(job{emit: &closed})
	}
	return nil
}

// flood is the flood of an id, as it is now; nil when the id names none.
func (n *Node) flood(id string) *event.Event {
	e, err := n.o.Store.Event(id)
	if err != nil || e.Flood == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, now := range n.floods.open(n.now(), &n.o.Flood) {
		if now.ID == e.ID {
			return now
		}
	}
	return e
}
