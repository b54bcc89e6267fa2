package xdp

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// What somebody else writes into the maps, or switches off, is found.
func TestForeignListsAreReadBack(t *testing.T) {
	p := newFixture(t, Options{Mode: dataplane.Enforce})
	host := netip.MustParsePrefix("10.0.0.5/32")
	in := dataplane.Lists{
		Never:       []dataplane.Never{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}, {Prefix: netip.MustParsePrefix("2001:db8::1/128"), Proto: flow.TCP, Port: 22}},
		Remediation: []dataplane.Never{{Prefix: netip.MustParsePrefix("198.51.100.9/32")}},
		Flood:       dataplane.Flood{Service: 5, Protected: []dataplane.Guarded{{Prefix: host, Port: 443}}, Dark: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}},
	}
	set := func() {
		t.Helper()
		check(t, p.SetNever(in.Never))
		check(t, p.SetRemediation(in.Remediation))
		check(t, p.SetFlood(in.Flood))
	}
	audit := func(what string) dataplane.ListState {
		t.Helper()
		all, err := p.Audit(in)
		check(t, err)
		var bad []dataplane.ListState
		for _, s := range all {
			if !s.Fits() {
				bad = append(bad, s)
			}
		}
		switch {
		case len(all) != 4:
			t.Fatalf("%s: %d lists, expected 4", what, len(all))
		case len(bad) == 0:
			return dataplane.ListState{}
		case len(bad) > 1:
			t.Errorf("%s: %+v", what, bad)
		}
		return bad[0]
	}
	set()
	if s := audit("as it was set"); s.List != "" {
		t.Fatalf("as it was set: %+v", s)
	}
	kernel := func(pfx string) kernelNeverKey { return guardKey(netip.MustParsePrefix(pfx)) }
	for _, c := range []struct {
		what   string
		do     func() error
		list   string
		pick   func(dataplane.ListState) []string
		expect []string
	}{
		{"an entry was deleted", func() error { return p.objs.Nevers.Delete(kernel("2001:db8::1/128")) },
			"never-block", func(s dataplane.ListState) []string { return s.Missing }, []string{"2001:db8::1/128"}},
		{"an entry was added", func() error { return p.objs.Nevers.Put(kernel("192.0.2.0/24"), kernelNever{N: 1}) },
			"never-block", func(s dataplane.ListState) []string { return s.Extra }, []string{"192.0.2.0/24"}},
		{"a port was changed", func() error {
			v := kernelNever{N: 1}
			v.T[0].Port, v.T[0].Proto = 23, flow.TCP
			return p.objs.Nevers.Put(kernel("2001:db8::1/128"), v)
		}, "never-block", func(s dataplane.ListState) []string { return s.Changed }, []string{"2001:db8::1/128 (tcp/23, intended tcp/22)"}},
		{"a list was switched off", func() error {
			c := p.cfg
			c.Nevers = 0
			return p.objs.Settings.Put(uint32(0), &c)
		}, "never-block", func(s dataplane.ListState) []string { return s.Missing }, []string{"198.51.100.0/24", "2001:db8::1/128"}},
		{"a remedy was deleted", func() error { return p.objs.Remedies.Delete(kernel("198.51.100.9/32")) },
			"remediation", func(s dataplane.ListState) []string { return s.Missing }, []string{"198.51.100.9/32"}},
		{"a budget was changed", func() error {
			f := p.flood
			f.Step[2] = 1
			return p.objs.Floods.Put(uint32(0), &f)
		}, "flood limits", func(s dataplane.ListState) []string { return s.Changed }, []string{"service (one in 1 ns, intended one in 200000000 ns)"}},
		{"a dark prefix became a protected one", func() error { return p.objs.Guards.Put(kernel("10.9.0.0/24"), kernelGuarded{}) },
			"protected and dark", func(s dataplane.ListState) []string { return s.Changed }, []string{"10.9.0.0/24 (ports [], intended dark)"}},
		{"nonsense was counted in", func() error { return p.objs.Nevers.Put(kernel("192.0.2.0/24"), kernelNever{N: 1 << 30}) },
			"never-block", func(s dataplane.ListState) []string { return s.Extra }, []string{"192.0.2.0/24"}},
	} {
		check(t, c.do())
		if s := audit(c.what); s.List != c.list || !slices.Equal(c.pick(s), c.expect) {
			t.Errorf("%s: %+v, expected %q of the %s list", c.what, s, c.expect, c.list)
		}
		set()
		if s := audit(c.what); s.List != "" {
			t.Errorf("%s, and set again: %+v", c.what, s)
		}
	}
}
