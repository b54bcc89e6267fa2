package xdp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

const (
	patience   = 5 * time.Second
	impatience = 300 * time.Millisecond
)

func blockPeer(lifetime time.Duration) dataplane.Rule {
	return dataplane.Rule{Target: dataplane.Peer(peerAddr), Action: dataplane.Block, Expires: time.Now().Add(lifetime), Reason: 7}
}

func TestRealConnection(t *testing.T) {
	l := newLab(t)
	p := l.open(t, l.options(dataplane.Enforce))
	events := collect(t, p)
	addr := l.echo(t)
	if err := l.talk(t, addr, strings.Repeat("hello ", 20000), patience); err != nil {
		t.Fatal(err)
	}
	end := events.wait(t, "end of the connection", func(e *dataplane.Event) bool {
		return e.Kind == dataplane.EventEnd && e.Record.End == flow.EndFIN
	})
	r := end.Record
	if r.Initiator().Addr() != peerAddr || r.Responder() != addr {
		t.Errorf("record is of %s -> %s: expected %s -> %s", r.Initiator(), r.Responder(), peerAddr, addr)
	}
	if !r.Validated[0] || !r.Validated[1] || r.SynAckUS == 0 || r.AckUS == 0 {
		t.Errorf("handshake: validated %v, %d us, %d us: expected all known", r.Validated, r.SynAckUS, r.AckUS)
	}
	s, err := p.Stats()
	check(t, err)
	// Both directions carry the same bytes, however the stack cut them up. On a
	// busy machine it also sends some again, and a packet that comes while another
	// processor stands still with the flow in its hands is counted apart.
	for e := range 2 {
		if d := r.Dir[e]; d.Payload+1500*s.FlowsUntracked < 120000 || d.Payload > 120000 && d.Retrans == 0 {
			t.Errorf("direction %d: payload %d with %d segments sent again, %d untracked: expected 120000", e, d.Payload, d.Retrans, s.FlowsUntracked)
		}
		if r.Dir[e].SizeMax > 1500 {
			t.Errorf("direction %d: largest packet %d: expected what fits the link", e, r.Dir[e].SizeMax)
		}
	}
	if r.InitInside || !r.RespInside {
		t.Errorf("inside: initiator %v, responder %v: expected only the responder", r.InitInside, r.RespInside)
	}
	if d := time.Since(time.Unix(0, r.Start)); d < 0 || d > time.Minute {
		t.Errorf("start %s ago: expected just now", d)
	}
	if s.AttachMode != modeNative || s.Dropped != 0 {
		t.Errorf("attached %q, dropped %d: expected native, 0", s.AttachMode, s.Dropped)
	}
}

func TestBlockAndExpiryInKernel(t *testing.T) {
	l := newLab(t)
	p := l.open(t, l.options(dataplane.Enforce))
	addr := l.echo(t)
	check(t, p.Apply(blockPeer(time.Hour)))
	if err := l.talk(t, addr, "x", impatience); err == nil {
		t.Fatal("a blocked peer connected")
	}
	check(t, p.Remove(dataplane.Peer(peerAddr)))
	if err := l.talk(t, addr, "x", patience); err != nil {
		t.Fatalf("after removal: %v", err)
	}
	// Nothing runs in userspace from here: only the kernel can lift this one.
	until := time.Now().Add(time.Second)
	check(t, p.Apply(blockPeer(time.Second)))
	if err := l.talk(t, addr, "x", impatience); err == nil && time.Now().Before(until) {
		t.Fatal("a blocked peer connected")
	}
	check(t, p.Close())
	eventually(t, "expiry", func() bool { return l.talk(t, addr, "x", impatience) == nil })
	if time.Now().Before(until) {
		t.Error("expired too early")
	}
}

