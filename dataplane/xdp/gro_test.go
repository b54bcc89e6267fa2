package xdp

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// smallSegments makes both ends of the lab send segments of at most 500 bytes,
// one by one, and the receivers put them together, as far as they are let.
func (l *lab) smallSegments(t *testing.T) {
	t.Helper()
	for ns, name := range map[*netns.NsHandle]string{&l.host: hostIface, &l.peer: peerIface} {
		l.in(t, *ns, func() {
			setOffload(t, name, unix.ETHTOOL_STSO, false)
			setOffload(t, name, unix.ETHTOOL_SGSO, false)
			setOffload(t, name, unix.ETHTOOL_SGRO, true)
			check(t, netlink.RouteReplace(&netlink.Route{LinkIndex: mustLink(t, name).Attrs().Index, Dst: ipNet(netip.MustParseAddr("10.77.0.0"), 24), Scope: netlink.SCOPE_LINK, AdvMSS: 500}))
		})
	}
}

func (l *lab) groOn(t *testing.T) (on bool) {
	t.Helper()
	l.in(t, l.host, func() {
		var err error
		on, err = groOn(hostIface)
		check(t, err)
	})
	return on
}

// Segments far below the link's MTU, of which the kernel would make aggregates:
// in generic mode each is counted as what it was on the wire.
func TestGenericXDPCountsSmallSegments(t *testing.T) {
	l := newLab(t)
	l.smallSegments(t)
	host, peer := l.bothEnds(t, true, true)
	if a, b := spatial(host), spatial(peer); a != b {
		t.Errorf("one connection at two ends:\n%+v\n%+v", a, b)
	}
	for end, d := range host.Dir {
		if d.SizeMax > 600 || d.Payload < 12*60000 || d.Packets < 12*60000/500 {
			t.Errorf("direction %d: %+v: expected packets of about 500 bytes", end, d)
		}
	}
	if !l.groOn(t) {
		t.Error("GRO is off after the planes are closed")
	}
	native, _ := l.bothEnds(t, false, false)
	if a, b := shape(host), shape(native); a != b {
		t.Errorf("the same traffic in generic and in native mode:\n%+v\n%+v", a, b)
	}
}

// shape is what two connections that carry the same have in common. On a busy
// machine one of them may send some again.
func shape(r flow.Record) (out [2][3]uint64) {
	for end, d := range r.Dir {
		if d.Retrans > 0 {
			d.Payload = min(d.Payload, 12*60000)
		}
		out[end] = [3]uint64{d.Payload, uint64(d.SizeMax), uint64(r.NFirst)}
	}
	return out
}

// GRO is off exactly as long as a plane is there in generic mode, across
// restarts, and as it was before when none is.
func TestGROIsGivenBack(t *testing.T) {
	l := newLab(t)
	turn := func(on bool) { l.in(t, l.host, func() { setOffload(t, hostIface, unix.ETHTOOL_SGRO, on) }) }
	says := func(p *Plane, off bool) {
		t.Helper()
		s, err := p.Stats()
		check(t, err)
		if s.Attached[0].GROOff != off || off && l.groOn(t) {
			t.Errorf("GRO is on: %v, switched off: %v: expected switched off: %v", l.groOn(t), s.Attached[0].GROOff, off)
		}
	}
	generic := l.options(dataplane.Enforce)
	generic.Generic = true
	turn(true)

	p := l.open(t, generic)
	says(p, true)
	check(t, p.Close()) // pinned: enforcement goes on, and so does this
	if l.groOn(t) {
		t.Error("GRO is on although the programs are still attached")
	}
	p = l.open(t, generic)
	says(p, true)
	check(t, p.Detach())
	if !l.groOn(t) {
		t.Error("GRO is off after detach")
	}

	check(t, l.open(t, generic).Close())
	l.detachPinned(t)
	if !l.groOn(t) {
		t.Error("GRO is off after the pins were detached")
	}
	if left, err := os.ReadDir(l.pins); err != nil || len(left) != 0 {
		t.Errorf("pins left after detach: %v, %v", left, err)
	}

	keep := generic
	keep.KeepGRO = true
	p = l.open(t, keep)
	says(p, false)
	check(t, p.Detach())

	native := l.open(t, l.options(dataplane.Enforce))
	says(native, false)
	check(t, native.Detach())

	turn(false) // by the operator: it stays so
	p = l.open(t, generic)
	says(p, false)
	check(t, p.Detach())
	if l.groOn(t) {
		t.Error("GRO is on after detach, and was off before")
	}
	turn(true)

	generic.PinDir = ""
	p = l.open(t, generic)
	says(p, true)
	check(t, p.Close())
	if !l.groOn(t) {
		t.Error("GRO is off after an unpinned plane was closed")
	}
}

// A start that fails leaves GRO as it was.
func TestFailedOpenLeavesGRO(t *testing.T) {
	l := newLab(t)
	l.in(t, l.host, func() { setOffload(t, hostIface, unix.ETHTOOL_SGRO, true) })
	check(t, os.MkdirAll(filepath.Join(l.pins, hostIface, pinTCX), 0o700)) // no link: egress fails
	o := l.options(dataplane.Enforce)
	o.Generic = true
	if _, err := l.tryOpen(t, o); err == nil {
		t.Fatal("open over a folder in place of a link: expected an error")
	}
	if !l.groOn(t) {
		t.Error("GRO is off after a failed start")
	}
	if _, err := os.Stat(filepath.Join(l.pins, hostIface, pinGRO)); err == nil {
		t.Error("the note of GRO is left after a failed start")
	}
}
