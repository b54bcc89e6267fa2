package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

const resolver = "203.0.113.53:53"

// message is a query, or with addresses the answer to it by way of an alias.
func message(t *testing.T, id uint16, name string, ttl uint32, addrs ...string) []byte {
	t.Helper()
	n := dnsmessage.MustNewName(name + ".")
	cdn := dnsmessage.MustNewName("cdn.example.net.")
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, Response: len(addrs) > 0},
		Questions: []dnsmessage.Question{{Name: n, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	for i, a := range addrs {
		if i == 0 {
			h := dnsmessage.ResourceHeader{Name: n, Class: dnsmessage.ClassINET, TTL: ttl}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: cdn}})
		}
		h := dnsmessage.ResourceHeader{Name: cdn, Class: dnsmessage.ClassINET, TTL: ttl}
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()}})
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// resolve lets a host ask for a name and be told addresses.
func (s *testSite) resolve(host string, id uint16, name string, addrs ...string) {
	s.t.Helper()
	from, to := netip.MustParseAddrPort(host+":5353"), netip.MustParseAddrPort(resolver)
	if !s.pass(planetest.Datagram(dataplane.FromInside, from, to, message(s.t, id, name, 60)),
		planetest.Datagram(dataplane.ToInside, to, from, message(s.t, id, name, 60, addrs...))) {
		s.t.Fatal("DNS was dropped")
	}
}

func (s *testSite) reaches(host, peer string) bool {
	out := s.pass(udp(host+":9", peer+":9", dataplane.FromInside))
	in := s.pass(udp(peer+":9", host+":9", dataplane.ToInside))
	if out != in {
		s.t.Errorf("%s and %s: out %v, in %v", host, peer, out, in)
	}
	return out
}

