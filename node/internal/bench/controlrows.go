//go:build linux

package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/nftables"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
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

// loadRow replaces a whole list in one step while listed sources send.
func (r *runner) loadRow() (err error) {
	size := r.size(1000000, 20000)
	row := Row{ID: "load", Title: fmt.Sprintf("replace a list of %d addresses in one step, under traffic", size), Unit: "ms"}
	pop := populate(size)
	w, err := newWire(streamLimit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.stream.SetSources(sources(pop.listed, hotSources)); err != nil {
		return err
	}
	var subjects []subject
	var peers []*receiver
	m, err := newPlane(planeOptions{flows: 65536})
	if err != nil {
		return err
	}
	x, err := w.receive(ours, attach(func() (*xdpbench.Program, error) { return xdpbench.Hedgerow(ours, m.Measured) }))
	if err != nil {
		return errors.Join(err, m.Close())
	}
	x.closers = append(x.closers, m)
	defer func() { err = errors.Join(err, x.close()) }()
	if err := m.list(pop.listed, nil, time.Now().Add(4*time.Hour)); err != nil {
		return err
	}
	subjects = append(subjects, subject{ours, func() (float64, error) { return loadOurs(m, x, pop, &row) }})
	if installed("nft") {
		for _, l := range []layout{nftBouncer, nftInterval} {
			p, err := w.receive(l.name, l.install(r.dir, pop.listed))
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, p.close()) }()
			peers = append(peers, p)
			subjects = append(subjects, subject{l.name, func() (float64, error) { return r.loadNft(l, p, pop, &row) }})
		}
	}
	if row.Series, err = r.rounds(r.Rounds, subjects); err != nil {
		return err
	}
	row.against(nftBouncer.name, ours, 30)
	row.against(nftInterval.name, ours, 150)
	row.Notes = append(row.Notes, "not one listed packet passed hedgerow meanwhile")
	for _, p := range peers {
		if p.gaps > 0 {
			row.Notes = append(row.Notes, fmt.Sprintf("%s let %d listed packets through its new table while it was replaced", p.name, p.gaps))
		}
	}
	if !installed("nft") {
		row.Notes = append(row.Notes, "nftables is left out: nft is not installed")
	}
	r.report.Rows = append(r.report.Rows, row)
	return nil
}

// loadOurs is one replacement. Not one packet of a source that is in the old
// set and in the new one may pass meanwhile.
func loadOurs(m *plane, x *receiver, pop population, row *Row) (float64, error) {
	all := entries(pop.listed, nil, time.Now().Add(4*time.Hour))
	was, err := x.verdicts()
	if err != nil {
		return 0, err
	}
	b := sendBehind(x)
	began := time.Now()
	err = m.ReplaceBulk(all)
	took := time.Since(began)
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
	row.Packets += v.Dropped
	s, err := m.BulkState()
	if err != nil {
		return 0, err
	}
	if s.Enforced != uint64(len(all)) {
		return 0, fmt.Errorf("after a replacement %d of %d entries are enforced", s.Enforced, len(all))
	}
	return took.Seconds() * 1e3, nil
}

func (r *runner) loadNft(l layout, x *receiver, pop population, row *Row) (float64, error) {
	file := filepath.Join(r.dir, "load.nft")
	if err := l.write(file, x.iface, pop.listed); err != nil {
		return 0, err
	}
	defer os.Remove(file)
	b := sendBehind(x)
	began := time.Now()
	err := command(x.space, nil, "nft", "-f", file)
	took := time.Since(began)
	if err := errors.Join(err, b.end()); err != nil {
		return 0, err
	}
	v, err := x.settle(xdpbench.Verdicts{}) // of the new table only
	if err != nil {
		return 0, err
	}
	row.Packets += v.All()
	x.gaps += v.Passed // nftables' affair: told, not an error
	return took.Seconds() * 1e3, nil
}

// Subjects of the row block. The peer keeps its socket open, which is more than
// blocklist bouncers do. No change of a map costs less than one call.
const (
	netlinkAdd = "nft netlink"
	oneCall    = "one bare map update"
)

// updates are bare calls; the median in microseconds.
func updates(u *xdpbench.Update, n int) (float64, error) {
	took := make([]float64, n)
	for i := range took {
		began := time.Now()
		if err := u.Do(); err != nil {
			return 0, err
		}
		took[i] = float64(time.Since(began).Nanoseconds()) / 1e3
	}
	slices.Sort(took)
	return quantile(took, 0.5), nil
}