func TestMonitorDropsNothing(t *testing.T) {
	l := newLab(t)
	p := l.open(t, l.options(dataplane.Monitor))
	events := collect(t, p)
	addr := l.echo(t)
	check(t, p.Apply(blockPeer(time.Hour)))
	if err := l.talk(t, addr, "x", patience); err != nil {
		t.Fatalf("in monitor mode: %v", err)
	}
	e := events.wait(t, "first drop", func(e *dataplane.Event) bool { return e.Kind == dataplane.EventFirstDrop })
	if e.Reason != 7 || e.Mode != dataplane.Monitor || e.At == 0 {
		t.Errorf("first drop: reason %d, mode %s, at %d: expected 7, monitor, a time", e.Reason, e.Mode, e.At)
	}
	s, err := p.Stats()
	check(t, err)
	if s.Dropped != 0 || s.WouldDrop == 0 {
		t.Errorf("dropped %d, would drop %d: expected 0 and more", s.Dropped, s.WouldDrop)
	}
	check(t, p.SetMode(dataplane.Enforce))
	if err := l.talk(t, addr, "x", impatience); err == nil {
		t.Error("after the switch to enforce a blocked peer connected")
	}
}

func TestEnforcementOutlivesTheProcess(t *testing.T) {
	l := newLab(t)
	p := l.open(t, l.options(dataplane.Enforce))
	addr := l.echo(t)
	check(t, p.Apply(blockPeer(time.Hour)))
	check(t, p.Close())
	if err := l.talk(t, addr, "x", impatience); err == nil {
		t.Fatal("with the plane closed a blocked peer connected")
	}
	l.detachPinned(t)
	if err := l.talk(t, addr, "x", patience); err != nil {
		t.Fatalf("after detach: %v", err)
	}
	left, err := os.ReadDir(l.pins)
	check(t, err)
	if len(left) != 0 {
		t.Errorf("pins left after detach: %v", left)
	}
	check(t, DetachPinned(filepath.Join(l.pins, "never-was")))
}

// While a daemon works on the pins nobody else does, and is told who it is.
func TestPinsBelongToOneProcess(t *testing.T) {
	l := newLab(t)
	p := l.open(t, l.options(dataplane.Enforce))
	addr := l.echo(t)
	check(t, p.Apply(blockPeer(time.Hour)))
	want := fmt.Sprintf("process %d works on it", os.Getpid())
	var held *HeldError
	if _, err := l.tryOpen(t, l.options(dataplane.Enforce)); !errors.As(err, &held) || !strings.Contains(err.Error(), want) {
		t.Errorf("second open: %v: expected an error with %q", err, want)
	}
	if err := DetachPinned(l.pins); !errors.As(err, &held) {
		t.Errorf("detach: %v: expected a HeldError", err)
	}
	if err := l.talk(t, addr, "x", impatience); err == nil {
		t.Error("a blocked peer connected after the refused detach")
	}
	check(t, p.Detach())
	if err := l.talk(t, addr, "x", patience); err != nil {
		t.Fatalf("after detach: %v", err)
	}
	if err := p.Apply(blockPeer(time.Hour)); !errors.Is(err, dataplane.ErrClosed) {
		t.Errorf("apply after detach: %v: expected ErrClosed", err)
	}
	l.open(t, l.options(dataplane.Enforce))
}

// A blocked sender keeps sending while planes come and go; nothing may arrive.
func TestTakeoverHasNoGap(t *testing.T) {
	l := newLab(t)
	first := l.open(t, l.options(dataplane.Enforce))
	check(t, first.Apply(blockPeer(time.Hour)))
	check(t, first.Close())
	arrived, sent := l.barrage(t)
	for range 5 {
		before := sent.Load()
		p := l.open(t, l.options(dataplane.Enforce))
		rules, err := p.Rules()
		check(t, err)
		if len(rules) != 1 || rules[0].Rule.Target != dataplane.Peer(peerAddr) || rules[0].Rule.Reason != 7 {
			t.Fatalf("rules after takeover: %+v: expected the block of the peer", rules)
		}
		eventually(t, "traffic after takeover", func() bool { return sent.Load() > before+200 })
		check(t, p.Close())
	}
	if n := arrived.Load(); n != 0 {
		t.Errorf("%d of %d blocked datagrams arrived", n, sent.Load())
	}
	t.Logf("%d datagrams sent over 5 takeovers", sent.Load())
	// That they were dropped by the rule, not lost elsewhere, shows without it.
	p := l.open(t, l.options(dataplane.Enforce))
	check(t, p.Remove(dataplane.Peer(peerAddr)))
	eventually(t, "datagrams after removal", func() bool { return arrived.Load() > 0 })
}

