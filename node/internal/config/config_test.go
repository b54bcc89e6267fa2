package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

const whole1 = `
[site]
name = "alder"
state_dir = "/tmp/a"
socket = "/tmp/a/s"
[dataplane]
plane = "soft"
interface = "lan0"
role = "host"
mode = "enforce"
inside = ["10.1.0.0/24", "fd00::/64"]
pin_dir = ""
max_flows = 2048
never_block = ["192.0.2.1 tcp/443", "198.51.100.0/24", "2001:db8::1 udp/53 any-side"]
fail = "closed"
dead_after = "1m"
keep_gro = true
[[dataplane.attach]]
interface = "wan0"
role = "outside"
[learner]
enabled = false
warmup_flows = 60
warmup = "10m"
wait = "1d12h"
settle = "5s"
retrain_every = "30s"
probation = "2h"
false_blocks_per_month = 3
shadow = "1m"
canary = "2m"
canary_share = 0.2
trial_reports = 50
kernel = "off"
intake = "/run/i.sock"
incidents_per_day = 2
seed = 7
[policy]
suspend = "5s"
block = "1h"
max_blocks_per_hour = 3
max_share = 0.5
rules = false
remediation = ["10.1.0.9 tcp/443"]
[flood]
source = 11
source_net = 12
service = 13
destination = 14
breaker = 15
breaker_drops = true
protected = ["10.1.0.8 tcp/443", "10.1.0.8 tcp/80", "fd00::/64"]
dark = ["10.1.1.0/24"]
[mesh]
organisation = "grove"
listen = ["/ip6/::/tcp/0"]
round_every = "20s"
gather = "500ms"
[[mesh.peer]]
name = "birch"
id = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
addrs = ["/dns4/gw.example.org/tcp/4400"]
[[mesh.peer]]
name = "cedar"
id = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xp"
[federation]
discover = true
relay = true
behind_nat = true
passphrase_file = "/etc/hedgerow/passphrase"

[privacy]
unit = "host"
epsilon = 3
delta = 1e-7
clip = 0.5
noise = 6
[feeds]
warning_lists = ["/usr/share/warninglists"]
ignore_warnings = ["vpn-ipv4"]
max_entries = 5000
[[feed]]
name = "ipsum"
path = "/var/lib/ipsum.txt"
format = "plain"
column = 1
every = "30m"
expires = "2h"
min_score = 3
score_column = "lists"
max_size = "1MiB"
[[feed]]
name = "drop"
url = "https://lists.example.org/drop.txt"
[[feed]]
name = "isac"
url = "https://taxii.example.org/api/collections/7"
format = "taxii"
auth_file = "/etc/hedgerow/isac"
[store]
max_bytes = "1.5GiB"
keep_events = "7d"
keep_flows = "36h"
[telemetry]
metrics = "127.0.0.1:1"
log = "debug"
log_format = "json"
taxii = true
taxii_file = "/etc/hedgerow/taxii"
`

func parse(s string) (*Config, error) { return Parse(strings.NewReader(s), "hedgerow.toml") }

func TestEmptyFileIsTheDefault(t *testing.T) {
	c, err := parse("")
	if err != nil || !reflect.DeepEqual(*c, Default()) {
		t.Fatalf("found %+v, %v", c, err)
	}
}

