package machine

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// saves says whether a view's list has an entry for all of an address.
func saves(v *View, a string) bool {
	p := dataplane.Peer(netip.MustParseAddr(a)).Prefix
	return slices.ContainsFunc(v.NeverBlock("inside"), func(n dataplane.Never) bool { return n.Prefix == p })
}

// The never-block list follows addresses, gateways and resolvers, and a file
// that is being replaced opens no hole.
func TestWatchFollowsTheSystem(t *testing.T) {
	inNamespace(t)
	veth(t, "wan0", "192.0.2.10/24")
	veth(t, "lan0", "10.1.0.1/24")
	root := t.TempDir()
	resolv := filepath.Join(root, "etc", "resolv.conf")
	must(t, os.MkdirAll(filepath.Dir(resolv), 0o755))
	must(t, os.WriteFile(resolv, []byte("nameserver 192.0.2.53\n"), 0o644))
	ns, err := netns.Get()
	must(t, err)
	defer func() { _ = ns.Close() }()

	lan, err := netlink.LinkByName("lan0")
	must(t, err)
	gw1 := &netlink.Route{Gw: net.IPv4(192, 0, 2, 1)}
	gw2 := &netlink.Route{Gw: net.IPv4(192, 0, 2, 2)}
	steps := []struct {
		what string
		do   func() error
		ok   func(v *View) bool
	}{
		{"nothing yet", func() error { return nil }, func(v *View) bool { return !saves(v, "192.0.2.1") && saves(v, "192.0.2.53") }},
		{"a gateway comes", func() error { return netlink.RouteAdd(gw1) }, func(v *View) bool { return saves(v, "192.0.2.1") }},
		{"it changes", func() error { return netlink.RouteReplace(gw2) }, func(v *View) bool { return saves(v, "192.0.2.2") && !saves(v, "192.0.2.1") }},
		{"an address comes", func() error { return netlink.AddrAdd(lan, addr(t, "10.7.0.1/24")) },
			func(v *View) bool {
				return slices.Contains(v.Own(), netip.MustParseAddr("10.7.0.1")) && saves(v, "10.7.0.1")
			}},
		{"it goes", func() error { return netlink.AddrDel(lan, addr(t, "10.7.0.1/24")) },
			func(v *View) bool {
				return !slices.Contains(v.Own(), netip.MustParseAddr("10.7.0.1")) && !saves(v, "10.7.0.1")
			}},
		{"the list of resolvers is missing for a moment", func() error { return os.Remove(resolv) },
			func(v *View) bool { return v.Unread["resolvers"] != "" && saves(v, "192.0.2.53") }},
		{"another resolver", func() error { return os.WriteFile(resolv, []byte("nameserver 192.0.2.54\n"), 0o644) },
			func(v *View) bool { return saves(v, "192.0.2.54") && !saves(v, "192.0.2.53") }},
		{"the way out goes", func() error { return netlink.RouteDel(gw2) }, func(v *View) bool { return !saves(v, "192.0.2.2") }},
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	todo, failed := make(chan func() error), make(chan error, len(steps))
	ended := make(chan struct{})
	go func() { // changes come from another thread of the namespace
		defer close(ended)
		runtime.LockOSThread() // and that thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			failed <- err
			return
		}
		for do := range todo {
			if err := do(); err != nil {
				failed <- err
			}
		}
	}()
	k := 0
	o := WatchOptions{Options: Options{Root: root}, Poll: 50 * time.Millisecond, Settle: 10 * time.Millisecond}
	err = Watch(ctx, o, func(v *View) {
		if k == len(steps) || !steps[k].ok(v) {
			return
		}
		if k++; k == len(steps) {
			cancel()
			return
		}
		todo <- steps[k].do
	})
	close(todo)
	<-ended
	select {
	case e := <-failed:
		t.Fatalf("%s: %v", steps[min(k, len(steps)-1)].what, e)
	default:
	}
	if err != nil || k < len(steps) {
		t.Fatalf("stopped before %q: %v", steps[min(k, len(steps)-1)].what, err)
	}
}

// News alone suffices: nothing is polled here.
func TestWatchIsTold(t *testing.T) {
	inNamespace(t)
	veth(t, "lan0", "10.1.0.1/24")
	lan, err := netlink.LinkByName("lan0")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	seen := false
	o := WatchOptions{Options: Options{Root: t.TempDir()}, Poll: time.Hour, Settle: 20 * time.Millisecond}
	err = Watch(ctx, o, func(v *View) {
		if slices.Contains(v.Own(), netip.MustParseAddr("10.7.0.1")) {
			seen = true
			cancel()
			return
		}
		// EEXIST once it is there: the view was taken before.
		_ = netlink.AddrAdd(lan, addr(t, "10.7.0.1/24"))
	})
	if err != nil || !seen {
		t.Fatalf("the new address was not told of: %v", err)
	}
}

func addr(t *testing.T, s string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(s)
	must(t, err)
	return a
}
