package machine

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func link(name string, addrs ...string) Link {
	return Link{Name: name, Up: true, Ethernet: true, Addrs: prefixes(addrs...)}
}

var lo = Link{Name: "lo", Up: true, Loopback: true, Addrs: prefixes("127.0.0.1/8")}

func via(name, gw string) []Route {
	return []Route{{Interface: name, Gateway: netip.MustParseAddr(gw)}}
}

// A gateway as it should be; the tests bend one thing at a time.
func gateway() *View {
	return &View{
		Links:    []Link{lo, link("wan0", "192.0.2.10/24"), link("lan0", "10.1.0.1/24", "fe80::1/64")},
		Routes:   via("wan0", "192.0.2.1"),
		Forward4: true, Resolvers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, SSHPorts: []uint16{22},
		Memory: 1 << 30, Now: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), Synced: Yes,
		Disk:   Disk{Dir: "/var/lib", Free: 10 << 30, Writable: true, Known: true},
		Unread: map[string]string{},
	}
}

func TestFindInside(t *testing.T) {
	down := link("lan1", "10.2.0.1/24")
	down.Up = false
	wg := link("wg0", "10.9.0.1/24")
	wg.Ethernet = false
	tests := map[string]struct {
		links  []Link
		routes []Route
		iface  string
		role   string
		err    string
	}{
		"gateway":         {gateway().Links, gateway().Routes, "lan0", "inside", ""},
		"only one":        {[]Link{lo, link("eth0", "10.0.0.5/24")}, via("eth0", "10.0.0.1"), "eth0", "host", ""},
		"only one public": {[]Link{lo, link("eth0", "192.0.2.5/24")}, via("eth0", "192.0.2.1"), "eth0", "host", ""},
		"private wan":     {[]Link{link("wan0", "10.0.0.5/24"), link("lan0", "192.168.1.1/24")}, via("wan0", "10.0.0.1"), "lan0", "inside", ""},
		"containers":      {append(gateway().Links, link("docker0", "172.17.0.1/16"), down, wg), gateway().Routes, "lan0", "inside", ""},
		"two insides":     {append(gateway().Links, link("lan1", "10.2.0.1/24")), gateway().Routes, "", "", "lan0, lan1 all look like it"},
		"none private":    {[]Link{link("a", "192.0.2.5/24"), link("b", "198.51.100.5/24")}, via("a", "192.0.2.1"), "", "", "none of a, b"},
		"nothing up":      {[]Link{lo, down}, nil, "", "", "no Ethernet interface is up"},
		"unique local v6": {[]Link{link("wan0", "2001:db8::5/64"), link("lan0", "fd00::1/64", "fe80::1/64")}, via("wan0", "2001:db8::1"), "lan0", "inside", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in, err := (&View{Links: tt.links, Routes: tt.routes}).FindInside()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "dataplane.interface") {
					t.Fatalf("found %v, want %q and advice", err, tt.err)
				}
				return
			}
			if err != nil || in.Interface != tt.iface || in.Role != tt.role || in.Why == "" {
				t.Fatalf("found %+v, %v", in, err)
			}
		})
	}
}

func TestInsidePrefixesLeaveOutLinkLocal(t *testing.T) {
	in, err := gateway().FindInside()
	if err != nil || !slices.Equal(in.Prefixes, prefixes("10.1.0.0/24")) {
		t.Fatalf("found %v, %v", in.Prefixes, err)
	}
}

