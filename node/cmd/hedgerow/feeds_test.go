package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
)

// reachesFrom says whether the client can connect to the host from one of its
// addresses.
func (g *gateway) reachesFrom(from string, patience time.Duration) bool {
	ok := false
	g.in(g.client, func() {
		d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		if c, err := d.Dial("tcp4", "10.1.0.2:80"); err == nil {
			ok = c.Close() == nil
		}
	})
	return ok
}

// A feed in the kernel: it blocks whom it lists and nobody else, goes on without
// the daemon and without its source, says why, and yields to the operator.
func TestFeedInTheKernel(t *testing.T) {
	const bad, good = "45.9.148.2", "45.9.148.3"
	g := newGateway(t)
	more := func(name string, addrs ...string) {
		l, err := netlink.LinkByName(name)
		must(t, err)
		for _, s := range addrs {
			a, err := netlink.ParseAddr(s)
			must(t, err)
			must(t, netlink.AddrAdd(l, a))
		}
	}
	g.in(g.self, func() { more("wan0", "45.9.148.1/24") })
	g.in(g.client, func() { more("eth0", bad+"/24", good+"/24") })

	list := filepath.Join(g.dir, "bad.txt")
	must(t, os.WriteFile(list, []byte("# a list\n"+bad+"\n45.9.148.1\n10.1.0.2\n"), 0o600))
	conf, err := os.ReadFile(g.conf())
	must(t, err)
	must(t, os.WriteFile(g.conf(), fmt.Appendf(conf, "[[feed]]\nname = \"bad\"\npath = %q\n", list), 0o600))

	d := g.up()
	cl := api.NewClient(g.socket)
	t.Cleanup(cl.Close)
	f, err := cl.ReloadFeeds(t.Context(), "")
	must(t, err)
	if f.Intended != 1 || f.Enforced != 1 || f.List[0].Listed != 3 || f.List[0].Enforced != 1 {
		t.Fatalf("the machine's own address and network are not guarded: %+v", f)
	}
	if g.reachesFrom(bad, time.Second) {
		t.Error("a listed address gets through")
	}
	if !g.reachesFrom(good, 10*time.Second) {
		t.Error("its neighbour does not")
	}
	f, err = cl.Feeds(t.Context())
	must(t, err)
	if f.List[0].Hits == 0 {
		t.Error("no packet was counted for the feed")
	}

	must(t, d.cmd.Process.Kill())
	<-d.done
	if g.reachesFrom(bad, time.Second) {
		t.Error("a listed address gets through while there is no daemon")
	}
	must(t, os.Remove(list))
	g.up()
	f, err = cl.ReloadFeeds(t.Context(), "")
	must(t, err)
	if f.Enforced != 1 || !f.List[0].Kept || f.List[0].Error == "" {
		t.Errorf("after a restart without the source: %+v", f)
	}
	if g.reachesFrom(bad, time.Second) {
		t.Error("a listed address gets through after the restart")
	}
	x, err := cl.Explain(t.Context(), bad)
	must(t, err)
	if !strings.Contains(x.Sentence, "on the blocklist bad ("+bad+", line 2)") {
		t.Errorf("explanation: %s", x.Sentence)
	}
	_, err = cl.Allow(t.Context(), bad, false)
	must(t, err)
	if !g.reachesFrom(bad, 10*time.Second) {
		t.Error("an allowed address does not get through")
	}
}
