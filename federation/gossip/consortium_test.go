package gossip_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/chain"
	"github.com/hedgerow-mesh/hedgerow/federation/gossip"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// startOf starts the one site of an organisation, over a real host on loopback that
// knows the addresses of those before it.
func startOf(t *testing.T, i int, others []federation.Site, orgs []chain.Member) *node {
	t.Helper()
	n := &node{key: key(t, byte(i+1))}
	org := orgs[i].Org
	var err error
	n.tr, err = gossip.New(gossip.Options{Key: n.key, Organisation: org, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Roster: others, DialEvery: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	g, err := federation.NewGenesis("grove", "test/1", make([]float32, dim), orgs)
	if err != nil {
		t.Fatal(err)
	}
	n.Member, err = federation.New(federation.Options{
		Site: "gate", Key: n.key, Transport: n.tr, Trainer: halfway{float32(i)}, Schema: "test/1", ParamDim: dim,
		RoundEvery: 50 * time.Millisecond, DeltaDeadline: 20 * time.Second, SyncEvery: time.Second,
		Consortium:  &federation.Consortium{Organisation: org, Genesis: g, Roll: federation.Roll{Others: others, Counted: orgs}},
		OnIndicator: func(e federation.IndicatorEvent) { n.mu.Lock(); defer n.mu.Unlock(); n.intel = append(n.intel, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	n.serve(t, org)
	return n
}

// TestSevenOrganisations runs rounds and indicators between seven organisations over
// real hosts: every site has the same final model, and what three of them met is
// enforced at the others.
func TestSevenOrganisations(t *testing.T) {
	var orgs []chain.Member
	var sites []federation.Site
	for i := range 7 {
		id := key(t, byte(i+1)).ID()
		orgs = append(orgs, chain.Member{Org: fmt.Sprintf("org%d", i), Voter: id})
		sites = append(sites, federation.Site{Name: "gate", ID: id, Organisation: orgs[i].Org, Standing: federation.StandingCounted})
	}
	var ns []*node
	for i := range sites {
		others := slices.Delete(slices.Clone(sites), i, i+1)
		n := startOf(t, i, others, orgs)
		sites[i].Addrs = n.tr.Addrs()
		ns = append(ns, n)
	}
	took := until(t, "two final models, the same at all", func() bool {
		first := ns[0].Status()
		return first.Height >= 2 && !slices.ContainsFunc(ns, func(n *node) bool { return n.Status().Hash != first.Hash })
	})
	t.Logf("two rounds of %d parameters became final within %s", dim, took.Round(time.Millisecond))
	for i, n := range ns[:3] {
		_, err := n.Publish(t.Context(), wire.Indicator{
			Type: wire.TypeAddress, Value: "203.0.113.9", Score: 0.9, Confidence: 0.9, Evidence: wire.Validated,
			EvidenceHash: wire.Hash{byte(i + 1)}, Sentence: "tried 40 passwords in a minute", TLP: wire.TLPGreen,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the other four enforce it", func() bool {
		return !slices.ContainsFunc(ns[3:], func(n *node) bool { return !n.got("203.0.113.9", federation.Enforce) })
	})
	for i, n := range ns {
		for reason, c := range n.Status().Refused {
			if reason.Penal() {
				t.Errorf("site %d refused %d messages of honest sites: %s", i, c, reason)
			}
		}
	}
}
