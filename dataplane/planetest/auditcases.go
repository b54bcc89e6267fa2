package planetest

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func auditCases() []testCase {
	return []testCase{
		{"lists are read back", dataplane.Enforce, auditFinds},
	}
}

// audit is the state of a list against want.
func (r *rig) audit(list string, want dataplane.Lists) dataplane.ListState {
	r.t.Helper()
	all, err := r.Fixture.(dataplane.Auditor).Audit(want)
	if err != nil {
		r.t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(s dataplane.ListState) bool { return s.List == list })
	if i < 0 {
		r.t.Fatalf("no state of the %s list in %+v", list, all)
	}
	return all[i]
}

func auditFinds(t *testing.T, r *rig) {
	entry := func(p string, proto uint8, port uint16) dataplane.Never {
		return dataplane.Never{Prefix: netip.MustParsePrefix(p), Proto: proto, Port: port}
	}
	in := dataplane.Lists{
		// Narrow ones inside wide ones, two tuples of one prefix, both families.
		Never: []dataplane.Never{entry("198.51.100.0/24", 0, 0), entry("198.51.100.7/32", flow.TCP, 443), entry("198.51.100.7/32", flow.UDP, 53),
			entry("2001:db8::/32", flow.TCP, 22), {Prefix: netip.MustParsePrefix("203.0.113.1/32"), Proto: flow.UDP, Port: 123, AnySide: true}},
		Remediation: []dataplane.Never{entry("192.0.2.9/32", flow.TCP, 443)},
		Flood:       dataplane.Flood{Source: 10, Breaker: 1000, BreakerDrops: true},
	}
	lists := []string{"never-block", "remediation", "flood limits"}
	empty := dataplane.Lists{}
	for _, l := range lists {
		if s := r.audit(l, empty); !s.Fits() || s.Intended+s.Enforced != 0 {
			t.Errorf("nothing set, nothing meant: %+v", s)
		}
		if s := r.audit(l, in); s.Enforced != 0 || len(s.Missing) != s.Intended || s.Intended == 0 {
			t.Errorf("nothing set: %+v: expected all to be missing", s)
		}
	}
	if err := r.SetNever(in.Never); err != nil {
		t.Fatal(err)
	}
	r.remediation(in.Remediation...)
	r.flood(in.Flood)
	slices.Reverse(in.Never) // the order says nothing
	for i, want := range []int{4, 1, 4} {
		if s := r.audit(lists[i], in); !s.Fits() || s.Intended != want || s.Enforced != want {
			t.Errorf("as it was set: %+v: expected %d that fit", s, want)
		}
		if s := r.audit(lists[i], empty); len(s.Extra) != want {
			t.Errorf("nothing is meant: %+v: expected %d extra", s, want)
		}
	}
	other := in
	other.Never = append(slices.DeleteFunc(slices.Clone(in.Never), func(n dataplane.Never) bool { return n.Port == 53 }), entry("192.0.2.0/24", 0, 0))
	other.Flood.Source, other.Flood.SourceNet, other.Flood.BreakerDrops = 20, 7, false
	s := r.audit("never-block", other)
	if !slices.Equal(s.Missing, []string{"192.0.2.0/24"}) || len(s.Extra) != 0 || len(s.Changed) != 1 || s.Changed[0][:16] != "198.51.100.7/32 " {
		t.Errorf("another list: %+v", s)
	}
	s = r.audit("flood limits", other)
	if !slices.Equal(s.Missing, []string{"source-net"}) || !slices.Equal(s.Extra, []string{"breaker-drops"}) || len(s.Changed) != 1 {
		t.Errorf("other limits: %+v", s)
	}
	if s = r.audit("remediation", other); !s.Fits() {
		t.Errorf("the same remedies: %+v", s)
	}
}
