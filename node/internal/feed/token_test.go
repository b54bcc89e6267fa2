package feed

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// read reads a text and returns its networks, "line:kind" of every note, and
// the error.
func read(t *testing.T, text string, o Options) (nets, notes []string, l *List, err error) {
	t.Helper()
	l, err = Read(strings.NewReader(text), o, func(n Note) { notes = append(notes, fmt.Sprintf("%d:%s", n.Line, n.Kind)) })
	if err == nil {
		l.Each(func(p netip.Prefix, _ int, _ time.Time) { nets = append(nets, p.String()) })
	}
	return nets, notes, l, err
}

func TestTokens(t *testing.T) {
	for tok, want := range map[string]string{
		"45.9.148.7":                       "45.9.148.7/32",
		"45.9.148.0/24":                    "45.9.148.0/24",
		"45.9.148.0/32":                    "45.9.148.0/32",
		"45.0.0.0/8":                       "45.0.0.0/8",
		"0.0.0.0":                          "0.0.0.0/32",
		"255.255.255.255":                  "255.255.255.255/32",
		"2a00:1450::1":                     "2a00:1450::1/128",
		"2A00:1450::/32":                   "2a00:1450::/32",
		"45.9.148.7/24":                    "host-bits 45.9.148.0/24",
		"2a00:1450::1/32":                  "host-bits 2a00:1450::/32",
		"45.9.148.0/255.255.255.0":         "netmask 45.9.148.0/24",
		"45.9.148.0/255.0.255.0":           "malformed",
		"::ffff:45.9.148.7":                "mapped 45.9.148.7/32",
		"::ffff:45.9.148.0/120":            "mapped 45.9.148.0/24",
		"::ffff:45.0.0.0/104":              "mapped 45.0.0.0/8",
		"::ffff:0.0.0.0/96":                "too-wide",
		"::ffff:0:0/90":                    "too-wide",
		"045.009.148.007":                  "padded 45.9.148.7/32",
		"045.009.148.7":                    "malformed",
		"45.9.148.07":                      "malformed",
		"010.9.148.7":                      "malformed",
		"45.9.148.0/024":                   "malformed",
		"0.0.0.0/0":                        "too-wide",
		"::/0":                             "too-wide",
		"44.0.0.0/7":                       "too-wide",
		"2a00::/15":                        "too-wide",
		"2a00::/16":                        "2a00::/16",
		"45.9.148.0/33":                    "malformed",
		"45.9.148.0/":                      "malformed",
		"45.9.148.0/-1":                    "malformed",
		"256.1.1.1":                        "malformed",
		"45.9.148":                         "malformed",
		"45.9.148.7.8":                     "malformed",
		"45.9.148.*":                       "malformed",
		"fe80::1%eth0":                     "malformed",
		"45.9.148.4-45.9.148.7":            "45.9.148.4/30",
		"45.9.148.7-45.9.148.7":            "45.9.148.7/32",
		"45.9.148.7-45.9.148.6":            "malformed",
		"45.9.148.7-2a00::1":               "malformed",
		"45.0.0.0-45.255.255.255":          "45.0.0.0/8",
		"45.0.0.0-46.0.0.0":                "too-wide",
		"0.0.0.0-255.255.255.255":          "too-wide",
		"255.255.255.254-255.255.255.255":  "255.255.255.254/31",
		"2a00::-2a00::3":                   "2a00::/126",
		"::-ffff::":                        "too-wide",
		"45.9.148.7:80":                    "service",
		"[2a00::1]:443":                    "service",
		"45.9.148.7,tcp:80":                "service",
		"evil.example.org":                 "name",
		"*.evil.example.org":               "name",
		"http://45.9.148.7/gate.php":       "name",
		"45.9.148.7/gate.php":              "name",
		"evil.example.org:8080":            "name",
		"evil.example.org.":                "name",
		"evil..example.org":                "malformed",
		"-evil.example.org":                "malformed",
		"evil.example.1":                   "malformed",
		"xn--bcher-kva.example":            "name",
		"45.9.148.7x":                      "name",
		"localhost":                        "malformed",
		"":                                 "malformed",
		"-":                                "malformed",
		"/":                                "malformed",
		"45.9.148.7-":                      "malformed",
		"d41d8cd98f00b204e9800998ecf8427e": "malformed",
	} {
		p := parseToken([]byte(tok))
		got := string(p.kind)
		if p.taken() {
			var nets []string
			if p.ranged {
				cover(p.one.wide, p.last, p.family, func(b block) { nets = append(nets, b.prefix(p.family).String()) })
			} else {
				nets = []string{p.one.prefix(p.family).String()}
			}
			got = strings.TrimSpace(got + " " + strings.Join(nets, " "))
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", tok, got, want)
		}
	}
}

// The quick path of IPv4 must agree with the standard library on everything.
func TestQuickPathAgreesWithNetip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const signs = "0123456789./"
	for range 200000 {
		b := []byte(netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}).String())
		if r.IntN(2) == 0 {
			b = fmt.Appendf(b, "/%d", r.IntN(34))
		}
		for range r.IntN(3) {
			switch i := r.IntN(len(b)); r.IntN(3) {
			case 0:
				b[i] = signs[r.IntN(len(signs))]
			case 1:
				b = slices.Delete(b, i, i+1)
			default:
				b = slices.Insert(b, i, signs[r.IntN(len(signs))])
			}
			if len(b) == 0 {
				break
			}
		}
		got, ok := plain4(b)
		want, err := netip.ParsePrefix(string(b))
		if a, errA := netip.ParseAddr(string(b)); errA == nil {
			want, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		good := err == nil && want.Addr().Is4() && want == want.Masked()
		if ok != good || ok && got.prefix(v4) != want {
			t.Fatalf("%q: got %v %v, the library says %v %v", b, got.prefix(v4), ok, want, err)
		}
	}
}

// A range is covered by the fewest prefixes: no address more, no address less.
func TestCoverIsExactAndShort(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		first := r.Uint32N(1 << 12)
		last := first + r.Uint32N(1<<12-first)
		shift := []uint32{0, 1<<32 - 1<<12}[r.IntN(2)] // at both ends of the space
		at := func(n uint32) wide { return wide{hi: uint64(n+shift) << 32} }
		next, n := first, 0
		var before block
		cover(at(first), at(last), v4, func(b block) {
			if b.wide != at(next) {
				t.Fatalf("%d-%d: a gap or an overlap at %d", first, last, next)
			}
			if n > 0 && siblings(before, b) {
				t.Fatalf("%d-%d: %v and %v are one", first, last, before, b)
			}
			next += 1 << (32 - b.bits)
			before, n = b, n+1
		})
		if next != last+1 {
			t.Fatalf("%d-%d: ends at %d", first, last, next-1)
		}
		if n > 2*12 {
			t.Fatalf("%d-%d: %d prefixes", first, last, n)
		}
	}
	var all []string
	end := wide{^uint64(0), ^uint64(0)}
	cover(wide{^uint64(0), ^uint64(1)}, end, v6, func(b block) { all = append(all, b.prefix(v6).String()) })
	if len(all) != 1 || !strings.HasSuffix(all[0], "/127") {
		t.Fatalf("the last two addresses: %v", all)
	}
}
