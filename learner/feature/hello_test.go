package feature

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func browser(ja4 string) *flow.Hello {
	return &flow.Hello{Told: flow.ToldAll, Named: true, Version: flow.TLS13, Ciphers: 15, Extensions: 16,
		JA4: ja4, Print: flow.PrintOf(ja4), Name: "shop.example", Protocol: "h2"}
}

// value is a feature by its name; NaN when it is absent.
func value(v *Vector, name string) float64 { return v.Value(Index(name)) }

func TestHelloFeatures(t *testing.T) {
	r := flow.Record{Hello: browser("a"), Key: flow.Key{Proto: flow.TCP}}
	var v Vector
	FromRecord(&v, &r)
	for name, want := range map[string]float64{"tls_server_named": 1, "tls_alpn": 1, "tls_alpn_web": 1, "tls_version": 4, "tls_ciphers": 15, "tls_extensions": 16, "tls_ech": 0} {
		if got := value(&v, name); math.Abs(got-want) > 0.01 {
			t.Errorf("%s: got %v, expected %v", name, got, want)
		}
	}
	if w := Describe(Index("tls_version"), &v); w != "its TLS client offers TLS 1.3 at most" {
		t.Errorf("in words: %s", w)
	}
	part := *r.Hello
	part.Told, part.Protocol = flow.ToldALPN|flow.ToldName, "imap"
	r.Hello = &part
	FromRecord(&v, &r)
	if value(&v, "tls_alpn_web") != 0 || value(&v, "tls_alpn") != 1 || v.Known(Index("tls_ciphers")) || v.Known(Index("tls_ech")) || v.Known(Index("tls_version")) {
		t.Errorf("of a hello that is known in part: %v", v)
	}
	r.Lacks = flow.LackHello
	FromRecord(&v, &r)
	r.Hello, r.Lacks = nil, 0
	var none Vector
	FromRecord(&none, &r)
	for i := iSNI; i <= iECH; i++ {
		if v.Known(i) || none.Known(i) {
			t.Errorf("%s is known without a hello", Name(i))
		}
	}
}

// Who met a client or a protocol before is told apart from who did not, whether
// the client is known from the first report on or later, and once for each flow.
func TestKnownClientsAndProtocols(t *testing.T) {
	c, err := NewContext(ContextOptions{Settle: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1_700_000_000, 0).UnixNano()
	id := uint64(0)
	report := func(host byte, at time.Duration, hint flow.Hint, h *flow.Hello) *flow.Record {
		id++
		k, fromB := flow.NewKey(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host}), 4000), netip.MustParseAddrPort("203.0.113.1:443"), flow.TCP)
		return &flow.Record{Key: k, ID: id, InitB: fromB, InitInside: true, Start: start + int64(at), Last: start + int64(at),
			NFirst: 1, Sizes: [flow.First]int16{500}, Hint: hint, Hello: h}
	}
	for i := range 5 * 60 {
		at := time.Duration(i) * time.Second
		r := report(1, at, flow.HintTLS, nil) // as the first report is: the hello comes with the next
		c.Update(r, false)
		r.Hello = browser("a")
		c.Update(r, false)
		c.Update(r, true)
		c.Update(report(2, at, flow.HintSSH, nil), true)
	}
	var v Vector
	for what, x := range map[string]struct {
		r                        *flow.Record
		here, everywhere, spoken bool
	}{
		"the same again":                {report(1, 5*time.Minute, flow.HintTLS, browser("a")), true, true, true},
		"another client":                {report(1, 5*time.Minute, flow.HintTLS, browser("b")), false, false, true},
		"the client of another host":    {report(2, 5*time.Minute, flow.HintTLS, browser("a")), false, true, false},
		"another protocol on this port": {report(2, 5*time.Minute, flow.HintNone, browser("a")), false, true, false},
	} {
		c.Vector(&v, x.r)
		for name, known := range map[string]bool{"known_client": x.here, "known_client_here": x.everywhere, "known_protocol": x.spoken} {
			n := value(&v, name)
			if math.IsNaN(n) || known && (n < 150 || n > 310) || !known && n > 0.5 {
				t.Errorf("%s: %s is %.0f, expected a familiar one %v", what, name, n, known)
			}
		}
	}
	c.Vector(&v, report(1, 5*time.Minute, flow.HintTLS, browser("b")))
	if w := Describe(Index("known_client"), &v); w != "a TLS client that this host used never before" {
		t.Errorf("in words: %q", w)
	}
	plain := report(1, 5*time.Minute, flow.HintNone, nil)
	plain.NFirst = 0
	c.Vector(&v, plain)
	if v.Known(iNovelClient) || v.Known(iNovelClientHere) || v.Known(iNovelProtocol) {
		t.Error("something is known of the client of a flow without payload")
	}
}

// A vector of schema 1 is read as one that lacks what 2 added.
func TestVectorsOfTheFirstSchema(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	b := []byte{1}
	has := rng.Uint64() | 1<<iPackets | 1<<63
	b = binary.LittleEndian.AppendUint64(b, has)
	for i := range 64 {
		x := rng.Float32()
		if has>>i&1 == 0 {
			x = 0
		}
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	var v, again Vector
	if Size(b) != len(b) {
		t.Fatalf("size %d, expected %d", Size(b), len(b))
	}
	if err := v.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	last := math.Float32frombits(binary.LittleEndian.Uint32(b[9+4*63:]))
	if !v.Known(iPackets) || v.X[iNovelService] != last || !v.Known(iNovelService) {
		t.Errorf("known_service: %v, expected %v", v.X[iNovelService], last)
	}
	for i := range Dim {
		added := i >= iSNI && i <= iECH || i > iNovelService
		if added == First().Has(i) {
			t.Errorf("%s is of schema 1 %v, expected otherwise", Name(i), !added)
		}
		if added && v.Known(i) {
			t.Errorf("%s is known of a vector of schema 1", Name(i))
		}
	}
	if now, _ := v.MarshalBinary(); again.UnmarshalBinary(now) != nil || again != v {
		t.Error("it does not survive being stored again")
	}
	b[0] = 3
	if err := v.UnmarshalBinary(b); err == nil || !strings.Contains(err.Error(), "schema version 3: expected 1 to 2") {
		t.Errorf("of a schema to come: %v", err)
	}
	b[0] = 1
	if err := v.UnmarshalBinary(b[:len(b)-1]); err == nil {
		t.Error("a vector that is cut short was read")
	}
}
