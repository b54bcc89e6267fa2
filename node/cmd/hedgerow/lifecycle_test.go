package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/node/internal/api"
)

// asMain makes the test binary the product's, for tests that need a process.
const asMain = "HEDGEROW_TEST_AS_MAIN"

// gateway is a machine of its own: a namespace with lan0, behind which a host
// answers, and wan0, behind which a client asks, and a private BPF file system.
type gateway struct {
	t                  *testing.T
	self, host, client netns.NsHandle
	dir, socket        string
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("HEDGEROW_KERNEL_TESTS") == "1" {
		t.Fatal("HEDGEROW_KERNEL_TESTS is set, but this is not root")
	}
	t.Skip("needs root for network namespaces and programs in the kernel")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	needRoot(t)
	g := &gateway{t: t, self: space(t), host: space(t), client: space(t), dir: t.TempDir()}
	g.socket = filepath.Join(g.dir, "s")
	bpf := filepath.Join(g.dir, "bpf")
	must(t, os.Mkdir(bpf, 0o700))
	must(t, unix.Mount("bpf", bpf, "bpf", 0, ""))
	t.Cleanup(func() {
		if err := unix.Unmount(bpf, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	g.join("lan0", "10.1.0.1/24", g.host, "10.1.0.2/24", "10.1.0.1")
	g.join("wan0", "192.0.2.1/24", g.client, "192.0.2.2/24", "192.0.2.1")
	g.in(g.self, func() {
		must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600))
	})
	conf := fmt.Sprintf("[site]\nname = \"gw\"\nstate_dir = %q\nsocket = %q\n[dataplane]\npin_dir = %q\nmode = \"enforce\"\n"+
		"[[dataplane.attach]]\ninterface = \"lan0\"\nrole = \"inside\"\n[[dataplane.attach]]\ninterface = \"wan0\"\nrole = \"outside\"\n"+
		"[learner]\nenabled = false\n[telemetry]\nmetrics = \"\"\n", filepath.Join(g.dir, "state"), g.socket, filepath.Join(bpf, "hedgerow"))
	must(t, os.WriteFile(g.conf(), []byte(conf), 0o600))
	g.serve()
	return g
}

func (g *gateway) conf() string { return filepath.Join(g.dir, "c.toml") }

func space(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	ns, err := netns.New()
	must(t, err)
	t.Cleanup(func() { ns.Close() })
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	must(t, netns.Set(home))
	return ns
}

func (g *gateway) in(ns netns.NsHandle, f func()) {
	g.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(g.t, err)
	defer home.Close()
	must(g.t, netns.Set(ns))
	defer func() {
		if err := netns.Set(home); err != nil {
			panic(err) // the thread is in the wrong place: nothing after this could be trusted
		}
	}()
	f()
}

// join plugs the gateway's interface into another namespace's eth0.
func (g *gateway) join(name, addr string, far netns.NsHandle, farAddr, router string) {
	g.t.Helper()
	up := func(name, addr string) {
		l, err := netlink.LinkByName(name)
		must(g.t, err)
		a, err := netlink.ParseAddr(addr)
		must(g.t, err)
		must(g.t, netlink.AddrAdd(l, a))
		must(g.t, netlink.LinkSetUp(l))
	}
	g.in(g.self, func() {
		must(g.t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(far)}))
		up(name, addr)
	})
	g.in(far, func() {
		up("eth0", farAddr)
		must(g.t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(router)}))
	})
}

// serve answers connections at the host.
func (g *gateway) serve() {
	var l net.Listener
	g.in(g.host, func() {
		var err error
		l, err = net.Listen("tcp4", "10.1.0.2:80")
		must(g.t, err)
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	})
	g.t.Cleanup(func() { l.Close(); wg.Wait() })
}

// reaches says whether the client can connect to the host.
func (g *gateway) reaches(patience time.Duration) bool {
	var err error
	g.in(g.client, func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp4", "10.1.0.2:80", patience); err == nil {
			_ = c.Close()
		}
	})
	return err == nil
}

// daemon is a running `hedgerow up`.
type daemon struct {
	cmd  *exec.Cmd
	out  *bytes.Buffer // complete once it has ended
	done chan error
}

