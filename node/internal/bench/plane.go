//go:build linux

package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
)

// plane is the shipped program with what it works on.
type plane struct{ *xdpbench.Plane }

type planeOptions struct{ flows, rules uint32 }

func newPlane(o planeOptions) (*plane, error) {
	m, err := xdpbench.LoadPlane(o.flows, o.rules)
	if err != nil {
		return nil, err
	}
	return &plane{m}, nil
}

// list makes addresses and prefixes the bulk set.
func (p *plane) list(addrs []netip.Addr, prefixes []netip.Prefix, until time.Time) error {
	return p.ReplaceBulk(entries(addrs, prefixes, until))
}

func entries(addrs []netip.Addr, prefixes []netip.Prefix, until time.Time) []dataplane.Listed {
	all := make([]dataplane.Listed, 0, len(addrs)+len(prefixes))
	for _, a := range addrs {
		all = append(all, dataplane.Listed{Prefix: netip.PrefixFrom(a, 32), Expires: until, Reason: 7})
	}
	for _, x := range prefixes {
		all = append(all, dataplane.Listed{Prefix: x, Expires: until, Reason: 8})
	}
	return all
}

// single puts them in one by one, into the kernel's own hash and trie.
func (p *plane) single(addrs []netip.Addr, prefixes []netip.Prefix, until time.Time) error {
	all := make([]dataplane.Rule, 0, len(addrs)+len(prefixes))
	for _, e := range entries(addrs, prefixes, until) {
		all = append(all, dataplane.Rule{Target: dataplane.Target{Prefix: e.Prefix}, Action: dataplane.Block, Expires: e.Expires, Reason: e.Reason})
	}
	return p.Apply(all...)
}

// stages switches every stage of the program on, as at a site in service: a few
// single rules of each kind, and a never-block list. None of them is met by the
// packets of a measurement.
func (p *plane) stages() error {
	var rules []dataplane.Rule
	until := time.Now().Add(4 * time.Hour)
	for i := range 64 {
		a := netip.AddrFrom4([4]byte{10, 200, 0, byte(i)})
		at := netip.AddrPortFrom(a, 5000)
		key, _ := flow.NewKey(at, netip.MustParseAddrPort("10.201.0.1:443"), flow.TCP)
		rules = append(rules,
			dataplane.Rule{Target: dataplane.Peer(a), Action: dataplane.Block, Expires: until, Reason: 1},
			dataplane.Rule{Target: dataplane.Target{Prefix: netip.PrefixFrom(a, 32), Port: 22, Proto: flow.TCP}, Action: dataplane.Block, Expires: until, Reason: 2},
			dataplane.Rule{Target: dataplane.Target{Flow: key}, Action: dataplane.Suspend, Expires: until, Reason: 3})
	}
	for i := range 16 {
		pfx := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 202, byte(i), 0}), 24)
		rules = append(rules, dataplane.Rule{Target: dataplane.Target{Prefix: pfx}, Action: dataplane.Block, Expires: until, Reason: 4})
	}
	never := []dataplane.Never{
		{Prefix: netip.MustParsePrefix("10.99.0.2/32"), Proto: flow.TCP, Port: 22},
		{Prefix: netip.MustParsePrefix("10.99.0.1/32")},
		{Prefix: netip.MustParsePrefix("10.99.0.53/32"), Proto: flow.UDP, Port: 53},
	}
	if err := errors.Join(p.Apply(rules...), p.SetNever(never)); err != nil {
		return fmt.Errorf("switch the stages on: %w", err)
	}
	return nil
}
