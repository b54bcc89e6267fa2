package wire

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hedgerow-mesh/hedgerow/crypto/canon"
	"github.com/hedgerow-mesh/hedgerow/crypto/identity"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func key(t testing.TB, n byte) *identity.Key {
	t.Helper()
	k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func anyone(identity.ID) bool { return true }

func indicator(k *identity.Key, typ Type, value string) *Indicator {
	return &Indicator{
		ID: IndicatorID(k.ID(), typ, value), Type: typ, Value: value, Score: 0.9, Confidence: 0.75, Evidence: Validated,
		EvidenceHash: Hash{1, 2}, Sentence: "tried 40 passwords in a minute", First: now.Add(-time.Minute), Last: now,
		Expires: now.Add(DefaultLife), TLP: TLPAmber,
	}
}

func payloads(k *identity.Key) []Payload {
	return []Payload{
		indicator(k, TypeAddress, "203.0.113.9"),
		indicator(k, TypeAddress, "2001:db8::/48"),
		indicator(k, TypeService, "198.51.100.7 tcp/8443"),
		&Withdrawal{ID: strings.Repeat("0a", 16)},
		&Begin{Round: 1, Base: Hash{1}},
		&Offer{Round: 2, Base: Hash{1}, Delta: Hash{2}, Size: 77},
		&Delta{Round: 3, Base: Hash{1}, Schema: "s/1", Examples: 5, Params: []float32{0, -1.5, 3e-40}},
		&List{Round: 4, View: 9, Base: Hash{1}, Deltas: []Hash{{1}, {2}}},
		&State{Round: 0, Hash: Hash{5}},
		&Commit{Round: 1, Parent: Hash{1}, Commit: Hash{2}, Sig: Sig{3}},
		&Set{Round: 1, Parent: Hash{1}, Commits: []OrgHash{{Org: 0, Hash: Hash{1}}, {Org: 63, Hash: Hash{2}}}},
		&SetVote{Round: 1, Set: Hash{1}, Sig: Sig{1}},
		&Reveal{Round: 1, Parent: Hash{1}, Delta: Hash{2}, Salt: [16]byte{9}},
		&Proposal{Block: block(k), Sig: Sig{4}},
		&Vote{Round: 1, Block: Hash{1}, Sig: Sig{2}},
		&Approve{Entry: Entry{Kind: Admits, Org: "x", Voter: k.ID(), Epoch: 2}, Sig: Sig{4}},
		&Wish{Round: 9, High: 7, Height: 5, Hash: Hash{1}},
	}
}

func TestSealOpen(t *testing.T) {
	k := key(t, 1)
	for _, p := range payloads(k) {
		m, err := Seal(k, 7, now, p)
		if err != nil {
			t.Fatalf("%s: %v", p.Kind(), err)
		}
		got, err := Open(m.Raw, now, anyone)
		if err != nil {
			t.Fatalf("%s: %v", p.Kind(), err)
		}
		if got.Author != k.ID() || got.Seq != 7 || !got.Time.Equal(now) || got.Hash != m.Hash || got.Kind() != p.Kind() {
			t.Errorf("%s: %+v", p.Kind(), got)
		}
		again, err := Seal(k, 7, now, got.Payload)
		if err != nil || !bytes.Equal(again.Raw, m.Raw) {
			t.Errorf("%s: sealed again, it differs (%v)", p.Kind(), err)
		}
	}
}

func TestSizes(t *testing.T) {
	k := key(t, 1)
	m, err := Seal(k, 1, now, indicator(k, TypeAddress, "203.0.113.9"))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Raw) > 420 {
		t.Errorf("an indicator takes %d bytes, expected at most 420", len(m.Raw))
	}
	t.Logf("an indicator takes %d bytes", len(m.Raw))
	big, err := Seal(k, 1, now, &Delta{Round: 1, Base: Hash{1}, Schema: strings.Repeat("s", MaxSchema), Params: make([]float32, MaxParams)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(big.Raw, now, anyone); err != nil {
		t.Errorf("the largest delta (%d bytes): %v", len(big.Raw), err)
	}
	hs := make([]Hash, MaxSite)
	for i := range hs {
		hs[i] = Hash{0: byte(i), 31: 1}
	}
	list, err := Seal(k, 1, now, &List{Round: 1, Base: Hash{1}, Deltas: hs})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(list.Raw, now, anyone); err != nil {
		t.Errorf("the longest list (%d bytes): %v", len(list.Raw), err)
	}
}

// TestFlippedBits: no changed message opens, whichever bit it is.
func TestFlippedBits(t *testing.T) {
	k := key(t, 1)
	m, err := Seal(k, 1, now, indicator(k, TypeAddress, "203.0.113.9"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Raw {
		b := slices.Clone(m.Raw)
		b[i] ^= 1 << (i % 8)
		if _, err := Open(b, now, anyone); err == nil {
			t.Fatalf("opened with a flipped bit in byte %d", i)
		}
	}
	for n := range m.Raw {
		if _, err := Open(m.Raw[:n], now, anyone); err == nil {
			t.Fatalf("opened after %d of %d bytes", n, len(m.Raw))
		}
	}
	if _, err := Open(append(slices.Clone(m.Raw), 0), now, anyone); ReasonOf(err) != Malformed {
		t.Errorf("opened with a byte too many: %v", err)
	}
}

func TestPayloadsAreRefusedByName(t *testing.T) {
	k := key(t, 1)
	ind := func(change func(*Indicator)) *Indicator {
		p := indicator(k, TypeAddress, "203.0.113.9")
		change(p)
		return p
	}
	nan, inf := math.NaN(), math.Inf(1)
	delta := func(v ...float32) *Delta { return &Delta{Round: 1, Base: Hash{1}, Schema: "s", Params: v} }
	for name, c := range map[string]struct {
		p    Payload
		want Reason
	}{
		"score NaN":          {ind(func(p *Indicator) { p.Score = nan }), BadField},
		"score above 1":      {ind(func(p *Indicator) { p.Score = 1.01 }), BadField},
		"confidence below 0": {ind(func(p *Indicator) { p.Confidence = -0.1 }), BadField},
		"evidence":           {ind(func(p *Indicator) { p.Evidence = "hearsay" }), BadField},
		"red":                {ind(func(p *Indicator) { p.TLP = "red" }), BadField},
		"two lines":          {ind(func(p *Indicator) { p.Sentence = "a\nb" }), BadField},
		"long sentence":      {ind(func(p *Indicator) { p.Sentence = strings.Repeat("é", 201) }), BadField},
		"private sentence":   {ind(func(p *Indicator) { p.Sentence = "seen by 192.168.1.7" }), BadField},
		"turned text":        {ind(func(p *Indicator) { p.Sentence = "a\u202eb" }), BadField},
		"expires first":      {ind(func(p *Indicator) { p.Expires = p.Last }), BadField},
		"last before first":  {ind(func(p *Indicator) { p.Last = p.First.Add(-1) }), BadField},
		"eight days":         {ind(func(p *Indicator) { p.Expires = p.First.Add(MaxLife + 1) }), TooLong},
		"withdrawal":         {&Withdrawal{ID: "x"}, BadField},
		"round 0":            {&Begin{Base: Hash{1}}, BadField},
		"round huge":         {&Begin{Round: MaxRound + 1, Base: Hash{1}}, BadField},
		"offer huge":         {&Offer{Round: 1, Base: Hash{1}, Delta: Hash{1}, Size: MaxDelta + 1}, Oversized},
		"no parameters":      {delta(), WrongLength},
		"NaN":                {delta(1, float32(nan)), NotFinite},
		"Inf":                {delta(float32(inf)), NotFinite},
		"norm":               {delta(8e3, 8e3), NormTooLarge},
		"schema":             {&Delta{Round: 1, Base: Hash{1}, Schema: "a b", Params: []float32{1}}, BadField},
		"empty list":         {&List{Round: 1, Base: Hash{1}}, WrongLength},
		"doubled list":       {&List{Round: 1, Base: Hash{1}, Deltas: []Hash{{1}, {1}}}, BadField},
		"state huge":         {&State{Round: MaxRound + 1}, BadField},
	} {
		if _, err := Seal(k, 1, now, c.p); err == nil || ReasonOf(err) != c.want {
			t.Errorf("seal %s: %v, expected %s", name, err, c.want)
		}
		if err := forge(t, k, c.p); err == nil || ReasonOf(err) != c.want {
			t.Errorf("open %s: %v, expected %s", name, err, c.want)
		}
	}
}

// forge signs a payload without the checks of Seal, as an attacker would.
func forge(t *testing.T, k *identity.Key, p Payload) error {
	t.Helper()
	b, err := encodePayload(p)
	if err != nil {
		return Refuse(BadField, "%v", err) // what cannot even be encoded cannot arrive
	}
	pub, err := k.ID().Public()
	if err != nil {
		t.Fatal(err)
	}
	e := envelope{Version: Version, Kind: string(p.Kind()), Author: pub, Seq: 1, Time: now.UnixNano(), Payload: b}
	signed, err := canon.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	e.Sig = k.Sign(e.Kind, signed)
	raw, err := canon.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(raw, now, anyone)
	return err
}

func TestOpenRefuses(t *testing.T) {
	k, other := key(t, 1), key(t, 2)
	good, err := Seal(k, 1, now, indicator(k, TypeAddress, "203.0.113.9"))
	if err != nil {
		t.Fatal(err)
	}
	stolen := *good.Payload.(*Indicator)
	for name, c := range map[string]struct {
		err  error
		want Reason
	}{
		"oversized":     {open(make([]byte, MaxDelta+1), now, anyone), Oversized},
		"empty":         {open(nil, now, anyone), Malformed},
		"not a member":  {open(good.Raw, now, func(identity.ID) bool { return false }), NotMember},
		"future":        {open(good.Raw, now.Add(-MaxSkew-time.Second), anyone), FromFuture},
		"stale":         {open(good.Raw, now.Add(MaxAge+time.Second), anyone), Stale},
		"expired":       {open(good.Raw, now.Add(DefaultLife+time.Second), anyone), Expired},
		"another's id":  {forge(t, other, &stolen), BadField},
		"private value": {forge(t, k, indicator(k, TypeAddress, "192.168.0.1")), PrivateValue},
		"too wide":      {forge(t, k, indicator(k, TypeAddress, "203.0.0.0/16")), PrefixTooWide},
	} {
		if c.err == nil || ReasonOf(c.err) != c.want {
			t.Errorf("%s: %v, expected %s", name, c.err, c.want)
		}
	}
}

func open(b []byte, at time.Time, member func(identity.ID) bool) error {
	_, err := Open(b, at, member)
	return err
}

func TestParseValue(t *testing.T) {
	for _, c := range []struct {
		typ   Type
		value string
		want  Reason // "" is fine
	}{
		{TypeAddress, "203.0.113.9", ""}, {TypeAddress, "198.18.0.1", ""}, {TypeAddress, "198.51.100.0/24", ""},
		{TypeAddress, "2001:db8::1", ""}, {TypeAddress, "2001:db8::/48", ""}, {TypeAddress, "8.8.8.8", ""},
		{TypeService, "203.0.113.9 tcp/443", ""}, {TypeService, "2001:db8::1 udp/53", ""},
		{TypeAddress, "10.0.0.1", PrivateValue}, {TypeAddress, "172.31.255.255", PrivateValue}, {TypeAddress, "192.168.1.0/24", PrivateValue},
		{TypeAddress, "127.0.0.1", PrivateValue}, {TypeAddress, "169.254.1.1", PrivateValue}, {TypeAddress, "224.0.0.1", PrivateValue},
		{TypeAddress, "255.255.255.255", PrivateValue}, {TypeAddress, "0.0.0.0", PrivateValue}, {TypeAddress, "100.64.0.1", PrivateValue},
		{TypeAddress, "::", PrivateValue}, {TypeAddress, "::1", PrivateValue}, {TypeAddress, "::/48", PrivateValue}, {TypeAddress, "fe80::1", PrivateValue},
		{TypeAddress, "fd12::1", PrivateValue}, {TypeAddress, "ff02::1", PrivateValue}, {TypeAddress, "2002:a00:1::1", PrivateValue},
		{TypeAddress, "203.0.0.0/16", PrefixTooWide}, {TypeAddress, "2001:db8::/47", PrefixTooWide}, {TypeAddress, "0.0.0.0/0", PrefixTooWide},
		{TypeAddress, "203.0.113.9/24", BadField}, {TypeAddress, "203.0.113.9/32", BadField}, {TypeAddress, "::ffff:203.0.113.9", BadField},
		{TypeAddress, "2001:DB8::1", BadField}, {TypeAddress, "2001:db8::1%eth0", BadField}, {TypeAddress, "", BadField}, {TypeAddress, "example.org", BadField},
		{TypeAddress, "203.0.113.9 tcp/443", BadField}, {TypeService, "203.0.113.9", BadField}, {TypeService, "203.0.113.0/24 tcp/443", BadField},
		{TypeService, "203.0.113.9 tcp/0", BadField}, {TypeService, "203.0.113.9 tcp/65536", BadField}, {TypeService, "203.0.113.9 icmp/1", BadField},
		{TypeService, "203.0.113.9 tcp/0443", BadField}, {TypeService, "10.0.0.1 tcp/443", PrivateValue}, {"domain", "x", BadField},
		{TypeAddress, strings.Repeat("1", 1000), BadField},
	} {
		target, err := ParseValue(c.typ, c.value)
		switch {
		case c.want == "" && (err != nil || target.String() != c.value):
			t.Errorf("%s %q: %v, %v; expected it to pass", c.typ, c.value, target, err)
		case c.want != "" && (err == nil || ReasonOf(err) != c.want):
			t.Errorf("%s %q: %v, expected %s", c.typ, c.value, err, c.want)
		}
	}
}

func TestSanitise(t *testing.T) {
	for in, want := range map[string]string{
		"plain words":                       "plain words",
		"host 10.0.0.3 sent 3.1 MB":         "host (inside) sent 3.1 MB",
		"from 10.0.0.3:443.":                "from (inside):443.",
		"fd00::7 and fe80::1%eth0 and ::1":  "(inside) and (inside)%eth0 and (inside)",
		"203.0.113.9 at 12:30:45 v1.2.3":    "203.0.113.9 at 12:30:45 v1.2.3",
		"mapped ::ffff:10.0.0.1":            "mapped (inside)",
		"10.0\u200b.0.1 hides":              "(inside) hides",
		"a\tb\r\nc  d":                      "a b c d",
		"\x1b[31mred":                       "[31mred",
		"\u202eevil":                        "evil",
		"bad\xffutf8":                       "badutf8",
		strings.Repeat("x", MaxSentence+50): strings.Repeat("x", MaxSentence-1) + "…",
		strings.Repeat("x", MaxSentence):    strings.Repeat("x", MaxSentence),
	} {
		if got := Sanitise(in); got != want {
			t.Errorf("Sanitise(%q) = %q, expected %q", in, got, want)
		}
	}
}

func FuzzSanitise(f *testing.F) {
	for _, s := range []string{"host 10.0.0.3:443", "fd00::1::", "1.1.10.0.0.1", "a\u202e\n", "::ffff:10.0.0.1", strings.Repeat("10.0.0.1 ", 40)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := Sanitise(s)
		if again := Sanitise(out); again != out {
			t.Fatalf("not idempotent: %q, then %q, then %q", s, out, again)
		}
		if utf8.RuneCountInString(out) > MaxSentence || !utf8.ValidString(out) || strings.ContainsAny(out, "\n\r\t\x1b\u202e") {
			t.Fatalf("%q became %q", s, out)
		}
	})
}

func FuzzOpen(f *testing.F) {
	k := key(f, 1)
	for _, p := range payloads(k) {
		m, err := Seal(k, 7, now, p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.Raw)
	}
	f.Add([]byte{})
	f.Add([]byte{0xa7})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Open(b, now, anyone)
		kind, unread := KindOf(b)
		for _, err := range []error{err, unread} {
			var r *Refusal
			if err != nil && !errors.As(err, &r) {
				t.Fatalf("an error without a name: %v", err)
			}
		}
		if err != nil {
			return
		}
		if unread != nil || kind != m.Kind() {
			t.Fatalf("%s was taken for %s: %v", m.Kind(), kind, unread)
		}
		if err := m.Payload.check(); err != nil {
			t.Fatalf("opened, but %v", err)
		}
	})
}

// FuzzPayload reaches the payloads, which FuzzOpen does not behind the signature.
func FuzzPayload(f *testing.F) {
	k := key(f, 1)
	for _, p := range payloads(k) {
		b, err := encodePayload(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(p.Kind()), b)
	}
	f.Fuzz(func(t *testing.T, kind string, b []byte) {
		if !known(Kind(kind)) || len(b) > MaxDelta {
			return
		}
		p, err := decodePayload(Kind(kind), b)
		if err != nil {
			return
		}
		again, err := encodePayload(p)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s decodes from %x and encodes to %x (%v)", kind, b, again, err)
		}
	})
}

