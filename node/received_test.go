package node

import (
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// lists says whether a site's blocks hold a target.
func (s *testSite) lists(target string) func() bool {
	return func() bool {
		bs, err := s.node.Blocks(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		return slices.ContainsFunc(bs, func(b api.Block) bool { return b.Target == target })
	}
}

// A domain that one site's operator shares binds at another to what its hosts are
// told, goes with its unblocking, and yields to the other's operator.
func TestASharedDomain(t *testing.T) {
	s := sites(t, "alder", "birch")
	alder, birch := s[0], s[1]
	connected(t, alder, "birch")
	alder.order(api.Order{Target: "Evil.example.", Action: "block", Reason: "a drop zone", Share: true})
	eventually(t, "birch looks for it", birch.lists("evil.example"))
	birch.resolve("10.0.0.5", 1, "cdn7.evil.example", "203.0.113.9")
	eventually(t, "birch holds the address for the host that asked", func() bool { return !birch.reaches("10.0.0.5", "203.0.113.9") })
	if !birch.reaches("10.0.0.6", "203.0.113.9") {
		t.Error("a host that did not ask is held as well")
	}
	bs, err := birch.node.Blocks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bs {
		if b.Source != "mesh:alder" || b.Evidence != "shared" || !strings.Contains(b.Reason, "a drop zone") {
			t.Errorf("at birch it stands as %+v", b.Block)
		}
	}
	if err := alder.node.Unblock(t.Context(), "evil.example"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "birch lifts it", not(birch.lists("evil.example")))
	if !birch.reaches("10.0.0.5", "203.0.113.9") {
		t.Error("and the address stays held")
	}
	alder.order(api.Order{Target: "evil.example", Action: "block", Reason: "again", Share: true})
	eventually(t, "birch looks for it again", birch.lists("evil.example"))
	if err := birch.node.Unblock(t.Context(), "evil.example"); err != nil {
		t.Fatal(err)
	}
	alder.order(api.Order{Target: "evil.example", Action: "block", Reason: "and again", Share: true})
	eventually(t, "birch only observes", func() bool {
		es, err := birch.node.Events(t.Context(), api.Query{Kinds: []event.Kind{event.KindIndicator}, Limit: 20})
		return err == nil && slices.ContainsFunc(es, func(e *event.Event) bool {
			return e.Indicator.Outcome == "observed" && strings.Contains(e.Indicator.Why, "dismissed here")
		})
	})
	if birch.lists("evil.example")() {
		t.Error("a domain that birch's operator unblocked is back")
	}
}

// What is no form that sites share is refused before anything is done.
func TestNamesThatAreNotShared(t *testing.T) {
	s := sites(t, "alder", "birch")
	alone := sites(t, "cedar")[0]
	for what, c := range map[string]struct {
		site  *testSite
		order api.Order
		want  string
	}{
		"an inside name":        {s[0], api.Order{Target: "payroll.corp", Action: "block", Reason: "why"}, "private-address"},
		"a public suffix":       {s[0], api.Order{Target: "co.uk", Action: "block", Reason: "why"}, "anybody may register"},
		"a limit of a domain":   {s[0], api.Order{Target: "evil.example", Action: "rate-limit", Reason: "why"}, "only a block"},
		"a domain, alone":       {alone, api.Order{Target: "evil.example", Action: "block", Reason: "why"}, "this site is alone"},
		"no fingerprint":        {s[0], api.Order{Target: "ja4:abc", Action: "block", Reason: "why"}, "expected a JA4"},
		"a print, no reason":    {s[0], api.Order{Target: "ja4:t13d1516h2_8daaf6152771_b186095e22b6", Action: "block"}, "a reason is required"},
		"a fingerprint's limit": {s[0], api.Order{Target: "ja4:t13d1516h2_8daaf6152771_b186095e22b6", Action: "rate-limit", Reason: "why"}, "only a block"},
	} {
		c.order.Share = true
		if err := c.site.node.Order(t.Context(), c.order); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
		if bs, err := c.site.node.Blocks(t.Context()); err != nil || len(bs) != 0 {
			t.Errorf("%s: refused, and yet there is %+v, %v", what, bs, err)
		}
	}
	if err := s[0].node.Order(t.Context(), api.Order{Target: "ja4:t13d1516h2_8daaf6152771_b186095e22b6", Action: "block", Reason: "why"}); err == nil {
		t.Error("a fingerprint was blocked at this site alone")
	}
}

// A fingerprint that is shared is looked for at both sites, and no more once it was
// taken back. Of others' words too few ask for nothing.
func TestASharedFingerprint(t *testing.T) {
	const print = "t13d1516h2_8daaf6152771_b186095e22b6"
	s := sites(t, "alder", "birch")
	alder, birch := s[0], s[1]
	connected(t, alder, "birch")
	marks := func(x *testSite) func() bool {
		return func() bool {
			x.node.mu.Lock()
			defer x.node.mu.Unlock()
			return x.node.sensor.Marked() == 1
		}
	}
	alder.order(api.Order{Target: "ja4:" + print, Action: "block", Reason: "a dropper's client", Share: true})
	eventually(t, "both look for it", func() bool { return marks(alder)() && marks(birch)() })
	birch.stop()
	birch.start()
	eventually(t, "birch does after a restart", marks(birch))
	eventually(t, "it is in force there", func() bool {
		xs, err := birch.node.Indicators(t.Context())
		return err == nil && len(xs) == 1 && xs[0].Value == print
	})
	connected(t, alder, "birch")
	if err := alder.node.Unblock(t.Context(), "ja4:"+print); err != nil {
		t.Fatal(err)
	}
	eventually(t, "neither looks for it", func() bool { return !marks(alder)() && !marks(birch)() })
	birch.node.mu.Lock()
	defer birch.node.mu.Unlock()
	x := wire.Indicator{Type: wire.TypeFingerprint, Value: print, Expires: birch.node.now().Add(wire.DefaultLife)}
	if why := birch.node.take(&x, "briar/gate", federation.Limit); !strings.Contains(why, "rung on that blocks") || birch.node.sensor.Marked() != 0 {
		t.Errorf("too few words: %q", why)
	}
}

// The behaviour of a confirmed incident can be shared, by its bounds alone; what
// nobody confirmed, or of which too little is known, cannot.
func TestASharedBehaviour(t *testing.T) {
	s := sites(t, "alder", "birch")
	alder, birch := s[0], s[1]
	connected(t, alder, "birch")
	order := api.Order{Target: "behaviour:01", Action: "block", Reason: "a beacon", Share: true}
	if err := alder.node.Order(t.Context(), order); err == nil || !strings.Contains(err.Error(), "nobody confirmed") {
		t.Errorf("an incident that nobody knows: %v", err)
	}
	vs := noisyVectors(40)
	for i := range vs { // alike in what is their own
		for k := range 40 {
			vs[i].X[k] = 0.5
		}
	}
	teach := func(n int) {
		alder.node.learn.mu.Lock()
		defer alder.node.learn.mu.Unlock()
		for i := range n {
			alder.node.learn.attacks = append(alder.node.learn.attacks, labelled{learner.Example{V: vs[i], Weight: 1}, "01"})
		}
	}
	teach(2)
	if err := alder.node.Order(t.Context(), order); err == nil || !strings.Contains(err.Error(), "too few") {
		t.Errorf("two flows: %v", err)
	}
	teach(20)
	alder.order(order)
	marks := func(x *testSite) int {
		x.node.mu.Lock()
		defer x.node.mu.Unlock()
		return x.node.sensor.Marked()
	}
	eventually(t, "birch looks for it", func() bool { return marks(birch) == 1 })
	xs, err := birch.node.Indicators(t.Context())
	if err != nil || len(xs) != 1 || xs[0].Type != "behaviour" || !strings.HasPrefix(xs[0].Value, "features-") || xs[0].TLP != "amber" {
		t.Errorf("in force at birch: %+v, %v", xs, err)
	}
	if err := alder.node.Unblock(t.Context(), "behaviour:01"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "neither looks for it", func() bool { return marks(alder)+marks(birch) == 0 })
}