func TestNeverBlock(t *testing.T) {
	v := gateway()
	v.Management = []netip.Addr{netip.MustParseAddr("198.51.100.7")}
	never := func(a string, proto uint8, port uint16, any bool) dataplane.Never {
		x := netip.MustParseAddr(a)
		return dataplane.Never{Prefix: netip.PrefixFrom(x, x.BitLen()), Proto: proto, Port: port, AnySide: any}
	}
	got := v.NeverBlock("inside")
	for _, want := range []dataplane.Never{
		never("192.0.2.1", 0, 0, false), never("192.0.2.53", flow.UDP, 53, false),
		never("198.51.100.7", flow.TCP, 22, true), never("10.1.0.1", flow.UDP, 53, false), never("10.1.0.1", flow.TCP, 22, false),
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%+v is missing from %+v", want, got)
		}
	}
	own := v.Own()
	for _, n := range v.NeverBlock("host") {
		if slices.Contains(own, n.Prefix.Addr()) {
			t.Errorf("on a host's own interface %+v would save everything", n)
		}
	}
}

// A connection to the SSH port is not a session: who only guesses passwords
// must not become unblockable.
func TestGuesserEarnsNoPlace(t *testing.T) {
	admin, guesser := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.66")
	row := func(a netip.Addr, state uint8) conn {
		return conn{Local: netip.MustParseAddrPort("192.0.2.10:22"), Remote: netip.AddrPortFrom(a, 50000), State: state}
	}
	proven, unproven := sessions([]conn{row(admin, 1), row(guesser, 1), row(guesser, 1), row(netip.MustParseAddr("203.0.113.67"), 6)}, []uint16{22}, []netip.Addr{admin})
	if !slices.Equal(proven, []netip.Addr{admin}) || !slices.Equal(unproven, []netip.Addr{guesser}) {
		t.Fatalf("proven %v, unproven %v", proven, unproven)
	}
}

func TestInspect(t *testing.T) {
	tests := map[string]struct {
		bend   func(*View)
		want   Want
		name   string
		state  State
		advice string
	}{
		"good":                {func(*View) {}, Want{}, "", OK, ""},
		"named and missing":   {func(*View) {}, Want{Interface: "lan7"}, "interface", Fail, "expected one of wan0, lan0"},
		"named and down":      {func(v *View) { v.Links[2].Up = false }, Want{Interface: "lan0", Role: "inside"}, "interface", Fail, "ip link set lan0 up"},
		"named the outside":   {func(*View) {}, Want{Interface: "wan0", Role: "inside"}, "interface", Warn, "dataplane.role"},
		"no route":            {func(v *View) { v.Routes = nil }, Want{Interface: "lan0", Role: "inside"}, "default route", Warn, "add it"},
		"not forwarding":      {func(v *View) { v.Forward4 = false }, Want{}, "forwarding", Warn, "ip_forward=1"},
		"nft unreadable":      {func(v *View) { v.Unread["nftables"] = "operation not permitted" }, Want{}, "translation", Warn, "root"},
		"crowdsec beside":     {func(v *View) { v.Tables = []string{"ip crowdsec"} }, Want{}, "other blockers", Warn, "unblock"},
		"fail2ban process":    {func(v *View) { v.Processes = []string{"fail2ban-server"} }, Want{}, "other blockers", Warn, "unblock"},
		"no resolvers":        {func(v *View) { v.Resolvers = nil }, Want{}, "resolvers", Warn, "never_block"},
		"local forwarder":     {func(v *View) { v.Resolvers = []netip.Addr{netip.MustParseAddr("127.0.0.53")} }, Want{}, "resolvers", Warn, "never_block"},
		"unproven session":    {func(v *View) { v.Unproven = []netip.Addr{netip.MustParseAddr("203.0.113.66")} }, Want{}, "management", Warn, "203.0.113.66 tcp/22 any-side"},
		"clock in 1970":       {func(v *View) { v.Now = time.Unix(0, 0) }, Want{}, "clock", Fail, "set the clock"},
		"clock unruled":       {func(v *View) { v.Synced = No }, Want{}, "clock", Warn, "chrony"},
		"disk full":           {func(v *View) { v.Disk.Free = 1 << 20 }, Want{}, "disk", Fail, "128 MiB"},
		"disk small":          {func(*View) {}, Want{MaxBytes: 1 << 40}, "disk", Warn, "max_bytes"},
		"disk not ours":       {func(v *View) { v.Disk.Writable = false }, Want{}, "disk", Fail, "state_dir"},
		"disk unknown":        {func(v *View) { v.Disk = Disk{} }, Want{}, "disk", Warn, "state_dir"},
		"memory gone":         {func(v *View) { v.Memory = 50 << 20 }, Want{}, "memory", Fail, "max_flows"},
		"memory tight":        {func(v *View) { v.Memory = 200 << 20 }, Want{}, "memory", Warn, "max_flows"},
		"memory unreadable":   {func(v *View) { v.Memory = 0 }, Want{}, "memory", Warn, "256 MiB"},
		"routes unreadable":   {func(v *View) { v.Unread["routes"] = "no" }, Want{}, "default route", Warn, "root"},
		"ambiguous insides":   {func(v *View) { v.Links = append(v.Links, link("lan1", "10.2.0.1/24")) }, Want{}, "interface", Fail, "dataplane.interface"},
		"translation is fine": {func(v *View) { v.NAT = []string{"masquerade in table ip nat"} }, Want{}, "", OK, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := gateway()
			tt.bend(v)
			hit := tt.name == ""
			for _, f := range v.Inspect(tt.want) {
				if (f.State == OK) != (f.Advice == "") {
					t.Errorf("%+v: advice and state disagree", f)
				}
				if f.Found == "" {
					t.Errorf("%+v: says nothing", f)
				}
				if tt.name == "" && f.State != OK {
					t.Errorf("%+v on a good machine", f)
				}
				if f.Name == tt.name {
					hit = true
					if f.State != tt.state || !strings.Contains(f.Advice, tt.advice) {
						t.Errorf("found %+v, want %s with %q", f, tt.state, tt.advice)
					}
				}
			}
			if !hit {
				t.Errorf("no finding named %s", tt.name)
			}
		})
	}
}

