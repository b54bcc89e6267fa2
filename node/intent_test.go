package node

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

func (s *testSite) verify() api.Difference {
	s.t.Helper()
	d, err := s.node.Verify(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *testSite) order(o api.Order) {
	s.t.Helper()
	if err := s.node.Order(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
}

func udp(from, to string, hook dataplane.Hook) planetest.Step {
	return planetest.Datagram(hook, netip.MustParseAddrPort(from), netip.MustParseAddrPort(to), nil)
}

func TestQuarantineByHandIsKeptAndUndone(t *testing.T) {
	s := sites(t, "alder")[0]
	s.stop()
	s.o.Policy.Remediation = []dataplane.Never{{Prefix: netip.MustParsePrefix("198.51.100.9/32"), Proto: flow.UDP, Port: 443}}
	s.start()
	out := udp("10.0.0.5:1", "203.0.113.7:1", dataplane.FromInside)
	help := udp("10.0.0.5:1", "198.51.100.9:443", dataplane.FromInside)
	s.order(api.Order{Target: "10.0.0.5", Action: "quarantine", Reason: "beacons"})
	if s.pass(out) || !s.pass(help) {
		t.Fatal("the host in quarantine reaches others, or not its remedy")
	}
	s.stop()
	s.start() // the software plane forgets; the site does not
	if s.pass(out) || !s.pass(help) {
		t.Fatal("the quarantine did not outlast a restart")
	}
	if d := s.verify(); !d.None() || d.Intended != 1 || d.Enforced != 1 {
		t.Fatalf("verified as %+v", d)
	}
	x, err := s.node.Explain(t.Context(), "10.0.0.5")
	if err != nil || !strings.Contains(x.Sentence, "beacons") || !strings.Contains(x.Undo, "unblock '10.0.0.5'") {
		t.Fatalf("explained as %+v, %v", x, err)
	}
	if err := s.node.Unblock(t.Context(), "10.0.0.5"); err != nil {
		t.Fatal(err)
	}
	if !s.pass(out) {
		t.Fatal("the quarantine is not undone")
	}
}

// Somebody else writes to the plane's tables: it is seen, told and put right.
func TestForeignChangesAreSeenAndRepaired(t *testing.T) {
	s := sites(t, "alder")[0]
	s.stop()
	s.o.Metrics = telemetry.NewMetrics("alder")
	s.start()
	for _, a := range []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"} {
		s.order(api.Order{Target: a, Action: "block"})
	}
	if d := s.verify(); !d.None() || d.Intended != 3 {
		t.Fatalf("verified as %+v before anything happened", d)
	}
	peer := func(a string) dataplane.Target { return dataplane.Peer(netip.MustParseAddr(a)) }
	foreign := dataplane.Rule{Target: peer("203.0.113.4"), Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}
	longer := dataplane.Rule{Target: peer("203.0.113.2"), Action: dataplane.Block, Expires: time.Now().Add(48 * time.Hour)}
	if err := s.plane.Remove(peer("203.0.113.1")); err != nil {
		t.Fatal(err)
	}
	if err := s.plane.Apply(foreign, longer); err != nil {
		t.Fatal(err)
	}
	d := s.verify()
	if !slices.Equal(d.Missing, []string{"block of 203.0.113.1"}) || !slices.Equal(d.Extra, []string{"block of 203.0.113.4"}) ||
		!slices.Equal(d.Changed, []string{"block of 203.0.113.2"}) {
		t.Fatalf("verified as %+v", d)
	}
	s.node.repair()
	if d := s.verify(); !d.None() || d.Enforced != 3 {
		t.Fatalf("verified as %+v after the repair", d)
	}
	in := func(a string) planetest.Step { return udp(a+":1", "10.0.0.5:1", dataplane.ToInside) }
	if s.pass(in("203.0.113.1")) || s.pass(in("203.0.113.2")) || !s.pass(in("203.0.113.4")) {
		t.Error("the repair is not in force")
	}
	families, err := s.o.Metrics.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0
	for _, f := range families {
		if f.GetName() != "hedgerow_repaired_rules_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if n := m.GetCounter().GetValue(); n != 1 {
				t.Errorf("%s: counted %v, expected 1", m.GetLabel()[0].GetValue(), n)
			}
			counted++
		}
	}
	if counted != 3 {
		t.Errorf("%d kinds of repair are counted, expected 3", counted)
	}
}

// A rule that is about to end, or has just ended, is no difference.
func TestComparisonAllowsForTheClock(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	rule := func(a string, left time.Duration) dataplane.Rule {
		return dataplane.Rule{Target: dataplane.Peer(netip.MustParseAddr(a)), Action: dataplane.Block, Expires: now.Add(left), Reason: 1}
	}
	hit := func(r dataplane.Rule) dataplane.Hit { return dataplane.Hit{Rule: r} }
	intended := []dataplane.Rule{rule("192.0.2.1", time.Second), rule("192.0.2.2", time.Hour), rule("192.0.2.4", time.Second)}
	d := compare(intended, []dataplane.Hit{hit(rule("192.0.2.2", time.Hour+time.Second)), hit(rule("192.0.2.3", time.Second)), hit(rule("192.0.2.4", time.Second))}, now)
	if len(d.missing)+len(d.extra)+len(d.changed) != 0 {
		t.Errorf("found %+v", d)
	}
	other := rule("192.0.2.2", time.Hour)
	other.Reason = 2
	if d = compare(intended, []dataplane.Hit{hit(other)}, now); len(d.changed) != 1 {
		t.Errorf("another reason: found %+v", d)
	}
}

