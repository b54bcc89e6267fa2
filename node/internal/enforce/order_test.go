package enforce

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

func TestTargetsAreReadAsTheyAreWritten(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("203.0.113.9")
	six := netip.MustParseAddr("2001:db8::9")
	service := dataplane.Peer(six)
	service.Port, service.Proto = 443, flow.TCP
	for _, want := range []dataplane.Target{
		dataplane.Peer(a), dataplane.Peer(six), {Prefix: netip.MustParsePrefix("203.0.113.0/24")}, service,
		dataplane.Toward(b), dataplane.Toward(six), dataplane.Pair(a, b), dataplane.Pair(netip.MustParseAddr("fd00::1"), six),
	} {
		if got, err := ParseTarget(want.String()); err != nil || got != want {
			t.Errorf("%s: read as %+v, %v", want, got, err)
		}
	}
	for _, bad := range []string{"", "to", "to ", "to x", "~", "10.0.0.5~", "~203.0.113.9", "10.0.0.5~x", "fe80::1%eth0~fe80::2", "10.0.0.5~1.2.3.4~5"} {
		if got, err := ParseTarget(bad); err == nil {
			t.Errorf("%q: read as %s", bad, got)
		}
	}
}

// Each step of the ladder by hand: enforced, or refused with what is possible.
func TestOrders(t *testing.T) {
	inside := netip.MustParsePrefix("10.0.0.0/8")
	m := machine(Options{
		Inside: inside.Contains,
		Void: func(t dataplane.Target) error {
			if t.Prefix.Contains(netip.MustParseAddr("192.0.2.1")) {
				return dataplane.ErrNeverBlock
			}
			return nil
		},
	})
	for _, c := range []struct{ target, action, want string }{ // want "" is enforced
		{"203.0.113.9", "observe", ""},
		{"203.0.113.9", "rate-limit", ""},
		{"203.0.113.9", "block", ""},
		{"203.0.113.9", "suspend", "an address can be put under observe, rate-limit, block, quarantine"},
		{"203.0.113.9", "quarantine", "not an inside host"},
		{"10.0.0.5", "block", ""},
		{"10.0.0.5", "quarantine", ""},
		{"10.0.0.0/24", "quarantine", "a prefix can be put under observe, block"},
		{"to 10.0.0.5", "rate-limit", ""},
		{"to 10.0.0.5", "block", "what goes to an address can be put under rate-limit"},
		{"10.0.0.5 tcp/22", "rate-limit", ""},
		{"10.0.0.5~203.0.113.9", "block", ""},
		{"10.0.0.5~203.0.113.9", "rate-limit", "a pair of hosts can be put under observe, block"},
		{"10.0.0.5~2001:db8::1", "block", "two addresses of one family"},
		{"192.0.2.1", "block", dataplane.ErrNeverBlock.Error()},
	} {
		target, err := ParseTarget(c.target)
		if err != nil {
			t.Fatal(err)
		}
		a, err := ParseAction(c.action)
		if err != nil {
			t.Fatal(err)
		}
		before := len(m.Standing())
		fx, err := m.Order(t0, Order{Target: target, Action: a})
		if c.want == "" {
			if err != nil || !strings.Contains(say(fx), "apply "+c.action+" "+target.String()) {
				t.Errorf("%s of %s: %v, effects\n%s", c.action, c.target, err, say(fx))
			}
			if _, err := m.Unblock(t0, target); err != nil {
				t.Errorf("undo %s of %s: %v", c.action, c.target, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || len(m.Standing()) != before {
			t.Errorf("%s of %s: %v, expected %q and no rule", c.action, c.target, err, c.want)
		}
	}
	if _, err := ParseAction("drop"); err == nil {
		t.Error("an unknown action was read")
	}
	if _, err := m.Unblock(t0, dataplane.Peer(netip.MustParseAddr("203.0.113.9"))); !errors.Is(err, ErrUnknown) {
		t.Errorf("undo of nothing: %v", err)
	}
}

// What was ordered comes back after a restart as it was.
func TestOrdersAreRestored(t *testing.T) {
	m := machine(Options{})
	var blocks []event.Block
	for target, a := range map[string]dataplane.Action{
		"10.0.0.5": dataplane.Quarantine, "to 10.0.0.6": dataplane.RateLimit, "10.0.0.5~203.0.113.9": dataplane.Block,
		"203.0.113.7": dataplane.Observe,
	} {
		parsed, err := ParseTarget(target)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Order(t0, Order{Target: parsed, Action: a, Rate: 7, For: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	want := m.Rules()
	blocks = append(blocks, m.Standing()...)
	again := machine(Options{})
	again.Restore(t0.Add(time.Minute), blocks)
	got := again.Rules()
	if len(got) != 4 || len(want) != 4 {
		t.Fatalf("%d rules came back of %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("came back as %+v, was %+v", got[i], want[i])
		}
	}
}

// What an operator shared is withdrawn with the block, also by a machine that only
// knows what was stored; what follows on the same target does not lose that.
func TestAnOperatorsShareIsWithdrawn(t *testing.T) {
	m := machine(Options{})
	o := Order{Target: dataplane.Peer(netip.MustParseAddr("198.51.100.7")), Action: dataplane.Block, For: time.Hour, Reason: "why", Share: true}
	fx, err := m.Order(t0, o)
	if err != nil {
		t.Fatal(err)
	}
	want(t, fx, "apply block 198.51.100.7", "share address 198.51.100.7 operator")
	o.Share = false
	if fx, err = m.Order(t0, o); err != nil {
		t.Fatal(err)
	}
	want(t, fx, "apply block 198.51.100.7")
	again := machine(Options{})
	again.Restore(t0, m.Standing())
	for name, x := range map[string]*Machine{"the same machine": m, "one that was restored": again} {
		fx, err := x.Unblock(t0, o.Target)
		if err != nil || !strings.Contains(say(fx), "withdraw 198.51.100.7") {
			t.Errorf("%s: %s, %v", name, say(fx), err)
		}
	}
}