func TestEveryKeyIsRead(t *testing.T) {
	c, err := parse(whole1)
	if err != nil {
		t.Fatal(err)
	}
	never := func(p string, proto uint8, port uint16, any bool) dataplane.Never {
		return dataplane.Never{Prefix: netip.MustParsePrefix(p), Proto: proto, Port: port, AnySide: any}
	}
	want := Config{
		Site: Site{"alder", "/tmp/a", "/tmp/a/s"},
		Dataplane: Dataplane{PlaneSoft, "lan0", RoleHost, []Attach{{"wan0", RoleOutside}}, FailClosed, time.Minute, dataplane.Enforce,
			[]netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00::/64")}, "", 2048,
			[]dataplane.Never{never("192.0.2.1/32", flow.TCP, 443, false), never("198.51.100.0/24", 0, 0, false), never("2001:db8::1/128", flow.UDP, 53, true)}, true},
		Learner: Learner{false, 60, 10 * time.Minute, 36 * time.Hour, 5 * time.Second, 30 * time.Second, 2 * time.Hour, 2, 3, time.Minute, 2 * time.Minute, 0.2, 50, "off", "/run/i.sock", 7},
		Policy:  Policy{5 * time.Second, time.Hour, 3, 0.5, false, []dataplane.Never{never("10.1.0.9/32", flow.TCP, 443, false)}},
		Flood: dataplane.Flood{Source: 11, SourceNet: 12, Service: 13, Destination: 14, Breaker: 15, BreakerDrops: true,
			Protected: []dataplane.Guarded{{Prefix: netip.MustParsePrefix("10.1.0.8/32"), Port: 443}, {Prefix: netip.MustParsePrefix("10.1.0.8/32"), Port: 80},
				{Prefix: netip.MustParsePrefix("fd00::/64")}},
			Dark: []netip.Prefix{netip.MustParsePrefix("10.1.1.0/24")}},
		Mesh: Mesh{"grove", []string{"/ip6/::/tcp/0"}, 20 * time.Second, 500 * time.Millisecond, []Peer{
			{"birch", "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo", []string{"/dns4/gw.example.org/tcp/4400"}},
			{"cedar", "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xp", nil}}},
		Federation: Federation{true, true, true, "/etc/hedgerow/passphrase"},
		Privacy:    Privacy{PrivacyHost, 3, 1e-7, 0.5, 6},
		Feeds: Feeds{[]string{"/usr/share/warninglists"}, []string{"vpn-ipv4"}, 5000, []Feed{
			{"ipsum", "/var/lib/ipsum.txt", "", "plain", "1", 30 * time.Minute, 2 * time.Hour, 3, "lists", 1 << 20, ""},
			{Name: "drop", URL: "https://lists.example.org/drop.txt", Format: "auto", Every: time.Hour, Expires: 5 * time.Hour, MaxSize: 64 << 20},
			{Name: "isac", URL: "https://taxii.example.org/api/collections/7", Format: "taxii", Every: time.Hour, Expires: 5 * time.Hour, MaxSize: 64 << 20, AuthFile: "/etc/hedgerow/isac"}}},
		Store:     Store{3 << 29, 7 * day, 36 * time.Hour},
		Telemetry: Telemetry{"127.0.0.1:1", slog.LevelDebug, LogJSON, true, "/etc/hedgerow/taxii"},
	}
	if !reflect.DeepEqual(*c, want) {
		t.Fatalf("found\n%+v\nwant\n%+v", *c, want)
	}
	for _, f := range fields() {
		if !strings.Contains(whole1, "\n"+f.key[strings.Index(f.key, ".")+1:]+" = ") {
			t.Errorf("%s is not in this test", f.key)
		}
	}
}

func TestMistakesInAttachments(t *testing.T) {
	for text, want := range map[string]string{
		"[dataplane]\nattach = 3":                            "hedgerow.toml:2: dataplane.attach: expected [[dataplane.attach]] tables",
		"[dataplane]\nattach = [3]":                          "expected a [[dataplane.attach]] table",
		"[[dataplane.attach]]\ninterface = \"a\"":            "hedgerow.toml:1: dataplane.attach #1: role is required",
		"[[dataplane.attach]]\nrole = \"inside\"":            "interface is required",
		"[[dataplane.attach]]\nrole = \"innside\"":           "expected one of inside, host, outside, bridge, sensor",
		"[[dataplane.attach]]\nrolle = \"inside\"":           "rolle: is not a known key: did you mean role?",
		"[[dataplane.attach]]\ninterface = \"a/b\"":          "dataplane.attach #1.interface: found",
		"[dataplane]\nfail = \"shut\"":                       "expected one of open, closed",
		"[dataplane]\ndead_after = \"1s\"":                   "a duration from 5s to 1h",
		"[dataplane]\nrole = \"sensor\"\nmode = \"enforce\"": "hedgerow.toml:3: dataplane.mode: found \"enforce\" with a sensor",
		"[dataplane]\ninterface = \"a\"\n[[dataplane.attach]]\ninterface = \"a\"\nrole = \"outside\"": "hedgerow.toml:4: dataplane.attach #1.interface: found \"a\" again",
		strings.Repeat("[[dataplane.attach]]\ninterface = \"a\"\nrole = \"inside\"\n", 32):            "found 32 interfaces",
	} {
		_, err := parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: found %v, want %q", text, err, want)
		}
	}
}

