package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

var start = time.Unix(1_700_000_000, 0)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func block(target dataplane.Target, d time.Duration) dataplane.Rule {
	return dataplane.Rule{Target: target, Action: dataplane.Block, Expires: start.Add(d), Reason: 1}
}

func prefix(s string) dataplane.Target { return dataplane.Target{Prefix: netip.MustParsePrefix(s)} }

func udp(src, dst string) *Packet {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	p := &Packet{Src: s.Addr(), Dst: d.Addr(), SrcPort: s.Port(), DstPort: d.Port(), Proto: flow.UDP, Size: 100}
	p.Key, _ = flow.NewKey(s, d, flow.UDP)
	return p
}

func TestTableIsFullAndSaysSo(t *testing.T) {
	table := NewTable(2)
	a, b, c := dataplane.Peer(addr("192.0.2.1")), dataplane.Peer(addr("192.0.2.2")), dataplane.Peer(addr("192.0.2.3"))
	if err := table.Apply(start, block(a, time.Second), block(b, time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := table.Apply(start, block(b, time.Minute), block(c, time.Hour)); !errors.Is(err, dataplane.ErrFull) {
		t.Fatalf("third rule of two: got %v, expected %v", err, dataplane.ErrFull)
	}
	if got := table.Rules(start); len(got) != 2 || !got[1].Rule.Expires.Equal(start.Add(time.Hour)) {
		t.Errorf("after a refused call: got %v, expected the first two rules as they were", got)
	}
	// An expired rule makes room by itself.
	if err := table.Apply(start.Add(2*time.Second), block(c, time.Hour)); err != nil {
		t.Errorf("after an expiry: %v", err)
	}
}

func TestReplacedRuleKeepsHits(t *testing.T) {
	table := NewTable(0)
	peer := dataplane.Peer(addr("192.0.2.1"))
	for i := range 3 {
		if err := table.Apply(start, block(peer, time.Duration(i+1)*time.Minute)); err != nil {
			t.Fatal(err)
		}
		v := table.Decide(udp("192.0.2.1:1", "10.0.0.1:2"), start.UnixNano(), dataplane.Enforce)
		if !v.Drop || !v.First {
			t.Errorf("packet %d: got %+v, expected the first drop of a rule applied anew", i, v)
		}
		if v = table.Decide(udp("192.0.2.1:1", "10.0.0.1:2"), start.UnixNano(), dataplane.Enforce); !v.Drop || v.First {
			t.Errorf("packet %d again: got %+v, expected a drop that is not the first", i, v)
		}
	}
	if h := table.Rules(start); len(h) != 1 || h[0].Packets != 6 || h[0].Bytes != 600 {
		t.Errorf("rules: got %+v, expected one with 6 packets of 600 bytes", h)
	}
	// Monitor tells its own first drop.
	if v := table.Decide(udp("192.0.2.1:1", "10.0.0.1:2"), start.UnixNano(), dataplane.Monitor); !v.First {
		t.Error("first drop in the other mode was not told")
	}
}

func TestFlowTargetInEitherOrder(t *testing.T) {
	table := NewTable(0)
	p := udp("192.0.2.1:1", "10.0.0.1:2")
	swapped := flow.Key{A: p.Key.B, B: p.Key.A, APort: p.Key.BPort, BPort: p.Key.APort, Proto: flow.UDP}
	rule := dataplane.Rule{Target: dataplane.Target{Flow: swapped}, Action: dataplane.Suspend, Expires: start.Add(time.Minute)}
	if err := table.Apply(start, rule); err != nil {
		t.Fatal(err)
	}
	if !table.Decide(p, start.UnixNano(), dataplane.Enforce).Drop {
		t.Error("a suspension whose key is not in canonical order does not act")
	}
	table.Remove(rule.Target)
	if table.Len() != 0 {
		t.Error("it cannot be removed by the key that applied it")
	}
}

func TestRateLimit(t *testing.T) {
	table := NewTable(0)
	host := dataplane.Peer(addr("10.0.0.1"))
	rule := dataplane.Rule{Target: host, Action: dataplane.RateLimit, Rate: 4, Expires: start.Add(time.Hour)}
	if err := table.Apply(start, rule); err != nil {
		t.Fatal(err)
	}
	p := udp("10.0.0.1:1", "192.0.2.1:2")
	p.New = true
	count := func(at time.Time) (passed int) {
		for range 20 {
			if !table.Decide(p, at.UnixNano(), dataplane.Enforce).Drop {
				passed++
			}
		}
		return passed
	}
	for i, step := range []struct {
		at   time.Duration
		want int
	}{{0, 4}, {250 * time.Millisecond, 1}, {10 * time.Second, 4}, {9 * time.Second, 0}} {
		if got := count(start.Add(step.at)); got != step.want {
			t.Errorf("step %d at %s: passed %d of 20, expected %d", i, step.at, got, step.want)
		}
	}
	p.New = false
	if table.Decide(p, start.UnixNano(), dataplane.Enforce).Drop {
		t.Error("a packet of a known flow was charged")
	}
}

func TestBuiltInAllowanceIsBounded(t *testing.T) {
	table := NewTable(0)
	if err := table.Apply(start, block(dataplane.Peer(addr("192.0.2.1")), time.Hour)); err != nil {
		t.Fatal(err)
	}
	p := &Packet{Src: addr("192.0.2.1"), Dst: addr("10.0.0.1"), Proto: flow.ICMP, Type: 3, Code: 4}
	saved := 0
	for range 3000 {
		if table.Decide(p, start.UnixNano(), dataplane.Enforce).Saved {
			saved++
		}
	}
	if saved != builtinPerSecond {
		t.Errorf("saved in one instant: got %d, expected %d", saved, builtinPerSecond)
	}
}

func TestNeverListRefusesBadEntries(t *testing.T) {
	table := NewTable(0)
	good := dataplane.Never{Prefix: netip.MustParsePrefix("192.0.2.1/32")}
	if err := table.SetNever([]dataplane.Never{good}); err != nil {
		t.Fatal(err)
	}
	many := make([]dataplane.Never, MaxNeverTuples+1)
	for i := range many {
		many[i] = dataplane.Never{Prefix: good.Prefix, Port: uint16(i + 1)}
	}
	for name, list := range map[string][]dataplane.Never{
		"no prefix": {{}}, "host bits": {{Prefix: netip.MustParsePrefix("192.0.2.1/24")}},
		"mapped": {{Prefix: netip.MustParsePrefix("::ffff:192.0.2.1/128")}}, "tuples": many, "entries": make([]dataplane.Never, maxNever+1),
	} {
		if table.SetNever(list) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := table.Apply(start, block(dataplane.Peer(addr("192.0.2.1")), time.Hour)); err != nil {
		t.Fatal(err)
	}
	if !table.Decide(udp("192.0.2.1:1", "10.0.0.1:2"), start.UnixNano(), dataplane.Enforce).Saved {
		t.Error("a refused list took the old one's place")
	}
}

func TestGuard(t *testing.T) {
	never := []dataplane.Never{
		{Prefix: netip.MustParsePrefix("192.0.2.1/32")},
		{Prefix: netip.MustParsePrefix("192.0.2.53/32"), Proto: flow.UDP, Port: 53},
		{Prefix: netip.MustParsePrefix("198.51.100.0/24")},
	}
	flowTo := func(dst string) dataplane.Target { return dataplane.Target{Flow: udp("10.0.0.1:9", dst).Key} }
	serviceOf := func(a string, port uint16) dataplane.Target {
		return dataplane.Target{Prefix: dataplane.Peer(addr(a)).Prefix, Port: port, Proto: flow.UDP}
	}
	for _, c := range []struct {
		name   string
		target dataplane.Target
		action dataplane.Action
		want   error
	}{
		{"a stranger", dataplane.Peer(addr("203.0.113.1")), dataplane.Block, nil},
		{"a never-block address", dataplane.Peer(addr("192.0.2.1")), dataplane.Block, dataplane.ErrNeverBlock},
		{"a service of it", serviceOf("192.0.2.1", 80), dataplane.Block, dataplane.ErrNeverBlock},
		{"a flow with it", flowTo("192.0.2.1:80"), dataplane.Suspend, dataplane.ErrNeverBlock},
		{"its budget", dataplane.Peer(addr("192.0.2.1")), dataplane.RateLimit, dataplane.ErrNeverBlock},
		{"watching it", dataplane.Peer(addr("192.0.2.1")), dataplane.Observe, nil},
		{"the rest of a resolver", dataplane.Peer(addr("192.0.2.53")), dataplane.Block, nil},
		{"the resolver's service", serviceOf("192.0.2.53", 53), dataplane.Block, dataplane.ErrNeverBlock},
		{"its other port", serviceOf("192.0.2.53", 54), dataplane.Block, nil},
		{"a query", flowTo("192.0.2.53:53"), dataplane.Suspend, dataplane.ErrNeverBlock},
		{"a never-block prefix", prefix("198.51.100.0/24"), dataplane.Block, dataplane.ErrNeverBlock},
		{"half of it", prefix("198.51.100.0/25"), dataplane.Block, dataplane.ErrNeverBlock},
		{"a prefix with one such address", prefix("192.0.2.0/24"), dataplane.Block, nil},
		{"wide", prefix("203.0.112.0/23"), dataplane.Block, ErrTooWide},
		{"wide IPv6", prefix("2001:db8::/47"), dataplane.Block, ErrTooWide},
		{"narrow IPv6", prefix("2001:db8::/48"), dataplane.Block, nil},
	} {
		g, err := NewGuard(Caps{})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.SetNever(never); err != nil {
			t.Fatal(err)
		}
		rule := dataplane.Rule{Target: c.target, Action: c.action, Expires: start.Add(time.Hour), Rate: 1}
		if err := g.Check(rule, nil, start); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: got %v, expected %v", c.name, err, c.want)
		}
	}
}

func TestGuardCapsTheHour(t *testing.T) {
	g, err := NewGuard(Caps{PerHour: 2})
	if err != nil {
		t.Fatal(err)
	}
	rule := block(dataplane.Peer(addr("203.0.113.1")), 3*time.Hour)
	g.Blocked(start)
	g.Blocked(start.Add(30 * time.Minute))
	if err := g.Check(rule, nil, start.Add(59*time.Minute)); !errors.Is(err, ErrTooMany) {
		t.Errorf("third within the hour: got %v, expected %v", err, ErrTooMany)
	}
	if err := g.Check(rule, nil, start.Add(60*time.Minute)); err != nil {
		t.Errorf("an hour after the first: %v", err)
	}
	for _, c := range []struct {
		perHour int
		want    error
	}{{-1, ErrTooMany}, {1, nil}} {
		if err := g.SetCaps(Caps{PerHour: c.perHour}); err != nil {
			t.Fatal(err)
		}
		if err := g.Check(rule, nil, start.Add(3*time.Hour)); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%d an hour: got %v, expected %v", c.perHour, err, c.want)
		}
	}
	if err := g.SetCaps(Caps{Share: 2}); err == nil || g.Check(rule, nil, start.Add(3*time.Hour)) != nil {
		t.Errorf("caps that are refused: %v, and the old ones did not stay", err)
	}
}

func TestGuardCapsTheShare(t *testing.T) {
	g, err := NewGuard(Caps{Share: 0.05, Floor: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		server := netip.AddrPortFrom(addr(fmt.Sprintf("198.51.100.%d", i)), 443)
		g.Saw(addr("10.0.0.1"), server, flow.TCP, start)
	}
	stranger := block(prefix("203.0.113.0/24"), time.Hour)
	if err := g.Check(stranger, nil, start); err != nil {
		t.Errorf("a block that normal traffic does not need: %v", err)
	}
	if err := g.Check(block(prefix("198.51.100.0/24"), time.Hour), nil, start); !errors.Is(err, ErrTooBroad) {
		t.Errorf("a block of all servers: got %v, expected %v", err, ErrTooBroad)
	}
	// Five of 101 hosts may go, one by one; the sixth is refused, and an expired one makes room.
	var active []dataplane.Rule
	for i := range 5 {
		rule := block(dataplane.Peer(addr(fmt.Sprintf("198.51.100.%d", i))), time.Duration(i+1)*time.Minute)
		if err := g.Check(rule, active, start); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		active = append(active, rule)
	}
	sixth := block(dataplane.Peer(addr("198.51.100.9")), time.Hour)
	if err := g.Check(sixth, active, start); !errors.Is(err, ErrTooBroad) {
		t.Errorf("sixth: got %v, expected %v", err, ErrTooBroad)
	}
	if err := g.Check(stranger, active, start); err != nil {
		t.Errorf("a stranger at the cap: %v", err)
	}
	if err := g.Check(sixth, active, start.Add(90*time.Second)); err != nil {
		t.Errorf("after an expiry: %v", err)
	}
	if r := g.Radius(active, start.Add(25*time.Hour)); r != (Radius{}) {
		t.Errorf("a day later: got %+v, expected that normal traffic is forgotten", r)
	}
}

func TestGuardCountsServices(t *testing.T) {
	g, err := NewGuard(Caps{})
	if err != nil {
		t.Fatal(err)
	}
	g.Saw(addr("10.0.0.1"), netip.MustParseAddrPort("192.0.2.1:443"), flow.TCP, start)
	g.Saw(addr("10.0.0.1"), netip.MustParseAddrPort("192.0.2.1:80"), flow.TCP, start)
	target := dataplane.Peer(addr("192.0.2.1"))
	target.Port, target.Proto = 443, flow.TCP
	want := Radius{Hosts: 1, AllHosts: 2, Services: 1, AllServices: 2}
	if got := g.Radius([]dataplane.Rule{block(target, time.Hour)}, start); got != want {
		t.Errorf("radius: got %+v, expected %+v", got, want)
	}
}

func TestGuardIsBounded(t *testing.T) {
	g, err := NewGuard(Caps{Seen: 10})
	if err != nil {
		t.Fatal(err)
	}
	saw := func(i int, at time.Time) {
		g.Saw(addr(fmt.Sprintf("10.0.0.%d", i)), netip.MustParseAddrPort("192.0.2.1:443"), flow.TCP, at)
	}
	for i := range 200 {
		saw(i, start)
	}
	if r := g.Radius(nil, start); r.AllHosts != 10 || r.AllServices != 1 {
		t.Errorf("remembered: got %+v, expected 10 hosts and 1 service", r)
	}
	for i := range 200 {
		saw(i, start.Add(48*time.Hour))
	}
	if r := g.Radius(nil, start.Add(48*time.Hour)); r.AllHosts != 10 {
		t.Errorf("two days later: got %+v, expected 10 hosts of that day", r)
	}
}

func TestCapsAreChecked(t *testing.T) {
	for _, c := range []Caps{{V4Bits: 7}, {V6Bits: 129}, {Floor: -1}, {Share: 1.5}, {Share: -1}, {Recent: -1}} {
		if _, err := NewGuard(c); err == nil {
			t.Errorf("%+v: accepted", c)
		}
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	table := busyTable(t)
	p := udp("192.0.2.200:1", "10.0.0.1:2")
	if n := testing.AllocsPerRun(100, func() { table.Decide(p, start.UnixNano(), dataplane.Enforce) }); n != 0 {
		t.Errorf("allocations: got %v, expected 0", n)
	}
}

func busyTable(tb testing.TB) *Table {
	table := NewTable(0)
	for i := range 10000 {
		if err := table.Apply(start, block(dataplane.Peer(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})), time.Hour)); err != nil {
			tb.Fatal(err)
		}
	}
	obs := dataplane.Rule{Target: prefix("192.0.2.0/24"), Action: dataplane.Observe, Expires: start.Add(time.Hour)}
	if err := table.Apply(start, obs, block(prefix("203.0.113.0/24"), time.Hour)); err != nil {
		tb.Fatal(err)
	}
	if err := table.SetNever([]dataplane.Never{{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Port: 22}}); err != nil {
		tb.Fatal(err)
	}
	return table
}

func BenchmarkDecide(b *testing.B) {
	table := busyTable(b)
	for name, p := range map[string]*Packet{"pass": udp("192.0.2.200:1", "10.0.0.1:2"), "drop": udp("198.18.1.1:1", "10.0.0.1:2")} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				table.Decide(p, start.UnixNano(), dataplane.Enforce)
			}
		})
	}
}
