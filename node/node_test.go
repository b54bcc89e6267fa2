package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/membus"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
	"github.com/hedgerow-mesh/hedgerow/node/internal/store"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The database's cache and log machinery keep these for the process.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

var (
	attacker = netip.MustParseAddr("203.0.113.66")
	visitor  = netip.MustParseAddr("203.0.113.7")
)

// testSite is a node over a software plane, and what it takes to start it anew.
type testSite struct {
	t     *testing.T
	o     Options
	plane *softplane.Plane
	node  *Node
	stop  func()
}

func (s *testSite) start() {
	s.t.Helper()
	p, err := softplane.Open(softplane.Options{Inside: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.plane, s.o.Plane = p, p
	if s.node, err = New(s.o); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.node.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("%s ended with %v", s.o.Site, err)
		}
		s.stop = func() {}
	}
	s.t.Cleanup(func() { s.stop() })
}

// sites starts nodes of one organisation, in enforce mode without a learner.
func sites(t *testing.T, names ...string) []*testSite {
	t.Helper()
	return sitesWith(t, func(*Options) {}, names...)
}

// sitesWith is sites with something else in their options.
func sitesWith(t *testing.T, mend func(*Options), names ...string) []*testSite {
	t.Helper()
	bus := membus.New(membus.Config{Seed: 1})
	var roster []federation.Site
	var out []*testSite
	for _, name := range names {
		k, err := identity.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		roster = append(roster, federation.Site{Name: name, ID: k.ID()})
		st, err := store.Open(t.TempDir(), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		})
		out = append(out, &testSite{t: t, o: Options{
			Site: name, Mode: dataplane.Enforce, Store: st, Key: k,
			Learner: LearnerOptions{RetrainEvery: time.Hour},
			Policy:  PolicyOptions{Suspend: 30 * time.Second, Block: time.Hour, MaxBlocksPerHour: 60, MaxShare: 0.5, Rules: true},
		}})
	}
	for i, s := range out {
		if len(names) > 1 {
			s.o.Mesh = MeshOptions{Organisation: "grove", Roster: roster, Transport: bus.Join(roster[i].ID), RoundEvery: time.Hour, Gather: time.Second}
		}
		mend(&s.o)
		s.start()
	}
	return out
}

func (s *testSite) pass(steps ...planetest.Step) (all bool) {
	all = true
	for _, x := range steps {
		all = s.plane.Frame(x.Hook, softplane.Ethernet, x.Frame, 0, time.Now()) && all
	}
	return all
}

// scan refuses an attacker at many ports, after one handshake that proves its
// address.
func (s *testSite) scan(from netip.Addr) {
	host := netip.MustParseAddr("10.0.0.5")
	// Open ports, which it leaves without a word: spoofed scans would not get there.
	for _, port := range []uint16{22, 80, 443} {
		open := planetest.NewSession(netip.AddrPortFrom(from, 40000), netip.AddrPortFrom(host, port))
		open.ServerInside = true
		s.pass(open.Open()...)
		s.pass(open.Send(1, flow.RST|flow.ACK, nil))
	}
	for port := range uint16(30) {
		x := planetest.NewSession(netip.AddrPortFrom(from, 41000), netip.AddrPortFrom(host, 1000+port))
		x.ServerInside = true
		s.pass(x.Send(0, flow.SYN, nil), x.Send(1, flow.RST|flow.ACK, nil))
	}
	again := planetest.NewSession(netip.AddrPortFrom(from, 40001), netip.AddrPortFrom(host, 22))
	again.ServerInside = true
	s.pass(again.Open()...)
	s.pass(again.Data(0, []byte("hello")), again.Data(1, []byte("hello")))
}

func visit(from netip.Addr, port uint16) []planetest.Step {
	x := planetest.NewSession(netip.AddrPortFrom(from, port), netip.MustParseAddrPort("10.0.0.5:80"))
	x.ServerInside = true
	return append(x.Open(), x.Data(0, []byte("GET / HTTP/1.1")), x.Data(1, []byte("HTTP/1.1 200 OK")))
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	within(t, time.Minute, what, cond)
}

func within(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("did not happen: %s", what)
		case <-tick.C:
		}
	}
}

