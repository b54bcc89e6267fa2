package dataplane_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func target(prefix string) dataplane.Target {
	return dataplane.Target{Prefix: netip.MustParsePrefix(prefix)}
}

func flowTarget() dataplane.Target {
	k, _ := flow.NewKey(netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"), flow.TCP)
	return dataplane.Target{Flow: k}
}

func serviceTarget(prefix string, port uint16, proto uint8) dataplane.Target {
	t := target(prefix)
	t.Port, t.Proto = port, proto
	return t
}

func pair(host, peer string) dataplane.Target {
	return dataplane.Pair(netip.MustParseAddr(host), netip.MustParseAddr(peer))
}

func toward(a string) dataplane.Target { return dataplane.Toward(netip.MustParseAddr(a)) }

func TestRuleValidate(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	rule := func(t dataplane.Target, a dataplane.Action) dataplane.Rule {
		return dataplane.Rule{Target: t, Action: a, Expires: soon}
	}
	limit := rule(target("10.0.0.1/32"), dataplane.RateLimit)
	limit.Rate = 1
	wideLimit := rule(target("10.0.0.0/24"), dataplane.RateLimit)
	wideLimit.Rate = 1
	for _, c := range []struct {
		rule dataplane.Rule
		want string // "" is valid
	}{
		{rule(flowTarget(), dataplane.Suspend), ""},
		{rule(flowTarget(), dataplane.Observe), ""},
		{rule(target("192.0.2.1/32"), dataplane.Block), ""},
		{rule(target("2001:db8::/48"), dataplane.Block), ""},
		{rule(serviceTarget("192.0.2.1/32", 22, flow.TCP), dataplane.Block), ""},
		{limit, ""},
		{dataplane.Rule{Target: target("192.0.2.1/32"), Action: dataplane.Block}, "expires: is required"},
		{rule(dataplane.Target{}, dataplane.Block), "neither flow nor prefix"},
		{rule(flowTarget(), dataplane.Block), "a flow can be put under observe, rate-limit, suspend"},
		{rule(flowTarget(), dataplane.RateLimit), "a rate of at least 1"},
		{rule(target("192.0.2.1/24"), dataplane.Block), "host bits"},
		{rule(target("::ffff:192.0.2.1/128"), dataplane.Block), "expected plain IPv4"},
		{rule(target("0.0.0.0/0"), dataplane.Block), "too wide"},
		{rule(target("2000::/3"), dataplane.Block), "too wide"},
		{rule(target("192.0.2.1/32"), dataplane.Suspend), "an address can be put under observe, rate-limit, block, quarantine"},
		{rule(serviceTarget("192.0.2.0/24", 22, flow.TCP), dataplane.Block), "a service is one address"},
		{rule(serviceTarget("192.0.2.1/32", 22, 0), dataplane.Block), "a service is one address"},
		{rule(serviceTarget("192.0.2.1/32", 0, flow.TCP), dataplane.Block), "a service is one address"},
		{rule(serviceTarget("192.0.2.1/32", 22, flow.TCP), dataplane.Observe), ""},
		{rule(target("10.0.0.1/32"), dataplane.RateLimit), "a rate of at least 1"},
		{wideLimit, "a prefix can be put under observe, block"},
		{rule(target("10.0.0.0/24"), dataplane.Quarantine), "a prefix can be put under observe, block"},
		{rule(pair("10.0.0.1", "192.0.2.1"), dataplane.Block), ""},
		{rule(pair("fd00::1", "2001:db8::1"), dataplane.Block), ""},
		{rule(pair("10.0.0.1", "2001:db8::1"), dataplane.Block), "two addresses of one family"},
		{rule(pair("10.0.0.1", "10.0.0.1"), dataplane.Block), "two addresses of one family"},
		{rule(pair("10.0.0.1", "192.0.2.1"), dataplane.Quarantine), "a pair of hosts can be put under observe, block"},
		{rule(toward("192.0.2.1"), dataplane.Block), "what goes to an address can be put under rate-limit"},
	} {
		err := c.rule.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: got %v, expected %q", c.rule, err, c.want)
		}
	}
}

func TestTargetString(t *testing.T) {
	for want, target := range map[string]dataplane.Target{
		"tcp 10.0.0.1:1<>10.0.0.2:2": flowTarget(),
		"192.0.2.1":                  dataplane.Peer(netip.MustParseAddr("::ffff:192.0.2.1")),
		"192.0.2.0/24":               target("192.0.2.0/24"),
		"192.0.2.1:22/tcp":           serviceTarget("192.0.2.1/32", 22, flow.TCP),
		"10.0.0.1~192.0.2.1":         pair("10.0.0.1", "192.0.2.1"),
		"to 192.0.2.1":               toward("192.0.2.1"),
	} {
		if got := target.String(); got != want {
			t.Errorf("got %q, expected %q", got, want)
		}
	}
}

func TestWords(t *testing.T) {
	var words []string
	for a := dataplane.Observe; a <= dataplane.Quarantine; a++ {
		words = append(words, a.String())
	}
	words = append(words, dataplane.Monitor.String(), dataplane.Enforce.String())
	if got := strings.Join(words, " "); got != "observe rate-limit suspend block quarantine monitor enforce" {
		t.Errorf("got %q, expected the words of the product, weakest first", got)
	}
}
