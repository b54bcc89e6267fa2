//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/netspace"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// victimDir makes the test binary a process that builds a lab and waits to be
// killed.
const victimDir = "HEDGEROW_TEST_LAB_VICTIM"

func victim(dir string) {
	l, err := Up(scenario.New(1), Options{Dir: dir})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	p, err := l.Gateway(scenario.Alder).Start("/bin/sleep", []string{"600"}, nil, nil)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var st unix.Stat_t
	if err := unix.Fstat(l.Gateway(scenario.Alder).space.FD(), &st); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.Pid(), st.Ino)
	select {}
}

// A demo that is killed takes its processes and namespaces with it at once;
// its folder goes with the next run.
func TestKilledDemoLeavesOnlyItsFolder(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var ino uint64
	_, err = fmt.Fscan(out, &pid, &ino)
	killed := cmd.Process.Kill()
	_ = cmd.Wait() // its error is the kill
	if err != nil || killed != nil {
		t.Fatal(err, killed)
	}
	waitFor(t, "the gateway's process to die", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || zombie(pid) })
	waitFor(t, "the namespace to be released", func() bool { return holders(ino) == 0 })
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("on disk: %v %v: expected the run's folder", left, err)
	}
	removeStale(dir, slog.New(slog.DiscardHandler))
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("on disk after the next start: %v %v", left, err)
	}
}

// zombie says whether a process is dead and only waits for its new parent.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("HEDGEROW_KERNEL_TESTS") == "1" {
		t.Fatal("HEDGEROW_KERNEL_TESTS=1 but not root")
	}
	t.Skip("needs root for network namespaces")
}