func requests(t testing.TB) []*Request {
	return []*Request{
		{Query: &Query{TypeAddress, "203.0.113.9"}},
		{Fetch: &Fetch{Hash: Hash{1}, Params: true}},
		{Sync: &Sync{}},
		{Sync: &Sync{Have: []Have{{Author: key(t, 1).ID(), Spans: []Span{{1, 5}, {8, 8}}}}}},
	}
}

func TestRequests(t *testing.T) {
	for _, r := range requests(t) {
		b, err := EncodeRequest(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeRequest(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := EncodeRequest(got)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%+v came back as %+v (%v)", r, got, err)
		}
	}
	for name, r := range map[string]*Request{
		"nothing":  {},
		"two":      {Query: &Query{TypeAddress, "203.0.113.9"}, Sync: &Sync{}},
		"private":  {Query: &Query{TypeAddress, "10.0.0.1"}},
		"backward": {Sync: &Sync{Have: []Have{{Author: key(t, 1).ID(), Spans: []Span{{5, 1}}}}}},
		"overlap":  {Sync: &Sync{Have: []Have{{Author: key(t, 1).ID(), Spans: []Span{{1, 5}, {5, 6}}}}}},
		"many":     {Sync: &Sync{Have: make([]Have, MaxSite+1)}},
	} {
		if _, err := EncodeRequest(r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestResponses(t *testing.T) {
	for _, r := range []*Response{
		{Refused: NotFound}, {Answer: &Answer{}}, {Answer: &Answer{Seen: true, Count: 3, Last: now.Truncate(time.Second)}},
		{Blob: make([]byte, MaxDelta)}, {Items: [][]byte{{1}, {2}}, More: true, Own: 9},
	} {
		b, err := EncodeResponse(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeResponse(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := EncodeResponse(got)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("a response came back changed (%v)", err)
		}
	}
	for name, r := range map[string]*Response{
		"blob": {Blob: make([]byte, MaxDelta+1)}, "item": {Items: [][]byte{make([]byte, MaxSmall+1)}}, "items": {Items: make([][]byte, MaxItems+1)},
		"all": {Items: slices.Repeat([][]byte{make([]byte, MaxSmall)}, 100)},
	} {
		if _, err := EncodeResponse(r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, r := range requests(f) {
		b, err := EncodeRequest(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRequest(b)
		if err != nil {
			return
		}
		if again, err := EncodeRequest(r); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x decodes, but encodes to %x (%v)", b, again, err)
		}
	})
}

func FuzzResponse(f *testing.F) {
	for _, r := range []*Response{{Refused: NotFound}, {Answer: &Answer{Seen: true, Count: 3, Last: now}}, {Items: [][]byte{{1}}, More: true, Own: 4}, {Blob: []byte{1}}} {
		b, err := EncodeResponse(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeResponse(b); err == nil && r.check() != nil {
			t.Fatalf("%x decodes to what is not allowed", b)
		}
	})
}

func FuzzParams(f *testing.F) {
	f.Add(EncodeParams([]float32{1, -2, 3e-40}))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := DecodeParams(b)
		if err == nil && !bytes.Equal(EncodeParams(v), b) {
			t.Fatalf("%x does not come back", b)
		}
	})
}