// endpoint is how /proc/net/tcp prints an address on a little-endian machine.
func endpoint(ap netip.AddrPort) string {
	b := ap.Addr().AsSlice()
	s := ""
	for w := 0; w < len(b); w += 4 {
		s += fmt.Sprintf("%08X", binary.LittleEndian.Uint32(b[w:]))
	}
	return fmt.Sprintf("%s:%04X", s, ap.Port())
}

func TestParseTCP(t *testing.T) {
	text := "  sl  local_address rem_address   st\n"
	want := []conn{
		{netip.MustParseAddrPort("192.0.2.10:22"), netip.MustParseAddrPort("198.51.100.7:50000"), 1},
		{netip.MustParseAddrPort("[2001:db8::1]:22"), netip.MustParseAddrPort("[2001:db8::2]:50001"), 10},
	}
	for i, c := range want {
		text += fmt.Sprintf("  %d: %s %s %02X 0 0\n", i, endpoint(c.Local), endpoint(c.Remote), c.State)
	}
	text += "garbage\n 2: XX:YY 1 2\n"
	if got := parseTCP(strings.NewReader(text)); !slices.Equal(got, want) {
		t.Fatalf("found %v", got)
	}
	mapped, err := parseEndpoint("0000000000000000FFFF0000070200C0:0016")
	if err != nil || mapped.Addr().Is4In6() {
		t.Fatalf("found %v, %v", mapped, err)
	}
}