func (s *testSite) blocks(target string) func() bool {
	return func() bool {
		bs, err := s.node.Blocks(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		return slices.ContainsFunc(bs, func(b api.Block) bool { return b.Target == target && b.Action == "block" && b.Enforced })
	}
}

func not(f func() bool) func() bool { return func() bool { return !f() } }

func TestAScanIsBlockedSharedExplainedAndUndone(t *testing.T) {
	s := sites(t, "alder", "birch")
	alder, birch := s[0], s[1]
	eventually(t, "the sites connect", func() bool {
		st, err := alder.node.Status(t.Context())
		return err == nil && slices.Equal(st.Mesh.Connected, []string{"birch"})
	})
	alder.scan(attacker)
	eventually(t, "alder blocks the scanner", alder.blocks(attacker.String()))
	eventually(t, "birch blocks it before it comes", birch.blocks(attacker.String()))
	if birch.pass(visit(attacker, 50000)...) {
		t.Fatal("birch lets the scanner in")
	}
	if !birch.pass(visit(visitor, 50000)...) || !alder.pass(visit(visitor, 50001)...) {
		t.Fatal("a visitor is locked out")
	}

	x, err := birch.node.Explain(t.Context(), attacker.String())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(x.Sentence, "failed at") || !strings.Contains(x.Undo, "unblock") {
		t.Fatalf("birch explains with %q, undo %q", x.Sentence, x.Undo)
	}
	x, err = alder.node.Explain(t.Context(), attacker.String())
	if err != nil || len(x.Alerts) == 0 || x.Incident == nil {
		t.Fatalf("alder's explanation has %+v, %v", x, err)
	}

	if err := alder.node.Unblock(t.Context(), attacker.String()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the undo reaches birch", not(birch.blocks(attacker.String())))
	if !alder.pass(visit(attacker, 50002)...) || !birch.pass(visit(attacker, 50003)...) {
		t.Fatal("after the undo the address is still dropped")
	}
}

func TestBlocksOutliveTheProcess(t *testing.T) {
	s := sites(t, "alder")[0]
	s.scan(attacker)
	eventually(t, "the scanner is blocked", s.blocks(attacker.String()))
	if err := s.node.Block(t.Context(), "198.51.100.0/24", time.Hour, "asked by the provider"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the decisions are stored", func() bool {
		bs, err := s.o.Store.Blocks()
		return err == nil && len(bs) == 2
	})
	s.stop()
	s.start()
	if !s.blocks(attacker.String())() || !s.blocks("198.51.100.0/24")() {
		t.Fatal("a block is gone after the restart")
	}
	if s.pass(visit(attacker, 50000)...) || s.pass(visit(netip.MustParseAddr("198.51.100.9"), 50000)...) {
		t.Fatal("a block is listed and does not drop")
	}
}

func TestPanicAndModeOutliveTheProcess(t *testing.T) {
	s := sites(t, "alder")[0]
	s.scan(attacker)
	eventually(t, "the scanner is blocked", s.blocks(attacker.String()))
	n, err := s.node.Panic(t.Context(), true)
	if err != nil || n == 0 {
		t.Fatalf("panic lifted %d, %v", n, err)
	}
	if err := s.node.SetMode(t.Context(), "monitor"); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.start()
	st, err := s.node.Status(t.Context())
	if err != nil || !st.Panic || st.Mode != "monitor" || len(st.Warnings) < 2 {
		t.Fatalf("after the restart: %+v, %v", st, err)
	}
	if !s.pass(visit(attacker, 50000)...) {
		t.Fatal("panic is on and something is dropped")
	}
}

func TestAllowListWinsOverEverything(t *testing.T) {
	s := sites(t, "alder")[0]
	if _, err := s.node.Allow(t.Context(), attacker.String(), false); err != nil {
		t.Fatal(err)
	}
	s.scan(attacker)
	eventually(t, "the scan is told", func() bool {
		es, err := s.node.Events(t.Context(), api.Query{Kinds: []event.Kind{event.KindVerdict}, Limit: 100})
		return err == nil && slices.ContainsFunc(es, func(e *event.Event) bool {
			return strings.Contains(e.Verdict.Sentence, "never-block")
		})
	})
	if err := s.node.Block(t.Context(), attacker.String(), time.Hour, ""); err == nil {
		t.Fatal("the operator blocked what he never blocks, without being told")
	}
	if !s.pass(visit(attacker, 50000)...) {
		t.Fatal("an allowed address is dropped")
	}
	list, err := s.node.Allow(t.Context(), attacker.String(), true)
	if err != nil || len(list) != 0 {
		t.Fatalf("list after the removal: %v, %v", list, err)
	}
	if err := s.node.Block(t.Context(), attacker.String(), time.Hour, ""); err != nil {
		t.Fatal(err)
	}
}

func TestOwnAddressesAreNoTarget(t *testing.T) {
	s := sites(t, "alder")[0]
	s.stop()
	s.o.Own = []netip.Addr{attacker}
	s.start()
	if err := s.node.Block(t.Context(), "203.0.113.0/24", time.Hour, ""); err == nil || !strings.Contains(err.Error(), "address of this machine") {
		t.Fatalf("blocking a prefix with the machine's own address: %v", err)
	}
	s.scan(attacker)
	eventually(t, "the refusal is told", func() bool {
		es, err := s.node.Events(t.Context(), api.Query{Kinds: []event.Kind{event.KindVerdict}, Limit: 100})
		return err == nil && slices.ContainsFunc(es, func(e *event.Event) bool {
			return strings.Contains(e.Verdict.Sentence, "address of this machine")
		})
	})
	if bs, err := s.node.Blocks(t.Context()); err != nil || len(bs) != 0 {
		t.Fatalf("standing against the machine's own address: %v, %v", bs, err)
	}
}

func TestBadRequestsAreNamed(t *testing.T) {
	s := sites(t, "alder")[0]
	for what, f := range map[string]func() error{
		"expected an address": func() error { return s.node.Block(t.Context(), "nowhere", 0, "") },
		"too wide":            func() error { return s.node.Block(t.Context(), "0.0.0.0/0", 0, "") },
		"not known":           func() error { return s.node.Unblock(t.Context(), "203.0.113.1") },
		"monitor or enforce":  func() error { return s.node.SetMode(t.Context(), "kill") },
		"alone":               func() error { _, err := s.node.StartRound(t.Context()); return err },
		"list them":           func() error { _, err := s.node.Explain(t.Context(), "nothing"); return err },
		"alert or incident":   func() error { return s.node.Label(t.Context(), "nothing", true) },
	} {
		if err := f(); err == nil || !strings.Contains(fmt.Sprint(err), what) {
			t.Errorf("got %v, want %q in it", err, what)
		}
	}
}
