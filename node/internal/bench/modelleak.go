//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
	"github.com/hedgerow-mesh/hedgerow/node/internal/netspace"
)

// ModelLeak is what one way of deciding let through of flows that it detects at
// their fourth packet: sent over a veth pair, counted behind the packet path.
type ModelLeak struct {
	By       string  `json:"by"`   // "kernel", "userspace", "nobody" for the control
	Rate     int     `json:"rate"` // packets a second that were asked for; 0: as many as go
	Got      float64 `json:"got"`  // packets a second
	Flows    int     `json:"flows"`
	Sent     uint64  `json:"sent"`
	Behind   uint64  `json:"behind"`   // packets that came through
	Leaked   int64   `json:"leaked"`   // of them, those from the deciding packet's successor on
	Deciding int64   `json:"deciding"` // deciding packets that came through
	Verdicts uint64  `json:"verdicts"`
}

// Ways of deciding.
const (
	byKernel = "kernel"
	byUser   = "userspace"
	byNobody = "nobody"
)

// leaks compares the kernel's own verdict with that of a process which reads
// the same milestone, evaluates the same scorer, and asks for the same suspension.
func (r *ModelReport) leaks(ctx context.Context, o *ModelOptions) error {
	each := 200
	if o.Quick {
		each = 50
	}
	for _, rate := range []int{10_000, 100_000, 0} {
		for _, by := range []string{byKernel, byUser, byNobody} {
			o.Progress(fmt.Sprintf("leaks at %d packets a second, decided by %s", rate, by))
			one, err := leak(ctx, by, rate, each)
			if err != nil {
				return fmt.Errorf("leaks at %d packets a second, decided by %s: %w", rate, by, err)
			}
			r.Leaks = append(r.Leaks, one)
		}
	}
	return nil
}

const leakFlows = 100

// detector suspends what is sent to the port of a measurement at its fourth packet.
func detector() *score.Scorer {
	port := int32(recvAddr.Port())
	s := &score.Scorer{Version: 1, Forests: []score.Forest{{Trees: []score.Tree{
		{Depth: 2, Feature: [6]uint8{score.Service, score.Service}, Threshold: [6]int32{port - 1, port}, Leaf: []int16{0, 1, 0, 0}},
	}}}}
	for m := range s.Steps {
		s.Steps[m] = score.Step{Limit: score.Never, Suspend: score.Never}
	}
	s.Steps[0].Limit, s.Steps[0].Suspend = 1, 1
	return s
}

// leakLine is a sender and a receiver with the plane on it.
type leakLine struct {
	send, recv *netspace.Space
	plane      *xdpbench.Pinned
	behind     *xdpbench.Behind
	socket     int
}

func newLeakLine() (l *leakLine, err error) {
	l = &leakLine{socket: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.send, err = netspace.New("sender"); err != nil {
		return l, err
	}
	if l.recv, err = netspace.New("receiver"); err != nil {
		return l, err
	}
	for _, s := range []*netspace.Space{l.send, l.recv} {
		for _, conf := range []string{"all", "default"} {
			if err := quiet(s, conf); err != nil {
				return l, err
			}
		}
	}
	index := 0
	err = l.send.Do(func() error {
		if _, err := netspace.Cable("ml0", "ml1", l.recv); err != nil {
			return err
		}
		link, err := up("ml0")
		if err == nil {
			index = link.Attrs().Index
		}
		return err
	})
	if err != nil {
		return l, err
	}
	err = l.recv.Do(func() error {
		link, err := up("ml1")
		if err != nil {
			return err
		}
		if l.behind, err = xdpbench.CountBehind(link.Attrs().Index); err != nil {
			return err
		}
		l.plane, err = xdpbench.OpenPinned("ml1", "")
		return err
	})
	if err != nil {
		return l, err
	}
	return l, l.send.Do(func() (err error) {
		if l.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		return unix.Bind(l.socket, &unix.SockaddrLinklayer{Ifindex: index})
	})
}

func (l *leakLine) close() error {
	var errs []error
	if l.socket >= 0 {
		errs = append(errs, unix.Close(l.socket))
	}
	if l.plane != nil {
		errs = append(errs, l.recv.Do(l.plane.Close))
	}
	if l.behind != nil {
		errs = append(errs, l.behind.Close())
	}
	for _, s := range []*netspace.Space{l.send, l.recv} {
		if s != nil {
			s.Close()
		}
	}
	return errors.Join(errs...)
}

// pump sends the frames of one flow after the other, at a rate. It sleeps to keep that
// rate, not to wait for anything.
func (l *leakLine) pump(rate, each int) (sent uint64, took time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	frame := xdpbench.Frame(xdpbench.Ends{From: sendMAC, To: recvMAC, Dst: recvAddr})
	start := time.Now()
	for n := range leakFlows * each {
		if rate > 0 {
			for due := start.Add(time.Duration(n) * time.Second / time.Duration(rate)); time.Now().Before(due); {
				if left := time.Until(due); left > 300*time.Microsecond {
					time.Sleep(left - 200*time.Microsecond)
				}
			}
		}
		xdpbench.Readdress(frame, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, 0, 1}), uint16(20000+n/each)), recvAddr)
		if err := unix.Send(l.socket, frame, 0); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return sent, 0, fmt.Errorf("send: %w", err)
		} else if err == nil {
			sent++
		}
	}
	return sent, time.Since(start), nil
}

