package node

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	domains "github.com/hedgerow-mesh/hedgerow/dataplane/names"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
)

// shareDomain blocks a domain here and hands it to the organisation's other sites.
func (n *Node) shareDomain(o api.Order) error {
	a, err := enforce.ParseAction(o.Action)
	if err != nil {
		return forAPI(err)
	}
	name, err := domains.Normalise(o.Target)
	if err != nil {
		return forAPI(err)
	}
	d := time.Duration(o.Seconds * float64(time.Second))
	if err := n.mayShareValue(a, string(wire.TypeDomain), name, d, &o.Reason); err != nil {
		return forAPI(err)
	}
	if _, ok := n.o.Plane.(dataplane.Names); !ok {
		return forAPI(fmt.Errorf("domain %s: this packet path shows no DNS answers", name))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	fx, err := n.machine.BlockDomain(n.now(), name, d, o.Reason)
	if err != nil {
		return forAPI(err)
	}
	n.act(append(fx, n.machine.ShareDomain(name)...))
	return n.watchNames()
}

// mayShare says, before anything is done, why an operator's order cannot go to
// the other sites. Its reason is put into the form in which it would.
func (n *Node) mayShare(o *enforce.Order) error {
	typ, value := enforce.ShareValue(o.Target)
	if typ == "" && n.member != nil && o.Action == dataplane.Block {
		return fmt.Errorf("share: %s: expected an address, a network or a service", o.Target)
	}
	return n.mayShareValue(o.Action, typ, value, o.For, &o.Reason)
}

// mayShareValue is mayShare of any kind of value.
func (n *Node) mayShareValue(a dataplane.Action, typ, value string, d time.Duration, reason *string) error {
	if n.member == nil {
		return errors.New("share: this site is alone: [[mesh.peer]] in the configuration names others")
	}
	if a != dataplane.Block {
		return fmt.Errorf("share: %s: only a block is shared", a)
	}
	if _, err := wire.ParseValue(wire.Type(typ), value); err != nil {
		return fmt.Errorf("share: %v", err)
	}
	if d > wire.MaxLife {
		return fmt.Errorf("share: --for %s: expected at most %s: block it again before that ends", d, wire.MaxLife)
	}
	*reason = wire.Sanitise(*reason)
	if strings.TrimSpace(*reason) == "" {
		return errors.New("share: a reason is required: other operators will read it (--reason 'why')")
	}
	return nil
}
