package feed

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

func packed(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, s); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const bundle1 = `{
  "type": "bundle", "id": "bundle--1",
  "objects": [
    {"type": "identity", "name": "x"},
    {"type": "indicator", "id": "indicator--a", "pattern_type": "stix", "modified": "2026-01-01T00:00:00Z",
     "pattern": "[ipv4-addr:value = '45.9.148.7' OR ipv6-addr:value = '2a00::/48' OR domain-name:value = 'x.example.org']"},
    {"type": "indicator", "id": "indicator--b", "pattern": "[ipv4-addr:value = '45.9.148.8']", "valid_until": "2020-01-01T00:00:00Z"},
    {"type": "indicator", "id": "indicator--c", "pattern": "[ipv4-addr:value = '45.9.148.9']", "revoked": true},
    {"type": "indicator", "id": "indicator--d", "pattern": "[ipv4-addr:value = '45.9.148.10' AND file:name = 'x']"},
    {"type": "indicator", "id": "indicator--e", "pattern": "alert tcp", "pattern_type": "snort"},
    {"type": "indicator", "id": "indicator--f", "pattern": "[ipv4-addr:value IN ('45.9.148.11', '45.9.148.12')]", "modified": "2026-01-02T00:00:00Z"},
    {"type": "indicator", "id": "indicator--f", "pattern": "[ipv4-addr:value = '45.9.148.13']", "modified": "2026-01-01T00:00:00Z"},
    {"type": "indicator", "id": "indicator--g", "pattern": "[ipv4-addr:value = '45.9.148.14']", "valid_until": "2027-06-01T00:00:00Z"},
    {"type": "indicator", "id": "indicator--h", "pattern": 7},
    {"type": "indicator", "id": "indicator--i", "pattern": "[ipv4-addr:value = "}
  ]
}`

