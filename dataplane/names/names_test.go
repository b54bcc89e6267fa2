package names

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestNormalise(t *testing.T) {
	for in, want := range map[string]string{
		"evil.example": "evil.example", "EVIL.Example.": "evil.example", " a.evil.example ": "a.evil.example",
		"bücher.example": "xn--bcher-kva.example", "xn--bcher-kva.example": "xn--bcher-kva.example",
		"Straße.example": "xn--strae-oqa.example", "a1.b-2.example": "a1.b-2.example",
	} {
		if got, err := Normalise(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v, expected %q", in, got, err, want)
		}
	}
	for _, bad := range []string{
		"", ".", "example", "com", "co.uk", "CO.UK.", "github.io", "192.0.2.1", "10.0.0.256", "2001:db8::1", "a..b", ".a.example",
		"a b.example", "evil.example/path", "*.evil.example", "10.0.0.5~1.2.3.4", "a@b.example", strings.Repeat("a", 64) + ".example",
		strings.Repeat("a.", 130) + "example", strings.Repeat("x", 1<<16), "evil.example\x00",
	} {
		if got, err := Normalise(bad); err == nil {
			t.Errorf("%.40q: got %q, expected an error", bad, got)
		}
	}
}

func TestSetCoversParents(t *testing.T) {
	var s Set
	if _, ok := s.Covers("a.example"); ok {
		t.Error("an empty set covers something")
	}
	s.Add("evil.example")
	s.Add("b.evil.example")
	for name, want := range map[string]string{
		"evil.example": "evil.example", "a.evil.example": "evil.example", "x.b.evil.example": "b.evil.example",
		"b.evil.example": "b.evil.example", "notevil.example": "", "example": "", "evil.example.org": "", "": "",
	} {
		if got, ok := s.Covers(name); got != want || ok != (want != "") {
			t.Errorf("%q: covered by %q, expected %q", name, got, want)
		}
	}
	s.Remove("evil.example")
	if _, ok := s.Covers("a.evil.example"); ok || s.Len() != 1 {
		t.Errorf("%d domains left", s.Len())
	}
}

func name(s string) dnsmessage.Name { return dnsmessage.MustNewName(s) }

func head(owner string, ttl uint32) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: name(owner), Class: dnsmessage.ClassINET, TTL: ttl}
}

func a(owner string, ttl uint32, ip string) dnsmessage.Resource {
	x := netip.MustParseAddr(ip)
	if x.Is4() {
		return dnsmessage.Resource{Header: head(owner, ttl), Body: &dnsmessage.AResource{A: x.As4()}}
	}
	return dnsmessage.Resource{Header: head(owner, ttl), Body: &dnsmessage.AAAAResource{AAAA: x.As16()}}
}

func cname(owner string, ttl uint32, to string) dnsmessage.Resource {
	return dnsmessage.Resource{Header: head(owner, ttl), Body: &dnsmessage.CNAMEResource{CNAME: name(to)}}
}

// message is an answer to a question after addresses of owner.
func message(t testing.TB, owner string, rs ...dnsmessage.Resource) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, Response: true},
		Questions: []dnsmessage.Question{{Name: name(owner), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Answers:   rs,
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	txt := dnsmessage.Resource{Header: head("evil.example.", 5), Body: &dnsmessage.TXTResource{TXT: []string{"x"}}}
	chaos := a("evil.example.", 1, "203.0.113.8")
	chaos.Header.Class = dnsmessage.ClassCHAOS
	var loop []dnsmessage.Resource
	for i := range 40 {
		loop = append(loop, cname(fmt.Sprintf("n%d.example.", i), 9, fmt.Sprintf("n%d.example.", (i+1)%40)))
	}
	for _, c := range []struct {
		what  string
		msg   []byte
		names string
		addrs string
		ttl   time.Duration
	}{
		{"one address", message(t, "Evil.Example.", a("eVIL.example.", 60, "203.0.113.9")), "[evil.example]", "[203.0.113.9]", time.Minute},
		{"both families, the shorter time", message(t, "evil.example.", a("evil.example.", 60, "203.0.113.9"), a("evil.example.", 30, "2001:db8::9")),
			"[evil.example]", "[203.0.113.9 2001:db8::9]", 30 * time.Second},
		{"aliases in any order", message(t, "www.shop.example.", a("evil.example.", 60, "203.0.113.9"), cname("cdn.shop.example.", 20, "evil.example."), cname("www.shop.example.", 90, "cdn.shop.example.")),
			"[www.shop.example cdn.shop.example evil.example]", "[203.0.113.9]", 20 * time.Second},
		{"what nobody asked for is left out", message(t, "evil.example.", a("other.example.", 1, "192.0.2.1"), a("evil.example.", 60, "203.0.113.9"), cname("x.example.", 1, "y.example.")),
			"[evil.example]", "[203.0.113.9]", time.Minute},
		{"other records", message(t, "evil.example.", txt, chaos, a("evil.example.", 60, "203.0.113.9")), "[evil.example]", "[203.0.113.9]", time.Minute},
		{"an alias to itself", message(t, "evil.example.", cname("evil.example.", 5, "evil.example."), a("evil.example.", 60, "203.0.113.9")), "[evil.example]", "[203.0.113.9]", time.Minute},
		{"a time with the top bit", message(t, "evil.example.", a("evil.example.", 1<<31, "203.0.113.9")), "[evil.example]", "[203.0.113.9]", 0},
		{"an IPv4-mapped address", message(t, "evil.example.", a("evil.example.", 60, "::ffff:203.0.113.9")), "[evil.example]", "[203.0.113.9]", time.Minute},
	} {
		got, err := Parse(c.msg)
		if err != nil || fmt.Sprint(got.Names) != c.names || fmt.Sprint(got.Addrs) != c.addrs || got.TTL != c.ttl {
			t.Errorf("%s: got %v, %v", c.what, got, err)
		}
	}
	if got, err := Parse(message(t, "n0.example.", append(loop, a("n3.example.", 60, "203.0.113.9"))...)); err != nil || len(got.Names) != maxChain {
		t.Errorf("a long chain: %d names, %v", len(got.Names), err)
	}
	if _, err := Parse(message(t, "evil.example.", a("other.example.", 60, "203.0.113.9"))); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("an answer to another question: %v", err)
	}
}

