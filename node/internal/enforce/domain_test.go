package enforce

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/names"
)

func told(ttl time.Duration, name string, addrs ...string) names.Answer {
	a := names.Answer{Names: []string{name, "cdn.example.net"}, TTL: ttl}
	for _, x := range addrs {
		a.Addrs = append(a.Addrs, netip.MustParseAddr(x))
	}
	return a
}

var laptop = netip.MustParseAddr("10.0.0.5")

// The life of a domain: held for the answer's time within bounds, prolonged by
// the next answer, quiet about what was told already, gone with the domain.
func TestDomainLife(t *testing.T) {
	m := machine(Options{})
	if _, err := m.BlockDomain(t0, "evil.example", 2*time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	pair := dataplane.Pair(laptop, netip.MustParseAddr("203.0.113.9"))
	expiry := func(at time.Time) time.Duration {
		for _, r := range m.Rules() {
			if r.Target == pair {
				return r.Expires.Sub(at)
			}
		}
		return 0
	}
	for _, c := range []struct{ ttl, want time.Duration }{
		{0, 30 * time.Second}, {time.Second, 30 * time.Second}, {33 * time.Second, 30 * time.Second}, // gains too little
		{50 * time.Second, 50 * time.Second}, {10 * time.Second, 50 * time.Second}, {48 * time.Hour, time.Hour},
	} {
		m.Resolved(t0, laptop, told(c.ttl, "a.evil.example", "203.0.113.9"))
		if got := expiry(t0); got != c.want {
			t.Errorf("after an answer for %s: held for %s, expected %s", c.ttl, got, c.want)
		}
	}
	late := t0.Add(119 * time.Minute)
	m.Tick(late)
	if expiry(late) != 0 || m.allPairs() != 0 || len(m.pairs) != 0 {
		t.Fatalf("left after its time: %v, %d pairs", m.Rules(), m.allPairs())
	}
	fx := m.Resolved(late, laptop, told(time.Hour, "evil.example", "203.0.113.9"))
	if got := expiry(late); got != time.Minute {
		t.Errorf("held for %s, expected no longer than the domain", got)
	}
	if len(fx) != 1 || fx[0].Apply.Quiet {
		t.Errorf("an hour and more later it is told again: %+v", fx)
	}
	end := t0.Add(2 * time.Hour)
	if said := say(m.Tick(end)); !strings.Contains(said, "remove "+pair.String()) || !strings.Contains(said, "block evil.example expired") {
		t.Errorf("at its end:\n%s", said)
	}
	if fx := m.Resolved(end, laptop, told(time.Hour, "evil.example", "203.0.113.9")); fx != nil || m.Domains() != 0 {
		t.Errorf("after its end:\n%s", say(fx))
	}
}

// An alias that is blocked counts as the name itself; a mere neighbour does not.
func TestDomainIsFoundAmongAliases(t *testing.T) {
	m := machine(Options{})
	if _, err := m.BlockDomain(t0, "example.net", time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	if fx := m.Resolved(t0, laptop, told(time.Minute, "www.shop.example", "203.0.113.9")); !strings.Contains(say(fx), "apply block 10.0.0.5~203.0.113.9") {
		t.Errorf("an alias: %s", say(fx))
	}
	if fx := m.Resolved(t0, laptop, names.Answer{Names: []string{"anexample.net"}, Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.10")}}); fx != nil {
		t.Errorf("a neighbour: %s", say(fx))
	}
}

// A pair that the operator lifted stays lifted, and one that the operator made
// is not the domain's to end.
func TestDomainRespectsTheOperator(t *testing.T) {
	m := machine(Options{})
	if _, err := m.BlockDomain(t0, "evil.example", time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	m.Resolved(t0, laptop, told(time.Minute, "evil.example", "203.0.113.9"))
	pair := dataplane.Pair(laptop, netip.MustParseAddr("203.0.113.9"))
	if _, err := m.Unblock(t0, pair); err != nil {
		t.Fatal(err)
	}
	if fx := m.Resolved(t0, laptop, told(time.Minute, "evil.example", "203.0.113.9")); fx != nil {
		t.Errorf("made again after the undo: %s", say(fx))
	}
	own := dataplane.Pair(laptop, netip.MustParseAddr("203.0.113.10"))
	if _, err := m.Block(t0, own, 10*time.Minute, ""); err != nil {
		t.Fatal(err)
	}
	m.Resolved(t0, laptop, told(time.Minute, "evil.example", "203.0.113.10"))
	if _, err := m.UnblockDomain(t0, "evil.example"); err != nil {
		t.Fatal(err)
	}
	if rs := m.Rules(); len(rs) != 1 || rs[0].Target != own {
		t.Errorf("left: %v, expected the operator's own pair", rs)
	}
	// Panic lifts what was learned: a domain is the operator's.
	if _, err := m.BlockDomain(t0, "evil.example", time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	m.Panic(t0, true)
	if m.Domains() != 1 {
		t.Error("panic lifted a domain")
	}
}