func TestPlacement(t *testing.T) {
	c, err := parse("[dataplane]\ninterface = \"lan0\"\n[[dataplane.attach]]\ninterface = \"wan0\"\nrole = \"outside\"")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Dataplane.Placement(), []Attach{{"lan0", RoleInside}, {"wan0", RoleOutside}}; !reflect.DeepEqual(got, want) {
		t.Errorf("placement %v, want %v", got, want)
	}
	if d := Default(); len(d.Dataplane.Placement()) != 0 {
		t.Errorf("default placement %v: expected none, it is found", d.Dataplane.Placement())
	}
}

func TestMistakesInFeeds(t *testing.T) {
	for text, want := range map[string]string{
		"feed = 3":                "hedgerow.toml:1: feed: expected [[feed]] tables",
		"feed = [3]":              "expected a [[feed]] table",
		"[[feed]]\npath = \"/a\"": "hedgerow.toml:1: feed #1: name is required",
		"[[feed]]\nname = \"a\"":  "feed #1: path or url is required",
		"[[feed]]\nname = \"a\"\npath = \"/a\"\nurl = \"https://a.example.org/\"":      "hedgerow.toml:4: feed #1.url: found beside path",
		"[[feed]]\nname = \"a\"\npath = \"/a\"\nevry = \"1h\"":                         "hedgerow.toml:4: feed #1.evry: is not a known key: did you mean every?",
		"[[feed]]\nname = \"a\"\nurl = \"http://a.example.org/\"":                      "expected an https URL",
		"[[feed]]\nname = \"a\"\npath = \"/a\"\nformat = \"xml\"":                      "expected one of auto, plain, csv",
		"[[feed]]\nname = \"a\"\npath = \"/a\"\ncolumn = 0":                            "the name of a column, or its number from 1",
		"[[feed]]\nname = \"a\"\npath = \"/a\"\nmax_size = \"2GiB\"":                   "a size from 1KiB to 1GiB",
		"[[feed]]\nname = \"a\"\npath = \"/a\"\nevery = \"5h\"\nexpires = \"5h\"":      "hedgerow.toml:5: feed #1.expires: found \"5h\": expected more than every",
		"[[feed]]\nname = \"a\"\npath = \"/a\"\n[[feed]]\nname = \"a\"\npath = \"/a\"": "hedgerow.toml:5: feed #2.name: found \"a\" again",
		"[[feed]]\nname = \"a\"\npath = \"/a\"\nformat = \"taxii\"":                    "expected stix, or the url of a collection",
		"[[feed]]\nname = \"a\"\npath = \"/a\"\nauth_file = \"/b\"":                    "only taxii takes it",
		"[feeds]\nwarning_lists = [\"a\"]":                                             "expected an absolute path",
		"[feeds]\nignore_warnings = [\"a/b\"]":                                         "the name of a warning list",
		strings.Repeat("[[feed]]\nname = \"a\"\npath = \"/a\"\n", 65):                  "found 65 feeds: expected at most 64",
	} {
		_, err := parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: found %v, want %q", text, err, want)
		}
	}
}

