//go:build linux

package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
)

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
