package hello_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/hello"
	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest"
)

// ext is an extension as it stands in a hello.
type ext struct {
	kind uint16
	data []byte
}

func list16(vs ...uint16) []byte {
	var b []byte
	for _, v := range vs {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func list8(vs ...uint16) []byte {
	b := list16(vs...)
	return append([]byte{byte(len(b) - 2)}, b[2:]...)
}

func name(s string) ext {
	b := append([]byte{0, 0, byte(len(s))}, s...)
	return ext{0, append([]byte{0, byte(len(b))}, b...)}
}

func alpn(protocols ...string) ext {
	var b []byte
	for _, p := range protocols {
		b = append(append(b, byte(len(p))), p...)
	}
	return ext{16, append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)}
}

func bare(kinds ...uint16) []ext {
	var out []ext
	for _, k := range kinds {
		out = append(out, ext{k, nil})
	}
	return out
}

// message is a ClientHello as a handshake message.
func message(legacy uint16, ciphers []uint16, exts ...ext) []byte {
	b := binary.BigEndian.AppendUint16(nil, legacy)
	b = append(b, make([]byte, 32)...)
	b = append(b, 0)
	b = append(b, list16(ciphers...)...)
	b = append(b, 1, 0)
	if exts != nil {
		var all []byte
		for _, e := range exts {
			all = binary.BigEndian.AppendUint16(all, e.kind)
			all = binary.BigEndian.AppendUint16(all, uint16(len(e.data)))
			all = append(all, e.data...)
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(all))), all...)
	}
	return append([]byte{1, byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)
}

// chrome is the client of FoxIO's worked example: its lists there are
// 002f,0035,...,cca9 and 0005,000a,...,ff01 with 0403,0804,...,0601, here in the
// order of a browser and with GREASE among them.
func chrome(more ...ext) []byte {
	ciphers := []uint16{0x5a5a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035}
	exts := []ext{{0x1a1a, nil}, name("example.org")}
	exts = append(exts, bare(0x0017, 0xff01, 0x000a, 0x000b, 0x0023)...)
	exts = append(exts, alpn("h2", "http/1.1"), ext{0x0005, nil},
		ext{0x000d, list16(0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)})
	exts = append(exts, bare(0x0012, 0x0033, 0x002d)...)
	exts = append(exts, ext{0x002b, list8(0x7a7a, 0x0304, 0x0303)})
	exts = append(exts, bare(0x001b, 0x4469)...)
	exts = append(exts, ext{0x8a8a, []byte{0}})
	return message(0x0303, ciphers, append(append(exts, bare(0x0015)...), more...)...)
}

func TestPublishedFingerprints(t *testing.T) {
	h, err := hello.Parse(chrome(), false)
	if err != nil {
		t.Fatal(err)
	}
	// https://github.com/FoxIO-LLC/ja4, technical details of JA4.
	if want := "t13d1516h2_8daaf6152771_e5627efa2ab1"; h.JA4 != want {
		t.Errorf("JA4 %s, expected %s", h.JA4, want)
	}
	want := flow.Hello{Told: flow.ToldAll, Named: true, Version: flow.TLS13, Ciphers: 15, Extensions: 16, Print: flow.PrintOf(h.JA4),
		JA4: h.JA4, Name: "example.org", Protocol: "h2"}
	if *h != want {
		t.Errorf("got %+v, expected %+v", *h, want)
	}
	if h, err = hello.Parse(chrome(ext{0xfe0d, make([]byte, 30)}), true); err != nil || !h.ECH || h.JA4[:4] != "q13d" || !h.QUIC {
		t.Errorf("over QUIC, with an encrypted hello: %+v, %v", h, err)
	}
}