func TestReaders(t *testing.T) {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		text   string
		o      Options
		format Format
		nets   string
		notes  string
	}{
		"plain": {
			text:   "# list\n; old style\n// and this\n\n45.9.148.7 # a comment\n45.9.148.8;x\n45.9.148.9 // y\n  45.9.148.10\t\n45.9.148.0/24\n45.9.148.7\n",
			format: Plain, nets: "45.9.148.0/24 45.9.148.7/32 45.9.148.8/32 45.9.148.9/32 45.9.148.10/32", notes: "10:duplicate",
		},
		"windows and a byte order mark": {text: "\xef\xbb\xbf45.9.148.7\r\n\r\n45.9.148.8\r\n", format: Plain, nets: "45.9.148.7/32 45.9.148.8/32"},
		"no end of the last line":       {text: "45.9.148.7\n45.9.148.8", format: Plain, nets: "45.9.148.7/32 45.9.148.8/32"},
		"empty":                         {text: "", format: Plain},
		"comments only":                 {text: "# nothing today\n", format: Plain},
		"ranges":                        {text: "45.9.148.0 - 45.9.148.3\n45.9.148.8-45.9.148.11\n45.9.148.16 -45.9.148.17\n", format: Plain, nets: "45.9.148.0/30 45.9.148.8/30 45.9.148.16/31"},
		"two addresses on a line":       {text: "45.9.148.0\t45.9.148.255\t24\n", format: Plain, notes: "1:malformed"},
		"other things":                  {text: "evil.example.org\n45.9.148.7:80\n0.0.0.0/0\nhello\nhttp://x.example.org/#a\n45.9.148.1\n", format: Plain, nets: "45.9.148.1/32", notes: "1:name 2:service 3:too-wide 4:malformed 5:name"},
		"scores":                        {text: "45.9.148.7\t3\n45.9.148.8\t2\n45.9.148.9\n45.9.148.10 x\n", o: Options{MinScore: 3}, format: Plain, nets: "45.9.148.7/32", notes: "2:below-score 3:no-score 4:no-score"},
		"scores elsewhere":              {text: "45.9.148.7 x 3\n45.9.148.8 x 2\n", o: Options{MinScore: 3, ScoreColumn: "3"}, format: Plain, nets: "45.9.148.7/32", notes: "2:below-score"},
		"netset":                        {text: "#\n# firehol_level1\n#\n45.9.148.0/24\n45.9.149.1\n", format: Plain, nets: "45.9.148.0/24 45.9.149.1/32"},
		"drop list":                     {text: "; Spamhaus DROP List\n45.9.148.0/24 ; SBL1\n", format: Plain, nets: "45.9.148.0/24"},
		"packed":                        {text: packed(t, "45.9.148.7\n"), format: Plain, nets: "45.9.148.7/32"},

		"csv": {
			text:   "first_seen,dst_ip,dst_port\n2026-01-01,45.9.148.7,443\n\"2026, later\",\"45.9.148.8\",\"8\"\"0\"\n2026,x\n2026-01-01\n\"open,45.9.148.9\n",
			format: CSV, nets: "45.9.148.7/32 45.9.148.8/32", notes: "1:header 4:malformed 5:malformed 6:malformed",
		},
		"csv by name":             {text: "src,dst\n45.9.148.7,45.9.148.8\n", o: Options{Column: "DST"}, format: CSV, nets: "45.9.148.8/32", notes: "1:header"},
		"csv by number":           {text: "45.9.148.7;45.9.148.8\n", o: Options{Column: "2"}, format: CSV, nets: "45.9.148.8/32"},
		"csv by number, names":    {text: "src|dst\n45.9.148.7|45.9.148.8\n", o: Options{Column: "2"}, format: CSV, nets: "45.9.148.8/32", notes: "1:header"},
		"csv, names in comment":   {text: "# x\n# Firstseen,DstIP,DstPort\n2026,45.9.148.8,1\n", o: Options{Column: "DstIP"}, format: CSV, nets: "45.9.148.8/32"},
		"csv with scores":         {text: "ip,score\n45.9.148.7,90\n45.9.148.8,10\n", o: Options{Column: "ip", MinScore: 50, ScoreColumn: "score"}, format: CSV, nets: "45.9.148.7/32", notes: "1:header 3:below-score"},
		"csv that begins at once": {text: "45.9.148.7,bad\n45.9.148.8,worse\n", format: CSV, nets: "45.9.148.7/32 45.9.148.8/32"},

		"ipset": {
			text: "create bl hash:net family inet hashsize 1024 maxelem 65536\nadd bl 45.9.148.0/24\nadd bl 45.9.149.7 timeout 300\nadd bl 45.9.149.9,tcp:80\n" +
				"create n hash:ip family inet netmask 24\nadd n 45.9.150.0\nadd bl 45.9.148.8/29 nomatch\nadd l other\nwhat is this\nCOMMIT\n",
			format: Ipset, nets: "45.9.148.0/24 45.9.149.7/32 45.9.150.0/24", notes: "4:service 7:exception 8:malformed 9:malformed",
		},
		"stix": {
			text: bundle1, o: Options{Now: now}, format: STIX, nets: "45.9.148.7/32 45.9.148.11/32 45.9.148.12/32 45.9.148.14/32 2a00::/48",
			notes: "12:superseded 5:other 7:outdated 8:revoked 9:compound 9:compound 10:other 14:malformed 15:malformed",
		},
		"stix, packed":      {text: packed(t, bundle1), o: Options{Now: now}, format: STIX, nets: "45.9.148.7/32 45.9.148.11/32 45.9.148.12/32 45.9.148.14/32 2a00::/48", notes: "12:superseded 5:other 7:outdated 8:revoked 9:compound 9:compound 10:other 14:malformed 15:malformed"},
		"stix, an envelope": {text: `{"more": false, "objects": [{"type": "indicator", "pattern": "[ipv4-addr:value = '45.9.148.7']"}]}`, format: STIX, nets: "45.9.148.7/32"},
		"stix, a bare list": {text: `[{"type": "indicator", "pattern": "[ipv4-addr:value = '45.9.148.7']"}, 7, "x"]`, format: STIX, nets: "45.9.148.7/32", notes: "1:malformed 1:malformed"},
		"misp": {
			text:   "{\"name\": \"List\",\n\"type\": \"cidr\", \"list\": [\n\"45.9.148.0/24\",\n\"x.example.org\",\n7\n], \"matching_attributes\": [\"ip-src\"]}",
			format: MISP, nets: "45.9.148.0/24", notes: "4:name 5:malformed",
		},
	} {
		nets, notes, l, err := read(t, c.text, c.o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if l.Format != c.format || strings.Join(nets, " ") != c.nets || strings.Join(notes, " ") != c.notes {
			t.Errorf("%s: format %s, nets %v, notes %v", name, l.Format, nets, notes)
		}
		if got := l.Counts.Of(Skipped) + l.Counts.Of(Refused) + l.Counts.Of(Mended); got != len(notes) {
			t.Errorf("%s: %d counted, %d told", name, got, len(notes))
		}
	}
}

// endless repeats a text for as long as somebody reads, and counts.
type endless struct {
	text string
	n    int64
}

func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e.text)
	}
	e.n += int64(n)
	return n, nil
}

