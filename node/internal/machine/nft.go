package machine

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// lookNftables lists the tables, and the chains that translate addresses. Only
// chains of type nat are read: others may hold very many rules.
func (v *View) lookNftables() {
	c, err := nftables.New()
	if err != nil {
		v.Unread["nftables"] = err.Error()
		return
	}
	tables, err := c.ListTables()
	if err != nil {
		v.Unread["nftables"] = err.Error()
		return
	}
	for _, t := range tables {
		v.Tables = append(v.Tables, family(t.Family)+" "+t.Name)
	}
	chains, err := c.ListChains()
	if err != nil {
		v.Unread["nftables"] = err.Error()
		return
	}
	for _, ch := range chains {
		if ch.Table == nil || ch.Type != nftables.ChainTypeNAT {
			continue
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			v.Unread["nftables"] = err.Error()
			return
		}
		if what := translates(rules); what != "" {
			v.NAT = append(v.NAT, fmt.Sprintf("%s in table %s %s", what, family(ch.Table.Family), ch.Table.Name))
		}
	}
}

func translates(rules []*nftables.Rule) string {
	for _, r := range rules {
		for _, e := range r.Exprs {
			switch x := e.(type) {
			case *expr.Masq:
				return "masquerade"
			case *expr.NAT:
				if x.Type == expr.NATTypeSourceNAT {
					return "source translation"
				}
				return "destination translation"
			}
		}
	}
	return ""
}

func family(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyARP:
		return "arp"
	case nftables.TableFamilyBridge:
		return "bridge"
	case nftables.TableFamilyNetdev:
		return "netdev"
	}
	return fmt.Sprintf("family-%d", f)
}
