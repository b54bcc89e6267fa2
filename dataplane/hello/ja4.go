package hello

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// noValues stands for the hash of an empty list.
const noValues = "000000000000"

// ja4 is the fingerprint by FoxIO's description of JA4: the transport, the
// version, whether a server is named, how many suites and extensions, the first
// application protocol; the sorted suites; the sorted extensions but for the name
// and the protocols, with the signature algorithms in the client's order.
func (o *offer) ja4(quic bool) string {
	transport, named := byte('t'), byte('i')
	if quic {
		transport = 'q'
	}
	if o.named {
		named = 'd'
	}
	a, z := o.alpnEnds()
	return fmt.Sprintf("%c%s%c%02d%02d%c%c_%s_%s", transport, o.versionCode(), named,
		min(len(o.ciphers), 99), min(len(o.exts), 99), a, z, digest(join(sorted(o.ciphers))), o.restDigest())
}

func (o *offer) versionCode() string {
	v := o.legacy
	if len(o.versions) > 0 {
		v = slices.Max(o.versions)
	}
	switch v {
	case flow.TLS13:
		return "13"
	case flow.TLS12:
		return "12"
	case flow.TLS11:
		return "11"
	case flow.TLS10:
		return "10"
	case flow.SSL30:
		return "s3"
	}
	return "00"
}

// alpnEnds are the first and the last character of the first protocol, or of its
// hexadecimal form when one of them is no letter or digit.
func (o *offer) alpnEnds() (first, last byte) {
	if len(o.alpn) == 0 {
		return '0', '0'
	}
	first, last = o.alpn[0], o.alpn[len(o.alpn)-1]
	if alphanumeric(first) && alphanumeric(last) {
		return first, last
	}
	h := hex.EncodeToString(o.alpn)
	return h[0], h[len(h)-1]
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (o *offer) restDigest() string {
	exts := slices.DeleteFunc(sorted(o.exts), func(e uint16) bool { return e == extName || e == extALPN })
	text := join(exts)
	if len(o.signed) > 0 && text != "" {
		text += "_" + join(o.signed)
	}
	return digest(text)
}

func digest(text string) string {
	if text == "" {
		return noValues
	}
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:6])
}

func sorted(v []uint16) []uint16 {
	s := slices.Clone(v)
	slices.Sort(s)
	return s
}

func join(v []uint16) string {
	var b strings.Builder
	for i, x := range v {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%04x", x)
	}
	return b.String()
}

// Read takes from a fingerprint's text what it says in the clear, for logs that
// have nothing else. Only what has the form of JA4 is believed; ok is false for
// all else.
func Read(ja4 string) (h flow.Hello, ok bool) {
	if len(ja4) != 36 || ja4[10] != '_' || ja4[23] != '_' || !isHex(ja4[11:23]) || !isHex(ja4[24:]) {
		return h, false
	}
	versions := map[string]uint16{"13": flow.TLS13, "12": flow.TLS12, "11": flow.TLS11, "10": flow.TLS10, "s3": flow.SSL30}
	ciphers, ok1 := twoDigits(ja4[4:6])
	exts, ok2 := twoDigits(ja4[6:8])
	if !ok1 || !ok2 || (ja4[0] != 't' && ja4[0] != 'q') || (ja4[3] != 'd' && ja4[3] != 'i') {
		return h, false
	}
	h = flow.Hello{
		Told: flow.ToldCounts | flow.ToldName | flow.ToldPrint, QUIC: ja4[0] == 'q', Named: ja4[3] == 'd',
		Ciphers: ciphers, Extensions: exts, JA4: ja4, Print: flow.PrintOf(ja4),
	}
	if v, known := versions[ja4[1:3]]; known {
		h.Version, h.Told = v, h.Told|flow.ToldVersion
	}
	if p, known := protocolOf(ja4[8:10]); known {
		h.Protocol, h.Told = p, h.Told|flow.ToldALPN
	}
	return h, true
}

// protocolOf is the application protocol behind its ends, where that is certain.
func protocolOf(ends string) (string, bool) {
	switch ends {
	case "00":
		return "", true
	case "h1":
		return "http/1.1", true
	case "h2", "h3":
		return ends, true
	}
	return "", false
}

func twoDigits(s string) (uint16, bool) {
	if s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9' {
		return 0, false
	}
	return uint16(s[0]-'0')*10 + uint16(s[1]-'0'), true
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