// command runs the product in the gateway's namespace.
func (g *gateway) command(env []string, args ...string) *daemon {
	g.t.Helper()
	d := &daemon{cmd: exec.Command(os.Args[0], args...), out: new(bytes.Buffer), done: make(chan error, 1)}
	d.cmd.Env = append(append(os.Environ(), asMain+"=1"), env...)
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	g.in(g.self, func() { must(g.t, d.cmd.Start()) })
	go func() { d.done <- d.cmd.Wait() }()
	return d
}

func (d *daemon) end(t *testing.T) (string, error) {
	t.Helper()
	select {
	case err := <-d.done:
		return d.out.String(), err
	case <-time.After(30 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.done
		t.Fatalf("has not ended after 30s:\n%s", d.out)
		return "", nil
	}
}

// up starts a daemon and waits until it answers.
func (g *gateway) up(env ...string) *daemon {
	g.t.Helper()
	d := g.command(env, "up", "--config", g.conf())
	g.t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill()
		}
	})
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := g.status(); err == nil {
			return d
		}
		select {
		case err := <-d.done:
			g.t.Fatalf("up: %v\n%s", err, d.out)
		default:
		}
		if time.Now().After(deadline) {
			g.t.Fatal("up does not answer after 30s")
		}
	}
	return d
}

func (g *gateway) status() (api.Status, error) {
	cl := api.NewClient(g.socket)
	defer cl.Close()
	return cl.Status(context.Background())
}

