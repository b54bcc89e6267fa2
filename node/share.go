package node

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
)

// mayShare says, before anything is done, why an operator's order cannot go to
// the other sites. Its reason is put into the form in which it would.
func (n *Node) mayShare(o *enforce.Order) error {
	if n.member == nil {
		return errors.New("share: this site is alone: [[mesh.peer]] in the configuration names others")
	}
	if o.Action != dataplane.Block {
		return fmt.Errorf("share: %s: only a block is shared", o.Action)
	}
	typ, value := enforce.ShareValue(o.Target)
	if typ == "" {
		return fmt.Errorf("share: %s: expected an address, a network or a service", o.Target)
	}
	if _, err := wire.ParseValue(wire.Type(typ), value); err != nil {
		return fmt.Errorf("share: %v", err)
	}
	if o.For > wire.MaxLife {
		return fmt.Errorf("share: --for %s: expected at most %s: block it again before that ends", o.For, wire.MaxLife)
	}
	o.Reason = wire.Sanitise(o.Reason)
	if strings.TrimSpace(o.Reason) == "" {
		return errors.New("share: a reason is required: other operators will read it (--reason 'why')")
	}
	return nil
}
