package node

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
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