func up(t *testing.T, seed uint64) *Lab {
	t.Helper()
	l, err := Up(scenario.New(seed), Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// play runs sessions at their times and returns their results when all ended.
func play(ctx context.Context, l *Lab, sessions []scenario.Timed) []scenario.Result {
	out := make([]scenario.Result, len(sessions))
	var wg sync.WaitGroup
	next := time.NewTimer(0)
	defer next.Stop()
	<-next.C
	for i := range sessions {
		next.Reset(sessions[i].After)
		select {
		case <-next.C:
		case <-ctx.Done():
		}
		wg.Go(func() { out[i] = l.Run(ctx, &sessions[i].Session) })
	}
	wg.Wait()
	return out
}

// The world must be sound before any daemon judges it: ordinary work loses
// nothing, and every attack succeeds.
func TestWorldWithoutDefenders(t *testing.T) {
	needRoot(t)
	l := up(t, 11)
	sc := l.sc
	var mu sync.Mutex
	counts := map[string]int{}
	var wg sync.WaitGroup
	run := func(label string, sessions []scenario.Timed) {
		wg.Go(func() {
			for _, r := range play(t.Context(), l, sessions) {
				mu.Lock()
				counts[label]++
				if !r.OK || !r.Answered {
					t.Errorf("%s: %s from %s: %v after %v", label, r.Session.Kind, r.Session.From, r.Err, r.Duration)
				}
				mu.Unlock()
			}
		})
	}
	for _, site := range sc.Sites {
		src := sc.Ordinary(site, 25)
		var work []scenario.Timed
		for range 120 {
			work = append(work, src.Next())
		}
		run(site.Name, work)
		scan := sc.ScanOf(site)
		run("scan", scan[:len(scan)-7])
		run("brute", sc.BruteOf(site)[:12])
		run("beacon", sc.BeaconOf(site, site.Hosts[0].Addr, sc.C2[1])[:4])
		run("spurt", sc.SpurtOf(site, site.Hosts[1].Addr))
	}
	began := time.Now()
	wg.Wait()
	t.Logf("%v in %v", counts, time.Since(began).Round(time.Millisecond))
	if counts[scenario.Alder] != 120 || counts["scan"] != 169 {
		t.Errorf("ran %v", counts)
	}
}

func TestMasqueradedSiteShowsOneAddress(t *testing.T) {
	needRoot(t)
	l := up(t, 5)
	site := l.sc.Site(scenario.Cedar)
	// The conntrack table of the gateway is the witness: the reply of an
	// outbound session goes to the WAN address.
	s := scenario.Session{
		ID: 1, Kind: scenario.DNS, Site: site.Name, From: site.Hosts[0].Addr, To: l.sc.Resolvers[0],
		Port: scenario.PortDNS, Script: []scenario.Exchange{{Up: 40, Down: 80}}, Timeout: 3 * time.Second,
	}
	if r := l.Run(t.Context(), &s); !r.OK {
		t.Fatal(r.Err)
	}
	if lanRoute := l.sc.Site(scenario.Alder).LAN; lanRoute.Contains(site.Hosts[0].Addr) {
		t.Fatal("sites share a network")
	}
	// Without translation there is no way back: outside has no route to cedar's hosts.
	in := s
	in.Inbound, in.From, in.To, in.Kind, in.Port = true, l.sc.Visitors[0], site.Server.Addr, scenario.HTTP, scenario.PortHTTP
	in.Script = []scenario.Exchange{{Up: 200, Down: 500}}
	if r := l.Run(t.Context(), &in); !r.OK {
		t.Errorf("forwarded port: %v", r.Err)
	}
	in.Kind, in.Port, in.Timeout = scenario.Bulk, scenario.PortBulk, time.Second
	if r := l.Run(t.Context(), &in); r.OK {
		t.Error("a port that is not forwarded was reached")
	}
}

func TestProcessesRunInsideTheGateway(t *testing.T) {
	needRoot(t)
	l := up(t, 2)
	gw := l.Gateway(scenario.Birch)
	var out bytes.Buffer
	p, err := gw.Start("/bin/sh", []string{"-c", "cat /proc/net/dev /proc/self/mounts; ls /sys/class/net; exec sleep 600"},
		os.Environ(), &out)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the child's sleep", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Pid()))
		return err == nil && strings.TrimSpace(string(b)) == "sleep"
	})
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"lan0:", "wan0:", "bpf " + gw.BPF + " bpf", "lan0\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("child does not see %q in:\n%s", want, out.String())
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), l.Dir()) {
		t.Error("the lab's mounts are visible outside it")
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	l, err := Up(scenario.New(9), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	var inodes []uint64
	for _, s := range []*netspace.Space{l.outside, l.lans[scenario.Alder], l.gateways[scenario.Cedar].space} {
		var st unix.Stat_t
		if err := unix.Fstat(s.FD(), &st); err != nil {
			t.Fatal(err)
		}
		inodes = append(inodes, st.Ino)
	}
	p, err := l.Gateway(scenario.Alder).Start("/bin/sleep", []string{"600"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if err := syscall.Kill(p.Pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the gateway's process: %v: expected it to be gone", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left on disk: %v %v", left, err)
	}
	for _, ino := range inodes {
		waitFor(t, "namespaces to be released", func() bool { return holders(ino) == 0 })
	}
}

// holders counts threads that live in a network namespace.
func holders(ino uint64) int {
	tasks, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net")
	n := 0
	for _, t := range tasks {
		if to, err := os.Readlink(t); err == nil && to == fmt.Sprintf("net:[%d]", ino) {
			n++
		}
	}
	return n
}

func TestStaleRunsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	mine, err := makeRunDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	mk := func(name, owner string) string {
		d := filepath.Join(dir, name)
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "owner"), []byte(owner), 0o600); err != nil {
			t.Fatal(err)
		}
		return d
	}
	dead := mk(runPrefix+"4194399-x", "long ago")
	reused := mk(fmt.Sprintf("%s%d-x", runPrefix, os.Getpid()), "another start")
	foreign := mk("something-else", "")
	removeStale(dir, slog.New(slog.DiscardHandler))
	for d, want := range map[string]bool{mine: true, foreign: true, dead: false, reused: false} {
		if _, err := os.Stat(d); (err == nil) != want {
			t.Errorf("%s: kept=%v, expected %v", filepath.Base(d), err == nil, want)
		}
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}
