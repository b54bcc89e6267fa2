package node

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/enforce"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// organisations starts a node each of seven organisations.
func organisations(t *testing.T) []*testSite {
	names := []string{"alder", "birch", "cedar", "dogwood", "elder", "fir", "gorse"}
	s := sites(t, names...)
	var orgs []chain.Member
	for i, x := range s {
		x.stop()
		orgs = append(orgs, chain.Member{Org: names[i], Voter: x.o.Key.ID()})
	}
	for i, x := range s {
		roll := federation.Roll{Counted: orgs}
		for j, o := range orgs {
			if j != i {
				roll.Others = append(roll.Others, federation.Site{Name: "gate", ID: o.Voter, Organisation: o.Org, Standing: federation.StandingCounted})
			}
		}
		x.o.Mesh.Roster, x.o.Mesh.Consortium = nil, &ConsortiumOptions{ID: "grove", Organisation: names[i], Roll: roll, Founders: orgs}
		x.start()
	}
	return s
}

// tells shares a block as if it had come from this site's own judgement.
func (s *testSite) tells(value, evidence string) {
	s.node.share(s.t.Context(), &enforce.Share{
		Key: value, Type: "address", Value: value, Conf: 0.9, Evidence: evidence, Sentence: "a scan", Incident: "i-" + s.o.Site, Expires: time.Now().Add(time.Hour),
	})
}