// do runs a command that must succeed.
func (g *gateway) do(args ...string) string {
	g.t.Helper()
	out, err := g.command(nil, args...).end(g.t)
	if err != nil {
		g.t.Fatalf("hedgerow %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// From the first start to the end, over a crash: what is blocked stays blocked
// until somebody says otherwise.
func TestLifeCycleOfAGateway(t *testing.T) {
	g := newGateway(t)
	if out := g.do("check", "--config", g.conf()); !strings.Contains(out, "wan0: tcx") || !strings.Contains(out, "lan0: tcx") {
		t.Errorf("check names not each interface:\n%s", out)
	} else if strings.Count(out, "bpffs") != 1 || !strings.Contains(out, filepath.Join(g.dir, "bpf", "hedgerow")+" lies in one") {
		t.Errorf("check says not once where it would pin:\n%s", out)
	}
	blocked := func(when string) {
		t.Helper()
		if g.reaches(300 * time.Millisecond) {
			t.Errorf("%s: a blocked client reached the host", when)
		}
	}
	first := g.up()
	if !g.reaches(5 * time.Second) {
		t.Fatal("the client does not reach the host through the gateway")
	}
	s, err := g.status()
	must(t, err)
	var names []string
	for _, a := range s.Plane.Attached {
		names = append(names, a.Interface+" "+a.Role)
	}
	if got := strings.Join(names, ", "); got != "lan0 inside, wan0 outside" || !strings.Contains(s.Plane.Away, "fails open") {
		t.Errorf("status: attached to %s, away: %q", got, s.Plane.Away)
	}
	g.do("block", "192.0.2.2", "--socket", g.socket)
	blocked("with the daemon")

	out, err := g.command(nil, "up", "--config", g.conf(), "--socket", filepath.Join(g.dir, "s2"), "--state", filepath.Join(g.dir, "state2")).end(t)
	if want := fmt.Sprintf("process %d works on it", first.cmd.Process.Pid); err == nil || !strings.Contains(out, want) {
		t.Errorf("a second daemon: %v, %q: expected a refusal with %q", err, out, want)
	}
	if out, err := g.command(nil, "detach", "--config", g.conf()).end(t); err == nil || !strings.Contains(out, "hedgerow stop") {
		t.Errorf("detach beside a daemon: %v, %q: expected a refusal", err, out)
	}
	must(t, first.cmd.Process.Signal(syscall.SIGKILL))
	if _, err := first.end(t); err == nil {
		t.Error("kill -9 ended the daemon without a word")
	}
	blocked("after kill -9")
	second := g.up()
	blocked("after the takeover")
	if out := g.do("stop", "--socket", g.socket); !strings.Contains(out, "stays blocked") {
		t.Errorf("stop says %q", out)
	}
	if out, err := second.end(t); err != nil {
		t.Errorf("the stopped daemon: %v\n%s", err, out)
	}
	blocked("after stop")
	third := g.up()
	if out := g.do("stop", "--remove", "--socket", g.socket); !strings.Contains(out, "nothing is enforced") {
		t.Errorf("stop --remove says %q", out)
	}
	if out, err := third.end(t); err != nil {
		t.Errorf("the removed daemon: %v\n%s", err, out)
	}
	if !g.reaches(5 * time.Second) {
		t.Error("after stop --remove the client does not reach the host")
	}
	if left, err := os.ReadDir(filepath.Join(g.dir, "bpf", "hedgerow")); err == nil && len(left) > 0 {
		t.Errorf("pins left after stop --remove: %v", left)
	}
}

// A feed that is added to the file is enforced after a word or a signal, without
// a restart, and one that is taken out again is not.
func TestReloadOfAGateway(t *testing.T) {
	g := newGateway(t)
	b, err := os.ReadFile(g.conf())
	must(t, err)
	plain, list := string(b), filepath.Join(g.dir, "list")
	// A client outside of what no feed may block.
	g.in(g.client, func() {
		l, err := netlink.LinkByName("eth0")
		must(t, err)
		a, err := netlink.ParseAddr("45.9.148.7/32")
		must(t, err)
		must(t, netlink.AddrAdd(l, a))
		must(t, netlink.RouteReplace(&netlink.Route{Gw: net.ParseIP("192.0.2.1"), Src: net.ParseIP("45.9.148.7")}))
	})
	g.in(g.self, func() {
		_, dst, err := net.ParseCIDR("45.9.148.7/32")
		must(t, err)
		must(t, netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP("192.0.2.2")}))
	})
	write(t, list, "45.9.148.7\n")
	fed := plain + fmt.Sprintf("[[feed]]\nname = \"bad\"\npath = %q\n", list)
	d := g.up()
	if !g.reaches(5 * time.Second) {
		t.Fatal("the client does not reach the host without a feed")
	}
	write(t, g.conf(), fed+"[dataplan]\nmax_flows = 2048\n")
	if out, err := g.command(nil, "feeds", "reload", "--socket", g.socket).end(t); err == nil || !strings.Contains(out, "dataplan: is not a known key: did you mean dataplane?") {
		t.Errorf("a file with a mistake: %v, %q", err, out)
	}
	if out := g.do("status", "--socket", g.socket); !strings.Contains(out, "the configuration was not taken over") || !strings.Contains(out, "dataplan: is not") {
		t.Errorf("status says nothing of it:\n%s", out)
	}
	if !g.reaches(5 * time.Second) {
		t.Error("a file with a mistake changed something")
	}
	write(t, g.conf(), strings.Replace(fed, "[dataplane]", "[dataplane]\nmax_flows = 2048", 1))
	if out := g.do("feeds", "reload", "--socket", g.socket); !strings.Contains(out, "now in force: feed; only a restart takes over dataplane.max_flows") {
		t.Errorf("reload says\n%s", out)
	}
	if g.reaches(300 * time.Millisecond) {
		t.Error("the client reaches the host although the new feed lists it")
	}
	write(t, g.conf(), plain)
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	deadline := time.Now().Add(20 * time.Second)
	for !g.reaches(300 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the client does not reach the host 20s after SIGHUP took the feed away")
		}
	}
	g.do("stop", "--remove", "--socket", g.socket)
	if out, err := d.end(t); err != nil || !strings.Contains(out, "configuration was read") {
		t.Errorf("the daemon: %v\n%s", err, out)
	}
}

// A sensor watches, and says why it does no more.
func TestSensorRefusesToEnforce(t *testing.T) {
	g := newGateway(t)
	b, err := os.ReadFile(g.conf())
	must(t, err)
	conf := strings.ReplaceAll(strings.ReplaceAll(string(b), `"enforce"`, `"monitor"`), `role = "inside"`, `role = "sensor"`)
	must(t, os.WriteFile(g.conf(), []byte(conf), 0o600))
	d := g.up()
	if out, err := g.command(nil, "mode", "enforce", "--socket", g.socket).end(t); err == nil || !strings.Contains(out, "copies of packets") {
		t.Errorf("mode enforce: %v, %q: expected a refusal", err, out)
	}
	if s, err := g.status(); err != nil || s.Mode != "monitor" {
		t.Errorf("mode %q, %v: expected monitor", s.Mode, err)
	}
	must(t, d.cmd.Process.Signal(syscall.SIGTERM))
	if out, err := d.end(t); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, out)
	}
}