// barrage sends datagrams from the peer to the host until the test ends.
func (l *lab) barrage(t *testing.T) (arrived, sent *atomic.Int64) {
	t.Helper()
	var in, out *net.UDPConn
	l.in(t, l.host, func() {
		var err error
		in, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(hostAddr, 9000)))
		check(t, err)
	})
	l.in(t, l.peer, func() {
		var err error
		out, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(hostAddr, 9000)))
		check(t, err)
	})
	arrived, sent = new(atomic.Int64), new(atomic.Int64)
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 64)
		for {
			if _, err := in.Read(buf); err != nil {
				return
			}
			arrived.Add(1)
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := out.Write([]byte("x")); errors.Is(err, net.ErrClosed) {
				return
			}
			sent.Add(1)
		}
	}()
	t.Cleanup(func() { in.Close(); out.Close(); <-done; <-done })
	return arrived, sent
}

func TestForeignProgramIsRefused(t *testing.T) {
	l := newLab(t)
	foreign := passProgram(t, "not_ours")
	var other link.Link
	l.in(t, l.host, func() {
		var err error
		other, err = link.AttachXDP(link.XDPOptions{Program: foreign, Interface: mustLink(t, hostIface).Attrs().Index})
		check(t, err)
	})
	_, err := l.tryOpen(t, l.options(dataplane.Monitor))
	if err == nil || !strings.Contains(err.Error(), `name "not_ours"`) {
		t.Errorf("open beside a foreign program: %v: expected an error that names it", err)
	}
	l.assertNothingLeft(t)
	var r Report
	l.in(t, l.host, func() { r = Probe(hostIface, "") })
	if r.OK() || !strings.Contains(finding(r, "other xdp program").Detail, "not_ours") {
		t.Errorf("probe: %+v: expected the foreign program as fatal", r)
	}
	check(t, other.Close())
	l.open(t, l.options(dataplane.Monitor))
}

// assertNothingLeft checks that a failed Open left neither pins nor programs.
func (l *lab) assertNothingLeft(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(l.pins); err == nil && len(left) > 0 {
		t.Errorf("pins left by a failed open: %v", left)
	}
	if left := l.filters(t); len(left) > 0 {
		t.Errorf("egress filters left by a failed open: %v", left)
	}
	if !since(t, 6, 6) {
		return
	}
	l.in(t, l.host, func() {
		res, err := link.QueryPrograms(link.QueryOptions{Target: mustLink(t, hostIface).Attrs().Index, Attach: ebpf.AttachTCXEgress})
		check(t, err)
		if len(res.Programs) > 0 {
			t.Errorf("egress programs left by a failed open: %v", res.Programs)
		}
	})
}

func passProgram(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	check(t, err)
	t.Cleanup(func() { prog.Close() })
	return prog
}

func finding(r Report, name string) Finding {
	for _, f := range r.Findings {
		if f.Name == name {
			return f
		}
	}
	return Finding{}
}

