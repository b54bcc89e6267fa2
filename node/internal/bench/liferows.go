//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
	"github.com/hedgerow-mesh/hedgerow/node/internal/forwarding"
)

// forwardRow compares a gateway that thinks with one that does not.
func (r *runner) forwardRow() error {
	row := Row{ID: "forward", Title: "forwarding through the gateway, busy (training, rounds, reloads) against idle", Unit: "busy over idle"}
	defer func() { r.report.Rows = append(r.report.Rows, row) }()
	if len(r.Gateway) == 0 {
		row.Absent = "no command for the gateway was given"
		return nil
	}
	window := 2 * time.Second
	if r.Quick {
		window = 200 * time.Millisecond
	}
	rep, err := forwarding.Measure(r.ctx, forwarding.Options{
		Command: r.Gateway, Rounds: r.Rounds, Window: window,
		Progress: func(done, of int, what string) { _ = r.doing("%d of %d: %s", done+1, of, what) },
	})
	if err != nil {
		return err
	}
	row.busyAgainstIdle(rep)
	row.Notes = append(row.Notes, fmt.Sprintf("meanwhile %d trainings, %d rounds of the mesh, %d reloads of %d entries",
		rep.Work.Trainings, rep.Work.Rounds, rep.Work.Reloads, rep.Work.Listed))
	return nil
}

// busyAgainstIdle fills a row with round trips and throughput, and what they are to
// those of an idle gateway.
func (row *Row) busyAgainstIdle(rep *forwarding.Report) {
	p99 := func(f forwarding.Figures) float64 { return f.P99.Seconds() * 1e6 }
	bytes := func(f forwarding.Figures) float64 { return f.Bytes / 1e6 }
	var lat, rate [4]Series
	for i, x := range []struct {
		name string
		of   []forwarding.Figures
	}{{"idle", rep.Idle}, {"busy", rep.Busy}, {"idle again", rep.Again}, {"a bare loop", rep.Loop}} {
		lat[i], rate[i] = pick(x.name+" p99, us", x.of, p99), pick(x.name+" MB/s", x.of, bytes)
	}
	row.Series = append(lat[:], rate[:]...)
	idleLat, idleRate := between(lat[0].Values, lat[2].Values), between(rate[0].Values, rate[2].Values)
	row.Ratios = []Ratio{
		compare("p99 busy / idle before and after", lat[1].Values, idleLat, 1.1, true),
		compare("throughput idle before and after / busy", idleRate, rate[1].Values, 1.1, true),
		compare("control: p99 idle again / idle", lat[2].Values, lat[0].Values, 0, true),
		compare("control: throughput idle / idle again", rate[0].Values, rate[2].Values, 0, true),
		compare("control: p99 beside a bare loop / idle", lat[3].Values, idleLat, 0, true),
		compare("control: throughput idle / beside a bare loop", idleRate, rate[3].Values, 0, true),
	}
}

// between is the geometric mean of what was measured before and after.
func between(before, after []float64) []float64 {
	mid := make([]float64, min(len(before), len(after)))
	for i := range mid {
		mid[i] = math.Sqrt(before[i] * after[i])
	}
	return mid
}

func pick(name string, all []forwarding.Figures, of func(forwarding.Figures) float64) Series {
	s := Series{Name: name}
	for _, f := range all {
		s.Values = append(s.Values, of(f))
	}
	s.Median = median(s.Values)
	return s
}

const (
	leakPins  = "/sys/fs/bpf/hedgerow-bench"
	reloads   = 50
	takeovers = 5
)

// leakRow sends listed sources through reloads, takeovers and a kill, and
// counts behind the packet path what came through.
func (r *runner) leakRow() (err error) {
	want := uint64(r.size(20000000, 200000))
	row := Row{ID: "leaks", Title: fmt.Sprintf("%d reloads, %d takeovers and a kill -9, under traffic", reloads, takeovers), Unit: "packets that came through"}
	if len(r.Doomed) == 0 {
		row.Absent = "no command for the process to be killed was given"
		r.report.Rows = append(r.report.Rows, row)
		return nil
	}
	w, err := newWire(hotSources)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	pop := populate(r.size(100000, 5000))
	attackers := sources(pop.listed, hotSources)
	if err := w.stream.SetSources(attackers); err != nil {
		return err
	}
	l := &leaks{runner: r, pop: pop}
	x, err := w.receive(ours, l.install)
	if err != nil {
		return err
	}
	l.at = x
	defer func() { err = errors.Join(err, l.close(), x.close()) }()
	if err := l.control(); err != nil {
		return err
	}
	if err := x.space.Do(func() error { return l.load(l.plane, 0) }); err != nil {
		return err
	}
	before, err := l.behind.Count()
	if err != nil {
		return err
	}
	dropped, err := l.ordeal(x, want)
	if err != nil {
		return err
	}
	after, err := l.behind.Count()
	if err != nil {
		return err
	}
	leaked := float64(after - before)
	row.Packets = dropped
	row.Series = []Series{{Name: ours, Values: []float64{leaked}, Median: leaked}}
	row.Ratios = []Ratio{{Name: fmt.Sprintf("leaked of %d packets, plus one", dropped), Mean: leaked + 1, Bound: leaked + 1, Target: 1, AtMost: true}}
	r.report.Rows = append(r.report.Rows, row)
	return nil
}