// A user without privileges is told what is missing, and nothing is touched.
func TestUpWithoutPrivileges(t *testing.T) {
	g := newGateway(t)
	must(t, os.Chmod(g.conf(), 0o644))
	for dir := g.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	cmd := exec.Command("/proc/self/exe", "up", "--config", g.conf())
	cmd.Env = append(os.Environ(), asMain+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var out []byte
	var err error
	g.in(g.self, func() { out, err = cmd.CombinedOutput() })
	var exit *exec.ExitError
	if errors.Is(err, os.ErrPermission) {
		t.Skip("the test binary lies where another user cannot run it")
	}
	if !errors.As(err, &exit) || !strings.Contains(string(out), "user 65534 lacks CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON: run as root") {
		t.Errorf("up: %v, %q: expected who lacks what", err, out)
	}
	if bytes.Count(bytes.TrimSpace(out), []byte("\n")) != 0 {
		t.Errorf("up: %q: expected one line", out)
	}
	if _, err := os.Stat(filepath.Join(g.dir, "state")); err == nil {
		t.Error("a state folder was made")
	}
}

// The service manager hears that the site is up, that it lives, and that it ends.
func TestServiceManagerIsTold(t *testing.T) {
	g := newGateway(t)
	sock := filepath.Join(g.dir, "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	must(t, err)
	defer l.Close()
	must(t, l.SetReadDeadline(time.Now().Add(30*time.Second)))
	d := g.up("NOTIFY_SOCKET="+sock, "WATCHDOG_USEC=300000")
	hear := func() string {
		b := make([]byte, 256)
		n, err := l.Read(b)
		must(t, err)
		return string(b[:n])
	}
	if got := hear(); got != "READY=1" {
		t.Errorf("first word %q: expected READY=1", got)
	}
	for range 3 {
		if got := hear(); got != "WATCHDOG=1" {
			t.Errorf("word %q: expected WATCHDOG=1", got)
		}
	}
	must(t, d.cmd.Process.Signal(syscall.SIGTERM))
	if out, err := d.end(t); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, out)
	}
	for {
		got := hear()
		if got == "STOPPING=1" {
			break
		}
		if got != "WATCHDOG=1" {
			t.Fatalf("word %q: expected STOPPING=1", got)
		}
	}
}

func TestFindSupervisor(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want supervisor
	}{
		"none":                  {nil, supervisor{}},
		"no watchdog":           {map[string]string{"NOTIFY_SOCKET": "/run/x"}, supervisor{"/run/x", 0}},
		"a watchdog":            {map[string]string{"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, supervisor{"@x", time.Second}},
		"another's":             {map[string]string{"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, supervisor{"@x", 0}},
		"no number":             {map[string]string{"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "soon"}, supervisor{"@x", 0}},
		"a watchdog but no ear": {map[string]string{"WATCHDOG_USEC": "3000000"}, supervisor{}},
	} {
		if got := findSupervisor(func(k string) string { return c.env[k] }, 7); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// What a site that does not answer is told of: nothing.
func TestNoSignOfLifeWithoutLife(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	asked := 0
	must(t, supervisor{sock, time.Millisecond}.serve(ctx, func(context.Context) error {
		if asked++; asked == 3 {
			cancel()
		}
		return errors.New("dead")
	}, slog.New(slog.DiscardHandler)))
	var words []string
	must(t, l.SetReadDeadline(time.Now().Add(time.Second)))
	for range 2 {
		b := make([]byte, 64)
		n, err := l.Read(b)
		must(t, err)
		words = append(words, string(b[:n]))
	}
	if got, _ := json.Marshal(words); string(got) != `["READY=1","STOPPING=1"]` {
		t.Errorf("words %s", got)
	}
}