func TestParseIsBoundedAndTakesWhatIsBeforeACut(t *testing.T) {
	var many []dnsmessage.Resource
	for i := range 200 {
		many = append(many, a("evil.example.", 60, fmt.Sprintf("203.0.113.%d", i)))
	}
	whole := message(t, "evil.example.", many...)
	got, err := Parse(whole)
	if err != nil || len(got.Addrs) != MaxAddrs {
		t.Fatalf("%d addresses, %v", len(got.Addrs), err)
	}
	last := 0
	for n := range whole {
		got, err := Parse(whole[:n])
		if err != nil {
			continue
		}
		if len(got.Addrs) < last {
			t.Fatalf("cut at %d: %d addresses after %d", n, len(got.Addrs), last)
		}
		last = len(got.Addrs)
	}
	if last != MaxAddrs {
		t.Errorf("at most %d addresses before a cut", last)
	}
	for what, change := range map[string]func(b []byte){
		"a query":        func(b []byte) { b[2] &^= 0x80 },
		"a failure":      func(b []byte) { b[3] |= 3 },
		"another opcode": func(b []byte) { b[2] |= 0x10 },
		"two questions":  func(b []byte) { b[5] = 2 },
		"no question":    func(b []byte) { b[5] = 0 },
		"another class":  func(b []byte) { b[12+14+3] = 3 },
		"a pointer loop": func(b []byte) { b[12], b[13] = 0xc0, 12 },
		"a bad label":    func(b []byte) { b[12] = 0x80 },
	} {
		b := slices.Clone(message(t, "evil.example.", a("evil.example.", 60, "203.0.113.9")))
		change(b)
		if got, err := Parse(b); err == nil {
			t.Errorf("%s: got %v, expected an error", what, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(message(f, "evil.example.", a("evil.example.", 60, "203.0.113.9"), cname("evil.example.", 9, "b.example.")))
	f.Add(message(f, "www.shop.example.", cname("www.shop.example.", 90, "evil.example."), a("evil.example.", 60, "2001:db8::9")))
	f.Fuzz(func(t *testing.T, msg []byte) {
		got, err := Parse(msg)
		if err != nil {
			return
		}
		if len(got.Addrs) == 0 || len(got.Addrs) > MaxAddrs || len(got.Names) == 0 || len(got.Names) > maxChain || got.TTL < 0 || got.TTL > 1<<31*time.Second {
			t.Errorf("out of bounds: %+v", got)
		}
		for _, x := range got.Addrs {
			if !x.IsValid() || x.Is4In6() {
				t.Errorf("address %v", x)
			}
		}
	})
}

func FuzzNormalise(f *testing.F) {
	for _, s := range []string{"evil.example", "Bücher.example.", "co.uk", "192.0.2.1", "xn--a.example", "a..b", "0.\xc50"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := Normalise(s)
		if err != nil {
			return
		}
		again, err := Normalise(d)
		if err != nil || again != d || len(d) > MaxLength {
			t.Errorf("%q: %q, then %q, %v", s, d, again, err)
		}
	})
}