// blockRow is single blocks beside a list of 100,000.
func (r *runner) blockRow() (err error) {
	size, each := r.size(100000, 5000), r.size(2000, 200)
	row := Row{ID: "block", Title: fmt.Sprintf("one block, from the call until it is enforced, beside %d addresses", size), Unit: "us, median of each round"}
	pop := populate(size)
	until := time.Now().Add(4 * time.Hour)
	m, err := newPlane(planeOptions{flows: 65536, rules: uint32(size) + 65536})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := errors.Join(m.list(pop.listed, nil, until), m.stages()); err != nil {
		return err
	}
	stream, err := xdpbench.NewStream(xdpbench.Ends{From: sendMAC, To: recvMAC, Dst: recvAddr}, each)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	prog, err := xdpbench.Hedgerow(ours, m.Measured)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, prog.Close()) }()
	fresh := pop.others[:each]
	if err := stream.SetSources(inOrder(fresh)); err != nil {
		return err
	}
	tail := Series{Name: ours + ", p99"}
	subjects := []subject{{ours, func() (float64, error) {
		took, err := blockOurs(m, prog, stream, fresh, until, &row)
		if err != nil {
			return 0, err
		}
		tail.Values = append(tail.Values, quantile(took, 0.99))
		return quantile(took, 0.5), nil
	}}}
	floor, err := xdpbench.NewUpdate()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, floor.Close()) }()
	subjects = append(subjects, subject{oneCall, func() (float64, error) { return updates(floor, each) }})
	nftTail := Series{Name: netlinkAdd + ", p99"}
	if installed("nft") {
		w, err := newWire(1)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.close()) }()
		x, err := w.receive(netlinkAdd, nftBouncer.install(r.dir, pop.listed))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, x.close()) }()
		subjects = append(subjects, subject{netlinkAdd, func() (float64, error) {
			took, err := blockNft(x, fresh)
			if err != nil {
				return 0, err
			}
			nftTail.Values = append(nftTail.Values, quantile(took, 0.99))
			return quantile(took, 0.5), nil
		}})
	} else {
		row.Notes = append(row.Notes, "nftables is left out: nft is not installed")
	}
	if row.Series, err = r.rounds(r.Rounds, subjects); err != nil {
		return err
	}
	row.against(netlinkAdd, ours, 20)
	row.against(netlinkAdd, oneCall, 0)
	row.Ratios = append(row.Ratios, Ratio{
		Name: "p99 of a block in ms, the worst round", Mean: slices.Max(tail.Values) / 1e3, Bound: slices.Max(tail.Values) / 1e3, Target: 1, AtMost: true,
	})
	for _, s := range []Series{tail, nftTail} {
		if s.Median = median(s.Values); len(s.Values) > 0 {
			row.Series = append(row.Series, s)
		}
	}
	r.report.Rows = append(r.report.Rows, row)
	return nil
}

func inOrder(addrs []netip.Addr) []xdpbench.Source {
	out := make([]xdpbench.Source, len(addrs))
	for i, a := range addrs {
		out[i] = xdpbench.Source{Addr: a, Port: 4000}
	}
	return out
}

// blockOurs blocks each address by itself and returns the sorted times, in
// microseconds. Then one packet of each must be dropped.
func blockOurs(m *plane, prog *xdpbench.Program, s *xdpbench.Stream, addrs []netip.Addr, until time.Time, row *Row) ([]float64, error) {
	took := make([]float64, len(addrs))
	targets := make([]dataplane.Target, len(addrs))
	for i, a := range addrs {
		targets[i] = dataplane.Peer(a)
		rule := dataplane.Rule{Target: targets[i], Action: dataplane.Block, Expires: until, Reason: 9}
		began := time.Now()
		if err := m.Apply(rule); err != nil {
			return nil, err
		}
		took[i] = float64(time.Since(began).Nanoseconds()) / 1e3
	}
	was, err := prog.Verdicts()
	if err != nil {
		return nil, err
	}
	if _, err := prog.Run(s, len(addrs)); err != nil {
		return nil, err
	}
	now, err := prog.Verdicts()
	if err != nil {
		return nil, err
	}
	if v := now.Less(was); v != (xdpbench.Verdicts{Dropped: uint64(len(addrs))}) {
		return nil, fmt.Errorf("after %d blocks the verdicts were %+v: expected as many drops", len(addrs), v)
	}
	row.Packets += uint64(len(addrs))
	slices.Sort(took)
	return took, m.Remove(targets...)
}

// blockNft adds each address by itself over netlink, as a bouncer may.
func blockNft(x *receiver, addrs []netip.Addr) ([]float64, error) {
	c, err := nftables.New(nftables.WithNetNSFd(x.space.FD()), nftables.AsLasting())
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.CloseLasting() }() // a socket of ours; nothing waits in it
	table := &nftables.Table{Name: nftTable, Family: nftables.TableFamilyIPv4}
	set, err := c.GetSetByName(table, "blocked")
	if err != nil {
		return nil, fmt.Errorf("find the set: %w", err)
	}
	took := make([]float64, len(addrs))
	var all []nftables.SetElement
	for i, a := range addrs {
		e := []nftables.SetElement{{Key: a.AsSlice(), Timeout: 4 * time.Hour}}
		began := time.Now()
		if err := c.SetAddElements(set, e); err != nil {
			return nil, err
		}
		if err := c.Flush(); err != nil {
			return nil, fmt.Errorf("add an element: %w", err)
		}
		took[i] = float64(time.Since(began).Nanoseconds()) / 1e3
		all = append(all, nftables.SetElement{Key: e[0].Key})
	}
	slices.Sort(took)
	for part := range slices.Chunk(all, 100) {
		if err := c.SetDeleteElements(set, part); err != nil {
			return nil, err
		}
		if err := c.Flush(); err != nil {
			return nil, fmt.Errorf("delete elements: %w", err)
		}
	}
	return took, nil
}
