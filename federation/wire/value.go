package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

// A Target is a parsed value: an address (Proto 0), one service of it, or a name.
type Target struct {
	Prefix netip.Prefix // masked; a full-length one is a single address; zero for a name
	Proto  uint8        // 0, 6 (tcp) or 17 (udp)
	Port   uint16       // 0 when Proto is

	Type Type   // of what is no address: domain, fingerprint or behaviour; else ""
	Name string // its value
}

// String is the canonical value.
func (t Target) String() string {
	if t.Type != "" {
		return t.Name
	}
	s := t.Prefix.String()
	if t.Prefix.IsSingleIP() {
		s = t.Prefix.Addr().String()
	}
	switch t.Proto {
	case 6:
		s += " tcp/" + strconv.Itoa(int(t.Port))
	case 17:
		s += " udp/" + strconv.Itoa(int(t.Port))
	}
	return s
}

// ParseValue reads an indicator's or query's value and refuses everything that
// is not canonical, not public, or too wide.
func ParseValue(typ Type, s string) (Target, error) {
	switch typ {
	case TypeDomain, TypeFingerprint, TypeBehaviour:
		return named(typ, s)
	}
	if len(s) > maxAddressValue {
		return Target{}, Refuse(BadField, "value: %d bytes: expected at most %d", len(s), maxAddressValue)
	}
	var t Target
	var err error
	switch typ {
	case TypeAddress:
		t.Prefix, err = parsePrefix(s)
	case TypeService:
		t, err = parseService(s)
	default:
		return Target{}, Refuse(BadField, "type: %.20q: expected address, service, domain, fingerprint or behaviour", typ)
	}
	if err != nil {
		return Target{}, err
	}
	if t.String() != s {
		return Target{}, Refuse(BadField, "value: %q: expected the canonical form %q", s, t.String())
	}
	return t, checkPublic(t.Prefix)
}

func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return netip.Prefix{}, Refuse(BadField, "value: %q: expected an address or a prefix", s)
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, Refuse(BadField, "value: %q: expected an address or a prefix", s)
	}
	least := minAddr6Bits
	if p.Addr().Is4() {
		least = minAddr4Bits
	}
	if p.Bits() < least {
		return netip.Prefix{}, Refuse(PrefixTooWide, "value: %q: expected at least /%d", s, least)
	}
	return p.Masked(), nil
}

func parseService(s string) (Target, error) {
	bad := Refuse(BadField, "value: %q: expected a form like \"203.0.113.9 tcp/8443\"", s)
	addr, rest, ok := strings.Cut(s, " ")
	proto, port, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || strings.Contains(addr, "/") {
		return Target{}, bad
	}
	p, err := parsePrefix(addr)
	if err != nil {
		return Target{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Target{}, bad
	}
	t := Target{Prefix: p, Port: uint16(n)}
	switch proto {
	case "tcp":
		t.Proto = 6
	case "udp":
		t.Proto = 17
	default:
		return Target{}, bad
	}
	return t, nil
}

// notPublic are the ranges that mean something else at every site. The
// documentation and benchmark ranges (RFC 5737, 3849, 2544) are not among them:
// they name no host of anybody, and laboratories use them as "outside".
var notPublic = func() []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
		"172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
	} {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}()

var (
	global6   = netip.MustParsePrefix("2000::/3") // all else is local, multicast, mapped or unassigned
	sixToFour = netip.MustParsePrefix("2002::/16")
)

// Public says whether an address means the same host to every site. IPv4-mapped
// addresses are not public: they have a plain form.
func Public(a netip.Addr) bool {
	if a.Is4() {
		for _, p := range notPublic {
			if p.Contains(a) {
				return false
			}
		}
		return true
	}
	if !a.IsValid() || a.Zone() != "" || !global6.Contains(a) {
		return false
	}
	if sixToFour.Contains(a) {
		b := a.As16()
		return Public(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return true
}

// checkPublic relies on every private range being wider than the widest value.
func checkPublic(p netip.Prefix) error {
	if !Public(p.Addr()) {
		return Refuse(PrivateValue, "value: %s is private, local, multicast or reserved and never leaves a site", p)
	}
	return nil
}

// IndicatorID names a claim of one author about one value, so that a refresh
// has the name of what it refreshes and no two authors share one.
func IndicatorID(author identity.ID, typ Type, value string) string {
	sum := sha256.Sum256([]byte("hedgerow/indicator-id/1\x00" + string(author) + "\x00" + string(typ) + "\x00" + value))
	return hex.EncodeToString(sum[:16])
}

// addrLike finds what may be an address in a sentence.
var addrLike = regexp.MustCompile(`[0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}(:[0-9A-Fa-f.]{0,15}){2,}`)

// Sanitise makes a sentence fit to leave the site: printable characters in
// one line, no direction marks, private addresses replaced by "(inside)", at most
// MaxSentence characters. It is idempotent; a received sentence that it would
// change is refused.
func Sanitise(s string) string {
	if len(s) > 16*MaxSentence {
		s = s[:16*MaxSentence]
	}
	s = strings.ToValidUTF8(s, "")
	s = strings.Map(printable, s)
	// A replacement or a cut may leave what looks like an address in its turn.
	for range 16 {
		next := sanitiseOnce(s)
		if next == s {
			return s
		}
		s = next
	}
	return ""
}

func sanitiseOnce(s string) string {
	s = addrLike.ReplaceAllStringFunc(s, hidePrivate)
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) <= MaxSentence {
		return s
	}
	r := []rune(s)
	return strings.TrimSpace(string(r[:MaxSentence-1])) + "…"
}

// printable keeps letters, marks, numbers, punctuation, symbols and plain
// spaces. Format characters (direction marks, zero width) go: they can make a
// log line read as something else.
func printable(r rune) rune {
	switch {
	case unicode.IsSpace(r), unicode.IsControl(r):
		return ' '
	case r == utf8.RuneError, !unicode.IsPrint(r):
		return -1
	}
	return r
}

func hidePrivate(s string) string {
	trimmed := strings.TrimRight(s, ":.")
	for _, try := range []string{s, trimmed} {
		if a, err := netip.ParseAddr(try); err == nil && !Public(a) {
			return "(inside)" + s[len(try):]
		}
	}
	return s
}