type leaks struct {
	*runner
	at     *receiver
	pop    population
	plane  *xdpbench.Pinned
	behind *xdpbench.Behind
}

// install puts the plane on the receiver, pinned, and a counter behind it.
func (l *leaks) install(x *receiver) (func() (xdpbench.Verdicts, error), error) {
	l.at = x
	err := x.space.Do(func() (err error) {
		if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
			return fmt.Errorf("mount a BPF file system: %w", err)
		}
		if l.behind, err = xdpbench.CountBehind(x.index); err != nil {
			return err
		}
		l.plane, err = xdpbench.OpenPinned(x.iface, leakPins)
		return err
	})
	return func() (v xdpbench.Verdicts, err error) {
		s, err := l.plane.Stats()
		return xdpbench.Verdicts{Dropped: s.Dropped, Passed: s.Packets - s.Dropped}, err
	}, err
}

func (l *leaks) close() error {
	if l.plane == nil {
		return nil
	}
	return errors.Join(l.at.space.Do(l.plane.Detach), l.behind.Close())
}

// control shows that the counter counts: without a list all comes through.
func (l *leaks) control() error {
	const n = 5000
	if _, _, err := l.at.handle(n); err != nil {
		return err
	}
	got, err := l.behind.Count()
	if err != nil {
		return err
	}
	if got == 0 {
		return errors.New("without any list nothing came through: the counter behind does not count")
	}
	return nil
}

// load makes the list anew; all versions hold the attackers.
func (l *leaks) load(p *xdpbench.Pinned, version int) error {
	addrs := append([]netip.Addr(nil), l.pop.listed...)
	addrs = append(addrs, l.pop.others[:version*10]...)
	return p.ReplaceBulk(entries(addrs, nil, time.Now().Add(4*time.Hour)))
}

// ordeal does everything at once, and goes on until enough packets were dropped.
func (l *leaks) ordeal(x *receiver, want uint64) (dropped uint64, err error) {
	was, err := x.verdicts()
	if err != nil {
		return 0, err
	}
	b := sendBehind(x)
	defer func() {
		err = errors.Join(err, b.end())
		if err == nil {
			now, e := x.settle(was)
			dropped, err = now.Less(was).Dropped, e
		}
	}()
	for i := range reloads {
		if err := l.doing("reload %d of %d", i+1, reloads); err != nil {
			return 0, err
		}
		if err := x.space.Do(func() error { return l.load(l.plane, i+1) }); err != nil {
			return 0, err
		}
		if i%(reloads/takeovers) == 0 {
			if err := l.takeOver(x, i == reloads/2); err != nil {
				return 0, err
			}
		}
	}
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		now, err := x.verdicts()
		if err != nil {
			return 0, err
		}
		if now.Less(was).Dropped >= want {
			tick.Stop()
			return 0, nil
		}
		if err := l.doing("%d of %d packets", now.Less(was).Dropped, want); err != nil {
			return 0, err
		}
	}
}

// takeOver lets the plane go, as a daemon does that ends, and opens the next one
// over the pins; in between a process may take over too, and is killed at once.
func (l *leaks) takeOver(x *receiver, kill bool) error {
	if err := l.plane.Close(); err != nil {
		return err
	}
	if kill {
		if err := l.sacrifice(x); err != nil {
			return err
		}
	}
	return x.space.Do(func() error {
		next, err := xdpbench.OpenPinned(x.iface, leakPins)
		if err == nil {
			l.plane = next
		}
		return err
	})
}

// sacrifice starts a process that takes over, and kills it when it says so.
func (l *leaks) sacrifice(x *receiver) error {
	return x.space.Do(func() error {
		c := exec.Command(l.Doomed[0], l.Doomed[1:]...)
		var msg bytes.Buffer
		c.Stdin, c.Stderr = strings.NewReader(x.iface+"\n"), &msg
		out, err := c.StdoutPipe()
		if err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return err
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if killed := c.Process.Kill(); killed != nil {
			return killed
		}
		_ = c.Wait() // it was killed, and says so
		if err != nil || strings.TrimSpace(line) != doomedReady {
			return fmt.Errorf("the process to be killed did not take over: %w: %s", err, bytes.TrimSpace(msg.Bytes()))
		}
		return nil
	})
}

const doomedReady = "enforcing"

// Doomed is the life of the process that is killed: it reads the name of an
// interface, takes over there, says so, and waits.
func Doomed(in io.Reader, out io.Writer) error {
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the name of an interface: %w", err)
	}
	p, err := xdpbench.OpenPinned(strings.TrimSpace(line), leakPins)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, doomedReady); err != nil {
		return errors.Join(err, p.Close())
	}
	select {} // until it is killed
}