func TestNeverBlockFollowsTheSystem(t *testing.T) {
	s := sites(t, "alder")[0]
	gw := func(a string) []dataplane.Never {
		return []dataplane.Never{{Prefix: dataplane.Peer(netip.MustParseAddr(a)).Prefix}}
	}
	addrs := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	if err := s.node.SetSystem(gw("203.0.113.1"), addrs("192.0.2.10")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.node.Allow(t.Context(), "198.51.100.1", false); err != nil {
		t.Fatal(err)
	}
	s.order(api.Order{Target: "203.0.113.0/24", Action: "block"})
	s.order(api.Order{Target: "192.0.2.11", Action: "block"})
	s.order(api.Order{Target: "198.51.100.0/24", Action: "block"})
	in := func(a string) planetest.Step { return udp(a+":1", "10.0.0.5:1", dataplane.ToInside) }
	if !s.pass(in("203.0.113.1")) || s.pass(in("203.0.113.2")) || s.pass(in("192.0.2.11")) {
		t.Fatal("the first gateway is not saved, or too much is")
	}
	if err := s.node.SetSystem(gw("203.0.113.2"), addrs("192.0.2.10", "192.0.2.11")); err != nil {
		t.Fatal(err)
	}
	if s.pass(in("203.0.113.1")) || !s.pass(in("203.0.113.2")) {
		t.Error("the list did not follow the gateway")
	}
	if !s.pass(in("192.0.2.11")) {
		t.Error("a block stands on what has become an address of this machine")
	}
	if !s.pass(in("198.51.100.1")) {
		t.Error("the operator's entry was lost")
	}
	bad := []dataplane.Never{{Prefix: netip.MustParsePrefix("203.0.113.2/24")}}
	if err := s.node.SetSystem(bad, nil); err == nil || !s.pass(in("203.0.113.2")) {
		t.Errorf("a list with an error: %v, expected the old one to stay", err)
	}
	if err := s.node.Order(t.Context(), api.Order{Target: "192.0.2.11", Action: "block"}); err == nil {
		t.Error("a new address of this machine can be blocked")
	}
}

// What is spared and what floods are held to is read back like the rules.
func TestForeignListsAreSeenAndRepaired(t *testing.T) {
	s := sites(t, "alder")[0]
	s.stop()
	s.o.Metrics = telemetry.NewMetrics("alder")
	s.o.Spared = []dataplane.Never{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}}
	s.o.Policy.Remediation = []dataplane.Never{{Prefix: netip.MustParsePrefix("198.51.100.9/32")}}
	s.o.Flood = dataplane.Flood{Source: 100}
	s.start()
	if _, err := s.node.Allow(t.Context(), "203.0.113.9", false); err != nil {
		t.Fatal(err)
	}
	state := func() (words []string) {
		for _, l := range s.verify().Lists {
			words = append(words, fmt.Sprint(l.List, " ", l.Intended, " ", l.Enforced, " ", l.Missing, l.Changed, l.Extra))
		}
		return words
	}
	good := []string{"never-block 2 2 [] [] []", "remediation 1 1 [] [] []", "flood limits 2 2 [] [] []"}
	if got := state(); !slices.Equal(got, good) {
		t.Fatalf("found %q", got)
	}
	other := []dataplane.Never{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}, {Prefix: netip.MustParsePrefix("192.0.2.0/24")}}
	if err := errors.Join(s.plane.SetNever(other), s.plane.SetRemediation(nil), s.plane.SetFlood(dataplane.Flood{Source: 7})); err != nil {
		t.Fatal(err)
	}
	bad := []string{"never-block 2 2 [203.0.113.9/32] [] [192.0.2.0/24]", "remediation 1 0 [198.51.100.9/32] [] []",
		"flood limits 2 2 [] [source (one in 142857142 ns, intended one in 10000000 ns)] []"}
	if got := state(); !slices.Equal(got, bad) || s.verify().None() {
		t.Errorf("found %q", got)
	}
	st, err := s.node.Status(t.Context())
	if err != nil || len(st.Lists) != 3 || st.Lists[1].Enforced != 0 {
		t.Errorf("status: %+v, %v", st.Lists, err)
	}
	s.node.repair()
	if got := state(); !slices.Equal(got, good) || !s.verify().None() {
		t.Errorf("after the repair: %q", got)
	}
	families, err := s.o.Metrics.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "hedgerow_list_enforced" && len(f.GetMetric()) == 3 {
			return
		}
	}
	t.Error("no figures of three lists")
}