// The second hook fails: the first must be taken back.
func TestNoPartialAttach(t *testing.T) {
	l := newLab(t)
	base := filepath.Join(l.pins, hostIface)
	check(t, os.MkdirAll(base, 0o700))
	stone, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	check(t, err)
	defer stone.Close()
	check(t, stone.Pin(filepath.Join(base, pinTCX)))
	if _, err := l.tryOpen(t, l.options(dataplane.Enforce)); err == nil || !strings.Contains(err.Error(), pinTCX) {
		t.Fatalf("open over a foreign pin: %v: expected an error that names %s", err, pinTCX)
	}
	l.in(t, l.host, func() {
		if x := mustLink(t, hostIface).Attrs().Xdp; x != nil && x.Attached {
			t.Errorf("XDP is still attached after a failed open: %+v", x)
		}
	})
	left, err := os.ReadDir(base)
	check(t, err)
	if len(left) != 1 || left[0].Name() != pinTCX {
		t.Errorf("pins left by a failed open: %v", left)
	}
}

// A failed takeover leaves the earlier plane's programs and mode in force.
func TestFailedTakeoverKeepsTheOld(t *testing.T) {
	l := newLab(t)
	p := l.open(t, l.options(dataplane.Enforce))
	addr := l.echo(t)
	check(t, p.Apply(blockPeer(time.Hour)))
	check(t, p.Close())
	pin := pinTCX
	if !since(t, 6, 6) {
		pin = pinXDP // a filter is no link
	}
	hook := filepath.Join(l.pins, hostIface, pin)
	aside := filepath.Join(l.pins, "aside")
	check(t, os.Rename(hook, aside))
	check(t, os.Mkdir(hook, 0o700)) // cannot be opened as a link
	if _, err := l.tryOpen(t, l.options(dataplane.Monitor)); err == nil {
		t.Fatal("open over a folder in place of a link: expected an error")
	}
	if err := l.talk(t, addr, "x", impatience); err == nil {
		t.Error("after a failed takeover a blocked peer connected")
	}
	check(t, os.Remove(hook))
	check(t, os.Rename(aside, hook))
	l.open(t, l.options(dataplane.Enforce))
}

func TestInterfaceThatCameBack(t *testing.T) {
	l := newLab(t)
	p := l.open(t, l.options(dataplane.Enforce))
	check(t, p.Apply(blockPeer(time.Hour)))
	check(t, p.Close())
	l.unplug(t)
	l.plug(t)
	addr := l.echo(t)
	if err := l.talk(t, addr, "x", patience); err != nil {
		t.Fatalf("a new interface without a plane: %v", err)
	}
	l.open(t, l.options(dataplane.Enforce))
	if err := l.talk(t, addr, "x", impatience); err == nil {
		t.Error("the rules of before are not enforced on the new interface")
	}
}

// A build with other layouts makes its own tables, but takes over those that
// are the same: what was decided is enforced without anybody applying it anew.
func TestTablesOfAnotherVersion(t *testing.T) {
	l := newLab(t)
	o := l.options(dataplane.Enforce)
	p := l.open(t, o)
	check(t, p.Apply(blockPeer(time.Hour)))
	check(t, p.Close())
	addr := l.echo(t)
	o.MaxFlows = 2048 // another layout of one table
	q := l.open(t, o)
	rules, err := q.Rules()
	check(t, err)
	if len(rules) != 1 || rules[0].Rule.Target != dataplane.Peer(peerAddr) || rules[0].Rule.Reason != 7 {
		t.Errorf("rules over a change of another table's layout: %v: expected the block of the peer", rules)
	}
	if err := l.talk(t, addr, "x", impatience); err == nil {
		t.Error("a blocked peer connected")
	}
	check(t, q.Close())
	o.maxRules = 1024 // and now of those with the rules
	q = l.open(t, o)
	if rules, err := q.Rules(); err != nil || len(rules) != 0 {
		t.Errorf("rules over a change of layout: %v, %v: expected none", rules, err)
	}
	check(t, q.Apply(blockPeer(time.Hour)))
	if err := l.talk(t, addr, "x", impatience); err == nil {
		t.Error("a blocked peer connected")
	}
	dirs, err := filepath.Glob(filepath.Join(l.pins, tablesPrefix+"*"))
	check(t, err)
	if len(dirs) != 1 {
		t.Errorf("versions pinned: %v: expected one", dirs)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	l := newLab(t)
	plain := t.TempDir()
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"missing interface": {func(o *Options) { o.Interface = "nope0" }, "not found: choose one of"},
		"no bpffs":          {func(o *Options) { o.PinDir = filepath.Join(plain, "pins") }, "mount -t bpf"},
		"no name":           {func(o *Options) { o.Interface = "" }, "interface: is required"},
		"few flows":         {func(o *Options) { o.MaxFlows = 3 }, "max flows 3"},
	} {
		o := l.options(dataplane.Monitor)
		c.change(&o)
		_, err := l.tryOpen(t, o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v: expected %q", name, err, c.want)
		}
	}
	l.assertNothingLeft(t)
}