func TestBadInputEndsWithAClearError(t *testing.T) {
	for name, c := range map[string]struct {
		r    io.Reader
		o    Options
		want string
		most int64 // bytes that may be read
	}{
		"garbage in lines":         {&endless{text: "lorem ipsum\n"}, Options{}, "hold no address or network", 1 << 20},
		"names without an end":     {&endless{text: "evil.example.org\n"}, Options{}, "names and no address", 20 << 20},
		"garbage without an end":   {&endless{text: "lorem ipsum "}, Options{}, "line 1 is longer than 16 KiB", 1 << 20},
		"zeros":                    {&endless{text: "\x00"}, Options{}, "binary file", 1 << 20},
		"an endless list":          {&endless{text: "45.9.148.7\n"}, Options{MaxBytes: 1 << 20}, "larger than 1 MiB", 2 << 20},
		"too many entries":         {strings.NewReader("45.9.148.7\n45.9.148.8\n45.9.148.9\n"), Options{MaxEntries: 2}, "line 3: more than 2 entries", 0},
		"a range of many":          {strings.NewReader("45.0.0.1-45.255.255.254\n"), Options{MaxEntries: 10}, "more than 10 entries", 0},
		"HTML":                     {strings.NewReader("<!DOCTYPE html>\n<html>502</html>"), Options{}, "HTML or XML", 0},
		"UTF-16":                   {strings.NewReader("\xff\xfe4\x005\x00"), Options{}, "UTF-16", 0},
		"a cut gzip":               {strings.NewReader(packed(t, strings.Repeat("45.9.148.7\n45.9.148.9\n", 1000))[:40]), Options{}, "unexpected EOF", 0},
		"no gzip":                  {strings.NewReader("\x1f\x8bxxxxxxxxxxxxxxxxxxxx"), Options{}, "gzip", 0},
		"a bomb":                   {strings.NewReader(packed(t, strings.Repeat("45.9.148.7\n", 1<<20))), Options{MaxBytes: 1 << 20}, "larger than 1 MiB unpacked", 0},
		"JSON that ends early":     {strings.NewReader(bundle1[:400]), Options{}, "cut short", 0},
		"JSON of something else":   {strings.NewReader(`{"a": 1}`), Options{}, "neither the objects", 0},
		"JSON objects of a scalar": {strings.NewReader(`{"objects": 3}`), Options{}, "is no array", 0},
		"deep JSON":                {strings.NewReader(`{"objects": [` + strings.Repeat(`{"a":`, 20000)), Options{}, "not valid JSON|cut short", 0},
		"a column that is none":    {strings.NewReader("a,b\n1,2\n"), Options{Column: "c"}, "not among the table's columns (a, b)", 0},
		"a table without address":  {strings.NewReader("a,b\n1,2\n"), Options{}, "say which with column", 0},
		"two columns of them":      {strings.NewReader("45.9.148.7,45.9.148.8\n"), Options{}, "columns 1 and 2 both hold addresses", 0},
		"a reader that fails":      {io.MultiReader(strings.NewReader("45.9.148.7\n"), broken{}), Options{}, "input/output error", 0},
	} {
		l, err := Read(c.r, c.o, nil)
		if err == nil || l != nil {
			t.Errorf("%s: was read: %+v", name, l)
			continue
		}
		ok := false
		for alt := range strings.SplitSeq(c.want, "|") {
			ok = ok || strings.Contains(err.Error(), alt)
		}
		if !ok {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
		if e, is := c.r.(*endless); is && e.n > c.most {
			t.Errorf("%s: %d bytes were read, %d should do", name, e.n, c.most)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

// A list may hold more nonsense than addresses for a while; only when nonsense
// is most of it, it is refused.
func TestSomeGarbageIsCounted(t *testing.T) {
	text := strings.Repeat("45.9.148.7\nnonsense\n", 20000)
	_, _, l, err := read(t, text, Options{})
	if err != nil || l.Counts[Malformed] != 20000 || l.Taken != 20000 || l.Len() != 1 || l.Counts[Duplicate] != 19999 {
		t.Fatalf("%+v, %v", l, err)
	}
}

func TestPatterns(t *testing.T) {
	for text, want := range map[string]string{
		"[ipv4-addr:value = '1.2.3.4']":                                                                                                "1.2.3.4",
		"[ipv4-addr:value='1.2.3.4' OR ipv4-addr:value='1.2.3.5']":                                                                     "1.2.3.4 1.2.3.5",
		"[ipv4-addr:value = '1.2.3.4'] OR [ipv6-addr:value = '2a00::1']":                                                               "1.2.3.4 2a00::1",
		"[ipv4-addr:value = '1.2.3.4'] AND [ipv4-addr:value = '1.2.3.5']":                                                              "! !",
		"[ipv4-addr:value = '1.2.3.4'] FOLLOWEDBY [ipv4-addr:value = '1.2.3.5']":                                                       "! !",
		"[ipv4-addr:value = '1.2.3.3'] OR [ipv4-addr:value = '1.2.3.4'] AND [file:name = 'x']":                                         "1.2.3.3 ! !",
		"[ipv4-addr:value = '1.2.3.4' AND file:name = 'x']":                                                                            "! !",
		"[ipv4-addr:value = '1.2.3.4' OR ipv4-addr:value = '1.2.3.5' AND file:name = 'x']":                                             "1.2.3.4 ! !",
		"[(ipv4-addr:value = '1.2.3.4' OR ipv4-addr:value = '1.2.3.5') AND file:name = 'x']":                                           "! ! !",
		"[(ipv4-addr:value = '1.2.3.4' OR (ipv4-addr:value = '1.2.3.5'))]":                                                             "1.2.3.4 1.2.3.5",
		"([ipv4-addr:value = '1.2.3.4'])":                                                                                              "1.2.3.4",
		"[ipv4-addr:value != '1.2.3.4']":                                                                                               "-",
		"[NOT ipv4-addr:value = '1.2.3.4']":                                                                                            "!",
		"[ipv4-addr:value NOT = '1.2.3.4']":                                                                                            "-",
		"[ipv4-addr:value LIKE '1.2.3.%']":                                                                                             "-",
		"[ipv4-addr:value ISSUBSET '1.2.3.0/24']":                                                                                      "1.2.3.0/24",
		"[ipv4-addr:value IN ('1.2.3.4','1.2.3.5')]":                                                                                   "1.2.3.4 1.2.3.5",
		"[ipv4-addr:value = '1.2.3.4'] REPEATS 5 TIMES":                                                                                "!",
		"[ipv4-addr:value = '1.2.3.4'] WITHIN 300 SECONDS":                                                                             "!",
		"[ipv4-addr:value = '1.2.3.4'] START t'2026-01-01T00:00:00Z' STOP t'2026-02-01T00:00:00Z' OR [ipv4-addr:value = '1.2.3.5']":    "! 1.2.3.5",
		"[network-traffic:dst_ref.type = 'ipv4-addr' AND network-traffic:dst_ref.value = '1.2.3.4']":                                   "1.2.3.4",
		"[network-traffic:dst_ref.type = 'ipv4-addr' AND network-traffic:dst_ref.value = '1.2.3.4' AND network-traffic:dst_port = 80]": "! !",
		`[file:hashes.'SHA-256' = 'a' OR ipv4-addr:value = '1.2.3.4']`:                                                                 "- 1.2.3.4",
		`[domain-name:resolves_to_refs[*].value = '1.2.3.4']`:                                                                          "-",
		`[file:name = 'it\'s [a] trick' OR ipv4-addr:value = '1.2.3.4']`:                                                               "- 1.2.3.4",
		`[file:name = '] OR [ipv4-addr:value = \'1.2.3.4\'']`:                                                                          "-",
		"[EXISTS ipv4-addr:value]":                                                                                                     "-",
		"[ipv4-addr:value = '1.2.3.4'":                                                                                                 "error",
		"[ipv4-addr:value = '1.2.3.4":                                                                                                  "error",
		"ipv4-addr:value = '1.2.3.4'":                                                                                                  "error",
		"[ipv4-addr:value '1.2.3.4']":                                                                                                  "error",
		"[]":                                                                                                                           "error",
		"":                                                                                                                             "error",
		"[ipv4-addr:value = '1.2.3.4'] OR":                                                                                             "error",
		"[ipv4-addr:value = '1.2.3.4'] x":                                                                                              "error",
		strings.Repeat("(", 500) + "[ipv4-addr:value = '1.2.3.4']" + strings.Repeat(")", 500):                                          "error",
		"[" + strings.Repeat("NOT ", 500) + "ipv4-addr:value = '1.2.3.4']":                                                             "error",
	} {
		terms, err := parsePattern(text)
		var got []string
		for _, x := range terms {
			switch {
			case x.joined > 0:
				got = append(got, "!")
			case x.address == "":
				got = append(got, "-")
			default:
				got = append(got, x.address)
			}
		}
		s := strings.Join(got, " ")
		if err != nil {
			s = "error"
		}
		if s != want {
			t.Errorf("%.90s: got %q (%v), want %q", text, s, err, want)
		}
	}
}

func TestCountsAndClasses(t *testing.T) {
	c := Counts{Name: 2, Warned: 3, HostBits: 1}
	c.Add(Counts{Warned: 1})
	if c.Of(Skipped) != 2 || c.Of(Refused) != 4 || c.Of(Mended) != 1 || !reflect.DeepEqual(c.Kinds(), []Kind{HostBits, Name, Warned}) {
		t.Errorf("%v %v", c, c.Kinds())
	}
	if got := printable("a\x1b[31mred\x00" + strings.Repeat("x", 100)); len(got) > maxValue || strings.ContainsAny(got, "\x1b\x00") {
		t.Errorf("printable: %q", got)
	}
}