func TestOddHellos(t *testing.T) {
	many := make([]uint16, 120)
	for i := range many {
		many[i] = uint16(i)
	}
	for what, c := range map[string]struct {
		msg  []byte
		want string // beginning of JA4
	}{
		"no extensions":                {message(0x0301, []uint16{5, 4}), "t10i020000_"},
		"SSL 3":                        {message(0x0300, []uint16{5, 4}), "ts3i020000_"},
		"GREASE only":                  {message(0x0303, []uint16{0x0a0a}, ext{0xfafa, nil}), "t12i000000_000000000000_000000000000"},
		"more than two digits hold":    {message(0x0303, many, bare(many[60:80]...)...), "t12i992000_"},
		"drafts only":                  {message(0x0303, []uint16{0x1301}, ext{0x2b, list8(0x7f1c)}), "t00i010100_"},
		"a one-letter protocol":        {message(0x0303, []uint16{5}, alpn("x")), "t12i0101xx_"},
		"a protocol that is no text":   {message(0x0303, []uint16{5}, alpn("\xab\xcd")), "t12i0101ad_"},
		"one byte that is no text":     {message(0x0303, []uint16{5}, alpn("\xab")), "t12i0101ab_"},
		"a protocol that ends oddly":   {message(0x0303, []uint16{5}, alpn("h2\x01")), "t12i010161_"}, // hexadecimal 683201
		"an empty name":                {message(0x0303, []uint16{5}, ext{0, nil}), "t12d010100_"},
		"the lower of two versions":    {message(0x0303, []uint16{5}, ext{0x2b, list8(0x0302, 0x0301)}), "t11i010100_"},
		"an unknown legacy version":    {message(0x0305, []uint16{5}), "t00i010000_"},
		"an address instead of a name": {message(0x0303, []uint16{5}, name("192.0.2.1")), "t12d010100_"},
	} {
		h, err := hello.Parse(c.msg, false)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if !strings.HasPrefix(h.JA4, c.want) {
			t.Errorf("%s: %s, expected %s", what, h.JA4, c.want)
		}
	}
	for what, s := range map[string]string{"quotes": "a\"b.example", "control characters": "a\x1b[2J.example", "too long": strings.Repeat("a", 254)} {
		b := append([]byte{0, byte(len(s) >> 8), byte(len(s))}, s...)
		h, err := hello.Parse(message(0x0303, []uint16{5}, ext{0, append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)}), false)
		if err != nil || h.Name != "" || !h.Named {
			t.Errorf("a name with %s: %+v, %v: expected it to be there and not shown", what, h, err)
		}
	}
}

func TestBrokenHellos(t *testing.T) {
	good := chrome()
	for n := range good {
		if h, err := hello.Parse(good[:n], false); !errors.Is(err, hello.ErrMalformed) {
			t.Fatalf("cut at %d: %+v, %v", n, h, err)
		}
	}
	for what, msg := range map[string][]byte{
		"a server's hello":      append([]byte{2}, good[1:]...),
		"something behind it":   append(slices.Clone(good), 0),
		"no TLS version":        message(0x0203, []uint16{5}),
		"half a suite":          slices.Replace(message(0x0303, []uint16{5, 6}), 40, 41, 3),
		"a list of odd length":  message(0x0303, []uint16{5}, ext{0x0d, []byte{0, 3, 1, 2, 3}}),
		"a list that is longer": message(0x0303, []uint16{5}, ext{0x2b, []byte{200, 3, 4}}),
		"protocols cut short":   message(0x0303, []uint16{5}, ext{16, []byte{0, 9, 9, 'h', '2'}}),
		"a name cut short":      message(0x0303, []uint16{5}, ext{0, []byte{0, 9, 0, 0, 40, 'a'}}),
		"too long":              message(0x0303, []uint16{5}, ext{21, make([]byte, hello.MaxMessage)}),
	} {
		if h, err := hello.Parse(msg, false); !errors.Is(err, hello.ErrMalformed) {
			t.Errorf("%s: %+v, %v", what, h, err)
		}
	}
}

// records wraps a message into records of the given lengths, the rest in a last one.
func records(msg []byte, lengths ...int) []byte {
	var out []byte
	for _, n := range append(lengths, len(msg)) {
		n = min(n, len(msg))
		out = append(out, 22, 3, 1, byte(n>>8), byte(n))
		out = append(out, msg[:n]...)
		if msg = msg[n:]; len(msg) == 0 {
			break
		}
	}
	return out
}

func TestSegmentsInAnyOrder(t *testing.T) {
	want, err := hello.Parse(chrome(), false)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for try := range 200 {
		stream := records(chrome(), 1+rng.IntN(3), 1+rng.IntN(100), 1+rng.IntN(100))
		stream = append(stream, 20, 3, 3, 0, 1, 1) // a change of cipher behind it
		cut := 6 + rng.IntN(len(stream)-6)
		type piece struct{ lo, hi int }
		rest := []piece{{cut, len(stream)}, {cut / 2, min(len(stream), cut+20)}, {0, cut}}
		rng.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
		const seq = 0xffffff00 // it wraps
		var a hello.Assembly
		a.Segment(seq, stream[:6])
		for _, p := range append(rest, piece{6, cut}) {
			a.Segment(seq+uint32(p.lo), stream[p.lo:p.hi])
		}
		if h, err := a.Hello(); err != nil || h == nil || *h != *want {
			t.Fatalf("try %d: %+v, %v", try, h, err)
		}
	}
}

