package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

func connected(t *testing.T, s *testSite, to string) {
	t.Helper()
	eventually(t, "the sites connect", func() bool {
		st, err := s.node.Status(t.Context())
		return err == nil && slices.Contains(st.Mesh.Connected, to)
	})
}

func TestAnOperatorsBlockIsSharedWhenAsked(t *testing.T) {
	s := sites(t, "alder", "birch")
	alder, birch := s[0], s[1]
	connected(t, alder, "birch")
	alder.order(api.Order{Target: "203.0.113.5", Action: "block", Reason: "not for others"})
	alder.order(api.Order{Target: "203.0.113.9", Action: "block", Reason: "stolen passwords, seen by 10.0.0.5", Share: true})
	alder.order(api.Order{Target: "198.51.100.0/24", Action: "block", Reason: "a botnet", Share: true})
	alder.order(api.Order{Target: "203.0.113.10 tcp/443", Action: "block", Reason: "a drop zone", Share: true})
	for _, target := range []string{"203.0.113.9", "198.51.100.0/24", "203.0.113.10:443/tcp"} {
		eventually(t, "birch blocks "+target, birch.blocks(target))
	}
	// The one that was not shared was said first: it is not on its way any more.
	if birch.blocks("203.0.113.5")() {
		t.Error("a block went to another site without being asked to")
	}
	if !alder.blocks("203.0.113.5")() || birch.pass(visit(netip.MustParseAddr("203.0.113.9"), 50000)...) {
		t.Error("alder does not block its own, or birch lets pass what was shared")
	}
	bs, err := birch.node.Blocks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bs {
		if b.Target == "203.0.113.9" && (b.Source != "mesh:alder" || !strings.Contains(b.Reason, "stolen passwords") || strings.Contains(b.Reason, "10.0.0.5")) {
			t.Errorf("at birch it stands as %+v", b)
		}
	}
	eventually(t, "alder tells that it was sent", func() bool {
		x, err := alder.node.Explain(t.Context(), "203.0.113.9")
		return err == nil && slices.ContainsFunc(x.Chain, func(e *event.Event) bool {
			return e.Indicator != nil && e.Indicator.Outcome == "sent" && e.Indicator.Evidence == "operator"
		})
	})
	eventually(t, "the decisions are stored", func() bool { bs, err := alder.o.Store.Blocks(); return err == nil && len(bs) == 4 })
	if err := alder.node.Unblock(t.Context(), "198.51.100.0/24"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "birch lifts it", not(birch.blocks("198.51.100.0/24")))
	if !birch.blocks("203.0.113.9")() {
		t.Error("another block went as well")
	}
}

func TestAReceiverKeepsItsNeverBlockList(t *testing.T) {
	s := sites(t, "alder", "birch")
	alder, birch := s[0], s[1]
	connected(t, alder, "birch")
	if _, err := birch.node.Allow(t.Context(), "203.0.113.9", false); err != nil {
		t.Fatal(err)
	}
	alder.order(api.Order{Target: "203.0.113.9", Action: "block", Reason: "why", Share: true})
	eventually(t, "birch only observes", func() bool {
		es, err := birch.node.Events(t.Context(), api.Query{Kinds: []event.Kind{event.KindIndicator}, Limit: 10})
		return err == nil && slices.ContainsFunc(es, func(e *event.Event) bool {
			return e.Indicator.Outcome == "observed" && strings.Contains(e.Indicator.Why, "never-block")
		})
	})
	if birch.blocks("203.0.113.9")() || !birch.pass(visit(netip.MustParseAddr("203.0.113.9"), 50000)...) {
		t.Error("birch blocks what it never blocks")
	}
}

func TestWhatIsNotShared(t *testing.T) {
	s := sites(t, "alder", "birch")
	alone := sites(t, "cedar")[0]
	for what, c := range map[string]struct {
		site  *testSite
		order api.Order
		want  string
	}{
		"no reason":          {s[0], api.Order{Target: "203.0.113.9", Action: "block"}, "a reason is required"},
		"a reason of spaces": {s[0], api.Order{Target: "203.0.113.9", Action: "block", Reason: " \t"}, "a reason is required"},
		"a private address":  {s[0], api.Order{Target: "10.0.0.5", Action: "block", Reason: "why"}, "share: "},
		"a wide network":     {s[0], api.Order{Target: "203.0.0.0/16", Action: "block", Reason: "why"}, "share: "},
		"what goes there":    {s[0], api.Order{Target: "to 203.0.113.9", Action: "block", Reason: "why"}, "expected an address"},
		"two hosts":          {s[0], api.Order{Target: "10.0.0.5~203.0.113.9", Action: "block", Reason: "why"}, "expected an address"},
		"a limit":            {s[0], api.Order{Target: "203.0.113.9", Action: "rate-limit", Reason: "why"}, "only a block"},
		"too long":           {s[0], api.Order{Target: "203.0.113.9", Action: "block", Reason: "why", Seconds: (8 * 24 * time.Hour).Seconds()}, "at most 168h"},
		"alone":              {alone, api.Order{Target: "203.0.113.9", Action: "block", Reason: "why"}, "this site is alone"},
	} {
		c.order.Share = true
		if err := c.site.node.Order(t.Context(), c.order); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
		if bs, err := c.site.node.Blocks(t.Context()); err != nil || len(bs) != 0 {
			t.Errorf("%s: refused, and yet there is %+v, %v", what, bs, err)
		}
	}
}