// Each mistake is answered on its line, by its key, with what was found and
// what was expected.
func TestMistakes(t *testing.T) {
	id := strings.Repeat("a", 52)
	tests := []struct{ text, want string }{
		{"[policy]\nsuspnd = \"1s\"", "hedgerow.toml:2: policy.suspnd: is not a known key: did you mean policy.suspend?"},
		{"[polcy]\nsuspend = \"1s\"", "hedgerow.toml:1: polcy: is not a known key: did you mean policy?"},
		{"[site]\nsuspend = \"1s\"", "hedgerow.toml:2: site.suspend: is not a known key: did you mean policy.suspend?"},
		{"mode = \"enforce\"", "hedgerow.toml:1: mode: is not a known key: did you mean dataplane.mode?"},
		{"zzzzzzzz = 1", "hedgerow.toml:1: zzzzzzzz: is not a known key"},
		{"policy.suspend = 30", "hedgerow.toml:1: policy.suspend: found 30: expected a duration from 1s to 1h as a string"},
		{"policy = 3", "hedgerow.toml:1: policy: found 3: expected a table"},
		{"[policy]\nsuspend = \"2h\"", "policy.suspend: found \"2h\": expected a duration from 1s to 1h"},
		{"[policy]\nsuspend = \"soon\"", "policy.suspend: found \"soon\": expected a duration such as"},
		{"[flood]\nsource = -1", "hedgerow.toml:2: flood.source: found -1: expected a whole number from 0 to 10000000"},
		{"[flood]\nprotected = [\"10.0.0.1 udp/53\"]", "expected \"ADDRESS[/BITS] [tcp/PORT]\""},
		{"[flood]\nservice = 0\ndestination = 0\nprotected = [\"10.0.0.1 tcp/80\"]", "hedgerow.toml:4: flood.protected: "},
		{"[flood]\ndark = [\"10.0.0.0/7\"]", "hedgerow.toml:2: flood.dark: 10.0.0.0/7: prefix too wide"},
		{"[flood]\nprotected = [\"10.0.0.1 tcp/80\"]\ndark = [\"10.0.0.0/24\"]", "hedgerow.toml:3: flood.dark: 10.0.0.0/24 overlaps the protected 10.0.0.1/32"},
		{"[policy]\nblock = \"1m\"\nsuspend = \"10m\"", "hedgerow.toml:2: policy.block: found \"1m\": expected at least policy.suspend, 10m"},
		{"[dataplane]\nmode = \"on\"", "hedgerow.toml:2: dataplane.mode: found \"on\": expected \"monitor\" or \"enforce\""},
		{"[dataplane]\nmax_flows = 12", "found 12: expected a whole number from 1024 to 16777216"},
		{"[dataplane]\nmax_flows = 2048.5", "found 2048.5: expected a whole number"},
		{"[dataplane]\nnever_block = [\"0.0.0.0/0\"]", "dataplane.never_block: found \"0.0.0.0/0\": too wide"},
		{"[dataplane]\nnever_block = [\"10.0.0.0/8 sctp\"]", "found \"sctp\": expected tcp, udp, icmp, icmpv6 or a protocol number"},
		{"[dataplane]\nnever_block = [7]", "found 7: expected strings in the list"},
		{"[dataplane]\ninside = [\"10.1.0.1/24\"]", "host bits are set: expected 10.1.0.0/24"},
		{"[dataplane]\ninterface = \"far-too-long-a-name\"", "expected an interface name of at most 15 bytes"},
		{"[dataplane]\nplane = \"none\"\nmode = \"enforce\"", "hedgerow.toml:3: dataplane.mode"},
		{"[site]\nname = \"Alder Site\"", "site.name: found \"Alder Site\": expected 1 to 63 lower-case"},
		{"[site]\nsocket = \"/" + strings.Repeat("x", 120) + "\"", "site.socket: found a path of 121 bytes: expected at most 107"},
		{"[site]\nstate_dir = \"here\"", "expected an absolute path"},
		{"[store]\nmax_bytes = \"2 bananas\"", "store.max_bytes: found \"2 bananas\": expected a size such as"},
		{"[store]\nmax_bytes = \"1MiB\"", "expected a size from 64MiB to 16TiB"},
		{"[telemetry]\nlog = \"loud\"", "expected one of debug, info, warn, error"},
		{"[telemetry]\nmetrics = \"\"\ntaxii = true", "telemetry.taxii: found true without telemetry.metrics"},
		{"[telemetry]\nmetrics = \"9464\"", "expected an address and port such as 127.0.0.1:9464"},
		{"[learner]\nincidents_per_day = \"few\"", "found \"few\": expected a number from 0.001 to 1000"},
		{"[learner]\nincidents_per_day = nan", "found NaN: expected a number"},
		{"[mesh]\nlisten = [\"0.0.0.0:4400\"]", "mesh.listen: found \"0.0.0.0:4400\": expected a multiaddress"},
		{"[mesh]\ngather = \"1h\"", "mesh.gather: found \"1h\": expected less than mesh.round_every, 10m"},
		{"[mesh]\npeer = 3", "mesh.peer: expected [[mesh.peer]] tables"},
		{"[[mesh.peer]]\nname = \"b\"\nid = \"" + id + "\"", "mesh.organisation: is required when"},
		{"[mesh]\norganisation = \"g\"\n[[mesh.peer]]\nname = \"b\"\nid = \"" + id + "\"\n[[mesh.peer]]\nname = \"b\"\nid = \"" + id + "\"",
			"hedgerow.toml:7: mesh.peer #2.name: found \"b\" again"},
		{"[mesh]\norganisation = \"g\"\n[[mesh.peer]]\nname = \"b\"\nkey = 1", "hedgerow.toml:5: mesh.peer #1.key: is not a known key"},
		{"[mesh]\norganisation = \"g\"\n[[mesh.peer]]\nname = \"b\"", "hedgerow.toml:3: mesh.peer #1: id is required"},
		{"[site\nname = 3", "hedgerow.toml:1: not valid TOML"},
		{"[site]\nname = \"a\"\nname = \"b\"", "not valid TOML"},
		{"[site.name]\nx = 1", "site.name: found a table: expected a string"},
		{strings.Repeat("#", maxFile+2), "hedgerow.toml: is larger than 1 MiB"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			_, err := parse(tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("found %v", err)
			}
		})
	}
}

