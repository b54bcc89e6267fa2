package machine

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// inNamespace runs the rest of the test in a fresh network namespace. Without
// the privilege it skips, unless the run was told that it has it.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("HEDGEROW_KERNEL_TESTS") == "1" {
			t.Fatal("HEDGEROW_KERNEL_TESTS is set, but this is not root")
		}
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread() // never unlocked when the way back fails: the thread then ends with its goroutine
	back, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Set(back); err == nil {
			runtime.UnlockOSThread()
		}
		_ = ns.Close()
		_ = back.Close()
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func veth(t *testing.T, name, addr string) {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-far"}))
	for _, n := range []string{name, name + "-far"} {
		l, err := netlink.LinkByName(n)
		must(t, err)
		must(t, netlink.LinkSetUp(l))
	}
	l, err := netlink.LinkByName(name)
	must(t, err)
	a, err := netlink.ParseAddr(addr)
	must(t, err)
	must(t, netlink.AddrAdd(l, a))
}

// The real kernel: a gateway with masquerading, made for this test.
func TestLookAtRealGateway(t *testing.T) {
	inNamespace(t)
	veth(t, "wan0", "192.0.2.10/24")
	veth(t, "lan0", "10.1.0.1/24")
	must(t, netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(192, 0, 2, 1)}))
	c, err := nftables.New()
	must(t, err)
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "gw"})
	chain := c.AddChain(&nftables.Chain{Name: "post", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Masq{}}})
	must(t, c.Flush())

	v, err := Look(Options{StateDir: t.TempDir()})
	must(t, err)
	in, err := v.FindInside()
	must(t, err)
	if in.Interface != "lan0" || in.Role != "inside" || !slices.Equal(in.Prefixes, prefixes("10.1.0.0/24")) {
		t.Errorf("inside is %+v", in)
	}
	if want := []Route{{"wan0", netip.MustParseAddr("192.0.2.1")}}; !slices.Equal(v.Routes, want) {
		t.Errorf("routes %v", v.Routes)
	}
	if len(v.NAT) != 1 || !strings.Contains(v.NAT[0], "masquerade in table ip gw") {
		t.Errorf("translation %v, unread %v", v.NAT, v.Unread)
	}
	if !slices.Contains(v.Own(), netip.MustParseAddr("10.1.0.1")) {
		t.Errorf("own addresses %v", v.Own())
	}
	for _, f := range v.Inspect(Want{}) {
		if f.Name == "interface" && f.State != OK {
			t.Errorf("%+v", f)
		}
	}
}