func (s *testSite) listed(target string) (b api.Block, ok bool) {
	s.t.Helper()
	bs, err := s.node.Blocks(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	i := slices.IndexFunc(bs, func(b api.Block) bool { return b.Target == target })
	if i < 0 {
		return b, false
	}
	return bs[i], true
}

func (s *testSite) blockDomain(name string) {
	s.t.Helper()
	if err := s.node.Block(s.t.Context(), name, time.Hour, "phishing"); err != nil {
		s.t.Fatal(err)
	}
}

// A domain's answer blocks what the host that asked and the addresses that it
// was told say to each other, and nothing else; undone in one step.
func TestADomainBindsToWhoAskedAndWhatItWasTold(t *testing.T) {
	s := sites(t, "alder")[0]
	s.blockDomain("Evil.Example.")
	s.resolve("10.0.0.5", 1, "www.EVIL.example", "198.51.100.80", "198.51.100.81")
	pair := "10.0.0.5~198.51.100.81"
	eventually(t, "both addresses are blocked for the host", func() bool { _, ok := s.listed(pair); return ok })
	for _, peer := range []string{"198.51.100.80", "198.51.100.81"} {
		if s.reaches("10.0.0.5", peer) {
			t.Errorf("the host reaches %s", peer)
		}
		if !s.reaches("10.0.0.6", peer) {
			t.Errorf("a host that did not ask is cut off from %s", peer)
		}
	}
	if !s.reaches("10.0.0.5", "198.51.100.82") {
		t.Error("the host is cut off from what it was not told")
	}
	b, _ := s.listed(pair)
	if left := time.Until(b.Expires); b.Domain != "evil.example" || !b.Enforced || left > 61*time.Second || left < 30*time.Second {
		t.Errorf("listed as %+v", b)
	}
	if b, ok := s.listed("evil.example"); !ok || !b.Enforced || b.Hits != 4 {
		t.Errorf("the domain is listed as %+v, %v", b, ok)
	}
	if d := s.verify(); !d.None() || d.Enforced != 2 {
		t.Errorf("verified as %+v", d)
	}
	eventually(t, "the domain explains its pairs", func() bool {
		x, err := s.node.Explain(t.Context(), "evil.example")
		return err == nil && strings.Contains(x.Sentence, "phishing") && strings.Contains(x.Undo, "unblock 'evil.example'") &&
			slices.ContainsFunc(x.Chain, func(e *event.Event) bool { return e.Block != nil && e.Block.Target == pair })
	})
	if x, err := s.node.Explain(t.Context(), pair); err != nil || !strings.Contains(x.Sentence, "was told that www.evil.example is 198.51.100.81: phishing") {
		t.Errorf("the pair is explained as %+v, %v", x, err)
	}

	s.stop()
	s.start()
	if s.reaches("10.0.0.5", "198.51.100.80") {
		t.Error("a pair did not outlast a restart")
	}
	s.resolve("10.0.0.6", 2, "evil.example", "198.51.100.83")
	eventually(t, "the domain is looked for after a restart", func() bool { _, ok := s.listed("10.0.0.6~198.51.100.83"); return ok })

	if err := s.node.Unblock(t.Context(), "EVIL.example"); err != nil {
		t.Fatal(err)
	}
	if !s.reaches("10.0.0.5", "198.51.100.80") || !s.reaches("10.0.0.6", "198.51.100.83") {
		t.Error("something stays blocked after the undo")
	}
	if bs, err := s.node.Blocks(t.Context()); err != nil || len(bs) != 0 {
		t.Errorf("left after the undo: %v, %v", bs, err)
	}
	s.resolve("10.0.0.5", 3, "evil.example", "198.51.100.80")
	s.stop() // what is under way is handled
	if !s.reaches("10.0.0.5", "198.51.100.80") {
		t.Error("the domain is still looked for after the undo")
	}
	s.start()
	if bs, err := s.node.Blocks(t.Context()); err != nil || len(bs) != 0 {
		t.Errorf("back after a restart: %v, %v", bs, err)
	}
}

// Whoever owns a blocked domain may answer what it likes: it harms nobody but,
// for a while, the host that asked, and not even that one where it must not.
func TestAnAttackersAnswerBlocksNobodyElse(t *testing.T) {
	s := sites(t, "alder")[0]
	if _, err := s.node.Allow(t.Context(), "198.51.100.1", false); err != nil {
		t.Fatal(err)
	}
	if err := s.node.SetSystem(nil, []netip.Addr{netip.MustParseAddr("198.51.100.2")}); err != nil {
		t.Fatal(err)
	}
	s.blockDomain("evil.example")
	// Nobody asked for these: neither at all, nor so.
	from, to := netip.MustParseAddrPort("10.0.0.5:5353"), netip.MustParseAddrPort(resolver)
	s.pass(planetest.Datagram(dataplane.ToInside, to, from, message(t, 9, "evil.example", 60, "198.51.100.9")))
	s.pass(planetest.Datagram(dataplane.FromInside, from, to, message(t, 9, "evil.example", 60)))
	s.pass(planetest.Datagram(dataplane.ToInside, to, from, message(t, 10, "evil.example", 60, "198.51.100.9")))
	s.resolve("10.0.0.5", 11, "notevil.example", "198.51.100.10")
	// The never-block list, an own address, inside and odd addresses, and last
	// one that may be blocked, so that the rest has been looked at.
	s.resolve("10.0.0.5", 12, "evil.example", "198.51.100.1", "198.51.100.2", "10.0.0.6", "192.168.9.9", "127.0.0.1", "224.0.0.1",
		"0.0.0.0", "169.254.1.1", "10.0.0.5", "198.51.100.80")
	eventually(t, "the last address is blocked", func() bool { _, ok := s.listed("10.0.0.5~198.51.100.80"); return ok })
	bs, err := s.node.Blocks(t.Context())
	if err != nil || len(bs) != 2 {
		t.Errorf("blocks %v, %v: expected the domain and one pair", bs, err)
	}
	for _, peer := range []string{"198.51.100.1", "198.51.100.2", "10.0.0.6", "192.168.9.9", "198.51.100.9", "198.51.100.10"} {
		if !s.reaches("10.0.0.5", peer) {
			t.Errorf("the host is cut off from %s", peer)
		}
	}
	if !s.reaches("10.0.0.6", "198.51.100.80") {
		t.Error("another host is cut off")
	}
	eventually(t, "it is told why not", func() bool {
		es, err := s.node.Events(t.Context(), api.Query{Kinds: []event.Kind{event.KindVerdict}, Limit: 100})
		return err == nil && slices.ContainsFunc(es, func(e *event.Event) bool {
			return e.Verdict.Target == "10.0.0.5~198.51.100.1" && strings.Contains(e.Verdict.Sentence, "but not blocked")
		})
	})

	// What is learned keeps its budget, however much the attacker answers.
	var many []string
	for i := range 25 {
		many = append(many, fmt.Sprintf("203.0.112.%d", i+1))
	}
	for id := range uint16(10) {
		for i := range many {
			many[i] = fmt.Sprintf("203.0.%d.%d", 100+id, i+1)
		}
		s.resolve("10.0.0.7", 100+id, "evil.example", many...)
	}
	eventually(t, "a host's pairs are bounded", func() bool {
		es, err := s.node.Events(t.Context(), api.Query{Kinds: []event.Kind{event.KindVerdict}, Limit: 1000})
		return err == nil && slices.ContainsFunc(es, func(e *event.Event) bool { return strings.Contains(e.Verdict.Sentence, "128 addresses") })
	})
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	if n := len(s.node.machine.Rules()); n != 128+1 {
		t.Errorf("%d rules: expected 128 for the one host, and one", n)
	}
	r := dataplane.Rule{Target: dataplane.Peer(netip.MustParseAddr("203.0.113.200")), Action: dataplane.Block, Expires: time.Now().Add(time.Hour)}
	if err := s.node.guard.Check(r, s.node.machine.Rules(), time.Now()); err != nil {
		t.Errorf("a learned block is refused: %v", err)
	}
}

func TestDomainsThatCannotBeBlocked(t *testing.T) {
	s := sites(t, "alder")[0]
	for target, want := range map[string]string{
		"co.uk": "anybody may register", "example": "expected an address", "evil..example": "not a domain name", "10.0.0.256": "expected an address",
	} {
		if err := s.node.Block(t.Context(), target, 0, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", target, err, want)
		}
	}
	if err := s.node.Unblock(t.Context(), "evil.example"); err == nil {
		t.Error("a domain that is not blocked was unblocked")
	}
}
