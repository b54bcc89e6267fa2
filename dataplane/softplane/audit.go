package softplane

import (
	"fmt"
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

var _ dataplane.Auditor = (*Plane)(nil)

// Audit implements dataplane.Auditor. This plane protects no services and
// answers for no dark addresses, so it keeps no list of them.
func (p *Plane) Audit(want dataplane.Lists) (out []dataplane.ListState, err error) {
	err = p.locked(func() error {
		never, remedies := p.rules.Spares()
		var g flood
		g.rates(&want.Flood)
		out = []dataplane.ListState{
			dataplane.CompareList("never-block", byPrefix(want.Never), byPrefix(never)),
			dataplane.CompareList("remediation", byPrefix(want.Remediation), byPrefix(remedies)),
			dataplane.CompareList("flood limits", g.limits(), p.flood.limits()),
		}
		return nil
	})
	return out, err
}

func byPrefix(list []dataplane.Never) map[string]string {
	tuples := map[netip.Prefix][]dataplane.Never{}
	for _, n := range list {
		tuples[n.Prefix] = append(tuples[n.Prefix], n)
	}
	out := map[string]string{}
	for p, t := range tuples {
		out[p.String()] = dataplane.NeverWords(t)
	}
	return out
}

// limits are the settings that are not off.
func (g *flood) limits() map[string]string {
	out := map[string]string{}
	for i, k := range dataplane.Budgets() {
		if g.step[i] != 0 {
			out[k.String()] = fmt.Sprintf("one in %d ns", g.step[i])
		}
	}
	if g.breakerLimit != 0 {
		out["breaker"] = fmt.Sprint(g.breakerLimit)
	}
	if g.breakerDrops {
		out["breaker-drops"] = "1"
	}
	if g.on {
		out["active"] = "1"
	}
	return out
}
