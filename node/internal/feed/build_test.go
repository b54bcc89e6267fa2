package feed

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var t0 = time.Unix(1_800_000_000, 0)

// random lists networks in a small space, so that they meet: 45.9.0.0/20 and as
// much of IPv6.
func random(r *rand.Rand, n int) string {
	var b strings.Builder
	for range n {
		bits := 20 + r.IntN(13)
		x := r.Uint32N(1<<12) >> (32 - bits) << (32 - bits)
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "2a00::%x/%d\n", x, bits+96)
		} else {
			fmt.Fprintf(&b, "45.9.%d.%d/%d\n", x>>8, x&255, bits)
		}
	}
	return b.String()
}

func mustRead(t testing.TB, text string) *List {
	t.Helper()
	l, err := Read(strings.NewReader(text), Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// truth asks every source, one network after the other, as nobody would in
// earnest.
func truth(sources []Source, protectedNets []netip.Prefix, a netip.Addr) (feeds Feeds, until time.Time) {
	for _, p := range protectedNets {
		if p.Contains(a) {
			return 0, until
		}
	}
	for i, s := range sources {
		s.List.Each(func(p netip.Prefix, _ int, _ time.Time) {
			if p.Contains(a) {
				feeds |= 1 << i
				if s.Until.After(until) {
					until = s.Until
				}
			}
		})
	}
	return feeds, until
}

// probes are all addresses of the space that random fills, and of its edges.
func probes(f func(netip.Addr)) {
	for x := range 1 << 12 {
		f(netip.AddrFrom4([4]byte{45, 9, byte(x >> 8), byte(x)}))
		f(netip.AddrFrom16([16]byte{0: 0x2a, 14: byte(x >> 8), 15: byte(x)}))
	}
	for _, s := range []string{"45.8.255.255", "45.9.16.0", "2a00::1000", "29ff:ffff::", "0.0.0.0", "255.255.255.255"} {
		f(netip.MustParseAddr(s))
	}
}

func TestMergeSaysOfEveryAddressWhatTheListsSay(t *testing.T) {
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 7))
		var sources []Source
		for i := range 1 + r.IntN(4) {
			sources = append(sources, Source{
				Name: fmt.Sprint("f", i), List: mustRead(t, random(r, 1+r.IntN(60))),
				Until: t0.Add(time.Duration(1+r.IntN(3)) * time.Hour),
			})
		}
		var g Guard
		var nets []netip.Prefix
		mustRead(t, random(r, r.IntN(12)+1)).Each(func(p netip.Prefix, _ int, _ time.Time) {
			nets = append(nets, p)
			g.Protect(Warned, "w", p)
		})
		if r.IntN(4) == 0 {
			g, nets = Guard{}, nil
		}
		g.Seal()
		set, err := Build(t0, sources, &g, Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		refused := tooManyHoles(sources, &g)
		probes(func(a netip.Addr) {
			want, until := truth(sources, nets, a)
			e, ok := set.Has(a)
			if ok != (want != 0) || ok && (e.Feeds != want || !e.Until.Equal(until)) {
				if !refused {
					t.Fatalf("seed %d: %s: merged %v %+v, lists %b until %v", seed, a, ok, e, want, until)
				}
			}
			if ok {
				if _, name, _, bad := g.Why(a); bad {
					t.Fatalf("seed %d: %s is protected by %s and listed", seed, a, name)
				}
			}
		})
		inOrderAndTight(t, set)
	}
}

// tooManyHoles says whether a network of a source covers more protected ones
// than a listed one may: then it is refused as a whole.
func tooManyHoles(sources []Source, g *Guard) bool {
	for _, s := range sources {
		for family, items := range s.List.items {
			for _, it := range items {
				if len(g.within(family, it.block)) > maxHoles {
					return true
				}
			}
		}
	}
	return false
}

// inOrderAndTight wants no entry that could be left out or joined.
func inOrderAndTight(t *testing.T, s *Set) {
	t.Helper()
	for family, cells := range s.cells {
		for i := range cells {
			if i == 0 {
				continue
			}
			a, b := &cells[i-1], &cells[i]
			switch {
			case a.compare(b.block) >= 0:
				t.Fatalf("%v and %v are out of order", a.prefix(family), b.prefix(family))
			case a.contains(b.block) && a.same(b):
				t.Fatalf("%v says nothing beside %v", b.prefix(family), a.prefix(family))
			case siblings(a.block, b.block) && a.same(b) && int(a.bits) > widest[family]:
				t.Fatalf("%v and %v are one", a.prefix(family), b.prefix(family))
			}
		}
	}
}

