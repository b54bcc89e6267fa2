package xdp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// earlierHash is the ABI hash of the first version's object in testdata/first.o.gz,
// with the layouts that follow.
const earlierHash = "740a071777bf"

type earlierRuleKey struct {
	Addr  kernelAddr
	Port  uint16
	Proto uint8
	_     [5]uint8
}

type earlierRule struct {
	Word, Cover         uint64
	Packets, Bytes      uint64
	Tat                 uint64
	Reason, CoverReason uint32
	Rate, Told          uint32
}

type earlierConfig struct {
	Swept                                                                      uint64
	Mode, EventRate                                                            uint32
	FlowRules, AddrRules, ServiceRules, BlockPrefixes, ObservePrefixes, Nevers uint32
}

// earlier brings the first version in as it did itself: one set of tables for
// an interface, no record of layouts, no pinned programs. It blocks the peer,
// and suspends one flow.
func (l *lab) earlier(t *testing.T, suspended flow.Key) {
	t.Helper()
	spec := packedSpec(t, "testdata/first.o.gz")
	check(t, spec.Variables["xdp_hook"].Set(uint8(dataplane.ToInside)))
	check(t, spec.Variables["tcx_hook"].Set(uint8(dataplane.FromInside)))
	coll, err := ebpf.NewCollection(spec)
	check(t, err)
	defer coll.Close()
	base := filepath.Join(l.pins, hostIface)
	dir := filepath.Join(base, "v"+earlierHash)
	check(t, os.MkdirAll(dir, 0o700))
	for name, m := range coll.Maps {
		if name != "scratch" && !strings.HasPrefix(name, ".") {
			check(t, m.Pin(filepath.Join(dir, name)))
		}
	}
	until := word(dataplane.Block, uint64(bootNow())/1000+uint64(time.Hour/time.Microsecond))
	check(t, coll.Maps["addrs"].Put(earlierRuleKey{Addr: toKernel(peerAddr)}, earlierRule{Word: until, Reason: 7}))
	held := word(dataplane.Suspend, uint64(bootNow())/1000+uint64(time.Hour/time.Microsecond))
	check(t, coll.Maps["verdicts"].Put(flowKey(suspended), earlierRule{Word: held, Reason: 8}))
	check(t, coll.Maps["settings"].Put(uint32(0), earlierConfig{Mode: 1, EventRate: 1000, AddrRules: 1, FlowRules: 1}))
	l.hookVersion(t, coll, base)
}

// The first version's programs are replaced while a blocked sender sends: by
// what could be carried over, and what was applied before the swap, nothing
// passes.
func TestUpgradeFromAnEarlierVersion(t *testing.T) {
	needTCX(t)
	l := newLab(t)
	held := keyOf(peerEnd(9000), hostEnd(9000), flow.UDP)
	l.earlier(t, held)
	arrived, sent := l.barrage(t)
	eventually(t, "traffic under the earlier version", func() bool { return sent.Load() > 200 })
	if n := arrived.Load(); n != 0 {
		t.Fatalf("%d blocked datagrams arrived under the earlier version", n)
	}
	var w words
	o := l.options(dataplane.Enforce)
	o.Log = w.logger()
	var p *Plane
	var err error
	l.in(t, l.host, func() { p, err = Load(o) })
	check(t, err)
	t.Cleanup(func() { p.Close() })
	if !p.Supersedes() {
		t.Error("the plane does not say that it replaces another version's")
	}
	rules, err := p.Rules()
	check(t, err)
	if len(rules) != 1 || rules[0].Rule.Target.Flow != held || rules[0].Rule.Reason != 8 {
		t.Errorf("carried over: %+v: expected the suspended flow, whose table has kept its layout", rules)
	}
	check(t, p.Apply(blockPeer(time.Hour)))
	before := sent.Load()
	l.in(t, l.host, func() { check(t, p.Attach()) })
	eventually(t, "traffic under this version", func() bool { return sent.Load() > before+500 })
	if n := arrived.Load(); n != 0 {
		t.Errorf("%d of %d blocked datagrams arrived over the upgrade", n, sent.Load())
	}
	if left := readDir(filepath.Join(l.pins, hostIface)); len(left) != 4 {
		t.Errorf("left of the earlier version beside this one's links and programs: %v", left)
	}
	t.Logf("%d datagrams sent over the upgrade", sent.Load())
	// That they were dropped by the rule, not lost elsewhere, shows without it.
	check(t, p.Remove(dataplane.Peer(peerAddr), dataplane.Target{Flow: held}))
	eventually(t, "datagrams after removal", func() bool { return arrived.Load() > 0 })
}

// asPlane makes the test binary a process that holds a plane on the pins.
const asPlane = "HEDGEROW_TEST_PLANE"

func TestMain(m *testing.M) {
	if pins := os.Getenv(asPlane); pins != "" {
		if err := holdPlane(pins); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func holdPlane(pins string) error {
	p, err := Open(Options{Interface: hostIface, Role: Host, PinDir: pins, Mode: dataplane.Enforce, SweepEvery: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	rules, err := p.Rules()
	if err != nil {
		return err
	}
	fmt.Println("ready", len(rules))
	go func() { // the end of input is the end of the test that started this, however it ended
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return p.Run(context.Background(), func(*dataplane.Event) {})
}

// process starts another process with a plane, with the capabilities of the
// service in examples/one-gateway, and waits until it filters.
func (l *lab) process(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asPlane+"="+l.pins)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	check(t, err)
	_, err = cmd.StdinPipe()
	check(t, err)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread has lost what it can never have again
		if err := netns.Set(l.host); err != nil {
			started <- err
			return
		}
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			if c == unix.CAP_BPF || c == unix.CAP_NET_ADMIN || c == unix.CAP_PERFMON || c == unix.CAP_SYS_RESOURCE {
				continue
			}
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				started <- fmt.Errorf("drop capability %d: %w", c, err)
				return
			}
		}
		started <- cmd.Start()
	}()
	check(t, <-started)
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	check(t, err)
	if line != "ready 1\n" {
		t.Fatalf("the process says %q: expected to be ready, with one rule", line)
	}
	return cmd
}

// Processes come, are killed without a word, and are taken over from, while a
// blocked sender sends.
func TestKilledProcessesLeaveNoGap(t *testing.T) {
	l := newLab(t)
	first := l.open(t, l.options(dataplane.Enforce))
	check(t, first.Apply(blockPeer(time.Hour)))
	check(t, first.Close())
	arrived, sent := l.barrage(t)
	for range 5 {
		cmd := l.process(t)
		before := sent.Load()
		eventually(t, "traffic under the process", func() bool { return sent.Load() > before+200 })
		check(t, cmd.Process.Kill())
		_ = cmd.Wait() // says that it was killed
		before = sent.Load()
		eventually(t, "traffic without a process", func() bool { return sent.Load() > before+200 })
	}
	if n := arrived.Load(); n != 0 {
		t.Errorf("%d of %d blocked datagrams arrived", n, sent.Load())
	}
	t.Logf("%d datagrams sent over 5 processes that were killed, and 5 takeovers", sent.Load())
	p := l.open(t, l.options(dataplane.Enforce))
	if p.Supersedes() {
		t.Error("the plane says that it replaces another version's tables, which are its own")
	}
	check(t, p.Remove(dataplane.Peer(peerAddr)))
	eventually(t, "datagrams after removal", func() bool { return arrived.Load() > 0 })
}