func TestAssemblyThatComesToNothing(t *testing.T) {
	stream := records(chrome())
	segments := func(parts ...[]byte) *hello.Assembly {
		var a hello.Assembly
		seq := uint32(9)
		for _, p := range parts {
			a.Segment(seq, p)
			seq += uint32(len(p))
		}
		return &a
	}
	other := slices.Clone(stream)
	other[60] ^= 1
	lying := segments(stream[:100])
	lying.Segment(9, other[:100])
	long := message(0x0303, []uint16{5}, ext{21, make([]byte, 2*hello.MaxMessage)})
	for what, a := range map[string]*hello.Assembly{
		"not TLS":                           segments([]byte("GET / HTTP/1.1\r\n")),
		"an alert":                          segments([]byte{21, 3, 1, 0, 2, 2, 40}),
		"a server's hello":                  segments(append([]byte{22, 3, 3, 0, 4}, 2, 0, 0, 0)),
		"an empty record":                   segments([]byte{22, 3, 1, 0, 0}),
		"a record of another protocol":      segments([]byte{22, 4, 1, 0, 9, 1}),
		"pieces that contradict each other": lying,
		"longer than what is read":          segments(records(long)),
	} {
		if h, err := a.Hello(); !errors.Is(err, hello.ErrMalformed) {
			t.Errorf("%s: %+v, %v", what, h, err)
		}
	}
	for n := range stream {
		if h, err := segments(stream[:n]).Hello(); h != nil || err != nil {
			t.Fatalf("the first %d bytes: %+v, %v", n, h, err)
		}
	}
	early := segments(stream[:50])
	early.Segment(9+70, stream[70:])
	early.Segment(2, stream[:7]) // ahead of the beginning
	if h, err := early.Hello(); h != nil || err != nil {
		t.Errorf("with a gap: %+v, %v", h, err)
	}
}

// The keys of RFC 9001, appendix A.1, and RFC 9369, appendix A.1.
func TestQUICKeysOfTheStandards(t *testing.T) {
	id, _ := hex.DecodeString("8394c8f03e515708")
	for v2, want := range map[bool]string{
		false: "1f369613dd76d5467730efcbe3b1a22d fa044b2f42a3fd3b46fb255c 9f50449e04a0e810283a1e9933adedd2",
		true:  "8b1a0bc121284290a29e0971b5cd045d 91f73e2351d8fa91660e909f 45b95e15235d6f45a6b19cbcb0294ba9",
	} {
		key, iv, hp, err := planetest.InitialKeys(id, v2)
		if got := fmt.Sprintf("%x %x %x", key, iv, hp); err != nil || got != want {
			t.Errorf("version 2 %v: %s, %v, expected %s", v2, got, err, want)
		}
	}
}