func TestGenericMode(t *testing.T) {
	l := newLab(t)
	o := l.options(dataplane.Enforce)
	o.Generic, o.PinDir = true, ""
	p := l.open(t, o)
	addr := l.echo(t)
	if err := l.talk(t, addr, "hello", patience); err != nil {
		t.Fatal(err)
	}
	check(t, p.Apply(blockPeer(time.Hour)))
	if err := l.talk(t, addr, "x", impatience); err == nil {
		t.Error("a blocked peer connected")
	}
	s, err := p.Stats()
	check(t, err)
	if s.AttachMode != modeGeneric {
		t.Errorf("attached %q: expected generic", s.AttachMode)
	}
	check(t, p.Close()) // nothing is pinned: this opens the way
	if err := l.talk(t, addr, "x", patience); err != nil {
		t.Errorf("after close of an unpinned plane: %v", err)
	}
}

func TestIdleFlowsEnd(t *testing.T) {
	l := newLab(t)
	o := l.options(dataplane.Monitor)
	o.Idle = Idle{Unanswered: 30 * time.Millisecond, TCP: time.Hour, Other: 30 * time.Millisecond}
	p := l.open(t, o)
	events := collect(t, p)
	l.barrageOnce(t)
	e := events.wait(t, "end of an idle flow", func(e *dataplane.Event) bool {
		return e.Kind == dataplane.EventEnd && e.Record.Key.Proto == flow.UDP && e.Record.Key.BPort == 9001
	})
	if e.Record.End != flow.EndIdle || e.Record.Packets() == 0 {
		t.Errorf("end %d after %d packets: expected idle after some", e.Record.End, e.Record.Packets())
	}
	eventually(t, "an empty table", func() bool {
		s, err := p.Stats()
		check(t, err)
		return s.Flows == 0 && s.FlowsTotal > 0 && s.FlowsEvicted == 0
	})
}

func (l *lab) barrageOnce(t *testing.T) {
	t.Helper()
	l.in(t, l.peer, func() {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(hostAddr, 9001)))
		check(t, err)
		defer c.Close()
		_, err = c.Write([]byte("x"))
		check(t, err)
	})
}

func TestProbe(t *testing.T) {
	l := newLab(t)
	var r, missing Report
	l.in(t, l.host, func() { r, missing = Probe(hostIface, ""), Probe("nope0", "") })
	if !r.OK() {
		t.Errorf("probe: %+v: expected nothing fatal", r)
	}
	for name, asks := range map[string][2]int{"privileges": {}, "xdp": {}, "ring buffer": {}, "tcx": {6, 6}, "native xdp": {6, 3}} {
		want := Fine
		if !since(t, asks[0], asks[1]) {
			want = Limited
		}
		if f := finding(r, name); f.Level != want {
			t.Errorf("probe of %s: %+v: expected %s", name, f, want)
		}
	}
	if missing.OK() {
		t.Error("probe of a missing interface found nothing fatal")
	}
	// As Load would say of the same folder.
	l.in(t, l.host, func() { r = Probe(hostIface, t.TempDir()) })
	if f := finding(r, "bpffs"); f.Level != Fatal || !strings.Contains(f.Detail, "not in a BPF file system") {
		t.Errorf("probe with a pin folder on a disk: %+v: expected a fatal finding", f)
	}
}