func TestLookReadsFixtures(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("/proc/sys/net/ipv4/ip_forward", "1\n")
	write("/proc/sys/net/ipv6/conf/all/forwarding", "0\n")
	write("/proc/meminfo", "MemTotal: 9 kB\nMemAvailable:  524288 kB\n")
	write("/etc/resolv.conf", "# x\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver nonsense\n")
	write("/etc/ssh/sshd_config", "#Port 1\nPort 2222\n")
	row := func(far string) string {
		return " 0: " + endpoint(netip.MustParseAddrPort("192.0.2.10:2222")) + " " + endpoint(netip.MustParseAddrPort(far)) + " 01\n"
	}
	write("/proc/net/tcp", "h\n"+row("203.0.113.66:40000")+row("198.51.100.8:5000"))
	write("/run/systemd/sessions/4", "UID=0\nREMOTE=1\nREMOTE_HOST=198.51.100.7\nSERVICE=sshd\nSTATE=active\n")
	write("/run/systemd/sessions/5", "REMOTE=0\nSERVICE=login\n")
	write("/proc/40/status", "Name:\tsudo\nPPid:\t39\n")
	write("/proc/40/environ", "HOME=/root\x00")
	write("/proc/39/environ", "A=b\x00SSH_CONNECTION=198.51.100.8 5000 192.0.2.10 2222\x00")
	write("/proc/77/comm", "crowdsec\n")
	v, err := Look(Options{Root: root, PID: 40, StateDir: filepath.Join(root, "not/yet/there")})
	if err != nil {
		t.Fatal(err)
	}
	if !v.Forward4 || v.Forward6 || v.Memory != 512<<20 {
		t.Errorf("forwarding %v %v, memory %d", v.Forward4, v.Forward6, v.Memory)
	}
	if want := []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("fe80::1")}; !slices.Equal(v.Resolvers, want) {
		t.Errorf("resolvers %v", v.Resolvers)
	}
	if want := []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("198.51.100.8")}; !slices.Equal(v.Management, want) {
		t.Errorf("management %v", v.Management)
	}
	if want := []netip.Addr{netip.MustParseAddr("203.0.113.66")}; !slices.Equal(v.Unproven, want) || !slices.Equal(v.SSHPorts, []uint16{2222}) {
		t.Errorf("unproven %v at %v", v.Unproven, v.SSHPorts)
	}
	write("/proc/net/tcp", "h\n"+row("203.0.113.66:40000"))
	gone, err := Look(Options{Root: root, PID: 40, StateDir: root})
	if err != nil || !slices.Equal(gone.Management, []netip.Addr{netip.MustParseAddr("198.51.100.7")}) {
		t.Errorf("management after the own session has ended: %v, %v", gone.Management, err)
	}
	if !slices.Equal(v.Processes, []string{"crowdsec"}) || v.Disk.Dir != root || !v.Disk.Writable {
		t.Errorf("processes %v, disk %+v", v.Processes, v.Disk)
	}
	if len(v.Links) == 0 {
		t.Error("no interface was found, not even the loopback")
	}
}

func TestLookWithoutFixturesSaysWhatItMissed(t *testing.T) {
	v, err := Look(Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"memory", "resolvers", "disk"} {
		if v.Unread[what] == "" {
			t.Errorf("%s was not read and nothing says so", what)
		}
	}
}

func FuzzProc(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nPort 22\nMemAvailable: 5 kB\n 0: 0100007F:0016 0100007F:C350 01\nREMOTE_HOST=192.0.2.1")
	f.Add("192.0.2.1 1 192.0.2.2 22")
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseTCP(strings.NewReader(s)) {
			if !c.Remote.IsValid() || !c.Local.IsValid() {
				t.Errorf("invalid row %v", c)
			}
		}
		for _, a := range parseResolvers(strings.NewReader(s)) {
			if !a.IsValid() || a.Zone() != "" {
				t.Errorf("resolver %v", a)
			}
		}
		for _, p := range parseSSHPorts(strings.NewReader(s)) {
			if p == 0 {
				t.Error("port 0")
			}
		}
		if a, port, ok := parseSSHConnection(s); ok && (!a.IsValid() || port == 0) {
			t.Errorf("session %v %d", a, port)
		}
		if a, ok := parseSession(strings.NewReader(s)); ok && !a.IsValid() {
			t.Errorf("login %v", a)
		}
		_ = parseAvailable(strings.NewReader(s))
	})
}