func seal(t testing.TB, p planetest.Initial) []byte {
	t.Helper()
	b, err := p.Seal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pieces cuts a message into CRYPTO frames in a random order, with frames of
// other types between them.
func pieces(msg []byte, n int, rng *rand.Rand) [][]byte {
	var out [][]byte
	for i := range n {
		lo, hi := i*len(msg)/n, (i+1)*len(msg)/n
		f := planetest.CryptoFrame(lo, msg[lo:hi])
		if i%2 == 1 {
			f = append(f, 1, 0, 0, 2, 5, 0, 1, 0, 1, 1) // PING, PADDING, an ACK of two ranges
		}
		out = append(out, f)
	}
	rng.Shuffle(n, func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func TestDatagrams(t *testing.T) {
	msg, err := planetest.ClientHelloQUIC(&tls.Config{ServerName: "quic.example", NextProtos: []string{"h3"}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for try := range 60 {
		id := make([]byte, 8+try%13)
		for i := range id {
			id[i] = byte(rng.Uint32())
		}
		base := planetest.Initial{V2: try%2 == 1, ID: id, Size: 1200, Token: make([]byte, try%5)}
		frames := pieces(msg, 4, rng)
		one, two := base, base
		one.Frames, two.Frames, two.Number = bytes.Join(frames[:2], nil), bytes.Join(frames[2:], nil), 1
		var a hello.Assembly
		first := seal(t, one)
		if !hello.IsInitial(first) {
			t.Fatalf("%x: not seen as an Initial packet", first[:8])
		}
		if try%3 == 0 { // both in one datagram, behind a packet of 0-RTT
			zero := []byte{0xd0, 0, 0, 0, 1, 1, 9, 0, 3, 1, 2, 3}
			if base.V2 {
				zero = []byte{0xe0, 0x6b, 0x33, 0x43, 0xcf, 1, 9, 0, 3, 1, 2, 3}
			}
			a.Datagram(append(append(zero, first...), seal(t, two)...))
		} else {
			two.ID, two.Keys = []byte("server's"), id // the ID changes when the server has answered
			a.Datagram(first)
			a.Datagram(seal(t, two))
		}
		h, err := a.Hello()
		if err != nil || h == nil || h.Name != "quic.example" || h.Protocol != "h3" || h.Version != flow.TLS13 || !h.QUIC || h.JA4[:4] != "q13d" {
			t.Fatalf("try %d: %+v, %v", try, h, err)
		}
	}
}

func TestDatagramsThatComeToNothing(t *testing.T) {
	msg, err := planetest.ClientHelloQUIC(&tls.Config{ServerName: "quic.example", MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	p := planetest.Initial{ID: []byte("somebody"), Frames: planetest.CryptoFrame(0, msg), Size: 1200}
	good := seal(t, p)
	p.Frames = []byte{8, 0} // STREAM
	stream := seal(t, p)
	p.Frames = planetest.CryptoFrame(1<<20, msg)
	far := seal(t, p)
	forged := slices.Clone(good)
	forged[len(forged)-1] ^= 1
	for what, b := range map[string][]byte{
		"nothing": {}, "another version": append([]byte{0xc3, 0, 0, 0, 2}, good[5:]...), "a short header": append([]byte{0x43}, good[1:]...),
		"forged": forged, "cut": good[:1100], "a long ID": {0xc0, 0, 0, 0, 1, 21}, "beyond what is read": far,
		"a length of 2^62": append(slices.Clone(good[:16]), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"a Retry":          append([]byte{0xf0}, good[1:]...),
	} {
		var a hello.Assembly
		a.Datagram(b)
		if h, err := a.Hello(); h != nil || err != nil {
			t.Errorf("%s: %+v, %v: expected that nothing is known", what, h, err)
		}
		a.Datagram(good) // and that it does no harm
		if h, err := a.Hello(); h == nil || err != nil {
			t.Errorf("after %s: %+v, %v", what, h, err)
		}
	}
	var a hello.Assembly
	a.Datagram(stream)
	if _, err := a.Hello(); !errors.Is(err, hello.ErrMalformed) {
		t.Errorf("a frame that has no place there: %v", err)
	}
}

func TestReadsFingerprintsOfLogs(t *testing.T) {
	h, ok := hello.Read("t13d1516h2_8daaf6152771_e5627efa2ab1")
	if !ok || h.Version != flow.TLS13 || !h.Named || h.Ciphers != 15 || h.Extensions != 16 || h.Protocol != "h2" ||
		h.Told != flow.ToldAll&^flow.ToldECH || h.Print != flow.PrintOf(h.JA4) {
		t.Errorf("got %+v %v", h, ok)
	}
	if h, ok = hello.Read("q00i0103zz_8daaf6152771_e5627efa2ab1"); !ok || h.Told != flow.ToldCounts|flow.ToldName|flow.ToldPrint || !h.QUIC || h.Named {
		t.Errorf("with parts that say nothing: %+v %v", h, ok)
	}
	for _, bad := range []string{"", "e7d705a3286e19ea42f587b344ee6865", "t13d1516h2_8daaf6152771_e5627efa2abX", "x13d1516h2_8daaf6152771_e5627efa2ab1",
		"t13x1516h2_8daaf6152771_e5627efa2ab1", "t13dab16h2_8daaf6152771_e5627efa2ab1", "t13d1516h2-8daaf6152771_e5627efa2ab1"} {
		if h, ok := hello.Read(bad); ok {
			t.Errorf("%q: %+v, expected that it is none", bad, h)
		}
	}
}

func sample(n int, first bool, at int64, seq uint32, b []byte) *hello.Sample {
	k, _ := flow.NewKey(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 4000), netip.MustParseAddrPort("203.0.113.1:443"), flow.TCP)
	return &hello.Sample{Key: k, At: at, First: first, Seq: seq, Payload: b}
}

func TestTracker(t *testing.T) {
	const sec = int64(1e9)
	stream := records(chrome())
	tr := hello.NewTracker()
	fill := func(n int, start, last int64, end bool) *flow.Hello {
		r := flow.Record{Key: sample(n, true, 0, 0, nil).Key, Start: start, Last: last}
		tr.Fill(&r, end)
		return r.Hello
	}
	tr.See(sample(1, false, 5*sec, 7, stream)) // nobody saw its beginning
	if fill(1, 5*sec, 5*sec, false) != nil {
		t.Error("a hello without a beginning is known")
	}
	tr.See(sample(1, true, 10*sec, 7, stream[:90]))
	if fill(1, 10*sec, 10*sec, false) != nil {
		t.Error("half a hello is known")
	}
	tr.See(sample(1, false, 11*sec, 97, stream[90:]))
	if h := fill(1, 10*sec, 12*sec, false); h == nil || h.Name != "example.org" {
		t.Errorf("got %+v", h)
	}
	if fill(1, 30*sec, 31*sec, false) != nil || fill(1, sec, 2*sec, true) != nil {
		t.Error("another flow of the same key has the hello")
	}
	if fill(1, 10*sec, 12*sec, true) == nil || fill(1, 10*sec, 12*sec, true) != nil {
		t.Error("expected the hello in the last report, and to be forgotten then")
	}
	// Half a hello of each of very many: their memory is bounded, and one that is
	// known by then is not pushed out by a few.
	tr.See(sample(2, true, 20*sec, 7, stream))
	for n := range 2000 {
		tr.See(sample(1000+n, true, 21*sec, 7, stream[:90]))
	}
	tr.See(sample(1000, false, 22*sec, 97, stream[90:]))
	tr.See(sample(2999, false, 22*sec, 97, stream[90:]))
	if fill(2, 20*sec, 23*sec, false) == nil || fill(2999, 21*sec, 23*sec, false) == nil || fill(1000, 21*sec, 23*sec, false) != nil {
		t.Error("expected the whole ones and the newest halves only")
	}
	for n := range 1 << 15 {
		tr.See(sample(5000+n, true, 24*sec, 7, stream[:9]))
	}
	if fill(2, 20*sec, 25*sec, false) != nil {
		t.Error("the oldest is known after as many as there is room for")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(chrome(), false)
	f.Add(message(0x0301, []uint16{5, 4}), true)
	f.Fuzz(func(t *testing.T, msg []byte, quic bool) {
		h, err := hello.Parse(msg, quic)
		if (err == nil) != (h != nil) {
			t.Fatalf("%+v and %v", h, err)
		}
		if h == nil {
			return
		}
		if len(h.JA4) != 36 || h.Print == 0 || len(h.Name) > 253 || len(h.Protocol) > 255 || int(h.Ciphers) > len(msg) {
			t.Fatalf("%+v", h)
		}
		if r, ok := hello.Read(h.JA4); isText(h.JA4) && (!ok || r.Named != h.Named || r.QUIC != h.QUIC) {
			t.Fatalf("%s reads as %+v %v", h.JA4, r, ok)
		}
	})
}

func isText(s string) bool {
	return strings.Trim(s[8:10], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
}

// FuzzAssembly gives pieces at places that the input names.
func FuzzAssembly(f *testing.F) {
	stream := records(chrome(), 10)
	f.Add(uint32(0), stream, uint32(40), stream[40:], false)
	f.Add(uint32(9), stream[9:], uint32(9), stream, false)
	msg, err := planetest.ClientHelloQUIC(&tls.Config{ServerName: "quic.example", MinVersion: tls.VersionTLS13})
	if err != nil {
		f.Fatal(err)
	}
	d := seal(f, planetest.Initial{ID: []byte("somebody"), Frames: planetest.CryptoFrame(0, msg), Size: 1200})
	f.Add(uint32(0), d, uint32(0), d[:600], true)
	f.Fuzz(func(t *testing.T, p uint32, x []byte, q uint32, y []byte, quic bool) {
		var a hello.Assembly
		if quic {
			a.Datagram(x)
			a.Datagram(y)
		} else {
			a.Segment(p, x)
			a.Segment(q, y)
		}
		if h, err := a.Hello(); h != nil && (err != nil || len(h.JA4) != 36) {
			t.Fatalf("%+v, %v", h, err)
		}
	})
}

// FuzzFrames lets the input stand behind the protection, where fuzzing by the
// packet would never get.
func FuzzFrames(f *testing.F) {
	f.Add(planetest.CryptoFrame(0, chrome()), true)
	f.Add([]byte{2, 5, 0, 0x7f, 0xff, 1, 0, 0x1c}, false)
	f.Fuzz(func(t *testing.T, frames []byte, v2 bool) {
		if len(frames) > 1400 {
			return
		}
		var a hello.Assembly
		a.Datagram(seal(t, planetest.Initial{V2: v2, ID: []byte("somebody"), Frames: frames}))
		if h, err := a.Hello(); h != nil && (err != nil || len(h.JA4) != 36) {
			t.Fatalf("%+v, %v", h, err)
		}
	})
}