// stands says what is done about a target, "" for nothing.
func (s *testSite) stands(target string) (action string) {
	bs, err := s.node.Blocks(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, b := range bs {
		if b.Target == target {
			action = b.Action
		}
	}
	return action
}

// A block on validated evidence goes to all organisations, where one is nothing, two
// a budget and three a block; an operator's word stays at home.
func TestBlocksClimbAtOtherOrganisations(t *testing.T) {
	s := organisations(t)
	at := s[6]
	if st, err := at.node.Status(t.Context()); err != nil || st.Mesh.Counted != 7 {
		t.Fatalf("%+v, %v", st.Mesh, err)
	}
	heard := func(from string) func() bool {
		return func() bool {
			es, err := at.node.Events(t.Context(), api.Query{Kinds: []event.Kind{event.KindIndicator}})
			return err == nil && slices.ContainsFunc(es, func(e *event.Event) bool { return e.Indicator.Author == from+"/gate" })
		}
	}
	s[3].tells("203.0.113.8", enforce.Operator)
	s[0].tells("203.0.113.9", "validated")
	eventually(t, "the first word arrives", heard("alder"))
	if got := at.stands("203.0.113.9"); got != "" {
		t.Errorf("one organisation's word: %s", got)
	}
	s[1].tells("203.0.113.9", "validated")
	eventually(t, "two make a budget", func() bool { return at.stands("203.0.113.9") == dataplane.RateLimit.String() })
	s[2].tells("203.0.113.9", "validated")
	eventually(t, "three block", func() bool { return at.stands("203.0.113.9") == dataplane.Block.String() })
	if at.pass(visit(netip.MustParseAddr("203.0.113.9"), 50000)...) {
		t.Error("what is blocked passes")
	}
	influence(t, at)
	spoken(t, at)
	s[2].node.withdraw(t.Context(), "203.0.113.9")
	eventually(t, "two are a budget again", func() bool { return at.stands("203.0.113.9") == dataplane.RateLimit.String() })
	if got := at.stands("203.0.113.8"); got != "" || heard("dogwood")() {
		t.Errorf("an operator's word of another organisation arrived: %q", got)
	}
	harmless(t, at)
	// What this site spares stays open whoever speaks against it.
	if _, err := at.node.Allow(t.Context(), "203.0.113.77", false); err != nil {
		t.Fatal(err)
	}
	for _, x := range s[:4] {
		x.tells("203.0.113.77", "validated")
	}
	eventually(t, "the fourth word arrives", heard("dogwood"))
	if got := at.stands("203.0.113.77"); got != "" {
		t.Errorf("what is spared here: %s", got)
	}
}

// harmless wants no word of others to lead to anything that the operator overruled.
func harmless(t *testing.T, at *testSite) {
	t.Helper()
	if err := at.node.Unblock(t.Context(), "203.0.113.9"); err != nil {
		t.Fatal(err)
	}
	list, err := at.node.Indicators(t.Context())
	if err != nil || len(list) == 0 || at.stands("203.0.113.9") != "" {
		t.Fatalf("%+v, %v; %q stands", list, err, at.stands("203.0.113.9"))
	}
	for _, x := range list {
		if x.Effect != dataplane.Observe.String() {
			t.Errorf("the operator overruled it, and still: %+v", x)
		}
	}
}

// spoken wants three words of others about one value, as they are enforced.
func spoken(t *testing.T, at *testSite) {
	t.Helper()
	list, err := at.node.Indicators(t.Context())
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, x := range list {
		if x.Value != "203.0.113.9" || x.Own || x.Effect != "block" || x.TLP != "green" || x.Evidence != "validated" {
			t.Errorf("%+v", x)
		}
	}
}

// influence asks what those could cause who have spoken.
func influence(t *testing.T, at *testSite) {
	t.Helper()
	for _, c := range []struct {
		peers []string
		rows  []api.Influence
	}{
		{[]string{"alder"}, []api.Influence{{Now: "observe", Without: "observe", Lies: "observe"}, {Value: "203.0.113.9", Now: "block", Without: "rate-limit", Lies: "block"}}},
		{[]string{"alder", "birch"}, []api.Influence{{Now: "observe", Without: "observe", Lies: "rate-limit"}, {Value: "203.0.113.9", Now: "block", Without: "observe", Lies: "block"}}},
		{[]string{"dogwood"}, []api.Influence{{Now: "observe", Without: "observe", Lies: "observe"}}},
	} {
		x, err := at.node.WhatIf(t.Context(), c.peers)
		if err != nil || x.Counted != 7 || !slices.Equal(x.Rows, c.rows) {
			t.Errorf("%v: %+v, %v; expected %+v", c.peers, x, err, c.rows)
		}
	}
	for _, peers := range [][]string{nil, {"gorse"}} {
		if _, err := at.node.WhatIf(t.Context(), peers); !errors.Is(err, errInvalid) {
			t.Errorf("%v: %v", peers, err)
		}
	}
	if _, err := at.node.WhatIf(t.Context(), []string{"nobody"}); !errors.Is(err, errNotFound) {
		t.Errorf("a stranger: %v", err)
	}
}

func TestAuditRounds(t *testing.T) {
	alone := sites(t, "alder")[0]
	if _, err := alone.node.AuditRounds(t.Context()); !errors.Is(err, errInvalid) {
		t.Errorf("without a consortium: %v", err)
	}
	s := organisations(t)[0]
	a, err := s.node.AuditRounds(t.Context())
	if err != nil || a.Broken != "" || len(a.Blocks) != 0 || a.Rule != "geometric-median+mask/1" {
		t.Errorf("a chain without blocks: %+v, %v", a, err)
	}
	key := "federation/chain/" + a.Chain + "/000000000001"
	if err := s.o.Store.Save(key, []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if a, err = s.node.AuditRounds(t.Context()); err != nil || a.Broken == "" {
		t.Errorf("a damaged block: %+v, %v", a, err)
	}
	s.stop()
	s.o.Mesh.Consortium.Founders = nil
	s.start()
	if _, err := s.node.AuditRounds(t.Context()); !errors.Is(err, errInvalid) {
		t.Errorf("too few organisations: %v", err)
	}
}

// deals lets an inside host talk to a party as often and as long as it takes to know it.
func (s *testSite) deals(addr string) {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	src, dst := netip.MustParseAddrPort("10.0.0.5:40000"), netip.AddrPortFrom(netip.MustParseAddr(addr), 443)
	k, initB := flow.NewKey(src, dst, flow.TCP)
	for n := range 16 {
		at := time.Now().Add(-20*time.Minute + time.Duration(n)*time.Minute)
		r := flow.Record{
			Key: k, ID: uint64(9000 + n), InitB: initB, InitInside: true, Validated: [2]bool{true, true}, End: flow.EndFIN,
			Dir: [2]flow.Dir{{Packets: 6, Payload: 500}, {Packets: 6, Payload: 900}}, Start: at.UnixNano(), Last: at.UnixNano(),
		}
		s.node.machine.Flow(at, &dataplane.Event{Kind: dataplane.EventEnd, Record: r}, enforce.Judgement{Judged: true, P: 0.5}, func() []event.Reason { return nil })
	}
}

// TestDisputesAreHeard: two organisations accuse a server that two others have used
// well. These take the limit back, and when the second has spoken a site that knows
// nothing of the server lifts its own. Against as many as it takes to block, nobody
// speaks up.
func TestDisputesAreHeard(t *testing.T) {
	s := organisations(t)
	const value, other = "203.0.113.9", "203.0.113.10"
	at, limited := s[5], dataplane.RateLimit.String()
	for _, x := range s[:2] {
		x.tells(value, "validated")
	}
	for _, x := range s[2:] {
		eventually(t, "two limit", func() bool { return x.stands(value) == limited })
	}
	disputes := func() (by []string) {
		list, err := at.node.Indicators(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			if x.Stance == "dispute" {
				by = append(by, x.Author)
				if x.Effect != dataplane.Observe.String() || x.Evidence != "validated" {
					t.Errorf("%+v", x)
				}
			}
		}
		slices.Sort(by)
		return by
	}
	unblock := func(x *testSite, value string) {
		if err := x.node.Unblock(t.Context(), value); err != nil {
			t.Fatal(err)
		}
	}
	unblock(s[2], value) // it has nothing to show
	for n, x := range s[3:5] {
		if at.stands(value) != limited {
			t.Errorf("%d disputes outweigh two words", n)
		}
		x.deals(value)
		unblock(x, value)
		eventually(t, "the dispute arrives", func() bool { return len(disputes()) == n+1 })
	}
	eventually(t, "two against two lift it", func() bool { return at.stands(value) == "" })
	found, err := at.node.member.Ask(t.Context(), value)
	if err != nil || slices.ContainsFunc(found, func(a federation.Answer) bool { return a.From == "dogwood" && a.Seen }) {
		t.Errorf("a dispute was taken for a sighting: %+v, %v", found, err)
	}

	for _, x := range s[:3] {
		x.tells(other, "validated")
	}
	x := s[6]
	eventually(t, "three block", func() bool { return x.stands(other) == dataplane.Block.String() })
	x.deals(other)
	unblock(x, other)
	x.tells("203.0.113.11", "validated") // after it in the queue
	eventually(t, "the next word arrives", func() bool {
		list, err := at.node.Indicators(t.Context())
		return err == nil && slices.ContainsFunc(list, func(x api.Indicator) bool { return x.Author == "gorse/gate" })
	})
	if by := disputes(); !slices.Equal(by, []string{"dogwood/gate", "elder/gate"}) {
		t.Errorf("disputed by %v", by)
	}
}