func entries(s *Set) (out []string) {
	s.Each(func(e Entry) { out = append(out, fmt.Sprintf("%s:%b", e.Prefix, e.Feeds)) })
	return out
}

func build(t *testing.T, g *Guard, lists ...string) (*Set, []string) {
	t.Helper()
	var sources []Source
	for i, l := range lists {
		sources = append(sources, Source{Name: fmt.Sprint("f", i), List: mustRead(t, l), Until: t0.Add(time.Hour)})
	}
	var notes []string
	s, err := Build(t0, sources, g, Limits{}, func(i int, n Note) {
		notes = append(notes, fmt.Sprintf("f%d:%d %s %s %s", i, n.Line, n.Value, n.Kind, n.Detail))
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, notes
}

func TestAggregation(t *testing.T) {
	for name, c := range map[string]struct {
		lists []string
		want  string
	}{
		"halves join":                    {[]string{"45.9.0.0/25\n45.9.0.128/25"}, "45.9.0.0/24:1"},
		"neighbours that are no halves":  {[]string{"45.9.0.128/25\n45.9.1.0/25"}, "45.9.0.128/25:1 45.9.1.0/25:1"},
		"up to a /8 and no further":      {[]string{"44.0.0.0/9\n44.128.0.0/9\n45.0.0.0/8"}, "44.0.0.0/8:1 45.0.0.0/8:1"},
		"IPv6 up to a /16":               {[]string{"2a00::/16\n2a01::/16"}, "2a00::/16:1 2a01::/16:1"},
		"inside goes":                    {[]string{"45.9.0.0/16\n45.9.1.1"}, "45.9.0.0/16:1"},
		"inside of another feed stays":   {[]string{"45.9.0.0/16", "45.9.1.1"}, "45.9.0.0/16:1 45.9.1.1/32:11"},
		"same reason only":               {[]string{"45.9.0.0/25", "45.9.0.128/25"}, "45.9.0.0/25:1 45.9.0.128/25:10"},
		"halves hide the outer one":      {[]string{"45.9.0.0/24", "45.9.0.0/25\n45.9.0.128/25"}, "45.9.0.0/24:11"},
		"equal ones carry both":          {[]string{"45.9.0.1", "45.9.0.1"}, "45.9.0.1/32:11"},
		"cascade":                        {[]string{"45.9.0.0\n45.9.0.1\n45.9.0.2/31\n45.9.0.4/30\n45.9.0.8/29"}, "45.9.0.0/28:1"},
		"a joined one inside its parent": {[]string{"45.9.0.0/23\n45.9.0.0/25\n45.9.0.128/25"}, "45.9.0.0/23:1"},
	} {
		s, _ := build(t, nil, c.lists...)
		if got := strings.Join(entries(s), " "); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestGuardRefusesAndSplits(t *testing.T) {
	var g Guard
	g.ProtectSpecial()
	g.Protect(Own, "this machine", netip.MustParsePrefix("45.9.148.1/32"))
	g.Protect(Never, "never-block", netip.MustParsePrefix("9.9.9.9/32"))
	if n := g.Warn("cdn", mustRead(t, "104.16.0.0/13\n2606:4700::/32\n0.0.0.0/1")); n != 2 {
		t.Errorf("%d networks of the warning list taken, want 2", n)
	}
	g.Seal()
	s, notes := build(t, &g, "10.1.2.3\n45.9.148.0/30\n9.9.9.9\n104.16.0.0/12\n104.17.1.1\n8.8.8.8\n2606:4700::1\n104.16.0.0/13\n192.168.0.0/15\n")
	want := []string{"8.8.8.8/32:1", "45.9.148.0/32:1", "45.9.148.2/31:1", "104.24.0.0/13:1", "192.169.0.0/16:1"}
	if got := entries(s); !reflect.DeepEqual(got, want) {
		t.Errorf("entries %v, want %v", got, want)
	}
	for _, line := range []string{
		"f0:1 10.1.2.3 special private (RFC 1918), inside 10.0.0.0/8",
		"f0:2 45.9.148.0/30 split without 45.9.148.1 (this machine)",
		"f0:3 9.9.9.9 never never-block",
		"f0:4 104.16.0.0/12 split without 104.16.0.0/13 (cdn)",
		"f0:5 104.17.1.1 warned cdn, inside 104.16.0.0/13",
		"f0:7 2606:4700::1 warned cdn, inside 2606:4700::/32",
		"f0:8 104.16.0.0/13 warned cdn",
		"f0:9 192.168.0.0/15 split without 192.168.0.0/16 (private (RFC 1918))",
	} {
		if !strings.Contains(strings.Join(notes, "\n")+"\n", line+"\n") {
			t.Errorf("no note %q in\n%s", line, strings.Join(notes, "\n"))
		}
	}
	p := s.Parts[0]
	if p.Given != 9 || p.Kept != 4 || p.Counts.Of(Refused) != 5 || p.Counts[Split] != 3 {
		t.Errorf("part %+v", p)
	}
	if kind, name, net, ok := g.Why(netip.MustParseAddr("::ffff:104.16.1.1")); !ok || kind != Warned || name != "cdn" || net.String() != "104.16.0.0/13" {
		t.Errorf("why: %v %v %v %v", kind, name, net, ok)
	}
}

// Whatever a list says, nothing of a protected network is in the set: the widest
// networks that a list may hold, against every protected one.
func TestNothingProtectedIsEverListed(t *testing.T) {
	var b strings.Builder
	for i := range 256 {
		fmt.Fprintf(&b, "%d.0.0.0/8\n", i)
	}
	for i := range 1 << 16 {
		fmt.Fprintf(&b, "%x::/16\n", i)
	}
	var g Guard
	g.ProtectSpecial()
	g.Seal()
	s, _ := build(t, &g, b.String())
	for family, nets := range g.nets {
		for _, p := range nets {
			for _, a := range []netip.Addr{p.prefix(family).Addr(), block{clip(p.end(), family), uint8(width[family])}.prefix(family).Addr()} {
				if e, ok := s.Has(a); ok {
					t.Errorf("%s of %s is listed by %v", a, p.prefix(family), e.Prefix)
				}
			}
		}
	}
	for _, a := range []string{"9.255.255.255", "11.0.0.0", "172.15.255.255", "223.255.255.255", "2001:db7:ffff::", "2a00::1", "1.1.1.1"} {
		if _, ok := s.Has(netip.MustParseAddr(a)); !ok {
			t.Errorf("%s is beside what is protected, and not listed", a)
		}
	}
}

func TestTooManyHolesAreARefusal(t *testing.T) {
	var g Guard
	for i := range maxHoles + 1 {
		g.Protect(Warned, "w", netip.PrefixFrom(netip.AddrFrom4([4]byte{45, 9, byte(i), 1}), 32))
	}
	g.Seal()
	s, notes := build(t, &g, "45.9.0.0/16\n45.9.0.0/24")
	if len(notes) != 2 || !strings.Contains(notes[0], "warned covers 65 protected networks") || !strings.Contains(notes[1], "split") {
		t.Errorf("notes %v", notes)
	}
	if _, ok := s.Has(netip.MustParseAddr("45.9.200.1")); ok {
		t.Error("a refused network is listed")
	}
	if _, ok := s.Has(netip.MustParseAddr("45.9.0.2")); !ok {
		t.Error("a part beside a hole is missing")
	}
}

func TestEndsAndBounds(t *testing.T) {
	l := mustRead(t, "45.9.0.1\n45.9.0.3")
	s, err := Build(t0, []Source{{"old", l, t0}, {"new", l, t0.Add(time.Minute)}}, nil, Limits{}, nil)
	if err != nil || s.Parts[0].Kept != 0 || s.Parts[0].Counts[Outdated] != 2 || s.Parts[1].Kept != 2 {
		t.Errorf("parts %+v, %v", s.Parts, err)
	}
	if _, err := Build(t0, make([]Source, MaxFeeds+1), nil, Limits{}, nil); err == nil {
		t.Error("65 feeds were taken")
	}
	if _, err := Build(t0, nil, &Guard{}, Limits{}, nil); err == nil {
		t.Error("an unsealed guard was taken")
	}
}

func TestNomatchIsAHole(t *testing.T) {
	s, notes := build(t, nil, "create x hash:net family inet\nadd x 45.9.0.0/24\nadd x 45.9.0.8/29 nomatch\nadd x 45.9.0.9", "45.9.0.12")
	for a, want := range map[string]bool{"45.9.0.7": true, "45.9.0.8": false, "45.9.0.9": false, "45.9.0.16": true, "45.9.0.12": true} {
		if _, ok := s.Has(netip.MustParseAddr(a)); ok != want {
			t.Errorf("%s listed: %v, want %v (%v)", a, ok, want, notes)
		}
	}
}

func TestWhere(t *testing.T) {
	l := mustRead(t, "# head\n45.9.0.0/16\n45.9.1.0/24\n2a00::/32")
	for a, want := range map[string]int{"45.9.1.1": 3, "45.9.2.1": 2, "2a00::5": 4, "1.1.1.1": 0, "::ffff:45.9.2.1": 2} {
		if _, line, ok := l.Where(netip.MustParseAddr(a)); line != want || ok != (want > 0) {
			t.Errorf("%s: line %d, want %d", a, line, want)
		}
	}
	if _, _, ok := l.Where(netip.Addr{}); ok {
		t.Error("no address is listed")
	}
}

// A list that is too large is left out by itself, and the others stay.
func TestTheLargestIsLeftOut(t *testing.T) {
	small, large := mustRead(t, "45.9.0.1\n45.9.0.3"), mustRead(t, "45.10.0.1\n45.10.0.3\n45.10.0.5")
	sources := []Source{{"large", large, t0.Add(time.Minute)}, {"small", small, t0.Add(time.Minute)}}
	notes := 0
	s, err := Build(t0, sources, nil, Limits{Entries: 4}, func(int, Note) { notes++ })
	if err != nil || s.Len() != 2 || s.Parts[1].Out != "" || !strings.Contains(s.Parts[0].Out, "5 entries, and at most 4") || notes != 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	if s, err := Build(t0, sources, nil, Limits{Entries: 1}, nil); err != nil || s.Len() != 0 || s.Parts[1].Out == "" {
		t.Errorf("no room for either: %+v, %v", s, err)
	}
}

// Where there is no room for networks, small ones become addresses; where there
// are too many lengths, rare ones become common ones. Nothing else changes.
func TestFitSaysTheSame(t *testing.T) {
	var b strings.Builder
	for i := range 200 {
		fmt.Fprintf(&b, "45.9.%d.%d/%d\n", i/32, i%32*8, 28+i%4)
		fmt.Fprintf(&b, "2a%02x:%x::/%d\n", i, i, 32+i%96)
	}
	sources := []Source{{"a", mustRead(t, b.String()), t0.Add(time.Minute)}}
	free, err := Build(t0, sources, nil, Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	tight, err := Build(t0, sources, nil, Limits{Entries: 100000, Networks: 8000, Lengths: 64}, nil)
	if err != nil || tight.Parts[0].Out != "" {
		t.Fatal(tight.Parts, err)
	}
	if lengths(free.cells[v6]) <= 64 || lengths(tight.cells[v6]) > 64 {
		t.Fatalf("%d lengths without a limit, %d with it", lengths(free.cells[v6]), lengths(tight.cells[v6]))
	}
	few, err := Build(t0, []Source{{"a", mustRead(t, "45.9.0.0/31\n45.9.0.4/30\n45.9.1.0/24"), t0.Add(time.Minute)}}, nil, Limits{Networks: 1}, nil)
	if err != nil || few.networks() != 1 || few.Len() != 7 {
		t.Errorf("%v, %v", entries(few), err)
	}
	check := func(a netip.Addr) {
		_, ok := free.Has(a)
		if _, same := tight.Has(a); same != ok {
			t.Fatalf("%s: %v without a limit, %v with it", a, ok, same)
		}
	}
	probes(check)
	free.Each(func(e Entry) {
		check(e.Prefix.Addr())
		bl, family := blockOf(e.Prefix)
		check(block{clip(bl.end(), family), uint8(width[family])}.prefix(family).Addr())
	})
}

func TestSplitsOfIPv6KeepWholeLinks(t *testing.T) {
	var g Guard
	g.Protect(Warned, "w", netip.MustParsePrefix("2a00::1:0:0:0:1/128"), netip.MustParsePrefix("2a00::1:0:0:0:2/128"))
	g.Seal()
	s, _ := build(t, &g, "2a00::/48")
	if s.Len() != 16 {
		t.Errorf("%d parts, want 16: %v", s.Len(), entries(s))
	}
	for a, want := range map[string]bool{"2a00::1:0:0:0:3": false, "2a00::2:0:0:0:1": true, "2a00::1": true} {
		if _, ok := s.Has(netip.MustParseAddr(a)); ok != want {
			t.Errorf("%s listed: %v", a, ok)
		}
	}
}
