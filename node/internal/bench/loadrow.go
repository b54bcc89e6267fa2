//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
)

// background sends a stream to a receiver until it is stopped.
type background struct {
	stop chan struct{}
	done chan error
}

func sendBehind(x *receiver) *background {
	b := &background{stop: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		b.done <- func() error {
			for {
				select {
				case <-b.stop:
					return nil
				default:
				}
				err := x.sender.sender.Do(func() error {
					if err := tie(0, sendCPU); err != nil {
						return err
					}
					return x.gen.Send(1 << 17)
				})
				if err != nil {
					return err
				}
			}
		}()
	}()
	return b
}

func (b *background) end() error {
	close(b.stop)
	return <-b.done
}

// loading is the row load under way: a list replaced in one step while listed
// sources send.
type loading struct {
	*runner
	row   Row
	pop   population
	sent  []xdpbench.Source // what the traffic is of
	wire  *wire
	peers []*receiver
	last  time.Duration // that ours took
	cut   map[string]int
}

// How long a peer may take: intervals of a million addresses keep nft busy for
// minutes. Who is not done after that many times what ours took is stopped, and what
// stands in the table is how long it was waited for.
const (
	loadTimes = 200
	loadLeast = 20 * time.Second
)

func (l *loading) limit() time.Duration { return max(loadLeast, loadTimes*l.last) }

func (r *runner) loadRow() (err error) {
	size := r.size(1000000, 20000)
	if len(r.Sizes) > 0 {
		size = slices.Max(r.Sizes)
	}
	l := &loading{
		runner: r, pop: populate(size), cut: map[string]int{},
		row: Row{ID: "load", Title: fmt.Sprintf("replace a list of %d addresses in one step, under traffic", size), Unit: "ms"},
	}
	defer func() { err = errors.Join(err, r.closeAll()) }()
	if l.wire, err = newWire(hotSources); err != nil {
		return err
	}
	r.later(l.wire.close)
	l.sent = sources(l.pop.listed, hotSources)
	if err := l.wire.stream.SetSources(l.sent); err != nil {
		return err
	}
	subjects, err := l.subjects()
	if err != nil {
		return err
	}
	if l.row.Series, err = r.rounds(r.Rounds, subjects); err != nil {
		return err
	}
	l.conclude()
	r.report.Rows = append(r.report.Rows, l.row)
	return nil
}

// subjects puts everybody's list in force. Intervals are slow to make, so theirs is
// of the senders only, which makes it cheaper for them to be rid of it.
func (l *loading) subjects() ([]subject, error) {
	m, err := newPlane(planeOptions{flows: 65536})
	if err != nil {
		return nil, err
	}
	l.later(m.Close)
	x, err := l.wire.receive(ours, attach(func() (*xdpbench.Program, error) { return xdpbench.Hedgerow(ours, m.Measured) }))
	if err != nil {
		return nil, err
	}
	l.later(x.close)
	if err := m.list(l.pop.listed, nil, time.Now().Add(4*time.Hour)); err != nil {
		return nil, err
	}
	all := []subject{{ours, func() (float64, error) { return l.ours(m, x) }}}
	if !installed("nft") {
		return all, nil
	}
	var senders []netip.Addr
	for _, s := range l.sent {
		senders = append(senders, s.Addr)
	}
	for _, p := range []struct {
		layout
		first []netip.Addr
	}{{nftBouncer, l.pop.listed}, {nftInterval, senders}} {
		x, err := l.wire.receive(p.name, p.install(l.dir, p.first))
		if err != nil {
			return nil, err
		}
		l.later(x.close)
		l.peers = append(l.peers, x)
		all = append(all, subject{p.name, func() (float64, error) { return l.nft(p.layout, x) }})
	}
	return all, nil
}

// conclude compares, and says what has to be known beside the figures.
func (l *loading) conclude() {
	l.row.against(nftBouncer.name, ours, 30)
	l.row.against(nftInterval.name, ours, 150)
	l.row.Notes = append(l.row.Notes, "not one listed packet passed hedgerow meanwhile")
	for _, p := range l.peers {
		if p.gaps > 0 {
			l.row.Notes = append(l.row.Notes, fmt.Sprintf("%s let %d listed packets through its new table while it was replaced", p.name, p.gaps))
		}
		if n := l.cut[p.name]; n > 0 {
			l.row.Notes = append(l.row.Notes, fmt.Sprintf("%s was stopped in %d of %d rounds after %d times what hedgerow took (%s at least): its ratio is higher than it says",
				p.name, n, l.Rounds, loadTimes, loadLeast))
		}
	}
	if !installed("nft") {
		l.row.Notes = append(l.row.Notes, "nftables is left out: nft is not installed")
	}
}

// ours is one replacement. Not one packet of a source that is in the old set and
// in the new one may pass meanwhile.
func (l *loading) ours(m *plane, x *receiver) (float64, error) {
	all := entries(l.pop.listed, nil, time.Now().Add(4*time.Hour))
	was, err := x.verdicts()
	if err != nil {
		return 0, err
	}
	b := sendBehind(x)
	began := time.Now()
	err = m.ReplaceBulk(all)
	l.last = time.Since(began)
	if err := errors.Join(err, b.end()); err != nil {
		return 0, err
	}
	now, err := x.settle(was)
	if err != nil {
		return 0, err
	}
	v := now.Less(was)
	if v.Dropped != v.All() || v.Dropped == 0 {
		return 0, fmt.Errorf("verdicts during a replacement %+v: expected drops only", v)
	}
	l.row.Packets += v.Dropped
	s, err := m.BulkState()
	if err != nil {
		return 0, err
	}
	if s.Enforced != uint64(len(all)) {
		return 0, fmt.Errorf("after a replacement %d of %d entries are enforced", s.Enforced, len(all))
	}
	return l.last.Seconds() * 1e3, nil
}

// nft is one replacement by a peer, or as much of it as there is patience for.
func (l *loading) nft(y layout, x *receiver) (float64, error) {
	file := filepath.Join(l.dir, "load.nft")
	if err := y.write(file, x.iface, l.pop.listed); err != nil {
		return 0, err
	}
	defer os.Remove(file)
	ctx, cancel := context.WithTimeout(l.ctx, l.limit())
	defer cancel()
	b := sendBehind(x)
	began := time.Now()
	err := commandUntil(ctx, x.space, nil, "nft", "-f", file)
	took := time.Since(began)
	stopped := err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded)
	if stopped {
		l.cut[y.name]++
		err = nil
	}
	if err := errors.Join(err, b.end()); err != nil {
		return 0, err
	}
	v, err := x.settle(xdpbench.Verdicts{}) // of the new table only
	if err != nil {
		return 0, err
	}
	if !stopped {
		l.row.Packets += v.All()
		x.gaps += v.Passed // nftables' affair: told, not an error
	}
	return took.Seconds() * 1e3, nil
}