// leak is one case.
func leak(ctx context.Context, by string, rate, each int) (one ModelLeak, err error) {
	one = ModelLeak{By: by, Rate: rate, Flows: leakFlows}
	l, err := newLeakLine()
	if err != nil {
		return one, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if by == byKernel {
		if err := l.plane.SetScoring(dataplane.Scoring{Active: detector()}); err != nil {
			return one, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	var verdicts atomic.Uint64
	go func() { done <- l.plane.Run(ctx, judge(l.plane, by, &verdicts)) }()
	var took time.Duration
	one.Sent, took, err = l.pump(rate, each)
	if err == nil {
		one.Behind, err = l.settled(&verdicts, by)
	}
	cancel()
	if err = errors.Join(err, <-done); err != nil {
		return one, err
	}
	one.Got, one.Verdicts = float64(one.Sent)/took.Seconds(), verdicts.Load()
	return one, one.conclude()
}

// judge is what the process does with each event: what it would do for itself
// where it decides.
func judge(p *xdpbench.Pinned, by string, verdicts *atomic.Uint64) func(*dataplane.Event) {
	s := detector()
	return func(e *dataplane.Event) {
		switch {
		case e.Kind == dataplane.EventVerdict:
			verdicts.Add(1)
		case by == byUser && e.Kind == dataplane.EventMilestone:
			v, at, ok := score.FromRecord(&e.Record)
			if !ok || s.Decide(at, s.Eval(at, &v)) != score.Suspend {
				return
			}
			err := p.Apply(dataplane.Rule{Target: dataplane.Target{Flow: e.Record.Key}, Action: dataplane.Suspend, Expires: time.Now().Add(dataplane.DefaultHold)})
			if err == nil {
				verdicts.Add(1)
			}
		}
	}
}

// settled waits until nothing more comes through, and says how many did.
func (l *leakLine) settled(verdicts *atomic.Uint64, by string) (uint64, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last, same := uint64(0), 0
	for began := time.Now(); time.Since(began) < patience; <-tick.C {
		n, err := l.behind.Count()
		if err != nil {
			return 0, err
		}
		if n == last && (by == byNobody || verdicts.Load() >= leakFlows) {
			if same++; same >= 5 {
				return n, nil
			}
			continue
		}
		last, same = n, 0
	}
	return last, nil
}

// conclude counts what leaked. Where the kernel decides, the deciding packet is
// not to come through either.
func (m *ModelLeak) conclude() error {
	before := int64(3 * m.Flows)
	switch m.By {
	case byNobody:
		if m.Behind < m.Sent*9/10 {
			return fmt.Errorf("control: %d of %d packets came through with nobody to decide", m.Behind, m.Sent)
		}
		return nil
	case byKernel:
		m.Deciding = min(int64(m.Flows), max(0, int64(m.Behind)-before))
	case byUser:
		m.Deciding = int64(m.Flows)
	}
	m.Leaked = max(0, int64(m.Behind)-before-m.Deciding)
	if m.Verdicts < uint64(m.Flows) {
		return fmt.Errorf("%d verdicts of %d flows", m.Verdicts, m.Flows)
	}
	return nil
}