func TestAllMistakesAtOnceInTheOrderOfLines(t *testing.T) {
	_, err := parse("[site]\nname = \"A\"\n[policy]\nsuspend = \"0s\"\nmax_share = 2\nruls = true")
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) != 4 {
		t.Fatalf("found %v", err)
	}
	for i, line := range []int{2, 4, 5, 6} {
		if e.Problems[i].Line != line {
			t.Errorf("problem %d stands on line %d, want %d: %s", i, e.Problems[i].Line, line, e.Problems[i].Text)
		}
	}
	if n := strings.Count(err.Error(), "\n"); n != 3 {
		t.Errorf("4 problems on %d lines", n+1)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

func TestUnreadable(t *testing.T) {
	if _, err := Parse(brokenReader{}, "x.toml"); err == nil || !strings.Contains(err.Error(), "read configuration x.toml: input/output error") {
		t.Fatalf("found %v", err)
	}
}

func TestMinimalIsReadBack(t *testing.T) {
	for _, f := range []Found{
		{}, {Site: "Gate.Example.org"}, {Site: "a\"b\n[policy]", Interface: "lan0", Why: "x\n[site]\nname=1", Inside: []string{"10.1.0.0/24"}},
		{Site: "h", Interface: "eth0", Role: RoleHost},
	} {
		var b strings.Builder
		if err := Minimal(&b, f); err != nil {
			t.Fatal(err)
		}
		c, err := parse(b.String())
		if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
		if c.Dataplane.Interface != f.Interface || c.Dataplane.Mode != dataplane.Monitor || c.Site.Name != siteName(f.Site) {
			t.Errorf("%+v became %+v", f, c)
		}
		if (c.Dataplane.Role == RoleHost) != (f.Role == RoleHost) {
			t.Errorf("role is %s", c.Dataplane.Role)
		}
		// Uncommenting what stands there as a default must change nothing.
		d := Default()
		plain := regexp.MustCompile(`(?m)^# ((suspend|block|max_blocks_per_hour|metrics|state_dir|socket) = )`).ReplaceAllString(b.String(), "$1")
		if c, err = parse(plain); err != nil || !reflect.DeepEqual(c.Policy, d.Policy) || c.Telemetry != d.Telemetry || c.Site.StateDir != d.Site.StateDir {
			t.Errorf("the commented defaults are not the defaults: %v\n%s", err, plain)
		}
	}
}

func TestFormsAreReadBack(t *testing.T) {
	durations := func(s uint32) bool {
		d := time.Duration(s>>1) * time.Second // to 68 years
		got, err := ParseDuration(FormatDuration(d))
		return err == nil && got == d
	}
	sizes := func(n uint32) bool {
		got, err := ParseSize(FormatSize(int64(n) << 10))
		return err == nil && got == int64(n)<<10
	}
	nevers := func(a [4]byte, bits, proto uint8, port uint16, any bool) bool {
		p := netip.PrefixFrom(netip.AddrFrom4(a), 8+int(bits)%25).Masked()
		n := dataplane.Never{Prefix: p, Proto: proto}
		if proto == flow.TCP || proto == flow.UDP {
			n.Port, n.AnySide = port, any && port != 0
		}
		got, err := ParseNever(FormatNever(n))
		return err == nil && got == n
	}
	for name, f := range map[string]any{"duration": durations, "size": sizes, "never": nevers} {
		if err := quick.Check(f, &quick.Config{MaxCount: 2000}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// docs/configuration.md has a heading or table row `key` for every key, and
// none for a key that does not exist.
func TestDocumentationNamesEveryKey(t *testing.T) {
	b, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, f := range fields() {
		known[f.key] = true
	}
	for _, k := range peerKeys() {
		known["mesh.peer."+k] = true
	}
	for _, k := range feedKeys() {
		known["feed."+k] = true
	}
	for _, k := range attachKeys() {
		known["dataplane.attach."+k] = true
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\|").FindAllStringSubmatch(string(b), -1) {
		if !known[m[1]] {
			t.Errorf("docs/configuration.md documents %s, which is no key", m[1])
		}
		if documented[m[1]] {
			t.Errorf("docs/configuration.md documents %s twice", m[1])
		}
		documented[m[1]] = true
	}
	for k := range known {
		if !documented[k] {
			t.Errorf("docs/configuration.md lacks a row for %s", k)
		}
	}
}

// The example and every TOML block of the documentation must be accepted.
func TestExamplesAreAccepted(t *testing.T) {
	b, err := os.ReadFile("../../../examples/one-gateway/hedgerow.toml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(strings.NewReader(string(b)), "examples/one-gateway/hedgerow.toml"); err != nil {
		t.Error(err)
	}
	doc, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	if len(blocks) == 0 {
		t.Fatal("docs/configuration.md has no TOML block")
	}
	for i, m := range blocks {
		if _, err := parse(m[1]); err != nil {
			t.Errorf("block %d: %v", i+1, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("")
	f.Add(whole1)
	f.Add("[[mesh.peer]]\n[mesh.peer.x]\ny=1")
	f.Add("mesh = {peer = [{name = \"b\"}, {id = 3}]}")
	f.Add("[site]\n\"na\\u0000me\" = 1")
	f.Add("a.b.c = 1\n[a.b]\nd=2")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parse(s)
		if err == nil {
			if c.Dataplane.MaxFlows < 1024 || c.Policy.Block < c.Policy.Suspend || c.Store.MaxBytes < 64<<20 {
				t.Errorf("out of range: %+v", c)
			}
			return
		}
		if !strings.HasPrefix(err.Error(), "hedgerow.toml") {
			t.Errorf("an error without the file's name: %v", err)
		}
		var e *Error
		if !errors.As(err, &e) || len(e.Problems) == 0 {
			t.Errorf("not an *Error with problems: %v", err)
		}
	})
}

func ExampleParse() {
	_, err := Parse(strings.NewReader("[dataplane]\nmode = \"enforced\"\nintreface = \"lan0\"\n"), "/etc/hedgerow.toml")
	fmt.Println(err)
	// Output:
	// /etc/hedgerow.toml:2: dataplane.mode: found "enforced": expected "monitor" or "enforce"
	// /etc/hedgerow.toml:3: dataplane.intreface: is not a known key: did you mean dataplane.interface?
}
